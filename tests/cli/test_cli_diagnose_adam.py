"""`sdetools diagnose-adam`: a user's file in, the trial and its file out."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from sdetools.cli import main

RUN = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
x = torch.randn(128, 4)
data = x, x.sum(1, keepdim=True) + torch.randn(128, 1)
loss = torch.nn.functional.mse_loss
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
"""


def call(*arguments):
    return CliRunner().invoke(main, ["diagnose-adam", *map(str, arguments)])


def test_a_file_is_run_and_the_trial_written(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    done = call(tmp_path / "run.py", "--batch-size", 8, "--steps", 100, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "AdamW, lr=0.01, betas=(0.9, 0.999), weight_decay=0.01" in done.stdout and "uncalibrated" in done.stdout
    assert "beta_1: beta_1 = 0 does as well here; its first moments take 20 bytes" in done.stdout
    found = json.loads((tmp_path / "out" / "adam_trial.json").read_text())
    assert found["advice"] == "drop" and len(found["trial"]["momentum"]) == 6 and found["trial"]["steps"] == 100


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        (None, [], "FILE must exist"),
        (RUN.replace("optimizer =", "other ="), [], "FILE must define `optimizer`"),
        (RUN.replace("AdamW", "SGD"), [], "must be torch.optim.Adam or AdamW; got SGD"),
        (RUN.replace("model =", "net =").replace("model.p", "net.p"), [], "FILE must define `model`"),
        (RUN, ["--seeds", "1"], "`seeds`"),
        (RUN, ["--out", "FILE"], "`out` must be a folder"),
    ],
)
def test_invalid_input_is_one_line(tmp_path, text, more, words):
    file = tmp_path / "run.py"
    if text is not None:
        file.write_text(text)
    done = call(file, "--batch-size", "8", *(str(file) if one == "FILE" else one for one in more))
    assert done.exit_code == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1 and done.stdout == ""


def test_help_has_an_example():
    assert "sdetools diagnose-adam my_run.py" in call("--help").stdout
