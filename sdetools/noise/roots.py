"""Square roots of covariances: v = R(x) u, where u has independent entries with mean 0 and variance 1, so Cov v = R R^T."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import spread
from sdetools._identity import function_identity
from sdetools.graph.tracing import error_summary
from sdetools.graph.value import Value
from sdetools.noise.texts import Constants, compiled, holds_text, parsed, structure, used_numbers, variable_names

LARGEST_PARAMETER = 64
"""Largest number of entries of a dense root whose entries are parameters, so that other values need no compilation."""


class Root(ABC):
    """The base class of square roots R(x) of a covariance, matrices `(dim, rank)`; a subclass implements `identity`, `latex` and `entries`.

    Attributes:
        dim: Number of coordinates, the rows of R.
        rank: Number of columns of R, and of entries of u in v = R u.
        parameters: Numbers that can change without a recompilation, `(n,)`; the argument `p` of a method, never None, has values for them.
    """

    dim: int
    rank: int
    parameters: np.ndarray

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the coordinates of a root given by expressions, a tuple of strings; None for any other root."""
        return getattr(self, "variables", None)

    @property
    def constant(self) -> bool:
        """Whether R is given as a matrix of numbers, and not as expressions or a function."""
        return isinstance(self, ConstantRoot)

    @property
    @abstractmethod
    def identity(self) -> str:
        """A short string that identifies the formula of R: everything except the numbers in `parameters`."""

    @property
    @abstractmethod
    def latex(self) -> str:
        """The formula of R in LaTeX, as a factor in front of u; empty for the identity."""

    @abstractmethod
    def entries(self, x: Any, p: Any) -> Sequence[Sequence[Any]]:
        """Return R(x), `p` for `parameters`, as `dim` rows of `rank` numbers, also arrays `(paths,)` for `x` `(dim, paths)`, or traced values."""

    def times(self, u: Any, x: Any, p: Any) -> Any:
        """Return R(x) u as `dim` components, an array or a list, for `u` `(rank,)`, `(rank, paths)` or a list of rows; `p` for `parameters`."""
        return [dot(row, u) for row in self.entries(x, p)]

    def covariance(self, x: Any, p: Any) -> np.ndarray:
        """Return R(x) R(x)^T, `(dim, dim)` or, for `x` `(dim, paths)`, `(dim, dim, paths)`, `p` for `parameters`; of objects for a traced `x`."""
        rows = self.entries(x, p)
        traced = isinstance(x, Value) or np.asarray(x).dtype == object
        out = np.empty((self.dim, self.dim, *np.shape(x)[1:]), dtype=object if traced else float)
        for i, row in enumerate(rows):
            for j in range(i, self.dim):
                out[i, j] = out[j, i] = dot(row, rows[j])
        return out


@dataclass(frozen=True, eq=False, repr=False)
class ConstantRoot(Root):
    """A root given as a matrix of numbers, `(dim, rank)`; its `structure` is "identity", "diagonal" or "dense" and fixed in compiled code.

    `parameters` are the numbers of R: none for the identity, the diagonal `(dim,)`, or the `dim * rank` entries of a dense R row by row.
    """

    dim: int
    rank: int
    structure: str
    parameters: np.ndarray

    @property
    def identity(self) -> str:
        return f"{self.structure}({self.dim}x{self.rank})"

    @property
    def latex(self) -> str:
        if self.structure == "identity":
            return ""
        if self.structure == "diagonal" and self.dim <= 6:
            return r"\mathrm{diag}(" + ", ".join(f"{v:.4g}" for v in self.parameters) + r")\,"
        if self.structure == "dense" and self.dim * self.rank <= 16:
            return _matrix_latex([[f"{v:.4g}" for v in row] for row in self.matrix()])
        return r"R\,"

    def entries(self, x: Any, p: Any) -> Sequence[Sequence[Any]]:
        """Return R as `dim` lists of `rank` entries, numbers or traced values as in `p`, the values for `parameters`; `x` is not used."""
        if self.structure == "dense":
            return [[p[i * self.rank + j] for j in range(self.rank)] for i in range(self.dim)]
        diagonal = np.ones(self.dim) if self.structure == "identity" else p
        return [[diagonal[i] if i == j else 0.0 for j in range(self.dim)] for i in range(self.dim)]

    def times(self, u: Any, x: Any, p: Any) -> Any:
        """Return R u, `(dim,)` or `(dim, paths)`, for `u` `(rank,)` or `(rank, paths)`; for a list of rows a list of components; `x` is not used."""
        if isinstance(u, (list, tuple)):
            return super().times(u, x, p)
        if self.structure == "identity":
            return u
        if self.structure == "diagonal":
            return spread(p, u) * u
        if isinstance(u, Value) and self.dim * self.rank > LARGEST_PARAMETER:
            return self.matrix() @ u
        return np.reshape(p, (self.dim, self.rank)) @ u

    def matrix(self) -> np.ndarray:
        """Return R as an array `(dim, rank)`, from `parameters`."""
        if self.structure == "dense":
            return self.parameters.reshape(self.dim, self.rank)
        return np.eye(self.dim) if self.structure == "identity" else np.diag(self.parameters)


