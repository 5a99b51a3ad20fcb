"""Helpers for image and text data sets: missing data, files inside packages, parts of a batch and the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F


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
    """Return part `piece` = 0 ... `pieces` - 1 of the rows of a batch tensor: consecutive rows, their number divided by `pieces`.

    Raises:
        ValueError: If `pieces` does not divide the number of rows.
    """
    if len(rows) % pieces:
        raise ValueError(f"`pieces` must divide the batch size, {len(rows)}; got {pieces}.")
    return rows.chunk(pieces)[piece]


def accuracy(
    logits: Callable[[Any], torch.Tensor], batches: Iterable[tuple[Any, torch.Tensor]], name: str = "test"
) -> dict[str, float]:
    """Evaluate a classifier on labelled batches.

    Args:
        logits: The classifier, from inputs to logits `(n, classes)`.
        batches: Batches (inputs, labels), with class indices `(n,)` as labels; at least one.
        name: The name of the data, used in the keys of the result.

    Returns:
        A dict with two numbers, whose keys begin with `name`: for "test", "test_loss", the mean cross-entropy over all samples, and
        "test_accuracy", the fraction of samples whose largest logit is that of the label.
    """
    loss, correct, count = 0.0, 0, 0
    for inputs, labels in batches:
        prediction = logits(inputs)
        labels = labels.to(prediction.device)
        loss += float(F.cross_entropy(prediction.detach(), labels, reduction="sum"))
        correct += int((prediction.argmax(1) == labels).sum())
        count += len(labels)
    return {f"{name}_loss": loss / count, f"{name}_accuracy": correct / count}
