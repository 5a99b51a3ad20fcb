"""Mutants: formulas changed on purpose, one at a time, and who notices.

    python benchmarks/mutants.py --sample 40                        what CI runs: some minutes
    python benchmarks/mutants.py --sample 400 --standard --write    the whole run, and its table in benchmarks/mutants.md

A mutant is one small change in one formula: a constant or a factor times 1.02, a flipped sign, a dropped term, an index off by one, a wrong time,
swapped arguments. `formulas.toml` lists the formulas with the claims that state them. A mutant meets its claims first, at the quick budget: a
claim kills it by coming out *contradicted*. Then the tests of its room (until the first failure), then with `--standard`, if claims at quick missed
it, the claims at that budget. A mutant whose claims all crash, or whose module cannot be imported, is counted apart, since a crash says nothing of the formula.

What makes it quick: what is cheap and sharp comes first (claims at quick, doctests of the file, then the room); third-party libraries are loaded once and
every mutant runs in a fork of that process; compiled kernels stay on disk between mutants, named by their text. The draw is by hash of each
mutant's own text, so that an edit elsewhere leaves the sample as it is.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "benchmarks" / "formulas.toml"
SHIFT = "1.02"
"""By how much constants and factors are wrong: two per cent."""
COUNTS = {"k", "steps", "step", "start", "i", "j"}
"""Names that count steps or places: wrong by one. Other names of time are wrong by a factor."""
TIMES = {"t", "time", "tau", "h", "dt", "horizon", "fraction"}
SYMMETRIC = {
    "max",
    "min",
    "maximum",
    "minimum",
    "zip",
    "isinstance",
    "getattr",
    "hasattr",
    "isclose",
    "add",
    "multiply",
    "outer",
    "dot",
}
SIZES = {
    "range",
    "zeros",
    "ones",
    "empty",
    "full",
    "reshape",
    "eye",
    "arange",
    "round",
    "lru_cache",
    "broadcast_to",
    "moveaxis",
    "swapaxes",
}
"""Calls whose arguments are sizes and axes, not numbers of a formula."""
PRODUCTS = (ast.Mult, ast.Div, ast.MatMult)
GUARD = 1e-5
"""Smaller numbers guard against rounding."""
LIMITS = {"quick": 120, "standard": 900, "tests": 600}
"""Seconds that claims at a budget, or the tests, may take with one mutant."""


@dataclass(frozen=True)
class Mutant:
    """One change: the bytes `start:end` of `file`, in the function `where`, become `new`."""

    file: str
    where: str
    line: int
    kind: str
    start: int
    end: int
    old: str
    new: str
    nth: int = 0
    """Counts equal changes of one function."""

    @property
    def key(self) -> str:
        return f"{self.file}:{self.where}: {self.old} -> {self.new}" + (f" (#{self.nth + 1})" if self.nth else "")

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


# ---------------------------------------------------------------------------------------------------------------- making mutants


def mutants_of(file: str, source: bytes, wanted: Any = lambda where: True) -> list[Mutant]:
    """All mutants of the functions of a file that `wanted` names."""
    tree = ast.parse(source)
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(node: ast.AST) -> tuple[int, int]:
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def text(node: ast.AST) -> str:
        start, end = place(node)
        return source[start:end].decode()

    def braced(node: ast.AST) -> str:
        return f"({text(node)})" if isinstance(node, (ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Compare, ast.BoolOp)) else text(node)

    found: list[Mutant] = []
    seen: dict[tuple[str, str, str], int] = defaultdict(int)
    for where, function in _functions(tree):
        if not wanted(where):
            continue
        for node, parents in _formulas(function):
            for kind, new in _changes(node, parents, text, braced):
                start, end = place(node)
                old = text(node)
                mutant = Mutant(file, where, node.lineno, kind, start, end, old, new, seen[where, old, new])
                seen[where, old, new] += 1
                if ast.dump(ast.parse(f"({new})", mode="eval")) != ast.dump(ast.parse(f"({old})", mode="eval")):
                    found.append(mutant)
    return found


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and node.name != "__repr__":
            yield prefix + node.name, node


def _formulas(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
    """The nodes that compute: without validation, messages, annotations, defaults and decorators."""

    def walk(node: ast.AST, parents: tuple[ast.AST, ...]) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments)):
            return
        if isinstance(node, ast.If) and all(isinstance(inner, ast.Raise) for inner in node.body):
            for inner in node.orelse:
                yield from walk(inner, (*parents, node))
            return
        yield node, parents
        skipped = {id(n) for n in (getattr(node, "annotation", None), getattr(node, "returns", None)) if n is not None}
        for child in ast.iter_child_nodes(node):
            if id(child) not in skipped:
                yield from walk(child, (*parents, node))

    for statement in function.body:
        yield from walk(statement, (function,))


def _changes(node: ast.AST, parents: tuple[ast.AST, ...], text: Any, braced: Any) -> Iterator[tuple[str, str]]:
    parent = parents[-1]
    sizes = any(_is_size(inner, outer) for inner, outer in zip((*parents[1:], node), parents))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float) and abs(node.value) > GUARD:
        if sizes:
            if isinstance(node.value, int):
                yield "index", str(node.value + 1)
        elif (
            isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow) and parent.right is node and type(node.value) is int
        ):
            yield "constant", str(node.value + 1)
        elif not isinstance(parent, (ast.keyword, ast.Compare)):
            yield "constant", f"{node.value * float(SHIFT):.12g}"
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.slice, ast.Name)
        and node.slice.id in COUNTS
    ):
        yield "index", f"{text(node.value)}[{node.slice.id} - 1]"
    if isinstance(node, ast.Name) and isinstance(parent, ast.Call) and node in parent.args and not sizes:
        if node.id in COUNTS:
            yield "time", f"{node.id} + 1"
        elif node.id in TIMES:
            yield "time", f"{SHIFT} * {node.id}"
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and not sizes
        and not isinstance(node.operand, ast.Constant)
    ):
        yield "sign", braced(node.operand)
    if isinstance(node, ast.BinOp) and not sizes and not _is_text(node):
        left, right = braced(node.left), braced(node.right)
        if isinstance(node.op, (ast.Add, ast.Sub)) and not _is_guard(node.left) and not _is_guard(node.right):
            yield "sign", f"{left} {'-' if isinstance(node.op, ast.Add) else '+'} {right}"
            yield "term", left
            yield "term", right if isinstance(node.op, ast.Add) else f"-{right}"
        if (
            isinstance(node.op, PRODUCTS)
            and not (isinstance(parent, ast.BinOp) and isinstance(parent.op, PRODUCTS) and parent.left is node)
            and not any(isinstance(n, ast.Constant) and n.value == 0 for n in (node.left, node.right))
        ):
            yield "factor", f"{SHIFT} * {text(node)}" if not isinstance(node.op, ast.MatMult) else f"{SHIFT} * ({text(node)})"
        if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)):
            yield (
                "swap",
                f"({right} {'-' if isinstance(node.op, ast.Sub) else '/' if isinstance(node.op, ast.Div) else '@'} {left})",
            )
    if isinstance(node, ast.Call) and len(node.args) >= 2 and not sizes:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first, second = node.args[:2]
        plain = all(isinstance(a, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.Call)) for a in (first, second))
        if name not in SYMMETRIC | SIZES | {"__init__"} and plain and text(first) != text(second):
            rest = [text(a) for a in node.args[2:]] + [
                f"{k.arg}={text(k.value)}" if k.arg else f"**{text(k.value)}" for k in node.keywords
            ]
            yield "swap", f"{text(node.func)}({', '.join([text(second), text(first), *rest])})"


def _is_size(node: ast.AST, parent: ast.AST) -> bool:
    """Whether `node` stands where a size, an axis or a place is said."""
    if isinstance(parent, ast.Subscript):
        return parent.slice is node
    if isinstance(parent, ast.Call) and node is not parent.func:
        name = parent.func.attr if isinstance(parent.func, ast.Attribute) else getattr(parent.func, "id", "")
        return name in SIZES
    return isinstance(parent, ast.keyword) and parent.arg in ("axis", "dtype", "ndmin", "k", "maxsize")


def _is_guard(node: ast.AST) -> bool:
    """Whether a term only guards against rounding."""
    return isinstance(node, ast.Constant) and isinstance(node.value, float) and abs(node.value) <= GUARD


def _is_text(node: ast.AST) -> bool:
    """Whether a sum joins words or tuples instead of adding numbers."""
    return any(
        isinstance(n, (ast.JoinedStr, ast.List, ast.Tuple)) or (isinstance(n, ast.Constant) and isinstance(n.value, str))
        for n in ast.walk(node)
    )


# ------------------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Formula:
    """A formula: where it is written, the claims that state it, and the tests of its room, the sharpest first."""

    name: str
    code: tuple[str, ...]
    claims: tuple[str, ...]
    tests: tuple[str, ...]

    def holds(self, file: str, where: str) -> bool:
        """Whether a function is part of it: listed by its name, by its class, or by its file."""
        return any(
            f"{file}:{where}" == entry or file == entry or f"{file}:{where}".startswith(f"{entry}.") for entry in self.code
        )


@dataclass(frozen=True)
class Table:
    """`formulas.toml`: the formulas, what is no formula and why, and mutants that change nothing, each with its argument."""

    formulas: tuple[Formula, ...]
    tuning: dict[str, str]
    equivalent: dict[str, str]
    claims: dict[str, str]
    """The file of each claim."""

    @classmethod
    def read(cls, path: Path = TABLE) -> Table:
        data = tomllib.loads(path.read_text())
        formulas = tuple(
            Formula(
                f["name"],
                tuple(f["code"]),
                tuple(f.get("claims", ())),
                tuple(f.get("tests", [f"tests/{f['code'][0].split('/')[1]}"])),
            )
            for f in data["formula"]
        )
        claims = {id: file for file, ids in data["claims"].items() for id in ids}
        return cls(formulas, data["tuning"], {e["mutant"]: e["why"] for e in data.get("equivalent", ())}, claims)

    def formula(self, file: str, where: str) -> Formula | None:
        """The first formula that a function belongs to; None for tuning."""
        for entry in self.tuning:
            if f"{file}:{where}" == entry or file == entry or f"{file}:{where}".startswith(f"{entry}."):
                return None
        return next((f for f in self.formulas if f.holds(file, where)), None)

    def files(self) -> list[str]:
        return sorted({entry.split(":")[0] for f in self.formulas for entry in f.code})

    def mutants(self, root: Path = ROOT) -> list[Mutant]:
        """All mutants of all formulas, but for the equivalent ones."""
        found = []
        for file in self.files():
            for mutant in mutants_of(
                file, (root / file).read_bytes(), lambda where, file=file: self.formula(file, where) is not None
            ):
                if mutant.key not in self.equivalent:
                    found.append(mutant)
        return found


def drawn(mutants: list[Mutant], sample: int, seed: int) -> list[Mutant]:
    """`sample` of the mutants: those with the least hashes of their keys."""
    return sorted(mutants, key=lambda m: hashlib.sha256(f"{seed}:{m.key}".encode()).digest())[:sample]


# ---------------------------------------------------------------------------------------------------------------- meeting them

CLAIM, TEST, SURVIVED, CRASHED = "claim", "test", "survived", "crashed"


@dataclass
class Meeting:
    """What became of a mutant: the fate, who killed it, the verdicts of its claims, and the seconds it took."""

    mutant: Mutant
    formula: str
    fate: str
    by: str
    verdicts: dict[str, str]
    seconds: float
    stated: bool
    """Whether a claim names the formula."""


class Tree:
    """A copy of the tracked files in which one mutant at a time is applied, with compiled files of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        compileall.compile_dir(str(folder / "sdetools"), quiet=2)

    @contextlib.contextmanager
    def holding(self, mutant: Mutant | None) -> Iterator[None]:
        """The tree with a mutant in it; afterwards as before, times of files included, by which Python and Numba know them."""
        if mutant is None:
            yield
            return
        path = self.folder / mutant.file
        source, kept = path.read_bytes(), path.stat()
        path.write_bytes(mutant.apply(source))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))


