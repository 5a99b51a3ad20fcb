"""Results in netCDF-4 files: numbers to the bit, no code, and nothing that is run when a file is read.

The root of a file is the result's `data`, for whoever reads it with other programs. The group `result` holds the fields of the result:
arrays as variables, numbers and texts as JSON, results within it as groups of their own. Dynamics and whatever else is code are kept by
their descriptions (`Described`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sdetools._version import __version__

if TYPE_CHECKING:
    import xarray

FORMAT = "sdetools result 1"
HOMES = {
    **dict.fromkeys(("Estimate",), "estimates.estimate"),
    "SupEstimate": "estimates.band",
    "Simulation": "studies.means",
    "WeakGap": "studies.gap",
    "OrderStudy": "studies.order",
    "Distance": "studies.distance",
    "Extrapolation": "studies.extrapolation",
    "Multilevel": "studies.multilevel.result",
    "SlowStudy": "studies.slow_clock",
    "Origin": "studies.result_protocol",
    "Facts": "studies.known",
    "SingleStatistics": "studies.statistics",
    "PairStatistics": "studies.statistics",
    "Sums": "simulation.engine",
    "Described": "studies.saving",
    "ConfidenceInterval": "estimates.interval",
    "Diagnosis": "bridge.diagnosis",
    "Trial": "bridge.trial",
    "Quantity": "bridge.curvature",
    **dict.fromkeys(("Results", "ClaimResult", "ControlResult", "MeasurementResult"), "claims.results"),
    **dict.fromkeys(("Drawing", "Table"), "claims.context"),
}
"""The classes that a file may name beside results, and results that were saved before files named modules, with their places."""
EARLIER_NAMES = {"Trial": {"lost": "shortfall"}, "Sums": {"lost": "diverged", "first": "first_divergence"}}
"""Fields by the names that earlier versions wrote."""


@dataclass(frozen=True)
class Described:
    """What is left in a file of a dynamics, or of another part that is code: its name and the names of its coordinates and parts."""

    name: str
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    dim: int = 0
    step_time: float = 0.0
    loss: None = None

    @classmethod
    def of(cls, given: Any) -> Described:
        """The description of anything."""
        found = {key: getattr(given, key, None) for key in ("names", "parts", "dim", "step_time")}
        if not isinstance(found["names"], (tuple, list)) or not isinstance(found["dim"], (int, np.integer)):
            return cls(str(getattr(given, "name", None) or getattr(given, "label", None) or type(given).__name__))
        names, parts = (tuple(map(str, found[key] or ())) for key in ("names", "parts"))
        return cls(
            str(getattr(given, "name", type(given).__name__)),
            names,
            parts,
            int(found["dim"]),
            float(found["step_time"] or 0.0),
        )

    def __repr__(self) -> str:
        return self.name


class Saved:
    """What can be saved to a file and loaded from it: the two methods of every result."""

    def save(self, path: str | Path) -> Path:
        """Writes the result to a netCDF-4 file, which `st.load` reads; other programs find `data` in it. Dynamics are kept by their names.

        Args:
            path: The file, which is written whole or not at all.

        Returns:
            The file.

        Raises:
            OSError: The file cannot be written; one that was there stays as it was.
        """
        return save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote; ValueError for a file of another kind of result."""
        found = load(path)
        if not isinstance(found, cls):
            raise ValueError(f"`path` must hold a {cls.__name__}; {path} holds a {type(found).__name__}. Read it with st.load.")
        return found


def save(result: Any, path: Path) -> Path:
    """Writes a file; see `Result.save`."""
    data = result.data
    kept = {k: v for k, v in data.attrs.items() if v is not None}
    groups = {"/": data.assign_attrs(kept | {"format": FORMAT, "result": type(result).__name__, "version": __version__})}
    _pack(result, "/result", groups)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        for i, (group, dataset) in enumerate(groups.items()):
            dataset.to_netcdf(aside, mode="a" if i else "w", group=group, engine="h5netcdf")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> Any:
    """The result that `save` wrote to a file.

    Args:
        path: The file.

    Returns:
        A result of the class that was saved, equal to the bit. Its dynamics are described by their names: it cannot be run again.

    Raises:
        ValueError: The file is no result of sdetools, or of a version that this one does not read.

    Example:
        >>> import sdetools as st, tempfile
        >>> oracle = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1))
        >>> run = st.simulate(st.SGD(oracle, st.schedules.constant(0.1)), [1.0], 1.0, 100, ["x0"], backend="numpy")
        >>> again = st.load(run.save(f"{tempfile.mkdtemp()}/run.nc"))
        >>> again.at("x0") == run.at("x0"), again.dynamics
        (True, SGD)
    """
    import xarray

    try:
        groups = {name: data.load() for name, data in xarray.open_groups(path, engine="h5netcdf", decode_times=False).items()}
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"`path` must be a result that was saved; {path} cannot be read: {error}") from error
    if groups["/"].attrs.get("format") != FORMAT or "/result" not in groups:
        found = groups["/"].attrs.get("format")
        raise ValueError(f"`path` must be a result that was saved by sdetools {__version__}; {path} has the format {found!r}.")
    try:
        return _unpacked("/result", groups)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"`path` must be a result as it was saved; {path} lacks a part: {error!r}.") from error


