"""Where machine code is kept: what others may have put there never runs, and a place is not needed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import sdetools
from sdetools import _compiled
from sdetools.graph import rows
from sdetools.simulation import draw_rows, library

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="modes and owners are those of POSIX")

RUN = """
import sdetools as st
oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.none(1))
run = st.simulate(st.SGD(oracle, st.schedules.constant(0.5)), [1.0], 1.0, paths=5, observe=["x"], threads=1, backend="numba")
print(run.at("x").value)
from sdetools.simulation.kernel import folder
print(folder())
"""


def in_a_process(package: Path = Path(sdetools.__file__).parent, code: str = RUN, **environment):
    """Value and folder of a run in a process of its own, and what it said."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("SDETOOLS_CACHE", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
    }
    kept |= {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"} | {k: str(v) for k, v in environment.items()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept, cwd="/", capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    value, place = done.stdout.split("\n")[:2]
    assert value == "0.25"
    return place, done.stderr


@pytest.mark.slow
def test_a_folder_of_our_own_is_used_closed_to_others_and_found_again(tmp_path):
    place, said = in_a_process(SDETOOLS_CACHE=tmp_path / "own")
    assert place == str(tmp_path / "own/kernels") and not said
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    (code,) = Path(place).glob("k*.run-*.nbc")
    before = code.stat().st_mtime_ns
    assert in_a_process(SDETOOLS_CACHE=tmp_path / "own") == (place, "") and code.stat().st_mtime_ns == before
    os.chmod(place, 0o755)  # as older versions made it: nobody else could write
    assert in_a_process(SDETOOLS_CACHE=tmp_path / "own") == (place, "")
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700


@pytest.mark.slow
def test_a_planted_text_never_runs_and_damaged_machine_code_is_made_again(tmp_path):
    """A kernel file with another text: the text at hand is what runs, and it is put back. Machine code cut short is as good as none."""
    place, _ = in_a_process(SDETOOLS_CACHE=tmp_path / "own")
    (file,) = Path(place).glob("k*.py")
    right = file.read_text()
    file.write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\n{right}")
    for code in (*Path(place).glob("*.nbc"), *Path(place).glob("*.nbi")):
        code.write_bytes(code.read_bytes()[:40])
    assert in_a_process(SDETOOLS_CACHE=tmp_path / "own") == (place, "")
    assert not (tmp_path / "mark").exists() and file.read_text() == right


def chosen(monkeypatch, **environment) -> tuple[Path | None, str]:
    """The folder and the warning in another environment."""
    for name in ("SDETOOLS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(tempfile, "tempdir", environment.get("TMPDIR") and str(environment["TMPDIR"]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return _compiled.folder.__wrapped__(), " ".join(str(w.message) for w in said)


@pytest.mark.parametrize("way", ["mode", "group", "link", "parent", "owner", "owner of the parent"])
def test_a_folder_that_another_user_may_have_made_is_left_alone(tmp_path, monkeypatch, way):
    """Machine code planted in it would run; a sentence says so, and a fresh folder serves the process."""
    base = tmp_path / "shared"
    place = base / "kernels"
    place.mkdir(parents=True, mode=0o700)
    base.chmod(0o700)
    if way == "mode":
        place.chmod(0o777)
    elif way == "group":
        place.chmod(0o770)
    elif way == "link":
        place.rmdir()
        (tmp_path / "theirs").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "theirs")
    elif way == "parent":
        base.chmod(0o777)
    elif os.getuid() == 0:
        os.chown(place if way == "owner" else base, 65534, 65534)
    else:
        pytest.skip("only root can give a folder away")
    used, said = chosen(monkeypatch, SDETOOLS_CACHE=base)
    assert used != place and stat.S_IMODE(used.stat().st_mode) == 0o700 and used.parent == Path(tempfile.gettempdir())
    assert f"{place} is not used for compiled kernels, because " in said and "SDETOOLS_CACHE" in said
    why = {"link": "is a symbolic link", "owner": "belongs to another user", "owner of the parent": "belongs to another user"}
    assert why.get(way, "others may write to") in said


def test_a_folder_like_tmp_may_be_shared(tmp_path, monkeypatch):
    """Anybody may write to it, nobody can take away what is another's."""
    tmp_path.chmod(0o1777)
    assert chosen(monkeypatch, SDETOOLS_CACHE=tmp_path) == (tmp_path / "kernels", "")


@pytest.mark.parametrize("planted", ["nothing", "link", "folder"])
def test_the_name_in_the_temporary_place_can_be_guessed(tmp_path, monkeypatch, planted):
    guessed = tmp_path / f"sdetools-{os.getuid()}"
    if planted == "link":
        (tmp_path / "theirs/kernels").mkdir(parents=True, mode=0o700)
        guessed.symlink_to(tmp_path / "theirs")
    if planted == "folder":
        guessed.mkdir()
        guessed.chmod(0o777)
    used, said = chosen(monkeypatch, HOME="/proc/nowhere", TMPDIR=tmp_path)
    assert (used == guessed / "kernels") == (not said) == (planted == "nothing")
    assert {"link": "is a symbolic link", "folder": "others may write"}.get(planted, "") in said


def test_files_of_others_in_our_folder_are_not_read(tmp_path):
    """What is asked of a folder is asked of each file of machine code, too."""
    file = tmp_path / "a.nbc"
    file.touch(mode=0o600)
    assert _compiled.fault(file) == ""
    file.chmod(0o666)
    assert "others may write" in _compiled.fault(file)
    link = tmp_path / "b.nbc"
    link.symlink_to(file)
    assert "symbolic link" in _compiled.fault(link)


def copied(top: Path) -> Path:
    return Path(shutil.copytree(Path(sdetools.__file__).parent, top / "sdetools", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.slow
@pytest.mark.parametrize("temporary", [True, False])
def test_a_library_that_cannot_be_written_without_a_home(tmp_path, temporary):
    """Compiled in the temporary place, or for the process alone where there is none.

    Root may write everywhere, so beside the modes a file stands where each `__pycache__` would be.
    """
    package = copied(tmp_path / "installed")
    for room in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (room / "__pycache__").touch()
        room.chmod(0o555)
    (tmp_path / "tmp").mkdir()
    code = RUN if temporary else "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere']" + RUN
    used, said = in_a_process(package, code, HOME="/proc/nowhere", TMPDIR=tmp_path / "tmp")
    assert not said and not list(package.rglob("*.nbi"))
    assert used == (str(tmp_path / f"tmp/sdetools-{os.getuid()}/kernels") if temporary else "None")
    for room in (package, *(path for path in package.rglob("*") if path.is_dir())):
        room.chmod(0o755)


@pytest.mark.slow
def test_an_edit_in_a_file_that_is_inlined_compiles_anew(tmp_path):
    """The sines of `elementary.py` are inlined in the functions on rows: an edit changes results at once, without a touch of any other file."""
    package = copied(tmp_path)
    # 2^-30 is its own sine to 18 digits, so the quotient is 1/4 exactly
    code = RUN.replace('"x"]', '"sin(x/2**28)"]').replace('at("x").value', 'at("sin(x/2**28)").value * 2**28')
    in_a_process(package, code, SDETOOLS_CACHE=tmp_path / "cache")
    sines = package / "graph/elementary.py"
    sines.write_text(sines.read_text().replace("            x if math.fabs(x)", "            2.0 * x if math.fabs(x)"))
    with pytest.raises(AssertionError, match=r"0\.5"):
        in_a_process(package, code, SDETOOLS_CACHE=tmp_path / "cache")


def test_threads_that_ask_at_a_time_get_one_function():
    """Of two, one would be let go with its machine code, while a kernel still has its address."""
    made, start = [], threading.Barrier(4)

    @_compiled.once
    def slow(name):
        made.append(name)
        time.sleep(0.05)
        return object()

    def ask(_):
        start.wait()
        return slow("a")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert made == ["a"] and all(one is found[0] for one in found)
    for room in (rows, draw_rows, library):
        assert room.function(room.NAMES[0]) is room.function(room.NAMES[0])
