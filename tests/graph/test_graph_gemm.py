"""Products of matrices and rows of lanes: exact for whole numbers, bit-identical for every tile and width, in bounds."""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest
from numba import cfunc, njit, types

from sdetools.graph import gemm, lanes, rows
from sdetools.graph.bits import float32_pointer, float_pointer

SIGNATURE = "int64(int64, int64, int64, int64, int64, int64)"
SIZES = [
    (1, 1),
    (1, 9),
    (2, 3),
    (3, 2),
    (4, 4),
    (5, 7),
    (7, 5),
    (8, 8),
    (9, 1),
    (11, 13),
    (12, 12),
    (17, 6),
    (64, 64),
    (64, 3),
    (3, 64),
]


@njit
def call(address, matrix, source, target, sizes, width, transposed):
    return lanes.call(address, matrix, source, target, sizes, width, transposed)


def multiplied(address, matrix, x, transposed):
    """Return the product, after a check that the memory behind it is unchanged."""
    n, d = matrix.shape
    stored = np.asfortranarray(matrix) if transposed else np.ascontiguousarray(matrix)
    out = np.full(n * x.shape[1] + 1, 99, x.dtype)
    assert call(address, stored.ctypes.data, x.ctypes.data, out.ctypes.data, n << 32 | d, x.shape[1], int(transposed)) == 0
    assert out[-1] == 99
    return out[:-1].reshape(n, x.shape[1])


@pytest.fixture(scope="module")
def made():
    """Small products with wide tiles and without, by type."""
    kinds = {"float64": (float_pointer, types.float64), "float32": (float32_pointer, types.float32)}
    return {
        (dtype, wide): cfunc(SIGNATURE, fastmath=lanes.FLAGS)(gemm.small(*kind, wide))
        for dtype, kind in kinds.items()
        for wide in (False, True)
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ["product", "small_product"])
def test_products_of_whole_numbers_are_exact(name, dtype, transposed):
    rng = np.random.default_rng(4)
    address = rows.address(name, dtype)
    for n, d in SIZES:
        for width in (1, 12, 16, 37, 64):
            matrix, x = (rng.integers(-9, 9, shape).astype(dtype) for shape in ((n, d), (d, width)))
            np.testing.assert_array_equal(multiplied(address, matrix, x, transposed), matrix @ x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_products_are_bit_identical_for_every_tile_width_and_order(made, dtype):
    rng = np.random.default_rng(5)
    for n, d in SIZES:
        matrix, x = (rng.standard_normal(shape).astype(dtype) for shape in ((n, d), (d, 77)))
        first = multiplied(made[dtype, False].address, matrix, x, False)
        for wide in (False, True):
            for transposed in (False, True):
                np.testing.assert_array_equal(multiplied(made[dtype, wide].address, matrix, x, transposed), first)
            alone = [multiplied(made[dtype, wide].address, matrix, np.ascontiguousarray(x[:, [j]]), False) for j in (0, 40, 76)]
            np.testing.assert_array_equal(np.hstack(alone), first[:, [0, 40, 76]])
        np.testing.assert_array_equal(multiplied(rows.address("small_product", dtype), matrix, x, False), first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_products_satisfy_the_error_bound_of_a_sum(made, dtype):
    """|error| <= (d + 1) u / (1 - (d + 1) u) sum |a x| with the unit roundoff u (Higham, section 3.1).

    The sum has d roundings, and the reference has one per term.
    """
    rng = np.random.default_rng(6)
    matrix, x = rng.standard_normal((13, 64)).astype(dtype), rng.standard_normal((64, 5)).astype(dtype)
    found = multiplied(rows.address("small_product", dtype), matrix, x, False)
    u = np.finfo(dtype).eps / 2
    part = 65 * u / (1 - 65 * u)
    for i in range(13):
        for j in range(5):
            terms = [float(a) * float(b) for a, b in zip(matrix[i], x[:, j])]
            bound = part * fsum(map(abs, terms))
            assert abs(float(found[i, j]) - fsum(terms)) <= bound


def test_non_finite_values_stay_in_their_lane(made):
    matrix, x = np.ones((9, 9)), np.ones((9, 40))
    x[2, 3], x[4, 21], x[5, 21] = np.nan, np.inf, -np.inf
    for wide in (False, True):
        found = multiplied(made["float64", wide].address, matrix, x, False)
        assert np.isnan(found[:, [3, 21]]).all() and (np.delete(found, [3, 21], axis=1) == 9.0).all()