def preload() -> None:
    """Load what every mutant needs and none changes."""
    import importlib

    for name in (
        *(
            "numpy",
            "scipy.stats",
            "scipy.linalg",
            "scipy.integrate",
            "scipy.optimize",
            "scipy.special",
            "numba",
            "sympy",
            "xarray",
            "pandas",
        ),
        *(
            "matplotlib.figure",
            "matplotlib.backends.backend_svg",
            "torch",
            "torchsde",
            "pytest",
            "hypothesis",
            "jinja2",
            "click",
            "rich",
            "sklearn.datasets",
        ),
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)


def in_fork(tree: Tree, seconds: float, work: Any, *arguments: Any) -> Any:
    """What `work(*arguments)` returns in a fork of this process that stands in the tree; "timeout" or "crash" when it returns nothing."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def body() -> None:
        os.setsid()
        log = os.open(tree.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(tree.folder)
        sys.path.insert(0, str(tree.folder))
        sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = str(tree.folder)
        writer.send(work(*arguments))

    process = context.Process(target=body)
    process.start()
    writer.close()
    try:
        answer = reader.recv() if reader.poll(seconds) else "timeout"
    except EOFError:
        answer = "crash"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return answer


def without_caches(mutant: Mutant | None, tree: Tree) -> None:
    """Numba's caches do not see an edit in a file that another inlines from: a mutant of compiled code meets empty ones."""
    if mutant is not None and b"njit" in (tree.folder / mutant.file).read_bytes():
        fresh = tempfile.mkdtemp(dir=tree.folder)
        os.environ["SDETOOLS_CACHE"] = fresh
        from numba.core import config

        config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = fresh


