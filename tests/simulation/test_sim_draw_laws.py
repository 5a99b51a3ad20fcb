"""The draw plan: no two draws share bits, and draws have the distributions of the documentation.

Statistical tests: correlations by |corr| sqrt(n) < 6 (2e-9 each). Rows and steps give 2.6e5 pairs of values and 8e4 of squares,
paths 4e3, for double and float32 alike: false-alarm rate at most 1.4e-3 for the file. Moments by |z| < 4.5 (7e-6 each, 20 of them:
1.4e-4). Seeds are fixed, so the result is always the same.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from sdetools.noise import Normal, Sign, Uniform
from sdetools.simulation import draw_rows, draws
from sdetools.simulation.draws import SEGMENT, DrawPlan, Segment, fill
from sdetools.simulation.philox import stream_key

# -- addresses -----------------------------------------------------------------------------------------------


def addresses(plan: DrawPlan, step: int) -> list[tuple[str, ...]]:
    """The bits of each row of a step: (segment, step of the counter, slot, word, part).

    Words are replaced by codes of their address and bits, and decoders return these codes.
    """
    calls: list[tuple[int, int]] = []

    def named(key, path, call, slot, xp):
        at = []
        for s in np.ravel(slot):
            calls.append((call, int(s)))
            at.append(len(calls) - 1)
        return tuple(np.array([[2 * c + h] for c in at], np.uint64) for h in (0, 1))

    def signs(segment, key, path, call, index, xp, real):
        return np.array([[word_bit(segment, call, int(bit))] for bit in index], float)

    def word_bit(segment, call, bit):
        calls.append((call, segment.base + bit // 128))
        return 4 * 64 * (len(calls) - 1) + bit % 128

    with (
        mock.patch.object(draws, "words", named),
        mock.patch.object(draws, "normals", lambda word, xp, real: (word * 2.0, word * 2.0 + 1)),
        mock.patch.object(draws, "uniform", lambda word, xp, real: word * 2.0),
        mock.patch.object(draws, "_signs", signs),
    ):
        z = fill(plan, 0, np.arange(1), step)[:, 0]
    out = []
    for s in plan.segments:
        for value in z[s.row : s.row + s.n]:
            index, part = divmod(int(value), 256 if s.kind is Sign else 4)
            out.append((*calls[index], part))
    return out


def shared_bits(plan: DrawPlan, among: range) -> int:
    """The number of (row, step) that share bits with another one."""
    seen = [a for step in among for a in addresses(plan, step)]
    return len(seen) - len(set(seen))


ADDRESSED = [
    (Normal(1), Normal(2), Normal(3), Uniform(1), Uniform(2), Sign(1), Sign(3), Sign(64)),
    (Normal(66), Sign(65), Uniform(33), Normal(64), Sign(200), Normal(129), Uniform(64)),
    (Sign(5), Sign(33), Sign(32), Sign(70), Normal(2), Normal(1)),
]


@pytest.mark.parametrize("plan", [DrawPlan(d) for d in ADDRESSED], ids=str)
def test_addresses_are_unique(plan):
    """Every (segment, row, step) has its own (step of the counter, slot, part); slots are in the ranges of their segments."""
    assert shared_bits(plan, range(300)) == 0
    for step in (0, 1, 1 << 33):
        found = addresses(plan, step)
        for s in plan.segments:
            assert all(s.base <= slot < s.base + SEGMENT for _, slot, _ in found[s.row : s.row + s.n])


@pytest.mark.parametrize("kind", [Normal, Uniform, Sign])
def test_a_wrong_share_is_detected(kind):
    """Negative control: if one step more shares an address, draws coincide."""
    true = Segment.address
    for n in (1, 70):
        with mock.patch.object(Segment, "address", lambda self, step: true(self, step // 2)):
            assert shared_bits(DrawPlan((kind(n),)), range(300)) == 150 * n


@pytest.mark.parametrize("n", [1, 3, 33, 64, 70, 200])
def test_no_two_signs_are_one_bit(n):
    """Rows of 192 signs over all steps of two addresses are equal only for the same bit, or with probability below 1e-50."""
    plan = DrawPlan((Sign(n), Sign(n)))
    among = range(2 * plan.segments[0].share + 1)
    rows = np.concatenate([fill(plan, stream_key(3, 0), np.arange(192), step) for step in among])
    assert len(np.unique(rows, axis=0)) == len(rows) == 2 * n * len(among)


# -- distributions -----------------------------------------------------------------------------------------------------------------------

MIXED = DrawPlan((Normal(66), Uniform(33), Sign(70), Normal(1), Normal(2), Normal(3), Uniform(1), Sign(5)))
N = 20_000


@pytest.fixture(scope="module", params=[np.float64, np.float32], ids=["double", "float32"])
def sample(request) -> np.ndarray:
    """Four steps of all rows, standardised: (4, rows, N)."""
    z = np.array([draw_rows.fill_block(MIXED, stream_key(17, 0), 0, N, step, request.param) for step in range(4)], float)
    for s in MIXED.segments:
        if s.kind is Uniform:
            z[:, s.row : s.row + s.n] = (z[:, s.row : s.row + s.n] - 0.5) * 12**0.5
    return z


def correlated(rows: np.ndarray) -> float:
    """The largest |correlation| sqrt(n) of two rows, for rows of mean 0 and variance 1."""
    found = np.abs(rows @ rows.T) / np.sqrt(rows.shape[1])
    np.fill_diagonal(found, 0)
    return float(found.max())


@pytest.mark.sample(1)
def test_rows_and_steps_are_uncorrelated(sample):
    """Values and squares, 724 rows: 2.6e5 pairs of each kind."""
    rows = sample.reshape(-1, N)
    assert correlated(rows) < 6
    varied = (
        np.concatenate([sample[:, s.row : s.row + s.n].reshape(-1, N) for s in MIXED.segments if s.kind is not Sign]) ** 2 - 1
    )
    assert correlated(varied / varied.std(axis=1, keepdims=True)) < 6


def test_paths_are_uncorrelated(sample):
    """A path against later ones, at distances 1, 2, 16, 64, 255 and 256."""
    for lag in (1, 2, 16, 64, 255, 256):
        products = (sample[..., :-lag] * sample[..., lag:]).reshape(-1, N - lag)
        assert np.abs(products.sum(axis=1)).max() / np.sqrt(N - lag) < 6


def test_a_repeated_slot_is_detected():
    """Negative control: if all draws use the same slots, normals of one draw repeat those of another."""
    plan = DrawPlan((Normal(66), Normal(5)))
    with mock.patch.object(draws, "SEGMENT", 0):
        rows = draw_rows.fill_block(DrawPlan(plan.draws), 3, 0, N, 0)
    assert correlated(rows) > 20
    assert correlated(draw_rows.fill_block(plan, 3, 0, N, 0)) < 6


@pytest.mark.sample(1)
def test_moments(sample):
    """Moments of each kind over all rows, steps and paths, against those of the distribution."""
    laws = {Normal: (1, 3, 15, 105), Uniform: (1, 9 / 5, 27 / 7, 9.0), Sign: (1, 1, 1, 1)}
    for kind, (m2, m4, m6, m8) in laws.items():
        z = np.concatenate([sample[:, s.row : s.row + s.n].ravel() for s in MIXED.segments if s.kind is kind])
        cases = [(z, 0, m2), (z**3, 0, m6)]
        if kind is not Sign:
            cases += [(z**2, m2, m4 - m2**2), (z**4, m4, m8 - m4**2)]
        for values, mean, variance in cases:
            assert abs((values.mean() - mean) / np.sqrt(variance / values.size)) < 4.5, kind


def test_an_error_of_one_percent_in_scale_is_detected(sample):
    """Negative control of the moments."""
    z = 1.01 * sample[:, :66].ravel()
    assert abs((z**2).mean() - 1) / np.sqrt(2 / z.size) > 20
