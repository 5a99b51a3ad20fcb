"""Steps: float16 with loss scaling, running statistics of pieces, batches made in advance, no wait for the device, compiled networks, executors."""

import concurrent.futures
import sys
import threading
import types

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sdetools.bridge import SGDM, Batches
from sdetools.recipes import checkpoint
from sdetools.recipes.logs import TensorBoardLogger, WandbLogger
from sdetools.recipes.prefetch import prefetched
from sdetools.recipes.steps import Stepper
from sdetools.recipes.training import Job, Trainer, TrainingTask

X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def task(steps=20, scale=1.0, middle=torch.nn.Identity, loss_of=lambda net, b: F.mse_loss(net(b[0]), b[1]), **options):
    """Return a linear regression; `scale` multiplies its targets."""
    batches = Batches((X, scale * Y), 4)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), middle(), torch.nn.Linear(4, 1))
    return TrainingTask(
        model, SGDM(model.parameters(), lr=0.02), steps, lambda k, i, n: tuple(part.chunk(n)[i] for part in batches.at(1, k)), loss_of,
        lambda net: {"test": float(F.mse_loss(net(X), scale * Y))}, **options,
    )  # fmt: skip


def weights(folder, name="run"):
    return checkpoint.read(max((folder / "runs" / name).glob("*.checkpoint")), f"identity {name}")["model"]


def test_an_overflow_skips_the_step_halves_the_scale_and_the_run_goes_on(tmp_path):
    """The first gradients exceed 65504 / 65536, the largest number of float16 over the initial scale."""
    first = Trainer(tmp_path, "identity")("first", lambda: task(1, 4.0, precision="float16"))
    torch.manual_seed(0)
    start = task(scale=4.0).model.state_dict()
    assert first.final["loss_scale"] == 2.0**15 and "diverged" not in first.final
    assert all(torch.equal(start[name], part) for name, part in weights(tmp_path, "first").items())
    run, exact = (
        Trainer(tmp_path, "identity")(kind, lambda kind=kind: task(60, 4.0, precision=kind)) for kind in ("float16", "float32")
    )
    scales = [row["loss_scale"] for row in run.log]
    assert scales[0] == 2.0**15 and scales == sorted(scales, reverse=True) and scales[-1] > 2.0**8
    assert run.final["step"] == 60 and run.final["test"] < 0.1 * run.log[0]["loss"]
    # Negative control: float32 takes the first step, and has no scale.
    assert "loss_scale" not in exact.final
    moved = Trainer(tmp_path, "identity")("moved", lambda: task(1, 4.0))
    assert moved.final["loss"] == pytest.approx(first.final["loss"], rel=1e-2)
    assert not torch.equal(start["0.weight"], weights(tmp_path, "moved")["0.weight"])


def stopped(at):
    asked = iter(range(1, at))

    def loss_of(net, b):
        if next(asked, None) is None:
            raise KeyboardInterrupt
        return F.mse_loss(net(b[0]), b[1])

    return loss_of


def test_loss_scaling_is_resumed_with_the_same_bits(tmp_path):
    complete = Trainer(tmp_path / "whole", "identity")("run", lambda: task(scale=4.0, precision="float16"))
    for name in ("resumed", "without scaler"):
        with pytest.raises(KeyboardInterrupt):
            Trainer(tmp_path / name, "identity", save_every=5)(
                "run", lambda: task(scale=4.0, precision="float16", loss_of=stopped(8))
            )
    path = tmp_path / "without scaler" / "runs" / "run"
    state = checkpoint.read(path / "step-000000005.checkpoint", "identity run")
    assert state["scaler"]["scale"] < 2.0**16
    checkpoint.write(path, "identity run", 5, state | {"scaler": torch.amp.GradScaler("cpu").state_dict()})
    resumed, control = (
        Trainer(tmp_path / name, "identity")("run", lambda: task(scale=4.0, precision="float16"))
        for name in ("resumed", "without scaler")
    )
    assert resumed.log == complete.log and len({row["loss_scale"] for row in complete.log}) > 1
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert control.log != complete.log  # negative control: a new scaler takes other steps


