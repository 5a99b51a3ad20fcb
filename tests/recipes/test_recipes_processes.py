"""Two processes under torchrun: the same steps, running statistics and evaluations as one, without a switch and at uneven sizes."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdetools.recipes import checkpoint

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from torch.nn import functional as F
from sdetools.bridge import SGDM, Batches
from sdetools.recipes.datasets import accuracy
from sdetools.recipes.processes import own_share, rank_and_world, sharing
from sdetools.recipes.training import TrainingTask, Trainer

torch.set_num_threads(1)
SIZES = ((7, 3), (2, 5), (1000, 64), (65, 64))  # samples and batch size of an evaluation; 2 processes never have equal shares
CASES = {"even": {}, "svag": {"l": 3}, "clipped": {"clip": 0.1, "precision": "float64"}}

def model_of():
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2), torch.nn.Tanh(), torch.nn.Linear(8, 3))

def samples(n):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 1).long()

def evaluation(net, n, size, share=own_share):
    x, y = samples(n)
    kind = next(net.parameters()).dtype
    return accuracy(net, ((x[at : at + size].to(kind), y[at : at + size]) for at in share(range(0, n, size))), str(n))

def task(pieces, **options):
    x, y = samples(96)
    batches = Batches((x, y), 8)
    kind = torch.float64 if options.get("precision") == "float64" else torch.float32

    def batch(number, piece, pieces):
        inputs, labels = batches.at(0, number)
        return inputs.chunk(pieces)[piece].to(kind), labels.chunk(pieces)[piece]

    model = model_of()
    return TrainingTask(model, SGDM(model.parameters(), lr=0.2), 12, batch, lambda net, b: F.cross_entropy(net(b[0]), b[1]),
                        lambda net: evaluation(net, 7, 3), lambda k: 1 / (1 + k / 10), every=5, pieces=pieces, **options)

def everything(folder, pieces):
    tell = []
    for name, options in CASES.items():
        Trainer(folder, "identity", save_every=4, tell=tell.append)(name, lambda: task(pieces, **options), seed=3)
    torch.manual_seed(5)
    net = model_of().eval()
    found = {}
    for n, size in SIZES:
        found |= evaluation(net, n, size)
    return {"evaluations": found, "tell": tell}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with sharing("cpu"):
        rank, _ = rank_and_world()
        (folder / f"answer-{rank}.json").write_text(json.dumps(everything(folder, pieces=1)))
"""
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def folders(program, tmp_path_factory):
    """Return the folders of one process that accumulates two pieces, and of two processes started without a switch."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    threads = torch.get_num_threads()
    answer = runpy.run_path(str(program))["everything"](one, pieces=2)
    torch.set_num_threads(threads)
    (one / "answer-0.json").write_text(json.dumps(answer))
    shared = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([*LAUNCH, str(program), str(two)], env=shared, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return one, two


def answer(folder, rank=0):
    return json.loads((folder / f"answer-{rank}.json").read_text())


@pytest.mark.slow
def test_evaluations_are_equal_for_one_and_two_processes(folders):
    """To 1e-12, in each process; each sample counts once, so that the accuracy times the number of samples is an integer."""
    one = answer(folders[0])["evaluations"]
    for rank in (0, 1):
        assert answer(folders[1], rank)["evaluations"] == pytest.approx(one, rel=1e-12)
    for n in (7, 2, 1000, 65):
        assert one[f"{n}_accuracy"] * n == pytest.approx(round(one[f"{n}_accuracy"] * n), abs=1e-9)


@pytest.mark.slow
def test_means_of_the_processes_own_means_differ(program, folders):
    """Negative control: the mean of two means is wrong at uneven sizes, by a million tolerances of the test above."""
    module, one = runpy.run_path(str(program)), answer(folders[0])["evaluations"]
    torch.manual_seed(5)
    net = module["model_of"]().eval()
    for n, size in ((7, 3), (65, 64)):
        halves = [module["evaluation"](net, n, size, lambda parts, r=r: parts[r::2])[f"{n}_loss"] for r in (0, 1)]
        assert abs(sum(halves) / 2 - one[f"{n}_loss"]) > 1e-6


def state(folder, name):
    path = max((folder / "runs" / name).glob("*.checkpoint"))
    return checkpoint.read(path, f"identity {name}")


@pytest.mark.parametrize("name", ["even", "svag", "clipped"])
def test_steps_and_running_statistics_are_equal_for_one_and_two_processes(folders, name):
    """In float64 to rounding; in float32 too, because a sum of two halves does not depend on who adds it up."""
    one, two = (state(folder, name) for folder in folders)
    assert one["step"] == two["step"] == (36 if name == "svag" else 12) and one["pieces"] == two["pieces"] == 2
    difference = max(float((one["model"][key] - two["model"][key]).abs().max()) for key in one["model"])
    assert difference < (1e-12 if name == "clipped" else 1e-6)
    assert int(one["model"]["1.num_batches_tracked"]) == (72 if name == "svag" else 12)  # each batch counts once
    logs = [[json.loads(row) for row in (f / "runs" / name / "log.jsonl").read_text().splitlines()] for f in folders]
    tolerance = 1e-12 if name == "clipped" else 1e-6
    assert [row["loss"] for row in logs[0]] == pytest.approx([row["loss"] for row in logs[1]], rel=tolerance)
    assert logs[0][-1]["7_loss"] == pytest.approx(logs[1][-1]["7_loss"], rel=tolerance)


def test_more_pieces_than_asked_for_are_reported_once_and_by_each_process(folders):
    for rank in (0, 1):
        assert (
            answer(folders[1], rank)["tell"].count(
                "each batch is passed through the network in 2 pieces, at least one for each process"
            )
            == 3
        )
    assert answer(folders[0])["tell"] == []


def test_another_number_of_pieces_gives_other_running_statistics(program, folders, tmp_path):
    """Negative control: statistics of whole batches differ from the mean of those of halves (the variance by its part between halves)."""
    module = runpy.run_path(str(program))
    module["Trainer"](tmp_path, "identity")("even", lambda: module["task"](1), seed=3)
    one, whole = (state(folder, "even")["model"]["1.running_var"] for folder in (folders[0], tmp_path))
    assert float((one - whole).abs().max()) > 1e-3
