"""A round of local SGD as one step: K workers take H local steps from the same point on draws of their own, and meet at their mean.

The chain of the means at the ends of rounds is compared with the SDE in the time H tau of a round, where tau is the time of a local step. The leading
error of a round over H is the leading error for one local step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from sdetools.dynamics.rules.optimisers import SGD
from sdetools.dynamics.rules.several_gradients import LocalSGD
from sdetools.exact.generators.differential_ring import DifferentialRing, NotExpandable
from sdetools.exact.generators.one_step import OneStep
from sdetools.exact.generators.power_series import Series
from sdetools.noise.oracle import NoisyOracle

MOST_DRAWS = 64
"""Largest number of draws of a round: workers times local steps times the draws of one gradient."""


@dataclass(frozen=True)
class WorkerRound(OneStep):
    """A round of local SGD as one step of an expansion: K workers take H steps of SGD from the same x, and the new x is the mean of their ends.

    The state is x alone. Draw d of n in step h of worker i is draw (i H + h) n + d of the round.

    Attributes:
        rule: The SGD that each worker follows, from `worker_of`; one step of it takes the time tau.
        numbers: The coefficients and the numbers of the oracle of one worker as functions of the root r of tau.
        names: The names of the coordinates of x.
        timed: False: a round has no coordinate for the time.
        idle: Empty: SGD has no part of the state that no step reads.
        workers: The number K of workers.
        local_steps: The number H of local steps in a round.
    """

    workers: int = 1
    local_steps: int = 1

    @property
    def noise(self) -> tuple[NoisyOracle | None, list[tuple[str, Any]], bool]:
        """The oracle of a worker with noise that is a polynomial in its draws, the laws of all K H n draws of a round, and whether they are exact.

        A law is a pair of a name and its numbers, as in `draw_laws.law_moment`; laws are not exact for noise that samples data.
        """
        oracle, laws, exact = self._worker.noise
        return oracle, laws * (self.workers * self.local_steps), exact

    @property
    def _worker(self) -> OneStep:
        """One local step of one worker, with the n draws of one gradient."""
        return OneStep(self.rule, self.numbers, self.names, self.timed)

    @property
    def kinked(self) -> int:
        """The number of entries of signs and clippings in a round: 0, since the step of SGD has none."""
        return 0

    def moved(self, home: DifferentialRing, state: Sequence[Sequence[Series]], first: int = 0) -> list[np.ndarray]:
        """Return the new x, the mean of the workers after a round: a list with one array `(dim,)` of series.

        Args:
            home: The `DifferentialRing`, with the coordinates of x and the draws of a round.
            state: The x from which all workers start: a list with one part, `dim` series.
            first: The number of the first draw of the ring that this round uses.
        """
        worker, ends = self._worker, []
        draws = len(worker.noise[1])
        for i in range(self.workers):
            at: Sequence[Any] = state
            for h in range(self.local_steps):
                at = worker.moved(home, at, first + (i * self.local_steps + h) * draws)
            ends.append(at[0])
        return [Fraction(1, self.workers) * sum(ends[1:], ends[0])]


def worker_of(rule: LocalSGD) -> SGD:
    """Return the SGD that one worker follows between meetings, with the oracle, plan and step time of the rule.

    Raises:
        NotExpandable: If a round, all steps of all workers, has more than 64 draws.
    """
    draws = rule.oracle.noise.n_draws * rule.workers * rule.local_steps
    if draws > MOST_DRAWS:
        raise NotExpandable(
            f"a round of local SGD must have at most {MOST_DRAWS} draws for an expansion, workers times local steps times those of a gradient; got {draws}. "
            "Take fewer workers or local steps."
        )
    return SGD(rule.oracle, rule.plan, step_time=rule.step_time)
