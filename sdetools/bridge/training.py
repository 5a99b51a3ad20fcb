r"""The training loop of the recipes: what a run is, and how it is carried out so that it can be killed at any moment.

Batch k is a function of (seed, k), so the place in an epoch needs no saving; model, optimiser, step, random states and the length of
the log are in the checkpoint. A run that was killed and goes on ends with the same bits (on a CPU, at the same number of threads). A batch
is cut into `pieces`; under `torchrun` processes share the pieces, and their gradients are joined by DistributedDataParallel. Runs that
need nothing of each other can be made several at a time, each in a process of its own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import json
import math
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed

from sdetools._check import count
from sdetools.claims.folder import write_text
from sdetools.noise.oracle import svag_weights

from . import checkpoint

PRECISIONS = ("float32", "bfloat16", "float64")


@dataclass
class Task:
    """One run: everything but where it is written.

    `batch(number, piece, pieces)`: piece of batch number, a function of these alone; `loss_of(model, batch)`: its mean loss;
    `evaluate(model)`: numbers for the log, every `every` steps and at the end; `factor(k)`: the learning rate of step k as a part of the
    optimiser's. With `l`, SVAG: there are l times as many steps, each of two batches, at lr / l, and `factor` is stretched. `clip`: largest
    2-norm of the gradient.
    """

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    steps: int
    batch: Callable[[int, int, int], Any]
    loss_of: Callable[[torch.nn.Module, Any], torch.Tensor]
    evaluate: Callable[[torch.nn.Module], dict[str, float]]
    factor: Callable[[int], float] = lambda k: 1.0
    every: int = 100
    pieces: int = 1
    l: int | None = None
    clip: float | None = None
    precision: str = "float32"

    @property
    def total(self) -> int:
        """Steps of the optimiser."""
        return self.steps * (self.l or 1)

    def parts(self, k: int) -> list[tuple[float, int]]:
        """Weights and numbers of the batches of step k."""
        if self.l is None:
            return [(1.0, k)]
        return [(w, 2 * k + i) for i, w in enumerate(svag_weights(self.l)) if w]


class Job(NamedTuple):
    """A run to be made: its name (a folder), what makes its task, and the seed of torch's global generator."""

    name: str
    make: Callable[[], Task]
    seed: int = 0


Key = TypeVar("Key")


