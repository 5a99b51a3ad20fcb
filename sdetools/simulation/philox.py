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
Which address each draw of a step has is said in `draws.py`. This file is the plain NumPy twin; `lanes.py` holds what the compiled kernels
use, and a test holds them together.

Source: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sdetools import _check

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
PATHS = 1 << 42
"""Paths that have an address of their own."""
WIDEST = (1 << 64) - 1
"""The largest seed, and the largest stream."""
SETS, PARTS = 4, 1 << 14
"""Sets of draws of a part, and parts of a stream."""


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[np.ndarray, ...]:
    """Philox4x32-10 on 32-bit words held in unsigned 64-bit arrays (broadcast against each other).

    >>> [hex(int(w)) for w in philox((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in counter)
    k0, k1 = (np.asarray(k, dtype=np.uint64) for k in key)
    shift = np.uint64(32)
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & LOW, (p0 >> shift) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3


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
        return low, int(role is None), self.number & 0xFFFFFFFF, self.number >> 32


def stream_key(seed: int, stream: int | Stream, role: int | None = 0) -> int:
    """The 64-bit key of a set of draws, `role` = 0 or 1, or of the starts, None: see above."""
    c0, c1, _, _ = philox(Stream.of(stream).counter(role), (seed & 0xFFFFFFFF, seed >> 32))
    return (int(c0) << 32) | int(c1)


def words(key: int, path: Any, step: int, slot: int) -> tuple[np.ndarray, np.ndarray]:
    """The two 64-bit words at an address; `path` may be an array."""
    shift, path = np.uint64(32), np.asarray(path, dtype=np.uint64)
    top = np.uint64(((step >> 32) << 10) | ((slot >> 32) << 20))
    counter = (path & LOW, step & 0xFFFFFFFF, slot & 0xFFFFFFFF, (path >> shift) | top)
    c0, c1, c2, c3 = philox(counter, (key & 0xFFFFFFFF, key >> 32))
    return (c0 << shift) | c1, (c2 << shift) | c3


def normals(word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two independent standard normals from each word."""
    bits = np.uint64
    u = 1.0 - (np.asarray(word >> bits(24), dtype=float) + 0.5) * 2.0**-40
    angle = ((np.asarray(word & bits(0x3FFFFF), dtype=float) + 0.5) * 2.0**-22 - 0.5) * (np.pi / 2)
    radius, sine, cosine = np.sqrt(-np.log(u)), np.sin(angle), np.cos(angle)
    first = 1.0 - 2.0 * np.asarray((word >> bits(23)) & bits(1), dtype=float)
    second = 1.0 - 2.0 * np.asarray((word >> bits(22)) & bits(1), dtype=float)
    return first * radius * (cosine - sine), second * radius * (cosine + sine)


def uniform(word: np.ndarray) -> np.ndarray:
    """A number in the open interval (0, 1) from the upper 52 bits of each word."""
    return (np.asarray(word >> np.uint64(12), dtype=float) + 0.5) * 2.0**-52
