"""Tests of packs of claims: packages with an entry point, as pip installs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdetools.claims import collect, pack, verify

CLAIM = """
import sdetools as st
from {package} import CONSTANT

@st.claim({id!r}, statement="s")
def {package}_claim(run):
    run.measure("m", CONSTANT, at_most=2.0)
"""


def install(folder: Path, package: str, *points: str) -> None:
    """Write a package with claims in its module `checks` and in its folder `folder`, and what pip records of it."""
    (folder / package / "folder").mkdir(parents=True)
    (folder / package / "__init__.py").write_text("CONSTANT = 1.0\n")
    (folder / package / "folder" / "__init__.py").touch()
    for file, id in (("checks.py", "one-file"), ("folder/claims_a.py", "in-a-folder"), ("folder/claims_b.py", "another")):
        (folder / package / file).write_text(CLAIM.format(package=package, id=id))
    record = folder / f"{package}-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("\n".join(["[sdetools.claims]", *points]) + "\n")


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Return the folder in which two packs are installed."""
    install(
        tmp_path, "quarks", "quarks = quarks.folder", "quark-file = quarks.checks", "gone = quarks.gone", "absent = no_such.mod"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_pack_is_the_folder_or_file_of_its_module(packed):
    assert pack("quarks") == packed / "quarks" / "folder" and pack("quark-file") == packed / "quarks" / "checks.py"
    assert [item.id for item in collect([pack("quarks"), pack("quark-file")])] == ["in-a-folder", "another", "one-file"]
    assert [item.verdict for item in verify(pack("quarks")).claims] == ["supported"] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quark", "got 'quark'. Did you mean `quarks`? Installed: absent, gone, quark-file, quarks."),
        ("gone", "the pack 'gone' must name a module that can be found; got 'quarks.gone'. Install the pack again."),
        ("absent", "the pack 'absent' must name a module that can be found; got 'no_such.mod'. Install the pack again."),
    ],
)
def test_an_unknown_or_broken_pack_is_named(packed, name, message):
    with pytest.raises(ValueError) as error:
        pack(name)
    assert message in str(error.value)


def test_the_command_runs_packs_beside_files(packed, tmp_path):
    """In processes of their own too, which know the pack by its path."""
    own = tmp_path / "own.py"
    own.write_text(CLAIM.format(package="quarks", id="own"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packed), os.environ.get("PYTHONPATH", "")])}
    line = [sys.executable, "-m", "sdetools.cli", "verify", str(own), "--pack", "quarks", "--pack", "quark-file"]
    line += ["--jobs", "2", "--out", str(tmp_path / "out")]
    ended = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    entries = json.loads((tmp_path / "out" / "results.json").read_text())["claims"]
    assert [entry["id"] for entry in entries] == ["own", "in-a-folder", "another", "one-file"]
    wrong = subprocess.run([*line[:4], "--pack", "no"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert wrong.returncode == 2 and "must be the name of an installed pack of claims; got 'no'" in wrong.stderr
