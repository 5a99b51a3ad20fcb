"""Helpers for image and text data sets: missing data, files inside packages, parts of a batch and the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from sdetools.recipes.processes import summed


class MissingData(ValueError):
    """Error for data that are missing; the message names them, where they were searched, and how to get them."""


def packaged(package: str, name: str, remedy: str) -> Path:
    """Return the path of a file in an installed package, without importing the package.

    Args:
        package: The name of the distribution, as pip knows it.
        name: The name of the file, without folders.
        remedy: A sentence that says how to install the package, for the message.

    Raises:
        MissingData: If the package is not installed or has no such file.
    """
    try:
        return next(Path(str(f.locate())) for f in metadata.files(package) or [] if f.name == name)
    except (metadata.PackageNotFoundError, StopIteration):
        raise MissingData(f"{name} is missing: the package {package}, which contains it, is not installed. {remedy}") from None


def batch_piece(rows: torch.Tensor, piece: int, pieces: int) -> torch.Tensor:
    """Return one of `pieces` equal parts of the rows of a batch: consecutive rows, a view.

    Args:
        rows: A tensor with one row per sample.
        piece: The number of the part, 0 ... `pieces` - 1.
        pieces: The number of parts, which divides that of the rows.

    Raises:
        ValueError: If `pieces` does not divide the number of rows.
    """
    if len(rows) % pieces:
        raise ValueError(f"`pieces` must divide the batch size, {len(rows)}; got {pieces}.")
    return rows.chunk(pieces)[piece]


def accuracy(
    logits: Callable[[Any], torch.Tensor], batches: Iterable[tuple[Any, torch.Tensor]], name: str = "test"
) -> dict[str, float]:
    """Evaluate a classifier on labelled batches; the processes of a group evaluate one share of the batches each.

    Samples are added up in float64 on the device, and over all processes, so that the result does not depend on how batches are shared.

    Args:
        logits: The classifier, from inputs to logits `(n, classes)`.
        batches: This process's batches (inputs, labels), with class indices `(n,)` as labels; see `processes.own_share`. At least one process must
            have a batch.
        name: The name of the data, used in the keys of the result.

    Returns:
        A dict with two numbers, whose keys begin with `name`: for "test", "test_loss", the mean cross-entropy over all samples, and
        "test_accuracy", the fraction of samples whose largest logit is that of the label.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for inputs, labels in batches:
        prediction = logits(inputs).detach()
        labels = labels.to(prediction.device, non_blocking=True)
        losses = F.cross_entropy(prediction, labels, reduction="none").double()
        correct = (prediction.argmax(1) == labels).sum()
        sums = sums.to(prediction.device) + torch.stack([losses.sum(), correct, torch.full_like(correct, len(labels))])
    loss, right, count = summed(sums.cpu())
    return {f"{name}_loss": loss / count, f"{name}_accuracy": right / count}
