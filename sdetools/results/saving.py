"""Results in netCDF-4 files: numbers without any loss of precision, and no code, so that reading a file executes nothing.

The root group is the result's `data`, for other programs. The group `result` contains the fields of the result: arrays as variables,
numbers and strings as JSON, nested results as groups. Of dynamics and other code only a description is stored (`Described`).
The group `check` contains a hash of the group `result` (`sdetools.results.checksum`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sdetools._check import path as checked_path, shown
from sdetools._identity import of_package
from sdetools._version import __version__
from sdetools.results.checksum import checksum
from sdetools.results.described import Described

if TYPE_CHECKING:
    import xarray

FORMAT = "sdetools result 2"
UNCHECKED = "sdetools result 1"
"""The format before files had a hash, which is still read."""
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
    "StationaryStudy": "studies.long_paths",
    "ExitStudy": "studies.exits",
    "WorkPrecision": "studies.work_diagrams",
    "Origin": "results.protocol",
    "Facts": "studies.facts",
    "SingleStatistics": "studies.statistics",
    "PairStatistics": "studies.statistics",
    "Sums": "simulation.engine",
    "Described": "results.described",
    "ConfidenceInterval": "estimates.interval",
    "Diagnosis": "bridge.diagnosis_result",
    **dict.fromkeys(("DiagnosisStage", "Cost"), "bridge.stages"),
    "Evidence": "bridge.keep_probability",
    "Trial": "bridge.trial",
    "Quantity": "bridge.curvature",
    **dict.fromkeys(("Results", "ClaimResult", "ControlResult", "MeasurementResult"), "claims.results"),
    **dict.fromkeys(("Drawing", "Table"), "claims.record"),
    **dict.fromkeys(("DimensionTable", "Cell", "Comparison", "LeftOut"), "benchmarking.dimension_table"),
}
"""The classes that a file may contain besides results, and their modules."""
UNREADABLE = (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What h5py, h5netcdf and xarray raise for damaged files."""
EARLIER_NAMES = {"Trial": {"lost": "shortfall"}, "Sums": {"lost": "diverged", "first": "first_divergence"}}
"""Field names that earlier versions wrote, and their present names."""


SLASH = "\u2215"
"""The character that stands for "/" in the names of a file's variables, where "/" separates groups."""
SEQUENCES: dict[str, type] = {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}
"""The types of plain collections, by the names that they have in a file."""


