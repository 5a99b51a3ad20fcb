"""`formulas.toml`: which functions are formulas, which claims state them, which tests are theirs. `equivalent.toml`: mutants that change nothing."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from making import Mutant, Text, functions, mutants_of

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = Path(__file__).with_name("formulas.toml")
OWN = "{file}"
"""Among the tests: the doctests of the file that holds the mutant."""


@dataclass(frozen=True)
class Formula:
    """A formula: where it is written, the claims that state it, and the tests of its file and its room, the sharpest first."""

    name: str
    code: tuple[str, ...]
    claims: tuple[str, ...]
    tests: tuple[str, ...]

    def tests_of(self, file: str) -> tuple[str, ...]:
        """The tests of a mutant of `file`."""
        return tuple(test.format(file=file) for test in self.tests)


@dataclass(frozen=True)
class Table:
    """The formulas, what is no formula and why, mutants that change nothing with their arguments, the file of each claim, planted mutants."""

    formulas: tuple[Formula, ...]
    tuning: dict[str, str]
    equivalent: dict[str, str]
    claims: dict[str, str]
    planted: tuple[Mutant, ...] = ()

    @classmethod
    def read(cls, path: Path = FILE) -> Table:
        data = tomllib.loads(path.read_text())
        formulas = [
            Formula(
                entry["name"],
                tuple(code := entry["code"]),
                tuple(entry.get("claims", ())),
                (OWN, *entry.get("tests", _room(code))),
            )
            for entry in data["formula"]
        ]
        equivalent = tomllib.loads(path.with_name("equivalent.toml").read_text())
        planted = tuple(_planted(**entry) for entry in data.get("planted", ()))
        return cls(tuple(formulas), data["tuning"], equivalent, claims_of(ROOT), planted)

    def formula(self, file: str, where: str) -> Formula | None:
        """The first formula that a function belongs to; None for tuning."""
        if self.is_tuning(file, where):
            return None
        return next((f for f in self.formulas if _listed(f.code, file, where)), None)

    def is_tuning(self, file: str, where: str) -> bool:
        return _listed(self.tuning, file, where)

    def files(self) -> list[str]:
        return sorted({entry.split(":")[0] for f in self.formulas for entry in f.code})

    def mutants(self, root: Path = ROOT) -> list[Mutant]:
        """All mutants of all formulas, but for the equivalent ones."""
        own = [(file, m) for file in self.files() for m in mutants_of(file, (root / file).read_bytes())]
        return [m for file, m in own if self.formula(file, m.where) is not None and m.key not in self.equivalent]


def claims_of(root: Path) -> dict[str, str]:
    """The file of each claim of the paper, read off the decorators without running the files."""
    found = {}
    for path in sorted((root / "paper_checks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "claim":
                found[ast.literal_eval(node.args[0])] = str(path.relative_to(root))
    return found


def _planted(where: str, old: str, new: str) -> Mutant:
    """The one place of a function where `old` stands."""
    file, _, name = where.partition(":")
    source = (ROOT / file).read_bytes()
    (function,) = (node for found, node in functions(ast.parse(source)) if found == name)
    begin, end = Text(source).span(function)
    if source.count(old.encode(), begin, end) != 1:
        raise ValueError(f"`old` must stand once in {where}; got {old!r}, {source.count(old.encode(), begin, end)} times.")
    start = source.index(old.encode(), begin, end)
    line = source.count(b"\n", 0, start) + 1
    return Mutant(file, name, line, "planted", start, start + len(old.encode()), old, new)


def _room(code: list[str]) -> list[str]:
    return [f"tests/{code[0].split('/')[1]}"]


def _listed(entries: Iterable[str], file: str, where: str) -> bool:
    """Whether a function is listed: by its name, its class or its file."""
    own = f"{file}:{where}"
    return any(entry in (file, own) or own.startswith(f"{entry}.") for entry in entries)
