"""May I drop momentum here? Labels by complete runs, the fit of the probability of "keep", and its evaluation.

    python benchmarks/dropping_momentum run --part fitted         complete runs for the fit
    python benchmarks/dropping_momentum run --part "held out"     complete runs of other networks, after the coefficients were frozen
"""

from __future__ import annotations

import argparse
from pathlib import Path

from labels import TABLE


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make the missing rows of the table")
    run.add_argument("--part", choices=("fitted", "held out"), required=True, help="the networks")
    run.add_argument("--out", type=Path, default=TABLE, help="the table (default: labels.csv in this folder)")
    run.add_argument("--share", default="0/1", help="this process and their number, such as 0/2 (default 0/1)")
    run.add_argument("--minutes", type=float, default=float("inf"), help="start no setting after this time (default: no limit)")
    options = parser.parse_args()
    if options.command == "run":
        import run as making

        making.command(options.part, options.out, options.share, options.minutes)


if __name__ == "__main__":
    main()
