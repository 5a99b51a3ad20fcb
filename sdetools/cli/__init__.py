"""The command line. Everything heavy is imported inside the commands, so that `--help` answers at once.

A command is a file here, and a name in this line.
"""

from sdetools.cli import bench, diagnose, gap, slow, train, verify
from sdetools.cli.common import main

__all__ = ["bench", "diagnose", "gap", "main", "slow", "train", "verify"]
