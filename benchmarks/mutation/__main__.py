"""Mutants: formulas changed on purpose, one at a time, and who notices.

    python benchmarks/mutation --sample 40                        what CI runs: some minutes
    python benchmarks/mutation --sample 400 --standard --write    the whole run, and its table in benchmarks/mutation/README.md

A mutant is one small change in one formula: a constant or a factor times 1.02, a flipped sign, a dropped term, an index off by one, a wrong time,
swapped arguments. `formulas.toml` lists the formulas with the claims that state them, `equivalent.toml` the mutants that change nothing. A mutant
meets its claims first, at the quick budget: a claim kills it by coming out *contradicted*, and is over with its first plain number outside its range.
What they miss meets, with `--standard`, the same claims at that budget, then the tests of its room until the first failure. In the end all that
killed a mutant is tried without one: what fails there too has noticed nothing. Crashes are counted apart, for they say nothing of the formula.

What makes it quick: what is cheap and sharp comes first (claims at quick, the tests that noticed a change of the same function before, doctests of the
file, the sharpest test file, the room, slow tests last; `--write` keeps what was seen in `order.json`); third-party libraries are loaded once and every
mutant runs in a fork of that process; compiled kernels stay on disk between mutants, named by their text.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

from making import drawn
from meeting import CLAIM, CRASHED, SURVIVED, TEST, Meeting, Order, run
from table import ROOT, Formula, Table

ORDER = Path(__file__).with_name("order.json")


def open_by_crash(met: Meeting) -> bool:
    """Whether a claim crashed and none was contradicted: what the claims say of it is open."""
    return met.fate != CLAIM and any(verdict.startswith("crashed") for verdict in met.verdicts.values())


def score(meetings: list[Meeting]) -> dict[str, tuple[int, int]]:
    """(killed, counted) by anybody, and by claims at quick and in all among the mutants of formulas that claims state."""
    counted = [m for m in meetings if m.fate != CRASHED]
    stated = [m for m in counted if m.stated and not open_by_crash(m)]
    return {
        "tests and claims": (sum(m.fate != SURVIVED for m in counted), len(counted)),
        "claims at quick": (sum(m.by.endswith("(quick)") for m in stated), len(stated)),
        "claims": (sum(m.fate == CLAIM for m in stated), len(stated)),
    }


def report(meetings: list[Meeting], table: Table, seconds: float, command: str) -> str:
    """The table formula -> claims -> score, and every survivor."""
    lines = ["# Mutants", "", "Formulas changed on purpose, one small change at a time, and who noticed: `--help` says how.", ""]
    lines += [f"`{command}`: {len(meetings)} mutants in {seconds / 60:.0f} minutes.", ""]
    lines += [f"- {name}: {killed} of {of} ({killed / max(1, of):.1%})" for name, (killed, of) in score(meetings).items()]
    crashed = sum(m.fate == CRASHED for m in meetings)
    left = sum(m.stated and m.fate != CRASHED and open_by_crash(m) for m in meetings)
    lines += [
        f"- crashed, and counted nowhere: {crashed}; a claim crashed and tests noticed, not counted under claims: {left}",
        "",
    ]
    lines += [
        "| formula | claims that state it | mutants | by claims | by tests | survived | crashed |",
        "|---|---|---|---|---|---|---|",
    ]
    for formula in table.formulas:
        own = [m for m in meetings if m.formula == formula.name]
        if own:
            fates = [sum(m.fate == fate for m in own) for fate in (CLAIM, TEST, SURVIVED, CRASHED)]
            lines.append(f"| {formula.name} | {', '.join(formula.claims) or '-'} | {len(own)} | {' | '.join(map(str, fates))} |")
    for title, kept in (
        ("Survivors", [m for m in meetings if m.fate == SURVIVED]),
        ("Killed by tests where a claim states the formula", [m for m in meetings if m.fate == TEST and m.stated]),
    ):
        lines += ["", f"## {title}", ""] + [
            f"- `{' '.join(m.mutant.key.split())}` (line {m.mutant.line}){': ' + m.by if m.by else ''}" for m in kept
        ]
    lines += [
        "",
        f"[{len(table.equivalent)} mutants](equivalent.toml) change nothing that a result depends on, each argued, and are never drawn.",
    ]
    return "\n".join(lines) + "\n"


def _asked(formula: Formula, whom: str, tests: list[str] | None) -> Formula:
    """The formula with only its claims, its tests, or other tests."""
    asked = replace(formula, claims=()) if whom == "tests" else replace(formula, tests=()) if whom == "claims" else formula
    return replace(asked, tests=tuple(tests)) if tests else asked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=40, help="mutants to draw (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--only", default="", help="a part of the keys of mutants to draw from, such as a file or a function")
    parser.add_argument("--formula", default="", help="a part of the names of formulas to draw from")
    parser.add_argument("--standard", action="store_true", help="claims that missed a mutant at quick meet it at standard")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="mutants at a time (default: cores)")
    parser.add_argument(
        "--least", type=float, default=0.9, help="exit with 1 when tests and claims kill less than this part (default .9)"
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="draw no more mutants after that long (default: no limit)"
    )
    parser.add_argument("--log", type=Path, help="a file of finished meetings, from which a broken off run goes on")
    parser.add_argument("--list", action="store_true", help="print the drawn mutants and stop")
    parser.add_argument("--write", action="store_true", help="write benchmarks/mutation/README.md")
    parser.add_argument("--ask", choices=("both", "claims", "tests"), default="both", help="whom to ask (default both)")
    parser.add_argument("--tests", nargs="+", help="only these tests, for a quick look at how sharp they are")
    parser.add_argument("--planted", action="store_true", help="the planted mutants of the table instead of drawn ones")
    options = parser.parse_args()
    table = Table.read()
    if options.tests or options.ask != "both":
        table = replace(table, formulas=tuple(_asked(f, options.ask, options.tests) for f in table.formulas))
    order = Order.read(ORDER)
    everything = table.planted if options.planted else table.mutants()
    pool = [m for m in everything if options.only in m.key and options.formula in table.formula(m.file, m.where).name]  # type: ignore[union-attr]
    chosen = drawn(pool, options.sample, options.seed)
    print(f"{len(chosen)} of {len(pool)} mutants, seed {options.seed}", flush=True)
    if options.list:
        print(*(f"{m.kind:9s}{m.key}" for m in chosen), sep="\n")
        return 0
    began = time.perf_counter()
    meetings = run(chosen, table, options.workers, options.standard, options.log, options.minutes, order)
    asked = {"--sample": options.sample, "--seed": options.seed, "--only": options.only, "--formula": options.formula}
    switches = [f"--{name}" for name in ("standard", "planted") if getattr(options, name)]
    command = " ".join(["python benchmarks/mutation", *(f"{name} {value}" for name, value in asked.items() if value), *switches])
    text = report(meetings, table, time.perf_counter() - began, command)
    print(text)
    if options.write:
        (ROOT / "benchmarks" / "mutation" / "README.md").write_text(text)
        order.learn(meetings).write(ORDER)
    killed, counted = score(meetings)["tests and claims"]
    return int(killed < options.least * counted)


if __name__ == "__main__":
    raise SystemExit(main())
