"""Floating-point types in which paths are computed, as the code generators see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Real:
    """A floating-point type in which paths are computed: `DOUBLE` or `SINGLE`.

    Attributes:
        name: Name in NumPy and torch, "float64" or "float32".
        size: Size in bytes.
        lanes: Name of the module of `sdetools.graph` with its elementary functions of one number, "lanes" or "lanes32".
    """

    name: str
    size: int
    lanes: str

    @property
    def dtype(self) -> np.dtype:
        """The type as a `numpy.dtype`, float64 or float32."""
        return np.dtype(self.name)

    @property
    def double(self) -> bool:
        """Whether it is float64."""
        return self.size == 8

    @property
    def whole(self) -> int:
        """The largest n such that all whole numbers up to n are exact: 2^53 or 2^24."""
        return 1 << (53 if self.double else 24)

    def number(self, x: float) -> str:
        """Return the text of the number `x` in generated code: "0.5", for float32 "real(0.5)", since a plain literal would make all results double."""
        text = repr(x) if x >= 0 and np.copysign(1, x) > 0 else f"({x!r})"
        return text if self.double else f"real({x!r})"

    def array(self, a: np.ndarray) -> np.ndarray:
        """Return the array `a` as generated code takes it: floats converted to this type, without a copy if they have it; all others as they are."""
        return np.asarray(a, self.dtype) if a.dtype.kind == "f" else a


DOUBLE, SINGLE = Real("float64", 8, "lanes"), Real("float32", 4, "lanes32")


def real_of(dtype: str) -> Real:
    """Return the `Real` whose name is `dtype`, "float64" or "float32"; ValueError for all else.

    >>> from sdetools.graph.reals import real_of
    >>> real_of("float32").size
    4
    """
    for real in (DOUBLE, SINGLE):
        if isinstance(dtype, str) and dtype == real.name:
            return real
    raise ValueError(
        f"`dtype` must be 'float64' or 'float32'; got dtype={dtype!r:.80}. Single precision costs half of the time, and keeps seven digits."
    )