def claims_say(mutant: Mutant | None, tree: Tree, claims: dict[str, str], budget: str, until: bool = True) -> dict[str, str]:
    """The verdicts of claims (id -> file), one after the other; the first contradiction ends it if `until`."""
    without_caches(mutant, tree)
    import warnings

    warnings.simplefilter("ignore")
    try:
        import sdetools

        assert Path(sdetools.__file__).is_relative_to(tree.folder)
        from sdetools.claims import verify
    except Exception as error:
        return {"import": f"crashed: {error!r}"}
    verdicts = {}
    for id, file in claims.items():
        try:
            (found,) = verify([file], budget=budget, only=f"[{id[0]}]{id[1:]}", threads=1).claims
            verdicts[id] = found.verdict if found.verdict != "error" else f"crashed: {found.reason[:200]}"
        except Exception as error:
            verdicts[id] = f"crashed: {error!r}"[:200]
        if until and verdicts[id] == "contradicted":
            break
    return verdicts


def tests_say(mutant: Mutant | None, tree: Tree, tests: tuple[str, ...]) -> str:
    """The first test that fails, or "" when all pass."""
    without_caches(mutant, tree)
    import pytest

    failed: list[str] = []

    class Watch:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                failed.append(report.nodeid)

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                failed.append(f"import of {report.nodeid}")

    code = pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", *tests], plugins=[Watch()])
    return "" if code == 0 else (failed[0] if failed else f"pytest ended with {code}")


