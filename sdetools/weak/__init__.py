"""Deprecated: what was here is in `sdetools.estimates` and `sdetools.studies`. Old names and modules work for one release, with a DeprecationWarning."""

from __future__ import annotations

from sdetools._moved import forward, forward_modules

HOMES = ("estimates", "studies", "estimates.band", "estimates.interval")
MOVED = {
    "clock": "studies.clock",
    "distance": "studies.distance",
    "estimate": HOMES,
    "extrapolation": "studies.extrapolation",
    "gap": "studies.gap",
    "known": "studies.known",
    "level_search": "studies.multilevel.search",
    "levels": "studies.multilevel.levels",
    "multilevel": "studies.multilevel.estimator",
    "multilevel_result": "studies.multilevel.result",
    "observables": "studies.observables",
    "ranges": "studies.ranges",
    "resampling": "estimates.resampling",
    "run": "studies.means",
    "slow": "studies.slow_clock",
    "statistics": "studies.statistics",
    "study": "studies.order",
    "trajectories": "studies.kept_paths",
    "work": "studies.sampler",
}
"""From each former module of this package to the module below `sdetools`, or the modules, in which its content is now."""

forward_modules(__name__, MOVED)
__getattr__ = forward(__name__, *HOMES)
