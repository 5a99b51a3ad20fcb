"""From lines and stores to loops over lanes: one loop when it is short; else independent pieces in loops of their own, rolled up where alike.

A rule in many coordinates traces to many lines that repeat with shifted rows. As one loop they take LLVM minutes; split by which store
needs which line, the pieces are short, and pieces that differ by their row alone become `for i in range(n)`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LANES = 256
SHORT = 120
"""Lines up to which a loop is left whole."""
PIECE = 60

_ROW = re.compile(r"\b([SZ])\[(\d+) \+ j\]")


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
    return f"for j in range({LANES}):\n" + "\n".join(f"    {item.target} = {item.text}" for item in items)


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
    body = "\n".join("        " + _ROW.sub(r"\1[\2 + q + j]", f"{item.target} = {item.text}") for item in piece)
    return f"for q in range(0, {n * LANES}, {LANES}):\n    for j in range({LANES}):\n{body}"
