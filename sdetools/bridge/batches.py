"""Batches of a data set as a function of a seed, so that all methods under comparison see the same data, also after an interruption."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from sdetools import _check


class Batches:
    """Batches of a data set, each a function of a seed and a number, so that runs with the same seed see the same data.

    The seed determines a shuffle, an endless sequence of batches. Its epochs of `per_epoch` batches visit the samples without replacement, in
    an order that depends on seed and epoch. An incomplete last batch of an epoch is dropped.

    Args:
        data: Arrays `(inputs, targets)` in a tuple or a dict, a map-style `Dataset`, a list of samples, or a `DataLoader` over one of the latter
            two, whose collate function is used and whose sampler is ignored. Arrays are tensors, NumPy arrays or, inside a tuple, lists of
            numbers, with one row per sample. A list of arrays of one length, which could be both, is refused.
        size: The batch size; None means that of the loader.
        device: The device to which batches are copied; None leaves them where the data are.
        dtype: The type to which floating-point arrays that are not tensors, and floating-point samples of a data set without a loader, are cast;
            None keeps theirs. Tensors given as arrays are never cast, and integer arrays that are not tensors become int64.

    Attributes:
        samples: The number of samples.
        size: The batch size.
        per_epoch: The number of batches in an epoch, `samples // size`.

    Raises:
        ValueError: If the data have no length, are a list of arrays that could be columns or samples, or have arrays of unequal lengths. Also if the batch
            size is missing or larger than the number of samples.

    Example:
        >>> import torch
        >>> from sdetools.bridge import Batches
        >>> batches = Batches((torch.arange(6.0), torch.arange(6)), 2)
        >>> batches.per_epoch, sorted(torch.cat([batches.at(0, k)[1] for k in range(3)]).tolist())
        (3, [0, 1, 2, 3, 4, 5])
    """

    def __init__(self, data: Any, size: int | None = None, device: Any = None, dtype: torch.dtype | None = None) -> None:
        collate: Callable[[list[Any]], Any] | None = None
        if isinstance(data, torch.utils.data.DataLoader):
            size = (data.batch_size or getattr(data.batch_sampler, "batch_size", None)) if size is None else size
            collate, data = data.collate_fn, data.dataset
        default = torch.utils.data.default_collate
        if isinstance(data, torch.utils.data.TensorDataset) and collate in (None, default):
            collate, data = None, data.tensors
        columns = _columns(data, dtype) if collate is None else None  # a loader reads samples from its data set
        self.columns = columns is not None
        """Whether the data are arrays in memory: reading a row is free and always gives the same numbers."""
        self.partial = False
        """Whether the samples are only the beginning of a stream."""
        if self.columns:
            lengths: set[int] = set()
            map_tensors(lambda part: lengths.add(len(part)), columns)
            if len(lengths) > 1:
                raise ValueError(f"`data` must have one row per sample in each of its arrays; got lengths {sorted(lengths)}.")
            self.samples = lengths.pop()
            self._fetch: Callable[[list[int]], Any] = lambda index: map_tensors(lambda part: part[index], columns)
        elif hasattr(data, "__len__") and hasattr(data, "__getitem__") and (collate or not isinstance(data, (str, tuple, dict))):
            own = collate or (lambda rows: map_tensors(lambda part: _cast(part, dtype), default(rows)))
            self.samples = len(data)
            self._fetch = lambda index: own([data[i] for i in index])
        else:
            raise ValueError(
                f"`data` must be arrays (inputs, targets), a data set with a length, or a loader over one; got {_described(data)}. "
                "A stream cannot be replayed: collect a part of it in a list."
            )
        self.size = _check.count("batch_size", size, hint="Pass it, or pass a loader that has one.")
        if self.size > self.samples:
            raise ValueError(f"`batch_size` must be at most the number of samples, {self.samples}; got {self.size}.")
        self.device, self.per_epoch = device, self.samples // self.size
        self._order: tuple[tuple[int, int], torch.Tensor] | None = None

    def at(self, seed: int, k: int) -> Any:
        """Return batch `k` of the shuffle `seed`, on the device; k = 0, 1, ... counts on through the epochs.

        The batch has the structure of the data: arrays give the same nesting with `size` rows, a data set what its collate function returns.
        """
        return self.rows(self.indices(seed, k))

    def indices(self, seed: int, k: int) -> list[int]:
        """Return the sample indices of `at(seed, k)`, batch `k` of the shuffle `seed`: a list of `size` different integers in [0, samples)."""
        epoch, place = divmod(k, self.per_epoch)
        if self._order is None or self._order[0] != (seed, epoch):
            generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
            self._order = (seed, epoch), torch.randperm(self.samples, generator=generator)
        found: list[int] = self._order[1][place * self.size : (place + 1) * self.size].numpy().tolist()
        return found

    def fresh(self, seed: int, k: int) -> Any:
        """Return batch `k` of the sequence `seed` of independent batches, each of `size` samples drawn without replacement from all samples.

        Unlike those of `at`, two batches may contain the same sample. The batch has the structure of the data and lies on the device.
        """
        return self.rows(self.drawn(seed, k))

    def drawn(self, seed: int, k: int) -> list[int]:
        """Return the sample indices of `fresh(seed, k)`, an independent batch: a list of `size` different integers in [0, samples)."""
        generator = torch.Generator().manual_seed((seed * 1_000_003 + k) % (1 << 63))
        return torch.randperm(self.samples, generator=generator)[: self.size].tolist()

    def rows(self, index: list[int]) -> Any:
        """Return the samples with the indices `index`, in this order, as one batch in the structure of the data, on the device."""
        return to_device(self._fetch(index), self.device)

    def whole(self) -> Batches:
        """Return a copy of this object with batch size `samples`, so that each batch contains all samples once."""
        out = copy.copy(self)
        out.size, out.per_epoch, out._order = self.samples, 1, None
        return out

    def some(self, seed: int, count: int, start: int = 0) -> Iterator[Any]:
        """Yield `count` batches of the shuffle `seed`, those with the numbers `start`, `start + 1`, ..., as `at` returns them."""
        for k in range(start, start + count):
            yield self.at(seed, k)


def is_stream(data: Any) -> bool:
    """Return whether `data` can only be read from beginning to end.

    True for an iterable that lacks a length or indexing, and for a `DataLoader` over one. False for other data and for objects that are not
    iterable.
    """
    source = data.dataset if isinstance(data, torch.utils.data.DataLoader) else data
    if isinstance(source, torch.utils.data.IterableDataset):
        return True
    return isinstance(source, Iterable) and not (hasattr(source, "__getitem__") and hasattr(source, "__len__"))


def read_stream(data: Any, batches: int, size: int | None = None) -> tuple[Any, int]:
    """Read the first batches of a stream and concatenate them into tensors with one row per sample.

    Args:
        data: A loader over an `IterableDataset`, an `IterableDataset` of single samples, or any iterable of batches.
        batches: The maximal number of batches to read; fewer are read if the stream ends earlier.
        size: The batch size. An `IterableDataset` of single samples needs it; for other data it is only returned.

    Returns:
        A pair. First the samples in the structure of one batch: a tensor, a tuple (also where a batch is a list) or a dict, each tensor with
        the rows of all batches in the order read. Then the batch size: `size` or, if that is None, the number of rows of the first batch.

    Raises:
        ValueError: If the stream is empty, if its batches cannot be concatenated, or if `size` is missing for single samples.

    Example:
        >>> import torch
        >>> from sdetools.bridge.batches import read_stream
        >>> read_stream(((torch.ones(2, 3) * i, torch.arange(2)) for i in range(9)), 2)[0][0].shape
        torch.Size([4, 3])
    """
    if isinstance(data, torch.utils.data.IterableDataset):
        data = torch.utils.data.DataLoader(data, batch_size=_check.count("batch_size", size))
    read = list(itertools.islice(data, batches))
    if not read:
        raise ValueError("`data` must give batches; got a stream that is empty or was already exhausted.")
    try:
        joined = _concatenated(read)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"`data` that is a stream must give batches whose arrays can be concatenated; got others ({str(error).splitlines()[0]}). "
            "Pad them to one length, or pass a data set with a length."
        ) from error
    return joined, size or batch_rows(read[0])


def _concatenated(read: list[Any]) -> Any:
    """Concatenate batches of one structure along their first axis.

    Args:
        read: The batches, at least one: tensors, NumPy arrays, or nestings of them in tuples, lists and mappings.

    Returns:
        A tensor for arrays, a tuple for tuples and lists, a dict for mappings.

    Raises:
        TypeError: If a batch contains anything else, or an empty tuple or list.
    """
    first = read[0]
    if isinstance(first, (torch.Tensor, np.ndarray)):
        return torch.cat([torch.as_tensor(part) for part in read])
    if isinstance(first, (tuple, list)) and first:
        return tuple(_concatenated(list(parts)) for parts in zip(*read, strict=True))
    if hasattr(first, "items"):
        return {name: _concatenated([part[name] for part in read]) for name in first}
    raise TypeError(f"a {type(first).__name__} in a batch is not an array")


def batch_rows(batch: Any) -> int:
    """Return the number of rows (samples) of a batch, the length of its first tensor; ValueError if it contains no tensor."""
    lengths: list[int] = []
    map_tensors(lambda part: lengths.append(len(part)), batch)
    if not lengths:
        raise ValueError(f"`data` must give batches of arrays; got a {type(batch).__name__} without any.")
    return lengths[0]


def _described(data: Any) -> str:
    """Return the type of data for a message, of a tuple or dict with the types of its parts."""
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, tuple) else ()
    return type(data).__name__ + (f" of {', '.join(type(part).__name__ for part in parts)}" if parts else "")


def _columns(data: Any, dtype: torch.dtype | None) -> Any:
    """Convert data that are given as arrays to tensors.

    Args:
        data: Any data set. Arrays may come alone, in a dict, or in a tuple; inside a tuple, lists of numbers count as arrays too.
        dtype: The type for floating-point arrays that are not tensors; None keeps theirs.

    Returns:
        A tensor, a dict of tensors or a tuple of tensors; None if any part is not an array with rows, and for a list, which contains samples.

    Raises:
        ValueError: If the data are a list of arrays of one length, which could be columns or samples.
    """
    if isinstance(data, list):
        lengths = {len(part) if _tensor(part, None, lists=False) is not None else None for part in data}
        if len(lengths) == 1 and None not in lengths:
            raise ValueError(
                f"`data` must be arrays or samples, unambiguously; got a list of {len(data)} arrays of length {lengths.pop()}. Pass "
                "tuple(data) if they are arrays with one row per sample, or torch.stack(data) if each is a sample."
            )
        return None
    if (alone := _tensor(data, dtype, lists=False)) is not None:
        return alone
    if isinstance(data, dict):
        parts = {name: _tensor(part, dtype, lists=False) for name, part in data.items()}
        return parts if parts and all(part is not None for part in parts.values()) else None
    if isinstance(data, tuple) and data:
        own = [_tensor(part, dtype, lists=True) for part in data]
        return tuple(own) if all(part is not None for part in own) else None
    return None


def _tensor(part: Any, dtype: torch.dtype | None, lists: bool) -> torch.Tensor | None:
    """Convert one array with a row per sample to a tensor of a type that losses accept.

    Args:
        part: A tensor, which is returned unchanged, or an array. Integers become int64, booleans stay.
        dtype: The type for floating-point arrays; None keeps theirs.
        lists: Whether a list of numbers counts as an array.

    Returns:
        The tensor; None for a number without rows, for text or objects, and for other Python objects.
    """
    if isinstance(part, torch.Tensor):
        return part if part.ndim else None
    if not hasattr(part, "__array__") and not (lists and isinstance(part, list)):
        return None
    try:
        array = np.ascontiguousarray(part)
    except (ValueError, TypeError, RuntimeError):  # rows of unequal lengths, or rows that are not numeric
        return None
    if not np.ndim(part) or array.dtype.kind not in "fiub":
        return None
    out = torch.as_tensor(array)
    return out if out.dtype == torch.bool else _cast(out, dtype) if out.is_floating_point() else out.long()


def _cast(part: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Return the tensor `part` cast to `dtype` if it is of a floating-point type and `dtype` is not None, else unchanged."""
    return part.to(dtype) if dtype is not None and part.is_floating_point() else part


def map_tensors(change: Callable[[torch.Tensor], Any], batch: Any) -> Any:
    """Return a batch with every tensor replaced by `change(tensor)`.

    Args:
        change: A function of one tensor; its result may be of any type.
        batch: A tensor, or a nesting of tensors in tuples, named tuples, lists and mappings.

    Returns:
        The same nesting, with mappings as dicts. Objects that are neither tensors nor containers are kept as they are.
    """
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, (tuple, list)):
        parts = [map_tensors(change, part) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if hasattr(batch, "items"):
        return {name: map_tensors(change, part) for name, part in batch.items()}
    return batch


def to_device(batch: Any, device: Any) -> Any:
    """Return a batch with all its tensors on `device`, in the same nesting, with mappings as dicts; if `device` is None, the batch itself.

    A tensor that is on the device already is not copied. Objects that are neither tensors nor containers are kept as they are.

    Args:
        batch: A tensor, or a nesting of tensors in tuples, named tuples, lists and mappings.
        device: The device, such as "cpu" or "cuda:1", or None.
    """
    return batch if device is None else map_tensors(lambda part: part.to(device), batch)
