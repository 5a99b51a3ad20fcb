"""Plans: what an experiment costs, without training it. The recipe runs with a trainer that counts its runs and times a few steps of each kind.

The seconds of a run are start + steps x (seconds of a step) + evaluations x (seconds of an evaluation) + checkpoints x (seconds of one). They are
measured on this machine, or computed from a rate (samples per second that one device trains on); an evaluated sample then costs a third of a trained
one, the forward pass of three equal passes.
"""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdetools.recipes import checkpoint
from sdetools.recipes.steps import Stepper
from sdetools.recipes.tasks import Job, TrainingRun, TrainingTask
from sdetools.recipes.training import Key, Trainer, evaluated

SECONDS, LEAST = 2.0, 3
"""Steps of a kind of run are timed for this time, and at least this number of them."""
MOST = 4
"""A step with more pieces is not timed whole: its time is extrapolated from steps with half and with all of this number of pieces."""


@dataclass(frozen=True)
class RunCost:
    """What a run costs.

    Attributes:
        steps: The number of steps.
        samples: The number of samples of a step, with SVAG those of both batches; None if the task does not state it.
        evaluations: The number of evaluations.
        training: The seconds of all steps, with the start and the checkpoints.
        evaluation: The seconds of all evaluations.
    """

    steps: int
    samples: int | None
    evaluations: int
    training: float
    evaluation: float

    @property
    def seconds(self) -> float:
        """The seconds of the run."""
        return self.training + self.evaluation


