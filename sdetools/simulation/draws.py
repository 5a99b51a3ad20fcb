"""The address of every random draw of a step, and its value in NumPy or torch: the layout that all backends share.

A plan is a tuple of draws, `Normal(n) | Sign(n) | Uniform(n)`. Each is a segment with slots of its own, 2^32 of them from `base`
on. A slot is one Philox call (`philox.words` at (path, step // share, slot)) with 128 bits, which give

    4 normals     two words, two normals each (`philox.normals`)
    2 uniforms    one a word (`philox.uniform`)
    128 signs     two words, least significant bit first; bit b is the sign 1 - 2 b

If a step has few draws, consecutive steps share a call. Step k takes part k % share of the call at step k // share:

    normals       n <= 2     share = 4 // n, rows (k % share) n ... of the call
    uniforms      n = 1      share = 2, row k % 2 of the call
    signs         n <= 64    share = 2 (64 // n), bits (p % (64 // n)) n ... of word p // (64 // n), p = k % share

Larger numbers of normals or uniforms are divided into groups of 16 slots, 64 rows of normals or 32 of uniforms. In a group of m
rows, with T = ceil(m / 4) slots (m / 2 for uniforms), draw r of slot c is row r T + c; rows from m on are discarded. More than 64
signs take ceil(n / 64) words a step, word j half j % 2 of slot j // 2. So T is determined by the plan, and a kernel may draw any
number of paths at a time, tile by tile of whole groups.

This file draws with NumPy, and with torch on any device. It is the reference implementation of `draw_rows.py` (compiled) and
`cuda_draws.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdetools.noise.base import Draws, Normal, Sign, Uniform
from sdetools.simulation.philox import normals, uniform, words

SEGMENT = 1 << 32
"""The number of slots of a segment: within it, addition to the lower half of a slot's number never carries."""
SEGMENTS = 1 << 12
"""The largest number of segments: slots have 44 bits."""
GROUP = 16
"""The number of slots of a full group."""


