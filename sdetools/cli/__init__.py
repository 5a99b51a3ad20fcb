"""The command line interface `sdetools`.

Each command is a module of this package, imported below. Heavy dependencies are imported inside the commands, so `--help` is fast.
"""

from sdetools.cli import bench, diagnose, gap, slow, train, verify
from sdetools.cli.common import main

__all__ = ["bench", "diagnose", "gap", "main", "slow", "train", "verify"]