@dataclass(frozen=True, eq=False, repr=False)
class ExpressionRoot(Root):
    """A root given by `rows` of expressions in the coordinates `variables` and the pairs (name, value) `constants`; it pickles.

    A constant is an entry of `parameters` unless it occurs in an exponent; then its value is part of the formula.
    """

    rows: tuple[tuple[str, ...], ...]
    variables: tuple[str, ...]
    constants: Constants
    dim: int = field(init=False)
    rank: int = field(init=False)
    parameters: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", len(self.rows))
        object.__setattr__(self, "rank", len(self.rows[0]))
        object.__setattr__(self, "parameters", used_numbers(self._texts, self.variables, self.constants)[1])

    @property
    def _texts(self) -> tuple[str, ...]:
        return tuple(entry for row in self.rows for entry in row)

    @property
    def identity(self) -> str:
        return f"expression({self.dim}x{self.rank}; {structure(self._texts, self.variables, self.constants)})"

    @property
    def latex(self) -> str:
        from sdetools.losses.expression import latex

        entries = [latex(e) for e in parsed(self._texts, self.variables, self.constants)]
        return _matrix_latex([entries[i * self.rank : (i + 1) * self.rank] for i in range(self.dim)])

    def entries(self, x: Any, p: Any) -> Sequence[Sequence[Any]]:
        """Return the values of the expressions, `dim` lists of `rank` entries: numbers, arrays `(paths,)` or traced values."""
        flat = compiled(self._texts, self.variables, self.constants, 0)(x, p)
        return [flat[i * self.rank : (i + 1) * self.rank] for i in range(self.dim)]


@dataclass(frozen=True, eq=False, repr=False)
class LabelRoot(Root):
    """The root R = factor [grad f_1 ... grad f_n] of label noise, for expressions `models` f_i; `parameters` are `factor`, then the constants."""

    models: tuple[str, ...]
    variables: tuple[str, ...]
    constants: Constants
    factor: float
    dim: int = field(init=False)
    rank: int = field(init=False)
    parameters: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", len(self.variables))
        object.__setattr__(self, "rank", len(self.models))
        own = used_numbers(self.models, self.variables, self.constants)[1]
        object.__setattr__(self, "parameters", np.concatenate([[self.factor], own]))

    @property
    def identity(self) -> str:
        return f"gradients({self.dim}x{self.rank}; {structure(self.models, self.variables, self.constants)})"

    @property
    def latex(self) -> str:
        from sdetools.losses.expression import latex

        models = [rf"\nabla\left({latex(f)}\right)" for f in parsed(self.models, self.variables, self.constants)]
        return rf"{self.factor:.4g}\," + (models[0] + r"\," if len(models) == 1 else _matrix_latex([models]))

    def entries(self, x: Any, p: Any) -> Sequence[Sequence[Any]]:
        """Return R(x) as `dim` lists with an entry for each model; column i is factor grad f_i(x), and `p` are values for `parameters`."""
        flat = compiled(self.models, self.variables, self.constants, 1)(x, p[1:])
        scaled = [entry if _is_number(entry, 0) else p[0] * entry for entry in flat]
        return [[scaled[k * self.dim + i] for k in range(self.rank)] for i in range(self.dim)]


@dataclass(frozen=True, eq=False, repr=False)
class FunctionRoot(Root):
    """A root given by a Python `function` of x that returns `dim` rows of `rank` entries, by arithmetic on x[0], x[1], ...; no `parameters`."""

    function: Callable[[Any], Any]
    dim: int
    rank: int
    parameters: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def identity(self) -> str:
        return f"function({self.dim}x{self.rank}; {function_identity(self.function)})"

    @property
    def latex(self) -> str:
        return r"R(x)\,"

    def entries(self, x: Any, p: Any) -> Sequence[Sequence[Any]]:
        return self.function(x)


