"""The command line. Everything heavy is imported inside the commands, so that `--help` answers at once.

A command is a file here, and a name in this line.
"""

from . import bench, diagnose, gap, slow, train, verify
from .frame import main

__all__ = ["bench", "diagnose", "gap", "main", "slow", "train", "verify"]
