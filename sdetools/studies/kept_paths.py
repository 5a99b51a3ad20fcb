"""Stored paths of a run, requested by `trajectories=` and `slices=`: arrays with named axes, and their plots.

A part of a state is the position, "x", or another array `(dim,)` of the dynamics' state, such as the momentum buffer "m".
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools._version import __version__
from sdetools.dynamics.base import Moving
from sdetools.results.protocol import BY_HAND, Origin, Result
from sdetools.simulation.engine import Sums
from sdetools.simulation.philox import PATHS
from sdetools.simulation.program import Program
from sdetools.studies.clock import asked_steps
from sdetools.studies.known import Facts, Known
from sdetools.studies.sampler import Sampler

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptPaths(Result):
    """Base class of results that store paths.

    Stored paths are an xarray.DataArray over (path, time, part, coordinate), of a pair over (member, path, time, part, coordinate). The coordinates
    of the array are `member` ("first", "second") with the names `dynamics`, `path` (the index), `time` with `step`, `part`, the position "x" or
    another array of the state, such as the momentum buffer "m", and `coordinate` (the names of the variables). A part that a member lacks is NaN. The
    `attrs` are `seed`, `stream`, `backend`, `dtype` (of the paths; the array is in double precision) and `version`.

    A subclass writes the property `members` and what `Result` requires (`data`, `table`, `plot`), and has the attribute `known`, a `Known` or `Facts`.

    Attributes:
        trajectories: Selected paths at the recorded times; None if not requested.
        slices: All paths at selected times; None if not requested.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    trajectories: xarray.DataArray | None = None
    slices: xarray.DataArray | None = None
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def facts(self) -> Facts:
        """Exactness, bounds and rounding errors of the values, a `Facts` of arrays `(times, observables)`; computed at the first access."""
        known: Known | Facts = self.known  # type: ignore[attr-defined]
        return known.facts if isinstance(known, Known) else known

    @property
    @abstractmethod
    def members(self) -> tuple[Moving, ...]:
        """The dynamics that were simulated, a tuple of one or two."""

    def plot_paths(
        self,
        ax: Any = None,
        *,
        part: str | None = None,
        coordinates: Sequence[str] | None = None,
        time: bool = False,
        separate: bool = False,
    ) -> Figure:
        """Plot the trajectories (`trajectories=`), in two dimensions on the contours of the loss, otherwise each coordinate against time.

        Args:
            ax: The axes: one in the plane, a sequence of one for each coordinate against time; None for those of a new figure.
            part: The part of the state, such as "m" for the momentum buffer; None for the position.
            coordinates: Names of coordinates; None for the first six.
            time: True to plot each coordinate against time in two dimensions as well.
            separate: True for axes of its own for each of two dynamics, side by side, in the plane; on the same noise, path p of both has one colour.

        Returns:
            The matplotlib figure.

        Raises:
            ValueError: If the run has no trajectories, or no such part or coordinate.
        """
        from sdetools import plots

        shown, values, names = self._paths_of(part, coordinates)
        loss = self.members[0].loss if part is None and list(shown.coordinate.values) == names else None
        return plots.figure_of(plots.path_plot([m.name for m in self.members], values, loss, ax, time, separate))

    def plot_fan(
        self,
        ax: Any = None,
        *,
        part: str | None = None,
        coordinates: Sequence[str] | None = None,
        levels: Sequence[float] = (0.5, 0.9),
    ) -> Figure:
        """Plot the median over the trajectories and the ranges that contain given shares of them, against time; return the figure.

        Args:
            ax: The axes, a sequence of one for each coordinate; None for those of a new figure.
            part: The part of the state, such as "m" for the momentum buffer; None for the position.
            coordinates: Names of coordinates; None for the first six.
            levels: The shares, strictly between 0 and 1: 0.9 for the range between the quantiles 0.05 and 0.95.

        Raises:
            ValueError: If the run has no trajectories, or no such part or coordinate, or a level is not between 0 and 1.
        """
        from sdetools import plots

        shown, values, _ = self._paths_of(part, coordinates)
        names = [m.name for m in self.members]
        if len(set(names)) < len(names):
            names = [f"{name} ({which})" for name, which in zip(names, ("first", "second"))]
        panels = {str(h): {name: v.sel(coordinate=h).values for name, v in zip(names, values)} for h in shown.coordinate.values}
        return plots.figure_of(plots.fan_panels(shown.time.values, panels, levels, ax))

    def _paths_of(
        self, part: str | None, coordinates: Sequence[str] | None
    ) -> tuple[xarray.DataArray, list[xarray.DataArray], list[str]]:
        """Return the triple of the trajectories of some coordinates, a list of one array (path, time, coordinate) for each member, and all names.

        The first is the stored array with those coordinates alone, the last a list of the names of all coordinates.

        Args:
            part: The part of the state; None for the position.
            coordinates: Names of coordinates; None for the first six.

        Raises:
            ValueError: If the run has no trajectories, or no such part or coordinate.
        """
        from sdetools import plots

        if self.trajectories is None:
            raise ValueError("`trajectories` must have been requested; got a run without them. Run it with trajectories=100.")
        if isinstance(coordinates, str):
            raise ValueError(f"`coordinates` must be a list of names; got {coordinates!r}. Write coordinates=[{coordinates!r}].")
        parts = [m.parts[0] if part is None else part for m in self.members]
        names = [str(name) for name in self.trajectories.coordinate.values]
        for name, given, known in (
            ("part", parts, self.trajectories.part.values.tolist()),
            ("coordinates", coordinates or names, names),
        ):
            unknown = [g for g in given if g not in known]
            if unknown:
                raise ValueError(f"`{name}` must be among {', '.join(known)}; got {unknown[0]!r}.")
        shown = self.trajectories.sel(coordinate=list(coordinates or names[: plots.PANELS]))
        values = [
            (shown.isel(member=i) if "member" in shown.dims else shown).sel(part=p).transpose("path", "time", "coordinate")
            for i, p in enumerate(parts)
        ]
        return shown, values, names


