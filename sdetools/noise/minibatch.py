"""Noise from data: minibatch noise, label noise, and Gaussian noise with the same covariance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools._arrays import ArraysOnly, numeric, spread
from sdetools.graph.sampling import gather, tally
from sdetools.graph.value import Value
from sdetools.noise.base import Draws, Noise, Normal, Sign, check_draws, over_paths
from sdetools.noise.batch_sampling import SampledNoise, batch_indices
from sdetools.noise.laws import NORMAL, SIGN, RootedNoise, gaussian
from sdetools.noise.roots import LabelRoot, check_root, variable_names

if TYPE_CHECKING:
    from sdetools.losses.data import LinearModel
    from sdetools.losses.samples import FunctionSamples

GATHER_COST, SLOPE_COST = 11, {"least_squares": 2, "logistic": 35}
"""Costs of gathering one number of a sample and of one slope, relative to one number of the data in two matrix-vector products."""


class Minibatch(SampledNoise):
    """Minibatch and label noise of a linear model, f_i(x) = a_i . x with the features a_i (`minibatch` and `label_noise` make it).

    `SampledNoise` has the formula of v and the rows of the draws. The law of label noise alone does not depend on x. A small batch reads only
    its own rows a_i of the data (`gathers`). A larger one counts how often each sample was drawn and forms the products A x and
    A^T (weights * slopes) with all data, A with the rows a_i.

    Args:
        loss: The loss with the data.
        size: Batch size.
        replace: Whether samples are drawn with replacement.
        label_std: Standard deviation of the label noise.
        label_draw: The class of its draws, `Sign` or `Normal`, or None without label noise.
        with_data: Whether the gradient of the batch is part of the noise; False for label noise alone.
    """

    loss: LinearModel

    def raw(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return the batch gradient with label noise, (1/size) sum_b (grad L_{i_b} - label_std s_b grad f_{i_b}), `(dim,)` or `(dim, paths)`.

        For label noise alone the first term is left out. L_i is the loss of sample i, f_i its model. The draws `z` have the paths of the points
        `x`, and the rows: `size` uniforms, which select the samples i_b, then with label noise `size` signs or normals s_b. `p` is [label_std];
        with None or an empty `p` the attribute `label_std` is used.
        """
        if not isinstance(x, Value):
            x, z = spread(np.asarray(x, dtype=float), z), np.asarray(z, dtype=float)
        loss, size = self.loss, self.size
        index, labels = batch_indices(z[:size], self.n, self.replace), z[size:]
        if self.gathers:
            a, y = gather(loss.features, index), gather(loss.targets, index)
            factors: Any = loss.slope((a * x).sum(axis=1), y) if self.with_data else 0.0
            factors = factors - self.std(p) * labels if len(labels) else factors
            out = (factors[:, None] * a).sum(axis=0)
        else:
            weights = tally(index, self.n) * loss.slope(loss.features @ x) if self.with_data else 0.0
            weights = weights - self.std(p) * tally(index, self.n, labels) if len(labels) else weights
            out = loss.features.T @ weights
        return out / size + (loss.l2 * x if self.with_data else 0.0)

    @property
    def gathers(self) -> bool:
        """Whether reading the rows of a batch one by one is estimated to be cheaper than products with all data; `raw` then does so."""
        slope = SLOPE_COST[self.loss.kind]
        return self.size * (GATHER_COST * self.dim + slope) <= self.n * (self.dim + slope)

    @property
    def state_dependent(self) -> bool:  # type: ignore[override]
        """Whether the law of v depends on x: not for label noise alone, v = -(label_std / size) sum_b s_b a_{i_b}."""
        return self.with_data

    def covariance(self, x: Any, p: Any = None) -> Any:
        """Return Sigma(x) = c S(x) + (label_std^2 / size) F(x): `(dim, dim)`, or `(dim, dim, paths)` for points `(dim, paths)`.

        S is the covariance of the n sample gradients (divided by n), F = (1/n) sum_i grad f_i grad f_i^T for the models f_i, and c the attribute
        `factor`, 1/size with replacement. For label noise alone the first term is left out, without label noise the second. `p` is
        [label_std]; with None or an empty `p` the attribute `label_std` is used.
        """
        x = x if isinstance(x, Value) else np.asarray(x, dtype=float)
        out = self.factor * self.loss.sample_covariance(x) if self.with_data else 0.0
        if self.label_draw is None:
            return out
        return out + over_paths(self.std(p) ** 2 / self.size * self.loss.gram, x)

    def along(self, x: Any, weights: Any, labels: Any) -> Any:
        """Return sum_i (weights_i grad L_i(x) - labels_i a_i) over all samples, `(dim,)` or `(dim, paths)`.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`.
            weights: Weights `(n,)` or `(n, paths)` whose sum over the samples is 0, so that the ridge term l2 x of each grad L_i cancels.
            labels: Weights `(n,)` or `(n, paths)` of the features a_i, the gradients of the models, or None for none.
        """
        slopes = self.loss.slope(self.loss.features @ x)
        weights = spread(weights, slopes) * slopes
        return self.loss.features.T @ (weights if labels is None else weights - spread(labels, weights))

    def as_gaussian(self) -> Noise:
        """Return the Gaussian noise with the same covariance: a `SampleGaussian`, or a `RootedNoise` for label noise alone."""
        return SampleGaussian(self) if self.with_data else gaussian(covariance=self.covariance(np.zeros(self.dim)))


