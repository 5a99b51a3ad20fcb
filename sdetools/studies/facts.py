"""The stored form of properties of recorded values that follow from the computation, not from the sample; the module `known` determines them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Facts:
    """Exactness, bounds and rounding errors of recorded means or gaps, the stored form of `Known`.

    Arrays `(times, observables)` have a row for each recorded time and a column for each observable and then each functional (sum over a path).

    Attributes:
        random: Whether draws enter the mean or gap; False only where it is proven that they do not, so that the value is exact up to rounding.
        drawn: Whether any draw precedes the recorded time. The gap of a pair may be exact nevertheless, if both members move alike.
        stderr: Standard errors of the means or gaps, 0 for exact values.
        rounding: Bounds of the rounding error of the means or gaps.
        least: Lower bounds of one path's value, -inf where unknown or unused.
        most: Upper bounds of one path's value, inf where unknown or unused.
        two_valued: For each observable and functional, whether one path's value is one of two numbers.
    """

    random: np.ndarray
    drawn: np.ndarray
    stderr: np.ndarray
    rounding: np.ndarray
    least: np.ndarray
    most: np.ndarray
    two_valued: tuple[bool, ...]

    def along(self, o: int) -> dict[str, np.ndarray]:
        """Return `random`, `rounding`, `least` and `most` of the observable with index `o` as a dict of arrays `(times,)`."""
        return {name: getattr(self, name)[:, o] for name in ("random", "rounding", "least", "most")}

    def of(self, t: int, o: int) -> dict[str, Any]:
        """Return the arguments random, rounding, least, most, two_valued of `Estimate` as a dict, for the indices `t` (time) and `o` (observable)."""
        return {name: values[t].item() for name, values in self.along(o).items()} | {"two_valued": self.two_valued[o]}
