"""The command line interface `sdetools`.

Each command is a module of this package, imported below. Heavy dependencies are imported inside the commands, so `--help` is fast.

Words of this package: `options` are the values of a command's options by name, as click passes them; `ctx` is click's context of the
command. A chunk is a set of paths that is simulated at once; finished chunks are kept in the store, a file in the folder of `--out`, from
which `--resume` continues.
"""

from sdetools.cli import bench, compare, diagnose, gap, risk, slow, sweep, train, verify
from sdetools.cli.common import main

__all__ = ["bench", "compare", "diagnose", "gap", "main", "risk", "slow", "sweep", "train", "verify"]
