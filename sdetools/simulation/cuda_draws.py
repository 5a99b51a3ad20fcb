"""Draws as lines of Python for Numba's CUDA target, in the layout of `draws.py`: a thread is a path, and draws its own rows.

Everything is written out: a device function, and `min` is one to Numba, would ask the driver for a device. The lines read `k0` and `k1` (the
lower and upper half of the key), `path` and a step (signed whole numbers), and what `names()` gives. They write to places named by the caller:

    in_memory(segment, lambda row: f"Z[({row}) * paths + j]")     loops over slots; neighbours in a warp write neighbouring numbers
    in_registers(segment, lambda row: f"z{row}")                  straight lines, for few draws

Scratch names are c0 ... c3, p0, p1, q0, q1, a, b, w, bits, p, q, r, t, x, cosine, sine, part, slot, row, T and i.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sdetools.noise.base import Normal, Sign
from sdetools.simulation.draws import GROUP, Segment
from sdetools.simulation.philox import M0, M1, W0, W1

Place = Callable[[Any], str]
"""The text of the place of a row, an expression or a whole number."""


def names(dtype: str = "float64") -> dict[str, Any]:
    """What the lines need beside the kernel's own names."""
    number = np.float32 if dtype == "float32" else np.float64
    return {"math": math, "u": np.uint64, "f": number, "low": np.uint64(0xFFFFFFFF), "half": np.uint64(32)}