@dataclass
class Run:
    """What a finished run left: its last numbers, its log, and the folder."""

    name: str
    final: dict[str, float]
    log: list[dict[str, Any]]
    folder: Path

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged number."""
        rows = [row for row in self.log if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]


@dataclass
class Trainer:
    """Carries out the runs of a recipe in `folder`; finished ones are read, broken off ones go on.

    `identity`: what the files belong to; those of another are not taken. `save_every`: steps between checkpoints. `workers`: runs at a
    time, on equal shares of the threads. `name_run(name)` and `progress(done, total)` are for a bar, `tell(sentence)` for what a person
    should know.
    """

    folder: Path
    identity: str
    save_every: int = 200
    device: str = "cpu"
    workers: int = 1
    name_run: Callable[[str], None] = lambda name: None
    progress: Callable[[int, int], None] = lambda done, total: None
    tell: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        count("workers", self.workers)
        count("save_every", self.save_every)

    def __call__(self, name: str, make: Callable[[], Task], seed: int = 0) -> Run:
        """The run `name`: from its files where it is finished, else trained from `make()` with the global generator at `seed`."""
        folder = self.folder / "runs" / name
        identity = f"{self.identity} {name}"
        found = _finished(folder, identity)
        if found is None:
            self.name_run(name)
            with torch.random.fork_rng(devices=[] if self.device == "cpu" else None):
                torch.manual_seed(seed)
                self._train(folder, identity, make())
            found = _finished(folder, identity)
            assert found is not None
        return Run(name, *found, folder)

    def all(self, jobs: Mapping[Key, Job]) -> dict[Key, Run]:
        """The runs of all jobs under their keys; several at a time where there are `workers`. Jobs of one name are one run.

        ValueError where a job cannot be sent to a worker, or where the workers would be those of `torchrun` too.
        """
        if self.workers > 1:
            left = {job.name: job for job in jobs.values() if not self._done(job.name)}
            if len(left) > 1:
                self._spread(list(left.values()))
        return {key: self(*job) for key, job in jobs.items()}

    def _done(self, name: str) -> bool:
        return _finished(self.folder / "runs" / name, f"{self.identity} {name}") is not None

    def _spread(self, jobs: Sequence[Job]) -> None:
        if _place()[1] > 1:
            raise ValueError(f"`workers` must be 1 under torchrun, whose processes share each run; got {self.workers}.")
        parcels = [_parcel((self.folder, self.identity, self.save_every, self.device, job)) for job in jobs]
        threads = max(1, torch.get_num_threads() // self.workers)
        self.name_run(f"{len(jobs)} runs")
        with concurrent.futures.ProcessPoolExecutor(
            min(self.workers, len(jobs)), multiprocessing.get_context("spawn"), _begin_worker, (threads,)
        ) as pool:
            try:
                running = [pool.submit(_in_worker, parcel) for parcel in parcels]
                for done, one in enumerate(concurrent.futures.as_completed(running), 1):
                    for sentence in one.result():
                        self.tell(sentence)
                    self.progress(done, len(jobs))
            except concurrent.futures.process.BrokenProcessPool:
                raise OSError(
                    "a worker was killed, perhaps for want of memory. The same line again goes on from the last checkpoints; "
                    "with fewer workers it needs less."
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    def _train(self, folder: Path, identity: str, task: Task) -> None:
        rank, world = _place()
        if task.pieces % world:
            raise ValueError(f"`pieces` must be a multiple of the {world} processes; got {task.pieces}. Set pieces={world}.")
        if task.precision not in PRECISIONS:
            raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {task.precision!r}.")
        if task.precision == "float64":
            task.model.double()
        task.model.to(self.device)
        first = rank == 0
        if first:
            folder.mkdir(parents=True, exist_ok=True)
        log_path = folder / "log.jsonl"
        state = checkpoint.latest(folder, identity, self.tell if first else (lambda text: None))
        begin, length = 0, 0
        if state is not None:
            task.model.load_state_dict(state["model"])
            task.optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["rng"])
            if state["cuda"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["cuda"])
            begin, length = state["step"], state["log"]
        net: torch.nn.Module = task.model
        if world > 1:
            net = torch.nn.parallel.DistributedDataParallel(task.model)
        base = [group["lr"] for group in task.optimiser.param_groups]
        if state is not None:
            base = list(state["base"])
        mine = range(rank, task.pieces, world)
        half = (
            torch.autocast(self.device.split(":")[0], torch.bfloat16)
            if task.precision == "bfloat16"
            else contextlib.nullcontext()
        )

        log = open(log_path, "r+b" if log_path.exists() else "w+b") if first else None  # noqa: SIM115 - closed below
        if log is not None:
            log.truncate(length)
            log.seek(length)
        try:
            for k in range(begin, task.total):
                for group, lr in zip(task.optimiser.param_groups, base):
                    group["lr"] = lr * task.factor(k // (task.l or 1)) / (task.l or 1)
                task.optimiser.zero_grad(set_to_none=True)
                seen = 0.0
                work = [(w, number, piece) for w, number in task.parts(k) for piece in mine]
                for i, (weight, number, piece) in enumerate(work):
                    waits = world > 1 and i + 1 < len(work)
                    with net.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                        with half:
                            loss = task.loss_of(net, task.batch(number, piece, task.pieces))
                        (loss * (weight * world / task.pieces)).backward()
                    seen += weight * float(loss.detach()) / task.pieces
                if task.clip is not None:
                    torch.nn.utils.clip_grad_norm_(task.model.parameters(), task.clip)
                task.optimiser.step()
                done = k + 1
                row: dict[str, Any] = {"step": done, "lr": task.optimiser.param_groups[0]["lr"], "loss": _joined(seen, world)}
                if not math.isfinite(row["loss"]):
                    row |= {"loss": None, "diverged": True}
                if first and (done % task.every == 0 or done == task.total or "diverged" in row):
                    row |= self._judged(task)
                if log is not None:
                    log.write(json.dumps(row).encode() + b"\n")
                self.progress(done, task.total)
                ended = done == task.total or "diverged" in row
                if log is not None and (ended or done % self.save_every == 0):
                    log.flush()
                    os.fsync(log.fileno())
                    cuda = torch.cuda.get_rng_state() if self.device.startswith("cuda") else None
                    held = {
                        "step": done, "model": task.model.state_dict(), "optimiser": task.optimiser.state_dict(), "base": base,
                        "rng": torch.get_rng_state(), "cuda": cuda, "log": log.tell(),
                    }  # fmt: skip
                    checkpoint.write(folder, identity, done, held)
                if ended:
                    if first:
                        _write_final(folder, identity, row)
                    break
        finally:
            if log is not None:
                log.close()
        if world > 1:
            distributed.barrier()

    def _judged(self, task: Task) -> dict[str, float | None]:
        training = task.model.training
        task.model.eval()
        try:
            with torch.no_grad():
                found = task.evaluate(task.model)
        finally:
            task.model.train(training)
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


@contextlib.contextmanager
def sharing(device: str) -> Iterator[tuple[str, bool]]:
    """Under `torchrun`, joins its processes; gives this one's device, and whether it is the first."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device, True
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device, distributed.get_rank() == 0
    finally:
        gc.collect()  # a DistributedDataParallel that is still in a cycle would keep the group's threads beyond its end
        distributed.destroy_process_group()


def _parcel(content: Any) -> bytes:
    try:
        return pickle.dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a job must be a function of a module, or a partial of one, to be sent to a worker; got {error}. Or set workers=1."
        ) from error


def _begin_worker(threads: int) -> None:
    """Own threads only, and an end with the process that started it: nobody else would write to the runs' folders then."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_worker(parcel: bytes) -> list[str]:
    """Makes one run; returns what there is to tell."""
    folder, identity, save_every, device, job = pickle.loads(parcel)
    told: list[str] = []
    Trainer(folder, identity, save_every, device, tell=told.append)(*job)
    return told


def _place() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _joined(value: float, world: int) -> float:
    if world == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(total)
    return float(total)


def _write_final(folder: Path, identity: str, row: dict[str, Any]) -> None:
    write_text(folder / "final.json", json.dumps({"identity": identity, "final": row}, indent=1) + "\n")


def _finished(folder: Path, identity: str) -> tuple[dict[str, float], list[dict[str, Any]]] | None:
    try:
        told = json.loads((folder / "final.json").read_text(encoding="utf-8"))
        if told["identity"] != identity:
            return None
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return told["final"], log
