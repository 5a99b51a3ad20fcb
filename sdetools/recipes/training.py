r"""The training loop of the recipes: what a run is, and how it is carried out so that it can be killed at any moment.

Batch k is a function of (seed, k), and what is random in its use (dropout) one of (seed, k, piece), so that neither the place in an epoch
nor random states need saving; model, optimiser, step and the length of the log are in the checkpoint. A run that was killed and goes on
ends with the same bits (on a CPU, at the same number of threads). A batch is cut into `pieces`; under `torchrun` processes share the
pieces, and their gradients are joined by DistributedDataParallel; the first alone reads and writes files. Runs that need nothing of each
other can be made several at a time, each in a process of its own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import math
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import torch

from sdetools._check import count
from sdetools.bridge.svag import svag_of
from sdetools.claims.folder import write_text
from sdetools.noise.oracle import svag_weights
from sdetools.recipes import checkpoint
from sdetools.recipes.processes import joined, of_first, place

PRECISIONS = ("float32", "bfloat16", "float64")


@dataclass
class TrainingTask:
    """One run: everything but where it is written.

    `batch(number, piece, pieces)`: piece of batch number, a function of these alone; `loss_of(model, batch)`: its mean loss;
    `evaluate(model)`: numbers for the log, every `every` steps and at the end; `factor(k)`: the learning rate of step k as a part of the
    optimiser's. With `l`, SVAG: there are l times as many steps, each of two batches, at lr / l, and `factor` is stretched. `clip`: largest
    2-norm of the gradient. The model is trained in training mode, whatever mode it comes in.
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
    """A run to be made: its name (a folder), what makes its task, the seed of what is random in both, whether its weights are wanted."""

    name: str
    make: Callable[[], TrainingTask]
    seed: int = 0
    keep: bool = True


Key = TypeVar("Key")


