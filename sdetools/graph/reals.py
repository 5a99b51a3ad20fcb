"""Floating-point types in which paths are computed, as the code generators see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Real:
    """A floating-point type.

    Attributes:
        name: Name in NumPy and torch.
        size: Size in bytes.
        lanes: Module of this package with its functions of one lane.
    """

    name: str
    size: int
    lanes: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.name)

    @property
    def double(self) -> bool:
        return self.size == 8

    @property
    def whole(self) -> int:
        """The largest n such that all whole numbers up to n are exact."""
        return 1 << (53 if self.double else 24)

    def number(self, x: float) -> str:
        """Return the text of a number in a kernel. A plain literal is double, and so is whatever it is combined with."""
        text = repr(x) if x >= 0 and np.copysign(1, x) > 0 else f"({x!r})"
        return text if self.double else f"real({x!r})"

    def array(self, a: np.ndarray) -> np.ndarray:
        """Return an array as a kernel takes it: floats in this type, integers as they are."""
        return np.asarray(a, self.dtype) if a.dtype.kind == "f" else a


DOUBLE, SINGLE = Real("float64", 8, "lanes"), Real("float32", 4, "lanes32")


def real_of(dtype: str) -> Real:
    """Return the type of a name; ValueError for any other name.

    >>> real_of("float32").size
    4
    """
    for real in (DOUBLE, SINGLE):
        if isinstance(dtype, str) and dtype == real.name:
            return real
    raise ValueError(
        f"`dtype` must be 'float64' or 'float32'; got dtype={dtype!r:.80}. Single precision costs half of the time, and keeps seven digits."
    )
