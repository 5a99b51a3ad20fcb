"""Exported weights equal those of the run, bit for bit."""

import sys

import pytest
import torch
from torch.nn import functional as F

from sdetools.bridge import SGDM, Batches
from sdetools.recipes.export import export
from sdetools.recipes.training import Trainer, TrainingTask


def trained(folder, **options):
    x = torch.arange(24.0).reshape(8, 3) / 24
    batches = Batches((x, x.sum(1, keepdim=True)), 4)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    task = TrainingTask(
        model, SGDM(model.parameters(), lr=0.1), 3, lambda k, piece, pieces: batches.at(0, k), lambda net, b: F.mse_loss(net(b[0]), b[1]), lambda net: {},
    )  # fmt: skip
    return Trainer(folder, "an experiment", **options)("run", lambda: task), model


def test_exported_weights_are_those_of_the_run(tmp_path):
    safetensors = pytest.importorskip("safetensors", reason="weights are exported by safetensors")
    from safetensors.torch import load_file

    run, model = trained(tmp_path)
    path = export(run.folder, tmp_path / "weights.safetensors")
    found = load_file(path)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.items())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"identity": "an experiment run", "step": "3"}
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["weights.safetensors"]


def test_a_run_without_weights_and_a_missing_package_are_reported(tmp_path, monkeypatch):
    run, _ = trained(tmp_path, keep=False)
    pytest.importorskip("safetensors", reason="weights are exported by safetensors")
    with pytest.raises(ValueError, match="must be a folder with a checkpoint; .*run has none"):
        export(run.folder, tmp_path / "weights.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match="exporting weights needs safetensors; install it"):
        export(run.folder, tmp_path / "weights.safetensors")
