"""From lines and stores to loops over lanes: one loop when it is short, else independent pieces in loops of their own.

LLVM turns a short straight body into vector code whose values stay in registers; a long one spills. So lines are split by which store needs
which line. Sines, cosines and tangents are taken of whole rows: a far argument needs libm, and a call to it inside a loop over lanes would
leave no vector code. A loop is cut there; what later passes need of earlier ones is kept in scratch rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHORT = 120
"""Lines up to which a loop is left whole."""
PIECE = 60
ANGLES = ("sin", "cos", "tan")


@dataclass(frozen=True)
class Item:
    """`target = text`; `uses` are the names in it. A `load` may be repeated anywhere; a `store` goes to memory, at `place`.

    `reads` is the place in memory that a load reads. `angle` names a function of whole rows, whose argument is `uses[0]`.
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
    """Lines of one loop over the lanes, and the row functions after it: (function, argument's row, target's row)."""

    lines: list[str]
    angles: list[tuple[str, str, str]]


def passes(lines: Sequence[Item], stores: Sequence[Item], keep: Callable[[str], str]) -> list[Pass]:
    """The loops that run `lines` and then `stores`. `keep(name)` gives the place of a scratch row for a name."""
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
    """One pass where there are no angles; else a pass for all that an angle's argument needs, and so on.

    A line belongs to the first pass that has its operands; stores come in the last one, for an earlier one must not change the state.
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
    """The lines that a group of stores needs, in order."""
    wanted = {name for store in group for name in store.uses}
    for line in reversed(lines):
        if line.target in wanted:
            wanted.update(line.uses)
    return [line for line in lines if line.target in wanted]


def _groups(lines: Sequence[Item], stores: Sequence[Item]) -> list[list[Item]]:
    """Stores in groups: two belong together when one overwrites a place that the other reads."""
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
