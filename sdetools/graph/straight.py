"""Scheduling of straight-line code into loops over lanes: one loop if it is short, else one for each independent piece.

A lane is the place of a path in a block, a row one number for each lane. LLVM compiles a short straight body to vector code whose values stay
in registers; a long one spills. So lines are split by the stores that depend on them. Sines, cosines and tangents (called angles here) are
computed on whole rows: a large argument needs libm, and a call in a loop over lanes prevents vectorisation. A loop is split there; what later
loops need of earlier ones is stored in rows of working memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHORT = 120
"""Number of lines up to which a loop is not split."""
PIECE = 60
ANGLES = ("sin", "cos", "tan")


@dataclass(frozen=True)
class Item:
    """A line of code `target = text` of a loop over lanes, the places of paths.

    Attributes:
        target: Name of the variable that it defines, "v3", or the place in memory to which it writes, "S[1024 + j]".
        text: Right-hand side, such as "v1 + v2"; empty if `angle` is set.
        uses: Names of the variables in it that differ between lanes.
        load: Whether it only reads memory, so that several loops may repeat it.
        store: Whether it writes memory.
        reads: The place that a load reads, "S[1024 + j]"; empty for draws and other lines.
        angle: "sin", "cos" or "tan" of `uses[0]` if a call after the loop computes the variable for all lanes; empty for other lines.
    """

    target: str
    text: str
    uses: tuple[str, ...]
    load: bool = False
    store: bool = False
    reads: str = ""
    angle: str = ""


@dataclass
class Pass:
    """One loop over the lanes (paths), and the calls after it that compute sin, cos or tan for all lanes.

    Attributes:
        lines: Lines of the loop's body, such as "v3 = v1 + v2"; the number of the lane is j.
        angles: The calls, such as ("sin", "S[0 + j]", "S[256 + j]"): function, place of the argument, place of the result.
    """

    lines: list[str]
    angles: list[tuple[str, str, str]]


def passes(lines: Sequence[Item], stores: Sequence[Item], keep: Callable[[str], str]) -> list[Pass]:
    """Return the loops over lanes (paths) that compute `lines` and then write the results by `stores`, in the order in which they run.

    Up to `SHORT` = 120 lines make one loop, unless sin, cos or tan divide it; more are divided into independent pieces, if possible of at most
    `PIECE` = 60 lines.

    Args:
        lines: Lines that define variables, each after those whose variables it uses.
        stores: Lines that write results to memory.
        keep: Maps the name of a variable to the text of the place that stores it from one loop to the next, such as "S[1024 + j]".
    """
    if len(lines) + len(stores) <= SHORT:
        return _cut([*_needed(lines, stores), *stores], keep)
    pieces = [(_needed(lines, group), group) for group in _groups(lines, stores)]
    out: list[Pass] = []
    body: dict[str, Item] = {}
    ends: list[Item] = []
    for own, group in pieces:
        if body and len(body) + len(ends) + len(own) + len(group) > PIECE:
            out += _cut([*body.values(), *ends], keep)
            body, ends = {}, []
        body |= {item.target: item for item in own}
        ends += group
    position = {item.target: n for n, item in enumerate(lines)}
    return out + _cut([*sorted(body.values(), key=lambda i: position[i.target]), *ends], keep)


def _cut(items: Sequence[Item], keep: Callable[[str], str]) -> list[Pass]:
    """Split items into passes: each computes what the arguments of the angles after it need.

    A line belongs to the first pass in which its operands are known. Stores come last, since earlier passes must not change the state.
    """
    angles = {item.target: item for item in items if item.angle}
    place: dict[str, int] = {}
    for item in items:
        place[item.target] = max((place[use] + (use in angles) for use in item.uses if use in place), default=0)
    last = max(place.values(), default=0)
    place |= {item.target: last for item in items if item.store}
    loads = {item.target: item.text for item in items if item.load}
    out = []
    for now in range(last + 1):
        own = [i for i in items if place[i.target] == now and not i.load and not i.angle]
        made = {i.target for i in own}
        taken = [i for i in angles.values() if place[i.target] == now]
        fresh = [i.uses[0] for i in taken if i.uses[0] in made or i.uses[0] in loads]
        read = dict.fromkeys([use for i in own for use in i.uses if use in place] + fresh)
        lines = [f"{name} = {loads.get(name) or keep(name)}" for name in read if name not in made]
        lines += [f"{i.target} = {i.text}" for i in own]
        later = [use for i in items if place[i.target] > now for use in i.uses if use in made]
        lines += [f"{keep(name)} = {name}" for name in dict.fromkeys([*fresh, *later])]
        out.append(Pass(lines, [(i.angle, keep(i.uses[0]), keep(i.target)) for i in taken]))
    return out


def _needed(lines: Sequence[Item], group: Sequence[Item]) -> list[Item]:
    """Return the lines that a list of stores depends on, in order."""
    wanted = {name for store in group for name in store.uses}
    for line in reversed(lines):
        if line.target in wanted:
            wanted.update(line.uses)
    return [line for line in lines if line.target in wanted]


def _groups(lines: Sequence[Item], stores: Sequence[Item]) -> list[list[Item]]:
    """Return the stores in lists: two are in one if one overwrites a place that the other reads."""
    written = {store.target: n for n, store in enumerate(stores)}
    parent = list(range(len(stores)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    reads: dict[str, frozenset[int]] = {}
    for line in lines:
        own = {written[line.reads]} if line.reads in written else set()
        reads[line.target] = frozenset(own.union(*(reads.get(u, frozenset()) for u in line.uses)))
    for n, store in enumerate(stores):
        for other in frozenset().union(*(reads.get(u, frozenset()) for u in store.uses)):
            low, high = sorted((root(n), root(other)))
            parent[high] = low
    groups: dict[int, list[Item]] = {}
    for n, store in enumerate(stores):
        groups.setdefault(root(n), []).append(store)
    return list(groups.values())
