"""The draw plan: every implementation of its layout, path by path, and the range of draws.

Normals are compared relative to sqrt(-2 log u), the radius of their pair: cos a - sin a cancels near the diagonal, in any
implementation.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from unittest import mock

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as some
from numba import njit

from sdetools import _machine_code
from sdetools.noise import Normal, Sign, Uniform
from sdetools.simulation import draw_decoders, draw_rows, draws, philox, torch_rows
from sdetools.simulation.draws import SEGMENT, SEGMENTS, DrawPlan, Segment, fill, fill_steps
from sdetools.simulation.philox import stream_key

POLYNOMIALS = 4e-15
"""Relative to the radius: the error of the compiled sine and cosine, as in `test_sim_philox.py`."""
LIBRARIES = 4 * 2.0**-52
"""Relative to the radius: log, sqrt, sin and cos of two libraries, within one unit each."""
SINGLE = 8 * 2.0**-24
"""Relative to the radius: six roundings of log u, halved by the root; two of sine and cosine, the root's and two products: 2^-24 each."""
LARGEST = np.sqrt(82 * np.log(2))
LANES = [16, 32, 64, 128, 256]
SIZES = [1, 2, 3, 4, 5, 21, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200]

kinds = some.sampled_from([Normal, Sign, Uniform])
plans = some.lists(some.builds(lambda kind, n: kind(n), kinds, some.integers(1, 200)), min_size=1, max_size=4).map(
    lambda found: DrawPlan(tuple(found))
)
keys = some.integers(0, 2**64 - 1)
paths = some.one_of(some.integers(0, 2000), some.integers(2**32 - 300, 2**32 + 2000), some.integers(2**42 - 5000, 2**42 - 1000))
steps = some.one_of(some.integers(0, 300), some.integers(2**32 - 100, 2**32 + 300), some.integers(2**42 - 300, 2**42 - 1))
thorough = settings(max_examples=150, deadline=None)


