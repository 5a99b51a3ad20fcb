"""The frame of a kernel: the text around the traced lane loops, which depends on the layout of rows alone.

One block of `LANES` paths at a time, for each step: fill words, turn them into draws, run the step's lane loops, and at recorded steps
those of the observables. What every kernel needs is called by address (`library.py`).
"""

from __future__ import annotations

from sdetools.noise.base import Normal, Sign
from sdetools.simulation.loops import ANGLES, LANES
from sdetools.simulation.philox import SIGN_SLOT, WordPlan
from sdetools.simulation.program import Program

ROW = 8 * LANES
"""Bytes of a row."""
WORDS, NORMALS, UNIFORMS, REDUCE_SINGLE, REDUCE_PAIR, LOST = range(ANGLES)
"""Where `library.ADDRESSES` holds what (repeated here and in `loops`, so that writing a source does not import Numba; a test compares)."""


def row(r: int) -> str:
    """The text of lane j of row r of the state."""
    return f"S[{r * LANES} + j]"


def word_rows(plan: WordPlan) -> int:
    """Rows of words that a set of draws keeps: an even number for each kind, as a call gives two."""
    return 2 * ((plan.words + 1) // 2) + 2 * ((plan.sign_words + 1) // 2)


def fill_text(program: Program) -> tuple[list[list[str]], list[list[str]]]:
    """For each set the lines that fill its words and draws before a step, and the texts by which lane j reads each draw.

    Signs are read from their word where they are used: storing them would cost more than making them. Noises that run as stages
    read rows of numbers, so for them the signs are written out too.
    """
    fills: list[list[str]] = []
    texts: list[list[str]] = []
    word, target = 0, 0
    for s, plan in enumerate(program.noise.sets):
        own, sign = word, word + 2 * ((plan.words + 1) // 2)
        lines, k = [], "k" if program.noise.every(s) == 1 else "n"
        if k == "n":
            lines.append("n = k // every")
        written = any(m.staged for m, of in zip(program.members, program.noise.member_set) if of == s)
        if plan.words == 1:
            lines += [f"if {k} & 1 == 0:\n    " + _words(s, f"{k} >> 1", 0, own)]
        else:
            lines += [_words(s, k, c, own + 2 * c) for c in range((plan.words + 1) // 2)]
        if plan.sign_words == 1:
            period = 2 * plan.sign_steps
            lines += [f"if {k} % {period} == 0:\n    " + _words(s, f"{k} // {period}", SIGN_SLOT, sign)]
            lines += [f"sign{s} = {sign * LANES} + ({k} // {plan.sign_steps} & 1) * {LANES}"]
            lines += [f"left{s} = u64(63 - {k} % {plan.sign_steps} * {plan.signs})"]
        else:
            for c in range((plan.sign_words + 1) // 2):
                lines += [_words(s, k, SIGN_SLOT + c, sign + 2 * c)]
        taken = signed = 0
        own_texts: list[str] = []
        for draw in plan.draws:
            if isinstance(draw, Sign):
                if written:
                    at = target + len(own_texts)
                    lines.append(_sign_rows(plan.sign_words == 1, s, sign, signed, at, draw.n))
                    own_texts += [f"Z[{(at + n) * LANES} + j]" for n in range(draw.n)]
                else:
                    for i in range(signed, signed + draw.n):
                        word_of = f"W[{(sign + i // 64) * LANES} + j] << u64({63 - i % 64})"
                        own_texts.append(_sign(f"W[sign{s} + j] << (left{s} - u64({i}))" if plan.sign_words == 1 else word_of))
                signed += draw.n
                continue
            per_word = 2 if isinstance(draw, Normal) else 1
            for i in range(0, draw.n, per_word):
                source = (
                    f"W.ctypes.data + {own * ROW} + ({k} & 1) * {ROW}"
                    if plan.words == 1
                    else f"W.ctypes.data + {(own + taken) * ROW}"
                )
                at, taken = (target + len(own_texts)) * LANES, taken + 1
                if isinstance(draw, Normal):
                    lines.append(_normals(source, f"Z.ctypes.data + {at * 8}", i + 1 < draw.n))
                else:
                    lines.append(f"lanes.call(lib[{UNIFORMS}], {source}, Z.ctypes.data + {at * 8}, 0, 0, 0, 0)")
                own_texts += [f"Z[{at + n * LANES} + j]" for n in range(min(per_word, draw.n - i))]
        texts.append(own_texts)
        fills.append(lines)
        target += plan.rows
        word += word_rows(plan)
    return fills, texts


def _sign(bits: str) -> str:
    return f"lanes.float_of((({bits}) & lanes.SIGN_BIT) | lanes.ONE_BITS)"


def _sign_rows(one_word: bool, s: int, sign: int, first: int, target: int, n: int) -> str:
    """Loops that write signs `first` ... of set `s` to rows from `target` on."""
    bits = f"W[sign{s} + j] << (left{s} - u64(i))" if one_word else f"W[({sign} + i // 64) * {LANES} + j] << u64(63 - i % 64)"
    place = f"Z[({target - first} + i) * {LANES} + j]"
    return f"for i in range({first}, {first + n}):\n    for j in range({LANES}):\n        {place} = {_sign(bits)}"


def _words(s: int, step: str, slot: int, target: int) -> str:
    return f"lanes.call(lib[{WORDS}], keys[{s}], at, {step}, {slot}, W.ctypes.data + {target * ROW}, 0)"


def _normals(source: str, target: str, both: bool) -> str:
    return f"lanes.call(lib[{NORMALS}], {source}, {target}, {int(both)}, 0, 0, 0)"


def start_text(program: Program, first: list[int], held: int, rows: int) -> str:
    out = [f"for r in range({rows}):\n    for j in range({LANES}):\n        S[r * {LANES} + j] = start[r]"]
    pairs = (program.start_plan.words + 1) // 2
    if program.start_plan.rows:
        key = f"keys[{len(program.noise.sets)}]"
        out += [f"lanes.call(lib[{WORDS}], {key}, at, 0, {c}, W2.ctypes.data + {2 * c * ROW}, 0)" for c in range(pairs)]
        count = program.start_plan.rows
        out += [
            _normals(f"W2.ctypes.data + {i // 2 * ROW}", f"Z3.ctypes.data + {i * ROW}", i + 1 < count) for i in range(0, count, 2)
        ]
        out.append(
            f"for r in range(root.shape[0]):\n    for i in range({count}):\n        if root[r, i] != 0.0:\n"
            f"            for j in range({LANES}):\n                S[r * {LANES} + j] += root[r, i] * Z3[i * {LANES} + j]"
        )
    return indent(out, 8)


def gather_text(program: Program, gathered: int) -> list[str]:
    """Adds a step's draws to what the longer steps of the other member will read: increments, and their integrals where asked for.

    In units of the short step h: A = sum of dW_i, I = sum of (dZ_i + the increments before), dZ_i = (z + z' / sqrt 3) / 2.
    """
    rows, motions = program.noise.gathered, program.noise.motions
    if not rows:
        return []
    z, total = f"Z[{LANES} * i + j]", f"S[{LANES} * ({gathered} + i) + j]"
    body = [f"{total} += {z}"]
    if rows > motions:
        area, second = f"S[{LANES} * ({gathered + motions} + i) + j]", f"Z[{LANES} * ({motions} + i) + j]"
        body.insert(0, f"{area} += {total} + 0.5 * {z} + {0.5 / 3**0.5!r} * {second}")
    return [f"for i in range({motions}):\n    for j in range({LANES}):\n" + "\n".join(f"        {b}" for b in body)]


def forget_text(program: Program, gathered: int) -> list[str]:
    """Empties what was gathered, after a long step."""
    rows = program.noise.gathered
    return [f"for j in range({rows * LANES}):\n    S[{gathered * LANES} + j] = 0.0"] if rows else []


def snapshot_text(program: Program, first: list[int], held: int) -> list[str]:
    if program.control is None:
        return ["pass"]
    dim = program.members[0].dim
    body = [f"V[slot + {d * LANES} + j] = {row(first[0] + d)} - memory[e] * {row(first[0] + dim + d)}" for d in range(dim)]
    body += [f"V[slot + {(dim + d) * LANES} + j] = {row(held + d)}" for d in range(dim)]
    return [f"slot *= {2 * dim * LANES}", f"for j in range({LANES}):\n" + "\n".join(f"    {b}" for b in body)]


def lost_text(program: Program, first: list[int]) -> list[str]:
    return [
        f"lost[{i}] += lanes.call(lib[{LOST}], S.ctypes.data, {first[i]}, {first[i] + len(m.parts) * m.dim}, valid, 0, 0)"
        for i, m in enumerate(program.members)
    ]


def watch_text(program: Program, first: list[int]) -> list[str]:
    out = []
    for i, m in enumerate(program.members):
        rows = f"{first[i]}, {first[i] + len(m.parts) * m.dim}"
        out.append(
            f"if k + 1 < seen[{i}] and lanes.call(lib[{LOST}], S.ctypes.data, {rows}, valid, 0, 0) > 0:\n    seen[{i}] = k + 1"
        )
    return out


def points_text(program: Program, first: list[int]) -> list[str]:
    out, at = [], 0
    for i, m in enumerate(program.members):
        source = f"S[({first[i]} + d) * {LANES} + j]"
        out.append(f"for d in range({m.dim}):\n    for j in range(valid):\n        points[{at} + d, b * {LANES} + j] = {source}")
        at += m.dim
    return out


def indent(lines: list[str], by: int) -> str:
    pad = " " * by
    return "\n".join(pad + part for line in lines for part in line.split("\n")) or pad + "pass"


TEMPLATE = '''"""A kernel that sdetools generated; safe to delete."""
import math

import numpy as np


from sdetools._compiled import jit
from sdetools.simulation import lanes
{imports}
u64 = np.uint64


@jit(cache={cache}, **lanes.FAST)
def record(S, S2, V, H, lib, slot, c, rho, before, valid, P, out{arguments}):
{record_scalars}
{record}


@jit(cache={cache}, **lanes.FAST)
def run(first, blocks, paths, keys, watch, steps, C, P, start, root, events, memory, slots, factors, kept, sums, lost, seen, points, lib{arguments}):
    S = np.empty({rows} * {lanes})
    S2 = S.reshape({rows}, {lanes})
    Z = np.empty({draws} * {lanes})
    Z2 = Z.reshape({draws}, {lanes})
    W = np.empty({words} * {lanes}, np.uint64)
    V = np.empty(kept * 2 * {dim} * {lanes})
    H = np.empty(3 * {columns} * {lanes})
    changing = 1 if C.shape[0] > 1 else 0
    # Rows are handed on by address: an array must be used inside the loop, or Numba frees it before the loop ends.
    W2 = np.empty({start_words} * {lanes}, np.uint64)
    Z3 = np.empty({start_draws} * {lanes})
{scalars}
    for b in range(blocks):
        at = first + u64(b * {lanes})
        valid = min({lanes}, paths - b * {lanes})
{start}
        e = 0
        for k in range(steps + 1):
            if k == events[e, 0]:
                slot, t = events[e, 2], events[e, 1]
                if slot >= 0:
{snapshot}
                if t >= 0 and not watch:
                    c, rho = factors[t, 0], factors[t, 1]
                    record(S, S2, V, H, lib, slots[t] * (2 * {dim} * {lanes}), c, rho, b * {lanes}, valid, P, sums[t]{arguments})
                e += 1
            if k == steps:
                break
{coefficients}
{step}
            if watch:
{watch}
        if not watch:
{lost}
        if points.shape[1] > 0:
{points}
'''
