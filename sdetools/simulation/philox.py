"""Addressed noise: a draw is a function of (seed, stream, path, step, slot), by Philox4x32-10.

    address  =  counter of 128 bits   path: 42 bits,  step: 42 bits,  slot: 44 bits
    key      =  64 bits: the upper half of one Philox call under the key `seed`, at the counter
                set: 2 bits,  part: 14 bits,  pilot: 1 bit,  proof: 1 bit,  (14 bits of 0),  start: 32 bits,  stream: 64 bits

A stream is what a user names; all that one run draws lies within it. Its parts are runs of their own within the whole (the etas of an order
study, the batches of multilevel levels), `pilot` the paths that only choose sizes, `proof` the few on which it is seen what draws do at
all, `start` the draws of starts, and the set that of an independent partner. Each has bits of its own, so two (seed, stream, role) never have one counter, and their keys differ but for a
chance of 2^-64 (a key is half of what the call gives).

One call gives two 64-bit words. What a word becomes:

    normal    one word, two independent normals by Box-Muller: 40 bits of radius, 22 of angle within a quadrant, 2 of sign
              r = sqrt(-log u),  z = (s0 r (cos a - sin a), s1 r (cos a + sin a)),  a in (-pi/4, pi/4)
    uniform   one word, one number in the open interval (0, 1) from 52 bits
    sign      one bit, +1 or -1

so that nothing is consumed in order: any path, step or slot can be drawn alone, by any thread, and is the same.
Which address each draw of a step has is said in `draws.py`. The functions here take arrays of NumPy, or of torch where `xp` is that module:
words are unsigned in the one and signed in the other, which has no others. `lane_moments.py` holds what the compiled kernels use, and a test holds
them together.

Source: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sdetools import _check

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF
PATHS = 1 << 42
"""Paths that have an address of their own."""
WIDEST = (1 << 64) - 1
"""The largest seed, and the largest stream."""
SETS, PARTS = 4, 1 << 14
"""Sets of draws of a part, and parts of a stream."""


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[Any, ...]:
    """Philox4x32-10 on 32-bit words, numbers or 64-bit arrays (broadcast against each other). Upper halves stay dirty until they are read.

    >>> [hex(w) for w in philox((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = M0 * (c0 & LOW), M1 * (c2 & LOW)
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1, (p0 >> 32) ^ c3 ^ k1, p0
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0 & LOW, c1 & LOW, c2 & LOW, c3 & LOW


@dataclass(frozen=True)
class Stream:
    """Which draws of a seed a run takes: a stream, a part of it, and whether they are a pilot's, or a proof's.

    >>> Stream.of(3) == Stream(3) and Stream.of(Stream(3, part=2)) == Stream(3, part=2)
    True
    """

    number: int = 0
    part: int = 0
    pilot: bool = False
    proof: bool = field(default=False, repr=False)  # names of kept runs are made of the others: a proof is never kept

    @staticmethod
    def of(value: Any) -> Stream:
        """A checked stream: a whole number from 0 to 2^64 - 1, or one that is a stream already."""
        if isinstance(value, Stream):
            return value
        return Stream(_check.count("stream", value, least=0, most=WIDEST, hint="Streams are 0, 1, 2, ... of each seed."))

    def at(self, part: int) -> Stream:
        """A part of it."""
        if not 0 <= part < PARTS:
            raise ValueError(f"a run must have at most {PARTS:,} parts (etas of a study, batches of levels); got part {part:,}.")
        return replace(self, part=part)

    def counter(self, role: int | None) -> tuple[int, int, int, int]:
        """Where the key of a set of draws is made; None for the starts."""
        low = (0 if role is None else role) + SETS * (self.part + PARTS * (self.pilot + 2 * self.proof))
        return low, int(role is None), self.number & LOW, self.number >> 32


def stream_key(seed: int, stream: int | Stream, role: int | None = 0) -> int:
    """The 64-bit key of a set of draws, `role` = 0 or 1, or of the starts, None: see above."""
    c0, c1, _, _ = philox(Stream.of(stream).counter(role), (seed & LOW, seed >> 32))
    return (c0 << 32) | c1


def words(key: int, path: Any, step: int, slot: Any, xp: Any = np) -> tuple[Any, Any]:
    """The two 64-bit words at addresses; `path` and `slot` may be arrays."""
    path, slot = (xp.asarray(a, dtype=np.uint64 if xp is np else xp.int64) for a in (path, slot))
    counter = (path & LOW, step & LOW, slot & LOW, (path >> 32) | ((step >> 32) << 10) | ((slot >> 32) << 20))
    c0, c1, c2, c3 = philox(counter, (key & LOW, key >> 32))
    return (c0 << 32) | c1, (c2 << 32) | c3


def normals(word: Any, xp: Any = np, real: Any = np.float64) -> tuple[Any, Any]:
    """Two independent standard normals from each word."""
    bits = (word >> 24) & (2**40 - 1)
    if xp.finfo(real).bits == 32:  # x is the smaller of u and 1 - u: so none of the 40 bits is lost
        upper = bits >= 1 << 39
        x = (xp.asarray(xp.where(upper, 2**40 - 1 - bits, bits), dtype=real) + 0.5) * 2.0**-40
        radius = xp.sqrt(-xp.where(upper, xp.log(x), xp.log1p(-x)))
    else:
        radius = xp.sqrt(-xp.log(1.0 - (xp.asarray(bits, dtype=real) + 0.5) * 2.0**-40))
    angle = ((xp.asarray(word & 0x3FFFFF, dtype=real) + 0.5) * 2.0**-22 - 0.5) * (np.pi / 2)
    sine, cosine = xp.sin(angle), xp.cos(angle)
    first, second = (1.0 - 2.0 * xp.asarray((word >> place) & 1, dtype=real) for place in (23, 22))
    return first * radius * (cosine - sine), second * radius * (cosine + sine)


def uniform(word: Any, xp: Any = np, real: Any = np.float64) -> Any:
    """A number in the open interval (0, 1) from the upper 52 bits of each word; in float32 that number rounded, but never to 1."""
    bits = (word >> 12) & (2**52 - 1)
    if xp.finfo(real).bits == 32:  # whole and odd, so rounded once as the double is
        return xp.clip(xp.asarray(2 * bits + 1, dtype=real) * 2.0**-53, None, 1 - 2.0**-24)
    return (xp.asarray(bits, dtype=real) + 0.5) * 2.0**-52