def slow(draw, index: int, i: int, key: int, path: int, step: int) -> float:
    """Row i of the draw with this index, from the description of the layout alone, one number at a time."""
    n, base = draw.n, index << 32
    if isinstance(draw, Sign):
        if n <= 64:
            lasts = 64 // n
            word = naive.words(key, path, step // (2 * lasts), base)[step // lasts % 2]
            return 1.0 - 2.0 * (word >> (step % lasts * n + i) & 1)
        return 1.0 - 2.0 * (naive.words(key, path, step, base + i // 128)[i // 64 % 2] >> i % 64 & 1)
    each = 4 if isinstance(draw, Normal) else 2
    if n <= each // 2:
        share = each // n
        step, r, slot = step // share, step % share * n + i, base
    else:
        group, row = divmod(i, 16 * each)
        T = -(-min(16 * each, n - 16 * each * group) // each)
        r, c = divmod(row, T)
        slot = base + 16 * group + c
    words = naive.words(key, path, step, slot)
    return naive.normal_pair(words[r // 2])[r % 2] if isinstance(draw, Normal) else naive.uniform(words[r])


def radii(plan: DrawPlan, key: int, path: np.ndarray, step: int) -> np.ndarray:
    """The radius of the pair of each normal, in the normal's row."""
    with mock.patch.object(draws, "normals", lambda word, *_: (np.hypot(*philox.normals(word)),) * 2):
        return fill(plan, key, path, step)


def agree(got: np.ndarray, plan: DrawPlan, key: int, path: np.ndarray, step: int, tolerance: float) -> None:
    """Asserts that signs and uniforms agree to the bit, and normals to `tolerance`, relative to the radius.

    Uniforms in float32 are the rounded doubles, below 1.
    """
    expected, radius = fill(plan, key, path, step), radii(plan, key, path, step)
    assert got.shape == expected.shape
    for s in plan.segments:
        rows = slice(s.row, s.row + s.n)
        if s.kind is Normal:
            assert (np.abs(got[rows] - expected[rows]) <= tolerance * radius[rows]).all(), s
        elif s.kind is Uniform and got.dtype == np.float32:
            np.testing.assert_array_equal(got[rows], np.minimum(expected[rows].astype(np.float32), np.float32(1 - 2.0**-24)))
        else:
            np.testing.assert_array_equal(got[rows], expected[rows])


@thorough
@given(plans, keys, paths, steps, some.data())
def test_numpy_against_the_description(plan, key, path, step, data):
    """NumPy against the description of the layout, for random plans and addresses."""
    z, radius = fill(plan, key, np.array([path]), step)[:, 0], radii(plan, key, np.array([path]), step)[:, 0]
    for index, (draw, segment) in enumerate(zip(plan.draws, plan.segments)):
        for i in {0, draw.n - 1, data.draw(some.integers(0, draw.n - 1))}:
            expected, row = slow(draw, index, i, key, path, step), segment.row + i
            assert abs(z[row] - expected) <= (LIBRARIES * radius[row] if isinstance(draw, Normal) else 0), (draw, i)


@pytest.mark.parametrize("kind", [Normal, Sign, Uniform])
@pytest.mark.parametrize("n", SIZES)
def test_each_size_against_the_description(kind, n):
    """All rows, over more steps than share an address."""
    plan, key, path = DrawPlan((kind(n),)), stream_key(5, 0), np.array([0, 3, 1 << 33])
    share = plan.segments[0].share
    for step in {0, 1, 2, 3, 4, 5, share // 2 - 1, share // 2, share - 1, share, share + 1, 1 << 33} - {-1}:
        z, radius = fill(plan, key, path, step), radii(plan, key, path, step)
        expected = np.array([[slow(plan.draws[0], 0, i, key, int(p), step) for p in path] for i in range(n)])
        assert (np.abs(z - expected) <= (LIBRARIES * radius if kind is Normal else 0)).all()


def test_paths_may_have_any_shape():
    """An array of paths of any shape gives the draws of its elements."""
    plan, path = DrawPlan((Normal(5), Sign(3), Uniform(40), Sign(70))), np.arange(6).reshape(2, 3)
    z = fill(plan, 7, path, 9)
    assert z.shape == (118, 2, 3)
    np.testing.assert_array_equal(z.reshape(118, 6), fill(plan, 7, np.arange(6), 9))
    np.testing.assert_array_equal(z[:, 1, 2], fill(plan, 7, 5, 9))


def test_a_draw_does_not_depend_on_the_size_of_the_others():
    """The draws of a segment are the same beside segments of other sizes."""
    few, many = DrawPlan((Normal(1), Normal(70), Sign(3))), DrawPlan((Sign(99), Normal(70), Uniform(50)))
    np.testing.assert_array_equal(fill(few, 5, np.arange(9), 4)[1:71], fill(many, 5, np.arange(9), 4)[99:169])


def test_slots_of_segments_are_disjoint_and_within_their_field():
    """Segments have separate slots, and more than fit into 44 bits are refused."""
    plan = DrawPlan((Uniform(1),) * SEGMENTS)
    bases = [s.base for s in plan.segments]
    assert bases == [i * SEGMENT for i in range(SEGMENTS)] and bases[-1] + SEGMENT == 1 << 44
    assert max(Segment(kind, 10**9, 0, 0).slots for kind in (Normal, Uniform, Sign)) < SEGMENT
    with pytest.raises(ValueError, match="4,096 kinds of draws"):
        DrawPlan((Uniform(1),) * (SEGMENTS + 1))
    assert DrawPlan(()).rows == 0 and fill(DrawPlan(()), 1, np.arange(3), 0).shape == (0, 3)


# -- compiled -------------------------------------------------------------------------------------------------------------------

CALL = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)


def compiled(name: str, size: int, *arguments: int) -> None:
    """Calls a compiled function by its address."""
    assert CALL(draw_rows.address(name, f"float{8 * size}"))(*(int(np.uint64(a).view(np.int64)) for a in arguments)) == 0


NAMES = {Normal: "normals", Uniform: "uniforms", Sign: "signs"}


@thorough
@given(kinds, some.integers(1, 200), keys, paths, steps, some.sampled_from(LANES), some.sampled_from([8, 4]))
def test_compiled_rows_for_every_number_of_lanes(kind, n, key, path, step, lanes, size):
    """Exactly the rows of a segment are written, at once and tile by tile."""
    plan, first = DrawPlan((Sign(1), kind(n))), path // lanes * lanes
    segment = plan.segments[1]
    call, at = segment.address(step)
    dtype, block = np.float64 if size == 8 else np.float32, np.arange(first, first + lanes)
    buffer = np.full((segment.drawn + 1, lanes), 77, dtype)
    if kind is Sign and segment.share > 1:
        words = np.empty((2, lanes), np.uint64)
        compiled("words", size, key, first, call, segment.base, 1 << 32 | lanes, words.ctypes.data)
        compiled("bits", size, words[at // 64].ctypes.data, lanes, at % 64, n, buffer.ctypes.data, 0)
        at = 0
    else:
        compiled(NAMES[kind], size, key, first, call, segment.base, segment.drawn << 32 | lanes, buffer.ctypes.data)
        tiles = np.full_like(buffer, 77)
        for i in range(0, segment.drawn, segment.group):
            count = min(segment.group, segment.drawn - i)
            slot = segment.base + i // segment.a_slot
            compiled(NAMES[kind], size, key, first, call, slot, count << 32 | lanes, tiles[i:].ctypes.data)
        np.testing.assert_array_equal(tiles, buffer)
    assert (buffer[-1] == 77).all()
    whole = np.concatenate([fill(plan, key, block, step)[:1].astype(dtype), buffer[at : at + n]])
    agree(whole, plan, key, block, step, POLYNOMIALS if size == 8 else SINGLE)


@pytest.mark.parametrize("lanes", LANES)
def test_words_of_several_slots(lanes):
    """Compiled words against NumPy."""
    out, first = np.empty((10, lanes), np.uint64), (1 << 34) + 256
    compiled("words", 8, 99, first, 1 << 35, 3 << 32, 5 << 32 | lanes, out.ctypes.data)
    expected = [w for c in range(5) for w in philox.words(99, np.arange(first, first + lanes), 1 << 35, (3 << 32) + c)]
    np.testing.assert_array_equal(out, expected)


@thorough
@given(plans, keys, paths, steps, some.integers(1, 150), some.sampled_from(["float64", "float32"]))
def test_the_draws_of_consecutive_steps(plan, key, path, step, count, dtype):
    """Draws made together are, to the bit, those made step by step, whichever steps share a slot."""
    step, path = min(step, 2**42 - count), np.arange(path, path + 3)
    together = fill_steps(plan, key, path, step, count, dtype)
    assert together.shape == (count, plan.rows, 3) and together.dtype == dtype
    for k in {0, count // 2, count - 1}:
        assert np.array_equal(together[k], fill(plan, key, path, step + k, dtype))


@thorough
@given(plans, keys, paths, some.integers(1, 600), steps)
def test_blocks_of_any_number_of_paths(plan, key, first, count, step):
    """`fill_block` against NumPy, in double and in float32."""
    path = np.arange(first, first + count)
    agree(draw_rows.fill_block(plan, key, first, count, step), plan, key, path, step, POLYNOMIALS)
    single = draw_rows.fill_block(plan, key, first, count, step, np.float32)
    assert single.dtype == np.float32
    agree(single, plan, key, path, step, SINGLE)


def test_a_path_is_the_same_bits_in_every_block():
    """The bits of a path do not depend on the other paths of a block."""
    plan = DrawPlan((Normal(70), Normal(1), Sign(3), Uniform(33)))
    for dtype in (np.float64, np.float32):
        whole = draw_rows.fill_block(plan, 3, 0, 1000, 5, dtype)
        for first, count in ((0, 1), (255, 2), (300, 256), (999, 1)):
            np.testing.assert_array_equal(draw_rows.fill_block(plan, 3, first, count, 5, dtype), whole[:, first : first + count])


# -- torch ----------------------------------------------------------------------------------------------------------------------


@thorough
@given(plans, keys, paths, some.integers(1, 40), steps)
def test_torch_integers(plan, key, first, count, step):
    """Philox in torch's integers against NumPy."""
    path = np.arange(first, first + count)
    for dtype, tolerance in ((torch.float64, LIBRARIES), (torch.float32, SINGLE)):
        rows = draws.drawn(plan, key, torch.from_numpy(path), step, torch, dtype)
        assert rows.dtype == dtype
        agree(rows.numpy(), plan, key, path, step, tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torch_on_a_cpu_is_the_compiled_block(dtype):
    """On a CPU torch uses the compiled functions."""
    plan, key = DrawPlan((Normal(3), Sign(2))), [11, 12, 13]
    rows = torch_rows.Draws(key, 300, 77, torch.device("cpu"), dtype)
    number = np.float32 if dtype == torch.float32 else np.float64
    for got, k, step in ((rows(1, plan, 8), 12, 8), (rows.start(plan), 13, 0)):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), draw_rows.fill_block(plan, k, 300, 77, step, number))
    assert rows(0, DrawPlan(()), 0).shape == (0, 77)


# -- the range of draws --------------------------------------------------------------------------------------------------------

LAST = 2**64 - 1
HARD = np.array(
    [0, LAST, 1 << 22, 3 << 22, LAST - (3 << 22), 1 << 63, (1 << 63) - 1, 0x3FFFFF, 1 << 24, LAST << 24 & LAST, 1 << 56, 1 << 40],
    np.uint64,
)


@njit
def singles(words, out):
    """The float32 normals of words."""
    for j in range(words.size):
        low = np.uint32(words[j])
        out[0, j], out[1, j] = draw_decoders.normal_pair32(low, draw_decoders.radius32(np.uint32(words[j] >> np.uint64(32)), low))


def words_of_interest() -> np.ndarray:
    """Extreme words, random words, and words with a radius near each power of 2 or with u near sqrt(1/2)."""
    random = np.concatenate(philox.words(stream_key(0, 0), np.arange(50_000), 0, 0))
    powers = np.array([(1 << k) - 1 for k in range(41)], np.uint64) << np.uint64(24)
    middle = (np.uint64(int(2**40 * (1 - 0.5**0.5))) + np.arange(-50, 50).astype(np.uint64)) << np.uint64(24)
    return np.concatenate([HARD, powers, ~powers, middle, random])


def test_float32_keeps_all_bits_of_the_radius():
    """The radius in float32 has full accuracy in both tails."""
    word = words_of_interest()
    out = np.empty((2, word.size), np.float32)
    singles(word, out)
    expected = np.array(philox.normals(word))
    assert (np.abs(out - expected) <= SINGLE * np.hypot(*expected)).all()
    tensor = philox.normals(torch.from_numpy(word.view(np.int64)), torch, torch.float32)
    assert (np.abs(np.array(tensor) - expected) <= SINGLE * np.hypot(*expected)).all()


def test_the_largest_normal_is_the_same_in_both():
    """All 40 bits of the radius are set, with the angle next to pi/4: sqrt(-2 log 2^-41)."""
    word = np.array([LAST << 24 & LAST | 0x3FFFFF], np.uint64)
    out = np.empty((2, 1), np.float32)
    singles(word, out)
    assert abs(philox.normals(word)[1][0] - LARGEST) < 1e-12 and 7.5391 < LARGEST < 7.5392
    assert abs(out[1, 0] - LARGEST) < SINGLE * LARGEST
    assert max(np.abs(philox.normals(words_of_interest())).max(), np.abs(out).max()) <= LARGEST * (1 + SINGLE)


def test_uniforms_are_below_one_in_float32():
    """The largest double would round to 1, and is rounded down instead. The smallest is exact."""
    word = torch.from_numpy(np.array([0, LAST], np.uint64).view(np.int64))
    assert philox.uniform(word, torch, torch.float32).tolist() == [2.0**-53, 1 - 2.0**-24]


def test_an_edit_of_the_decoders_recompiles():
    """The hash that identifies machine code includes every file that is inlined."""
    read, original = [], Path.read_bytes
    with mock.patch.object(Path, "read_bytes", lambda self: read.append(self.name) or original(self)):
        _machine_code.text_key.__wrapped__()
    assert {"draw_decoders.py", "draw_rows.py", "lanes.py", "draws.py"} <= set(read)
