"""Mutation testing: formulas with one small deliberate change each, and the claims and tests that detect it.

    python benchmarks/mutation --sample 10                        the run of the CI: some minutes
    python benchmarks/mutation --sample 400 --standard --write    the full run, with its table in benchmarks/mutation/README.md

A mutant is one small change of one formula: a constant or a factor times 1.02, a flipped sign, a dropped term, an index off by one, a wrong
time, swapped arguments. `formulas.toml` lists the formulas with the claims that state them, `equivalent.toml` the equivalent mutants.
A mutant is first checked by its claims at the quick budget: a claim kills it with the verdict *contradicted*, and stops at its first
deterministic number outside its range. Undetected mutants are checked, with `--standard`, by the same claims at that budget, then by the
tests of their package until the first failure. In the end every claim and test that killed a mutant runs without one: a failure there shows
that it has not detected anything. Crashes are counted separately, as they are not evidence about the formula.

Runs are fast for three reasons. Cheap and sensitive checks come first (claims at quick, tests that detected a change of the same function
before, doctests of the file, the most sensitive test file, the package, slow tests last; `--write` saves this history in `order.json`).
Third-party libraries are loaded once, and every mutant runs in a fork of that process. Compiled kernels stay on disk between mutants, named
by their source code.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

from evaluation import CLAIM, CRASHED, SURVIVED, TEST, Evaluation, Order, run
from mutants import sampled
from table import ROOT, Formula, Table

ORDER = Path(__file__).with_name("order.json")


def inconclusive_by_crash(evaluation: Evaluation) -> bool:
    """Return whether a claim crashed and none was contradicted, so that the claims' result is unknown."""
    return evaluation.fate != CLAIM and any(verdict.startswith("crashed") for verdict in evaluation.verdicts.values())


def score(evaluations: list[Evaluation]) -> dict[str, tuple[int, int]]:
    """Return (killed, counted) by claims or tests, and by claims at quick and in total among the mutants of formulas stated by claims."""
    counted = [m for m in evaluations if m.fate != CRASHED]
    stated = [m for m in counted if m.stated and not inconclusive_by_crash(m)]
    return {
        "tests and claims": (sum(m.fate != SURVIVED for m in counted), len(counted)),
        "claims at quick": (sum(m.by.endswith("(quick)") for m in stated), len(stated)),
        "claims": (sum(m.fate == CLAIM for m in stated), len(stated)),
    }


def report(evaluations: list[Evaluation], table: Table, seconds: float, command: str) -> str:
    """Return the table of formulas, claims and scores, and all survivors, as Markdown."""
    lines = [
        "# Mutants",
        "",
        "Formulas with one small deliberate change each, and the claims and tests that detect it (see `--help`).",
        "",
    ]
    lines += [f"`{command}`: {len(evaluations)} mutants in {seconds / 60:.0f} minutes.", ""]
    lines += [f"- {name}: {killed} of {of} ({killed / max(1, of):.1%})" for name, (killed, of) in score(evaluations).items()]
    crashed = sum(m.fate == CRASHED for m in evaluations)
    left = sum(m.stated and m.fate != CRASHED and inconclusive_by_crash(m) for m in evaluations)
    lines += [
        f"- crashed, not counted: {crashed}; crashed in a claim and killed by tests, not counted under claims: {left}",
        "",
    ]
    lines += [
        "| formula | claims that state it | mutants | by claims | by tests | survived | crashed |",
        "|---|---|---|---|---|---|---|",
    ]
    for formula in table.formulas:
        own = [m for m in evaluations if m.formula == formula.name]
        if own:
            fates = [sum(m.fate == fate for m in own) for fate in (CLAIM, TEST, SURVIVED, CRASHED)]
            lines.append(f"| {formula.name} | {', '.join(formula.claims) or '-'} | {len(own)} | {' | '.join(map(str, fates))} |")
    for title, kept in (
        ("Survivors", [m for m in evaluations if m.fate == SURVIVED]),
        ("Killed by tests where a claim states the formula", [m for m in evaluations if m.fate == TEST and m.stated]),
    ):
        lines += ["", f"## {title}", ""] + [
            f"- `{' '.join(m.mutant.key.split())}` (line {m.mutant.line}){': ' + m.by if m.by else ''}" for m in kept
        ]
    lines += [
        "",
        f"[{len(table.equivalent)} mutants](equivalent.toml) are equivalent, each with its justification, and are never drawn.",
    ]
    return "\n".join(lines) + "\n"


def _restricted(formula: Formula, whom: str, tests: list[str] | None) -> Formula:
    """Return the formula with only its claims, only its tests, or with other tests."""
    asked = replace(formula, claims=()) if whom == "tests" else replace(formula, tests=()) if whom == "claims" else formula
    return replace(asked, tests=tuple(tests)) if tests else asked


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=40, help="number of mutants to draw (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default 0)")
    parser.add_argument("--only", default="", help="draw from mutants whose key contains this, such as a file or a function")
    parser.add_argument("--formula", default="", help="draw from formulas whose name contains this")
    parser.add_argument("--standard", action="store_true", help="claims that missed a mutant at quick evaluate it at standard")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="parallel evaluations (default: cores)")
    parser.add_argument(
        "--least", type=float, default=0.9, help="exit with 1 when tests and claims kill less than this fraction (default .9)"
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="start no evaluations after this time (default: no limit)"
    )
    parser.add_argument("--log", type=Path, help="a file of finished evaluations, from which an interrupted run resumes")
    parser.add_argument("--list", action="store_true", help="print the drawn mutants and stop")
    parser.add_argument("--write", action="store_true", help="write benchmarks/mutation/README.md")
    parser.add_argument(
        "--ask",
        choices=("both", "claims", "tests"),
        default="both",
        help="evaluate by claims, by tests or by both (default both)",
    )
    parser.add_argument("--tests", nargs="+", help="only these tests, to estimate their sensitivity")
    parser.add_argument("--planted", action="store_true", help="use the hand-written mutants of the table instead of drawn ones")
    options = parser.parse_args()
    table = Table.read()
    if options.tests or options.ask != "both":
        table = replace(table, formulas=tuple(_restricted(f, options.ask, options.tests) for f in table.formulas))
    order = Order.read(ORDER)
    everything = table.planted if options.planted else table.mutants()
    pool = [m for m in everything if options.only in m.key and options.formula in table.formula(m.file, m.where).name]  # type: ignore[union-attr]
    chosen = sampled(pool, options.sample, options.seed)
    print(f"{len(chosen)} of {len(pool)} mutants, seed {options.seed}", flush=True)
    if options.list:
        print(*(f"{m.kind:9s}{m.key}" for m in chosen), sep="\n")
        return 0
    began = time.perf_counter()
    evaluations = run(chosen, table, options.workers, options.standard, options.log, options.minutes, order)
    asked = {"--sample": options.sample, "--seed": options.seed, "--only": options.only, "--formula": options.formula}
    switches = [f"--{name}" for name in ("standard", "planted") if getattr(options, name)]
    command = " ".join(["python benchmarks/mutation", *(f"{name} {value}" for name, value in asked.items() if value), *switches])
    text = report(evaluations, table, time.perf_counter() - began, command)
    print(text)
    if options.write:
        (ROOT / "benchmarks" / "mutation" / "README.md").write_text(text)
        order.learn(evaluations).write(ORDER)
    killed, counted = score(evaluations)["tests and claims"]
    return int(killed < options.least * counted)


if __name__ == "__main__":
    raise SystemExit(main())
