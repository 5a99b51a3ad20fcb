"""Mutants of a source file: one small change of one formula each, made on the syntax tree and spliced into the source code.

A kind of change is a function from a node of the tree to its possible replacements; `KINDS` lists all of them.
"""

from __future__ import annotations

import ast
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SHIFT = "1.02"
"""Factor of the error in constants and factors: two per cent."""
COUNTS = frozenset("k steps step start i j".split())
"""Names that count steps or positions. Their error is one."""
TIMES = frozenset("t time tau h dt horizon fraction".split())
"""Other names of times. Their error is a factor."""
SYMMETRIC = frozenset(
    "max min maximum minimum zip isinstance getattr hasattr isclose array_equal _equal fingerprint add multiply outer dot hypot __init__".split()
)
"""Calls whose arguments are not swapped, because the result is the same or the call fails."""
SIZES = frozenset("zeros ones empty full reshape eye arange round lru_cache broadcast_to moveaxis swapaxes default_rng".split())
"""Calls whose arguments are sizes, axes and seeds, not numbers of a formula."""
PRODUCTS = (ast.Mult, ast.Div, ast.MatMult)
SIGNS = {ast.Sub: "-", ast.Div: "/", ast.MatMult: "@"}
GUARD = 1e-5
"""Smaller numbers are safeguards against rounding."""


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
    """Index among equal changes of one function."""

    @property
    def key(self) -> str:
        """Unique name of the mutant."""
        return f"{self.file}:{self.where}: {self.old} -> {self.new}" + (f" (#{self.nth + 1})" if self.nth else "")

    def apply(self, source: bytes) -> bytes:
        """Return the source code with the change."""
        return source[: self.start] + self.new.encode() + source[self.end :]


def sampled(mutants: list[Mutant], sample: int, seed: int) -> list[Mutant]:
    """Return `sample` of the mutants: those with the smallest hashes of their keys, so that edits elsewhere do not change the sample."""
    return sorted(mutants, key=lambda m: hashlib.sha256(f"{seed}:{m.key}".encode()).digest())[:sample]


def mutants_of(file: str, source: bytes, wanted: Callable[[str], bool] = lambda where: True) -> list[Mutant]:
    """Return all mutants of the functions of a file that `wanted` accepts."""
    text = Text(source)
    found: list[Mutant] = []
    seen: dict[tuple[str, str, str], int] = defaultdict(int)
    for where, function in functions(ast.parse(source)):
        for place in _places(function, text) if wanted(where) else ():
            for kind, change in KINDS.items():
                for new in change(place):
                    old = text(place.node)
                    if _tree(old) != _tree(new):
                        start, end = text.span(place.node)
                        found.append(Mutant(file, where, place.node.lineno, kind, start, end, old, new, seen[where, old, new]))  # type: ignore[attr-defined]
                        seen[where, old, new] += 1
    return found


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions and methods of a module with their qualified names, except `__repr__`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and node.name != "__repr__":
            yield prefix + node.name, node


