"""The training loop: killed at any moment it ends with the same bits; broken checkpoints are left aside; pieces and processes agree."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from sdetools.bridge import SGDM, Batches, checkpoint
from sdetools.bridge.training import Task, Trainer

PROGRAM = """
import sys, time
from pathlib import Path
import torch
from torch.nn import functional as F
from sdetools.bridge import SGDM, Batches
from sdetools.bridge.training import Task, Trainer, sharing

torch.set_num_threads(1)
folder, pause, pieces, precision = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
generator = torch.Generator().manual_seed(1)
kind = torch.float64 if precision == "float64" else torch.float32
x = torch.randn(96, 6, generator=generator).to(kind)
y = x.sum(1, keepdim=True).sin()
batches = Batches((x, y), 8)

def batch(number, piece, pieces):
    time.sleep(pause)
    inputs, targets = batches.at(0, number)
    return inputs.chunk(pieces)[piece], targets.chunk(pieces)[piece]

def make():
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.2 if pieces == 1 else 0.0), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    steps = 40 if pieces == 1 else 10
    return Task(model, SGDM(model.parameters(), lr=0.2), steps, batch, lambda net, b: F.mse_loss(net(b[0]), b[1]),
                lambda net: {"test": float(F.mse_loss(net(x), y))}, lambda k: 1 / (1 + k / 10), every=7, pieces=pieces, precision=precision)

with sharing("cpu"):
    Trainer(folder, "identity", save_every=5, tell=lambda text: print(text, flush=True))("run", make, seed=3)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def started(program, folder, pause=0.0, pieces=1, precision="float32", launch=()):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, *launch, str(program), str(folder), str(pause), str(pieces), precision]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(*arguments, **options):
    process = started(*arguments, **options)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def weights(folder):
    name = sorted((folder / "runs" / "run").glob("*.checkpoint"))[-1]
    return checkpoint.read(name, "identity run")["model"]


def test_killed_three_times_it_ends_with_the_same_bits(program, tmp_path):
    finished(program, tmp_path / "whole")
    broken = tmp_path / "broken"
    for after in (8, 14, 31):
        process = started(program, broken, pause=0.02)
        log = broken / "runs" / "run" / "log.jsonl"
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            newest = sorted((broken / "runs" / "run").glob("step-*.checkpoint"))
            if newest and int(newest[-1].stem.split("-")[1]) >= after - 5:
                break
            time.sleep(0.01)
        time.sleep(0.03)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close(), process.stderr.close()
        assert not (broken / "runs" / "run" / "final.json").exists()
    finished(program, broken)
    a, b = (folder / "runs" / "run" for folder in (tmp_path / "whole", broken))
    assert (
        log.read_bytes() == (a / "log.jsonl").read_bytes() and (a / "final.json").read_bytes() == (b / "final.json").read_bytes()
    )
    one, other = weights(tmp_path / "whole"), weights(broken)
    assert all(torch.equal(one[name], other[name]) for name in one)


def toy(steps=20, **options):
    torch.manual_seed(0)
    x = torch.randn(32, 3)
    batches = Batches((x, x.sum(1, keepdim=True)), 4)

    def make():
        model = torch.nn.Linear(3, 1)
        return Task(
            model, SGDM(model.parameters(), lr=0.1), steps, lambda k, i, n: tuple(part.chunk(n)[i] for part in batches.at(1, k)),
            lambda net, b: F.mse_loss(net(b[0]), b[1]), lambda net: {"test": float(F.mse_loss(net(x), x.sum(1, keepdim=True)))}, **options,
        )  # fmt: skip

    return make


def unfinished(folder):
    """A run of 20 steps whose end is forgotten, with checkpoints at 15 and 20."""
    Trainer(folder, "identity", save_every=5)("run", toy())
    (folder / "runs" / "run" / "final.json").unlink()
    return sorted((folder / "runs" / "run").glob("*.checkpoint"))


def test_a_broken_checkpoint_is_told_and_the_one_before_is_used(tmp_path):
    whole = Trainer(tmp_path / "whole", "identity")("run", toy())

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "trap"),))

    for n, damage in enumerate(
        (
            lambda path: path.write_bytes(path.read_bytes()[:-100]),
            lambda path: path.write_bytes(b"hello"),
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(path.read_bytes().replace(b"identity run", b"identity ran")),
            lambda path: path.write_bytes(trapped(path, Trap())),
        )
    ):
        folder = tmp_path / str(n)
        _, last = unfinished(folder)
        damage(last)
        told = []
        again = Trainer(folder, "identity", tell=told.append)("run", toy())
        assert len(told) == 1 and told[0].endswith("the one before it is used.") and "\n" not in told[0]
        assert again.final == whole.final and again.log == whole.log
    assert not (tmp_path / "trap").exists()


def trapped(path, trap):
    """The file with a pickle that would run code when opened, and a right checksum."""
    import hashlib

    content = pickle.dumps(trap)
    head = json.loads(path.read_bytes().split(b"\n", 1)[0])
    head |= {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps(head).encode() + b"\n" + content


def test_a_finished_run_is_read_and_not_made_again(tmp_path):
    first = Trainer(tmp_path, "identity")("run", toy())

    def never():
        raise AssertionError("made again")

    again = Trainer(tmp_path, "identity")("run", never)
    assert again.final == first.final and again.curve("test")[0] == [20]
    other = Trainer(tmp_path, "another identity", tell=lambda text: None)("run", toy(steps=6))
    assert other.final["step"] == 6


def test_pieces_are_one_batch_and_two_processes_are_two_pieces(program, tmp_path):
    for name, pieces in (("one", 1), ("two", 2)):
        Trainer(tmp_path / name, "identity")("run", toy(pieces=pieces, precision="float32"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max(float((one[k] - two[k]).abs().max()) for k in one) < 1e-5

    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finished(program, tmp_path / "accumulated", pieces=2, precision="float64")
    finished(program, tmp_path / "shared", pieces=2, precision="float64", launch=launch)
    a, b = weights(tmp_path / "accumulated"), weights(tmp_path / "shared")
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-10
    logs = [(tmp_path / n / "runs" / "run" / "log.jsonl").read_text().splitlines() for n in ("accumulated", "shared")]
    losses = [[json.loads(row)["loss"] for row in rows] for rows in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_svag_in_the_loop_and_divergence(tmp_path):
    plain = Trainer(tmp_path / "a", "i")("run", toy(steps=5))
    stretched = Trainer(tmp_path / "b", "i")("run", toy(steps=5, l=3))
    assert stretched.final["step"] == 15 and stretched.log[0]["lr"] == pytest.approx(plain.log[0]["lr"] / 3)
    wild = toy(steps=400)

    def make():
        task = wild()
        for group in task.optimiser.param_groups:
            group["lr"] = 1e6
        return task

    run = Trainer(tmp_path / "c", "i")("run", make)
    assert run.final["diverged"] and run.final["step"] < 400 and run.final["loss"] is None
    assert Trainer(tmp_path / "c", "i")("run", make).final == run.final


@pytest.mark.parametrize(("options", "told"), [({"precision": "float8"}, "`precision` must be one of")])
def test_bad_settings(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        Trainer(tmp_path, "i")("run", toy(**options))
