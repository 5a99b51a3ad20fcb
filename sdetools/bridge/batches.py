"""Batches of a data set as a function of a seed: the same indices for every method that is compared, and after every interruption."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from sdetools import _check


class Batches:
    """Batches of `size` samples of `data`: arrays `(inputs, targets)`, a map-style `Dataset`, or a `DataLoader` over one.

    `at(seed, k)` is batch k of the shuffle `seed`: epochs without replacement, each in an order of its own, the incomplete last batch
    left out. What a loader collates with is kept, its sampler is not. Arrays are tensors, NumPy arrays or, in a tuple, lists of numbers, one row
    a sample; of those that are no tensors, whole numbers become int64 and others `dtype`, where one is given. ValueError for data without
    length, and for a batch larger than it.

    >>> batches = Batches((torch.arange(6.0), torch.arange(6)), 2)
    >>> batches.per_epoch, sorted(torch.cat([batches.at(0, k)[1] for k in range(3)]).tolist())
    (3, [0, 1, 2, 3, 4, 5])
    """

    def __init__(self, data: Any, size: int | None = None, device: Any = None, dtype: torch.dtype | None = None) -> None:
        collate: Callable[[list[Any]], Any] | None = None
        if isinstance(data, torch.utils.data.DataLoader):
            size = size or data.batch_size or getattr(data.batch_sampler, "batch_size", None)
            collate, data = data.collate_fn, data.dataset
        default = torch.utils.data.default_collate
        if isinstance(data, torch.utils.data.TensorDataset) and collate in (None, default):
            data = data.tensors
        columns = _columns(data, dtype)
        self.columns = columns is not None
        """Whether a row is read at no cost, the same each time."""
        self.partial = False
        """Whether the samples are some of a stream's."""
        if self.columns:
            lengths: set[int] = set()
            mapped(lambda part: lengths.add(len(part)), columns)
            if len(lengths) > 1:
                raise ValueError(f"`data` must have one row a sample in each of its arrays; got lengths {sorted(lengths)}.")
            self.samples = lengths.pop()
            self._fetch: Callable[[list[int]], Any] = lambda index: mapped(lambda part: part[index], columns)
        elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
            own = collate or (lambda rows: mapped(lambda part: _of(part, dtype), default(rows)))
            self.samples = len(data)
            self._fetch = lambda index: own([data[i] for i in index])
        else:
            raise ValueError(
                f"`data` must be arrays (inputs, targets), a data set with a length, or a loader over one; got {type(data).__name__}. "
                "A stream cannot be replayed: put a part of it into a list."
            )
        self.size = _check.count("batch_size", size, hint="Give it, or a loader that has one.")
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
        return self.rows(self.drawn(seed, k))

    def drawn(self, seed: int, k: int) -> list[int]:
        """The numbers of the samples in `fresh(seed, k)`."""
        generator = torch.Generator().manual_seed((seed * 1_000_003 + k) % (1 << 63))
        return torch.randperm(self.samples, generator=generator)[: self.size].tolist()

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


def is_stream(data: Any) -> bool:
    """Data that can only be read from its beginning on: an iterable without length, or a loader over one."""
    source = data.dataset if isinstance(data, torch.utils.data.DataLoader) else data
    if isinstance(source, torch.utils.data.IterableDataset):
        return True
    return isinstance(source, Iterable) and not (hasattr(source, "__getitem__") and hasattr(source, "__len__"))


def recorded(data: Any, batches: int, size: int | None = None) -> tuple[Any, int]:
    """The first `batches` batches of a stream, joined into arrays with one row a sample; and the number of rows of a batch.

    A stream is a loader over an `IterableDataset`, such a data set itself (of samples: then `size` of them are a batch), or any iterable of
    batches. ValueError where it is empty, and where its batches cannot be joined.

    >>> recorded(((torch.ones(2, 3) * i, torch.arange(2)) for i in range(9)), 2)[0][0].shape
    torch.Size([4, 3])
    """
    if isinstance(data, torch.utils.data.IterableDataset):
        data = torch.utils.data.DataLoader(data, batch_size=_check.count("batch_size", size))
    read = list(itertools.islice(data, batches))
    if not read:
        raise ValueError("`data` must give batches; got a stream that is empty, or was read to its end before.")
    try:
        joined = _joined(read)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"`data` that is a stream must give batches whose arrays can be joined; got others ({str(error).splitlines()[0]}). "
            "Pad them to one length, or give a data set with a length."
        ) from error
    return joined, size or length(read[0])


def _joined(read: list[Any]) -> Any:
    first = read[0]
    if isinstance(first, (torch.Tensor, np.ndarray)):
        return torch.cat([torch.as_tensor(part) for part in read])
    if isinstance(first, (tuple, list)) and first:
        return tuple(_joined(list(parts)) for parts in zip(*read, strict=True))
    if hasattr(first, "items"):
        return {name: _joined([part[name] for part in read]) for name in first}
    raise TypeError(f"a {type(first).__name__} in a batch is no array")


def length(batch: Any) -> int:
    """The number of rows of a batch: that of its first array."""
    lengths: list[int] = []
    mapped(lambda part: lengths.append(len(part)), batch)
    if not lengths:
        raise ValueError(f"`data` must give batches of arrays; got a {type(batch).__name__} without any.")
    return lengths[0]


def _columns(data: Any, dtype: torch.dtype | None) -> Any:
    """The arrays of data that is given as arrays, as tensors; None for other data."""
    lists = isinstance(data, tuple)
    if (alone := _tensor(data, dtype, lists=False)) is not None:
        return alone
    if isinstance(data, dict):
        parts = {name: _tensor(part, dtype, lists=False) for name, part in data.items()}
        return parts if parts and all(part is not None for part in parts.values()) else None
    if isinstance(data, (tuple, list)) and data:
        own = [_tensor(part, dtype, lists) for part in data]
        return tuple(own) if all(part is not None for part in own) else None
    return None


def _tensor(part: Any, dtype: torch.dtype | None, lists: bool) -> torch.Tensor | None:
    """Rows of numbers as a tensor, in the types that losses take where they were none; None for what is no array (nor a list, where asked for)."""
    if isinstance(part, torch.Tensor):
        return part if part.ndim else None
    if not hasattr(part, "__array__") and not (lists and isinstance(part, list)):
        return None
    try:
        array = np.ascontiguousarray(part)
    except (ValueError, TypeError, RuntimeError):  # rows of unequal lengths, or of no numbers
        return None
    if not np.ndim(part) or array.dtype.kind not in "fiub":
        return None
    out = torch.as_tensor(array)
    return out if out.dtype == torch.bool else _of(out, dtype) if out.is_floating_point() else out.long()


def _of(part: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return part.to(dtype) if dtype is not None and part.is_floating_point() else part


def mapped(change: Callable[[torch.Tensor], Any], batch: Any) -> Any:
    """A batch (tensors in tuples, lists, mappings) with a change to each of its tensors."""
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, (tuple, list)):
        parts = [mapped(change, part) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if hasattr(batch, "items"):
        return {name: mapped(change, part) for name, part in batch.items()}
    return batch


def moved(batch: Any, device: Any) -> Any:
    """A batch on a device; None leaves it where it is."""
    return batch if device is None else mapped(lambda part: part.to(device), batch)