class Text:
    """Source code, addressed by syntax nodes."""

    def __init__(self, source: bytes) -> None:
        self.source, self.lines = source, [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return the first byte and the one after the last."""
        begin, end = self.lines[node.lineno - 1], self.lines[node.end_lineno - 1]  # type: ignore[attr-defined]
        return begin + node.col_offset, end + node.end_col_offset  # type: ignore[attr-defined]

    def __call__(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

    def braced(self, node: ast.AST) -> str:
        """Return the source code of a node as an operand, with parentheses if needed."""
        compound = isinstance(node, (ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Compare, ast.BoolOp))
        return f"({self(node)})" if compound else self(node)


@dataclass(frozen=True)
class Place:
    """A node of a formula with its context; `indexes` marks nodes of an index or of a range."""

    node: ast.AST
    parent: ast.AST
    text: Text = field(repr=False)
    indexes: bool = False


def _places(function: ast.FunctionDef, text: Text) -> Iterator[Place]:
    """Yield the nodes of computations, without validation, messages, annotations, defaults and decorators, sizes, axes and seeds."""

    def walk(node: ast.AST, parent: ast.AST, indexes: bool) -> Iterator[Place]:
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments)) or _is_size(node, parent):
            return
        if isinstance(node, ast.If) and all(isinstance(inner, ast.Raise) for inner in node.body):
            for inner in node.orelse:
                yield from walk(inner, node, indexes)
            return
        indexes = indexes or _is_index(node, parent)
        yield Place(node, parent, text, indexes)
        for child in ast.iter_child_nodes(node):
            if child not in (getattr(node, "annotation", None), getattr(node, "returns", None)):
                yield from walk(child, node, indexes)

    for statement in function.body:
        yield from walk(statement, function, False)


def _is_index(node: ast.AST, parent: ast.AST) -> bool:
    """Return whether a node is an index or an argument of `range`."""
    return (isinstance(parent, ast.Subscript) and parent.slice is node) or (
        isinstance(parent, ast.Call) and _called(parent) == "range"
    )


def _is_size(node: ast.AST, parent: ast.AST) -> bool:
    """Return whether a node is a size, an axis or a seed."""
    if isinstance(parent, ast.Call) and node is not parent.func:
        return _called(parent) in SIZES
    return isinstance(parent, ast.keyword) and parent.arg in ("axis", "dtype", "ndmin", "k", "maxsize", "seed")


def _called(call: ast.Call) -> str:
    """Return the name of a called function."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _tree(text: str) -> str:
    """Return the syntax tree of an expression as text."""
    return ast.dump(ast.parse(f"({text})", mode="eval"))


def _ignores_sign(node: ast.AST) -> bool:
    """Return whether a node takes the absolute value or an even power of its operand."""
    if isinstance(node, ast.Call):
        return _called(node) in ("abs", "norm")
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and getattr(node.right, "value", 1) in (2, 4)


def _is_number(node: ast.AST) -> bool:
    """Return whether a node is a numeric constant."""
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _is_guard(node: ast.AST) -> bool:
    """Return whether a number is 0 or a safeguard against rounding."""
    return _is_number(node) and abs(node.value) <= GUARD  # type: ignore[attr-defined]


def _is_sum(node: ast.AST) -> bool:
    """Return whether a node is a sum of numbers and not a concatenation of strings or lists."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, (ast.Add, ast.Sub)):
        return False
    leaves, kinds = [node.left, node.right], (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)
    while any(isinstance(leaf, ast.BinOp) for leaf in leaves):
        leaves = [part for leaf in leaves for part in ((leaf.left, leaf.right) if isinstance(leaf, ast.BinOp) else (leaf,))]
    return not any(isinstance(n, kinds) or (isinstance(n, ast.Constant) and isinstance(n.value, str)) for n in leaves)


def constant(at: Place) -> Iterator[str]:
    """Yield a number times 1.02, or an integer exponent plus one."""
    node, parent = at.node, at.parent
    if not _is_number(node) or _is_guard(node) or at.indexes or isinstance(parent, (ast.keyword, ast.Compare)):
        return
    exponent = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow) and parent.right is node
    whole = exponent and isinstance(node.value, int)  # type: ignore[attr-defined]
    yield str(node.value + 1) if whole else f"{node.value * float(SHIFT):.12g}"  # type: ignore[attr-defined]


def factor(at: Place) -> Iterator[str]:
    """Yield a product times 1.02."""
    node, parent = at.node, at.parent
    if at.indexes or not isinstance(node, ast.BinOp) or not isinstance(node.op, PRODUCTS) or _is_guard(node.left):
        return
    if not (isinstance(parent, ast.BinOp) and isinstance(parent.op, PRODUCTS) and parent.left is node):
        yield f"{SHIFT} * ({at.text(node)})" if isinstance(node.op, ast.MatMult) else f"{SHIFT} * {at.text(node)}"


def sign(at: Place) -> Iterator[str]:
    """Yield a sum or difference with a flipped sign."""
    node = at.node
    if not at.indexes and isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not _is_number(node.operand):
        yield at.text.braced(node.operand)
    if not at.indexes and _is_sum(node) and not _is_guard(node.left) and not _is_guard(node.right):  # type: ignore[attr-defined]
        flipped = "-" if isinstance(node.op, ast.Add) else "+"  # type: ignore[attr-defined]
        yield f"{at.text.braced(node.left)} {flipped} {at.text.braced(node.right)}"  # type: ignore[attr-defined]


def term(at: Place) -> Iterator[str]:
    """Yield a sum without one of its terms."""
    node = at.node
    if not at.indexes and _is_sum(node) and not _is_guard(node.left) and not _is_guard(node.right):  # type: ignore[attr-defined]
        right = at.text.braced(node.right)  # type: ignore[attr-defined]
        yield at.text.braced(node.left)  # type: ignore[attr-defined]
        yield right if isinstance(node.op, ast.Add) else f"-{right}"  # type: ignore[attr-defined]


def index(at: Place) -> Iterator[str]:
    """Yield the next or the previous index."""
    node = at.node
    if at.indexes and isinstance(node, ast.Constant) and type(node.value) is int and node.value:
        yield str(node.value + 1)
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and getattr(node.slice, "id", "") in COUNTS:
        yield f"{at.text(node.value)}[{at.text(node.slice)} - 1]"


def time(at: Place) -> Iterator[str]:
    """Yield the next step, or a time 2 % later, as an argument."""
    if isinstance(at.node, ast.Name) and isinstance(at.parent, ast.Call) and at.node is not at.parent.func and not at.indexes:
        if at.node.id in COUNTS:
            yield f"{at.node.id} + 1"
        if at.node.id in TIMES:
            yield f"{SHIFT} * {at.node.id}"


def swap(at: Place) -> Iterator[str]:
    """Yield the exchanged operands of a difference, a quotient or a matrix product, or the exchanged first two arguments of a call."""
    node, text = at.node, at.text
    if at.indexes or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and _ignores_sign(at.parent)):
        return
    if isinstance(node, ast.BinOp) and type(node.op) in SIGNS and (_is_sum(node) or not isinstance(node.op, ast.Sub)):
        yield f"({text.braced(node.right)} {SIGNS[type(node.op)]} {text.braced(node.left)})"  # type: ignore[index]
    if isinstance(node, ast.Call) and len(node.args) >= 2 and _called(node) not in SYMMETRIC | SIZES | {"range"}:
        first, second, *rest = node.args
        if all(isinstance(a, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.Call)) for a in (first, second)):
            named = [f"{k.arg}={text(k.value)}" if k.arg else f"**{text(k.value)}" for k in node.keywords]
            yield f"{text(node.func)}({', '.join([*map(text, (second, first, *rest)), *named])})"


KINDS: dict[str, Callable[[Place], Iterator[str]]] = {f.__name__: f for f in (constant, factor, sign, term, index, time, swap)}
