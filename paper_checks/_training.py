"""Helpers of the checks that train networks: a recipe's miniature, run in the claim's own folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def training(run: Any, identity: str) -> Iterator[Any]:
    """Yield a trainer that works in the claim's own folder.

    Each network is trained on one thread, several at a time, so that results do not depend on the number of workers.
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
    """Yield a recipe, the settings of its miniature with `changes`, and the trainer that runs them."""
    import torch  # noqa: F401 - first, so that the error for a missing torch names the line that installs it

    from sdetools import recipes

    recipe = recipes.recipe(name)
    settings = recipe.Settings(**recipe.MINIATURE | changes)
    with training(run, recipes.identity_of(name, settings)) as trainer:
        yield recipe, settings, trainer


def seeds(run: Any) -> int:
    """Return the first of a claim's own seeds."""
    return 1000 + run.seed % 1_000_000_000