@dataclass
class TrainingRun:
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
    time, on equal shares of the threads. `keep`: whether the weights of finished runs stay.
    `name_run(name)` and `progress(done, total)` are for a bar, `tell(sentence)` for what a person should know.
    """

    folder: Path
    identity: str
    save_every: int = 200
    device: str = "cpu"
    workers: int = 1
    keep: bool = True
    name_run: Callable[[str], None] = lambda name: None
    progress: Callable[[int, int], None] = lambda done, total: None
    tell: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        count("workers", self.workers)
        count("save_every", self.save_every)

    def __call__(self, name: str, make: Callable[[], TrainingTask], seed: int = 0, keep: bool = True) -> TrainingRun:
        """The run `name`: from its files where it is finished, else trained from `make()` with torch's global generator at `seed`."""
        folder = self.folder / "runs" / name
        identity = f"{self.identity} {name}"
        found = of_first(lambda: _finished(folder, identity))
        if found is None:
            self.name_run(name)
            with _told(folder), torch.random.fork_rng(devices=[self.device] if self.device.startswith("cuda") else []):
                torch.manual_seed(seed)
                keep = keep and self.keep
                self._train(folder, identity, make(), seed, keep)
                if not keep and place()[0] == 0:
                    checkpoint.remove(folder)
            found = of_first(lambda: _finished(folder, identity))
            assert found is not None
        return TrainingRun(name, *found, folder)

    def all(self, jobs: Mapping[Key, Job]) -> dict[Key, TrainingRun]:
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
        if place()[1] > 1:
            raise ValueError(f"`workers` must be 1 under torchrun, whose processes share each run; got {self.workers}.")
        parcels = [_parcel((self.folder, self.identity, self.save_every, self.device, self.keep, job)) for job in jobs]
        threads = max(1, torch.get_num_threads() // self.workers)
        self.name_run(f"{len(jobs)} runs")
        with concurrent.futures.ProcessPoolExecutor(min(self.workers, len(jobs)), _context(), _begin_worker, (threads,)) as pool:
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

    def _train(self, folder: Path, identity: str, task: TrainingTask, seed: int, keep: bool) -> None:
        rank, world = place()
        count("steps", task.steps)
        if svag_of(task.optimiser) is not None:
            raise ValueError("`optimiser` of a task must be without SVAG, which its `l` makes; got one that has it. Set l alone.")
        if task.pieces % world:
            raise ValueError(f"`pieces` must be a multiple of the {world} processes; got {task.pieces}. Set pieces={world}.")
        if task.precision not in PRECISIONS:
            hint = " With float16 losses would have to be scaled, which is not done." if task.precision == "float16" else ""
            raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {task.precision!r}.{hint}")
        if task.precision == "float64":
            task.model.double()
        task.model.to(self.device).train()
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(_opened(folder)) if rank == 0 else None
            state = of_first(lambda: self._latest(folder, identity, log))
            begin, row = 0, {}
            base = [group["lr"] for group in task.optimiser.param_groups]
            if state is not None:
                task.model.load_state_dict(state["model"])
                task.optimiser.load_state_dict(state["optimiser"])
                begin, row, base = state["step"], state["row"], state["base"]
            net: torch.nn.Module = task.model
            if world > 1:
                net = torch.nn.parallel.DistributedDataParallel(task.model)
            if log is not None:
                log.seek(0 if state is None else state["log"])
                log.truncate()
            for k in range(begin, begin if "diverged" in row else task.total):
                row = self._step(task, net, k, seed, base)
                done = k + 1
                ended = done == task.total or "diverged" in row
                if log is not None:
                    if ended or done % task.every == 0:
                        row |= self._judged(task)
                    log.write(json.dumps(row).encode() + b"\n")
                    saves = keep if ended else done % self.save_every == 0
                    if ended or saves:
                        log.flush()
                        os.fsync(log.fileno())
                    if saves:
                        held = {
                            "step": done, "model": task.model.state_dict(), "optimiser": task.optimiser.state_dict(), "base": base,
                            "log": log.tell(), "row": row,
                        }  # fmt: skip
                        checkpoint.write(folder, identity, done, held)
                self.progress(done, task.total)
                if ended:
                    break
            if rank == 0:
                _write_final(folder, identity, row)

    def _step(self, task: TrainingTask, net: torch.nn.Module, k: int, seed: int, base: Sequence[float]) -> dict[str, Any]:
        """Step k of the optimiser; returns what is to be logged of it."""
        rank, world = place()
        half = (
            torch.autocast(self.device.split(":")[0], torch.bfloat16)
            if task.precision == "bfloat16"
            else contextlib.nullcontext()
        )
        for group, lr in zip(task.optimiser.param_groups, base):
            group["lr"] = lr * task.factor(k // (task.l or 1)) / (task.l or 1)
        task.optimiser.zero_grad(set_to_none=True)
        seen = 0.0
        work = [(w, number, piece) for w, number in task.parts(k) for piece in range(rank, task.pieces, world)]
        for i, (weight, number, piece) in enumerate(work):
            waits = world > 1 and i + 1 < len(work)
            self._draw_from(seed, number, piece)
            with net.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                with half:
                    loss = task.loss_of(net, task.batch(number, piece, task.pieces))
                (loss * (weight * world / task.pieces)).backward()
            seen += weight * float(loss.detach()) / task.pieces
        if task.clip is not None:
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), task.clip)
        self._draw_from(seed, k)
        task.optimiser.step()
        row = {"step": k + 1, "lr": task.optimiser.param_groups[0]["lr"], "loss": joined(seen, world)}
        return row if math.isfinite(row["loss"]) else row | {"loss": None, "diverged": True}

    def _draw_from(self, *address: int) -> None:
        """Make what torch draws next a function of (seed, batch, piece), or for the optimiser, the same in all processes, of (seed, step)."""
        number = int.from_bytes(hashlib.sha256(repr(address).encode()).digest()[:8])
        if self.device == "cpu":
            torch.default_generator.manual_seed(number)  # in a hundredth of the time of
        else:
            torch.manual_seed(number)  # which goes through all kinds of devices

    def _latest(self, folder: Path, identity: str, log: IO[bytes] | None) -> dict[str, Any] | None:
        state = checkpoint.latest(folder, identity, self.tell)
        if state is not None and log is not None and log.seek(0, os.SEEK_END) < state["log"]:
            self.tell(f"{log.name} is shorter than its checkpoint tells: the run is made from its beginning.")
            return None
        return state

    def _judged(self, task: TrainingTask) -> dict[str, float | None]:
        training = task.model.training
        task.model.eval()
        try:
            with torch.no_grad():
                found = task.evaluate(task.model)
        finally:
            task.model.train(training)
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Where memory or disk are too small, a sentence with the way out."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise OSError(
            "the GPU's memory is too small for a piece of a batch. Take more pieces (--set pieces=..., or a smaller --set micro=...) or "
            f"--set precision=bfloat16. {str(error).splitlines()[0]}"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"the disk of {folder} is full. With room on it, the same line again goes on from the last checkpoint."
        ) from error


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[IO[bytes]]:
    """The run's log; ValueError where another process writes to it. The lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "log.jsonl"
    path.touch()
    with open(path, "r+b") as log:
        try:
            import fcntl

            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"`out` must be a folder of this process alone; another one writes to {path}.") from None
        except (ImportError, OSError):
            pass  # a system, or a file system, without such locks
        yield log


def _parcel(content: Any) -> bytes:
    try:
        return pickle.dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a job must be a function of a module, or a partial of one, to be sent to a worker; got {error}. Or set workers=1."
        ) from error


def _context() -> Any:
    """How workers begin: as copies of a process that has torch imported, where there are such; never of this one, which has threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # optimisers import the latter at their first step
    return context


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
    folder, identity, save_every, device, keep, job = pickle.loads(parcel)  # our own, from the process that started this one
    told: list[str] = []
    Trainer(folder, identity, save_every, device, keep=keep, tell=told.append)(*job)
    return told


def _write_final(folder: Path, identity: str, row: dict[str, Any]) -> None:
    write_text(folder / "final.json", json.dumps({"identity": identity, "final": row}, indent=1) + "\n")


def _finished(folder: Path, identity: str) -> tuple[dict[str, float], list[dict[str, Any]]] | None:
    """The last row and the log of a run that is finished; ValueError where that is another run's, which would be lost."""
    try:
        told = json.loads((folder / "final.json").read_text(encoding="utf-8"))
        foreign = told["identity"] != identity
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if foreign:
        raise ValueError(
            f"`out` must be a folder of these settings alone; {folder} holds a finished run of other ones, or of another version of sdetools. "
            "Take another --out, or remove it."
        )
    return told["final"], log
