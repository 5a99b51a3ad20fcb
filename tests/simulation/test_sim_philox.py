"""Addressed noise: published test vectors, the compiled implementation, unique addresses, and the distributions of draws.

Statistical tests: every |z| < 4.5 (false-alarm rate 7e-6 each, about 150 of them: 1e-3 for the file) and every Kolmogorov-Smirnov
or binomial p > 1e-5. Seeds are fixed, so the result is always the same.
"""

from __future__ import annotations

import naive
import numpy as np
import pytest
from numba import njit
from scipy import stats

from sdetools.graph.bits import call
from sdetools.simulation import draw_rows, lane_moments, philox
from sdetools.simulation.philox import PARTS, SETS, WIDEST, Stream, stream_key
from sdetools.simulation.records import LEAF as LANES

KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
FAR = [0, 1, LANES, (1 << 32) - LANES, 1 << 32, (1 << 32) + 7 * LANES, (1 << 42) - LANES]
STEPS = [0, 1, (1 << 32) - 1, 1 << 32, (1 << 42) - 1]
SLOTS = [0, 5, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 40) + (1 << 32), (1 << 44) - 1]


@njit
def compiled_words(key, counters):
    """The words of the compiled implementation at some counters."""
    out = np.empty((len(counters), 2), np.uint64)
    for i in range(len(counters)):
        c = counters[i]
        out[i] = lane_moments.philox_words(key[0], key[1], c[0], c[1], c[2], c[3])
    return out


@njit
def _rows_of_words(address, key, first, step, slot, packed, out):
    call(address, np.int64(key), first, step, slot, packed, out.ctypes.data)


def rows_of_words(key, first, step, slot):
    """The words of a block of lanes, from the compiled function."""
    out = np.empty(2 * LANES, np.uint64)
    _rows_of_words(draw_rows.address("words"), key, first, step, slot, 1 << 32 | LANES, out)
    return out


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_published_vectors(counter, key, answer):
    """Random123's kat_vectors for philox4x32-10, on all three implementations."""
    assert naive.philox4x32(counter, key) == answer
    assert tuple(int(w) for w in philox.philox(counter, key)) == answer
    (words,) = compiled_words(np.array(key, np.uint64), np.array([counter], np.uint64))
    assert [int(w) for w in words] == [answer[0] << 32 | answer[1], answer[2] << 32 | answer[3]]


def test_nine_rounds_fail_the_published_vectors():
    """Negative control."""
    assert all(naive.philox4x32(c, k, rounds=9) != a for c, k, a in KNOWN)


@pytest.mark.parametrize("first", FAR)
def test_three_implementations_agree_bit_for_bit_at_far_addresses(first):
    """Python integers, NumPy, and compiled lanes, at paths, steps and slots beyond 2^32."""
    key = stream_key(12345678901234567890, 3)
    for step in STEPS:
        for slot in SLOTS:
            out = rows_of_words(np.uint64(key), first, step, slot)
            plain = philox.words(key, np.arange(first, first + LANES), step, slot)
            np.testing.assert_array_equal(out.reshape(2, LANES), plain)
            for lane in (0, 1, LANES - 1):
                assert naive.words(key, first + lane, step, slot) == (int(plain[0][lane]), int(plain[1][lane]))


def counter_of(path: int, step: int, slot: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, ...]:
    """The counter of an address."""
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(
            philox,
            "philox",
            lambda counter, key: seen.append(tuple(np.asarray(c).item() for c in counter)) or (np.zeros(1, np.uint64),) * 4,
        )
        philox.words(0, path, step, slot)
    return seen[0]


def test_addresses_are_unique(monkeypatch):
    """The counter is one to one in (path, step, slot): each of the 42 + 42 + 44 bits has its own bit among the 128."""
    owners: dict[int, tuple[str, int]] = {}
    for field, width in (("path", 42), ("step", 42), ("slot", 44)):
        for bit in range(width):
            place = {"path": 0, "step": 0, "slot": 0, field: 1 << bit}
            c = counter_of(**place, monkeypatch=monkeypatch)
            whole = sum(w << 32 * i for i, w in enumerate(c))
            assert whole.bit_count() == 1, (field, bit)
            owners.setdefault(whole, (field, bit))
            assert owners[whole] == (field, bit)
    assert len(owners) == 128
    top = {"path": (1 << 42) - 1, "step": (1 << 42) - 1, "slot": (1 << 44) - 1}
    assert counter_of(**top, monkeypatch=monkeypatch) == (0xFFFFFFFF,) * 4


