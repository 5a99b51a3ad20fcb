"""Which address every draw of a step has, and its value in NumPy: the layout that all backends share.

A plan is a tuple of draws, `Normal(n) | Sign(n) | Uniform(n)`. Each is a segment with slots of its own, 2^32 of them from `base` on. A slot
is one Philox call (`philox.words` at (path, step // share, slot)) with 128 bits, which are

    4 normals     two words, two normals each (`philox.normals`)
    2 uniforms    one a word (`philox.uniform`)
    128 signs     two words, least significant bit first; bit b is the sign 1 - 2 b

Few draws a step share a call with the steps that follow. Step k takes part k % share of the call at step k // share:

    normals       n <= 2     share = 4 // n, rows (k % share) n ... of the call
    uniforms      n = 1      share = 2, row k % 2 of the call
    signs         n <= 64    share = 2 (64 // n), bits (p % (64 // n)) n ... of word p // (64 // n), p = k % share

More of them lie in groups of 16 slots, 64 rows of normals or 32 of uniforms. In a group of m rows, T = ceil(m / 4) slots (m / 2 for uniforms),
draw r of slot c is row r T + c; rows from m on are dropped. More than 64 signs take ceil(n / 64) words a step, word j half j % 2 of slot j // 2.
So T belongs to the plan, and a kernel may draw any number of paths at a time, tile by tile of whole groups.

This file draws with NumPy, and with torch on any device; `draw_rows.py` (compiled) and `cuda_draws.py` are its twins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdetools.noise.base import Draws, Normal, Sign, Uniform
from sdetools.simulation.philox import normals, uniform, words

SEGMENT = 1 << 32
"""Slots of a segment: within one, the lower half of a slot's number never carries."""
SEGMENTS = 1 << 12
"""Segments that have slots of their own: slots have 44 bits."""
GROUP = 16
"""Slots of a full group."""


@dataclass(frozen=True)
class Segment:
    """One draw of a plan: `n` of a kind, rows `row` to `row + n - 1` among the draws of a step, slots from `base` on."""

    kind: type[Normal] | type[Sign] | type[Uniform]
    n: int
    row: int
    base: int

    @property
    def a_slot(self) -> int:
        """How many draws of this kind a slot gives."""
        return {Normal: 4, Uniform: 2, Sign: 128}[self.kind]

    @property
    def share(self) -> int:
        """How many consecutive steps one address serves."""
        if self.kind is Sign:
            return max(1, 2 * (64 // self.n))
        return max(1, self.a_slot // self.n)

    @property
    def drawn(self) -> int:
        """Rows that one call of the compiled functions writes for `share` steps; signs are drawn for one step, from words that are kept."""
        return self.n if self.kind is Sign else self.n * self.share

    @property
    def group(self) -> int:
        """Rows of a full group."""
        return GROUP * self.a_slot

    @property
    def slots(self) -> int:
        """Slots that are read."""
        return -(-self.drawn // self.a_slot)

    def address(self, step: int) -> tuple[int, int]:
        """The step of the counter, and the first row of the call that is this step's (for signs that share: the first of 128 bits)."""
        call, part = divmod(step, self.share)
        if self.kind is not Sign or self.n > 64:
            return call, part * self.n
        word, within = divmod(part, 64 // self.n)
        return call, 64 * word + within * self.n


@dataclass(frozen=True)
class DrawPlan:
    """The draws of a step in order, and where each finds its bits.

    >>> plan = DrawPlan((Normal(2), Sign(70)))
    >>> plan.rows, [(s.n, s.row, s.share) for s in plan.segments]
    (72, [(2, 0, 2), (70, 2, 1)])
    """

    draws: tuple[Draws, ...]

    def __post_init__(self) -> None:
        if len(self.draws) > SEGMENTS:
            raise ValueError(
                f"a step must have at most {SEGMENTS:,} kinds of draws, each with slots of its own; got {len(self.draws):,}."
            )

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        out, row = [], 0
        for index, draw in enumerate(self.draws):
            out.append(Segment(type(draw), draw.n, row, index * SEGMENT))
            row += draw.n
        return tuple(out)

    @property
    def rows(self) -> int:
        return sum(draw.n for draw in self.draws)


def groups(count: int, group: int, a_slot: int) -> list[tuple[int, int, int]]:
    """First row, rows and slots of each group of `count` rows."""
    return [(at, m, -(-m // a_slot)) for at in range(0, count, group) for m in (min(group, count - at),)]


def fill(plan: DrawPlan, key: int, path: Any, step: int, dtype: Any = np.float64) -> np.ndarray:
    """The draws of one step for an array of paths: shape `(plan.rows, *path.shape)`.

    Those of float32 are the doubles rounded; a uniform never to 1, but to the number before it.
    """
    out = drawn(plan, key, np.asarray(path), step).astype(dtype, copy=False)
    for s in plan.segments:
        if s.kind is Uniform and out.dtype == np.float32:
            np.minimum(rows := out[s.row : s.row + s.n], np.float32(1 - 2.0**-24), out=rows)
    return out


def drawn(plan: DrawPlan, key: int, path: Any, step: int, xp: Any = np, real: Any = np.float64) -> Any:
    """The same computed in a type, by NumPy or torch."""
    rows = [(_signs if s.kind is Sign else _grouped)(s, key, path, step, xp, real) for s in plan.segments]
    return xp.concatenate(rows) if rows else xp.empty((0, *path.shape), dtype=real, device=path.device)


def _words(path: Any, key: int, step: int, first: int, count: int, xp: Any) -> tuple[Any, Any]:
    """The words of consecutive slots, an axis before those of the paths."""
    slots = xp.arange(first, first + count, device=path.device).reshape(-1, *(1 for _ in path.shape))
    return words(key, path, step, slots, xp)


def _grouped(segment: Segment, key: int, path: Any, step: int, xp: Any, real: Any) -> Any:
    """Normals or uniforms: `(n, *path.shape)`."""
    call, at = segment.address(step)
    rows = []
    for first, m, T in groups(segment.drawn, segment.group, segment.a_slot):
        a, b = _words(path, key, call, segment.base + first // segment.a_slot, T, xp)
        if segment.kind is Normal:
            parts = (*normals(a, xp, real), *normals(b, xp, real))
        else:
            parts = (uniform(a, xp, real), uniform(b, xp, real))
        rows.append(xp.concatenate(parts)[:m])
    return xp.concatenate(rows)[at : at + segment.n]


def _signs(segment: Segment, key: int, path: Any, step: int, xp: Any, real: Any) -> Any:
    """Signs: `(n, *path.shape)`."""
    call, at = segment.address(step)
    pairs = xp.stack(_words(path, key, call, segment.base, segment.slots, xp), axis=1)  # (slots, 2, *path.shape)
    index = xp.arange(at, at + segment.n, dtype=pairs.dtype, device=path.device)
    shift = (index % 64).reshape(-1, *(1 for _ in path.shape))
    bits = (pairs.reshape(-1, *path.shape)[index // 64] >> shift) & 1
    return 1.0 - 2.0 * xp.asarray(bits, dtype=real)
