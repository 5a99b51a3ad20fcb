"""Addressed noise: each draw is a function of (seed, stream, path, step, slot), by Philox4x32-10.

    address  =  counter of 128 bits   path: 42 bits,  step: 42 bits,  slot: 44 bits
    key      =  64 bits: the upper half of one Philox call under the key `seed`, at the counter
                set: 2 bits,  part: 14 bits,  pilot: 1 bit,  proof: 1 bit,  (14 bits of 0),  start: 32 bits,  stream: 64 bits

Users name a stream; all draws of one run belong to it. Its parts are separate runs within the whole (the etas of an order study,
the batches of multilevel levels). `pilot` marks the paths that only determine sample sizes, `proof` the few on which the effect of
draws is examined, `start` the draws of starts, and the set the draws of an independent partner. Each has its own bits, so two
(seed, stream, role) never share a counter, and their keys differ except with probability 2^-64 (a key is half of the result of the
call).

One call gives two 64-bit words. A word is converted to

    normal    two independent normals by Box-Muller: 40 bits of radius, 22 of angle within a quadrant, 2 of sign
              r = sqrt(-log u),  z = (s0 r (cos a - sin a), s1 r (cos a + sin a)),  a in (-pi/4, pi/4)
    uniform   one number in the open interval (0, 1), from 52 bits
    sign      +1 or -1, from one bit

Nothing is consumed in order: any path, step or slot can be drawn alone, by any thread, with the same result. `draws.py` defines the
address of each draw of a step. The functions here take arrays of NumPy, or of torch where `xp` is that module. Words are unsigned
in NumPy and signed in torch, which has no unsigned 64-bit integers. `lane_moments.py` contains the compiled counterparts, and a
test compares them.

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
"""The number of paths that have an address."""
WIDEST = (1 << 64) - 1
"""The largest seed, and the largest stream."""
SETS, PARTS = 4, 1 << 14
"""The number of sets of draws of a part, and of parts of a stream."""


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the four words of the counter-based random generator Philox4x32-10 at a counter.

    Args:
        counter: Four 32-bit words, integers or arrays of 64-bit integers, broadcast against each other; upper halves are ignored.
        key: Two 32-bit words, in the same form.

    Returns:
        A tuple of four 32-bit words, integers or arrays.

    Example:
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
    """The draws of a seed that a run uses: a numbered stream, and which part of it. Each stream, and each part, has draws independent of the others.

    Attributes:
        number: The stream, from 0 to 2^64 - 1, the argument `stream` of user functions.
        part: The part of the stream, from 0 to 16383: separate runs of one computation, such as the etas of an order study, have a part each.
        pilot: Whether the draws are those of pilot paths, which only determine sample sizes.
        proof: Whether the draws are those of a few trial paths, on which the effect of draws is examined before a run.

    Example:
        >>> Stream.of(3) == Stream(3) and Stream.of(Stream(3, part=2)) == Stream(3, part=2)
        True
    """

    number: int = 0
    part: int = 0
    pilot: bool = False
    proof: bool = field(default=False, repr=False)  # excluded from the names of stored runs: proofs are never stored

    @staticmethod
    def of(value: Any) -> Stream:
        """Return a validated stream.

        Args:
            value: The number of the stream, an integer from 0 to 2^64 - 1, or a stream, which is returned as it is.

        Returns:
            The stream; an integer gives part 0 of the stream with this number, without `pilot` and `proof`.

        Raises:
            ValueError: The value is neither.
        """
        if isinstance(value, Stream):
            return value
        return Stream(_check.count("stream", value, least=0, most=WIDEST, hint="Streams are 0, 1, 2, ... of each seed."))

    def at(self, part: int) -> Stream:
        """Return a new stream that differs in its part, whose draws are independent of those of the other parts.

        Args:
            part: The part, from 0 to 16383.

        Raises:
            ValueError: There is no such part.
        """
        if not 0 <= part < PARTS:
            raise ValueError(f"a run must have at most {PARTS:,} parts (etas of a study, batches of levels); got part {part:,}.")
        return replace(self, part=part)

    def counter(self, role: int | None) -> tuple[int, int, int, int]:
        """Return the Philox counter at which the key of a set of draws is computed, a tuple of four 32-bit integers.

        Args:
            role: The set of draws: 0, or 1 for the second of two independent dynamics; None for the draws of the starting points.
        """
        low = (0 if role is None else role) + SETS * (self.part + PARTS * (self.pilot + 2 * self.proof))
        return low, int(role is None), self.number & LOW, self.number >> 32


def stream_key(seed: int, stream: int | Stream, role: int | None = 0) -> int:
    """Return the 64-bit key of a set of draws; with the address (path, step, slot) it determines each draw of the set, see `words`.

    Args:
        seed: The seed, from 0 to 2^64 - 1.
        stream: The stream, or its number.
        role: The set of draws: 0, or 1 for the second of two independent dynamics; None for the draws of the starting points.

    Returns:
        The key, an integer from 0 to 2^64 - 1.

    Raises:
        ValueError: `stream` is neither a stream nor an integer from 0 to 2^64 - 1.
    """
    c0, c1, _, _ = philox(Stream.of(stream).counter(role), (seed & LOW, seed >> 32))
    return (c0 << 32) | c1


def words(key: int, path: Any, step: int, slot: Any, xp: Any = np) -> tuple[Any, Any]:
    """Return the two 64-bit words of random bits at each address (path, step, slot).

    Args:
        key: The 64-bit key of the draws, which seed and stream determine (`stream_key`).
        path: The index of a path, from 0 to 2^42 - 1, or an array of indices.
        step: The step, from 0 to 2^42 - 1.
        slot: A slot from 0 to 2^44 - 1, the last coordinate of the address, or an array of slots that is broadcast against `path`.
        xp: The module `numpy` or `torch`, which makes the result.

    Returns:
        Two arrays of words, of the broadcast shape: uint64 in NumPy, int64 with the same bits in torch.
    """
    path, slot = (xp.asarray(a, dtype=np.uint64 if xp is np else xp.int64) for a in (path, slot))
    counter = (path & LOW, step & LOW, slot & LOW, (path >> 32) | ((step >> 32) << 10) | ((slot >> 32) << 20))
    c0, c1, c2, c3 = philox(counter, (key & LOW, key >> 32))
    return (c0 << 32) | c1, (c2 << 32) | c3


def normals(word: Any, xp: Any = np, real: Any = np.float64) -> tuple[Any, Any]:
    """Return two independent standard normals from each 64-bit word, by the Box-Muller transform; none exceeds 7.54 in absolute value.

    Args:
        word: An array of 64-bit random words, one of the two that `words` returns.
        xp: The module `numpy` or `torch` of the array.
        real: The floating-point type of `xp` in which the normals are computed.

    Returns:
        Two arrays of the shape of `word`.
    """
    bits = (word >> 24) & (2**40 - 1)
    if xp.finfo(real).bits == 32:  # x is the smaller of u and 1 - u, which keeps all 40 bits
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
    """Return a number in the open interval (0, 1) from the upper 52 bits of each 64-bit word.

    Args:
        word: An array of 64-bit random words, one of the two that `words` returns.
        xp: The module `numpy` or `torch` of the array.
        real: The floating-point type of `xp`. In float32 the number is never rounded to 1, but to 1 - 2^-24 at most.

    Returns:
        An array of the shape of `word`.
    """
    bits = (word >> 12) & (2**52 - 1)
    if xp.finfo(real).bits == 32:  # an odd integer, so it is rounded once, like the double
        return xp.clip(xp.asarray(2 * bits + 1, dtype=real) * 2.0**-53, None, 1 - 2.0**-24)
    return (xp.asarray(bits, dtype=real) + 0.5) * 2.0**-52