@pytest.mark.parametrize("l", [None, 2])
def test_pieces_of_a_batch_leave_the_mean_of_their_statistics(l):
    """Each batch counts once; with SVAG a step has two."""
    torch.manual_seed(0)
    one = task(middle=lambda: torch.nn.BatchNorm1d(4), pieces=2, l=l)
    first, norm = one.model[0], one.model[1]
    mean, variance = torch.zeros(4), torch.ones(4)
    for _, number in one.parts(0):
        halves = [first(one.batch(number, piece, 2)[0]).detach() for piece in range(2)]
        mean = 0.9 * mean + 0.1 * sum(half.mean(0) for half in halves) / 2
        variance = 0.9 * variance + 0.1 * sum(half.var(0) for half in halves) / 2
    stepper = Stepper(one, "cpu")
    with stepper.batches(0) as batches:
        stepper.step(0, 0, batches)
    assert torch.allclose(norm.running_mean, mean, atol=1e-6) and torch.allclose(norm.running_var, variance, atol=1e-6)
    assert int(norm.num_batches_tracked) == len(one.parts(0))
    # Negative control: torch's own statistics move once per piece.
    plain = torch.nn.BatchNorm1d(4)
    for half in halves:
        plain(half)
    assert int(plain.num_batches_tracked) == 2 and not torch.allclose(plain.running_mean, mean, atol=1e-3)