def meet(mutant: Mutant, formula: Formula, table: Table, tree: Tree, standard: bool) -> Meeting:
    """A mutant against its claims at quick, its tests, its claims at standard."""
    began = time.perf_counter()
    stated = {id: table.claims[id] for id in formula.claims}
    verdicts: dict[str, str] = {}

    def done(fate: str, by: str) -> Meeting:
        return Meeting(mutant, formula.name, fate, by, verdicts, round(time.perf_counter() - began, 1), bool(stated))

    def ask(budget: str) -> str | None:
        answer = in_fork(tree, LIMITS[budget], claims_say, mutant, tree, stated, budget)
        found = answer if isinstance(answer, dict) else {"all": f"crashed: {answer}"}
        verdicts.update({f"{id} ({budget})": verdict for id, verdict in found.items()})
        return next((id for id, verdict in found.items() if verdict == "contradicted"), None)

    with tree.holding(mutant):
        if stated and (killer := ask("quick")):
            return done(CLAIM, f"{killer} (quick)")
        if verdicts and all(verdict.startswith("crashed") for verdict in verdicts.values()):
            return done(CRASHED, next(iter(verdicts.values())))
        if stated and standard and (killer := ask("standard")):
            return done(CLAIM, f"{killer} (standard)")
        failed = in_fork(tree, LIMITS["tests"], tests_say, mutant, tree, (mutant.file, *formula.tests))
    if failed in ("crash", "timeout") or failed.startswith("import of"):
        return done(CRASHED, failed)
    return done(TEST, failed) if failed else done(SURVIVED, "")


# ------------------------------------------------------------------------------------------------------------------- the score


def score(meetings: list[Meeting]) -> dict[str, tuple[int, int]]:
    """(killed, counted) by anybody, and by claims at quick and in all among the mutants of formulas that claims state."""
    counted = [m for m in meetings if m.fate != CRASHED]
    stated = [m for m in counted if m.stated]
    return {
        "tests and claims": (sum(m.fate != SURVIVED for m in counted), len(counted)),
        "claims at quick": (sum(m.by.endswith("(quick)") for m in stated), len(stated)),
        "claims": (sum(m.fate == CLAIM for m in stated), len(stated)),
    }


