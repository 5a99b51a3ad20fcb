"""Steps of the optimiser: pieces of batches, precision and loss scaling, and the running statistics of several pieces or processes.

Nothing in a step waits for the device: losses stay on it until they are asked for (float16 excepted, whose scaler looks for an overflow).

Several pieces of a batch, in one process or in several, start from the same running statistics of batch normalisation, and leave the mean of
those that each piece alone would leave. A batch therefore moves them once, however many pieces and processes it is passed through in.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed

from sdetools._check import choice, count
from sdetools.bridge.batches import map_tensors
from sdetools.bridge.svag import svag_of
from sdetools.recipes.prefetch import prefetched
from sdetools.recipes.processes import rank_and_world, summed
from sdetools.recipes.tasks import TrainingTask

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = ("float32", "float64", *AUTOCAST)


class Stepper:
    """The state of a run on a device, which takes its steps one after the other; the processes of a group take the same steps.

    A piece is one of several equal parts of a batch, which is passed through the network at once.

    Args:
        task: The task; its model is moved to the device and set to training mode (for "float64", cast to double precision).
        device: The device, such as "cpu" or "cuda:1".
        compiled: Whether the network is compiled by `torch.compile`.
        channels_last: Whether images have their channels last in memory; None for the devices where that is faster (GPUs and CPUs).

    Attributes:
        pieces: The number of pieces of a batch: that of the task, rounded up to a multiple of the number of processes.
        base: The learning rates of the optimiser's groups, which the schedule multiplies.

    Raises:
        ValueError: If `task.steps` is negative, its precision unknown, or its optimiser has SVAG already.
    """

    def __init__(self, task: TrainingTask, device: str, compiled: bool = False, channels_last: bool | None = None) -> None:
        count("steps", task.steps, least=0)
        if svag_of(task.optimiser) is not None:
            raise ValueError("`optimiser` of a task must be without SVAG; got one that has it. Set `l` of the task instead.")
        choice("precision", task.precision, PRECISIONS)
        self.task, self.device = task, device
        self._kind = torch.device(device).type
        self._rank, self._world = rank_and_world()
        self.pieces = -(-task.pieces // self._world) * self._world
        self._images_last = self._kind in ("cuda", "cpu") if channels_last is None else channels_last
        if task.precision == "float64":
            task.model.double()
        task.model.to(device).train()
        if self._images_last:
            task.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.base = [group["lr"] for group in task.optimiser.param_groups]
        self._scaler = torch.amp.GradScaler(self._kind) if task.precision == "float16" else None
        self._net: Any = task.model
        if self._world > 1:
            # Running statistics are averaged by `_RunningStatistics`, not copied from the first process.
            self._net = torch.nn.parallel.DistributedDataParallel(task.model, broadcast_buffers=False)
        self._called: Any = torch.compile(self._net) if compiled else self._net
        self._losses: list[torch.Tensor] = []

    def state(self) -> dict[str, Any]:
        """Return everything that the next steps depend on, as a dict for a checkpoint.

        Its keys are "model" and "optimiser" (state dictionaries), "base" (learning rates), "pieces" and "scaler" (state of the loss scaling, None without).
        """
        return {
            "model": self.task.model.state_dict(), "optimiser": self.task.optimiser.state_dict(), "base": self.base, "pieces": self.pieces,
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`, a dict that `state()` returned; ValueError if the processes cannot share the pieces of its batches."""
        if state["pieces"] % self._world:
            raise ValueError(
                f"the number of processes must divide the {state['pieces']} pieces of a batch of the interrupted run; got {self._world}. Use as many "
                "processes as before, or another --out."
            )
        self.pieces, self.base = state["pieces"], state["base"]
        self.task.model.load_state_dict(state["model"])
        self.task.optimiser.load_state_dict(state["optimiser"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])

    def batches(
        self, begin: int, ahead: int | None = None, end: int | None = None
    ) -> contextlib.AbstractContextManager[Iterator[Any]]:
        """Return a context manager that yields an iterator over this process's pieces of batches from step `begin` on, which `step` takes.

        They are built in pinned memory for a GPU, and in a background thread unless `ahead` is 0.

        Args:
            begin: The number of steps done.
            ahead: The number of pieces that are built in advance; None for 2 if the device is not the CPU, which has no time left over, else 0.
            end: The number of steps after the last batch; None for that of the task.
        """
        addresses = (
            (number, piece, self.pieces)
            for k in range(begin, self.task.total if end is None else end)
            for _, number in self.task.parts(k)
            for piece in range(self._rank, self.pieces, self._world)
        )
        return prefetched(self._built, addresses, (0 if self._kind == "cpu" else 2) if ahead is None else ahead)

    def _built(self, number: int, piece: int, pieces: int) -> Any:
        """Return piece `piece` of `pieces` of batch `number`, in pinned memory for a GPU."""
        batch = self.task.batch(number, piece, pieces)
        return map_tensors(lambda part: part.pin_memory(), batch) if self._kind == "cuda" else batch

    def _moved(self, part: torch.Tensor) -> torch.Tensor:
        """Return the tensor `part` of a batch on the device; the copy of one in pinned memory does not wait."""
        if self._images_last and part.ndim == 4:
            return part.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return part.to(self.device, non_blocking=True)

    def step(self, k: int, seed: int, batches: Iterator[Any], most: int | None = None) -> float:
        """Take step `k` with the next pieces of `batches`, and return the learning rate of the first group; see `losses` for the loss.

        Args:
            k: The number of the step, 0, 1, ...; with SVAG there are l times as many.
            seed: The seed of the draws during training, such as those of dropout.
            batches: The iterator that `batches(k)` yields; it is advanced.
            most: The maximal number of pieces of each batch, to measure their time; None for all.
        """
        task, world = self.task, self._world
        for group, lr in zip(task.optimiser.param_groups, self.base):
            group["lr"] = lr * task.factor(k // (task.l or 1)) / (task.l or 1)
        task.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float32 if self._kind == "mps" else torch.float64, device=self.device)
        own = range(self._rank, self.pieces, world)[:most]
        parts = task.parts(k)
        for i, (weight, number) in enumerate(parts):
            statistics = _RunningStatistics(task.model, self.pieces)
            for piece in own:
                waits = world > 1 and (i + 1 < len(parts) or piece != own[-1])
                self._seed(seed, number, piece)
                with self._net.no_sync() if waits else contextlib.nullcontext():
                    with self._autocast():
                        loss = task.loss_of(self._called, map_tensors(self._moved, next(batches)))
                    scaled = loss * (weight * world / self.pieces)
                    (scaled if self._scaler is None else self._scaler.scale(scaled)).backward()
                total += weight * loss.detach() / self.pieces
                statistics.add()
            statistics.average(world)
        self._update(seed, k)
        self._losses.append(total)
        return task.optimiser.param_groups[0]["lr"]

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context manager of the task's precision: autocast for bfloat16 and float16, else one without effect."""
        dtype = AUTOCAST.get(self.task.precision)
        return contextlib.nullcontext() if dtype is None else torch.autocast(self._kind, dtype)

    def _update(self, seed: int, k: int) -> None:
        """Clip the gradient and update the parameters at step `k`; with loss scaling, skip the update and halve the scale if the gradient overflowed.

        Draws of the optimiser are seeded by `seed` and `k`.
        """
        optimiser = self.task.optimiser
        if self._scaler is not None:
            self._scaler.unscale_(optimiser)
        if self.task.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.task.model.parameters(), self.task.clip)
        self._seed(seed, k)
        if self._scaler is None:
            optimiser.step()
        else:
            self._scaler.step(optimiser)
            self._scaler.update()

    @property
    def scale(self) -> float | None:
        """The factor of the loss in float16, from which the gradient is divided again; None for other precisions."""
        return None if self._scaler is None else self._scaler.get_scale()

    def losses(self) -> list[float]:
        """Return the losses of the steps since the last call, one number per step, means over the batch in all processes; this waits for the device.

        The loss with SVAG is the weighted sum of those of both batches.
        """
        if not self._losses:
            return []
        values = torch.stack(self._losses)
        self._losses = []
        return summed(values)

    def _seed(self, *address: int) -> None:
        """Seed torch's generators by a hash of the integers `address`: (seed, batch, piece), or (seed, step) for the optimiser, equal in all processes."""
        number = int.from_bytes(hashlib.sha256(repr(address).encode()).digest()[:8])
        if self._kind == "cpu":
            torch.default_generator.manual_seed(number)  # 100 times as fast as
        else:
            torch.manual_seed(number)  # which seeds all kinds of devices


