"""Comparison of two runs of claims, before and after an upgrade or on two machines: what moved beyond its errors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

FALSE_ALARM = 0.02
"""The largest probability that a comparison of two runs reports any difference that is noise alone."""
ROUNDING = 1e-9
"""The relative difference up to which two exact numbers are equal."""
SMALL = 1e-12
"""The largest difference of two exact numbers that may be the rounding of numbers of order one of which they are differences."""


@dataclass(frozen=True)
class Difference:
    """Something in which two runs of claims differ.

    Attributes:
        claim: The claim's id.
        what: The name of the measurement ("control: measurement" for one of a control), "verdict", or "claim" for a claim that one run lacks.
        old: What the first run has, as text: value and standard error ("1.02 +- 0.03"), or the verdict; "-" if that run lacks it.
        new: What the second run has, in the same form.
        z: (new - old) / sqrt(s_old^2 + s_new^2) with the standard errors s; +inf for two unequal numbers without error; NaN for verdicts, and for
            what one run lacks or has no finite value of.
    """

    claim: str
    what: str
    old: str
    new: str
    z: float = math.nan


@dataclass(frozen=True)
class RunComparison:
    """The comparison of two runs.

    Attributes:
        moved: What differs beyond its errors: values, verdicts, and claims or measurements that one run lacks. Claims that only the second run
            has come last.
        edges: Verdicts that differ although all values of the claim agree within their errors: it lies on the edge of a tolerance.
        values: The number of compared values: those of measurements, also in controls, which both runs have.
        threshold: The |z| (see `Difference`) above which the difference of a value is in `moved`.
    """

    moved: tuple[Difference, ...]
    edges: tuple[Difference, ...]
    values: int
    threshold: float


def compare(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> RunComparison:
    """Compare two files `results.json` of `sdetools verify`, claim by claim and value by value.

    A value moved if |new - old| > q sqrt(s_old^2 + s_new^2), with the standard errors s and the normal quantile q at which two runs of one
    program with independent draws differ with probability at most `FALSE_ALARM` (0.02) in any of their values. Two numbers without error moved
    if they differ by more than 1e-9 of the larger one, unless they are distances of the size of rounding, as 3e-16 and 4e-16 below a bound of
    1e-12 on two machines: they differ by less than 1e-12 and a tenth of what lies between the first and its bounds.

    Args:
        old: The file of the first run.
        new: The file of the second run.

    Returns:
        The differences, in the order of the claims in the first run.

    Raises:
        ValueError: If a file is not one that `sdetools verify` wrote.
        OSError: If a file cannot be read.
    """
    before, after = _read(old), _read(new)
    shared = [(id, before[id], after[id]) for id in before if id in after]
    values = sum(len(_values(a).keys() & _values(b).keys()) for _, a, b in shared)
    threshold = NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * max(1, values)))
    moved, edges = list[Difference](), list[Difference]()
    for id, claim in before.items():
        if id not in after:
            moved.append(Difference(id, "claim", claim["verdict"], "-"))
            continue
        found = list(_moved(id, claim, after[id], threshold))
        verdicts = claim["verdict"], after[id]["verdict"]
        if verdicts[0] != verdicts[1]:
            noise = not found and {*verdicts} <= {"supported", "inconclusive", "contradicted"}
            (edges if noise else found).append(Difference(id, "verdict", *verdicts))
        moved += found
    moved += [Difference(id, "claim", "-", claim["verdict"]) for id, claim in after.items() if id not in before]
    return RunComparison(tuple(moved), tuple(edges), values, threshold)


def _moved(id: str, old: Mapping[str, Any], new: Mapping[str, Any], threshold: float) -> Iterator[Difference]:
    """Yield the measurements of a claim that moved, and those that one run lacks.

    Args:
        id: The claim's id.
        old: The claim's dict in `results.json` of the first run.
        new: Its dict of the second run.
        threshold: The number of standard errors of a difference above which a value moved.
    """
    before, after = _values(old), _values(new)
    for name in {**before, **after}:
        a, b = before.get(name), after.get(name)
        if a is None or b is None:
            yield Difference(id, name, _text(a), _text(b))
            continue
        x, y = a["value"], b["value"]
        if x is None or y is None:
            if (x is None) != (y is None):
                yield Difference(id, name, _text(a), _text(b))
            continue
        error = math.hypot(_error(a), _error(b))
        if error == 0:
            if abs(x - y) > max(ROUNDING * max(abs(x), abs(y)), min(SMALL, 0.1 * _room(a))):
                yield Difference(id, name, _text(a), _text(b), math.inf)
        elif abs(x - y) > threshold * error:
            yield Difference(id, name, _text(a), _text(b), (y - x) / error)


def _room(item: Mapping[str, Any]) -> float:
    """Return the distance between the value of a measurement and the nearer end of the interval that is accepted for it; inf without one."""
    return min((abs(item["value"] - end) for end in item.get("accept") or () if end is not None), default=math.inf)


def _values(claim: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the dicts of the measurements of a claim by name, and of its controls by "control: measurement"."""
    own = {item["name"]: item for item in claim["measurements"]}
    return own | {f"{control['name']}: {item['name']}": item for control in claim["controls"] for item in control["measurements"]}


def _error(item: Mapping[str, Any]) -> float:
    """Return the standard error of a measurement; where it has none, that of a normal law with the same interval; inf without a finite interval."""
    if item["stderr"] is not None:
        return float(item["stderr"])
    if item["low"] is None or item["high"] is None or not 0 < item["level"] < 1:
        return math.inf
    return (item["high"] - item["low"]) / (2 * NormalDist().inv_cdf(0.5 + item["level"] / 2))


def _text(item: Mapping[str, Any] | None) -> str:
    """Return a measurement as text, its value and standard error: "1.02 +- 0.03", or "-" for None, or "not finite"."""
    if item is None:
        return "-"
    if item["value"] is None:
        return "not finite"
    error = _error(item)
    return f"{item['value']:.6g}" + (f" +- {error:.2g}" if error else "")


def _read(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Return the dicts of the claims in a file `results.json`, by id; ValueError if it is no such file."""
    if not Path(path).is_file():
        raise ValueError(f"`path` must be a file results.json of `sdetools verify`; got {str(path)!r}, which does not exist.")
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        claims = {item["id"]: item for item in found["claims"]}
        for item in claims.values():
            _ = item["verdict"], [_text(one) for one in _values(item).values()]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"`path` must be a file results.json that this version of `sdetools verify` wrote; got {str(path)!r} ({error})."
        ) from error
    return claims
