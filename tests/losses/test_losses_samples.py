"""Losses of data from a function of one sample: against loops over samples and derivatives by torch; input validation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from samples import FEATURES, PROBLEMS, TARGETS, D, N

import sdetools as st
from sdetools.graph.value import order
from sdetools.losses import FunctionSamples, from_function
from sdetools.losses.samples import cost


def close(found, expected):
    """Compare arrays relative to the largest entry."""
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", PROBLEMS)
def test_value_and_gradient_are_means_over_samples(name):
    """Also sample gradients and their covariance; leaving out a sample is detected."""
    problem = PROBLEMS[name]
    loss, alone, one = problem.loss(), problem.alone(), problem.formula(np)
    x = np.random.default_rng(1).normal(size=(problem.dim, 4))
    close(loss.value(x), [np.mean([one(p, a, y) for a, y in zip(*problem.data)]) for p in x.T])
    each = np.array([f.gradient(x) for f in alone])
    close(loss.gradient(x), each.mean(axis=0))
    close(loss.sample_gradients(x), each)
    deviations = each - each.mean(axis=0)
    close(loss.sample_covariance(x), np.einsum("nip,njp->ijp", deviations, deviations) / N)
    assert np.abs(loss.gradient(x) - each[1:].mean(axis=0)).max() > 1e-6  # negative control: without one sample
    assert (loss.samples, loss.dim) == (N, problem.dim)


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_derivatives_agree_with_torch(name):
    """The same formula, differentiated by torch."""
    pytest.importorskip("torch", reason="torch is an extra")
    ours, theirs = PROBLEMS[name].loss(), PROBLEMS[name].in_torch()
    x, v, w = np.random.default_rng(2).normal(size=(3, ours.dim))
    M = np.random.default_rng(3).normal(size=(ours.dim, ours.dim))
    for method, given in (
        ("value", ()), ("gradient", ()), ("sample_gradients", ()), ("hessian", ()), ("third", ()), ("hessian_product", (v,)),
        ("third_product", (v, w)), ("third_contracted", (M,)),
    ):  # fmt: skip
        expected = getattr(theirs, method)(x, *given)
        np.testing.assert_allclose(
            getattr(ours, method)(x, *given), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max(), err_msg=method
        )


@pytest.mark.parametrize("name", PROBLEMS)
def test_many_paths_agree_with_single_points_and_with_the_whole_loss(name):
    """A loss that is written as one value of all data has the same gradient."""
    loss, one = PROBLEMS[name].loss(), PROBLEMS[name].formula(np)
    whole = from_function(value=lambda x: sum(one(x, a, y) for a, y in zip(*loss.data)) / N, dim=loss.dim)
    x = np.random.default_rng(5).normal(size=(loss.dim, 3))
    close(loss.gradient(x), whole.gradient(x))
    for j in range(3):
        close(loss.gradient(x[:, j]), loss.gradient(x)[:, j])
        close(loss.value(x[:, j]), loss.value(x)[j])
        close(loss.sample_gradients(x[:, j]), loss.sample_gradients(x)[..., j])
        close(loss.sample_covariance(x[:, j]), loss.sample_covariance(x)[..., j])


def test_a_model_gives_the_loss_of_its_squares():
    """A model and the loss of squares have the same gradient."""
    model = from_function(model=lambda x, a: a @ np.tanh(x), data=(FEATURES, TARGETS), dim=D)
    value = from_function(value=lambda x, a, y: (a @ np.tanh(x) - y) ** 2 / 2, data=(FEATURES, TARGETS), dim=D)
    x = np.linspace(-1, 1, D)
    close(model.gradient(x), value.gradient(x))
    close(model.sample_gradients(x, of_model=True), FEATURES * (1 - np.tanh(x) ** 2))


def test_a_linear_model_agrees_with_least_squares():
    """Its quadratic form, sample gradients and covariances."""
    ours = from_function(value=lambda x, a, y: (a @ x - y) ** 2 / 2, data=(FEATURES, TARGETS), dim=D)
    theirs = st.losses.least_squares(FEATURES, TARGETS)
    for a, b in zip(ours.quadratic(), theirs.quadratic()):
        close(a, b)
    assert PROBLEMS["two layers"].loss().quadratic() is None
    x = np.random.default_rng(6).normal(size=(D, 4))
    close(ours.sample_gradients(x[:, 0]), theirs.sample_gradients(x[:, 0]))
    close(ours.sample_covariance(x), theirs.sample_covariance(x))


def test_one_array_of_images_and_a_loss_without_data():
    """Rows may have any shape; a loss that ignores them has no covariance."""
    images = np.random.default_rng(7).normal(size=(5, 2, 3))
    loss = from_function(value=lambda x, a: np.sum(np.tanh(a.reshape(-1)) * x) ** 2, data=images, dim=6)
    flat = np.tanh(images.reshape(5, 6))
    x = np.linspace(-1, 1, 6)
    close(loss.gradient(x), np.mean([2 * (f @ x) * f for f in flat], axis=0))
    alike = from_function(value=lambda x, a: x @ x / 2, data=images, dim=6)
    close(alike.gradient(x), x)
    assert not np.any(alike.sample_covariance(x))


def test_integers_and_booleans_are_numbers():
    """Data of these types are converted."""
    loss = from_function(value=lambda x, k, b: np.where(b > 0, x[0], k * x[0] ** 2), data=([1, 2], [True, False]), dim=1)
    assert loss.gradient([3.0]) == pytest.approx([(1 + 2 * 2 * 3) / 2])


def test_the_gradient_is_a_chain_of_matrix_products():
    """No array as large as the data is made, for any number of samples."""
    data = np.random.default_rng(8).normal(size=(3000, 7)), np.ones(3000)
    texts = {
        "diagonal": (lambda x, a, y: (a @ (x[:7] ** 2 - x[7:] ** 2) - y) ** 2, 14, 2),
        "layer": (lambda x, a, y: np.tanh(x[:14].reshape(2, 7) @ a) @ x[14:] - y, 16, 2),
        "sum": (lambda x, a, y: (np.sum(a * x) - y) ** 2, 7, 2),
    }
    for value, dim, products in texts.values():
        nodes = order([from_function(value=value, data=data, dim=dim)._graphs.slope.out])
        assert sum(n.op == "contract" for n in nodes) == products
        assert all(n.op == "const" or n.size < 3000 * 7 for n in nodes)


def test_cost_counts_operations():
    """The cost of a batch grows linearly in its size; the cheaper form is chosen."""
    loss = PROBLEMS["diagonal network"].loss()
    costs = [cost(loss._graphs.sampled(size)) for size in (1, 2, 4)]
    assert costs[2] - costs[1] == pytest.approx(2 * (costs[1] - costs[0]), rel=0.3)
    assert [loss.gathers(size, True, False) for size in (1, N)] == [True, False]


def test_identity_depends_on_code_and_data():
    """Also through pickling."""
    z, y, _ = st.losses.sparse_teacher(3, 5, 1, seed=1)
    loss = st.losses.diagonal_network(z, y)
    again = pickle.loads(pickle.dumps(loss))
    x = np.random.default_rng(0).normal(size=(10, 4))
    assert isinstance(loss, FunctionSamples) and again.identity == loss.identity
    np.testing.assert_array_equal(again.gradient(x), loss.gradient(x))
    others = (
        from_function(value=lambda x, a, y: (a @ x - y) ** 2, data=(FEATURES, TARGETS), dim=D),
        from_function(value=lambda x, a, y: (a @ x - y) ** 4, data=(FEATURES, TARGETS), dim=D),
        from_function(value=lambda x, a, y: (a @ x - y) ** 2, data=(FEATURES, TARGETS + 1e-9), dim=D),
    )
    assert len({loss.identity, *(o.identity for o in others)}) == 4


# ---- input validation


def misspelt(x, a, y):
    """A sample loss with a wrong attribute."""
    return (a @ x - y).squared()


def too_short(x, a, y):
    """A sample loss with shapes that do not fit."""
    return (a @ x[:2] - y) ** 2


def branching(x, a, y):
    """A sample loss that branches."""
    return a @ x if y > 0 else -(a @ x)


def dividing(x, a, y):
    """A sample loss that divides by zero."""
    return x[0] / 0 + y


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [(misspelt, AttributeError, "squared"), (too_short, ValueError, "shapes"), (dividing, Exception, None)],
)
def test_errors_of_user_functions_are_raised_unchanged_with_their_line(value, error, message):
    """A note gives the function and the line."""
    if message is None:
        loss = from_function(value=value, data=(FEATURES, TARGETS), dim=D)
        assert not np.isfinite(loss.value(np.ones(D)))  # NumPy's numbers divide by zero too
        return
    with pytest.raises(error) as seen:
        from_function(value=value, data=(FEATURES, TARGETS), dim=D)
    notes = "".join(getattr(seen.value, "__notes__", []))
    assert message in str(seen.value) + notes
    assert f"the value of {value.__name__} of {N} samples" in notes
    assert f"line {value.__code__.co_firstlineno + 2} of {__file__}" in notes


def test_a_branch_is_reported_with_its_line():
    """The message suggests np.where and a torch function."""
    with pytest.raises(ValueError, match="`value` must be made of NumPy's functions, without `if` on values") as seen:
        from_function(value=branching, data=(FEATURES, TARGETS), dim=D)
    assert f"line {branching.__code__.co_firstlineno + 2} of {__file__}" in str(seen.value)
    assert "from_torch" in str(seen.value)


ROWS = np.ones((4, 2))
BAD = {
    "different numbers of rows": (
        lambda: from_function(value=lambda x, a, y: y, dim=2, data=(ROWS, np.ones(3))),
        "one row for each sample, the same number of rows in each of its arrays; got shapes",
    ),
    "no rows": (lambda: from_function(value=lambda x, a: x[0], dim=2, data=np.ones((0, 2))), "one row for each sample"),
    "a number": (lambda: from_function(value=lambda x, a: x[0], dim=2, data=1.0), "one row for each sample"),
    "words": (lambda: from_function(value=lambda x, a: x[0], dim=2, data="digits"), "`data` must be an array of real numbers"),
    "not finite": (lambda: from_function(value=lambda x, a: x[0], dim=2, data=[np.nan, 1.0]), "`data` must"),
    "not one number": (lambda: from_function(value=lambda x, a: a * x, dim=2, data=ROWS), "one number for one sample; got shape"),
    "nothing": (lambda: from_function(value=lambda x, a: None, dim=2, data=ROWS), "got nothing"),
    "a text": (lambda: from_function(value=lambda x, a: "loss", dim=2, data=ROWS), "one number for one sample"),
    "no function": (lambda: from_function(value=3.0, dim=2, data=ROWS), "`value` must be a function"),
    "neither": (lambda: from_function(dim=2, data=ROWS), "got neither"),
    "both": (lambda: from_function(value=lambda x, a: 0, model=lambda x: 0, dim=2, data=ROWS), "got both"),
    "a gradient": (lambda: from_function(lambda x, a: a, value=lambda x, a: a @ x, dim=2, data=ROWS), "`gradient` must not be given"),
    "a model without data": (lambda: from_function(model=lambda x: 0, dim=2), "`data` must be given with `model`"),
    "no targets": (lambda: from_function(model=lambda x: 0, dim=2, data=ROWS), "`data` must end with the targets"),
    "two targets a sample": (lambda: from_function(model=lambda x, a: a @ x, dim=2, data=(ROWS, ROWS)), "`data` must end with the targets"),
    "no dimension": (lambda: from_function(value=lambda x, a: a @ x, data=ROWS), "`dim`"),
    "names": (lambda: from_function(value=lambda x, a: a @ x, dim=2, names="x", data=ROWS), "`names`"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_invalid_arguments_are_rejected_in_one_sentence(name):
    """The message names the argument."""
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_too_few_arguments_are_refused_with_those_that_it_gets():
    """Before anything is traced, as for a function without data."""
    with pytest.raises(ValueError, match=r"`value` must be a function of x, row_0, row_1; got one with the arguments \(x, a\)"):
        from_function(value=lambda x, a: a @ x, dim=2, data=(ROWS, np.ones(4)))


def test_a_loss_without_a_model_has_no_gradients_of_it():
    data = np.ones((3, 2)), np.ones(3)
    plain = st.losses.from_function(value=lambda x, a, y: (a @ x - y) ** 4, data=data, dim=2)
    with pytest.raises(ValueError, match="`of_model` must be False"):
        plain.sample_gradients(np.ones(2), of_model=True)
    squares = st.losses.from_function(model=lambda x, a: a @ x, data=data, dim=2)
    np.testing.assert_array_equal(squares.sample_gradients(np.ones(2), of_model=True), data[0])