@dataclass(frozen=True)
class PathRequest:
    """The paths whose states a run stores, from the arguments `trajectories` and `slices` of a simulation.

    Attributes:
        program: The description of the simulation.
        step_time: The time of one step of the member with the longer step.
        chosen: A number n for the first n paths (0 for none), or the indices of paths.
        slices: The steps at which all paths are stored, integers `(slices,)`; empty for none. If the members' steps differ in length, they are
            counted in the shorter one.
    """

    program: Program
    step_time: float
    chosen: int | np.ndarray
    slices: np.ndarray

    @staticmethod
    def of(program: Program, step_time: float, trajectories: Any, slices: Any) -> PathRequest:
        """Return the request of a user, validated as far as possible without the number of paths.

        Args:
            program: The description of the simulation.
            step_time: The time of one step of the member with the longer step.
            trajectories: A number n for the first n paths, a list of path indices, or None for no paths.
            slices: A list of times, "all" for every step, or None for no times.

        Raises:
            ValueError: If `trajectories` is not one of these, or a time lies outside the run or is not a whole number of steps.
        """
        longest = max(program.every)
        steps = np.zeros(0, np.int64) if slices is None else asked_steps("slices", slices, program.steps // longest, step_time)
        return PathRequest(program, step_time, _indices(trajectories), steps * longest)

    def run(self, paths: int, sampler: Sampler, keep: bool) -> tuple[Sums, dict[str, Any]]:
        """Run the program, and store the requested states.

        Args:
            paths: The number of paths.
            sampler: Seed, stream and options of execution.
            keep: Whether to store the positions of all paths after the last step, in the `points` of the moments.

        Returns:
            The accumulated moments, and a dict of the fields "trajectories" and "slices" of `KeptPaths` as arrays; a field that was not
            requested is missing.

        Raises:
            ValueError: If a requested path is not among the paths of the run.
        """
        chosen = np.arange(self.chosen) if isinstance(self.chosen, int) else self.chosen
        if chosen.max(initial=-1) >= paths:
            raise ValueError(
                f"`trajectories` must be at most as many as there are paths, or numbers of paths from 0 to {paths - 1:,}; got "
                f"{self.chosen if isinstance(self.chosen, int) else int(chosen.max()):,} of {paths:,} paths. Choose others, or run more paths."
            )
        sums = sampler.run(self.program, paths, keep=keep, slices=self.slices, trajectories=chosen)
        arrays = {
            "trajectories": self._named("trajectories", sums.trajectories, self.program.record, chosen, sums, sampler),
            "slices": self._named("slices", sums.slices, self.slices, np.arange(paths), sums, sampler),
        }
        return sums, {name: array for name, array in arrays.items() if array is not None}

    def _named(
        self, name: str, values: np.ndarray | None, steps: np.ndarray, paths: np.ndarray, sums: Sums, sampler: Sampler
    ) -> xarray.DataArray | None:
        """Return stored states as an array with named axes, without a copy; None if `values` is None.

        Args:
            name: The name of the array, "trajectories" or "slices".
            values: The states `(steps, rows, paths)`; the rows are the coordinates of the parts of the members, as in `Program.state_rows` flattened.
            steps: Their steps, `(steps,)`, counted in the shorter of the members' steps.
            paths: The indices of their paths.
            sums: The moments of the run, for its backend and floating-point type.
            sampler: Seed, stream and options of execution.
        """
        if values is None:
            return None
        import xarray

        members, step = self.program.members, steps // max(self.program.every)
        array = xarray.DataArray(
            values.reshape(len(steps), *self.program.state_rows.shape, -1).transpose(1, 4, 0, 2, 3),
            dims=("member", "path", "time", "part", "coordinate"),
            coords={
                "member": ["first", "second"][: len(members)], "dynamics": ("member", [m.name for m in members]), "path": paths,
                "time": step * self.step_time, "step": ("time", step), "part": list(self.program.parts), "coordinate": list(members[0].names),
            },
            name=name,
            attrs={
                "seed": sampler.seed, "stream": sampler.stream.number, "backend": sums.backend, "dtype": sums.dtype,
                "version": __version__,
            },
        )  # fmt: skip
        return array if len(members) == 2 else array.isel(member=0, drop=True)


def _indices(trajectories: Any) -> int | np.ndarray:
    """Return the value of `trajectories=` in one of two forms: a number of first paths (0 for None), or path indices as an integer array `(n,)`.

    ValueError is raised for anything else, negative numbers and repeated indices; the order of indices is kept.
    """
    if trajectories is None:
        return 0
    if np.ndim(trajectories) == 0:
        return _check.count(
            "trajectories", trajectories, most=PATHS, hint="It is how many of the first paths to follow, or a list of paths."
        )
    out = np.asarray(trajectories)
    if out.ndim != 1 or not out.size or out.dtype.kind not in "iu":
        raise ValueError(
            f"`trajectories` must be a number of paths or a list of whole numbers; got {_check.shown(trajectories)}."
        )
    if out.min() < 0:
        raise ValueError(f"`trajectories` must be numbers of paths, 0, 1, 2, ...; got {int(out.min())}.")
    numbers, times = np.unique(out, return_counts=True)
    if times.max() > 1:
        raise ValueError(f"`trajectories` must name each path once; got {int(numbers[times.argmax()])} more than once.")
    return out.astype(np.int64)
