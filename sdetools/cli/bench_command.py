"""The command `sdetools bench`: its arguments, its tables and its files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdetools.benchmarking.machine import hardware, show

DIMENSION_FILE = Path("bench-dimension.json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdetools bench",
        description="Measure the speed of the kernels, compared with other implementations or, with --dimension, with the machine's limit.",
        epilog="Example: sdetools bench --quick --json bench.json. Example: sdetools bench --dimension --plot dimension.png",
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs and fewer paths, for a first impression")
    parser.add_argument("--part", choices=("speed", "variance"), help="only this part")
    parser.add_argument(
        "--dimension",
        nargs="?",
        const="",
        metavar="LIST",
        help="instead: SGDM in each dimension from 1 to 10,000, or in those of a list like 2,64,512: nanoseconds per coordinate-step and "
        "the roofline (matrix products at the measured peak plus the draws), seconds to the first result of an unseen loss, and "
        "the cost of pairs, threads and single precision. Takes some minutes; one with --quick",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="with --dimension: write a figure to FILE (.png, .svg, .pdf)")
    parser.add_argument("--threads", type=int, metavar="N", help="the larger number of threads (default: all cores)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"write all numbers to FILE, with hardware and versions (with --dimension by default {DIMENSION_FILE})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `sdetools bench`, which prints its tables, and return the exit code 0.

    Args:
        argv: Command-line arguments after `sdetools bench`; those of the process if None.

    Returns:
        0. Invalid arguments end in SystemExit with exit code 2 instead, `--help` in SystemExit with exit code 0.

    Example:
        >>> main(["--part", "nothing"])
        Traceback (most recent call last):
        ...
        SystemExit: 2
    """
    parser = _parser()
    options = parser.parse_args(argv)
    from sdetools.simulation.threads import MOST_THREADS, available_threads

    most = available_threads() if options.threads is None else options.threads
    if not 1 <= most <= MOST_THREADS:
        parser.error(f"--threads must be between 1 and {MOST_THREADS}")
    for file in filter(None, (options.json, options.plot)):
        if not file.absolute().parent.is_dir():
            parser.error(f"{file} must be in an existing folder")
    if options.dimension is not None:
        if options.part:
            parser.error("--part and --dimension exclude each other")
        _dimension(parser, options, most)
    elif options.plot:
        parser.error("--plot needs --dimension")
    else:
        _core_loop(options, most)
    return 0


def _dimension(parser: argparse.ArgumentParser, options: argparse.Namespace, threads: int) -> None:
    from sdetools.benchmarking.dimension import QUICK, QUICK_DIMS, dimension_table
    from sdetools.claims.folder import write_text
    from sdetools.cli.common import bar

    dims: Sequence[int] | None = QUICK_DIMS if options.quick else None
    if options.dimension:
        try:
            dims = [int(word) for word in options.dimension.split(",")]
        except ValueError:
            parser.error(f"--dimension takes a list like 2,64,512; got {options.dimension!r}")
    if options.plot:
        from matplotlib.figure import Figure

        if options.plot.suffix[1:] not in Figure().canvas.get_supported_filetypes():
            parser.error(f"--plot must end in .png, .svg or .pdf; got {options.plot}")
    with bar() as (label, advance):

        def progress(what: str, done: int, total: int) -> None:
            if advance is not None:
                label(what)
                advance(done, total)

        try:
            found = dimension_table(dims, threads, QUICK if options.quick else None, progress)
        except ValueError as error:
            parser.error(str(error))
    print(", ".join(f"{key} {value}" for key, value in found.hardware.items()))
    for block in found.blocks():
        show(*block)
    for line in found.remarks():
        print(line)
    file = options.json or DIMENSION_FILE
    write_text(Path(file), found.to_json())
    print(f"wrote {file}")
    if options.plot:
        found.plot().savefig(options.plot, dpi=150)
        print(f"wrote {options.plot}")


def _core_loop(options: argparse.Namespace, most: int) -> None:
    from sdetools.benchmarking.core_loop import speed
    from sdetools.benchmarking.variance import reductions

    report: dict[str, Any] = {"hardware": hardware(), "threads": most}
    print(", ".join(f"{key} {value}" for key, value in report["hardware"].items()))
    if options.part != "variance":
        rows, absent = speed(sorted({1, most}), options.quick)
        report |= {"speed": rows, "absent": absent}
        show(
            "Core loop: 2-D SGDM on the hyperbola, Gaussian noise unless stated otherwise, double precision",
            ["implementation", "threads", "ns per path-step", "fastest to slowest round", "times sdetools", "remark"],
            [
                [r["way"], str(r["threads"]), f"{r['ns_per_path_step']:.2f}", f"{r['fastest']:.2f} to {r['slowest']:.2f}",
                 f"{r['ratio']:.2f}", r["note"]]
                for r in rows
            ],
        )  # fmt: skip
        for line in absent:
            print(line)
    if options.part != "speed":
        paths, exponents = (20_000, (7, 9)) if options.quick else (200_000, (7, 8, 9, 10, 11))
        table = reductions(paths, exponents, most)
        report["variance_reduction"] = table
        show(
            f"Variance of independent sampling over the gap's: beta = 0.9, sigma = eta^-1/2, T = 1, {table[0]['paths']:,} paths",
            ["loss", "noise", "h", "eta", "coupled, at T", "with control", "coupled, at the maximum", "with control"],
            [
                [r["loss"], r["noise"], r["observable"], f"2^{round(np.log2(r['eta']))}",
                 *(f"{r[key]:.1f}" for key in ("coupled", "controlled", "coupled_at_max", "controlled_at_max"))]
                for r in table
            ],
        )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
