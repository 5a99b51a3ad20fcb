"""Code for loops over lanes against the array emitter and NumPy: straight-line code, loops, in-place steps, all nodes."""

from __future__ import annotations

import numpy as np
import pytest
from emitted import as_arrays, as_loops, loops
from numba import njit

from sdetools.graph.arrays import compiled
from sdetools.graph.calls import Call
from sdetools.graph.loops import Loops
from sdetools.graph.sampling import gather
from sdetools.graph.value import Trace, value

RNG = np.random.default_rng(5)
DATA = RNG.standard_normal((40, 300))

FORMULAS = {
    "elementwise": lambda x: 0.3 * x * x - np.exp(-x * x) / 3,
    "where and kinks": lambda x: np.where(x > 0.2, abs(x), np.maximum(-2 * x, np.floor(3 * x))),
    "conditions": lambda x: np.where((x > 0) & ~(x > 1) | (x == 0.5), 1.0, x) + 2.0 * (x < 0.1),
    "sum": lambda x: np.sum(x**2) + np.mean(x),
    "several sums": lambda x: x * np.sum(x) - np.sum(x * x) * np.max(x) + np.min(abs(x)),
    "norm": lambda x: x / np.linalg.norm(x),
    "data": lambda x: DATA[:7, : len(x)] @ x,
    "data twice": lambda x: DATA[:9, : len(x)].T @ np.tanh(DATA[:9, : len(x)] @ x - 0.3) / 9,
    "reversed": lambda x: x[::-1] * x,
    "rolled": lambda x: np.roll(x, 1) - x,
    "differences": lambda x: np.concatenate([x[1:] - x[:-1] ** 2, x[:1]]),
    "shifted both ways": lambda x: np.concatenate([x[:1], x[:-1]]) + np.concatenate([x[1:], x[-1:]]) - 2 * x,
    "matrix": lambda x: (np.reshape(x, (-1, 2)) @ np.reshape(x, (-1, 2)).T).reshape(-1),
    "transposed": lambda x: np.sum(np.reshape(x, (2, -1)) * np.reshape(x, (-1, 2)).T, axis=0),
    "softmax": lambda x: np.exp(x - np.max(x)) / np.sum(np.exp(x - np.max(x))),
    "cumulative": lambda x: np.cumsum(x),
    "angles": lambda x: np.sin(3 * x) * np.cos(3 * x) + np.tan(np.sin(x)),
    "angles of one number": lambda x: x * np.sin(x[0]) + np.cos(np.sum(x)) * x**2 - np.tan(np.sin(x[1])),
    "one angle of two nodes": lambda x: np.sin(x) * np.sin(x[0]) + np.cos(x) * np.cos(x[1]) * np.sin(x[1]),
    "powers": lambda x: abs(x) ** 1.7 + np.log1p(x * x) ** np.cos(x),
    "one at a time": lambda x: np.stack([x[i] * x[(i + 1) % len(x)] for i in range(len(x))]),
    "taken": lambda x: x[np.arange(len(x)) // 2] * x[[0, -1, 0, -1] * (len(x) // 4)],
    "product": lambda x: np.prod(1 + x / 10) * x[:2],
    "a constant": lambda x: np.zeros(3) + 2.0 * np.sum(0.0 * x),
}


@pytest.mark.sample(11)
@pytest.mark.parametrize("dim", [4, 16, 300])
@pytest.mark.parametrize("name", FORMULAS)
def test_both_emitters_match_numpy(name, dim):
    """To 1e-12 of the largest term: fused multiply-adds have errors relative to the terms that cancel."""
    formula, x = FORMULAS[name], RNG.standard_normal((dim, 21))
    with np.errstate(all="ignore"):
        plain = np.stack([np.broadcast_to(formula(point), np.shape(formula(point))) for point in x.T], axis=-1)
    size = 1 + np.abs(plain).max()
    for width, found in ((0, as_arrays(lambda v: value(formula(v)), x)), (16, as_loops(lambda v: value(formula(v)), x))):
        assert found.shape == plain.shape
        assert np.abs(found - plain).max() < 1e-12 * size, width


@pytest.mark.sample(1)
@pytest.mark.parametrize("width", [16, 32, 256])
def test_the_width_of_a_block_does_not_matter(width):
    """Results are bit-identical, except for the last bits of matrix products."""
    x = RNG.standard_normal((60, 40))
    for name in ("elementwise", "several sums", "rolled", "matrix", "angles", "one at a time"):
        formula = FORMULAS[name]
        np.testing.assert_array_equal(
            as_loops(lambda v, f=formula: value(f(v)), x, width), as_loops(lambda v, f=formula: value(f(v)), x, 16)
        )


STEPS = {
    "own component": lambda x, m: (x - 0.1 * m, 0.9 * m + x),
    "kept": lambda x, m: (x - 0.1 * m, x),
    "exchanged": lambda x, m: (m, x),
    "reversed in place": lambda x, m: (x[::-1], m[::-1] + x),
    "rolled in place": lambda x, m: (np.roll(x, 1), np.roll(m, 2) - x),
    "a sum of what is overwritten": lambda x, m: (x - np.sum(m) * m, m * np.sum(x)),
    "products of what is overwritten": lambda x, m: (DATA[:6, :6] @ m if len(x) == 6 else x * m[0], x + m[-1]),
    "one number of it": lambda x, m: (x * m[2], m - x[1]),
}


@pytest.mark.parametrize("dim", [6, 90])
@pytest.mark.parametrize("name", STEPS)
def test_steps_in_place_read_the_old_state(name, dim):
    """Two rows of state are overwritten by results that depend on both."""
    trace = Trace()
    x, m = trace.input("x", (dim,)), trace.input("m", (dim,))
    new = [value(v) for v in STEPS[name](x, m)]
    run = loops([(0, new[0]), (dim, new[1])], [(0, x), (dim, m)], 16)
    a, b = RNG.standard_normal((2, dim, 16))
    found = run({0: a, dim: b})
    expected = [np.stack([STEPS[name](p, q)[i] for p, q in zip(a.T, b.T)], axis=-1) for i in (0, 1)]
    np.testing.assert_allclose(found[: 2 * dim], np.concatenate(expected), rtol=1e-12, atol=1e-13)


SHORT_SUMS = {
    "product with itself": lambda y: y @ y,
    "a norm of squares": lambda y: np.sum(y * y + 1) * y,
    "rows of squares": lambda y: np.sum((y * y)[None, :] * np.ones((len(y), 1)) * (y + 1)[:, None], axis=1),
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("dim", [2, 3, 4])
@pytest.mark.parametrize("name", SHORT_SUMS)
def test_short_sums_of_a_state_that_a_loop_overwrites(name, dim):
    """A loop writes out sums of up to four terms of the old state, while earlier iterations have stored the new one."""

    def step(x):
        y = x
        for _ in range(40):  # more operations than straight-line code has, fewer than a program
            y = y - 0.01 * y * x
        return y + SHORT_SUMS[name](x)

    trace = Trace()
    x, a = trace.input("x", (dim,)), RNG.standard_normal((dim, 16))
    found = loops([(0, value(step(x)))], [(0, x)], 16)({0: a})
    np.testing.assert_allclose(found[:dim], np.stack([step(p) for p in a.T], axis=-1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["own component", "exchanged", "a sum of what is overwritten"])
def test_a_step_that_reads_the_new_state_is_detected(name):
    """Negative control: the two rows are updated by two kernels, one after the other."""
    trace = Trace()
    x, m = trace.input("x", (6,)), trace.input("m", (6,))
    first, second = (value(v) for v in STEPS[name](x, m))
    a, b = RNG.standard_normal((2, 6, 16))
    at = [(0, x), (6, m)]
    right = loops([(0, first), (6, second)], at, 16)({0: a, 6: b})
    moved = loops([(0, first)], at, 16)({0: a, 6: b})
    wrong = loops([(6, second)], at, 16)({0: moved[:6], 6: moved[6:12]})
    assert np.abs(right[:12] - wrong[:12]).max() > 1e-3


def test_rows_of_data_at_traced_indices():
    """`data[index]` gives different rows for different paths."""
    index = RNG.integers(0, 40, (3, 16)).astype(float)
    for emit in (as_arrays, as_loops):
        found = emit(lambda i: np.sum(value(DATA[:, :5])[i], axis=0), index)
        np.testing.assert_allclose(found, DATA[index.astype(int), :5].sum(axis=0).T, rtol=1e-13)


def test_numbers_are_data_and_do_not_change_the_code():
    """Except for small whole numbers, which are part of the structure."""

    def text(c):
        x = Trace().input("x", (3,))
        return loops([(3, x * c + c * c)], [(0, x)], 16).text

    assert text(0.123) == text(7.25e-3) != text(2.0)


def test_compiled_functions_run_between_loops():
    """A compiled function on whole rows, with uniform numbers and scratch rows, in a loop and in straight-line code."""
    from naive import doubled_rows

    def formula(x):
        return Call(doubled_rows, scratch=1)([x * 3.0, np.sum(x)], x.shape) + x

    for dim in (3, 200):
        x = RNG.standard_normal((dim, 16))
        at = Trace().input("x", (dim,))
        expected = 2 * (3 * x) + x.sum(axis=0) + x
        run = loops_of_a_call(formula(at), at)
        np.testing.assert_allclose(run({0: x})[dim : 2 * dim], expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(compiled([formula(at)], [at])(x)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gathers", [False, True])
def test_a_call_is_surrounded_by_programs_or_by_loops_but_not_both(monkeypatch, gathers):
    """A program computes the arguments of a call. Programs cannot gather samples; then loops recompute everything."""
    from naive import doubled_rows

    monkeypatch.setattr(Loops, "BUDGET", 0)
    table = np.array([5.0, -7.0])

    def formula(x, called, gather):
        y = called(np.tanh(x) * 3.0 + 1.0, np.sum(x * x))
        return np.exp(0.1 * y) + (gather(np.where(x > 0, 1.0, 0.0)) if gathers else 0.0)

    x = RNG.standard_normal((3, 16))
    at = Trace().input("x", (3,))
    run = loops_of_a_call(formula(at, lambda *a: Call(doubled_rows, scratch=1)(a, (3,)), lambda i: gather(table, i)), at)
    expected = formula(x, lambda u, s: 2 * u + (x * x).sum(axis=0), lambda i: table[i.astype(int)])
    np.testing.assert_allclose(run({0: x})[3:6], expected, rtol=1e-12)
    assert gathers or "lanes.call(F" in run.text


def loops_of_a_call(made, at):
    return loops([(at.size, made)], [(0, at)], 16)


@njit
def scaled_rows(x, by, out):
    for j in range(x.shape[1]):
        for i in range(x.shape[0]):
            out[i, j] = by * x[i, j]


NUMBERS = {
    "a uniform input": (lambda p: p[1], lambda p: p[1]),
    "a sum of few": (lambda p: np.sum(p[:3]) * p[0], lambda p: p[:3].sum() * p[0]),
    "a sum of many": (lambda p: np.sum(p), lambda p: p.sum()),
    "a function": (lambda p: np.exp(p[2]), lambda p: np.exp(p[2])),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_call_takes_a_uniform_number(name):
    """Next to rows that are computed first, whose names in the code must not be confused with the number's."""
    trace = Trace()
    at, p = trace.input("x", (4,)), trace.uniform("P", (9,))
    number, by_numpy = NUMBERS[name]
    made = Call(scaled_rows)([at[:3] * 1.0 + at[1:], number(p)], (3,))
    run = loops([(4, made)], [(0, at)], 16, [p])
    x, numbers = RNG.standard_normal((4, 16)), RNG.standard_normal(9)
    np.testing.assert_allclose(run({0: x}, numbers)[4:7], by_numpy(numbers) * (x[:3] + x[1:]), rtol=1e-12, atol=1e-12)
