"""The settings of the labels: for each network its batch sizes, momentum coefficients and learning rates, fixed before any of their runs."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from dropping_momentum.tasks import FITTED, UNSEEN

STEPS = 800
"""Length of a complete run."""
LOOKS = (25, 50, 100, 200, 400, 700, 750, 800)
"""Steps at which the training loss is evaluated; the mean of the last three is the loss at the end."""
BATCHES = (4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 512)
"""The batch sizes of a network's settings; large ones are rarer, as their runs take long."""
COUNTS = {0.5: 3, 0.9: 6, 0.99: 5}
"""The number of a network's settings by momentum coefficient."""
SLOW = ("residual, batch norm", "attention", "gated recurrent, memory", "language model", "long short-term memory")
SLOW_BATCHES, SLOW_COUNTS = (4, 8, 8, 16, 16, 32, 64, 64, 128, 512), {0.5: 2, 0.9: 4, 0.99: 4}
"""The same for networks whose runs take long."""
LEAST, MOST, BELOW_EDGE = (1.5, 0.5), 60.0, 0.9
"""The least x0 = h lambda_max, the most, and the largest share of the edge of heavy-ball momentum without noise, 2 (1 + momentum)/(1 - momentum).

The first `HALF` settings of a network start at 1.5. The others start at .5, since SGDM's own edge lies below 2 in a third of the first."""
HALF = 8
BELOW_OWN_EDGE = 0.8
"""The largest share of the edge that probes find: just below it, most complete runs of SGDM still fail."""
PROBES, PROBE_STEPS, PROBE_RATIO = 12, 200, 1.4
"""Runs of SGDM alone that find its own edge: their largest number, their steps, and the ratio of neighbouring values of x0 unless that takes more."""


@dataclass(frozen=True)
class Setting:
    """A run whose momentum may be dropped.

    `place` in [0, 1] is the place of log x0 between `least` and a little below SGDM's own edge, which probes of SGDM alone find; the learning rate is
    x0 (1 - momentum)/lambda_max. `seed` sets the network's parameters.
    """

    network: str
    number: int
    momentum: float
    batch: int
    place: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.network}/{self.number}"

    @property
    def least(self) -> float:
        """The least x0 of the setting."""
        return LEAST[self.number >= HALF]

    @property
    def grid(self) -> np.ndarray:
        """The values of x0 at which SGDM is probed, in ascending order."""
        top = min(MOST, BELOW_EDGE * 2 * (1 + self.momentum) / (1 - self.momentum))
        return np.geomspace(self.least, top, min(PROBES, math.ceil(math.log(top / self.least) / math.log(PROBE_RATIO)) + 1))

    def x0(self, edge: float) -> float:
        """Return x0 if SGDM's own edge is `edge`."""
        return float(f"{self.least * max(BELOW_OWN_EDGE * edge / self.least, 1.0) ** self.place:.4g}")


def settings(part: str) -> list[Setting]:
    """Return the settings of "fitted" or "unseen" networks, first the first of each network, then the second of each, and so on.

    Within a network and a momentum coefficient, the places of log x0 are stratified.
    """
    out = []
    for network in FITTED if part == "fitted" else UNSEEN:
        rng = np.random.default_rng(zlib.crc32(network.encode()))
        batches = rng.permutation(SLOW_BATCHES if network in SLOW else BATCHES)
        own = []
        for momentum, count in (SLOW_COUNTS if network in SLOW else COUNTS).items():
            own += [(momentum, place) for place in (rng.permutation(count) + rng.random(count)) / count]
        for number, index in enumerate(rng.permutation(len(own))):
            momentum, place = own[index]
            out.append(Setting(network, number, momentum, int(batches[number]), float(f"{place:.3f}"), 1000 + number))
    return sorted(out, key=lambda setting: setting.number)
