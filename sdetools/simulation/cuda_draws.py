"""Source lines of addressed draws for Numba's CUDA target, in the layout of `draws.py`; a thread is a path.

All operations are written out, because a device function (for Numba, `min` is one) would require a device. The lines read `_k0` and
`_k1` (the lower and upper half of the key), `path` and a step (signed integers), and the names of `names()`. They write to places
specified by the caller:

    in_memory(segment, lambda row: f"Z[({row}) * paths + j]")     loops over slots; neighbours in a warp write neighbouring numbers
    in_registers(segment, lambda row: f"z{row}")                  straight-line code, for few draws

Temporary names begin with an underscore; those of a graph's lines do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdetools.graph.elements import indent
from sdetools.noise.base import Normal, Sign
from sdetools.simulation.draws import GROUP, Segment
from sdetools.simulation.philox import M0, M1, W0, W1

WORDS = ("_a", "_b")
Place = Callable[[Any], str]
"""A function that returns the source text of the place of a row, such as "Z[(3) * paths + j]"; the row is an integer or an expression."""


def names(dtype: str = "float64") -> dict[str, Any]:
    """Return what the generated lines refer to besides the kernel's own variables, as a dictionary name -> module, type or number.

    The names are "math" (the module), "u" (uint64), "f" (the type of the draws), "low" (2^32 - 1) and "half" (32).

    Args:
        dtype: "float64" or "float32", the type of the draws.
    """
    number = np.float32 if dtype == "float32" else np.float64
    return {"math": math, "u": np.uint64, "f": number, "low": np.uint64(0xFFFFFFFF), "half": np.uint64(32)}


def in_memory(segment: Segment, place: Place, step: str = "k", dtype: str = "float64") -> list[str]:
    """Return source lines that write the draws of a segment for one step, in loops; a row is one draw, and rows are stored in arrays.

    Args:
        segment: The draws: their distribution, their rows among the draws of a step, and their address in the random generator.
        place: A function that gives the source text of the place of a row, such as "Z[(3) * paths + j]", from the row's number among all draws of
            the step: an integer, or the text of an expression.
        step: The expression of the step in the source text, such as the name of a variable.
        dtype: "float64" or "float32".

    Returns:
        A list of lines of Python, not indented. They read the variables `path` and that of the step, the lower and upper halves `_k0` and `_k1` of
        the 64-bit key, and what `names` returns.
    """
    if segment.share > 1:
        return _shared(segment, place, step, dtype, lambda write: [f"for _i in range({segment.n}):", "    " + write("_i")])
    n, out = segment.n, _words(step, f"{segment.base} + _slot")
    if segment.kind is Sign:
        for h, word in enumerate(WORDS):
            out += [
                f"_row = 128 * _slot + {64 * h}",
                f"for _i in range(64 if _row + 64 <= {n} else {n} - _row):",
                f"    {place(f'{segment.row} + _row + _i')} = {_sign(word, '_i')}",
            ]
    else:
        whole, over = divmod(n, segment.group)
        tail = -(-over // segment.a_slot)
        T = str(GROUP) if not over else str(tail) if not whole else f"({GROUP} if _slot < {GROUP * whole} else {tail})"
        out.append(f"_T, _row = {T}, _slot // {GROUP} * {segment.group} + _slot % {GROUP}")
        for r, (lines, value) in enumerate(_decoded(segment, WORDS, dtype)):
            write = f"{place(f'{segment.row} + _row + {r} * _T')} = {value}"
            inside = r == 0 or n % segment.a_slot == 0
            out += [*lines, *([write] if inside else [f"if _row + {r} * _T < {n}:", f"    {write}"])]
    return [f"for _slot in range({segment.slots}):", *indent(out)]


def in_registers(segment: Segment, place: Place, step: str = "k", dtype: str = "float64") -> list[str]:
    """Return source lines that write the draws of a segment for one step, without loops; a row is one draw, in a local variable.

    Args:
        segment: The draws: their distribution, their rows among the draws of a step, and their address in the random generator.
        place: A function that gives the source text of the place of a row, such as "z3", from the row's number among all draws of the step.
        step: The expression of the step in the source text, such as the name of a variable.
        dtype: "float64" or "float32".

    Returns:
        A list of lines of Python, not indented. They read the variables `path` and that of the step, the lower and upper halves `_k0` and `_k1` of
        the 64-bit key, and what `names` returns.
    """
    if segment.share > 1:
        return _shared(segment, place, step, dtype, lambda write: [write(i) for i in range(segment.n)])
    out = []
    for slot in range(segment.slots):
        out += _words(step, f"{segment.base} + {slot}")
        if segment.kind is Sign:
            rows = range(128 * slot, min(128 * slot + 128, segment.n))
            out += [f"{place(segment.row + i)} = {_sign(WORDS[i % 128 // 64], i % 64)}" for i in rows]
            continue
        begin = slot // GROUP * segment.group
        T = -(-min(segment.group, segment.n - begin) // segment.a_slot)
        for r, (lines, value) in enumerate(_decoded(segment, WORDS, dtype)):
            row = begin + slot % GROUP + r * T
            out += [*lines, *([f"{place(segment.row + row)} = {value}"] if row < segment.n else [])]
    return out


def _shared(segment: Segment, place: Place, step: str, dtype: str, each: Callable[..., list[str]]) -> list[str]:
    """Return lines for a segment whose address serves several steps (`Segment.share` of them), because each needs few draws.

    The random word of the step is selected, then decoded; signs are written one by one, by the lines that `each` makes of a function of the sign's
    number that returns the line for it.
    """
    share, n = segment.share, segment.n
    out = [
        *_words(f"({step} // {share})", f"{segment.base} + 0"),
        f"_part = {step} % {share}",
        f"_w = _a if _part < {share // 2} else _b",
    ]
    if segment.kind is Sign:

        def write(i: Any) -> str:
            row = segment.row + i if isinstance(i, int) else f"{segment.row} + {i}"
            return f"{place(row)} = {_sign('_w', f'_part + {i}')}"

        return [*out, f"_part = _part % {64 // n} * {n}", *each(write)]
    decoded = _decoded(segment, ("_w",), dtype)
    values = [value for _, value in decoded]
    if segment.kind is Normal and n == 1:
        values = [f"({values[0]} if _part % 2 == 0 else {values[1]})"]
    return [
        *out,
        *(line for lines, _ in decoded for line in lines),
        *(f"{place(segment.row + i)} = {values[i]}" for i in range(n)),
    ]


def _words(step: str, slot: str) -> list[str]:
    """Return lines for Philox4x32-10 at the address (path, step, slot), which define the two words `_a` and `_b` of `philox.words`."""
    return [
        f"_c0, _c1, _c2 = u(path) & low, u({step}) & low, u({slot}) & low",
        f"_c3 = (u(path) >> half) | ((u({step}) >> half) << u(10)) | ((u({slot}) >> half) << u(20))",
        "_q0, _q1 = _k0, _k1",
        "for _ in range(10):",
        f"    _p0, _p1 = u({M0}) * _c0, u({M1}) * _c2",
        "    _c0, _c1, _c2, _c3 = (_p1 >> half) ^ _c1 ^ _q0, _p1 & low, (_p0 >> half) ^ _c3 ^ _q1, _p0 & low",
        f"    _q0, _q1 = (_q0 + u({W0})) & low, (_q1 + u({W1})) & low",
        "_a, _b = (_c0 << half) | _c1, (_c2 << half) | _c3",
    ]


def _decoded(segment: Segment, words: Sequence[str], dtype: str) -> list[tuple[list[str], str]]:
    """Return, for each normal or uniform of the random words with these names, the lines that precede it and the expression of its value."""
    if segment.kind is Normal:
        return [draw for word in words for draw in ((_box_muller(word, dtype), "_p"), ([], "_q"))]
    if dtype == "float32":  # rounded once, like `draw_decoders.decode_uniforms32`, and never to 1
        largest = f"f({1 - 2.0**-24!r})"
        value = f"(_x if _x < {largest} else {largest})"
        return [([f"_x = f(({word} >> u(12)) * u(2) + u(1)) * f({2.0**-53!r})"], value) for word in words]
    return [([], f"(f({word} >> u(12)) + f(0.5)) * f({2.0**-52!r})") for word in words]


def _sign(word: str, bit: Any) -> str:
    """Return the expression of the sign 1 - 2 b of bit b of a word; `bit` is its number or the text of an expression."""
    return f"f(1.0) - f(2.0) * f(({word} >> u({bit})) & u(1))"


def _box_muller(word: str, dtype: str) -> list[str]:
    """Return lines that define the two normals `_p` and `_q` of a word (`philox.normals`); in float32, x is the smaller of u and 1 - u, to keep all bits."""
    if dtype == "float32":
        radius = [
            f"_bits = {word} >> u(24)",
            f"_x = (f(u({2**40 - 1}) - _bits if _bits >= u({2**39}) else _bits) + f(0.5)) * f({2.0**-40!r})",
            f"_r = math.sqrt(-(math.log(_x) if _bits >= u({2**39}) else math.log1p(-_x)))",
        ]
    else:
        radius = [f"_r = math.sqrt(-math.log(f(1.0) - (f({word} >> u(24)) + f(0.5)) * f({2.0**-40!r})))"]
    return [
        *radius,
        f"_t = ((f({word} & u({2**22 - 1})) + f(0.5)) * f({2.0**-22!r}) - f(0.5)) * f({math.pi / 2!r})",
        "_sine, _cosine = math.sin(_t), math.cos(_t)",
        f"_p = (f(1.0) - f(2.0) * f(({word} >> u(23)) & u(1))) * _r * (_cosine - _sine)",
        f"_q = (f(1.0) - f(2.0) * f(({word} >> u(22)) & u(1))) * _r * (_cosine + _sine)",
    ]