@dataclass
class Planner(Trainer):
    """A trainer that trains nothing: it counts the runs that it is given, and returns runs whose numbers are all 0.

    Pass it to a recipe's `main` in place of a `Trainer`; then ask for `table`, `device_seconds` or `wall_seconds`. It has the fields of a trainer. Of
    these, `device` and `compiled` affect what is measured, `save_every` and `keep` the number of checkpoints. Nothing is written to `folder`; `identity`,
    `workers`, `executor` and `loggers` are not used.

    Attributes:
        rate: The number of samples per second that a device trains on, positive; None measures it on `device`.
        stages: The runs so far: for each call of `all`, a list of pairs (job, cost). Runs of a stage can be parallel.

    Raises:
        ValueError: If `rate` is not positive.
    """

    rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"`rate` must be positive, in samples per second; got {self.rate:g}.")
        self.stages: list[list[tuple[Job, RunCost]]] = []
        self._known: dict[str, RunCost] = {}

    def __call__(self, *job: Any, **options: Any) -> TrainingRun:
        """Count a run as a stage of its own, and return it with numbers that are all 0; the arguments are those of a `Job` (name, make, seed, ...)."""
        return self.all({"": Job(*job, **options)})[""]

    def all(self, jobs: Mapping[Key, Job]) -> dict[Key, TrainingRun]:
        """Count the runs of the jobs as a stage, and return them in a dict by the keys of `jobs`, with numbers that are all 0.

        Jobs of equal names are counted twice: names contain results of a search, which may be equal here and differ in training. ValueError if there is a
        `rate` and a task does not state its numbers of samples.
        """
        stage = []
        for job in jobs.values():
            kind = job.like or job.name
            if kind not in self._known:
                self.name_run(f"timing: {kind}")
                with torch.random.fork_rng():
                    torch.manual_seed(job.seed)
                    self._known[kind] = self._measured(job) if self.rate is None else _computed(job.make(), kind, self.rate)
            stage.append((job, self._known[kind]))
        self.stages.append(stage)
        costs = (cost for _, cost in stage)
        return {key: _made_up(job, cost, self.folder) for (key, job), cost in zip(jobs.items(), costs)}

    def _measured(self, job: Job) -> RunCost:
        """Return the cost of the run `job`, from a few of its steps, one evaluation and one checkpoint on this machine."""
        if not self._known:
            job.make()  # torch imports some of its modules when the first optimiser is made
        begin = time.perf_counter()
        task = job.make()
        stepper = Stepper(task, self.device, self.compiled)
        start = time.perf_counter() - begin
        saves = task.total // self.save_every + (job.keep and self.keep)
        step = 0.0
        if task.total:
            pieces = range(stepper.pieces)
            if len(pieces) <= MOST:
                step = self._timed_step(stepper, job.seed, None)
            else:
                half, whole = (self._timed_step(stepper, job.seed, n) for n in (MOST // 2, MOST))
                piece = max(whole - half, 0.0) / (MOST - MOST // 2)
                step = whole + (len(pieces) - MOST) * piece
        save = 0.0
        if saves:
            with tempfile.TemporaryDirectory() as folder:
                save = _seconds(lambda: checkpoint.write(Path(folder), "plan", 0, {"row": {}, **stepper.state()}), self.device)
        evaluation = _seconds(lambda: evaluated(task), self.device)
        evaluations = len(task.evaluations)
        training = start + task.total * step + saves * save
        return RunCost(task.total, _samples(task), evaluations, training, evaluations * evaluation)

    def _timed_step(self, stepper: Stepper, seed: int, most: int | None) -> float:
        """Return the mean seconds of a step after a first one, which is not timed.

        Args:
            stepper: The run, whose next steps are taken.
            seed: The seed of the draws during training.
            most: The number of pieces of each batch that pass through the network; None for all.
        """
        task, done = stepper.task, 0

        def one(batches: Any) -> None:
            nonlocal done
            stepper.step(done % task.total, seed, batches, most)
            done += 1
            self.progress(done, done + 1)

        with stepper.batches(0, end=1 << 40) as batches:
            one(batches)
            stepper.losses()
            begin, first = time.perf_counter(), done
            while done - first < LEAST or (time.perf_counter() - begin < SECONDS and done - first < task.total):
                one(batches)
            stepper.losses()  # waits for the device
            return (time.perf_counter() - begin) / (done - first)

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return the heads of the columns and the rows of a table: equal runs of a stage in one row, and the sum in the last.

        The columns are the stage, the kind of run (`Job.like`), the number of runs, the numbers of one run (steps, samples a step, evaluations), and the
        hours of training, of evaluation and of both, for all runs of the row, as text. The last row has the sums of steps and evaluations over all runs.
        """
        columns = [
            "part",
            "runs of",
            "runs",
            "steps",
            "samples a step",
            "evaluations",
            "training (h)",
            "evaluation (h)",
            "device-hours",
        ]
        rows: list[list[Any]] = []
        names = self._stage_names()
        for name, stage in zip(names, self.stages):
            kinds: dict[str, list[RunCost]] = {}
            for job, cost in stage:
                kinds.setdefault(job.like or job.name, []).append(cost)
            for kind, costs in kinds.items():
                one = costs[0]
                samples = "" if one.samples is None else one.samples
                rows.append([name, kind, len(costs), one.steps, samples, one.evaluations, *_hours(costs)])
        everything = [cost for stage in self.stages for _, cost in stage]
        rows.append(
            [
                "all",
                "",
                len(everything),
                sum(c.steps for c in everything),
                "",
                sum(c.evaluations for c in everything),
                *_hours(everything),
            ]
        )
        return columns, rows

    def _stage_names(self) -> list[str]:
        """Return the name of each stage: "search 1", "search 2", ... for runs named "search-...", else "runs", or "evaluation" without steps."""
        searches, names = 0, []
        for stage in self.stages:
            if all(job.name.startswith("search-") for job, _ in stage):
                searches += 1
                names.append(f"search {searches}")
            else:
                names.append("runs" if any(cost.steps for _, cost in stage) else "evaluation")
        return names

    @property
    def device_seconds(self) -> float:
        """The seconds that all runs take together, one after the other."""
        return sum(cost.seconds for stage in self.stages for _, cost in stage)

    def wall_seconds(self, devices: int) -> float:
        """Return the seconds until everything is finished, with each run on one of `devices` >= 1 devices; a stage begins after the one before."""
        return sum(_makespan((cost.seconds for _, cost in stage), devices) for stage in self.stages)


def _makespan(seconds: Iterable[float], devices: int) -> float:
    """Return the time until runs of these `seconds` are finished on `devices` devices, the longest first, each on the device that is free first."""
    ends = [0.0] * devices
    for own in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + own)
    return max(ends)


def _hours(costs: list[RunCost]) -> list[str]:
    """Return the hours of training, of evaluation and of both, summed over the runs with these `costs`, as three texts."""
    both = [sum(cost.training for cost in costs) / 3600, sum(cost.evaluation for cost in costs) / 3600]
    return [f"{hours:,.1f}" if hours >= 100 else f"{hours:.3g}" for hours in (*both, sum(both))]


def _samples(task: TrainingTask) -> int | None:
    """Return the number of samples of a step of `task`, of both batches with SVAG; None if the task does not state it."""
    return None if task.size is None else task.size * len(task.parts(0))


def _computed(task: TrainingTask, kind: str, rate: float) -> RunCost:
    """Return the cost of a run at `rate` trained samples per second; ValueError if its task does not state its numbers of samples.

    `kind` are the words for its kind of run, for the message.
    """
    samples = _samples(task)
    if samples is None or task.evaluated is None:
        raise ValueError(
            f"`rate` must be for tasks that state `size` and `evaluated`, their numbers of samples; {kind!r} does not."
        )
    evaluations = len(task.evaluations)
    return RunCost(task.total, samples, evaluations, task.total * samples / rate, evaluations * task.evaluated / (3 * rate))


def _seconds(call: Callable[[], Any], device: str) -> float:
    """Return the mean seconds of `call()`, whose work is done on `device`; it is repeated for about a second, and then the first call is not counted."""

    def one() -> float:
        begin = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    first = one()
    later: list[float] = []
    while first + sum(later) < SECONDS / 2:
        later.append(one())
    return sum(later) / len(later) if later else first


class _AnyNumber(dict[str, Any]):
    """A row of a log in which every number is 0, except that the run has not diverged."""

    def __missing__(self, name: str) -> float:
        return 0.0

    def __contains__(self, name: object) -> bool:
        return name != "diverged"

    def get(self, name: str, default: Any = None) -> Any:
        """Return the number `name`, or `default` for "diverged"."""
        return default if name == "diverged" else self[name]


def _made_up(job: Job, cost: RunCost, folder: Path) -> TrainingRun:
    """Return a run whose log has a row for each evaluation of a real one, with numbers that are all 0.

    Args:
        job: The run, for its name.
        cost: Its cost, for the numbers of steps and evaluations.
        folder: The folder of the experiment, in which the run would lie.
    """
    rows: list[dict[str, Any]] = [_AnyNumber(step=cost.steps) for _ in range(cost.evaluations)]
    return TrainingRun(job.name, rows[-1], rows, folder / "runs" / job.name)