def make_root(
    dim: int | None = None,
    covariance: Any = None,
    root: Any = None,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> Root:
    """Return the root for the arguments of `noise.gaussian`: `root`, the symmetric root of `covariance`, or the identity `(dim, dim)`.

    `covariance` is a number, a diagonal or a matrix. `root` is numbers, rows of expressions in `variables` ("x y" or a list; None for x0, x1, ...
    or alphabetical) with the constants `parameters`, or a function of x; if it depends on x, it is validated at the point `at` `(dim,)`.
    `dim` may be None if `covariance` or `root` determines it. ValueError if both are given or an argument has a wrong form.
    """
    if dim is not None:
        dim = _check.count("dim", dim)
    if covariance is not None and root is not None:
        raise ValueError(
            "`covariance` and `root` must not both be given; got both. Give the root R alone: the covariance is R R^T."
        )
    if covariance is not None:
        return _constant(symmetric_root(dim, covariance))
    if root is None:
        if dim is None:
            raise ValueError("`dim` must be given if neither `covariance` nor `root` is; got none of the three. Try dim=2.")
        return ConstantRoot(dim, dim, "identity", np.zeros(0))
    if callable(root):
        return _function(root, dim, at)
    if holds_text(root):
        return _expressions(root, dim, variables, parameters, at)
    return _constant(_matrix(dim, root))


def check_root(root: Root, at: Any) -> Root:
    """Return `root` unchanged; ValueError if R has a wrong shape, or is not finite at the point `at` `(dim,)`, for None at each of 3 fixed points."""
    points = [np.full(root.dim, 0.7), np.linspace(-0.4, 0.3, root.dim), np.zeros(root.dim)]
    if at is not None:
        points = [_check.point("at", at, root.dim)]
    for x in points:
        with np.errstate(all="ignore"):
            rows = root.entries(x, root.parameters)
        if _shape(rows) != (root.dim, root.rank):
            raise ValueError(
                f"`root` must return {root.dim} rows of equal length, one for each coordinate; got {_description(rows)}. "
                "Return nested sequences: [[r00, r01], [r10, r11]]."
            )
        try:
            values = np.array([[float(entry if np.isrealobj(entry) else "complex") for entry in row] for row in rows])
        except (TypeError, ValueError):
            raise ValueError(f"`root` must return numbers if x consists of numbers; got {rows!r}.") from None
        if np.all(np.isfinite(values)):
            return root
    raise ValueError(
        f"`root` must be finite; got a NaN or an infinity at x={points[0].tolist()}. "
        "If it is defined elsewhere only, give at= a point of its domain."
    )


def _function(function: Callable[[Any], Any], dim: int | None, at: Any) -> Root:
    """Return the `FunctionRoot` of a function of x; ValueError if it does not return `dim` rows of equal length at `at` or a default point."""
    if dim is None:
        if at is None:
            raise ValueError(
                "`dim` must be given with a function as `root`; got dim=None. The dimension cannot be inferred from a function."
            )
        dim = len(_check.finite("at", at))
    first = np.full(dim, 0.7) if at is None else _check.point("at", at, dim)
    try:
        with np.errstate(all="ignore"):
            rows = function(first)
    except (IndexError, TypeError) as error:
        raise ValueError(
            f"`root` must take a point of {dim} coordinates and return {dim} rows; "
            f"calling it raised {error_summary(error)}. "
            "Write root(x) with x[0], x[1], ... and return nested sequences."
        ) from error
    shape = _shape(rows)
    if shape is None or shape[0] != dim or shape[1] < 1:
        raise ValueError(
            f"`root` must return {dim} rows of equal length, one for each coordinate; got {_description(rows)}. "
            "Return nested sequences: [[r00, r01], [r10, r11]]."
        )
    return check_root(FunctionRoot(function, dim, shape[1]), at)


def _expressions(
    root: Any, dim: int | None, variables: str | Sequence[str] | None, parameters: Mapping[str, float] | None, at: Any
) -> Root:
    """Return the `ExpressionRoot` of rows of expressions and numbers; ValueError if their lengths or names do not fit together."""
    rows = [[root]] if isinstance(root, str) else [[row] if isinstance(row, str) else list(row) for row in root]
    rows = [[entry if isinstance(entry, str) else repr(_check.number("root", entry)) for entry in row] for row in rows]
    width = {len(row) for row in rows}
    if len(width) != 1 or 0 in width or (dim is not None and len(rows) != dim):
        want = f"{dim} rows" if dim is not None else "rows"
        raise ValueError(f"`root` must be {want} of equal length; got rows of {[len(r) for r in rows]} expressions.")
    texts = [entry for row in rows for entry in row]
    constants = _check.named_numbers(parameters)
    names = variable_names(texts, variables, constants)
    if len(names) != len(rows):
        raise ValueError(
            f"`root` must have one row for each of the coordinates {' '.join(names)}; got {len(rows)} rows. "
            "Name also the coordinates that do not occur: variables='x y'."
        )
    return check_root(ExpressionRoot(tuple(map(tuple, rows)), names, tuple(constants.items())), at)


def _matrix(dim: int | None, root: Any) -> np.ndarray:
    """Return `root` as a matrix `(dim, r)`: a number is spread over the diagonal, a vector is a diagonal; ValueError for other shapes."""
    matrix = _check.finite("root", root)
    if matrix.ndim == 0:
        matrix = np.full(dim or 1, float(matrix))
    if matrix.ndim == 1:
        matrix = np.diag(matrix)
    if matrix.ndim != 2 or 0 in matrix.shape or (dim is not None and len(matrix) != dim):
        want = "(dim, r)" if dim is None else f"({dim}, r)"
        raise ValueError(f"`root` must be a matrix of shape {want}; got shape {np.shape(root)}. A vector is taken as a diagonal.")
    return matrix


def symmetric_root(dim: int | None, covariance: Any) -> np.ndarray:
    """Return the symmetric positive semidefinite S, a new array `(dim, dim)`, with S S = `covariance`, which may be singular.

    `covariance` is a matrix, its diagonal `(dim,)`, or a number c for c I. `dim` is optional for a matrix or a diagonal, and 1 by default for a
    number. ValueError if there is no such S or the shape is wrong.
    """
    given = _check.finite("covariance", covariance)
    matrix = _check.covariance("covariance", np.full(dim or 1, float(given)) if given.ndim == 0 else given, dim)
    if np.array_equal(matrix, np.diag(np.diag(matrix))):
        return np.diag(np.sqrt(np.maximum(np.diag(matrix), 0.0)))
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _constant(matrix: np.ndarray) -> ConstantRoot:
    """Return the `ConstantRoot` of a matrix `(dim, rank)`, with the structure "identity" or "diagonal" where it is one, else "dense"."""
    dim, rank = matrix.shape
    if dim == rank and np.array_equal(matrix, np.diag(np.diag(matrix))):
        if np.array_equal(matrix, np.eye(dim)):
            return ConstantRoot(dim, rank, "identity", np.zeros(0))
        return ConstantRoot(dim, rank, "diagonal", np.diag(matrix).copy())
    return ConstantRoot(dim, rank, "dense", np.ascontiguousarray(matrix).ravel())


def _is_number(value: Any, number: float) -> bool:
    """Return whether a value is a Python int or float (not an array) equal to `number`."""
    return isinstance(value, (int, float)) and value == number


def dot(row: Sequence[Any], u: Sequence[Any]) -> Any:
    """Return sum_k row_k u_k for numbers, arrays `(paths,)` or traced values, without operations for numbers 0 and 1; 0.0 if no term is left."""
    total = None
    for a, b in zip(row, u, strict=True):
        if _is_number(a, 0) or _is_number(b, 0):
            continue
        term = b if _is_number(a, 1) else a if _is_number(b, 1) else a * b
        total = term if total is None else total + term
    return 0.0 if total is None else total


def _shape(rows: Any) -> tuple[int, int] | None:
    """Return (rows, entries) of nested sequences, or None if the rows have no common length or are no sequences."""
    try:
        lengths = {len(row) for row in rows}
        return (len(rows), lengths.pop()) if len(lengths) == 1 else None
    except TypeError:
        return None


def _description(rows: Any) -> str:
    """Return a text that describes a wrong result: "2 rows of 3", or at most 80 characters of its repr."""
    shape = _shape(rows)
    return f"{shape[0]} rows of {shape[1]}" if shape else f"{rows!r}"[:80]


def _matrix_latex(rows: Sequence[Sequence[str]]) -> str:
    """Return the LaTeX of a matrix from rows of formulas in LaTeX."""
    return r"\begin{pmatrix} " + r" \\ ".join(" & ".join(row) for row in rows) + r" \end{pmatrix}\,"
