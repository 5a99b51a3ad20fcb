"""What a claim records: measurements with their accepted ranges, controls, figures and tables."""

from __future__ import annotations

import math
import numbers
import re
import warnings
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from sdetools._check import number, positive
from sdetools.estimates.interval import ConfidenceInterval


@runtime_checkable
class Measured(Protocol):
    """The interface of an estimate that can be judged, which `sdetools.Estimate` has.

    It has a `value`, the number `n` of its paths (0 for none), and the method `confidence_interval`. These attributes are also used where the
    estimate has them: `stderr`; `skewness` of the law of the value; `diverged`, the number of diverged paths, with `first_divergence`; `random`,
    False if no draw enters; `why_open`, the reason for an infinite interval.
    """

    value: float
    n: int

    def confidence_interval(self, level: float) -> ConfidenceInterval:
        """Return the interval of the estimate at the confidence level `level`, 0 < level < 1."""


class _DeprecatedEstimate:
    """Adapter of a user-defined estimate with the deprecated method `interval(confidence)`, which returns the pair (low, high).

    All other attributes are those of the adapted estimate.
    """

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_own"], name)

    def confidence_interval(self, level: float) -> ConfidenceInterval:
        """Return the interval of the adapted estimate at the confidence level `level`."""
        low, high = map(float, self._own.interval(level))
        return ConfidenceInterval(low, high, level)


@dataclass(frozen=True)
class Measurement:
    """A measured quantity (an `Estimate`, or a float, which is exact) and its closed accepted range `[accept_low, accept_high]`.

    A bound (`at_most` or `at_least`) has a range that is infinite on one side. `name` is unique within the claim or control. `expected` is the
    centre of the range, or None for a bound. `looks` is the largest number of times that the estimate may be compared with the range, with more
    paths each time (`ClaimContext.decide`); the error rate (1 - level) of its intervals is divided by it.
    """

    name: str
    estimate: Any
    accept_low: float
    accept_high: float
    expected: float | None
    looks: int = 1

    @property
    def random(self) -> bool:
        """Whether the estimate depends on draws: False for a float, and for an estimate whose own attribute `random` is False."""
        return not isinstance(self.estimate, float) and bool(getattr(self.estimate, "random", True))


@dataclass
class Control:
    """A negative control: a variant of the claim that is false, with its measurements.

    At least one of their intervals must be disjoint from its accepted range, or the claim is not supported.
    """

    name: str
    measurements: list[Measurement] = field(default_factory=list)


@dataclass(frozen=True)
class Drawing:
    """A figure of a claim.

    Attributes:
        name: Its name, unique within the claim.
        slug: The stem of its file's name, of lower-case letters, digits and dashes, unique within the claim.
        svg: The text of the file `slug`.svg.
        caption: The caption, with formulas between dollar signs.
        axes: What is on its axes, in words, with formulas between dollar signs.
        seen: What is drawn, in the same form.
    """

    name: str
    slug: str
    svg: str
    caption: str
    axes: str = ""
    seen: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a claim: its name, the headings `columns`, and `rows`, tuples with one cell per column."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass
class ClaimRecord:
    """What a claim has recorded, in the order of recording: its measurements, controls, figures, tables and notes (texts)."""

    measurements: list[Measurement] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    figures: list[Drawing] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judged_estimate(name: str, estimate: Any) -> Any:
    """Return what a claim measured in the form that is judged: a float for a number, otherwise an object with the interface `Measured`.

    Args:
        name: The name of the measurement, for messages.
        estimate: A real number, or an estimate; one with the deprecated method `interval` is adapted, with a warning.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(estimate, numbers.Real):
        return float(estimate)
    if callable(getattr(estimate, "interval", None)) and not isinstance(estimate, Measured):
        warnings.warn(
            f"`{name}`: `interval(confidence)` of an estimate is now `confidence_interval(level)`.",
            DeprecationWarning,
            stacklevel=3,
        )
        return _DeprecatedEstimate(estimate)
    if not isinstance(estimate, Measured):
        raise ValueError(
            f"`{name}` must be measured by an Estimate or a number; got {type(estimate).__name__}. "
            "Reduce it first, for example with `gap.sup(observable)`."
        )
    return estimate


def accepted_range(
    name: str,
    expected: float | None,
    tolerance: float | None,
    relative: float | None,
    at_most: float | None,
    at_least: float | None,
) -> tuple[float, float]:
    """Return the pair (low, high) of the accepted range of a measurement, from the arguments of `ClaimContext.measure`.

    Args:
        name: The name of the measurement, for messages.
        expected: The centre of the range; None for a bound.
        tolerance: Half of the range's width; None with `relative` or a bound.
        relative: Half of the range's width as a fraction of |expected|; None with `tolerance` or a bound.
        at_most: The upper end, for the range (-inf, at_most); else None.
        at_least: The lower end, for the range (at_least, inf); else None.

    Raises:
        ValueError: Unless exactly one of `expected`, `at_most` and `at_least` is given, `expected` with exactly one tolerance; and for a tolerance that
            is not positive.

    Example:
        >>> accepted_range("order", 2.0, None, 0.25, None, None), accepted_range("gap", None, None, None, 0.5, None)
        ((1.5, 2.5), (-inf, 0.5))
    """
    kinds = [kind for kind, value in (("expected", expected), ("at_most", at_most), ("at_least", at_least)) if value is not None]
    if len(kinds) != 1:
        raise ValueError(
            f"`{name}` must have exactly one criterion; got {' and '.join(kinds) or 'none'}. "
            "Give `expected` with `tolerance`, or `at_most`, or `at_least`."
        )
    if expected is None and (tolerance is not None or relative is not None):
        raise ValueError(
            f"the tolerance of `{name}` must go with `expected`; got it with `{kinds[0]}`. Change the bound instead."
        )
    if at_most is not None:
        return -math.inf, number("at_most", at_most)
    if at_least is not None:
        return number("at_least", at_least), math.inf
    centre = number("expected", expected)
    if (tolerance is None) == (relative is None):
        raise ValueError(f"`{name}` must have a `tolerance` or a `relative` one; got {'none' if tolerance is None else 'both'}.")
    if tolerance is not None:
        width = positive("tolerance", tolerance)
    else:
        width = positive("relative", relative) * abs(centre)
        if width == 0:
            raise ValueError(
                f"`relative` must not be used with expected=0, of which every fraction is 0. Give `{name}` a `tolerance`."
            )
    return centre - width, centre + width


def slug_of(name: str, taken: set[str]) -> str:
    """Return a stem of a file's name, of lower-case letters, digits and dashes, made from `name` (at most 60 characters) and not in `taken`.

    Example:
        >>> slug_of("Weak gap, SGD", set()), slug_of("Weak gap (SGD)", {"weak-gap-sgd"})
        ('weak-gap-sgd', 'weak-gap-sgd-2')
    """
    slug = stem = "-".join(re.findall(r"[a-z0-9]+", name.lower()))[:60] or "figure"
    count = 1
    while slug in taken:
        count += 1
        slug = f"{stem}-{count}"
    return slug


def svg_text(drawn: Any) -> str:
    """Return the text of an SVG file of `drawn`, a matplotlib figure or its axes; equal figures give equal texts."""
    import io

    import matplotlib

    out, figure = io.StringIO(), drawn.figure
    if len(figure.axes) == 1:
        figure.set_layout_engine("none")  # a single plot needs only the tight bounding box, which takes half the time
    # Without a date and with fixed ids, equal figures give equal files.
    with matplotlib.rc_context({"svg.hashsalt": "sdetools", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()
