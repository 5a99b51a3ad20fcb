"""Distributed training under `torchrun`: process group, rank, broadcast and reduction. A single process is a group of one."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed

Part = TypeVar("Part")
Result = TypeVar("Result")


@contextlib.contextmanager
def sharing(device: str) -> Iterator[tuple[str, bool]]:
    """Context manager that joins the process group under `torchrun`, and leaves it at the end; without `torchrun`, a single process.

    Args:
        device: The device of the run, such as "cpu" or "cuda"; "cuda" under `torchrun` means one GPU per process.

    Yields:
        The device of this process, such as "cuda:1", and whether it is the first process.

    Raises:
        ValueError: If the device is not available, or if it is a numbered GPU under `torchrun`.
    """
    single = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not single and ":" in device:
        raise ValueError(f"`device` must be cpu or cuda under torchrun, where each process uses a separate GPU; got {device!r}.")
    if not single and device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`device` must be available; got {device!r}: {str(error).splitlines()[0]}") from error
    if single:
        yield device, True
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")  # sums may be on either
    try:
        yield device, distributed.get_rank() == 0
    finally:
        gc.collect()  # a DistributedDataParallel in a reference cycle would keep the group's threads alive
        distributed.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process, counted from 0, and the number of processes; (0, 1) without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def from_first_process(compute: Callable[[], Result]) -> Result:
    """Return `compute()`, evaluated in the first process only and sent to all processes of the group; the result must be picklable.

    All processes must call this together.
    """
    rank, world = rank_and_world()
    if world == 1:
        return compute()
    objects: list[Any] = [compute() if rank == 0 else None]
    distributed.broadcast_object_list(objects)
    return objects[0]


def own_share(parts: Sequence[Part]) -> Sequence[Part]:
    """Return the parts of a common work that this process does, every world-th one of `parts`: each is done by exactly one process.

    Example:
        >>> from sdetools.recipes.processes import own_share
        >>> own_share(range(3))  # in a single process
        range(0, 3)
    """
    rank, world = rank_and_world()
    return parts[rank::world]


def summed(values: torch.Tensor) -> list[float]:
    """Return the sums over all processes of each of the `values` `(n,)`, n numbers, equal in each process; they are added in float64.

    All processes must call this together, with equally many values.

    Example:
        >>> import torch; from sdetools.recipes.processes import summed
        >>> summed(torch.tensor([0.5, 3.0]))  # in a single process
        [0.5, 3.0]
    """
    if rank_and_world()[1] > 1:
        values = values.to(torch.float64, copy=True)
        distributed.all_reduce(values)
    return values.tolist()
