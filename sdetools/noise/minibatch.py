"""Noise that comes from data: minibatches, and fresh noise on the labels."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from ..graph.value import Value
from ..losses.base import Stage
from .base import Draws, Noise, Normal, Sign, Uniform, batch_factor, check_draws, over_paths
from .gallery import NORMAL, SIGN, RootedNoise, gaussian
from .roots import LabelRoot, check_root, named_numbers, variable_names

if TYPE_CHECKING:
    from ..losses.data import LinearModel


def batch_indices(u: np.ndarray, n: int, replace: bool) -> np.ndarray:
    """Sample numbers in 0..n-1 from uniforms `u` of shape `(size, paths)`.

    With replacement floor(u n). Without, Floyd's algorithm (Bentley & Floyd, Comm. ACM 30, 1987), which needs one uniform a
    sample: for b = 0..size-1 let last = n - size + b and t = floor(u_b (last + 1)); take t, or `last` when t is taken already.
    Every subset of that size is equally likely; the order is not uniform, which a mean over the batch does not see.

    >>> batch_indices(np.array([[0.1], [0.1]]), 4, replace=False).ravel().tolist()
    [0, 3]
    """
    if replace:
        return np.minimum((u * n).astype(np.int64), n - 1)
    out = np.empty(u.shape, dtype=np.int64)
    for b in range(len(u)):
        last = n - len(u) + b
        out[b] = np.minimum((u[b] * (last + 1)).astype(np.int64), last)
        out[b][(out[:b] == out[b]).any(axis=0)] = last
    return out


class _Data:
    """What the sampled noises share of a linear model: its arrays, slopes, and the covariance of its sample gradients."""

    def __init__(self, loss: LinearModel) -> None:
        self.loss, self.features, self.targets, self.n = loss, loss.features, loss.targets, loss.samples
        self.logistic = loss.kind == "logistic"

    def slopes(self, x: np.ndarray) -> np.ndarray:
        """phi'(a_i . x, y_i): `(n, paths)`."""
        return self.loss.slope(self.features @ x)

    def sample_covariance(self, x: np.ndarray) -> np.ndarray:
        """S(x) = (1/n) sum_i (g_i - gbar)(g_i - gbar)^T: `(dim, dim, paths)`."""
        if x.ndim > 1:
            return np.stack([self.sample_covariance(column) for column in x.T], axis=-1)
        deviations = self.slopes(x)[:, None] * self.features
        deviations = deviations - deviations.mean(axis=0)
        return deviations.T @ deviations / self.n

    @functools.cached_property
    def gram(self) -> np.ndarray:
        """H = (1/n) sum_i a_i a_i^T, the Hessian of the least-squares loss without its l2 term."""
        return self.features.T @ self.features / self.n


class Minibatch(Noise):
    """v = g_B(x) - grad L(x) for a batch B of `size` samples; with `label_std`, each label of the batch carries fresh noise.

    Sigma(x) = c S(x) + label_std^2 / size H, S the covariance of the sample gradients (divided by n), H = (1/n) sum_i a_i a_i^T,
    c = 1/size with replacement and (1/size) (n - size)/(n - 1) without. One evaluation takes `size` uniforms (see
    `batch_indices`), then one draw a label. It reads rows of data, in a compiled stage.
    """

    def __init__(
        self,
        loss: LinearModel,
        size: int,
        replace: bool,
        label_std: float = 0.0,
        label_draw: type | None = None,
        label: str = "minibatch",
    ) -> None:
        self._data = _Data(loss)
        self.loss, self.size, self.replace = loss, size, replace
        self.label_std, self._label_draw = label_std, label_draw
        self.dim = loss.dim
        self.draws: tuple[Draws, ...] = (Uniform(size),) if label_draw is None else (Uniform(size), label_draw(size))
        labels = f", labels={label_draw.__name__}" if label_draw else ""
        self.identity = f"{label}({loss.identity}, size={size}, replace={replace}{labels})"
        if label_draw is not None:
            self.parameters = np.array([label_std])
        self.label = f"{label} noise, {size} of {self._data.n} samples, {'with' if replace else 'without'} replacement"
        self.latex = r"\frac{1}{|B|}\sum_{i \in B} \nabla L_i(x) - \nabla L(x)"
        if label_draw is not None:
            self.latex = r"\frac{1}{|B|}\sum_{i \in B} (\nabla L_i(x) - \epsilon_i \nabla f_i(x)) - \nabla L(x)"

    @property
    def factor(self) -> float:
        """c in Sigma = c S."""
        return batch_factor(self._data.n, self.size, self.replace)

    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        x, z = _numbers(x, z, self)
        slopes = self._data.slopes(x)
        full = self._data.features.T @ slopes / self._data.n
        return _batch_sum(self._data, z, self, slopes, self.label_std if p is None else _first(p)) - full

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        x = x if isinstance(x, Value) else np.asarray(x, dtype=float)
        out = self.factor * self._data.sample_covariance(x)
        if self._label_draw is None:
            return out
        return out + over_paths((self.label_std if p is None else _first(p)) ** 2 / self.size * self._data.gram, x)

    def as_gaussian(self) -> SampleGaussian:
        return SampleGaussian(self)

    def combined_stage(self, weights: Sequence[float]) -> Stage:
        return self._stage("sampled_deviation", weights)

    def oracle_stage(self, sigma: float, weights: Sequence[float] = (1.0,)) -> Stage:
        """The whole gradient; where sigma sum(weights) = 1 (sigma = 1, and its SVAG) it reads the batches only."""
        return self._stage("sampled_gradient", weights)

    def _stage(self, name: str, weights: Sequence[float]) -> Stage:
        from . import kernels

        return Stage(getattr(kernels, name), _stage_data(self._data, self, weights, with_data=True))


