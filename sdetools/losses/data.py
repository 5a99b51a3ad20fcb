"""Losses of generalised linear models: L(x) = mean_i phi(a_i . x, y_i) + l2/2 |x|^2 for data (a_i, y_i).

In a shape, `*paths` is nothing for one point `x` `(dim,)`, and the number of paths for many points `(dim, paths)`. The margins are the
numbers m_i = a_i . x, `(samples, *paths)`. The derivatives phi', phi'' and phi''' are those by the margin.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import spread
from sdetools.losses.base import Loss, contract, coordinate_names, digest, scalar


class LinearModel(Loss):
    """The mean over samples of L_i(x) = phi(a_i . x, y_i) + l2/2 |x|^2; build it with `least_squares` or `logistic`.

    All derivatives are exact: they are sums of phi', phi'', phi''' (by the first argument) times products of features. `parameters` is empty.

    Attributes:
        features: The a_i in rows, `(samples, dim)`.
        targets: The y_i, `(samples,)`; -1 or 1 for the logistic loss.
        l2: Weight of the ridge penalty, at least 0.
        kind: "least_squares", phi(m, y) = (m - y)^2 / 2, or "logistic", phi(m, y) = log(1 + exp(-y m)).
        samples: Number of samples n.

    Raises:
        ValueError: If a shape is wrong, a number is not finite, or `l2` is negative.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.least_squares([[1.0], [2.0]], [1.0, 0.0])
        >>> loss.samples, loss.sample_gradients([1.0]), loss.gradient([1.0])
        (2, array([[0.],
               [4.]]), array([2.]))
    """

    def __init__(self, features: Any, targets: Any, l2: float, kind: str) -> None:
        self.features = np.ascontiguousarray(_check.finite("features", features))
        if self.features.ndim != 2 or 0 in self.features.shape:
            raise ValueError(
                f"`features` must have shape (samples, dim), neither of them 0; got shape {self.features.shape}. "
                "A single feature is a column: features[:, None]."
            )
        self.samples, self.dim = self.features.shape
        name = "labels" if kind == "logistic" else "targets"
        self.targets = np.ascontiguousarray(_check.finite(name, targets))
        if self.targets.shape != (self.samples,):
            raise ValueError(
                f"`{name}` must have shape ({self.samples},), one number for each row of `features`; "
                f"got shape {self.targets.shape}."
            )
        self.l2 = _check.number("l2", l2)
        if self.l2 < 0:
            raise ValueError(f"`l2` must be at least 0; got l2={l2!r}.")
        self.kind = kind
        self.names = coordinate_names(None, self.dim)
        self.parameters = np.empty(0)
        self.label = f"{kind}(samples={self.samples}, dim={self.dim})"
        phi = r"\log(1 + e^{-y_i a_i^\top x})" if kind == "logistic" else r"\tfrac12 (a_i^\top x - y_i)^2"
        self.latex = rf"\frac{{1}}{{n}} \sum_{{i=1}}^{{n}} {phi}" + (rf" + \frac{{{self.l2:g}}}{{2}} |x|^2" if self.l2 else "")

    @property
    def identity(self) -> str:
        """A text, equal for equal losses: the kind, a hash of the data, and l2."""
        return f"{self.kind}:{digest(self.features, self.targets)}:l2={self.l2!r}"

    def slope(self, margins: Any, targets: Any = None) -> Any:
        """Return the derivative phi'(m_i, y_i) of the loss phi of each sample by its margin m_i = a_i . x.

        Args:
            margins: The m_i, `(samples,)` for one point x or `(samples, paths)` for many.
            targets: The y_i of these margins, an array that broadcasts against them; None for all targets of the loss.

        Returns:
            An array in the shape of `margins`.
        """
        y = spread(self.targets, margins) if targets is None else targets
        if self.kind == "least_squares":
            return margins - y
        size = np.abs(margins)
        return -y * np.exp(-(size + y * margins) / 2) / (1 + np.exp(-size))

    def curvature(self, margins: Any) -> np.ndarray:
        """Return the second derivatives phi''(m_i, y_i) of the loss phi of each sample by its margin m_i = a_i . x, in the shape of `margins`.

        `margins` are the m_i, `(samples,)` for one point x or `(samples, paths)` for many. phi'' does not depend on the y_i: it is 1 for
        least squares, and e^m / (1 + e^m)^2 for the logistic loss.
        """
        if self.kind == "least_squares":
            return margins * 0 + 1.0
        size = np.exp(-np.abs(margins))
        return size / (1 + size) ** 2

    def value(self, x: Any, p: Any = None) -> Any:
        """Return L(x), a number for `x` `(dim,)` and `(paths,)` for `(dim, paths)`; `p` is not used.

        The logistic loss does not overflow for large |a_i . x|.
        """
        x = self._point(x)
        with np.errstate(all="ignore"):
            margins = self.features @ x
            y = spread(self.targets, margins)
            if self.kind == "least_squares":
                phi = (margins - y) ** 2 / 2
            else:
                size = np.abs(margins)
                phi = size / 2 - y / 2 * margins + np.log1p(np.exp(-size))
            return scalar(phi.sum(axis=0) / self.samples + (self.l2 / 2 * x * x).sum(axis=0), x)

    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        """Return grad L(x) = (1/n) sum_i phi'(a_i . x, y_i) a_i + l2 x, in the shape of `x`, `(dim,)` or `(dim, paths)`; `p` is not used.

        a_i and y_i are the features and the target of sample i, and phi' is the derivative of its loss by a_i . x.
        """
        x = self._point(x)
        with np.errstate(all="ignore"):
            return self.features.T @ self.slope(self.features @ x) / self.samples + self.l2 * x

    def sample_gradients(self, x: Any) -> np.ndarray:
        """Return the gradients of the samples' losses L_i(x) at one point `x` `(dim,)`: `(samples, dim)`, with mean `gradient(x)` over the rows."""
        x = _check.point("x", x, self.dim)
        return self.slope(self.features @ x)[:, None] * self.features + self.l2 * x

    def sample_covariance(self, x: Any) -> Any:
        """Return the covariance (1/n) sum_i (g_i - gbar)(g_i - gbar)^T of the gradients g_i of the losses of the n samples, with mean gbar.

        Args:
            x: One point as an array `(dim,)`, or many `(dim, paths)`.

        Returns:
            An array `(dim, dim)` for one point, `(dim, dim, paths)` for many.
        """
        x = self._point(x)
        if x.ndim > 1:
            return np.stack([self.sample_covariance(column) for column in x.T], axis=-1)
        deviations = self.slope(self.features @ x)[:, None] * self.features
        deviations = deviations - deviations.mean(axis=0)
        return deviations.T @ deviations / self.samples

    @cached_property
    def gram(self) -> np.ndarray:
        """The matrix (1/n) sum_i a_i a_i^T of the features a_i, `(dim, dim)`: the Hessian of the least-squares loss without its l2 term."""
        return self.features.T @ self.features / self.samples

    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian A^T diag(w) A / n + l2 I, `(dim, dim)` for `x` `(dim,)` and `(dim, dim, paths)` for `(dim, paths)`.

        A are the features `(n, dim)`, and the weights w_i = `curvature(A @ x)` are second derivatives of the samples' losses. `p` is not
        used.
        """
        x = self._point(x)
        with np.errstate(all="ignore"):
            weights = self.curvature(self.features @ x)
            out = np.stack([self.features.T @ (spread(a, weights) * weights) for a in self.features.T], axis=1) / self.samples
        return out + spread(self.l2 * np.eye(self.dim), out)

    def hessian_product(self, x: Any, v: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian-vector product A^T (w * (A v)) / n + l2 v for features A `(n, dim)`, without forming the Hessian.

        Args:
            x: One point `(dim,)`, or many points `(dim, paths)`; the weights are w = `curvature(A @ x)`.
            v: The vector, `(dim,)` or `(dim, paths)`.
            p: Not used: the loss has no parameters.

        Returns:
            An array `(dim,)`, or `(dim, paths)` if `x` or `v` has paths.
        """
        x, v = self._point(x), self._point(v)
        x, v = spread(x, v), spread(v, x)
        with np.errstate(all="ignore"):
            return self.features.T @ (self.curvature(self.features @ x) * (self.features @ v)) / self.samples + self.l2 * v

    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the third derivative (1/n) sum_s phi'''_s a_si a_sj a_sl, indexed by i, j and l.

        a_s are the features of sample s, and phi'''_s is the third derivative of its loss by a_s . x. The array is `(dim, dim, dim)` for
        one point `x` `(dim,)`, and `(dim, dim, dim, paths)` for many points `(dim, paths)`. `p` is not used.
        """
        x = self._point(x)
        a = self.features
        return contract("si,sj,sl,s...->ijl...", a, a, a, self._jerk(a @ x)) / self.samples

    def third_contracted(self, x: Any, matrix: Any, p: Any = None) -> np.ndarray:
        """Return sum_ij d_ijl L(x) M_ij, indexed by l, as (1/n) sum_s phi'''_s (a_s^T M a_s) a_s, without forming the third derivative.

        a_s are the features of sample s, and phi'''_s is the third derivative of its loss by a_s . x.

        Args:
            x: One point `(dim,)`, or many points `(dim, paths)`.
            matrix: M, an array `(dim, dim)`, or `(dim, dim, paths)` with one for each point.
            p: Not used: the loss has no parameters.

        Returns:
            An array `(dim,)`, or `(dim, paths)` if `x` or M has paths.
        """
        x = self._point(x)
        a = self.features
        forms = contract("si,sj,ij...->s...", a, a, matrix)
        jerk = self._jerk(a @ x)
        return a.T @ (spread(jerk, forms) * spread(forms, jerk)) / self.samples

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return `(H, c, L0)` with L(x) = x^T H x / 2 + c^T x + L0 for least squares, H `(dim, dim)` and c `(dim,)`; None for logistic loss."""
        if self.kind != "least_squares":
            return None
        a, y = self.features, self.targets
        return a.T @ a / self.samples + self.l2 * np.eye(self.dim), -a.T @ y / self.samples, float(y @ y / 2 / self.samples)

    def minimiser(self) -> np.ndarray:
        """Return the minimiser of L, an array `(dim,)`; the one of least norm if least squares has many.

        Raises:
            ValueError: If there is none, or none was found: logistic loss without `l2` on linearly separable data.
        """
        if self.kind == "least_squares":
            a = np.vstack([self.features, np.sqrt(self.samples * self.l2) * np.eye(self.dim)])
            return np.linalg.lstsq(a, np.append(self.targets, np.zeros(self.dim)), rcond=None)[0]
        from scipy.optimize import minimize

        found = minimize(
            self.value, np.zeros(self.dim), jac=self.gradient, hess=self.hessian, method="trust-exact", options={"gtol": 1e-10}
        )
        scale = np.abs(self.features).max(initial=1.0)
        separated = self.l2 == 0 and np.all(self.targets * (self.features @ found.x) > 0)
        if separated or np.abs(found.jac).max() > 1e-7 * scale:
            raise ValueError(
                f"The logistic loss must have a minimiser; none was found (|gradient| = {np.abs(found.jac).max():.1e}). "
                "Give `l2` > 0: for data that a hyperplane separates the minimiser lies at infinity."
            )
        return found.x

    def _jerk(self, margins: Any) -> np.ndarray:
        """Return the third derivative phi'''(m_i, y_i) by the margins m_i, in their shape `(samples, *paths)`."""
        return margins * 0 if self.kind == "least_squares" else -self.curvature(margins) * np.tanh(margins / 2)