def in_memory(segment: Segment, place: Place, step: str = "k", dtype: str = "float64") -> list[str]:
    """Lines that write a segment's rows of one step, by loops."""
    if segment.share > 1:
        return _shared(segment, place, step, dtype, unrolled=False)
    head = [f"for slot in range({segment.slots}):", *_indent(_words(step, _slot(segment, "slot")))]
    if segment.kind is Sign:
        body = []
        for h, word in enumerate("ab"):
            write = f"{place(f'{segment.row} + row + i')} = {_sign(word, 'i', dtype)}"
            body += [
                f"row = 128 * slot + {64 * h}",
                f"for i in range(64 if row + 64 <= {segment.n} else {segment.n} - row):",
                f"    {write}",
            ]
        return [*head, *_indent(body)]
    whole, over = divmod(segment.n, segment.group)
    tail = -(-over // segment.a_slot)
    T = str(GROUP) if not over else str(tail) if not whole else f"({GROUP} if slot < {GROUP * whole} else {tail})"
    body = [f"T, row = {T}, slot // {GROUP} * {segment.group} + slot % {GROUP}"]
    r = 0
    for word in "ab":
        for line, value in _decoded(segment, word, dtype):
            body += line
            write = f"{place(f'{segment.row} + row + {r} * T')} = {value}"
            body += [write] if r == 0 or segment.n % segment.a_slot == 0 else [f"if row + {r} * T < {segment.n}:", f"    {write}"]
            r += 1
    return [*head, *_indent(body)]


def in_registers(segment: Segment, place: Place, step: str = "k", dtype: str = "float64") -> list[str]:
    """The same without loops; `place` is called with whole numbers."""
    if segment.share > 1:
        return _shared(segment, place, step, dtype, unrolled=True)
    out = []
    for slot in range(segment.slots):
        out += _words(step, _slot(segment, str(slot)))
        if segment.kind is Sign:
            rows = range(128 * slot, min(128 * slot + 128, segment.n))
            out += [f"{place(segment.row + i)} = {_sign('ab'[i % 128 // 64], str(i % 64), dtype)}" for i in rows]
            continue
        begin = slot // GROUP * segment.group
        T = -(-min(segment.group, segment.n - begin) // segment.a_slot)
        row = begin + slot % GROUP
        for word in "ab":
            for line, value in _decoded(segment, word, dtype):
                out += [*line, f"{place(segment.row + row)} = {value}"] if row < segment.n else line
                row += T
    return out


def _indent(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _slot(segment: Segment, number: str) -> str:
    return f"{segment.base} + {number}"


def _shared(segment: Segment, place: Place, step: str, dtype: str, unrolled: bool) -> list[str]:
    """A segment whose address serves several steps: the word of this step is chosen, then decoded."""
    share, n = segment.share, segment.n
    out = [
        *_words(f"({step} // {share})", _slot(segment, "0")),
        f"part = {step} % {share}",
        f"w = a if part < {share // 2} else b",
    ]
    if segment.kind is Sign:
        out += [f"part = part % {64 // n} * {n}"]
        if unrolled:
            return out + [f"{place(segment.row + i)} = {_sign('w', f'part + {i}', dtype)}" for i in range(n)]
        return [*out, f"for i in range({n}):", f"    {place(f'{segment.row} + i')} = {_sign('w', 'part + i', dtype)}"]
    decoded = _decoded(segment, "w", dtype)
    values = [value for _, value in decoded]
    out += [line for lines, _ in decoded for line in lines]
    if segment.kind is Normal and n == 1:
        values = [f"({values[0]} if part % 2 == 0 else {values[1]})"]
    return out + [f"{place(segment.row + i)} = {values[i]}" for i in range(n)]


def _words(step: str, slot: str) -> list[str]:
    """Philox4x32-10 at an address: the words a and b, as `philox.words`."""
    return [
        f"c0, c1, c2 = u(path) & low, u({step}) & low, u({slot}) & low",
        f"c3 = (u(path) >> half) | ((u({step}) >> half) << u(10)) | ((u({slot}) >> half) << u(20))",
        "q0, q1 = k0, k1",
        "for _ in range(10):",
        f"    p0, p1 = u({M0}) * c0, u({M1}) * c2",
        "    c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ q0, p1 & low, (p0 >> half) ^ c3 ^ q1, p0 & low",
        f"    q0, q1 = (q0 + u({W0})) & low, (q1 + u({W1})) & low",
        "a, b = (c0 << half) | c1, (c2 << half) | c3",
    ]


def _decoded(segment: Segment, word: str, dtype: str) -> list[tuple[list[str], str]]:
    """For each draw of a word: the lines before it, and its value."""
    if segment.kind is Normal:
        return [(_box_muller(word, dtype), "p"), ([], "q")]
    if dtype == "float32":  # rounded once, as `draw_decoders.decode_uniforms32`, and never up to 1
        largest = f"f({1 - 2.0**-24!r})"
        return [([f"x = f(({word} >> u(12)) * u(2) + u(1)) * f({2.0**-53!r})"], f"(x if x < {largest} else {largest})")]
    return [([], f"(f({word} >> u(12)) + f(0.5)) * f({2.0**-52!r})")]


def _sign(word: str, bit: str, dtype: str) -> str:
    return f"f(1.0) - f(2.0) * f(({word} >> u({bit})) & u(1))"


def _box_muller(word: str, dtype: str) -> list[str]:
    """p and q, as `philox.normals`; in float32 x is the smaller of u and 1 - u, so that no bit of the radius is lost."""
    if dtype == "float32":
        radius = [
            f"bits = {word} >> u(24)",
            f"x = (f(u({2**40 - 1}) - bits if bits >= u({2**39}) else bits) + f(0.5)) * f({2.0**-40!r})",
            f"r = math.sqrt(-(math.log(x) if bits >= u({2**39}) else math.log1p(-x)))",
        ]
    else:
        radius = [f"r = math.sqrt(-math.log(f(1.0) - (f({word} >> u(24)) + f(0.5)) * f({2.0**-40!r})))"]
    return [
        *radius,
        f"t = ((f({word} & u({2**22 - 1})) + f(0.5)) * f({2.0**-22!r}) - f(0.5)) * f({math.pi / 2!r})",
        "sine, cosine = math.sin(t), math.cos(t)",
        f"p = (f(1.0) - f(2.0) * f(({word} >> u(23)) & u(1))) * r * (cosine - sine)",
        f"q = (f(1.0) - f(2.0) * f(({word} >> u(22)) & u(1))) * r * (cosine + sine)",
    ]
