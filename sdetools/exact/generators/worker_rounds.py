"""A round of local SGD as one step: K workers take H local steps from the same point on draws of their own, and meet at their mean.

The chain of the means at the ends of rounds is compared with the SDE in the time H tau of a round. What the leading error of a round is over H is the
leading error for one local step of time tau.
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
"""Largest number of draws of a round."""


@dataclass(frozen=True)
class WorkerRound(OneStep):
    """The round; `rule` is the SGD of one worker, and the other fields are those of its step.

    Attributes:
        workers: The number K of workers.
        local_steps: The number H of local steps in a round.
    """

    workers: int = 1
    local_steps: int = 1

    @property
    def noise(self) -> tuple[NoisyOracle | None, list[tuple[str, Any]], bool]:
        """As for one step, with the draws of all workers and local steps."""
        oracle, laws, exact = self._worker.noise
        return oracle, laws * (self.workers * self.local_steps), exact

    @property
    def _worker(self) -> OneStep:
        """The local step of one worker."""
        return OneStep(self.rule, self.numbers, self.names, self.timed)

    @property
    def kinked(self) -> int:
        """0: the local steps have no signs or clippings."""
        return 0

    def moved(self, home: DifferentialRing, state: Sequence[Sequence[Series]], first: int = 0) -> list[np.ndarray]:
        """Return the mean of the workers after a round, as for one step."""
        worker, ends = self._worker, []
        draws = len(worker.noise[1])
        for i in range(self.workers):
            at: Sequence[Any] = state
            for h in range(self.local_steps):
                at = worker.moved(home, at, first + (i * self.local_steps + h) * draws)
            ends.append(at[0])
        return [Fraction(1, self.workers) * sum(ends[1:], ends[0])]


def worker_of(rule: LocalSGD) -> SGD:
    """Return the SGD that one worker follows between meetings; NotExpandable if a round has too many draws."""
    draws = rule.oracle.noise.n_draws * rule.workers * rule.local_steps
    if draws > MOST_DRAWS:
        raise NotExpandable(
            f"a round of local SGD must have at most {MOST_DRAWS} draws for an expansion, workers times local steps times those of a gradient; got {draws}. "
            "Take fewer workers or local steps."
        )
    return SGD(rule.oracle, rule.plan, step_time=rule.step_time)
