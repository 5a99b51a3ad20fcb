"""Derivatives by central differences: for functions that cannot be traced, and for the validation of a user's derivatives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np

EPS = float(np.finfo(float).eps)
POINTS = 4
"""Number of normal points at which a derivative is compared; two positive ones are added."""
COORDINATES = 32
"""Largest number of coordinates along which differences are taken; of more, as many are chosen at random."""


def hessian(gradient: Callable, x: np.ndarray, step: float = EPS ** (1 / 3)) -> np.ndarray:
    """Return the Hessian by central differences of the gradient, symmetrised, with a relative error of order 1e-10 at the default step.

    Args:
        gradient: A function of points, `(dim,)` or `(dim, paths)`, that returns an array of the same shape.
        x: One point `(dim,)`, or many `(dim, paths)`, as an array of doubles; it is not changed.
        step: The step along coordinate i is `step` max(1, |x_i|).

    Returns:
        An array `(dim, dim)` for one point, `(dim, dim, paths)` for many.
    """
    rough = differences(gradient, x, step)
    return (rough + rough.swapaxes(0, 1)) / 2


def third(gradient: Callable, hessian_function: Callable | None, x: np.ndarray) -> np.ndarray:
    """Return the third derivative by differences, averaged over the orders of its indices.

    Args:
        gradient: A function of points, `(dim,)` or `(dim, paths)`, that returns an array of the same shape.
        hessian_function: A function of points that returns `(dim, dim)` or `(dim, dim, paths)`, of which central differences are taken. If
            it is None, second differences of the gradient are taken, with a relative error of order 1e-7.
        x: One point `(dim,)`, or many `(dim, paths)`, as a float array.

    Returns:
        An array `(dim, dim, dim)` for one point, `(dim, dim, dim, paths)` for many.
    """
    if hessian_function is not None:
        rough = differences(hessian_function, x, EPS ** (1 / 3))
    else:
        rough = differences(lambda y: hessian(gradient, y, EPS ** (1 / 4)), x, EPS ** (1 / 4))
    rest = tuple(range(3, rough.ndim))
    return np.mean([rough.transpose(*order, *rest) for order in permutations(range(3))], axis=0)


def differences(function: Callable, x: np.ndarray, step: float) -> np.ndarray:
    """Return the central differences (f(x + h_i e_i) - f(x - h_i e_i)) / (2 h_i) along each coordinate i, stacked on a new first axis.

    Args:
        function: f, a function of points, `(dim,)` or `(dim, paths)`, that returns an array.
        x: One point `(dim,)`, or many `(dim, paths)`, as a float array; it is not changed.
        step: The number h in the steps h_i = h max(1, |x_i|).

    Returns:
        An array of shape `(dim, *shape of f(x))`; entry i is the derivative by x_i.
    """
    out = []
    for i in range(len(x)):
        up, down = x.copy(), x.copy()
        up[i] += step * np.maximum(1, np.abs(x[i]))
        down[i] -= step * np.maximum(1, np.abs(x[i]))
        with np.errstate(all="ignore"):
            out.append((function(up) - function(down)) / (up[i] - down[i]))
    return np.stack(out)


def compare(function: Callable, derivative: Callable, names: tuple[str, ...], name: str, of: str) -> None:
    """Raise ValueError unless `derivative` agrees with central differences of `function` at six random points, in up to 32 coordinates.

    With the step h = eps^(1/3) the error of a central difference D(h) is h^2 f'''/6 + eps f/h, both terms of order eps^(2/3) times the
    scale of f. The difference D(2h) - D(h) estimates the first term. The tolerance is ten times that estimate plus 1000 eps^(2/3) times the
    scale, which allows for functions of low smoothness. Where a difference is not finite, nothing is compared.

    Args:
        function: f, a function of one point `(dim,)` that returns a number or an array.
        derivative: Its derivative as given by the user: a function of one point whose result has the coordinates on the first axis.
        names: Names of the `dim` coordinates, for the message.
        name: Name of the derivative in the message, for example "gradient".
        of: Name of the function in the message, for example "value".
    """
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((POINTS, len(names)))
    checked = np.sort(rng.permutation(len(names))[:COORDINATES])
    for x in np.vstack([normal, np.abs(normal[:2]) + 0.5]):
        given = np.asarray(derivative(x))[checked]
        found, spread, scale = (np.stack(a) for a in zip(*(_central(function, x, i) for i in checked), strict=True))
        with np.errstate(all="ignore"):
            error = np.abs(given - found)
            allowed = 10 * spread + 1000 * EPS ** (2 / 3) * (scale + np.abs(given) + np.abs(found))
        wrong = np.isfinite(found + spread) & ~(error <= allowed)
        if np.any(wrong):
            worst = np.unravel_index(np.argmax(np.where(wrong, np.nan_to_num(error, nan=np.inf), -1)), error.shape)
            entry = ", ".join(names[i] for i in (checked[worst[0]], *worst[1:]))
            at = np.array2string(x[:6], precision=3)
            raise ValueError(
                f"`{name}` must be the derivative of `{of}`; at x = {at} its coordinate {entry} is "
                f"{given[worst]:.5g}, but central differences give {found[worst]:.5g}. Check its sign and its factors."
            )


def _central(function: Callable, x: np.ndarray, i: int) -> tuple[Any, Any, Any]:
    """Return D(h), |D(2h) - D(h)| and |f(x + h e_i)|, each in the shape of f(x), at one point `x` `(dim,)`.

    D(h) is the central difference of the function f along coordinate i, with the step h = eps^(1/3) max(1, |x_i|).
    """
    shift = np.zeros_like(x)
    shift[i] = EPS ** (1 / 3) * max(1.0, abs(x[i]))
    with np.errstate(all="ignore"):
        up, down, far_up, far_down = (function(x + s * shift) for s in (1, -1, 2, -2))
        near, far = (up - down) / (2 * shift[i]), (far_up - far_down) / (4 * shift[i])
        return near, np.abs(far - near), np.abs(up)