def _pack(value: Any, at: str, groups: dict[str, xarray.Dataset]) -> None:
    """A dataclass as a group, its fields in one of four ways."""
    import xarray

    plain: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    for field in fields(value):
        own, name = getattr(value, field.name), field.name
        if isinstance(own, np.ndarray) and own.dtype != object:
            arrays[name] = ([f"{name}_{axis}" for axis in range(own.ndim)], own)
        elif own is None or _is_plain(own):
            plain[name] = _to_json(own)
        else:
            inner[name] = own
    kind = {"class": type(value).__name__, "module": type(value).__module__}
    groups[at] = xarray.Dataset(arrays, attrs={**kind, "fields": json.dumps(plain)})
    for name, own in inner.items():
        _pack_inner(own, f"{at}/{name}", groups)


def _pack_inner(own: Any, at: str, groups: dict[str, xarray.Dataset]) -> None:
    """An array with named axes, a tuple, a mapping from names or tuples of names, a dataclass, or the description of what is code."""
    import xarray

    if isinstance(own, xarray.DataArray):
        groups[at] = own.to_dataset(name="values").assign_attrs({**own.attrs, "class": "array", "array": str(own.name)})
    elif own is None or _is_plain(own):
        groups[at] = xarray.Dataset(attrs={"class": "plain", "value": json.dumps(_to_json(own))})
    elif isinstance(own, (tuple, list, Mapping)):
        keys = [[*k] if isinstance(k, tuple) else k for k in own] if isinstance(own, Mapping) else None
        items = list(own.values()) if isinstance(own, Mapping) else list(own)
        arrays = {
            f"item{i}": ([f"item{i}_{a}" for a in range(v.ndim)], v) for i, v in enumerate(items) if isinstance(v, np.ndarray)
        }
        groups[at] = xarray.Dataset(arrays, attrs={"class": "collection", "count": len(items), "keys": json.dumps(keys)})
        for i, v in enumerate(items):
            if f"item{i}" not in arrays:
                _pack_inner(v, f"{at}/item{i}", groups)
    else:
        _pack(own if type(own).__name__ in HOMES or isinstance(own, Saved) else _facts(own), at, groups)


def _facts(own: Any) -> Any:
    """What can be written of a part that is computed or is code."""
    return own.facts if hasattr(own, "facts") else Described.of(own)


def _is_plain(own: Any) -> bool:
    if isinstance(own, (tuple, list, frozenset, set)):
        return all(map(_is_plain, own))
    return isinstance(own, (bool, int, float, str, np.integer, np.floating, np.bool_))


def _to_json(own: Any) -> Any:
    if isinstance(own, (frozenset, set)):
        return {"set": sorted(map(_to_json, own))}
    if isinstance(own, (tuple, list)):
        return [_to_json(v) for v in own]
    return own.item() if isinstance(own, np.generic) else own


def _from_json(own: Any) -> Any:
    if isinstance(own, dict):
        return frozenset(own["set"])
    return tuple(map(_from_json, own)) if isinstance(own, list) else own


def _class_of(kind: str, module: str) -> type:
    """The class that a file names: one of `HOMES`, or a result of a module of this package or of one that is imported already.

    A file never makes anything else: neither a module outside the package is imported, nor a class made that is no result.
    """
    if kind in HOMES:
        return getattr(import_module(f"sdetools.{HOMES[kind]}"), kind)
    inside = module.startswith("sdetools.") and find_spec(module) is not None
    cls = getattr(import_module(module) if inside else sys.modules.get(module), kind, None)
    if not (isinstance(cls, type) and issubclass(cls, Saved) and is_dataclass(cls)):
        raise ValueError(
            f"a result must be of a class that is known; the file names {kind!r} of {module or 'an unknown module'!r}. "
            "Import the module that defines it first."
        )
    return cls


def _unpacked(at: str, groups: Mapping[str, xarray.Dataset]) -> Any:
    """What a group holds."""
    data = groups[at]
    kind = data.attrs.get("class", "")
    if kind == "array":
        array = data["values"].rename(None if data.attrs["array"] == "None" else data.attrs["array"])
        array.attrs = {k: v for k, v in data.attrs.items() if k not in ("class", "array")}
        return array
    if kind == "plain":
        return _from_json(json.loads(data.attrs["value"]))
    found = {str(name): np.asarray(v.values) for name, v in data.data_vars.items()}
    found |= {name.rpartition("/")[2]: _unpacked(name, groups) for name in groups if name.rpartition("/")[0] == at}
    if kind == "collection":
        items, keys = [found[f"item{i}"] for i in range(int(data.attrs["count"]))], json.loads(data.attrs["keys"])
        return (
            tuple(items)
            if keys is None
            else {tuple(k) if isinstance(k, list) else k: v for k, v in zip(keys, items, strict=True)}
        )
    cls = _class_of(kind, str(data.attrs.get("module", "")))
    found |= {name: _from_json(v) for name, v in json.loads(data.attrs["fields"]).items()}
    names = EARLIER_NAMES.get(kind, {})
    return cls(**{names.get(name, name): v for name, v in found.items()})