class FunctionMinibatch(SampledNoise):
    """Minibatch and label noise of a loss given by a Python function of a sample (`minibatch` and `label_noise` make it).

    `SampledNoise` has the formula of v and the rows of the draws, and `losses.from_function(..., data=...)` makes the loss. A small batch reads
    only its own rows of the data. A larger one, or a batch together with the full gradient, is one gradient of a weighted sum over all
    samples.

    Args:
        loss: The loss with the data.
        size: Batch size.
        replace: Whether samples are drawn with replacement.
        label_std: Standard deviation of the label noise.
        label_draw: The class of its draws, `Sign` or `Normal`, or None without label noise.
        with_data: Whether the gradient of the batch is part of the noise; False for label noise alone.
    """

    loss: FunctionSamples

    def raw(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return the batch gradient with label noise, (1/size) sum_b (grad L_{i_b} - label_std s_b grad f_{i_b}), `(dim,)` or `(dim, paths)`.

        For label noise alone the first term is left out. L_i is the loss of sample i, f_i its model. The draws `z` have the paths of the points
        `x`, and the rows: `size` uniforms, which select the samples i_b, then with label noise `size` signs or normals s_b. `p` is [label_std];
        with None or an empty `p` the attribute `label_std` is used.
        """
        if not self.loss.gathers(self.size, self.with_data, self.label_draw is not None):
            return self.loss.weighted_gradient(x, *self.sample_weights(z, p))
        index = batch_indices(numeric(z)[: self.size], self.n, self.replace)
        labels = None if self.label_draw is None else self.std(p) * numeric(z)[self.size :]
        return self.loss.batch_gradient(x, index, labels, self.with_data)

    def sample_weights(self, z: Any, p: Any = None) -> tuple[Any, ...]:
        """Return a tuple of arrays `(n,)` or `(n, paths)`: per sample its share of the batch and, with label noise, its label errors / size.

        They are the weights with which `loss.weighted_gradient(x, *weights)` equals `raw(x, z, p)`. The first is 0 for label noise alone. `z` and
        `p` are the draws and numbers, as in `raw`: `size` uniforms, then the label draws; [label_std] or None.
        """
        z = numeric(z)
        index, labels = batch_indices(z[: self.size], self.n, self.replace), z[self.size :]
        own = tally(index, self.n) / self.size if self.with_data else np.zeros((self.n, *z.shape[1:]))
        return (own,) if self.label_draw is None else (own, tally(index, self.n, self.std(p) * labels) / self.size)

    along = property(lambda self: self.loss.weighted_gradient)

    def covariance(self, x: Any, p: Any = None) -> Any:
        """Return Sigma(x) = c S(x) + (label_std^2 / size) F(x): `(dim, dim)`, or `(dim, dim, paths)` for points `(dim, paths)`.

        S is the covariance of the n sample gradients (divided by n), F = (1/n) sum_i grad f_i grad f_i^T for the models f_i, and c the attribute
        `factor`, 1/size with replacement. For label noise alone the first term is left out, without label noise the second. `p` is
        [label_std]; with None or an empty `p` the attribute `label_std` is used.
        """
        out = self.factor * self.loss.sample_covariance(x) if self.with_data else 0.0
        return out if self.label_draw is None else out + self.std(p) ** 2 / self.size * self.loss.sample_covariance(x, True)

    def as_gaussian(self) -> Noise:
        """Return the Gaussian noise with the same covariance, a `SampleGaussian`."""
        return SampleGaussian(self)


class SampleGaussian(Noise):
    """Gaussian noise with the exact covariance of a minibatch: v = sqrt(c/n) sum_i (xi_i - mean xi) grad L_i(x), xi ~ N(0, I_n).

    c is `SampledNoise.factor`, 1/size with replacement, and L_i the loss of sample i. Label noise adds label_std / sqrt(n size) sum_i xi'_i
    grad f_i(x) with the models f_i and further normals xi'; label noise alone has this term only. The draws are n normals (2 n for data and
    labels: all xi_i, then all xi'_i), so it suits data sets of up to a few thousand samples. `as_gaussian` of a minibatch makes it.

    Args:
        noise: The minibatch or label noise whose covariance it has.

    Example:
        >>> import numpy as np, sdetools as st
        >>> batch = st.noise.minibatch(st.losses.least_squares([[1.0], [1.0]], [1.0, -1.0]), size=2)
        >>> batch.as_gaussian().draws, batch.as_gaussian().covariance(np.array([0.0]))
        ((Normal(n=2),), array([[0.5]]))
    """

    gaussian = True
    latex = r"\sqrt{c/n}\,\sum_i (\xi_i - \bar\xi)\,\nabla L_i(x)"

    def __init__(self, noise: Minibatch | FunctionMinibatch) -> None:
        self._noise, self.dim, self.loss, n = noise, noise.dim, noise.loss, noise.n
        self.draws: tuple[Draws, ...] = (Normal(n * (noise.with_data + (noise.label_draw is not None))),)
        self._factors = math.sqrt(noise.factor), noise.label_std / math.sqrt(noise.size)
        self.identity = f"gaussian[{noise.identity}, label_std={noise.label_std!r}]"
        self.label = f"Gaussian with the covariance of {noise.label}"

    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        """Return v in the shape of the points `x`, `(dim,)` or `(dim, paths)`, for standard normal draws `z`; `p` is not used.

        `z` has the paths of `x` and the rows xi_1, ..., xi_n, then xi'_1, ..., xi'_n if there are both data and label noise.

        Raises:
            ArraysOnly: For traced draws, because the sum over all data is not compiled. It is a TypeError.
            ValueError: If `z` does not have one row for each draw.
        """
        n, data = self._noise.n, self._noise.with_data
        z = np.stack(check_draws(z, self)) if isinstance(z, list) else check_draws(z, self)  # an integrator's rows
        if z.dtype == object:
            raise ArraysOnly(f"{self.label} is a sum over all data, for which no formula is generated")
        own, labels = z[: n * data], z[n * data :]
        weights = self._factors[0] * (own - own.mean(axis=0)) if data else 0.0 * labels
        return self._noise.along(x, weights, -self._factors[1] * labels if len(labels) else None) / math.sqrt(n)

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return Sigma(x) of the minibatch noise, `(dim, dim)` or `(dim, dim, paths)`; `p` is not used."""
        return self._noise.covariance(x)

    def as_gaussian(self) -> SampleGaussian:
        """Return this noise, which is Gaussian."""
        return self


def minibatch(loss: Any, size: int, replace: bool = True) -> Noise:
    """Return minibatch noise v = g_B(x) - grad L(x), the deviation of the mean gradient g_B of a random batch from the full one.

    In an oracle, sigma = 1 is minibatch SGD, and another sigma multiplies the deviation. Sigma(x) = S(x)/size with replacement and
    (n - size) / ((n - 1) size) S(x) without, where S is the covariance of the n samples' gradients (divided by n): the noise of single samples
    at size = 1. Each step of each path draws a new batch by `size` uniform draws from (0, 1).

    Args:
        loss: A loss with data: `losses.least_squares`, `losses.logistic`, `losses.diagonal_network`, or `losses.from_function` or
            `losses.from_torch` with `data`.
        size: Batch size, a positive integer.
        replace: Whether samples are drawn with replacement.

    Returns:
        The noise, for the argument `noise` of `NoisyOracle`: a `Minibatch`, a `FunctionMinibatch` or a `TorchMinibatch`, as the loss requires.

    Raises:
        ValueError: If `loss` has no data, or a batch without replacement is larger than the data.

    Example:
        >>> import numpy as np, sdetools as st
        >>> noise = st.noise.minibatch(st.losses.least_squares([[1.0], [1.0]], [1.0, -1.0]), size=2)
        >>> noise.covariance(np.array([0.0])), noise.value(np.array([0.0]), np.array([0.1, 0.2]))
        (array([[0.5]]), array([-1.]))
    """
    size, replace = _check_sampling(loss, size, replace)
    if _is_torch(loss):
        from sdetools.noise.torch_samples import TorchMinibatch

        return TorchMinibatch(loss, size, replace)
    return (FunctionMinibatch if _is_function(loss) else Minibatch)(loss, size, replace)


def label_noise(
    loss: Any = None,
    std: float = 1.0,
    kind: str = "rademacher",
    size: int = 1,
    *,
    batch: bool = False,
    replace: bool = True,
    model: str | Sequence[str] | None = None,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> Noise:
    """Return label noise: fresh independent noise eps_i on the labels at each step, r_i -> r_i - eps_i, for L = (1/2n) sum_i r_i^2.

    Here r_i = f_i(x) - y_i is the residual of sample i, with its model f_i and label y_i. For a loss with data, v = -(1/size) sum_b eps_b
    grad f_{i_b} over a batch of samples i_b is added to the full gradient: for a linear model Sigma = (std^2/size) H exactly, with the Hessian H
    (without l2). With `batch=True` the gradient of that batch replaces the full one, as in training: Sigma = S(x)/size + (std^2/size) H, with
    the covariance S of the sample gradients; without replacement the first term is (n - size) / ((n - 1) size) S(x). For any model f, H is
    (1/n) sum_i grad f_i grad f_i^T here. The draws are `size` uniforms for the samples, then `size` signs or normals for eps.

    For a model given by expressions, v = -(std / sqrt(n size)) sum_i s_i grad f_i with signs or normals s_i, so Sigma = (std^2 / (n size))
    sum_i grad f_i grad f_i^T, and the draws are these n signs or normals. At size = n this is fresh noise on each label of the full batch; for
    smaller sizes it has the covariance of a batch, without sampling indices.

    Args:
        loss: A loss of squares: `losses.least_squares`, or `losses.from_function` or `losses.from_torch_model` with a model and data; a
            loss of formulas (`losses.from_models`, `uv_model`, `diagonal_network`, ...) is used by its `models`.
        std: Standard deviation of eps, 0 or above.
        kind: "rademacher" for random signs times `std`, or "gaussian".
        size: Batch size.
        batch: Whether the gradient of the batch replaces the full gradient; not for expressions.
        replace: Whether samples are drawn with replacement; expressions have no samples to draw.
        model: Instead of `loss`, the expression of f, or one for each sample.
        variables: Names of the coordinates in `model`, "x y" or a list; by default x0, x1, ... or alphabetical.
        parameters: Constants in `model` by name.
        at: A point `(dim,)` where the gradients of `model` are defined, for their validation; by default one of three fixed points.

    Returns:
        The noise, for the argument `noise` of `NoisyOracle`: a `SampledNoise` for a loss with data, a `RootedNoise` for expressions.

    Raises:
        ValueError: If not exactly one of `loss` and `model` is given, an argument has a wrong form, or `batch` or `replace` is set for
            expressions.

    Example:
        >>> import numpy as np, sdetools as st
        >>> st.noise.label_noise(model="sqrt(1 + x**2)*y", std=0.5, variables="x y").covariance(np.array([0.0, 0.0]))
        array([[0.  , 0.  ],
               [0.  , 0.25]])
        >>> st.noise.label_noise(st.losses.least_squares([[2.0], [0.0]], [0.0, 0.0]), std=0.5, size=2).covariance(np.zeros(1))
        array([[0.25]])
    """
    if kind not in ("rademacher", "gaussian"):
        raise ValueError(f'`kind` must be "rademacher" (signs) or "gaussian"; got kind={kind!r}.')
    std = _check.number("std", std, "be a number, 0 or above")
    if std < 0:
        raise ValueError(f"`std` must be a number, 0 or above; got std={std!r}. The law of the label noise is symmetric.")
    if (loss is None) == (model is None):
        got = "neither" if loss is None else "both"
        raise ValueError(f"`label_noise` must be given either a `loss` with data or a `model` for f; got {got}.")
    if model is None and hasattr(loss, "models"):
        model, variables = loss.models, loss.names  # losses.problems: formulas of the models
    if model is not None and (batch or not replace):
        raise ValueError(
            f"`batch` and `replace` must keep their defaults for expressions, which have no samples to draw; got batch={batch}, "
            f"replace={replace}. For batches give a loss with data, such as st.losses.from_function(model=..., data=...)."
        )
    if model is not None:
        size = _check.count("size", size)
        return _of_model(model, std, kind, size, variables, parameters, at)
    size, replace = _check_sampling(loss, size, replace)
    draw = Sign if kind == "rademacher" else Normal
    if _is_torch(loss):
        from sdetools.noise.torch_samples import TorchMinibatch

        if loss.model is None:
            raise ValueError(
                f"`loss` must be a loss of squares for label noise; got {loss.label}. "
                "Make it by losses.from_torch_model(model, inputs, targets)."
            )
        return TorchMinibatch(loss, size, replace, std, draw, with_data=batch)
    if _is_function(loss):
        if loss.model_function is None:
            raise ValueError(
                f"`loss` must be a loss of squares for label noise; got {loss.label}. "
                "Make it by losses.from_function(model=..., data=...)."
            )
        return FunctionMinibatch(loss, size, replace, std, draw, with_data=batch)
    if loss.kind != "least_squares":
        raise ValueError(f"`loss` must be a least-squares loss for label noise; got {loss.label}. Its labels are classes.")
    return Minibatch(loss, size, replace, std, draw, with_data=batch)


def _of_model(
    model: str | Sequence[str],
    std: float,
    kind: str,
    size: int,
    variables: str | Sequence[str] | None,
    parameters: Mapping[str, float] | None,
    at: Any,
) -> RootedNoise:
    """Return label noise for expressions of the models; the arguments are those of `label_noise`, of which `std`, `kind`, `size` are valid."""
    models = (model,) if isinstance(model, str) else tuple(model)
    if not models or not all(isinstance(m, str) for m in models):
        raise ValueError(f"`model` must be an expression or a list of expressions, one for each sample; got {model!r}.")
    constants = _check.named_numbers(parameters)
    names = variable_names(models, variables, constants)
    try:
        root = LabelRoot(models, names, tuple(constants.items()), -std / math.sqrt(len(models) * size))
    except ValueError as error:
        raise ValueError(str(error).replace("`root`", "`model`", 1)) from None
    return RootedNoise(SIGN if kind == "rademacher" else NORMAL, check_root(root, at))


def _check_sampling(loss: Any, size: Any, replace: Any) -> tuple[int, bool]:
    """Return (size, replace) as int and bool; ValueError if the loss has no data, or the size or the kind of sampling is invalid."""
    from sdetools.losses.data import LinearModel

    if not (isinstance(loss, LinearModel) or _is_function(loss) or _is_torch(loss)):
        raise ValueError(
            "`loss` must have data (losses.least_squares, logistic, from_function or from_torch with data=); "
            f"got {getattr(loss, 'label', loss)!r}. For a loss given by a formula take noise.gaussian or another law."
        )
    size = _check.count("size", size)
    if not isinstance(replace, (bool, np.bool_)):
        raise ValueError(f"`replace` must be True or False; got replace={replace!r}.")
    if not replace and size > loss.samples:
        raise ValueError(
            f"`size` must be at most the number of samples, {loss.samples}, without replacement; got size={size}. "
            "Set replace=True."
        )
    return size, bool(replace)


def _is_function(loss: Any) -> bool:
    """Return whether a loss is a `FunctionSamples`: the mean over data of a Python function of one sample."""
    from sdetools.losses.samples import FunctionSamples

    return isinstance(loss, FunctionSamples)


def _is_torch(loss: Any) -> bool:
    """Return whether a loss is a torch loss with data, without importing torch for any other."""
    return hasattr(loss, "each")