class LabelNoise(Noise):
    """v = -(std/size) sum_b s_b a_{i_b}: the noise of `size` perturbed labels alone, beside the full gradient.

    Sigma = std^2/size H exactly, for every x, H = (1/n) sum_i a_i a_i^T (MATHEMATICS: c = delta^2/B).
    """

    state_dependent = False
    latex = r"-\frac{1}{|B|}\sum_{i \in B} \epsilon_i \nabla f_i(x)"

    def __init__(self, loss: LinearModel, std: float, draw: type, size: int, replace: bool) -> None:
        self._data, self._label_draw = _Data(loss), draw
        self.loss, self.size, self.replace, self.label_std = loss, size, replace, std
        self.dim = loss.dim
        self.draws: tuple[Draws, ...] = (Uniform(size), draw(size))
        self.parameters = np.array([std])
        self.identity = f"label_noise({loss.identity}, size={size}, replace={replace}, labels={draw.__name__})"
        self.label = f"label noise on {size} of {self._data.n} samples"

    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        x, z = _numbers(x, z, self)
        return _batch_sum(self._data, z, self, None, self.label_std if p is None else _first(p))

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        return over_paths((self.label_std if p is None else _first(p)) ** 2 / self.size * self._data.gram, x)

    def as_gaussian(self) -> RootedNoise:
        return gaussian(covariance=self.covariance(np.zeros(self.dim)))

    def combined_stage(self, weights: Sequence[float]) -> Stage:
        from . import kernels

        return Stage(kernels.sampled_deviation, _stage_data(self._data, self, weights, with_data=False))


class SampleGaussian(Noise):
    """v = sqrt(c/n) sum_i (xi_i - mean xi) g_i(x) + label part, xi ~ N(0, I_n): Gaussian with a minibatch's exact covariance.

    Takes n normals (2 n with labels), so it suits data sets of up to a few thousand samples.
    """

    gaussian = True
    latex = r"\sqrt{c/n}\,\sum_i (\xi_i - \bar\xi)\,\nabla L_i(x)"

    def __init__(self, noise: Minibatch) -> None:
        self._noise, self._data = noise, noise._data
        self.dim, self.loss = noise.dim, noise.loss
        n = self._data.n
        self.draws: tuple[Draws, ...] = (Normal(n),) if noise._label_draw is None else (Normal(2 * n),)
        self._factors = math.sqrt(noise.factor), noise.label_std / math.sqrt(noise.size)
        self.identity = f"gaussian[{noise.identity}, label_std={noise.label_std!r}]"
        self.label = f"Gaussian with the covariance of {noise.label}"

    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        check_draws(z, self)
        n = self._data.n
        coefficients = self._factors[0] * (z[:n] - z[:n].mean(axis=0)) * self._data.slopes(x)
        if len(z) > n:
            coefficients = coefficients + self._factors[1] * z[n:]
        return self._data.features.T @ coefficients / math.sqrt(n)

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        return self._noise.covariance(x)

    def as_gaussian(self) -> SampleGaussian:
        return self