def test_words_of_neighbouring_addresses_are_all_different():
    """No word repeats at neighbouring paths, steps and slots."""
    key = stream_key(0, 0)
    path = np.concatenate([np.arange(64), (1 << 32) + np.arange(64)])
    seen = np.concatenate(
        [np.concatenate(philox.words(key, path, step, slot)) for step in (0, 1, 2, 1 << 32) for slot in (0, 1, 1 << 40)]
    )
    assert len(np.unique(seen)) == len(seen) == 128 * 12 * 2


STREAMS = [0, 1, 2, 3, 4, 8, PARTS, SETS * PARTS, 2 * SETS * PARTS, 1 << 32, (1 << 32) + 4, WIDEST]
ROLES = [(part, pilot, role) for part in (0, 1, 2, PARTS - 1) for pilot in (False, True) for role in (0, 1, SETS - 1, None)]


def test_streams_and_roles_have_separate_bits():
    """The stream is the upper 64 bits of the counter of a key; part, pilot, set and start are in separate lower bits."""
    counters = {}
    for stream in STREAMS:
        for part, pilot, role in ROLES:
            c = Stream(stream, part, pilot).counter(role)
            assert all(0 <= w < 1 << 32 for w in c) and c[2] + (c[3] << 32) == stream
            low = c[0]
            assert (low % SETS, low // SETS % PARTS, low // SETS // PARTS, c[1]) == (role or 0, part, pilot, role is None)
            assert counters.setdefault(c, (stream, part, pilot, role)) == (stream, part, pilot, role)
    assert len(counters) == len(STREAMS) * len(ROLES)


def test_keys_of_seeds_streams_and_roles_differ():
    """A key is half of a call: two are equal with probability 2^-64, and none of these 1,536 are."""
    seeds = (0, 1, 1 << 32, 2**64 - 1)
    keys = [stream_key(seed, Stream(s, part, pilot), role) for seed in seeds for s in STREAMS for part, pilot, role in ROLES]
    assert len(set(keys)) == len(keys) == 4 * len(STREAMS) * len(ROLES)


def test_the_default_stream_has_the_keys_of_the_documented_counters():
    """Against Python integers: sets 0 and 1, the starts, the pilot, a part; and another stream."""
    for seed in (0, 5, (1 << 40) + 3):
        assert stream_key(seed, 0) == naive.key_of(seed, 0) and stream_key(seed, 0, 1) == naive.key_of(seed, 1)
        assert stream_key(seed, 0, None) == naive.key_of(seed, 1 << 32)
        assert stream_key(seed, Stream(0, pilot=True)) == naive.key_of(seed, 1 << 16)
        assert stream_key(seed, Stream(0, part=3), 1) == naive.key_of(seed, 13)
        assert stream_key(seed, Stream(0, proof=True), 1) == naive.key_of(seed, (1 << 17) + 1)
        c = naive.philox4x32((0, 0, 7, 1), (seed & 0xFFFFFFFF, seed >> 32))
        assert stream_key(seed, 7 + (1 << 32)) == c[0] << 32 | c[1]


def test_a_part_beyond_the_field_is_refused():
    """A stream has 16,384 parts."""
    with pytest.raises(ValueError, match="16,384 parts"):
        Stream(0).at(PARTS)


# -- conversion of words to draws --------------------------------------------------------------------------------------------------------

HARD_WORDS = np.array(
    [0, 2**64 - 1, 1, 1 << 24, (1 << 24) - 1, 1 << 63, 0x3FFFFF, 1 << 22, 1 << 23, 0xFFFFFFFFFF000000, 0xFFFFFF], np.uint64
)


def some_words(count: int, seed: int = 0) -> np.ndarray:
    """Random words."""
    return np.concatenate(philox.words(stream_key(seed, 0), np.arange(count // 2), 0, 0))


@njit
def _compiled(word, out):
    for j in range(len(word)):
        out[0, j], out[1, j] = lane_moments.normal_pair(word[j], lane_moments.radius(word[j]))


def compiled_normals(word: np.ndarray) -> np.ndarray:
    """The normals of words, from the compiled implementation."""
    out = np.empty((2, len(word)))
    _compiled(word, out)
    return out


def test_normals_of_three_implementations():
    """Extreme and random words: to 4e-15 of the radius (a few roundings of log, sqrt, sin, cos)."""
    word = np.concatenate([HARD_WORDS, some_words(20_000)])
    plain, fast = np.array(philox.normals(word)), compiled_normals(word)
    slow = np.array([naive.normal_pair(int(w)) for w in word]).T
    radius = np.hypot(*plain)
    assert np.isfinite(plain).all() and radius.min() > 0 and radius.max() < 7.6
    assert (np.abs(plain - slow) / radius).max() < 4e-15
    assert (np.abs(fast - plain) / radius).max() < 4e-15


def test_uniforms_are_in_the_open_interval():
    """Uniforms are in the open interval (0, 1), for extreme words too."""
    word = np.concatenate([HARD_WORDS, some_words(1024)])
    plain = philox.uniform(word)
    assert plain.min() > 0 and plain.max() < 1
    assert plain[0] == 2.0**-53 and plain[1] == 1 - 2.0**-53
    assert plain[:20].tolist() == [naive.uniform(int(w)) for w in word[:20]]


# -- distributions -----------------------------------------------------------------------------------------------------------------------

N = 2_000_000


@pytest.fixture(scope="module")
def gaussians() -> np.ndarray:
    """Two million normals."""
    return compiled_normals(some_words(N // 2, seed=11)).ravel()


def z_of(sample: np.ndarray, mean: float, variance: float) -> float:
    """The z-score of a mean."""
    return float((sample.mean() - mean) / np.sqrt(variance / sample.size))


@pytest.mark.parametrize(("power", "mean", "second"), [(1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105), (6, 15, 10395)])
def test_moments_of_normals(gaussians, power, mean, second):
    """The first six moments."""
    assert abs(z_of(gaussians**power, mean, second - mean**2)) < 4.5


def test_an_error_of_one_percent_in_scale_is_detected(gaussians):
    """Negative control of the moments and of the Kolmogorov-Smirnov test."""
    assert abs(z_of((1.01 * gaussians) ** 2, 1, 2)) > 20
    assert stats.kstest(1.01 * gaussians, "norm").pvalue < 1e-5


def test_normals_pass_kolmogorov_smirnov_and_a_tail_count(gaussians):
    """The distribution function, and the frequencies of the tails."""
    assert stats.kstest(gaussians, "norm").pvalue > 1e-5
    for edge in (2.0, 3.0, 4.0, 4.5):
        p = 2 * stats.norm.sf(edge)
        seen = np.count_nonzero(np.abs(gaussians) > edge)
        assert stats.binomtest(seen, gaussians.size, p).pvalue > 1e-5


def test_the_two_normals_of_a_word_are_independent(gaussians):
    """Mixed moments and the angle of the two normals."""
    a, b = gaussians.reshape(2, -1)
    assert abs(z_of(a * b, 0, 1)) < 4.5
    assert abs(z_of(a**2 * b**2, 1, 8)) < 4.5
    assert abs(z_of(a**3 * b, 0, 15)) < 4.5
    angle = np.arctan2(b, a)
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-5


def test_uniforms():
    """The distribution function and moments of uniforms."""
    u = philox.uniform(some_words(N // 2, seed=12))
    assert stats.kstest(u, "uniform").pvalue > 1e-5
    assert abs(z_of(u, 0.5, 1 / 12)) < 4.5 and abs(z_of(u**2, 1 / 3, 4 / 45)) < 4.5
    assert stats.kstest(u**1.01, "uniform").pvalue < 1e-5  # negative control
