"""Where machine code is kept: what others may have put there never runs, and a place is not needed."""

from __future__ import annotations

import ctypes
import json
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
from sdetools import _compiled, _machine_code
from sdetools.graph import interpreter, rows
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
    (code,) = Path(place).glob("k*.code")
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
    (code,) = Path(place).glob("*.code")
    whole = code.read_bytes()
    code.write_bytes(whole[: len(whole) // 2])
    assert in_a_process(SDETOOLS_CACHE=tmp_path / "own") == (place, "")
    assert not (tmp_path / "mark").exists() and file.read_text() == right and code.read_bytes() == whole


def chosen(monkeypatch, **environment) -> tuple[Path | None, str]:
    """The folder and the warning in another environment."""
    for name in ("SDETOOLS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(tempfile, "tempdir", environment.get("TMPDIR") and str(environment["TMPDIR"]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return _machine_code.folder.__wrapped__(), " ".join(str(w.message) for w in said)


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
    assert _machine_code.fault(file) == ""
    file.chmod(0o666)
    assert "others may write" in _machine_code.fault(file)
    link = tmp_path / "b.nbc"
    link.symlink_to(file)
    assert "symbolic link" in _machine_code.fault(link)


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """The file of a function that has been compiled, whole."""
    file = tmp_path_factory.mktemp("code") / "a.code"

    def answer(a, b, c, d, e, f):
        return a * b + f

    made = _compiled.callback(answer, file, "key")
    assert _machine_code.load(file, "key") != made.address and called(file, "key") == made.ctypes(6, 7, 0, 0, 0, 1) == 43
    return file


def called(file: Path, key: str) -> int | None:
    found = _machine_code.load(file, key)
    return None if found is None else ctypes.CFUNCTYPE(*[ctypes.c_int64] * 7)(found)(6, 7, 0, 0, 0, 1)


def head_of(file: Path, **more) -> bytes:
    head, _, own = file.read_bytes().partition(b"\n")
    return json.dumps(json.loads(head) | more).encode() + b"\n" + own


WRONG = {
    "a bit of the code": lambda file: file.read_bytes()[:-40] + bytes([file.read_bytes()[-40] ^ 1]) + file.read_bytes()[-39:],
    "cut short": lambda file: file.read_bytes()[:-1],
    "of an older text": lambda file: head_of(file, key="another"),
    "calls what is not there": lambda file: head_of(file, needs=["no_such_function_anywhere"]),
    "calls what Numba has": lambda file: head_of(file, needs=["numba_gil_ensure"]),
    "no head": lambda file: b"{}\n",
    "not of ours": lambda file: b"\x7fELF" + bytes(100),
    "empty": lambda file: b"",
}


@pytest.mark.parametrize("name", WRONG)
def test_machine_code_that_is_not_right_does_not_run(tmp_path, code, name):
    wrong = tmp_path / "wrong.code"
    wrong.write_bytes(WRONG[name](code))
    assert _machine_code.load(wrong, "key") is None
    wrong.write_bytes(code.read_bytes())  # negative control
    assert called(wrong, "key") == 43


def test_machine_code_that_others_may_have_written_does_not_run(tmp_path, code):
    theirs = tmp_path / "theirs.code"
    theirs.write_bytes(code.read_bytes())
    theirs.chmod(0o666)
    link = tmp_path / "link.code"
    link.symlink_to(code)
    assert (
        _machine_code.load(theirs, "key")
        is _machine_code.load(link, "key")
        is _machine_code.load(tmp_path / "none", "key")
        is None
    )


def test_what_may_raise_an_error_is_not_kept(tmp_path):
    """Numba's way of raising needs Numba: such code would bring down a process that has not imported it."""

    def careful(a, b, c, d, e, f):
        if a > b:
            raise ValueError("too many")
        return a

    _compiled.callback(careful, tmp_path / "a.code", "key")
    assert not (tmp_path / "a.code").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("room", [rows, draw_rows, library])
def test_all_functions_called_by_address_run_without_numba(tmp_path, monkeypatch, room, dtype):
    monkeypatch.setattr(_compiled, "code_file", lambda module, name: tmp_path / name)
    names = (*room.NAMES, *((rows.PROGRAM, rows.PRODUCT, rows.SMALL_PRODUCT) if room is rows else ()))
    for name in names:
        function = interpreter.function if name == rows.PROGRAM else room.function
        function.__wrapped__(*([dtype] if name == rows.PROGRAM else [name, dtype]))
    assert {file.name for file in tmp_path.iterdir()} == {f"{name}_{dtype}" for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 70])
def test_what_is_found_compiled_needs_no_compiler(tmp_path, dim):
    """The second process does not import Numba, in either way of multiplying; the first has to."""
    loss = f"st.losses.quadratic(__import__('numpy').eye({dim}))"
    code = RUN.replace('st.losses.from_expression("x**2/2")', loss).replace("none(1)", f"none({dim})")
    code = code.replace("[1.0]", f"[1.0] * {dim}").replace('"x"', '"x0"')
    code += "import sys; print('numba' in sys.modules, file=sys.stderr)"
    assert in_a_process(code=code, SDETOOLS_CACHE=tmp_path / "own")[1] == "True\n"
    assert in_a_process(code=code, SDETOOLS_CACHE=tmp_path / "own")[1] == "False\n"


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
    assert not said and not list(package.rglob("*.code"))
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

    @_machine_code.once
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


def test_a_disk_that_is_full_keeps_no_half_of_a_file(tmp_path, monkeypatch):
    def full(file, content):
        with file.open("wb") as out:
            out.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        _machine_code.write(tmp_path / "code", b"0" * 100)
    assert not list(tmp_path.iterdir())
