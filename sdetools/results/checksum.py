"""A hash of the result that a file contains, by which damage is noticed that would otherwise be read as other numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray


def checksum(groups: Mapping[str, xarray.Dataset]) -> str:
    """Return a hash of the group "/result" of a file and of the groups within it, from which `st.load` makes the result.

    Other programs may change the rest of the file, for example add a comment to the root. The hash covers names, dimensions, types, values and
    attributes as they are read back, and depends neither on the order of groups and variables nor on how text and attributes are stored in memory.

    Args:
        groups: The datasets of the file by the names of their groups (folders within a netCDF-4 file), such as "/", "/result" and "/result/pair";
            without "/result", the hash is that of no data.

    Returns:
        SHA-256 in hexadecimal digits.
    """
    found = hashlib.sha256()
    for group in sorted(name for name in groups if f"{name}/".startswith("/result/")):
        data = groups[group]
        found.update(_text(group, _attributes(data.attrs)))
        for name in sorted(map(str, data.variables)):
            variable = data.variables[name]
            values = np.asarray(variable.values)
            numeric = values.dtype.kind in "biuf"
            found.update(_text(name, variable.dims, values.shape, _attributes(variable.attrs)))
            found.update(_text(values.dtype.newbyteorder("<").str) if numeric else _text(values.tolist()))
            if numeric:
                found.update(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)).tobytes())
    return found.hexdigest()


def _attributes(given: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Return attributes as sorted pairs; a list of one number is that number, since files do not distinguish them."""
    pairs = ((str(name), np.asarray(value).tolist()) for name, value in given.items())
    return sorted((name, v[0] if isinstance(v, list) and len(v) == 1 else v) for name, v in pairs)


def _text(*parts: Any) -> bytes:
    return json.dumps(parts, default=str).encode()