class Waits(TorchDispatchMode):
    """Counter of operations that wait for the device, because a number leaves it."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.name() == "aten::_local_scalar_dense"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options", [{}, {"clip": 1.0}, {"pieces": 2, "middle": lambda: torch.nn.BatchNorm1d(4)}, {"precision": "bfloat16"}, {"l": 2}]
)
def test_no_step_waits_for_the_device(options):
    stepper = Stepper(task(**options), "cpu")
    with stepper.batches(0) as batches, Waits() as waits:
        for k in range(3):
            stepper.step(k, 0, batches)
    assert waits.count == 0
    losses = stepper.losses()
    assert len(losses) == 3 and stepper.losses() == []
    with Waits() as waits:  # negative control
        float(torch.ones(()))
    assert waits.count == 1


def test_batches_made_in_advance_are_the_same_and_only_the_asked_for_pieces_are_made():
    made, losses = [], []
    for ahead in (0, 3):
        torch.manual_seed(0)
        one = task(5, pieces=2)
        own = one.batch
        one.batch = lambda *address: made.append((address, threading.current_thread().name)) or own(*address)
        stepper = Stepper(one, "cpu")
        with stepper.batches(1, ahead) as batches:
            for k in range(1, 5):
                stepper.step(k, 0, batches)
        losses.append(stepper.losses())
    assert losses[0] == losses[1]
    addresses = [(number, piece, 2) for number in range(1, 5) for piece in range(2)]
    assert [address for address, _ in made] == addresses * 2
    assert {name.split("_")[0] for _, name in made[8:]} == {"prefetch"} != {name for _, name in made[:8]}


def test_results_are_made_in_order_and_errors_are_raised_at_their_place():
    asked = []

    def make(n):
        asked.append(n)
        return 10 // n

    with prefetched(make, ((n,) for n in (5, 2, 0, 1)), ahead=1) as results:
        assert next(results) == 2 and len(asked) <= 2  # no further than one ahead
        assert next(results) == 5
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_a_compiled_network_takes_the_same_steps(tmp_path, monkeypatch):
    """torch.compile without code generation, so that bits are equal; evaluations use the network as it is."""
    plain = Trainer(tmp_path / "plain", "identity")("run", lambda: task(5))
    compiled, compile = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compiled.append(compile(net, backend="eager")) or compiled[-1])
    run = Trainer(tmp_path / "compiled", "identity", compiled=True)("run", lambda: task(5))
    assert run.log == plain.log and len(compiled) == 1
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "plain").keys()


def test_channels_last_changes_the_layout_and_no_value():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 6, 6)
    strides = []

    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())
        return TrainingTask(model, SGDM(model.parameters(), lr=0.1), 3, lambda k, i, n: images, lambda net, b: strides.append(b.stride(1)) or net(b).square().mean(), lambda net: {})  # fmt: skip

    losses = []
    for last in (False, True):
        stepper = Stepper(make(), "cpu", channels_last=last)
        with stepper.batches(0) as batches:
            for k in range(3):
                stepper.step(k, 0, batches)
        losses.append(stepper.losses())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert strides == [36] * 3 + [1] * 3


def test_a_diverged_run_ends_at_its_first_infinite_loss_whenever_that_is_found(tmp_path):
    """The losses are checked at every tenth step and at checkpoints; the log does not depend on it."""

    def make():
        one = task(40)
        one.optimiser.param_groups[0]["lr"] = 1e5
        return one

    runs = [Trainer(tmp_path / str(every), "identity", save_every=every)("run", make) for every in (1, 7, 200)]
    assert runs[0].final["diverged"] and runs[0].final["test"] is None and runs[0].final["step"] < 40
    assert runs[0].log == runs[1].log == runs[2].log


def make_small(targets):
    return task(3, targets)


def test_an_executor_executes_the_runs_and_stays_open(tmp_path):
    """Runs of a thread are those of the trainer itself; jobs must be picklable."""
    from functools import partial

    jobs = {n: Job(f"run-{n}", partial(make_small, float(n)), seed=n) for n in (1, 2)}
    progress = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        trainer = Trainer(tmp_path / "pool", "identity", executor=pool, progress=lambda *numbers: progress.append(numbers))
        found = trainer.all(jobs)
        assert pool.submit(len, "ab").result() == 2
        assert trainer.all(jobs)[1].log == found[1].log and progress == [(1, 2), (2, 2)]
        with pytest.raises(ValueError, match="must be a module-level function"):
            trainer.all({0: Job("local", lambda: task(3))})
    plain = Trainer(tmp_path / "plain", "identity").all(jobs)
    assert {n: run.log for n, run in found.items()} == {n: run.log for n, run in plain.items()}


def test_loggers_receive_each_row_once(tmp_path):
    received = []

    class Logger:
        def log(self, step, numbers):
            received.append((step, dict(numbers)))

    run = Trainer(tmp_path, "identity", loggers=[Logger()])("run", lambda: task(4, every=2))
    expected = [(row["step"], {f"run/{name}": value for name, value in row.items() if name != "step"}) for row in run.log]
    assert received == expected and received[1][1].keys() == {"run/lr", "run/loss", "run/test"}
    Trainer(tmp_path, "identity", loggers=[Logger()])("run", lambda: task(4))
    assert len(received) == 4  # a finished run is not reported again


def test_adapters_of_tensorboard_and_wandb_use_their_documented_calls(tmp_path, monkeypatch):
    calls = []

    def recorder(name, result=None):
        return lambda self, *args, **options: calls.append((name, args, options)) or result

    writer = type("SummaryWriter", (), {n: recorder(n) for n in ("__init__", "add_scalar", "close")})
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=writer))
    board = TensorBoardLogger(tmp_path)
    board.log(3, {"run/loss": 0.5})
    board.close()
    assert calls == [("__init__", (str(tmp_path),), {}), ("add_scalar", ("run/loss", 0.5, 3), {}), ("close", (), {})]
    calls.clear()
    run = type("Run", (), {n: recorder(n) for n in ("define_metric", "log", "finish")})()
    init = recorder("init", run)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: init(None, **options)))
    board = WandbLogger("project", mode="offline")
    board.log(3, {"run/loss": 0.5})
    board.close()
    assert calls[0] == ("init", (), {"project": "project", "mode": "offline"})
    assert calls[-2:] == [("log", ({"run/loss": 0.5, "step": 3},), {}), ("finish", (), {})]