class _RunningStatistics:
    """The running statistics of batch normalisation during one batch of several pieces; with a single piece they are left alone.

    Call `add` after each piece, and `average` after the last one.

    Args:
        model: The network, whose statistics before the batch are copied.
        pieces: The number of pieces of the batch, in all processes.
    """

    def __init__(self, model: torch.nn.Module, pieces: int) -> None:
        kept: list[torch.Tensor] = []
        if pieces > 1:
            kept = [b for m in model.modules() if getattr(m, "running_mean", None) is not None for b in m.buffers(recurse=False)]
        self.pieces = pieces
        self.buffers = [b for b in kept if b.is_floating_point()]
        self.counters = [b for b in kept if not b.is_floating_point()]
        self.start = [b.clone() for b in self.buffers]
        self.counted = [b + 1 for b in self.counters]  # once per batch
        self.sum: torch.Tensor | None = None

    def add(self) -> None:
        """Add the statistics that a piece has left to the sum, and restore those before the batch."""
        if self.buffers:
            left = torch.cat([b.reshape(-1) for b in self.buffers]).double()
            self.sum = left if self.sum is None else self.sum + left
            torch._foreach_copy_(self.buffers, self.start)

    def average(self, world: int) -> None:
        """Set the statistics to the mean over all pieces in `world` processes, and the counters of batches to one more than before."""
        if self.sum is None:
            return
        if world > 1:
            distributed.all_reduce(self.sum)
        parts = (self.sum / self.pieces).split([b.numel() for b in self.buffers])
        for buffer, part in zip(self.buffers, parts):
            buffer.copy_(part.view_as(buffer))
        for counter, value in zip(self.counters, self.counted):
            counter.copy_(value)