class Saved:
    """Base class of objects that can be saved to a file and loaded from it.

    A subclass is a dataclass at the top of a module, with an attribute `data`, an `xarray.Dataset` for other programs. Its fields are stored, and its
    constructor gets them when the file is loaded: numbers, texts, arrays, lists, tuples, mappings and other objects of this kind. Dynamics and functions
    become descriptions (`Described`). Only a class with fields of further types defines `stored`.
    """

    def save(self, path: str | Path) -> Path:
        """Write the result to a netCDF-4 file for `st.load`. Other programs can read `data` from it. Dynamics are stored as descriptions.

        Args:
            path: The file, in a folder that exists. An existing file is replaced only after everything was written.

        Returns:
            The path as a `Path`.

        Raises:
            OSError: If the file cannot be written. An existing file is then unchanged.
            ValueError: If a field has a type that a file cannot contain.
        """
        return save(self, checked_path("path", path))

    def stored(self) -> dict[str, Any]:
        """Return what a file contains: a dictionary from the name of each field that the constructor takes to its value.

        A class with fields of other types, such as formulas, returns their texts here, and its constructor takes these texts, too.
        """
        return {field.name: getattr(self, field.name) for field in fields(self) if field.init}  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the result in a file that `save` wrote, as `st.load` does; ValueError if it is not of this class or a subclass."""
        found = load(path)
        if not isinstance(found, cls):
            raise ValueError(f"`path` must hold a {cls.__name__}; {path} holds a {type(found).__name__}. Read it with st.load.")
        return found


def save(result: Any, path: Path) -> Path:
    """Write a result to a netCDF-4 file, which `load` reads, and return the path.

    Args:
        result: The result, an object of a subclass of `Saved`.
        path: The file, in a folder that exists. An existing file is replaced only after everything was written.

    Raises:
        OSError: If the file cannot be written. An existing file is then unchanged.
        ValueError: If a field has a type that a file cannot contain.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path` must lie in a folder that exists; got {str(path)!r}. Create {str(path.parent)!r} first.")
    import xarray

    data = result.data
    data = data.rename({name: name.replace("/", SLASH) for name in data.variables if isinstance(name, str) and "/" in name})
    kept = {k: v for k, v in data.attrs.items() if v is not None}
    groups = {"/": data.assign_attrs(kept | {"format": FORMAT, "result": type(result).__name__, "version": __version__})}
    _pack(result, "/result", groups)
    target = path.resolve()  # a link keeps pointing to its file
    aside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        for i, (group, dataset) in enumerate(groups.items()):
            dataset.to_netcdf(aside, mode="a" if i else "w", group=group, engine="h5netcdf")
        written = _read(aside)
        xarray.Dataset(attrs={"sha256": checksum(written)}).to_netcdf(aside, mode="a", group="/check", engine="h5netcdf")
        _unpacked("/result", written)  # a result that could not be loaded again is refused while it still exists
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> Any:
    """Return the result in a file that `save` wrote.

    Args:
        path: The file.

    Returns:
        The result, with bitwise equal numbers. Its dynamics are descriptions (`Described`), so that it cannot be run again.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a result of sdetools, is damaged, or has a format that this version does not read.

    Example:
        >>> import sdetools as st, tempfile
        >>> oracle = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1))
        >>> run = st.simulate(st.SGD(oracle, st.schedules.constant(0.1)), [1.0], 1.0, 100, ["x0"], backend="numpy")
        >>> again = st.load(run.save(f"{tempfile.mkdtemp()}/run.nc"))
        >>> again.at("x0") == run.at("x0"), again.dynamics
        (True, SGD)
    """
    if not checked_path("path", path).is_file():
        raise FileNotFoundError(f"`path` must be a file that exists; got {str(path)!r}.")
    try:
        groups = _read(path)
    except UNREADABLE as error:
        raise ValueError(f"`path` must be a result that was saved; {path} cannot be read: {error}") from error
    found = groups["/"].attrs.get("format")
    if found not in (FORMAT, UNCHECKED) or "/result" not in groups:
        raise ValueError(f"`path` must be a result that was saved by sdetools {__version__}; {path} has the format {found!r}.")
    if found == FORMAT and ("/check" not in groups or groups["/check"].attrs.get("sha256") != checksum(groups)):
        raise ValueError(
            f"`path` must be a result as it was saved; {path} is damaged or was changed: its hash is another. Save it again."
        )
    try:
        result = _unpacked("/result", groups)
    except (AttributeError, ImportError, LookupError, RecursionError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"`path` must be a result as it was saved; {path} lacks a part: {error!r}.") from error
    if not isinstance(result, Saved):
        raise ValueError(f"`path` must be a result that was saved; {path} holds a {type(result).__name__}.")
    return result


def contents(result: Saved) -> str:
    """Return the hash of what a file of `result` would contain, without the origins of it and of the results in it.

    Raises:
        ValueError: If it cannot be saved.
    """
    groups: dict[str, xarray.Dataset] = {}
    _pack(result, "/result", groups)
    return checksum({name: group for name, group in groups.items() if not name.endswith("/origin")})


def _read(path: str | Path) -> dict[str, xarray.Dataset]:
    """Return the groups of a netCDF-4 file by name, with their data in memory."""
    import xarray

    lazy = xarray.open_groups(path, engine="h5netcdf", decode_times=False)
    try:
        return {name: data.load() for name, data in lazy.items()}
    finally:
        for data in lazy.values():
            data.close()


def _pack(value: Any, at: str, groups: dict[str, xarray.Dataset]) -> None:
    """Add a dataclass to `groups`: arrays as variables, plain values as JSON, other fields as groups of their own."""
    import xarray

    if "." in type(value).__qualname__:
        raise ValueError(
            f"a result that is saved must be of a class at the top of a module, where `st.load` finds it; got {type(value).__qualname__}. "
            "Move the class out of the function or class that contains it."
        )
    plain: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    given = value.stored() if isinstance(value, Saved) else {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    for name, own in given.items():
        if isinstance(own, np.ndarray):
            arrays[name] = ([f"{name}.{axis}" for axis in range(own.ndim)], _checked_array(own, name))
        elif own is None or _is_plain(own):
            plain[name] = _to_json(own)
        else:
            inner[name] = own
    kind = {"class": type(value).__name__, "module": type(value).__module__}
    groups[at] = xarray.Dataset(arrays, attrs={**kind, "fields": json.dumps(plain)})
    for name, own in inner.items():
        _pack_inner(own, f"{at}/{name}", groups)


def _pack_inner(own: Any, at: str, groups: dict[str, xarray.Dataset]) -> None:
    """Add a nested value: an array with named axes, a sequence, a mapping, a dataclass, or the description of code."""
    import xarray

    if isinstance(own, xarray.DataArray):
        _checked_array(own.data, at.rpartition("/")[2])
        groups[at] = own.to_dataset(name="values").assign_attrs({**own.attrs, "class": "array", "array": str(own.name)})
    elif own is None or _is_plain(own):
        groups[at] = xarray.Dataset(attrs={"class": "plain", "value": json.dumps(_to_json(own))})
    elif type(own) in (tuple, list) or isinstance(own, Mapping):
        name = at.rpartition("/")[2]
        keys = [_key(k, name) for k in own] if isinstance(own, Mapping) else None
        items = list(own.values()) if isinstance(own, Mapping) else list(own)
        arrays = {
            f"item{i}": ([f"item{i}_{a}" for a in range(v.ndim)], _checked_array(v, name))
            for i, v in enumerate(items)
            if isinstance(v, np.ndarray)
        }
        kind = {"class": "collection", "type": type(own).__name__, "count": len(items), "keys": json.dumps(keys)}
        groups[at] = xarray.Dataset(arrays, attrs=kind)
        for i, v in enumerate(items):
            if f"item{i}" not in arrays:
                _pack_inner(v, f"{at}/item{i}", groups)
    else:
        known = type(own).__name__ in HOMES and type(own).__module__.partition(".")[0] == "sdetools"
        _pack(own if known or isinstance(own, Saved) else _storable(own, at.rpartition("/")[2]), at, groups)


def _storable(own: Any, name: str) -> Any:
    """Return the storable form of an object that is computed lazily or is code; ValueError for other data than a file can contain."""
    if hasattr(own, "facts"):
        return own.facts
    if of_package(own) or callable(own) or hasattr(own, "dim"):
        return Described.of(own)
    raise ValueError(_unstorable(name, f"{shown(own)} of the type {type(own).__name__}"))


def _checked_array(values: Any, name: str) -> Any:
    """Return an array of numbers or text as it is; ValueError for one whose elements a file would change."""
    sizes = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (4, 8)}
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(_unstorable(name, "a masked array"))
    if values.dtype.kind != "U" and values.dtype.itemsize not in sizes.get(values.dtype.kind, ()):
        raise ValueError(_unstorable(name, f"an array of {values.dtype}"))
    return values


def _unstorable(name: str, found: str) -> str:
    return (
        f"`{name}` must hold what a file can contain: numbers, text, arrays of them, lists, mappings and results; it holds {found}. "
        "Convert it, or leave it out of the fields."
    )


def _is_plain(own: Any) -> bool:
    """Return whether a value can be stored as JSON."""
    if type(own) in SEQUENCES.values():
        return all(map(_is_plain, own))
    if isinstance(own, (np.integer, np.floating, np.bool_, np.str_)) or (isinstance(own, str) and of_package(own)):
        return True  # of NumPy, or the text of an enumeration of this package
    return type(own) in (bool, int, float, str)


def _to_json(own: Any) -> Any:
    """Return a plain value in JSON's types: a tuple as a list, another collection as its elements under the name of its type."""
    if isinstance(own, tuple):
        return [_to_json(v) for v in own]
    if type(own) in SEQUENCES.values():
        return {type(own).__name__: [_to_json(v) for v in (own if isinstance(own, list) else sorted(own, key=repr))]}
    return own.item() if isinstance(own, np.generic) else str(own) if isinstance(own, str) else own


def _key(own: Any, name: str) -> Any:
    """Return a key of the mapping `name` in JSON's types; ValueError unless it is None, a plain value, or a tuple of such."""
    if isinstance(own, tuple) and all(v is None or _is_plain(v) for v in own):
        return [_to_json(v) for v in own]
    if own is None or (_is_plain(own) and not isinstance(own, frozenset)):
        return _to_json(own)
    raise ValueError(_unstorable(name, f"a mapping with the key {shown(own)}"))


def _from_json(own: Any) -> Any:
    """Return the plain value that `_to_json` converted."""
    if isinstance(own, dict):
        ((kind, items),) = own.items()
        return SEQUENCES[kind](map(_from_json, items))
    return tuple(map(_from_json, own)) if isinstance(own, list) else own


def _class_of(kind: str, module: str) -> type:
    """Return the class that a file names: one of `HOMES`, or a result class of this package or of a module that is already imported.

    A file creates nothing else: no module outside the package is imported for it, and only results are made.
    """
    if kind in HOMES and (not module or module.partition(".")[0] == "sdetools"):
        return getattr(import_module(f"sdetools.{HOMES[kind]}"), kind)
    inside = module.startswith("sdetools.") and not module.endswith("__main__") and find_spec(module) is not None
    cls = getattr(import_module(module) if inside else sys.modules.get(module), kind, None)
    if not (isinstance(cls, type) and issubclass(cls, Saved) and is_dataclass(cls)):
        raise ValueError(
            f"a result must be of a class that is known; the file names {kind!r} of {module or 'an unknown module'!r}. "
            "Import the module that defines it first."
        )
    return cls


def _unpacked(at: str, groups: Mapping[str, xarray.Dataset]) -> Any:
    """Return the value that a group contains."""
    data = groups[at]
    kind = data.attrs.get("class", "")
    if kind == "array":
        array = data["values"].rename(None if data.attrs["array"] == "None" else data.attrs["array"])
        array.attrs = {k: v for k, v in data.attrs.items() if k not in ("class", "array")}
        return array
    if kind == "plain":
        return _from_json(json.loads(data.attrs["value"]))
    parts = {str(name): np.asarray(v.values) for name, v in data.data_vars.items()}
    parts |= {name.rpartition("/")[2]: _unpacked(name, groups) for name in groups if name.rpartition("/")[0] == at}
    if kind == "collection":
        items, keys = [parts[f"item{i}"] for i in range(int(data.attrs["count"]))], json.loads(data.attrs["keys"])
        return (
            (list if data.attrs.get("type") == "list" else tuple)(items)
            if keys is None
            else {tuple(k) if isinstance(k, list) else k: v for k, v in zip(keys, items, strict=True)}
        )
    cls = _class_of(kind, str(data.attrs.get("module", "")))
    parts |= {name: _from_json(v) for name, v in json.loads(data.attrs["fields"]).items()}
    names = EARLIER_NAMES.get(kind, {}) if cls.__module__.startswith("sdetools.") else {}
    return cls(**{names.get(name, name): v for name, v in parts.items()})