@dataclass(frozen=True)
class Segment:
    """The draws of one distribution in a step, with the rows that they fill and the address of their first slot.

    A slot is one call of the random generator Philox, which gives 128 random bits: 4 normals, 2 uniforms or 128 signs.

    Attributes:
        kind: The distribution: `Normal` (standard normals), `Sign` (+1 or -1) or `Uniform` (on the open interval (0, 1)).
        n: The number of draws of a path in one step, in rows `row` to `row + n - 1` of the array `(rows, paths)` of the step's draws.
        row: The first of these rows.
        base: The number of the first slot, a multiple of 2^32: that of the segment's position in the plan.
    """

    kind: type[Normal] | type[Sign] | type[Uniform]
    n: int
    row: int
    base: int

    @property
    def a_slot(self) -> int:
        """The number of draws of this distribution that one slot, 128 random bits, gives: 4 normals, 2 uniforms or 128 signs."""
        return {Normal: 4, Uniform: 2, Sign: 128}[self.kind]

    @property
    def share(self) -> int:
        """The number of consecutive steps that share one slot of 128 random bits, because each needs few draws; 1 if each step has its own slots."""
        if self.kind is Sign:
            return max(1, 2 * (64 // self.n))
        return max(1, self.a_slot // self.n)

    @property
    def drawn(self) -> int:
        """The number of rows (draws of a path) that are made together: n for each of the `share` steps that share a slot of 128 random bits.

        For signs it is n, because signs are decoded step by step from stored random words.
        """
        return self.n if self.kind is Sign else self.n * self.share

    @property
    def group(self) -> int:
        """The number of rows (draws of a path) that 16 slots of 128 random bits give: 64 normals, 32 uniforms or 2048 signs."""
        return GROUP * self.a_slot

    @property
    def slots(self) -> int:
        """The number of slots (of 128 random bits) that one step reads, ceil(drawn / a_slot): 1 if several steps share a slot."""
        return -(-self.drawn // self.a_slot)

    def address(self, step: int) -> tuple[int, int]:
        """Return where the draws of a step are: the step in the address (path, step, slot) of their slots, and the first of their rows there.

        Args:
            step: The step of the path, from 0.

        Returns:
            The pair (step // share, position of the step's first draw among those of the `share` steps that share slots); (step, 0) if `share`
            is 1. The position is a number of rows; for at most 64 signs it is a number of bits, from 0 to 127.

        Example:
            >>> Segment(Normal, n=2, row=0, base=0).address(5)  # two steps share a slot: step 5 has the second half of call 2
            (2, 2)
        """
        call, part = divmod(step, self.share)
        if self.kind is not Sign or self.n > 64:
            return call, part * self.n
        word, within = divmod(part, 64 // self.n)
        return call, 64 * word + within * self.n


@dataclass(frozen=True)
class DrawPlan:
    """The random draws of a step, in order, and their addresses (path, step, slot) in the generator Philox.

    Attributes:
        draws: The draws, such as `(Normal(2), Sign(70))`: n numbers a path for each. They fill the rows of an array `(rows, paths)` in order.

    Raises:
        ValueError: There are more than 4096 (`SEGMENTS`) of them.

    Example:
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
        """One `Segment` for each of `draws`, in order: its rows in the array `(rows, paths)`, and the address of its first slot of random bits."""
        out, row = [], 0
        for index, draw in enumerate(self.draws):
            out.append(Segment(type(draw), draw.n, row, index * SEGMENT))
            row += draw.n
        return tuple(out)

    @property
    def rows(self) -> int:
        """The number of random numbers that a path consumes in one step: the sum of n over the draws of the plan."""
        return sum(draw.n for draw in self.draws)


def groups(count: int, group: int, a_slot: int) -> list[tuple[int, int, int]]:
    """Return the groups of 16 slots into which rows of draws are divided: full ones, and an incomplete one at the end if there is a rest.

    In a group with T slots, draw r = 0, 1, ... of slot c is row r T + c of the group.

    Args:
        count: The number of rows, that is, of draws of a path.
        group: The number of rows of a full group.
        a_slot: The number of rows that one slot (128 random bits) gives.

    Returns:
        A list with the tuple (first row, number of rows, number of slots) of each group, in order: [(0, 64, 16), (64, 6, 2)] for 70 normals.
    """
    return [(at, m, -(-m // a_slot)) for at in range(0, count, group) for m in (min(group, count - at),)]


def fill(plan: DrawPlan, key: int, path: Any, step: int, dtype: Any = np.float64) -> np.ndarray:
    """Return the draws of one step for an array of paths, computed in double precision by NumPy.

    Draws in float32 are the rounded doubles, except that a uniform is never rounded to 1 but to the number below it.

    Args:
        plan: The draws of a step.
        key: The 64-bit key of the draws, which seed and stream determine (`philox.stream_key`).
        path: The indices of the paths, an integer array of any shape.
        step: The step, from 0.
        dtype: The floating-point type of the result.

    Returns:
        An array of shape `(plan.rows, *path.shape)`, the rows in the order of `plan.draws`.
    """
    return _rounded(plan, drawn(plan, key, np.asarray(path), step), dtype)


def fill_steps(plan: DrawPlan, key: int, path: np.ndarray, first: int, count: int, dtype: Any = np.float64) -> np.ndarray:
    """Return the draws of consecutive steps for an array of paths: those of `fill`, which takes more time if there are few paths.

    Args:
        plan: The draws of a step.
        key: The 64-bit key of the draws, which seed and stream determine (`philox.stream_key`).
        path: The indices of the paths, an integer array `(paths,)`.
        first: The first step, from 0.
        count: The number of steps.
        dtype: The floating-point type of the result.

    Returns:
        An array `(count, plan.rows, paths)`.
    """
    out = np.empty((count, plan.rows, len(path)))
    for s in plan.segments:
        before, slots = first % s.share, -(-(first % s.share + count) // s.share)
        calls = first // s.share + np.arange(slots, dtype=np.uint64)[:, None]
        if s.kind is Sign:
            index = np.concatenate(
                [at + np.arange(s.n, dtype=np.uint64) for at in (s.address(step)[1] for step in range(s.share))]
            )
            z = _signs(s, key, path, calls, index, np, np.float64)
        else:
            z = _grouped(s, key, path, calls, np, np.float64)
        steps = z.reshape(s.share, s.n, slots, -1).transpose(2, 0, 1, 3).reshape(s.share * slots, s.n, -1)
        out[:, s.row : s.row + s.n] = steps[before : before + count]
    return _rounded(plan, out, dtype, axis=1)


def _rounded(plan: DrawPlan, z: np.ndarray, dtype: Any, axis: int = 0) -> np.ndarray:
    """Return draws, whose rows are `axis`, in the type `dtype`; in float32 no uniform is rounded to 1."""
    out = z.astype(dtype, copy=False)
    for s in plan.segments:
        if s.kind is Uniform and out.dtype == np.float32:
            rows = np.moveaxis(out, axis, 0)[s.row : s.row + s.n]
            np.minimum(rows, np.float32(1 - 2.0**-24), out=rows)
    return out


def drawn(plan: DrawPlan, key: int, path: Any, step: int, xp: Any = np, real: Any = np.float64) -> Any:
    """Return the draws of one step for an array of paths, computed in a given type by NumPy or torch.

    Args:
        plan: The draws of a step.
        key: The 64-bit key of the draws, which seed and stream determine (`philox.stream_key`).
        path: The indices of the paths, an integer array of `xp` of any shape.
        step: The step, from 0.
        xp: The module `numpy` or `torch`.
        real: The floating-point type in which draws are computed.

    Returns:
        An array of `xp` of shape `(plan.rows, *path.shape)`, the rows in the order of `plan.draws`.
    """
    rows = []
    for s in plan.segments:
        call, at = s.address(step)
        if s.kind is Sign:
            index = xp.arange(at, at + s.n, dtype=np.uint64 if xp is np else xp.int64, device=path.device)
            rows.append(_signs(s, key, path, call, index, xp, real))
        else:
            rows.append(_grouped(s, key, path, call, xp, real)[at : at + s.n])
    return xp.concatenate(rows) if rows else xp.empty((0, *path.shape), dtype=real, device=path.device)


def _words(path: Any, key: int, call: Any, first: int, count: int, xp: Any) -> tuple[Any, Any]:
    """Return the two words of 64 random bits of each of `count` consecutive slots from `first` on, two arrays `(count, *shape)`.

    `shape` is that of `path` and `call` (an integer, or an array of NumPy), broadcast against each other.
    """
    slots = xp.arange(first, first + count, device=path.device).reshape(-1, *(1 for _ in range(max(path.ndim, np.ndim(call)))))
    return words(key, path, call, slots, xp)


def _grouped(segment: Segment, key: int, path: Any, call: Any, xp: Any, real: Any) -> Any:
    """Return the normals or uniforms of all steps that share the slots of a call, `(drawn, *shape)`, with the `shape` of `_words`."""
    rows = []
    for first, m, T in groups(segment.drawn, segment.group, segment.a_slot):
        a, b = _words(path, key, call, segment.base + first // segment.a_slot, T, xp)
        if segment.kind is Normal:
            parts = (*normals(a, xp, real), *normals(b, xp, real))
        else:
            parts = (uniform(a, xp, real), uniform(b, xp, real))
        rows.append(xp.concatenate(parts)[:m])
    return xp.concatenate(rows)


def _signs(segment: Segment, key: int, path: Any, call: Any, index: Any, xp: Any, real: Any) -> Any:
    """Return the signs of the bits `index`, an array `(n,)`, among those of the slots of a call, `(n, *shape)`, with the `shape` of `_words`."""
    pairs = xp.stack(_words(path, key, call, segment.base, segment.slots, xp), axis=1)  # (slots, 2, *shape)
    shape = pairs.shape[2:]
    shift = (index % 64).reshape(-1, *(1 for _ in shape))
    bits = (pairs.reshape(-1, *shape)[index // 64] >> shift) & 1
    return 1.0 - 2.0 * xp.asarray(bits, dtype=real)
