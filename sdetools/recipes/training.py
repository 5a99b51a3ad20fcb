r"""The training loop of the recipes: tasks, runs and a trainer whose runs can be interrupted at any time and resumed.

Batch k is a function of (seed, k), and the random draws in its use (dropout) are functions of (seed, k, piece), for each of the `pieces` equal parts
of a batch (gradient accumulation). Therefore neither the position in an epoch nor generator states are saved; the checkpoint contains model,
optimiser, step and the length of the log. A resumed run ends with the same bits (on a CPU, with the same number of threads). Under `torchrun`,
processes share the pieces, DistributedDataParallel reduces the gradients, and only the first process reads and writes files. Independent runs can be
executed in parallel, each in a separate process. A row of the log is a dict of the numbers of one step.
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
from sdetools.recipes.processes import from_first_process, rank_and_world, summed

PRECISIONS = ("float32", "bfloat16", "float64")


@dataclass
class TrainingTask:
    """Everything that defines a training run except its folder. The model is trained in training mode.

    Attributes:
        model: The network.
        optimiser: Its torch optimiser, without SVAG.
        steps: The number of steps, without SVAG.
        batch: `batch(number, piece, pieces)` returns part `piece` of `pieces` equal parts of batch `number`, a function of its arguments only.
        loss_of: `loss_of(model, batch)` returns the mean loss over the samples, a scalar tensor.
        evaluate: `evaluate(model)` returns a dict of numbers for the log, by name.
        factor: `factor(k)` is the learning rate of step k relative to the optimiser's.
        every: The number of steps between evaluations; there is one at the end too.
        pieces: The number of parts of a batch, which pass through the network one after the other.
        l: The amplification of SVAG: l times as many steps, each of two batches, at lr / l, with `factor` stretched. None without SVAG.
        clip: The maximal 2-norm of the gradient, to which longer ones are rescaled; None for no limit.
        precision: "float32", "bfloat16" (autocast) or "float64".
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
        """The number of steps of the optimiser: `steps`, times l with SVAG."""
        return self.steps * (self.l or 1)

    def parts(self, k: int) -> list[tuple[float, int]]:
        """Return (weight, number) of each batch of step `k`: [(1.0, k)] without SVAG; with it, batches 2 k and 2 k + 1, if their weight is not 0."""
        if self.l is None:
            return [(1.0, k)]
        return [(w, 2 * k + i) for i, w in enumerate(svag_weights(self.l)) if w]


class Job(NamedTuple):
    """A run to be executed: its `name` (of its folder), `make()`, which returns its task, its `seed`, and whether to `keep` its weights."""

    name: str
    make: Callable[[], TrainingTask]
    seed: int = 0
    keep: bool = True


Key = TypeVar("Key")


