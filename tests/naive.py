"""Reference implementations: one path at a time, Python integers, the `math` module, nothing imported from sdetools.

They are written from the documentation alone: Random123's paper, and the address layout and the laws described in
`simulation/philox.py` and `simulation/draws.py`. At the end are functions that a user would write at module level, which spawned
workers import by name.
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
    """Two 64-bit words; the last 32 bits of the counter contain the upper 10, 10 and 12 bits of path, step and slot."""
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
    """A uniform from the upper 52 bits of a word."""
    return ((word >> 12) + 0.5) / 2**52


def normals(key: int, path: int, step: int, count: int) -> list[float]:
    """The normals of a step with `count` of them and no other draws: four a call; one or two a step share a call with later steps."""
    if count <= 2:
        share = 4 // count
        four = [z for w in words(key, path, step // share, 0) for z in normal_pair(w)]
        return four[step % share * count :][:count]
    return _grouped(lambda slot: [z for w in words(key, path, step, slot) for z in normal_pair(w)], count, 4)


def uniforms(key: int, path: int, step: int, count: int) -> list[float]:
    """The uniforms of such a step: two a call; a single one shares the call with the next step."""
    if count == 1:
        return [uniform(words(key, path, step // 2, 0)[step % 2])]
    return _grouped(lambda slot: [uniform(w) for w in words(key, path, step, slot)], count, 2)


def _grouped(call: Callable[[int], list[float]], count: int, each: int) -> list[float]:
    """Groups of 16 calls, fewer in the last group: draw r of call c follows draw r of call c - 1, and precedes all with r + 1."""
    out: list[float] = []
    while len(out) < count:
        calls = min(16, -(-(count - len(out)) // each))
        made = [call(len(out) // each + c) for c in range(calls)]
        out += [made[c][r] for r in range(each) for c in range(calls)][: count - len(out)]
    return out


def signs(key: int, path: int, step: int, count: int) -> list[float]:
    """The signs of a step with at most 64 of them and no other draws: a word serves 64 // count steps, a call gives two words."""
    block, within = divmod(step, 64 // count)
    word = words(key, path, block // 2, 0)[block % 2] >> within * count
    return [-1.0 if word >> i & 1 else 1.0 for i in range(count)]


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
    """etabar_k = (1 - beta_k) sum_{s>=k} eta_s prod_{t=k+1..s} beta_t, with the last eta and beta constant for `tail` more steps."""
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


# -- functions of a user, at module level ---------------------------------------------------------------------------------------


def user_gradient(x):
    """Gradient of (x0^2 - 1)^2 / 4 + x1^2 / 2."""
    return [x[0] ** 3 - x[0], 1.0 * x[1]]


def user_value(x):
    """The loss of `user_gradient`."""
    return (x[0] ** 2 - 1) ** 2 / 4 + x[1] ** 2 / 2


def user_root(x):
    """A square root of a covariance that depends on x."""
    return [[1.0, 0.0], [0.3 * x[0], 1.0]]


def user_observable(x):
    """A test function with a kink."""
    return x[0] * x[1] + abs(x[0])


@njit(nogil=True)
def user_compiled_gradient(x):
    """A gradient compiled by Numba."""
    out = np.empty_like(x)
    out[0] = 2 * x[0] - np.sin(x[1])
    out[1] = 0.5 * x[1] - x[0] * np.cos(x[1])
    return out


def interpreted(module: ModuleType) -> ModuleType:
    """A module of compiled functions, run by Python instead: the same source, without the time for compilation."""
    spec = importlib.util.spec_from_file_location(f"interpreted_{module.__name__.replace('.', '_')}", module.__file__)
    made = importlib.util.module_from_spec(spec)
    kept, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        spec.loader.exec_module(made)
    finally:
        numba.config.DISABLE_JIT = kept
    return made


@njit(nogil=True)
def doubled_rows(x, more, out):
    """Writes 2 x + more, one row for each row of x, and a temporary row after them."""
    for j in range(x.shape[1]):
        out[x.shape[0], j] = 2.0
        for i in range(x.shape[0]):
            out[i, j] = out[x.shape[0], j] * x[i, j] + more[j]
