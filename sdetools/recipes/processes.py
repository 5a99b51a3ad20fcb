"""Distributed training under `torchrun`: process group, rank, broadcast and reduction."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import distributed

Result = TypeVar("Result")


@contextlib.contextmanager
def sharing(device: str) -> Iterator[tuple[str, bool]]:
    """Context manager that joins the process group under `torchrun`.

    Args:
        device: The device of the run; "cuda" under `torchrun` means one GPU per process.

    Yields:
        The device of this process, and whether it is the first.

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
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")  # losses are reduced on the CPU
    try:
        yield device, distributed.get_rank() == 0
    finally:
        gc.collect()  # a DistributedDataParallel in a reference cycle would keep the group's threads alive
        distributed.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def from_first_process(compute: Callable[[], Result]) -> Result:
    """Compute a value in the first process and broadcast it to all processes."""
    rank, world = rank_and_world()
    if world == 1:
        return compute()
    objects: list[Any] = [compute() if rank == 0 else None]
    distributed.broadcast_object_list(objects)
    return objects[0]


def summed(value: float, world: int) -> float:
    """Return the sum of a number over all processes."""
    if world == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(total)
    return float(total)
