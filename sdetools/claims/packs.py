"""Packs of claims: installed packages that name their claims with the entry point `sdetools.claims`.

A package whose claims are in the folder `theorems/claims` declares them in its pyproject.toml, so that `sdetools verify --pack theorems` runs them:

    [project.entry-points."sdetools.claims"]
    theorems = "theorems.claims"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from sdetools._check import suggestion

GROUP = "sdetools.claims"
"""The group of the entry points."""


def installed() -> dict[str, EntryPoint]:
    """Return the entry points of the installed packs of claims by name, in alphabetical order; the value of each is a module's name."""
    return dict(sorted((point.name, point) for point in entry_points(group=GROUP)))


def pack(name: str) -> Path:
    """Return the folder or file with the claims of an installed pack, for `verify` and `collect`.

    It is the folder of the package that the entry point names, or the file of a module. Nothing of it is imported, except the packages that
    contain it.

    Args:
        name: The name of the pack, that of its entry point in the group `sdetools.claims`.

    Raises:
        ValueError: If no such pack is installed, or its module cannot be found.

    Example:
        >>> import sdetools as st
        >>> st.claims.pack("no such pack")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: `pack` must be the name of an installed pack of claims; got 'no such pack'. ...
    """
    known = installed()
    if name not in known:
        hint = suggestion(name, known)
        listed = f"Installed: {', '.join(known)}." if known else "None is installed; pip installs one like any package."
        raise ValueError(
            f"`pack` must be the name of an installed pack of claims; got {name!r}. {f'{hint} ' if hint else ''}{listed}"
        )
    module = known[name].value.split(":")[0].strip()
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    if not places:
        raise ValueError(f"the pack {name!r} must name a module that can be found; got {module!r}. Install the pack again.")
    return Path(places[0])
