"""The processes that share a run under `torchrun`: how they join, which of them this one is, and what they tell each other."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import distributed

Found = TypeVar("Found")


@contextlib.contextmanager
def sharing(device: str) -> Iterator[tuple[str, bool]]:
    """Under `torchrun`, joins its processes; gives this one's device, and whether it is the first.

    ValueError for a device that is not there, and under `torchrun` for one GPU by its number.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not alone and ":" in device:
        raise ValueError(
            f"`device` must be cpu or cuda under torchrun, where each process takes a GPU of its own; got {device!r}."
        )
    if not alone and device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`device` must be one that is there; got {device!r}: {str(error).splitlines()[0]}") from error
    if alone:
        yield device, True
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")  # losses are joined on the CPU
    try:
        yield device, distributed.get_rank() == 0
    finally:
        gc.collect()  # a DistributedDataParallel that is still in a cycle would keep the group's threads beyond its end
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def of_first(find: Callable[[], Found]) -> Found:
    """What the first process finds, in all of them."""
    rank, world = place()
    if world == 1:
        return find()
    held: list[Any] = [find() if rank == 0 else None]
    distributed.broadcast_object_list(held)
    return held[0]


def joined(value: float, world: int) -> float:
    if world == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(total)
    return float(total)
