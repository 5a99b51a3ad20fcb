"""The training loop: interrupted at any time it ends with the same bits; invalid checkpoints are skipped; pieces and processes agree."""

import errno
import json
import os
import pickle

import pytest
import torch
from torch.nn import functional as F

from sdetools.bridge import SGDM, SVAG, Batches
from sdetools.bridge.torch_optimisers import RandomScaling
from sdetools.recipes import checkpoint
from sdetools.recipes.processes import sharing
from sdetools.recipes.training import Trainer, TrainingTask


def toy(steps=20, optimiser=SGDM, dropout=0.0, **options):
    torch.manual_seed(0)
    x = torch.randn(32, 3)
    batches = Batches((x, x.sum(1, keepdim=True)), 4)
    settings = {"loss_of": lambda net, b: F.mse_loss(net(b[0]), b[1])} | options

    def make():
        model = torch.nn.Sequential(torch.nn.Dropout(dropout), torch.nn.Linear(3, 1)).eval()
        return TrainingTask(
            model, optimiser(model.parameters(), lr=0.1), steps, lambda k, i, n: tuple(part.chunk(n)[i] for part in batches.at(1, k)),
            evaluate=lambda net: {"test": float(F.mse_loss(net(x), x.sum(1, keepdim=True)))}, **settings,
        )  # fmt: skip

    return make


def stopped(at, error=KeyboardInterrupt):
    """Return a loss that raises an error at its `at`-th evaluation."""
    asked = iter(range(1, at))

    def loss_of(net, b):
        if next(asked, None) is None:
            raise error
        return F.mse_loss(net(b[0]), b[1])

    return loss_of


def unfinished(folder):
    """Make a run of 20 steps that is not marked finished, with checkpoints at 15 and 20."""
    Trainer(folder, "identity", save_every=5)("run", toy())
    (folder / "runs" / "run" / "final.json").unlink()
    return sorted((folder / "runs" / "run").glob("*.checkpoint"))


def test_an_invalid_checkpoint_is_reported_and_the_previous_one_is_used(tmp_path):
    complete = Trainer(tmp_path / "whole", "identity")("run", toy())

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
        reports = []
        again = Trainer(folder, "identity", tell=reports.append)("run", toy())
        assert len(reports) == 1 and reports[0].endswith("the previous one is used.") and "\n" not in reports[0]
        assert again.final == complete.final and again.log == complete.log
    assert not (tmp_path / "trap").exists()


def test_a_run_killed_before_it_is_marked_finished_is_completed(tmp_path):
    """After the last checkpoint there is no step left."""
    complete = Trainer(tmp_path / "whole", "identity")("run", toy())
    unfinished(tmp_path)
    again = Trainer(tmp_path, "identity", tell=pytest.fail)("run", toy())
    assert again.final == complete.final and again.log == complete.log


def test_draws_of_dropout_and_of_an_optimiser_are_resumed(tmp_path):
    """Also with a separate generator; and a model in evaluation mode is trained in training mode from the first step on."""

    def of(**options):
        return toy(
            optimiser=lambda params, lr: RandomScaling(params, lr, generator=torch.Generator().manual_seed(5)),
            dropout=0.3, every=8, **options,
        )  # fmt: skip

    complete = Trainer(tmp_path / "whole", "identity", save_every=5)("run", of())
    for at in (4, 14):
        with pytest.raises(KeyboardInterrupt):
            Trainer(tmp_path / "broken", "identity", save_every=5)("run", of(loss_of=stopped(at)))
    again = Trainer(tmp_path / "broken", "identity", save_every=5)("run", of())
    assert again.log == complete.log and len({row["loss"] for row in complete.log}) == 20


