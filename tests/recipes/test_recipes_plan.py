"""Plans count exactly the runs, steps and evaluations that a recipe then executes; successive halving; the cost of Figure 1."""

import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sdetools import recipes
from sdetools.cli import main
from sdetools.recipes import resnet50_imagenet
from sdetools.recipes.halving import halved
from sdetools.recipes.plan import Planner, RunCost, _makespan
from sdetools.recipes.training import Job, Trainer, TrainingRun, TrainingTask


def small_resnet32(tmp_path):
    pytest.importorskip("mlxtend")
    return "resnet32-cifar10", True, ["seeds=2", "l=1,2", "epochs=0.06", "batch=32", "shrink=4", "width=2", "evaluations=2"]


def small_resnet50(tmp_path):
    pytest.importorskip("mlxtend")
    given = [
        "seeds=2",
        "batch=100,400",
        "epochs=0.25",
        "grid=0,1,2",
        "halving=0.5,1",
        "evaluations=2",
        "widths=2,2,2",
        "stem=2",
        "shrink=4",
        "equivalent=false",  # its runs are those of SGD if both methods have the same best rate
    ]
    return "resnet50-imagenet", True, given


def small_roberta(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    own = runpy.run_path(str(Path(__file__).with_name("test_recipes_text.py")))
    own["write_sst2"](tmp_path / "text")
    given = [
        f"data={tmp_path / 'text'}",
        f"model={own['write_model'](tmp_path / 'model')}",
        "tasks=sst-2",
        "k=4",
        "steps=4",
        "subsets=13,21",
    ]
    return "roberta-few-shot", False, [*given, "batch=2,4", "lr=0.1", "evaluations=2"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("small", [small_resnet32, small_resnet50, small_roberta])
@pytest.mark.parametrize("rate", [None, 100.0])
def test_a_plan_counts_the_runs_steps_and_evaluations_exactly(small, rate, tmp_path, monkeypatch):
    """Of a search the numbers alone are planned, not which candidates go on."""
    monkeypatch.setattr("sdetools.recipes.plan.SECONDS", 0.0)
    name, miniature, given = small(tmp_path)
    module = recipes.recipe(name)
    settings = recipes.settings_of(module, miniature, given)
    planner = Planner(tmp_path / "plan", "identity", rate=rate)
    module.main(settings, planner)
    assert not (tmp_path / "plan").exists()
    if rate is None:
        module.main(settings, Trainer(tmp_path / "out", "identity"))
        logs = recipes_logs(tmp_path / "out")
        planned = Counter((prefix(job.name), cost.steps, cost.evaluations) for stage in planner.stages for job, cost in stage)
        done = Counter((prefix(run), rows[-1]["step"], sum(len(row) > 3 for row in rows) or 1) for run, rows in logs.items())
        assert planned == done and sum(cost.steps for stage in planner.stages for _, cost in stage) > 30
    columns, rows = planner.table()
    assert rows[-1][columns.index("steps")] == sum(row[columns.index("runs")] * row[columns.index("steps")] for row in rows[:-1])
    assert planner.device_seconds > 0 and planner.wall_seconds(1) == pytest.approx(planner.device_seconds)


def prefix(name):
    """Return the part of a run's name that is known before the search."""
    return name.split("-lr")[0]


def recipes_logs(folder):
    import json

    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("runs/*/log.jsonl")
    }


def test_a_given_rate_gives_seconds_by_arithmetic(tmp_path):
    """10 steps of two batches of 6 samples (SVAG) at 4 samples/s: 30 s; 4 evaluations of 9 samples at a third of the cost: 3 s."""
    net = torch.nn.Linear(1, 1)

    def make(**options):
        return TrainingTask(
            net, torch.optim.SGD(net.parameters(), lr=0.1), 5, lambda *address: None, lambda net, b: net(b), lambda net: {}, l=2, every=3, **options
        )  # fmt: skip

    planner = Planner(tmp_path, "identity", rate=4.0)
    run = planner("run", lambda: make(size=6, evaluated=9))
    assert planner.stages[0][0][1] == RunCost(10, 12, 4, 30.0, 3.0)
    assert run.final["step"] == 10 and run.final["any_accuracy"] == 0.0 and "diverged" not in run.final and len(run.log) == 4
    with pytest.raises(ValueError, match="`rate` must be for tasks that state `size` and `evaluated`"):
        planner("another", make)
    with pytest.raises(ValueError, match="`rate` must be positive"):
        Planner(tmp_path, "identity", rate=0.0)


def test_runs_are_spread_over_devices_longest_first():
    assert _makespan([3.0, 1.0, 2.0, 2.0], 2) == 4.0 and _makespan([3.0, 1.0], 5) == 3.0 and _makespan([1.0] * 5, 2) == 3.0


def test_figure_1_costs_less_than_1500_device_hours(monkeypatch):
    """With five repeats, nine rates, six batch sizes and 2,500 images/s, against arithmetic with ImageNet's numbers of images.

    Epochs of drop-last batches are at most one batch shorter than the data: 8191 / 1,255,544 < 0.7 %.
    """
    monkeypatch.setattr(resnet50_imagenet, "network", lambda *shape: torch.nn.Linear(2, 2))
    settings = recipes.settings_of(resnet50_imagenet, False, ["source=sizes"])
    assert len(settings.grid) == 9 and len(settings.batch) == 6 and settings.seeds == 5
    planner = Planner(Path("plan"), "identity", rate=2500.0)
    resnet50_imagenet.main(settings, planner)
    training = sum(cost.training for stage in planner.stages for _, cost in stage) / 3600
    images = 90 * 1_281_167 * 6 * 3 * 5 + 90 * (1_281_167 - 25_623) * 6 * 2 * (9 / 16 + 5 / 8 + 3 / 4)
    assert training == pytest.approx(images / 2500 / 3600, rel=0.007)
    assert 1400 < planner.device_seconds / 3600 < 1500
    # Negative control: a full grid is more than the limit.
    full = Planner(Path("plan"), "identity", rate=2500.0)
    resnet50_imagenet.main(recipes.settings_of(resnet50_imagenet, False, ["source=sizes", "halving=1"]), full)
    assert full.device_seconds / 3600 > 2500


class Scores:
    """A trainer whose runs have given scores, in place of training."""

    def __init__(self, score):
        self.score, self.rounds = score, []

    def all(self, jobs):
        self.rounds.append([job.name for job in jobs.values()])
        return {key: TrainingRun(job.name, self.score(job.name), [], Path()) for key, job in jobs.items()}


def test_the_better_half_goes_on_and_diverged_runs_are_last():
    values = {"a0": 5.0, "a1": None, "a2": 3.0, "a3": 1.0, "a4": 3.0, "b0": None, "b1": 7.0, "c0": None, "c1": None}

    def score(name):
        candidate, fraction = name.split("@")
        value = values[candidate]
        if candidate == "a3":  # diverges, but its last loss is small
            return {"loss": value, "diverged": True}
        return {"loss": value * (-1 if fraction == "1" else 1) if value is not None else None}

    trainer = Scores(score)
    job = lambda group, one, fraction, seed: Job(f"{group}{one}@{fraction:g}", lambda: None)  # noqa: E731
    chosen = halved(trainer, {"a": [0, 1, 2, 3, 4], "b": [0, 1]}, job, (0.25, 0.5, 1), "loss")
    assert trainer.rounds == [
        ["a0@0.25", "a1@0.25", "a2@0.25", "a3@0.25", "a4@0.25", "b0@0.25", "b1@0.25"],
        ["a0@0.5", "a2@0.5", "a4@0.5", "b1@0.5"],
        ["a2@1", "a4@1", "b1@1"],
    ]
    assert chosen == {"a": 2, "b": 1}  # the first among equals
    with pytest.raises(ValueError, match="must have a run that does not diverge; all 1 did, such as c0@1"):
        halved(Scores(score), {"a": [0, 1], "c": [0, 1]}, job, (0.5, 1), "loss")
    whole = halved(Scores(score), {"a": [0, 1, 2, 3, 4]}, job, (1,), "loss")
    assert whole == {"a": 0}  # negative control: a full search judges otherwise
    for fractions in ((), (0.5, 0.5), (0.0, 1), (0.5, 2)):
        with pytest.raises(ValueError, match="fractions of a search must increase"):
            halved(trainer, {"a": [0]}, job, fractions, "loss")
    with pytest.raises(ValueError, match="must have candidates"):
        halved(trainer, {"a": []}, job, (1,), "loss")


def test_a_candidate_is_judged_by_the_mean_over_seeds():
    """The first seed alone would choose 0; the third run of 2 diverged."""
    losses = {0: (1.0, 5.0, 6.0), 1: (3.0, 3.0, 3.0), 2: (0.0, 0.0, None)}
    trainer = Scores(lambda name: {"loss": losses[int(name[0])][int(name[-1])]})

    def job(group, one, fraction, seed):
        return Job(f"{one}-{seed}", lambda: None)

    assert halved(trainer, {"a": [0, 1, 2]}, job, (1,), "loss", seeds=range(3)) == {"a": 1}
    assert trainer.rounds == [["0-0", "0-1", "0-2", "1-0", "1-1", "1-2", "2-0", "2-1", "2-2"]]
    assert halved(trainer, {"a": [0, 1]}, job, (1,), "loss") == {"a": 0}


def test_the_command_prints_a_plan_without_data_and_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", "resnet32-cifar10", "--plan", "--set", "l=1,2", "--set", "seeds=2"]
    done = CliRunner().invoke(main, [*command, "--rate", "1000", "--devices", "2"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    # 160 epochs of 97 batches of 512; with l = 2 twice as many steps of two batches.
    assert [line.split()[:7] for line in lines[1:3]] == [
        ["runs", "l", "=", "1", "4", "15520", "512"], ["runs", "l", "=", "2", "4", "31040", "1024"],
    ]  # fmt: skip
    assert (
        lines[-1].startswith("total: 44.44 device-hours")
        and "at 1,000 samples/s a device" in lines[-1]
        and "on 2 devices" in lines[-1]
    )
    assert "published numbers" in done.stderr and not list(tmp_path.iterdir())
    for more, message in (
        ([*command], "Without data, --plan needs --rate"),
        (["train", "resnet32-cifar10", "--rate", "5"], "--rate and --devices are for --plan"),
        ([*command, "--rate", "-1"], "`rate` must be positive"),
    ):
        done = CliRunner().invoke(main, more)
        assert done.exit_code == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.output
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--plan needs no torchrun" in CliRunner().invoke(main, command).stderr
