"""Successive halving: all candidates at a fraction of the steps, the better half of them at the next fraction, and so on.

Source: K. Jamieson, A. Talwalkar, AISTATS 2016. Each round trains from the start, with the whole schedule compressed to its fraction of the steps.
The runs are ordinary runs with names of their own, so that an interrupted search resumes, and the same runs give the same choice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TypeVar

from sdetools.recipes import best, diverged, ranked
from sdetools.recipes.tasks import Job, TrainingRun
from sdetools.recipes.training import Trainer

Group = TypeVar("Group", bound=Hashable)
Candidate = TypeVar("Candidate", bound=Hashable)


def halved(
    trainer: Trainer,
    groups: Mapping[Group, Sequence[Candidate]],
    job: Callable[[Group, Candidate, float, int], Job],
    fractions: Sequence[float],
    score: str,
    seeds: Sequence[int] = (0,),
) -> dict[Group, Candidate]:
    """Return the best candidate of each group, found by successive halving.

    A round trains the candidates that are left at one fraction of the steps, those of all groups in parallel. Of n candidates, the (n + 1) // 2 with
    the best scores go on. A candidate's score is the mean over its runs with the different seeds; those with a diverged run are last, and among equals the
    first is the better one.

    Args:
        trainer: Executes the runs.
        groups: The candidates of each group, such as the learning rates of each method and batch size, by the key of the group.
        job: `job(group, candidate, fraction, seed)` returns a run of a candidate at a fraction of the steps; runs that differ in these four need different
            names.
        fractions: The fractions of the rounds, increasing, in (0, 1]; see `check_fractions`. A single one is a full grid search.
        score: The logged number that is compared at the end of each run: the smallest is best if the name ends in "loss", else the largest.
        seeds: The seeds of the runs of a candidate, at least one.

    Returns:
        The best candidate by the key of its group.

    Raises:
        ValueError: If the fractions do not increase, a group has no candidates, or all its last runs diverged.
    """
    check_fractions(fractions)
    if not all(groups.values()):
        raise ValueError("`groups` must have candidates in each group; got an empty one.")
    left = {group: list(candidates) for group, candidates in groups.items()}
    chosen: dict[Group, Candidate] = {}
    for fraction in fractions:
        jobs = product(((group, one) for group, own in left.items() for one in own), seeds)
        runs = trainer.all({(group, one, seed): job(group, one, fraction, seed) for (group, one), seed in jobs})
        for group, own in left.items():
            round_ = {one: _pooled([runs[group, one, seed] for seed in seeds], score) for one in own}
            if fraction == fractions[-1]:
                chosen[group] = best(round_, score)
            else:
                finite, diverged = ranked(round_, score)
                left[group] = sorted([*finite, *diverged][: (len(own) + 1) // 2], key=own.index)
    return chosen


def _pooled(runs: Sequence[TrainingRun], score: str) -> TrainingRun:
    """Return the first run that diverged or has no score, or, if there is none, the first run with the mean of the score of all at its end."""
    bad = [run for run in runs if diverged(run) or run.final.get(score) is None]
    return bad[0] if bad else replace(runs[0], final=runs[0].final | {score: sum(run.final[score] for run in runs) / len(runs)})


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise a ValueError unless `fractions` are increasing numbers in (0, 1], at least one.

    Example:
        >>> from sdetools.recipes.halving import check_fractions
        >>> check_fractions((0.25, 0.5, 1))
    """
    if not fractions or any(a >= b for a, b in zip((0.0, *fractions), fractions)) or fractions[-1] > 1:
        raise ValueError(f"fractions of a search must increase and lie in (0, 1]; got {tuple(fractions)}.")
