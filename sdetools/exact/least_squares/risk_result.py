"""The exact risk along time, the result of `exact.risk`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.results.protocol import BY_HAND, Origin, Result

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Risk(Result):
    """The excess risk of a rule at recorded steps, without Monte Carlo; `exact.risk` makes it.

    A mode is a coordinate of the eigenbasis of the rows' covariance, in the order of `spectrum`. For large spectra, modes of similar eigenvalues form
    groups: a few nodes, eigenvalues at which the recursion is made, stand for a group, and the rest follows by interpolation. All attributes but
    `moments`, which are not made then, are of the whole spectrum.

    Attributes:
        steps: The recorded steps, integers of shape `(times,)`.
        times: Their times, steps * step_time, shape `(times,)`.
        risk: The excess risk 1/2 sum_i lam_i E x_i^2, x the distance from the minimiser, shape `(times,)`; infinite beyond the range of numbers.
        spectrum: The eigenvalues lam_i, shape `(modes,)`.
        name: The name of the rule.
        parts: The names of the n parts of the state, such as ("x", "m").
        moments: E s_a s_b of the parts a and b of the state in each mode, shape `(times, n, n, modes)`: a and b in the order of `parts`, the last axis in
            that of `spectrum`. NaN in modes of eigenvalue 0. None if they were not asked for.
        nodes: The number of eigenvalues at which the recursion was made: all `modes`, or fewer nodes of groups.
        bound: A proved bound on the error of `risk` by grouping, at every step; 0 without groups, NaN where none is known.
        estimate: Where `bound` is NaN: the largest difference, over the recorded steps, from a run with two nodes less a group, an estimate and no bound.
            Otherwise 0.
        origin: The text of the call and the version of the package.
    """

    steps: np.ndarray
    times: np.ndarray
    risk: np.ndarray
    spectrum: np.ndarray
    name: str
    parts: tuple[str, ...]
    moments: np.ndarray | None = None
    nodes: int = 0
    bound: float = 0.0
    estimate: float = field(default=0.0)
    origin: Origin = BY_HAND

    @property
    def diverged(self) -> int:
        """1 if the last recorded risk is infinite, as that of an unstable rule finally is, else 0."""
        return int(not np.isfinite(self.risk[-1]))

    @property
    def data(self) -> xarray.Dataset:
        """The numbers as a dataset: `risk` over `step`, with `time` as a coordinate along `step`.

        If moments were asked for, there is also `second_moment` over (step, part, part2, mode), with the coordinate `spectrum` along `mode`. The
        attributes of the dataset have the name of the rule, `modes`, `nodes`, `grouping_bound`, `grouping_estimate`, `diverged` and the origin.
        """
        import xarray

        variables: dict[str, Any] = {"risk": ("step", self.risk)}
        coordinates: dict[str, Any] = {"step": self.steps, "time": ("step", self.times)}
        if self.moments is not None:
            variables["second_moment"] = (("step", "part", "part2", "mode"), self.moments)
            coordinates |= {"part": list(self.parts), "part2": list(self.parts), "spectrum": ("mode", self.spectrum)}
        attributes = {"rule": self.name, "modes": len(self.spectrum), "nodes": self.nodes}
        attributes |= {"grouping_bound": self.bound, "grouping_estimate": self.estimate, "diverged": self.diverged}
        return xarray.Dataset(variables, coordinates, attributes | self.origin.attributes)

    def at(self, step: int) -> float:
        """Return the risk at a recorded step; ValueError if it was not recorded."""
        found = np.flatnonzero(self.steps == step)
        if not len(found):
            raise ValueError(f"`step` must be a recorded step; got step={step!r}. Add it to record=.")
        return float(self.risk[found[0]])

    def local_exponents(self) -> np.ndarray:
        """Return the slopes of log risk against log step between consecutive recorded steps above 0, one less than there are such steps.

        A risk ~ step^-p has the slope -p. A slope is infinite or NaN next to a risk of 0 or infinity.
        """
        use = self.steps > 0
        with np.errstate(all="ignore"):
            return np.diff(np.log(self.risk[use])) / np.diff(np.log(self.steps[use]))

    def table(self) -> str:
        """Return a text table of step, time and risk, one line for each of at most twenty recorded steps, evenly chosen."""
        shown = np.unique(np.linspace(0, len(self.steps) - 1, min(20, len(self.steps))).astype(int))
        lines = [f"{'step':>12} {'time':>12} {'risk':>16}"]
        lines += [f"{self.steps[k]:>12} {self.times[k]:>12.6g} {self.risk[k]:>16.8g}" for k in shown]
        return "\n".join(lines)

    def plot(self, *, ax: Any = None) -> Figure:
        """Plot the risk against the steps on logarithmic axes, on `ax` or on the axes of a new figure, and return the figure."""
        from sdetools.plots import risk_curves

        return risk_curves(self.steps, {self.name: self.risk}, ax=ax).figure  # type: ignore[return-value]

    def __repr__(self) -> str:
        grouped = f", {self.nodes} nodes" if self.nodes < len(self.spectrum) else ""
        last = f"{self.risk[-1]:.6g} at step {self.steps[-1]}"
        return f"Risk({self.name}, {len(self.spectrum)} modes{grouped}: {last})"
