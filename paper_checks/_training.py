"""What the checks that train networks share: a recipe's miniature, carried out in the claim's own folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdetools.estimates import Estimate


@contextmanager
def training(run: Any, identity: str) -> Iterator[Any]:
    """What carries out training runs in the claim's own folder, while it lasts.

    Each network is trained on one thread, several at a time, so that results do not depend on how many there are.
    """
    import torch

    from sdetools.recipes.datasets import MissingData
    from sdetools.recipes.training import Trainer

    workers = run.threads or os.cpu_count() or 1
    progress = run.options()["progress"] or (lambda done, total: None)
    threads = torch.get_num_threads()
    with run.folder() as folder:
        torch.set_num_threads(1)
        try:
            yield Trainer(folder, identity, workers=workers, progress=progress, keep=False)
        except MissingData as error:
            run.missing(str(error))
        finally:
            torch.set_num_threads(threads)


@contextmanager
def miniature(run: Any, name: str, **changes: Any) -> Iterator[tuple[Any, Any, Any]]:
    """A recipe, the settings of its miniature with `changes`, and what carries them out."""
    import torch  # noqa: F401 - first of all, for the line that installs it

    from sdetools import recipes

    recipe = recipes.recipe(name)
    settings = recipe.Settings(**recipe.MINIATURE | changes)
    with training(run, recipes.identity_of(name, settings)) as trainer:
        yield recipe, settings, trainer


def seeds(run: Any) -> int:
    """The first of a claim's own seeds."""
    return 1000 + run.seed % 1_000_000_000


def times(factor: float, one: Estimate) -> Estimate:
    """factor one."""
    return Estimate(factor * one.value, factor * one.stderr, one.n)


def less(one: Estimate, other: Estimate) -> Estimate:
    """one - other, of independent samples; the degrees of freedom are Welch's."""
    parts = one.stderr**2, other.stderr**2
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / (one.n - 1) + parts[1] ** 2 / (other.n - 1))
    return Estimate(one.value - other.value, sum(parts) ** 0.5, int(degrees) + 1)
