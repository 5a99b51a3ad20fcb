"""Entry point of `python -m sdetools.cli`."""

import sys
from pathlib import Path

from sdetools.cli import main

if __name__ == "__main__":
    main(prog_name=f"{Path(sys.executable).name} -m sdetools.cli")
