"""Test losses, each one formula for NumPy and for 100-digit arithmetic, with derivatives by differences accurate to 30 digits."""

from __future__ import annotations

from itertools import product

import mpmath
import numpy as np

DIGITS = 100
STEP = mpmath.mpf(10) ** -20
RNG = np.random.default_rng(11)
X, Y = RNG.standard_normal((12, 5)), np.sign(RNG.standard_normal(12))
Z, T = RNG.standard_normal((8, 3)), RNG.standard_normal(8)
M, VALUES = RNG.standard_normal((4, 3)), RNG.standard_normal(4)
CLASSES = np.eye(3)[RNG.integers(0, 3, 8)]
N = 6
S, W = RNG.standard_normal((N, N)), RNG.standard_normal(N)


class Plain:
    """NumPy's functions, for arrays of floats."""

    exp, log, tan, tanh, sqrt, log1p = np.exp, np.log, np.tan, np.tanh, np.sqrt, np.log1p

    @staticmethod
    def data(a):
        """Return the data."""
        return a


class Digits:
    """The same functions for object arrays of mpmath's numbers."""

    exp, log, tan, tanh, sqrt, log1p = (
        np.frompyfunc(getattr(mpmath, n), 1, 1) for n in ("exp", "log", "tan", "tanh", "sqrt", "log1p")
    )

    @staticmethod
    def data(a):
        """Return the data in 100-digit arithmetic."""
        return exact(a)


def exact(a):
    """Return an array of floats as an object array of mpmath's numbers."""
    out = np.empty(np.shape(a), dtype=object)
    out.ravel()[:] = [mpmath.mpf(float(v)) for v in np.ravel(a)]
    return out


def rosenbrock(f):
    """Rosenbrock's function."""
    return lambda x: np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def logistic(f):
    """Logistic regression with a ridge."""
    a, y = f.data(X), f.data(Y)
    return lambda x: np.sum(f.log1p(f.exp(-y * (a @ x)))) / 12 + np.sum(x**2) / 20


def factorisation(f):
    """Matrix factorisation of rank 2."""
    target = f.data(M)
    return lambda x: np.sum((x[:8].reshape(4, 2) @ x[8:].reshape(3, 2).T - target) ** 2) / 2


def network(f):
    """A two-layer tanh network."""
    inputs, targets = f.data(Z), f.data(T)
    return lambda x: np.sum((f.tanh(inputs @ x[:15].reshape(5, 3).T) @ x[15:] - targets) ** 2) / 16


def attention(f):
    """One query of softmax attention with values."""
    values = f.data(VALUES)

    def value(x):
        scores = x[3:].reshape(4, 3) @ x[:3] / 2
        weights = f.exp(scores - np.max(scores))
        return (np.sum(weights * values) / np.sum(weights) - 1) ** 2

    return value


def softmax(f):
    """Multinomial logistic regression."""
    inputs, classes = f.data(Z), f.data(CLASSES)

    def value(x):
        logits = inputs @ x.reshape(3, 3).T
        return np.sum(f.log(np.sum(f.exp(logits), axis=1)) - np.sum(classes * logits, axis=1)) / 8

    return value


def huber(f):
    """Huber's loss of a linear model."""
    a, y = f.data(X), f.data(Y)

    def value(x):
        r = a @ x - y
        return np.sum(np.where(abs(r) <= 1, r**2 / 2, abs(r) - 1 / 2))

    return value


def hinge(f):
    """The hinge loss with a fourth power."""
    a, y = f.data(X), f.data(Y)
    return lambda x: np.sum(np.maximum(0, 1 - y * (a @ x))) + np.sum(x**4) / 4


def logsumexp(f):
    """The logarithm of a sum of exponentials."""
    a, b = f.data(X), f.data(Y)
    return lambda x: f.log(np.sum(f.exp(a @ x + b)))


def kepler(f):
    """The energy of Kepler's problem."""
    return lambda x: np.sum(x[2:] ** 2) / 2 - 1 / f.sqrt(x[0] ** 2 + x[1] ** 2)


def formula(f):
    """Nested elementary functions of two coordinates."""
    return lambda x: f.exp(f.tan(x[0])) * f.log(x[1]) + f.tan(x[0] * x[1]) / x[1] ** 3


def diagonal_network(f):
    """The least-squares loss of a diagonal network."""
    s, w = f.data(S), f.data(W)
    return lambda x: np.sum((s @ (x[:N] ** 2 - x[N:] ** 2) - w) ** 2) / (2 * N)


PROBLEMS = {
    "rosenbrock": (rosenbrock, 2), "rosenbrock 50": (rosenbrock, 50), "logistic": (logistic, 5), "factorisation": (factorisation, 14),
    "network": (network, 20), "attention": (attention, 15), "softmax": (softmax, 9), "huber": (huber, 5), "hinge": (hinge, 5),
    "logsumexp": (logsumexp, 5), "kepler": (kepler, 4), "formula": (formula, 2), "diagonal network": (diagonal_network, 2 * N),
}  # fmt: skip


def points(name, count):
    """Return `count` points inside the domain, `(dim, count)`."""
    dim = PROBLEMS[name][1]
    x = np.random.default_rng(5).standard_normal((dim, count))
    return 0.4 + 0.3 * np.abs(np.tanh(x)) if name == "formula" else x


def along(function, x, *directions):
    """Return the derivative of a 100-digit function along directions, one for each order, as a float."""
    with mpmath.workdps(DIGITS):
        x, moved = exact(x), [STEP * exact(d) for d in directions]
        total = mpmath.mpf(0)
        for signs in product((1, -1), repeat=len(moved)):
            total += np.prod(signs) * function(x + sum(s * d for s, d in zip(signs, moved)))
        return float(total / (2 * STEP) ** len(moved))
