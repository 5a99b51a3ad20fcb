"""Entry point of `python -m sdetools`, the same as the command `sdetools`; `torchrun ... -m sdetools train RECIPE` needs a module."""

import sys
from pathlib import Path

from sdetools.cli import main

if __name__ == "__main__":
    main(prog_name=f"{Path(sys.executable).name} -m sdetools")
