"""May I drop momentum here? Labels by complete runs, the fit of the probability of "keep", and its evaluation.

python benchmarks/dropping_momentum run --part fitted         complete runs for the fit
python benchmarks/dropping_momentum fit --write               the coefficients of sdetools/bridge/keep_probability.json, and the evaluation
python benchmarks/dropping_momentum run --part unseen     complete runs of other networks, after the coefficients were frozen
python benchmarks/dropping_momentum fit                       the evaluation of the frozen coefficients on them
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# the folder of this package in place of its own, whose modules have names that are too plain for the path
sys.path[0] = str(Path(__file__).resolve().parents[1])

from dropping_momentum.labels import TABLE, read, summary  # noqa: E402


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make the missing rows of the table")
    run.add_argument("--part", choices=("fitted", "unseen"), required=True, help="the networks")
    run.add_argument("--out", type=Path, default=TABLE, help="the table (default: labels.csv in this folder)")
    run.add_argument("--share", default="0/1", help="this process and their number, such as 0/2 (default 0/1)")
    run.add_argument("--minutes", type=float, default=float("inf"), help="start no setting after this time (default: no limit)")
    fit = commands.add_parser("fit", help="fit and evaluate")
    fit.add_argument("--table", type=Path, default=TABLE, help="the table (default: labels.csv in this folder)")
    fit.add_argument(
        "--write", action="store_true", help="freeze the coefficients; refused once unseen networks are in the table"
    )
    options = parser.parse_args()
    if options.command == "run":
        from dropping_momentum import run as making

        making.command(options.part, options.out, options.share, options.minutes)
    else:
        from dropping_momentum import fit as fitting

        rows = read(options.table)
        if options.write and fitting.of_part(rows, "unseen"):
            parser.error("the coefficients are frozen: the table has rows of unseen networks, which must not influence them.")
        print("\n".join([f"{part}: {summary(fitting.of_part(rows, part))}" for part in ("fitted", "unseen")] + [""]))
        print("\n".join(fitting.command(rows, options.write)))


if __name__ == "__main__":
    main()