@dataclass
class TrainingRun:
    """A finished run: its `name`, the last row of its log (`final`), all rows (`log`, dicts of a step's numbers), and its `folder`."""

    name: str
    final: dict[str, float]
    log: list[dict[str, Any]]
    folder: Path

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Return the steps with a logged number `name`, and its values, two lists of equal length; a value that was not finite is None."""
        rows = [row for row in self.log if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]


@dataclass
class Trainer:
    """Executes training runs in a folder; finished runs are read from their files, interrupted runs are resumed.

    Attributes:
        folder: The folder of the experiment; the run `name` is in its subfolder `runs/name`.
        identity: The text that identifies the experiment; files of another one are refused.
        save_every: The number of steps between checkpoints.
        device: The device of the networks, such as "cpu" or "cuda".
        workers: The number of runs in parallel, with equal shares of the threads.
        keep: Whether the weights of finished runs are kept.
        name_run: Called with the name of a run that starts.
        progress: Called with the numbers of steps done and in total; with those of runs if there are several workers.
        tell: Called with messages for the user.
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
        """Return the finished run `name`, from its files or by training; ValueError for files of other settings, OSError for a full disk or GPU.

        Args:
            name: The name of the run.
            make: The function that makes the task; it is called after torch's global generator was seeded.
            seed: The seed of the initial weights and of the draws during training.
            keep: Whether to keep the weights; the trainer's `keep` must be true too.
        """
        folder = self.folder / "runs" / name
        identity = f"{self.identity} {name}"
        found = from_first_process(lambda: _read_finished(folder, identity))
        if found is None:
            self.name_run(name)
            with (
                _explained_errors(folder),
                torch.random.fork_rng(devices=[self.device] if self.device.startswith("cuda") else []),
            ):
                torch.manual_seed(seed)
                keep = keep and self.keep
                self._train(folder, identity, make(), seed, keep)
                if not keep and rank_and_world()[0] == 0:
                    checkpoint.remove(folder)
            found = from_first_process(lambda: _read_finished(folder, identity))
            assert found is not None
        return TrainingRun(name, *found, folder)

    def all(self, jobs: Mapping[Key, Job]) -> dict[Key, TrainingRun]:
        """Return the finished runs of all jobs in a dict by their keys, `workers` in parallel; ValueError if a job cannot be pickled for a worker."""
        if self.workers > 1:
            remaining = {job.name: job for job in jobs.values() if not self._is_finished(job.name)}
            if len(remaining) > 1:
                self._run_parallel(list(remaining.values()))
        return {key: self(*job) for key, job in jobs.items()}

    def _is_finished(self, name: str) -> bool:
        return _read_finished(self.folder / "runs" / name, f"{self.identity} {name}") is not None

    def _run_parallel(self, jobs: Sequence[Job]) -> None:
        """Train the runs of `jobs` in up to `workers` processes; ValueError under `torchrun`, OSError if a process was killed."""
        if rank_and_world()[1] > 1:
            raise ValueError(f"`workers` must be 1 under torchrun, whose processes share each run; got {self.workers}.")
        payloads = [_pickled((self.folder, self.identity, self.save_every, self.device, self.keep, job)) for job in jobs]
        threads = max(1, torch.get_num_threads() // self.workers)
        self.name_run(f"{len(jobs)} runs")
        with concurrent.futures.ProcessPoolExecutor(min(self.workers, len(jobs)), _context(), _begin_worker, (threads,)) as pool:
            try:
                running = [pool.submit(_run_in_worker, payload) for payload in payloads]
                for done, one in enumerate(concurrent.futures.as_completed(running), 1):
                    for sentence in one.result():
                        self.tell(sentence)
                    self.progress(done, len(jobs))
            except concurrent.futures.process.BrokenProcessPool:
                raise OSError(
                    "a worker was killed, possibly for lack of memory. The same command resumes from the last checkpoints; "
                    "fewer workers need less memory."
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    def _train(self, folder: Path, identity: str, task: TrainingTask, seed: int, keep: bool) -> None:
        """Train the run in `folder` from its newest checkpoint, if any; write log, checkpoints (the last to `keep` the weights) and `final.json`."""
        rank, world = rank_and_world()
        count("steps", task.steps)
        if svag_of(task.optimiser) is not None:
            raise ValueError("`optimiser` of a task must be without SVAG; got one that has it. Set `l` of the task instead.")
        if task.pieces % world:
            raise ValueError(f"`pieces` must be a multiple of the {world} processes; got {task.pieces}. Set pieces={world}.")
        if task.precision not in PRECISIONS:
            hint = " float16 would require loss scaling, which is not implemented." if task.precision == "float16" else ""
            raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {task.precision!r}.{hint}")
        if task.precision == "float64":
            task.model.double()
        task.model.to(self.device).train()
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(_open_log(folder)) if rank == 0 else None
            state = from_first_process(lambda: self._latest(folder, identity, log))
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
                final = done == task.total or "diverged" in row
                if log is not None:
                    if final or done % task.every == 0:
                        row |= self._evaluated(task)
                    log.write(json.dumps(row).encode() + b"\n")
                    saves = keep if final else done % self.save_every == 0
                    if final or saves:
                        log.flush()
                        os.fsync(log.fileno())
                    if saves:
                        snapshot = {
                            "step": done, "model": task.model.state_dict(), "optimiser": task.optimiser.state_dict(), "base": base,
                            "log": log.tell(), "row": row,
                        }  # fmt: skip
                        checkpoint.write(folder, identity, done, snapshot)
                self.progress(done, task.total)
                if final:
                    break
            if rank == 0:
                _write_final(folder, identity, row)

    def _step(self, task: TrainingTask, net: torch.nn.Module, k: int, seed: int, base: Sequence[float]) -> dict[str, Any]:
        """Take step `k` at the learning rates `base` times the schedule; return its row of the log, with loss None if it is not finite."""
        rank, world = rank_and_world()
        autocast = (
            torch.autocast(self.device.split(":")[0], torch.bfloat16)
            if task.precision == "bfloat16"
            else contextlib.nullcontext()
        )
        for group, lr in zip(task.optimiser.param_groups, base):
            group["lr"] = lr * task.factor(k // (task.l or 1)) / (task.l or 1)
        task.optimiser.zero_grad(set_to_none=True)
        total_loss = 0.0
        microbatches = [(w, number, piece) for w, number in task.parts(k) for piece in range(rank, task.pieces, world)]
        for i, (weight, number, piece) in enumerate(microbatches):
            waits = world > 1 and i + 1 < len(microbatches)
            self._seed(seed, number, piece)
            with net.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                with autocast:
                    loss = task.loss_of(net, task.batch(number, piece, task.pieces))
                (loss * (weight * world / task.pieces)).backward()
            total_loss += weight * float(loss.detach()) / task.pieces
        if task.clip is not None:
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), task.clip)
        self._seed(seed, k)
        task.optimiser.step()
        row = {"step": k + 1, "lr": task.optimiser.param_groups[0]["lr"], "loss": summed(total_loss, world)}
        return row if math.isfinite(row["loss"]) else row | {"loss": None, "diverged": True}

    def _seed(self, *address: int) -> None:
        """Seed torch by a hash of `address`: (seed, batch, piece), or (seed, step) for the optimiser, which is equal in all processes."""
        number = int.from_bytes(hashlib.sha256(repr(address).encode()).digest()[:8])
        if self.device == "cpu":
            torch.default_generator.manual_seed(number)  # 100 times as fast as
        else:
            torch.manual_seed(number)  # which seeds all kinds of devices

    def _latest(self, folder: Path, identity: str, log: IO[bytes] | None) -> dict[str, Any] | None:
        """Return the state in the newest valid checkpoint, a dict; None if there is none, or if `log` is shorter than it was at the checkpoint."""
        state = checkpoint.latest(folder, identity, self.tell)
        if state is not None and log is not None and log.seek(0, os.SEEK_END) < state["log"]:
            self.tell(f"{log.name} is shorter than at the checkpoint: the run is restarted.")
            return None
        return state

    def _evaluated(self, task: TrainingTask) -> dict[str, float | None]:
        training = task.model.training
        task.model.eval()
        try:
            with torch.no_grad():
                found = task.evaluate(task.model)
        finally:
            task.model.train(training)
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


@contextlib.contextmanager
def _explained_errors(folder: Path) -> Iterator[None]:
    """Context manager that adds a remedy to errors of a full GPU memory or disk and raises them as OSError; `folder` is that of the run."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise OSError(
            "the GPU's memory is too small for a piece of a batch. Use more pieces (--set pieces=..., or a smaller --set micro=...) or "
            f"--set precision=bfloat16. {str(error).splitlines()[0]}"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"the disk of {folder} is full. Free some space; the same command then resumes from the last checkpoint."
        ) from error


@contextlib.contextmanager
def _open_log(folder: Path) -> Iterator[IO[bytes]]:
    """Context manager that opens and locks the log of the run in `folder`, a binary file, and creates it if absent; ValueError if it is locked."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "log.jsonl"
    path.touch()
    with open(path, "r+b") as log:
        try:
            import fcntl

            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"`out` must be a folder that no other process uses; another one writes to {path}.") from None
        except (ImportError, OSError):
            pass  # the operating system or the file system has no such locks
        yield log