def least_squares(features: Any, targets: Any, l2: float = 0.0) -> LinearModel:
    """Return the least-squares loss L(x) = 1/(2n) sum_i (a_i . x - y_i)^2 + l2/2 |x|^2 of data (a_i, y_i), i = 1, ..., n.

    Args:
        features: The a_i in rows, `(n, dim)`.
        targets: The y_i, `(n,)`.
        l2: Weight of the ridge penalty, 0 or above.

    Returns:
        The loss, with `minimiser()` and the data as attributes; `st.noise.minibatch(loss, size)` is the noise of batches.

    Raises:
        ValueError: If a shape is wrong, a number is not finite, or `l2` is negative.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.least_squares([[1.0, 0.0], [0.0, 2.0]], [1.0, 2.0])
        >>> loss.gradient([0.0, 0.0]), loss.minimiser()
        (array([-0.5, -2. ]), array([1., 1.]))
    """
    return LinearModel(features, targets, l2, "least_squares")


def logistic(features: Any, labels: Any, l2: float = 0.0) -> LinearModel:
    """Return the logistic loss L(x) = 1/n sum_i log(1 + exp(-y_i a_i . x)) + l2/2 |x|^2 of data (a_i, y_i), i = 1, ..., n.

    Args:
        features: The a_i in rows, `(n, dim)`.
        labels: Classes `(n,)`, in {0, 1} or {-1, 1}; `targets` of the loss stores them as y = -1, 1.
        l2: Weight of the ridge penalty, 0 or above; above 0 there is always a minimiser.

    Returns:
        The loss, with `minimiser()` and the data as attributes; `st.noise.minibatch(loss, size)` is the noise of batches.

    Raises:
        ValueError: If there are other labels, a shape is wrong, a number is not finite, or `l2` is negative.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.logistic([[1.0], [2.0]], [0, 1])
        >>> loss.targets, loss.gradient([0.0])
        (array([-1.,  1.]), array([-0.25]))
    """
    labels = _check.finite("labels", labels)
    found = set(np.unique(labels).tolist())
    if not (found <= {0.0, 1.0} or found <= {-1.0, 1.0}):
        raise ValueError(
            f"`labels` must be 0 and 1, or -1 and 1; got {', '.join(f'{v:g}' for v in sorted(found)[:5])}. "
            "Encode two classes as 0 and 1."
        )
    return LinearModel(features, 2 * labels - 1 if found <= {0.0, 1.0} else labels, l2, "logistic")
