"""The types of numbers in which paths are computed: all that an emitter has to know of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Real:
    """A type by its name in NumPy and torch, its bytes, and the module of this room with its functions of one lane."""

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
        """Up to here every whole number is one of the type."""
        return 1 << (53 if self.double else 24)

    def number(self, x: float) -> str:
        """A number in the text of a kernel. Compilers take a plain one for a double, and compute in double whatever meets it."""
        text = repr(x) if x >= 0 and np.copysign(1, x) > 0 else f"({x!r})"
        return text if self.double else f"real({x!r})"

    def array(self, a: np.ndarray) -> np.ndarray:
        """An array as a kernel takes it: floats in this type, whole numbers and words as they are."""
        return np.asarray(a, self.dtype) if a.dtype.kind == "f" else a


DOUBLE, SINGLE = Real("float64", 8, "lanes"), Real("float32", 4, "lanes32")


def real_of(dtype: str) -> Real:
    """The type of a name; ValueError for another one.

    >>> real_of("float32").size
    4
    """
    for real in (DOUBLE, SINGLE):
        if isinstance(dtype, str) and dtype == real.name:
            return real
    raise ValueError(
        f"`dtype` must be 'float64' or 'float32'; got dtype={dtype!r:.80}. Single precision costs half of the time, and keeps seven digits."
    )