def _pickled(content: Any) -> bytes:
    try:
        return pickle.dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a job must be a module-level function, or a partial of one, to be pickled for a worker; got {error}. Or set workers=1."
        ) from error


def _context() -> Any:
    """Return the multiprocessing context of workers: a fork server with torch imported, else spawn; never a fork of this threaded process."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # optimisers import the latter at their first step
    return context


def _begin_worker(threads: int) -> None:
    """Limit a worker process to `threads` threads, and end it with its parent, so that it does not keep the runs' folders locked."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_in_worker(payload: bytes) -> list[str]:
    """Train one run in a worker process; return its messages for the user. `payload` is pickled: the fields of a `Trainer` and the job."""
    folder, identity, save_every, device, keep, job = pickle.loads(payload)  # trusted: pickled by the parent process
    reports: list[str] = []
    Trainer(folder, identity, save_every, device, keep=keep, tell=reports.append)(*job)
    return reports


def _write_final(folder: Path, identity: str, row: dict[str, Any]) -> None:
    write_text(folder / "final.json", json.dumps({"identity": identity, "final": row}, indent=1) + "\n")


def _read_finished(folder: Path, identity: str) -> tuple[dict[str, float], list[dict[str, Any]]] | None:
    """Return the last row and all rows of the log of a finished run, None for others; ValueError if it belongs to another experiment."""
    try:
        content = json.loads((folder / "final.json").read_text(encoding="utf-8"))
        foreign = content["identity"] != identity
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if foreign:
        raise ValueError(
            f"`out` must be a folder of these settings; {folder} contains a finished run of other settings, or of another version of "
            "sdetools. Use another --out, or remove it."
        )
    return content["final"], log