def minibatch(loss: Any, size: int, replace: bool = True) -> Noise:
    """v = g_B(x) - grad L(x), the deviation of a batch gradient: in an oracle, sigma = 1 is minibatch SGD itself.

    `loss`: `losses.least_squares` or `losses.logistic` (compiled), or a torch loss with data (`losses.from_torch(..., data=...)`).

    Sigma(x) = S(x)/size with replacement, S(x)/size (n - size)/(n - 1) without, S the covariance (over n) of sample gradients.
    ValueError when `loss` holds no data, or when a batch without replacement is larger than the data.

    >>> from sdetools.losses import least_squares
    >>> noise = minibatch(least_squares([[1.0], [1.0]], [1.0, -1.0]), size=2)
    >>> noise.covariance(np.array([0.0])), noise.value(np.array([0.0]), np.array([0.1, 0.2]))
    (array([[0.5]]), array([-1.]))
    """
    size, replace = _check_sampling(loss, size, replace)
    if _is_torch(loss):
        from .torch_samples import TorchMinibatch

        return TorchMinibatch(loss, size, replace)
    return Minibatch(loss, size, replace)


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
    """Fresh noise eps of standard deviation `std` on the labels, signs or (`kind="gaussian"`) normals: r_i -> r_i - eps_i.

    - `loss` of models (`losses.from_models`, `uv_model`, `diagonal_network`, ...): as `model` below.
    - `loss`, a least-squares loss L = (1/2n) sum r_i^2 (also `losses.from_torch_model`): v = -(1/size) sum_b eps_b a_{i_b} over `size` samples drawn with
      replacement (or `replace=False`), added to the full gradient: Sigma = std^2/size H exactly, H the Hessian (without l2).
      `batch=True` takes the gradient of that batch too, as training does: Sigma = S(x)/size + std^2/size H.
    - `model`, an expression for f (or one for each sample) with `variables`, for L = (1/2n) sum (f_i - y_i)^2:
      v = -(std / sqrt(n size)) sum_i s_i grad f_i, Sigma = std^2/size (1/n) sum grad f_i grad f_i^T. At size = n that is fresh
      noise on every label of the full batch; for smaller sizes it has the covariance of a batch without drawing indices.
      It is traced.

    >>> label_noise(model="sqrt(1 + x**2)*y", std=0.5, variables="x y").covariance(np.array([0.0, 0.0]))
    array([[0.  , 0.  ],
           [0.  , 0.25]])
    >>> from sdetools.losses import least_squares
    >>> label_noise(least_squares([[2.0], [0.0]], [0.0, 0.0]), std=0.5, size=2).covariance(np.zeros(1))
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
    if model is not None:
        size = _check.count("size", size)
        return _of_model(model, std, kind, size, variables, parameters, at)
    size, replace = _check_sampling(loss, size, replace)
    draw = Sign if kind == "rademacher" else Normal
    if _is_torch(loss):
        from .torch_samples import TorchMinibatch

        if loss.model is None:
            raise ValueError(
                f"`loss` must be one of squares for label noise; got {loss.label}. Make it by losses.from_torch_model(model, inputs, targets)."
            )
        return TorchMinibatch(loss, size, replace, std, draw, with_data=batch)
    if loss.kind != "least_squares":
        raise ValueError(f"`loss` must be a least-squares loss for label noise; got {loss.label}. Its labels are classes.")
    if batch:
        return Minibatch(loss, size, replace, std, draw, label="minibatch and label")
    return LabelNoise(loss, std, draw, size, replace)


def _of_model(
    model: str | Sequence[str],
    std: float,
    kind: str,
    size: int,
    variables: str | Sequence[str] | None,
    parameters: Mapping[str, float] | None,
    at: Any,
) -> RootedNoise:
    models = (model,) if isinstance(model, str) else tuple(model)
    if not models or not all(isinstance(m, str) for m in models):
        raise ValueError(f"`model` must be an expression or a list of expressions, one a sample; got {model!r}.")
    constants = named_numbers(parameters)
    names = variable_names(models, variables, constants)
    root = LabelRoot(models, names, tuple(constants.items()), -std / math.sqrt(len(models) * size))
    return RootedNoise(SIGN if kind == "rademacher" else NORMAL, check_root(root, at))


def _check_sampling(loss: Any, size: Any, replace: Any) -> tuple[int, bool]:
    from ..losses.data import LinearModel

    if not isinstance(loss, LinearModel) and not _is_torch(loss):
        raise ValueError(
            f"`loss` must hold data (losses.least_squares, logistic, from_torch with data=); got {getattr(loss, 'label', loss)!r}. "
            "For a loss given by a formula take noise.gaussian or another law."
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


def _is_torch(loss: Any) -> bool:
    """Whether it is a torch loss with data, without importing torch for any other."""
    return hasattr(loss, "each")


def _numbers(x: Any, z: Any, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(x, Value) or isinstance(z, Value):
        raise ValueError(
            f"`value` of {noise.label} must be given numbers; got traced values. It reads data rows: use its compiled stage."
        )
    return np.asarray(x, dtype=float), check_draws(np.asarray(z), noise)


def _batch_sum(data: _Data, z: np.ndarray, noise: Minibatch | LabelNoise, slopes: np.ndarray | None, std: float) -> np.ndarray:
    """(1/size) sum_b (slope_b - std s_b) a_{i_b}: `(dim, paths)`; a None for `slopes` leaves the data part out."""
    size = noise.size
    indices = batch_indices(z[:size].reshape(size, -1), data.n, noise.replace)
    factors = np.zeros(indices.shape)
    if slopes is not None:
        factors += np.take_along_axis(slopes.reshape(data.n, -1), indices, axis=0)
    if len(z) > size:
        factors -= std * z[size:].reshape(size, -1)
    out = np.zeros((indices.shape[1], data.features.shape[1]))
    for factor, index in zip(factors, indices, strict=True):
        out += factor[:, None] * data.features[index]
    return (out.T / size).reshape(-1, *z.shape[1:])


def _stage_data(data: _Data, noise: Minibatch | LabelNoise, weights: Sequence[float], with_data: bool) -> tuple[np.ndarray, ...]:
    labels = noise._label_draw is not None
    settings = np.array([data.logistic, noise.size, noise.replace, labels, with_data], dtype=np.int64)
    return data.features, data.targets, np.array([data.loss.l2, noise.label_std]), np.array(weights, dtype=float), settings


def _first(p: Any) -> Any:
    return p[0] if len(p) else 0.0
