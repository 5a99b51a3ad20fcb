"""From lines and stores to loops over lanes: one loop when it is short; else independent pieces in loops of their own, rolled up where alike.

A rule in many coordinates traces to many lines that repeat with shifted rows. As one loop they take LLVM minutes; split by which store
needs which line, the pieces are short, and pieces that differ by their row alone become `for i in range(n)`.

Sines, cosines and tangents are taken of whole rows, by a function of `library.py`: a far argument needs libm, and a call to it inside a
loop over lanes would leave no vector code. A loop is cut there; what later passes need of earlier ones is kept in rows of `T`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LANES = 256
SHORT = 120
"""Lines up to which a loop is left whole."""
PIECE = 60
ANGLES = 6
"""Where `library.ADDRESSES` holds the function of sines, cosines and tangents."""

_ROW = re.compile(r"\b([SZ])\[(\d+) \+ j\]")
_KEPT = re.compile(r"\bT\[(\d+) \+ j\]")
_ANGLE = re.compile(r"lanes\.v(sin|cos|tan)\((\w+)\)")


@dataclass(frozen=True)
class Item:
    """`target = text`; `uses` are the names in it. A store's target is a row, a line's a name."""

    target: str
    text: str
    uses: tuple[str, ...]


def lane_loops(lines: Sequence[Item], stores: Sequence[Item]) -> list[str]:
    """The texts of the loops that run `lines` and then `stores`."""
    if not stores:
        return []
    if len(lines) + len(stores) <= SHORT:
        return [_loop([*lines, *stores])]
    pieces = [_needed(lines, group) for group in _groups(lines, stores)]
    out: list[str] = []
    i = 0
    while i < len(pieces):
        n = _run_length(pieces, i)
        if n > 2:
            out.append(_rolled(pieces[i], n))
            i += n
            continue
        body: list[Item] = []
        while i < len(pieces) and _run_length(pieces, i) <= 2 and (not body or len(body) + len(pieces[i]) <= PIECE):
            known = {item.target for item in body}
            body += [item for item in pieces[i] if item.target not in known]
            i += 1
        out.append(_loop(_stores_last(body, stores)))
    return out


def _loop(items: Sequence[Item]) -> str:
    out: list[str] = []
    for lines, calls in _passes(items):
        if lines:
            out.append(f"for j in range({LANES}):\n" + "\n".join(f"    {line}" for line in lines))
        out += calls
    return "\n".join(out)


def _passes(items: Sequence[Item]) -> list[tuple[list[str], list[str]]]:
    """The lines of each pass over the lanes, and the calls between it and the next: one pass where there are no angles.

    A line belongs to the first pass that has its operands; stores come in the last one, for an earlier one must not change the state.
    Loads are repeated where they are needed, all else that a later pass reads is kept in a row of `T`.
    """
    angles = {item.target: match.groups() for item in items if (match := _ANGLE.fullmatch(item.text))}
    place: dict[str, int] = {}
    for item in items:
        place[item.target] = max((place[use] + (use in angles) for use in item.uses), default=0)
    last = max(place.values())
    place |= {item.target: last for item in items if "[" in item.target}
    loads = {item.target: item.text for item in items if not item.uses and "[" not in item.target}
    rows: dict[str, int] = {}

    def kept(name: str) -> str:
        return f"T[{rows.setdefault(name, len(rows)) * LANES} + j]"

    def address(name: str) -> str:
        return f"T.ctypes.data + {rows.setdefault(name, len(rows)) * LANES * 8}"

    out = []
    for now in range(last + 1):
        own = [i for i in items if place[i.target] == now and i.target not in loads and i.target not in angles]
        made = {i.target for i in own}
        wanted: dict[str, dict[str, str]] = {}  # argument -> function -> name
        for name, (function, argument) in angles.items():
            if place[name] == now:
                wanted.setdefault(argument, {})[function] = name
        fresh = [a for a in wanted if a in made or a in loads]
        read = dict.fromkeys([use for i in own for use in i.uses] + fresh)
        lines = [f"{name} = {loads.get(name) or kept(name)}" for name in read if name not in made]
        lines += [f"{i.target} = {i.text}" for i in own]
        later = [use for i in items if place[i.target] > now for use in i.uses if use in made]
        lines += [f"{kept(name)} = {name}" for name in dict.fromkeys([*fresh, *later])]
        calls = []
        for argument, names in wanted.items():
            targets = ", ".join(address(names[f]) if f in names else "0" for f in ("sin", "cos", "tan"))
            calls.append(f"lanes.call(lib[{ANGLES}], {address(argument)}, {targets}, 0, 0)")
        out.append((lines, calls))
    return out


def scratch(text: str) -> int:
    """Rows of `T` that a text uses."""
    return max((int(at) // LANES + 1 for at in _KEPT.findall(text)), default=0)


def _stores_last(body: Sequence[Item], stores: Sequence[Item]) -> list[Item]:
    targets = {s.target for s in stores}
    return [i for i in body if i.target not in targets] + [i for i in body if i.target in targets]


def _needed(lines: Sequence[Item], group: Sequence[Item]) -> list[Item]:
    """The lines that a group of stores needs, in order, and the stores."""
    wanted = {name for store in group for name in store.uses}
    for line in reversed(lines):
        if line.target in wanted:
            wanted.update(line.uses)
    return [line for line in lines if line.target in wanted] + list(group)


def _groups(lines: Sequence[Item], stores: Sequence[Item]) -> list[list[Item]]:
    """Stores in groups: two belong together when one overwrites a row that the other reads."""
    written = {store.target: n for n, store in enumerate(stores)}
    parent = list(range(len(stores)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for n, store in enumerate(stores):
        for item in _needed(lines, [store])[:-1]:
            other = written.get(item.text)
            if other is not None:
                low, high = sorted((root(n), root(other)))
                parent[high] = low
    groups: dict[int, list[Item]] = {}
    for n, store in enumerate(stores):
        groups.setdefault(root(n), []).append(store)
    return list(groups.values())


def _template(piece: Sequence[Item], shift: int) -> tuple[tuple[str, str], ...]:
    """A piece with names numbered from zero and rows moved back by `shift` rows: equal for pieces that differ by their row alone."""
    names = {item.target: f"n{i}" for i, item in enumerate(piece) if "[" not in item.target}

    def plain(text: str) -> str:
        text = _ROW.sub(lambda m: f"{m[1]}[{int(m[2]) - shift * LANES} + j]", text)
        return re.sub(r"\bv\d+\b", lambda m: names.get(m[0], m[0]), text)

    return tuple((plain(item.target), plain(item.text)) for item in piece)


def _run_length(pieces: Sequence[Sequence[Item]], start: int) -> int:
    """How many pieces from `start` on are the first one, moved by one row each time."""
    first = _template(pieces[start], 0)
    n = 1
    while start + n < len(pieces) and len(pieces[start + n]) == len(first) and _template(pieces[start + n], n) == first:
        n += 1
    return n


def _rolled(piece: Sequence[Item], n: int) -> str:
    body = _ROW.sub(r"\1[\2 + q + j]", _loop(piece))
    return f"for q in range(0, {n * LANES}, {LANES}):\n" + "\n".join(f"    {line}" for line in body.split("\n"))
