r"""The training loop of the recipes: a trainer whose runs can be interrupted at any time and resumed.

Batch k is a function of (seed, k), and the random draws in its use (dropout) are functions of (seed, k, piece), for each of the `pieces` equal parts
of a batch (gradient accumulation). Therefore neither the position in an epoch nor generator states are saved; the checkpoint contains model,
optimiser, loss scale, step and the length of the log. A resumed run ends with the same bits (on a CPU, with the same number of threads). Under
`torchrun`, processes share the pieces and the evaluations, DistributedDataParallel reduces the gradients, and only the first process reads and
writes files. Independent runs can be executed in parallel, each in a separate process. A row of the log is a dict of the numbers of one step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import torch

from sdetools._check import count
from sdetools.recipes import checkpoint
from sdetools.recipes.logs import Logger
from sdetools.recipes.processes import from_first_process, rank_and_world
from sdetools.recipes.run_files import explained_errors, open_log, read_finished, write_final
from sdetools.recipes.steps import Stepper
from sdetools.recipes.tasks import Job, TrainingRun, TrainingTask
from sdetools.recipes.worker_processes import in_parallel, own_device

__all__ = ["Job", "Trainer", "TrainingRun", "TrainingTask"]

LOGGED = 10
"""The maximal number of steps whose losses stay on the device until they are checked and logged."""
Key = TypeVar("Key")


def _nothing(*_: Any) -> None:
    """Do nothing with any arguments: the default of a trainer's callbacks `name_run`, `progress` and `tell`, which can be pickled."""


