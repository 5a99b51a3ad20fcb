"""Helpers for image and text data sets: missing data, files inside packages, pieces of a batch and the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F


class MissingData(ValueError):
    """A data set is missing; the message names it, the folders that were searched, and how to get it."""


def packaged(package: str, name: str, remedy: str) -> Path:
    """Return the path of a file in an installed package, without importing the package.

    Args:
        package: The name of the distribution.
        name: The name of the file.
        remedy: The line that installs the package, for the message.

    Returns:
        The path.

    Raises:
        MissingData: If the package or the file is missing.
    """
    try:
        return next(Path(str(f.locate())) for f in metadata.files(package) or [] if f.name == name)
    except (metadata.PackageNotFoundError, StopIteration):
        raise MissingData(f"{name} is missing: the package {package}, which contains it, is not installed. {remedy}") from None


def batch_piece(rows: torch.Tensor, piece: int, pieces: int) -> torch.Tensor:
    """Return one of `pieces` equal parts of the rows of a batch; ValueError if `pieces` does not divide the batch size."""
    if len(rows) % pieces:
        raise ValueError(f"`pieces` must divide the batch size, {len(rows)}; got {pieces}.")
    return rows.chunk(pieces)[piece]


def accuracy(
    logits: Callable[[Any], torch.Tensor], batches: Iterable[tuple[Any, torch.Tensor]], name: str = "test"
) -> dict[str, float]:
    """Evaluate a classifier.

    Args:
        logits: The classifier, from inputs to logits `(n, classes)`.
        batches: Batches (inputs, labels `(n,)`).
        name: The name of the data in the result.

    Returns:
        The mean cross-entropy `name_loss` and the accuracy `name_accuracy`.
    """
    loss, correct, count = 0.0, 0, 0
    for inputs, labels in batches:
        prediction = logits(inputs)
        labels = labels.to(prediction.device)
        loss += float(F.cross_entropy(prediction.detach(), labels, reduction="sum"))
        correct += int((prediction.argmax(1) == labels).sum())
        count += len(labels)
    return {f"{name}_loss": loss / count, f"{name}_accuracy": correct / count}