def report(meetings: list[Meeting], table: Table, seconds: float, command: str) -> str:
    """The table formula -> claims -> score, and every survivor."""
    lines = ["# Mutants", ""]
    lines += [f"`{command}`: {len(meetings)} mutants in {seconds / 60:.0f} minutes.", ""]
    lines += [f"- {name}: {killed} of {of} ({killed / max(1, of):.1%})" for name, (killed, of) in score(meetings).items()]
    crashed = sum(m.fate == CRASHED for m in meetings)
    lines += [f"- crashed, and counted nowhere: {crashed}", ""]
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
            f"- `{m.mutant.key}` (line {m.mutant.line}){': ' + m.by if m.by else ''}" for m in kept
        ]
    lines += ["", "## Equivalent mutants", ""] + [f"- `{key}`: {why}" for key, why in table.equivalent.items()]
    return "\n".join(lines) + "\n"


def run(chosen: list[Mutant], table: Table, workers: int, standard: bool, log: Path | None = None) -> list[Meeting]:
    """All meetings, in the order of the draw; each worker is a fork with a tree of its own that takes the next mutant when it is free."""
    meetings: dict[str, Meeting] = {}
    for line in log.read_text().splitlines() if log is not None and log.exists() else ():
        entry = json.loads(line)
        met = Meeting(**entry | {"mutant": Mutant(**entry["mutant"])})
        meetings[met.mutant.key] = met
    waiting = [m for m in chosen if m.key not in meetings]
    context = multiprocessing.get_context("fork")
    following = context.Value("i", 0)

    def work(tree: Tree, out: Any) -> None:
        while True:
            with following.get_lock():
                mine = following.value
                following.value += 1
            if mine >= len(waiting):
                return
            formula = table.formula(waiting[mine].file, waiting[mine].where)
            assert formula is not None
            out.send(meet(waiting[mine], formula, table, tree, standard))

    with tempfile.TemporaryDirectory() as place:
        os.environ["SDETOOLS_CACHE"], os.environ["NUMBA_CACHE_DIR"] = f"{place}/kernels", f"{place}/numba"
        preload()
        pipes = []
        for i in range(workers):
            (folder := Path(place) / f"tree{i}").mkdir()
            reader, writer = context.Pipe(duplex=False)
            context.Process(target=work, args=(Tree(folder), writer)).start()
            writer.close()
            pipes.append(reader)
        while pipes:
            for reader in multiprocessing.connection.wait(pipes):
                try:
                    met = reader.recv()  # type: ignore[union-attr]
                except EOFError:
                    pipes.remove(reader)  # type: ignore[arg-type]
                    continue
                meetings[met.mutant.key] = met
                print(f"{len(meetings):4d} {met.seconds:6.1f} s  {met.fate:8s} {met.mutant.key}  {met.by}", flush=True)
                if log is not None:
                    with log.open("a") as file:
                        file.write(json.dumps(asdict(met)) + "\n")
    return [meetings[m.key] for m in chosen if m.key in meetings]


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
    parser.add_argument("--log", type=Path, help="a file of finished meetings, from which a broken off run goes on")
    parser.add_argument("--list", action="store_true", help="print the drawn mutants and stop")
    parser.add_argument("--write", action="store_true", help="write benchmarks/mutants.md")
    options = parser.parse_args()
    table = Table.read()
    pool = [m for m in table.mutants() if options.only in m.key and options.formula in table.formula(m.file, m.where).name]  # type: ignore[union-attr]
    chosen = drawn(pool, options.sample, options.seed)
    print(f"{len(chosen)} of {len(pool)} mutants, seed {options.seed}", flush=True)
    if options.list:
        print(*(f"{m.kind:9s}{m.key}" for m in chosen), sep="\n")
        return 0
    began = time.perf_counter()
    meetings = run(chosen, table, options.workers, options.standard, options.log)
    command = "python benchmarks/mutants.py " + " ".join(a for a in sys.argv[1:] if a != "--write")
    text = report(meetings, table, time.perf_counter() - began, command)
    print(text)
    if options.write:
        (ROOT / "benchmarks" / "mutants.md").write_text(text)
    killed, counted = score(meetings)["tests and claims"]
    return int(killed < options.least * counted)


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    raise SystemExit(main())
