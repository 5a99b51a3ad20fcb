"""Slow, obvious twins of the fast code: one path at a time, Python integers, the `math` module, nothing imported from sdetools.

Written from the documentation alone (Random123's paper, the address layout and the laws described in `simulation/philox.py`).
At the end: things that a user would write at module level, which spawned workers import by name.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from types import ModuleType

import numba
import numpy as np
from numba import njit

MASK = 0xFFFFFFFF


def philox4x32(counter: Sequence[int], key: Sequence[int], rounds: int = 10) -> tuple[int, ...]:
    """Random123's Philox4x32 on Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def key_of(seed: int, stream: int) -> int:
    """The key of a stream: one Philox call at counter = stream under key = seed."""
    c0, c1, *_ = philox4x32((stream & MASK, stream >> 32, 0, 0), (seed & MASK, seed >> 32))
    return c0 << 32 | c1


def words(key: int, path: int, step: int, slot: int) -> tuple[int, int]:
    """Two 64-bit words; the last 32 bits of the counter hold the upper 10, 10 and 12 bits of path, step and slot."""
    upper = (path >> 32) | (step >> 32) << 10 | (slot >> 32) << 20
    c = philox4x32((path & MASK, step & MASK, slot & MASK, upper), (key & MASK, key >> 32))
    return c[0] << 32 | c[1], c[2] << 32 | c[3]


def normal_pair(word: int) -> tuple[float, float]:
    """Box-Muller: 40 bits of radius, 2 of sign, 22 of angle in (-pi/4, pi/4) about the diagonal."""
    radius = math.sqrt(-math.log(1.0 - ((word >> 24) + 0.5) / 2**40))
    angle = ((word & 0x3FFFFF) + 0.5) / 2**22 * (math.pi / 2) - math.pi / 4
    s0, s1 = (-1.0 if word >> 23 & 1 else 1.0), (-1.0 if word >> 22 & 1 else 1.0)
    return s0 * radius * (math.cos(angle) - math.sin(angle)), s1 * radius * (math.cos(angle) + math.sin(angle))


def uniform(word: int) -> float:
    return ((word >> 12) + 0.5) / 2**52


def normals(key: int, path: int, step: int, count: int) -> list[float]:
    """The normals of a step that takes `count` and nothing else: two a word; a step of one word shares its call with the next."""
    n = (count + 1) // 2
    if n == 1:
        taken = [words(key, path, step // 2, 0)[step % 2]]
    else:
        taken = [w for slot in range((n + 1) // 2) for w in words(key, path, step, slot)]
    return [z for w in taken for z in normal_pair(w)][:count]


def signs(key: int, path: int, step: int, count: int) -> list[float]:
    """The signs of a step that takes at most 64 of them and nothing else: a word lasts 64 // count steps."""
    block, within = divmod(step, 64 // count)
    word = words(key, path, block // 2, 1 << 40)[block % 2] >> within * count
    return [-1.0 if word >> i & 1 else 1.0 for i in range(count)]


def uniforms(key: int, path: int, step: int, count: int) -> list[float]:
    if count == 1:
        return [uniform(words(key, path, step // 2, 0)[step % 2])]
    return [uniform(w) for slot in range((count + 1) // 2) for w in words(key, path, step, slot)][:count]


Gradient = Callable[[list[float], list[float]], list[float]]


def sgdm(
    x: Sequence[float], m: Sequence[float], gradient: Gradient, etas: Sequence[float], betas: Sequence[float], draw: Callable
) -> list[list[float]]:
    """All points of one path of Def. 2.3; `gradient(x, z)` is noisy, `draw(k)` the draws z of step k."""
    x, m = list(x), list(m)
    out = [x]
    for k, (eta, beta) in enumerate(zip(etas, betas, strict=True)):
        g = gradient(x, draw(k))
        m = [beta * a + (1 - beta) * b for a, b in zip(m, g, strict=True)]
        x = [a - eta * b for a, b in zip(x, m, strict=True)]
        out.append(x)
    return out


def averaged(etas: Sequence[float], betas: Sequence[float], tail: int = 4000) -> list[float]:
    """etabar_k = (1 - beta_k) sum_{s>=k} eta_s prod_{t=k+1..s} beta_t, the last pair going on for `tail` steps."""
    etas, betas = [*etas, *[etas[-1]] * tail], [*betas, *[betas[-1]] * tail]
    out = []
    for k in range(len(etas) - tail):
        total, product = 0.0, 1.0
        for s in range(k, len(etas)):
            total += etas[s] * product
            if s + 1 < len(etas):
                product *= betas[s + 1]
        out.append((1 - betas[k]) * total)
    return out


# -- what a user writes at module level ---------------------------------------------------------------------------------------


def user_gradient(x):
    """Gradient of (x0^2 - 1)^2 / 4 + x1^2 / 2."""
    return [x[0] ** 3 - x[0], 1.0 * x[1]]


def user_value(x):
    return (x[0] ** 2 - 1) ** 2 / 4 + x[1] ** 2 / 2


def user_root(x):
    return [[1.0, 0.0], [0.3 * x[0], 1.0]]


def user_observable(x):
    return x[0] * x[1] + abs(x[0])


@njit(nogil=True)
def user_compiled_gradient(x):
    out = np.empty_like(x)
    out[0] = 2 * x[0] - np.sin(x[1])
    out[1] = 0.5 * x[1] - x[0] * np.cos(x[1])
    return out


def interpreted(module: ModuleType) -> ModuleType:
    """A module of compiled functions once more, run by Python: the same text, without the time that compiling takes."""
    spec = importlib.util.spec_from_file_location(f"interpreted_{module.__name__.replace('.', '_')}", module.__file__)
    made = importlib.util.module_from_spec(spec)
    kept, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        spec.loader.exec_module(made)
    finally:
        numba.config.DISABLE_JIT = kept
    return made
