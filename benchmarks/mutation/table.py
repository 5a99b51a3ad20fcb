"""`formulas.toml`: the formulas with their claims and tests. `equivalent.toml`: mutants that change no result."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant, Text, functions, mutants_of

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = Path(__file__).with_name("formulas.toml")
DOCTESTS = "{file}"
"""Placeholder among the tests for the doctests of the mutated file."""


@dataclass(frozen=True)
class Formula:
    """A formula: its code, the claims that state it, and the tests of its file and its package, the most sensitive first."""

    name: str
    code: tuple[str, ...]
    claims: tuple[str, ...]
    tests: tuple[str, ...]

    def tests_of(self, file: str) -> tuple[str, ...]:
        """Return the tests of a mutant of `file`."""
        return tuple(test.format(file=file) for test in self.tests)


@dataclass(frozen=True)
class Table:
    """The contents of both files.

    Attributes:
        formulas: The formulas.
        tuning: Functions that are no formula, with the reason.
        equivalent: Keys of equivalent mutants, with the justification.
        claims: The file of each claim.
        planted: Mutants written by hand.
    """

    formulas: tuple[Formula, ...]
    tuning: dict[str, str]
    equivalent: dict[str, str]
    claims: dict[str, str]
    planted: tuple[Mutant, ...] = ()

    @classmethod
    def read(cls, path: Path = FILE) -> Table:
        """Read the table."""
        data = tomllib.loads(path.read_text())
        formulas = [
            Formula(
                entry["name"],
                tuple(code := entry["code"]),
                tuple(entry.get("claims", ())),
                (DOCTESTS, *entry.get("tests", _package_tests(code))),
            )
            for entry in data["formula"]
        ]
        equivalent = tomllib.loads(path.with_name("equivalent.toml").read_text())
        planted = tuple(_planted(**entry) for entry in data.get("planted", ()))
        return cls(tuple(formulas), data["tuning"], equivalent, claims_of(ROOT), planted)

    def formula(self, file: str, where: str) -> Formula | None:
        """Return the first formula that a function belongs to; None for tuning."""
        if self.is_tuning(file, where):
            return None
        return next((f for f in self.formulas if _listed(f.code, file, where)), None)

    def is_tuning(self, file: str, where: str) -> bool:
        """Return whether a function only affects cost or presentation."""
        return _listed(self.tuning, file, where)

    def files(self) -> list[str]:
        """Return the files of all formulas."""
        listed = {entry.split(":")[0] for f in self.formulas for entry in f.code}
        below = {str(p.relative_to(ROOT)) for entry in listed if entry.endswith("/") for p in (ROOT / entry).glob("*.py")}
        return sorted({entry for entry in listed if not entry.endswith("/")} | below)

    def mutants(self, root: Path = ROOT) -> list[Mutant]:
        """Return all mutants of all formulas except the equivalent ones."""
        own = [(file, m) for file in self.files() for m in mutants_of(file, (root / file).read_bytes())]
        return [m for file, m in own if self.formula(file, m.where) is not None and m.key not in self.equivalent]


def claims_of(root: Path) -> dict[str, str]:
    """Return the file of each claim of the paper, from the decorators, without running the files."""
    found = {}
    for path in sorted((root / "paper_checks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "claim":
                found[ast.literal_eval(node.args[0])] = str(path.relative_to(root))
    return found


def _planted(where: str, old: str, new: str) -> Mutant:
    """Return the mutant at the only occurrence of `old` in a function."""
    file, _, name = where.partition(":")
    source = (ROOT / file).read_bytes()
    (function,) = (node for found, node in functions(ast.parse(source)) if found == name)
    begin, end = Text(source).span(function)
    if source.count(old.encode(), begin, end) != 1:
        raise ValueError(f"`old` must occur once in {where}; got {old!r}, {source.count(old.encode(), begin, end)} times.")
    start = source.index(old.encode(), begin, end)
    line = source.count(b"\n", 0, start) + 1
    return Mutant(file, name, line, "planted", start, start + len(old.encode()), old, new)


def _package_tests(code: list[str]) -> list[str]:
    """Return the test folder of the package of the first entry."""
    return [f"tests/{code[0].split('/')[1]}"]


def _listed(entries: Iterable[str], file: str, where: str) -> bool:
    """Return whether a function is listed by its name, its class, its file or its folder (with a slash at the end)."""
    own = f"{file}:{where}"
    return any(
        entry in (file, own) or own.startswith(f"{entry}.") or (entry.endswith("/") and own.startswith(entry))
        for entry in entries
    )
