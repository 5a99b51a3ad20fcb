"""Batches of a data set as a function of a seed: the same indices for every method that is compared, and after every interruption."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch

from sdetools import _check


class Batches:
    """Batches of `size` samples of `data`: tensors `(inputs, targets)`, a map-style `Dataset`, or a `DataLoader` over one.

    `at(seed, k)` is batch k of the shuffle `seed`: epochs without replacement, each in an order of its own, the incomplete last batch
    left out. What a loader collates with is kept, its sampler is not. ValueError for data without length, and for a batch larger than it.

    >>> batches = Batches((torch.arange(6.0), torch.arange(6)), 2)
    >>> batches.per_epoch, sorted(torch.cat([batches.at(0, k)[1] for k in range(3)]).tolist())
    (3, [0, 1, 2, 3, 4, 5])
    """

    def __init__(self, data: Any, size: int | None = None, device: Any = None) -> None:
        collate: Callable[[list[Any]], Any] | None = None
        if isinstance(data, torch.utils.data.DataLoader):
            size, collate, data = size or data.batch_size, data.collate_fn, data.dataset
        if isinstance(data, (tuple, list)) and data and all(isinstance(part, torch.Tensor) for part in data):
            lengths = {len(part) for part in data}
            if len(lengths) > 1:
                raise ValueError(f"`data` must have one row a sample in each of its tensors; got lengths {sorted(lengths)}.")
            self.samples = lengths.pop()
            self._fetch: Callable[[list[int]], Any] = lambda index: tuple(part[index] for part in data)
        elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
            own = collate or torch.utils.data.default_collate
            self.samples = len(data)
            self._fetch = lambda index: own([data[i] for i in index])
        else:
            raise ValueError(
                f"`data` must be tensors (inputs, targets), a data set with a length, or a loader over one; got {type(data).__name__}. "
                "A stream cannot be replayed: put a part of it into a list."
            )
        self.size = _check.count("batch_size", size)
        if self.size > self.samples:
            raise ValueError(f"`batch_size` must be at most the number of samples, {self.samples}; got {self.size}.")
        self.device, self.per_epoch = device, self.samples // self.size
        self._order: tuple[tuple[int, int], torch.Tensor] | None = None

    def at(self, seed: int, k: int) -> Any:
        """Batch k of the shuffle `seed`, on the device."""
        epoch, place = divmod(k, self.per_epoch)
        if self._order is None or self._order[0] != (seed, epoch):
            generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
            self._order = (seed, epoch), torch.randperm(self.samples, generator=generator)
        index = self._order[1][place * self.size : (place + 1) * self.size].tolist()
        return self.rows(index)

    def fresh(self, seed: int, k: int) -> Any:
        """Independent batches: number k of them is drawn, without replacement, from all samples anew."""
        generator = torch.Generator().manual_seed((seed * 1_000_003 + k) % (1 << 63))
        return self.rows(torch.randperm(self.samples, generator=generator)[: self.size].tolist())

    def rows(self, index: list[int]) -> Any:
        """The samples of these numbers, as a batch on the device."""
        return moved(self._fetch(index), self.device)

    def whole(self) -> Batches:
        """All samples as one batch."""
        out = copy.copy(self)
        out.size, out.per_epoch, out._order = self.samples, 1, None
        return out

    def some(self, seed: int, count: int, start: int = 0) -> Iterator[Any]:
        """`count` batches of a shuffle, from batch `start` on."""
        for k in range(start, start + count):
            yield self.at(seed, k)


def moved(batch: Any, device: Any) -> Any:
    """A batch (tensors in tuples, lists, mappings) on a device; None leaves it where it is."""
    if device is None:
        return batch
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, (tuple, list)):
        return type(batch)(moved(part, device) for part in batch)
    if hasattr(batch, "items"):
        return {name: moved(part, device) for name, part in batch.items()}
    return batch