def test_later_checkpoints_of_another_run_do_not_displace_the_current_ones(tmp_path):
    unfinished(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Trainer(tmp_path, "another identity", save_every=4)("run", toy(loss_of=stopped(10)))
    names = sorted(path.name for path in (tmp_path / "runs" / "run").glob("*.checkpoint"))
    assert names == ["step-000000004.checkpoint", "step-000000008.checkpoint"]
    again = Trainer(tmp_path, "another identity", save_every=4, tell=pytest.fail)("run", toy(loss_of=stopped(13)))
    assert again.final == Trainer(tmp_path / "whole", "another identity")("run", toy()).final


def test_a_truncated_log_restarts_the_run(tmp_path):
    complete = Trainer(tmp_path / "whole", "identity")("run", toy())
    unfinished(tmp_path)
    log, reports = tmp_path / "runs" / "run" / "log.jsonl", []
    log.write_bytes(log.read_bytes()[:100])
    again = Trainer(tmp_path, "identity", tell=reports.append)("run", toy())
    assert again.log == complete.log and len(reports) == 1 and "log.jsonl is shorter than at the checkpoint" in reports[0]


def test_a_full_disk_or_gpu_is_reported_and_the_run_can_be_resumed(tmp_path, monkeypatch):
    complete = Trainer(tmp_path / "whole", "identity")("run", toy())

    def full(path, other):
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer = Trainer(tmp_path, "identity", save_every=5)
    with pytest.raises(OSError, match="the GPU's memory is too small for a piece of a batch. Use more pieces"):
        trainer("run", toy(loss_of=stopped(7, torch.cuda.OutOfMemoryError("CUDA out of memory"))))
    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match=r"the disk of .*run is full.*resumes from the last checkpoint"),
    ):
        patch.setattr(checkpoint.os, "replace", full)
        trainer("run", toy())
    assert sorted(path.name for path in (tmp_path / "runs" / "run").iterdir()) == ["log.jsonl", "step-000000005.checkpoint"]
    assert trainer("run", toy(loss_of=stopped(16))).log == complete.log


def test_a_second_process_is_refused_while_the_run_is_locked(tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="locks of files are those of POSIX")
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    with open(run / "log.jsonl", "wb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"another one writes to .*log.jsonl"):
            Trainer(tmp_path, "identity")("run", toy())
    assert Trainer(tmp_path, "identity")("run", toy()).final["step"] == 20


def trapped(path, trap):
    """Return the file with a pickle that would execute code when loaded, and a valid checksum."""
    import hashlib

    content = pickle.dumps(trap)
    head = json.loads(path.read_bytes().split(b"\n", 1)[0])
    head |= {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps(head).encode() + b"\n" + content


def test_a_finished_run_is_read_and_not_repeated(tmp_path):
    first = Trainer(tmp_path, "identity")("run", toy())

    def never():
        raise AssertionError("repeated")

    again = Trainer(tmp_path, "identity")("run", never)
    assert again.final == first.final and again.curve("test")[0] == [20]
    with pytest.raises(ValueError, match="contains a finished run of other settings"):
        Trainer(tmp_path, "another identity")("run", toy(steps=6))
    assert Trainer(tmp_path, "identity")("run", never).log == first.log


def test_accumulated_pieces_equal_a_batch(tmp_path):
    one, two = (Trainer(tmp_path / str(n), "identity")("run", toy(pieces=n)) for n in (1, 2))
    assert [row["loss"] for row in one.log] == pytest.approx([row["loss"] for row in two.log], rel=1e-4)
    assert one.final["test"] == pytest.approx(two.final["test"], rel=1e-4)


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
    for forgotten in (False, True):
        if forgotten:
            (run.folder / "final.json").unlink()
        again = Trainer(tmp_path / "c", "i")("run", make)
        assert again.final == run.final and again.log == run.log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"precision": "float8"},
            "`precision` must be one of float32, float64, bfloat16, float16; got 'float8'. Did you mean `float64`.$",
        ),
        ({"steps": -1}, "`steps` must be at least 0"),
    ],
)
def test_invalid_settings_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(tmp_path, "i")("run", toy(**options))


def test_an_optimiser_with_svag_is_refused(tmp_path):
    made = toy(l=3)

    def twice():
        task = made()
        SVAG(task.optimiser, 3)
        return task

    with pytest.raises(ValueError, match="`optimiser` of a task must be without SVAG"):
        Trainer(tmp_path, "i")("run", twice)


@pytest.mark.parametrize(
    ("device", "world", "message"),
    [("cuda:99", "1", "available"), ("cuda:1", "2", "a separate GPU"), ("abc", "2", "available")],
)
def test_unavailable_devices_are_refused(device, world, message, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ValueError, match=f"`device` must be .*{message}"), sharing(device):
        pass


def test_weights_are_kept_if_requested(tmp_path):
    """A run whose weights are not kept has the same log."""
    runs = {keep: Trainer(tmp_path / str(keep), "identity", save_every=5, keep=keep)("run", toy()) for keep in (True, False)}
    assert runs[True].log == runs[False].log and runs[True].final == runs[False].final
    assert [len(list(runs[keep].folder.glob("*.checkpoint"))) for keep in (True, False)] == [2, 0]