@dataclass
class Trainer:
    """Executes training runs in a folder; finished runs are read from their files, interrupted runs are resumed.

    A call, `trainer(name, make, seed)`, returns one run, `all` several. The folder of a run has its log (log.jsonl, one row per line), checkpoints and,
    once it is finished, final.json.

    Attributes:
        folder: The folder of the experiment; the run `name` is in its subfolder `runs/name`.
        identity: The text that identifies the experiment, such as `identity_of` makes; files of another one are refused.
        save_every: The number of steps between checkpoints, at least 1.
        device: The device of the networks, such as "cpu" or "cuda".
        workers: The number of runs in parallel, with equal shares of the threads, and with one GPU each if the device is "cuda".
        keep: Whether the weights of finished runs are kept.
        name_run: Called with the name of a run that starts.
        progress: Called as `progress(done, total)` with numbers of steps; with those of runs if there are several workers.
        tell: Called with messages for the user, one text each.
        executor: A `concurrent.futures.Executor` that executes the runs of `all` instead of `workers`, such as that of a cluster whose machines
            share the folder; None for own processes.
        compiled: Whether networks are compiled by `torch.compile` for training.
        loggers: Receive the numbers of each step under names such as "RUN/loss"; those of runs in other processes when such a run is finished.

    Raises:
        ValueError: If `workers` or `save_every` is no whole number above 0.
    """

    folder: Path
    identity: str
    save_every: int = 200
    device: str = "cpu"
    workers: int = 1
    keep: bool = True
    name_run: Callable[[str], None] = _nothing
    progress: Callable[[int, int], None] = _nothing
    tell: Callable[[str], None] = _nothing
    executor: Any = None
    compiled: bool = False
    loggers: Sequence[Logger] = ()

    def __post_init__(self) -> None:
        count("workers", self.workers)
        count("save_every", self.save_every)
        self._said: set[str] = set()

    def __call__(
        self, name: str, make: Callable[[], TrainingTask], seed: int = 0, keep: bool = True, like: str = ""
    ) -> TrainingRun:
        """Return the finished run `name`, from its files or by training; an interrupted run continues from its newest checkpoint.

        Args:
            name: The name of the run.
            make: The function that makes the task; it is called after torch's global generator was seeded.
            seed: The seed of the initial weights and of the draws during training.
            keep: Whether to keep the weights; the trainer's `keep` must be true too.
            like: Not used; a plan groups runs by it.

        Raises:
            ValueError: If the files are those of other settings, or another process writes to the folder.
            OSError: If the disk or the GPU's memory is full.
        """
        folder = self.folder / "runs" / name
        identity = f"{self.identity} {name}"
        found = from_first_process(lambda: read_finished(folder, identity))
        if found is None:
            self.name_run(name)
            with (
                explained_errors(folder),
                torch.random.fork_rng(devices=[self.device] if self.device.startswith("cuda") else []),
            ):
                torch.manual_seed(seed)
                keep = keep and self.keep
                self._train(folder, identity, make(), seed, keep)
                if not keep and rank_and_world()[0] == 0:
                    checkpoint.remove(folder)
            found = from_first_process(lambda: read_finished(folder, identity))
            assert found is not None
        return TrainingRun(name, *found, folder)

    def all(self, jobs: Mapping[Key, Job]) -> dict[Key, TrainingRun]:
        """Return the finished runs of all jobs in a dict by their keys, in the order of `jobs`; `workers` runs are trained at a time.

        Args:
            jobs: The runs, by keys of any kind; jobs of equal names are one run.

        Raises:
            ValueError: If a job cannot be pickled for a worker, `workers` is above 1 under `torchrun`, or as for a call.
            OSError: If a worker was killed, or as for a call.
        """
        if self.workers > 1 or self.executor is not None:
            remaining = {job.name: job for job in jobs.values() if not self._is_finished(job.name)}
            if len(remaining) > 1 or (remaining and self.executor is not None):
                self._run_parallel(list(remaining.values()))
        return {key: self(*job) for key, job in jobs.items()}

    def _is_finished(self, name: str) -> bool:
        """Return whether the run `name` is finished, by its files; ValueError if they are those of other settings."""
        return read_finished(self.folder / "runs" / name, f"{self.identity} {name}") is not None

    def _run_parallel(self, jobs: Sequence[Job]) -> None:
        """Train the runs of `jobs` in other processes; ValueError under `torchrun`, OSError if a process was killed."""
        if rank_and_world()[1] > 1:
            raise ValueError(f"`workers` must be 1 under torchrun, whose processes share each run; got {self.workers}.")
        own: dict[str, Any] = {"name_run": _nothing, "progress": _nothing, "tell": _nothing, "loggers": ()}
        worker = dataclasses.replace(self, workers=1, executor=None, **own)
        self.name_run(f"{len(jobs)} runs")
        tasks = [(worker, job) for job in jobs]
        for done, (i, sentences) in enumerate(in_parallel(_run_job, tasks, self.device, self.workers, self.executor), 1):
            for sentence in sentences:
                self._tell_once(sentence)
            if self.loggers:
                self._report(self.folder / "runs" / jobs[i].name, self(*jobs[i]).log)
            self.progress(done, len(jobs))

    def _train(self, folder: Path, identity: str, task: TrainingTask, seed: int, keep: bool) -> None:
        """Train the run in `folder` from its newest checkpoint, if any; write log, checkpoints and `final.json`.

        Args:
            folder: The folder of the run.
            identity: The text that identifies the run: that of the trainer and the run's name.
            task: The task.
            seed: The seed of the draws during training.
            keep: Whether the last step is followed by a checkpoint, which keeps the weights.
        """
        rank, _ = rank_and_world()
        stepper = Stepper(task, self.device, self.compiled)
        if stepper.pieces != task.pieces:
            self._tell_once(f"each batch is passed through the network in {stepper.pieces} pieces, at least one for each process")
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(open_log(folder)) if rank == 0 else None
            state = from_first_process(lambda: self._latest(folder, identity, log))
            begin = 0
            row: dict[str, Any] = {}
            if state is not None:
                stepper.load(state)
                begin, row = state["step"], state["row"]
            if log is not None:
                log.seek(0 if state is None else state["log"])
                log.truncate()
            evaluations = set(task.evaluations)
            waiting: list[dict[str, Any]] = []
            if not task.total and not row:
                row = {"step": 0} | evaluated(task)
                self._write(folder, log, [row])
            batches = stack.enter_context(stepper.batches(begin))
            for k in range(begin, begin if "diverged" in row else task.total):
                waiting.append({"step": k + 1, "lr": stepper.step(k, seed, batches)})
                if stepper.scale is not None:
                    waiting[-1]["loss_scale"] = stepper.scale
                final = k + 1 == task.total
                saves = keep if final else (k + 1) % self.save_every == 0
                if saves or k + 1 in evaluations or (k + 1) % LOGGED == 0:
                    rows = _checked(waiting, stepper.losses())
                    waiting, row = [], rows[-1]
                    diverged = "diverged" in row
                    final, saves = final or diverged, keep if diverged else saves
                    if diverged or k + 1 in evaluations:
                        row |= evaluated(task, diverged)
                    self._write(folder, log, rows, synchronise=final or saves)
                    if saves and log is not None:
                        snapshot = {"step": row["step"], "log": log.tell(), "row": row, **stepper.state()}
                        checkpoint.write(folder, identity, row["step"], snapshot)
                self.progress(k + 1, task.total)
                if final:
                    break
            if rank == 0:
                write_final(folder, identity, row)

    def _write(self, folder: Path, log: IO[bytes] | None, rows: Sequence[dict[str, Any]], synchronise: bool = False) -> None:
        """Append rows to the log of a run, and report them to the loggers.

        Args:
            folder: The folder of the run.
            log: The file; None in a process that does not write, where nothing is done.
            rows: The rows, dicts of the numbers of a step.
            synchronise: Whether to wait until the disk has them.
        """
        if log is None:
            return
        log.writelines(json.dumps(row).encode() + b"\n" for row in rows)
        if synchronise:
            log.flush()
            os.fsync(log.fileno())
        self._report(folder, rows)

    def _report(self, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        """Report rows of the log of the run in `folder` to the loggers, without numbers that are not finite."""
        for logger in self.loggers:
            for row in rows:
                numbers = {f"{folder.name}/{name}": value for name, value in row.items() if name != "step" and value is not None}
                logger.log(row["step"], numbers)

    def _tell_once(self, sentence: str) -> None:
        """Report a sentence to the user, the first time only."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.tell(sentence)

    def _latest(self, folder: Path, identity: str, log: IO[bytes] | None) -> dict[str, Any] | None:
        """Return the state in the newest valid checkpoint of the run `identity` in `folder`; None if there is none, or if `log` has become shorter since.

        The state is a dict, whose keys are those of `Stepper.state`, "step" (steps done), "row" (the last row of the log) and "log" (the length of the log
        in bytes).
        """
        state = checkpoint.latest(folder, identity, self.tell)
        if state is not None and log is not None and log.seek(0, os.SEEK_END) < state["log"]:
            self.tell(f"{log.name} is shorter than at the checkpoint: the run is restarted.")
            return None
        return state


def _checked(rows: list[dict[str, Any]], losses: Sequence[float]) -> list[dict[str, Any]]:
    """Set "loss" in the rows, and return them up to the first whose loss is not finite: it gets None and "diverged": True.

    Args:
        rows: Rows of the log without losses, changed in place.
        losses: The loss of each row.
    """
    for i, (row, loss) in enumerate(zip(rows, losses, strict=True)):
        row["loss"] = loss if math.isfinite(loss) else None
        if row["loss"] is None:
            row["diverged"] = True
            return rows[: i + 1]
    return rows


def evaluated(task: TrainingTask, diverged: bool = False) -> dict[str, float | None]:
    """Return the numbers of `task.evaluate` by name, with the model in evaluation mode; a number that is not finite is None.

    If `diverged` is true, all are None: the weights are those of the step at which the divergence was found, and mean nothing.
    """
    training = task.model.training
    task.model.eval()
    try:
        with torch.no_grad():
            found = task.evaluate(task.model)
    finally:
        task.model.train(training)
    return {name: value if math.isfinite(value) and not diverged else None for name, value in found.items()}


def _run_job(trainer: Trainer, job: Job) -> list[str]:
    """Train the run `job` in a worker process, on its device, with a copy of `trainer`; return its messages for the user."""
    reports: list[str] = []
    dataclasses.replace(trainer, device=own_device(trainer.device), tell=reports.append)(*job)
    return reports
