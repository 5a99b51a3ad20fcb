"""The cache of machine code: files that other users may have written are never run, and no writable folder is required."""

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
from sdetools.manifold import kernels
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
    """The cache folder and the standard error of a run in a new process."""
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
def test_the_configured_folder_is_private_and_reused(tmp_path):
    """The folder of SDETOOLS_CACHE is used, is readable by its owner alone, and is reused by the next process."""
    place, said = in_a_process(SDETOOLS_CACHE=tmp_path / "own")
    assert place == str(tmp_path / "own/kernels") and not said
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    (code,) = Path(place).glob("k*.code")
    before = code.stat().st_mtime_ns
    assert in_a_process(SDETOOLS_CACHE=tmp_path / "own") == (place, "") and code.stat().st_mtime_ns == before
    os.chmod(place, 0o755)  # the mode in older versions: nobody else could write
    assert in_a_process(SDETOOLS_CACHE=tmp_path / "own") == (place, "")
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700


@pytest.mark.slow
def test_a_planted_text_never_runs_and_damaged_machine_code_is_recompiled(tmp_path):
    """A kernel file with another text is overwritten by the text in memory, which is what runs.

    Truncated machine code is compiled again.
    """
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
    """The folder and the warnings under other environment variables."""
    for name in ("SDETOOLS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(tempfile, "tempdir", environment.get("TMPDIR") and str(environment["TMPDIR"]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return _machine_code.folder.__wrapped__(), " ".join(str(w.message) for w in said)


@pytest.mark.parametrize("cause", ["mode", "group", "link", "parent", "owner", "owner of the parent"])
def test_a_folder_that_another_user_may_have_made_is_not_used(tmp_path, monkeypatch, cause):
    """Machine code planted in it would run; a warning reports it, and a temporary folder is used instead."""
    base = tmp_path / "shared"
    place = base / "kernels"
    place.mkdir(parents=True, mode=0o700)
    base.chmod(0o700)
    if cause == "mode":
        place.chmod(0o777)
    elif cause == "group":
        place.chmod(0o770)
    elif cause == "link":
        place.rmdir()
        (tmp_path / "theirs").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "theirs")
    elif cause == "parent":
        base.chmod(0o777)
    elif os.getuid() == 0:
        os.chown(place if cause == "owner" else base, 65534, 65534)
    else:
        pytest.skip("only root can give a folder away")
    used, said = chosen(monkeypatch, SDETOOLS_CACHE=base)
    assert used != place and stat.S_IMODE(used.stat().st_mode) == 0o700 and used.parent == Path(tempfile.gettempdir())
    assert f"{place} is not used for compiled kernels, because " in said and "SDETOOLS_CACHE" in said
    why = {"link": "is a symbolic link", "owner": "belongs to another user", "owner of the parent": "belongs to another user"}
    assert why.get(cause, "others may write to") in said


def test_a_folder_like_tmp_may_be_shared(tmp_path, monkeypatch):
    """With the sticky bit anybody may write to a folder, but nobody can replace the files of another user."""
    tmp_path.chmod(0o1777)
    assert chosen(monkeypatch, SDETOOLS_CACHE=tmp_path) == (tmp_path / "kernels", "")


@pytest.mark.parametrize("planted", ["nothing", "link", "folder"])
def test_a_planted_name_in_the_temporary_folder_is_not_used(tmp_path, monkeypatch, planted):
    """A link or folder planted at the default name in the temporary folder is not used."""
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
    """The checks of a folder apply to each file of machine code, too."""
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
    """A complete file of machine code of a compiled function."""
    file = tmp_path_factory.mktemp("code") / "a.code"

    def answer(a, b, c, d, e, f):
        return a * b + f

    made = _compiled.callback(answer, file, "key")
    assert _machine_code.load(file, "key") != made.address and called(file, "key") == made.ctypes(6, 7, 0, 0, 0, 1) == 43
    return file


def called(file: Path, key: str) -> int | None:
    """The result of the function in a file, or None if the file is not loaded."""
    found = _machine_code.load(file, key)
    return None if found is None else ctypes.CFUNCTYPE(*[ctypes.c_int64] * 7)(found)(6, 7, 0, 0, 0, 1)


def head_of(file: Path, **more) -> bytes:
    """The content of a file with changed entries in its header."""
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
def test_invalid_machine_code_does_not_run(tmp_path, code, name):
    """Damaged, outdated or foreign files are not loaded."""
    wrong = tmp_path / "wrong.code"
    wrong.write_bytes(WRONG[name](code))
    assert _machine_code.load(wrong, "key") is None
    wrong.write_bytes(code.read_bytes())  # negative control
    assert called(wrong, "key") == 43


def test_machine_code_that_others_may_have_written_does_not_run(tmp_path, code):
    """A file that others may write to, a link and a missing file are not loaded."""
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


def test_code_that_may_raise_is_not_cached(tmp_path):
    """Exceptions in Numba need Numba: such code would crash a process that has not imported it."""

    def careful(a, b, c, d, e, f):
        if a > b:
            raise ValueError("too many")
        return a

    _compiled.callback(careful, tmp_path / "a.code", "key")
    assert not (tmp_path / "a.code").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("module", [rows, draw_rows, library, kernels])
def test_all_functions_called_by_address_run_without_numba(tmp_path, monkeypatch, module, dtype):
    """The machine code of every function that kernels call by address is cached."""
    monkeypatch.setattr(_compiled, "code_file", lambda _, name: tmp_path / name)
    names = (*module.NAMES, *((rows.PROGRAM, rows.PRODUCT, rows.SMALL_PRODUCT) if module is rows else ()))
    for name in names:
        function = interpreter.function if name == rows.PROGRAM else module.function
        function.__wrapped__(*([dtype] if name == rows.PROGRAM else [name, dtype]))
    assert {file.name for file in tmp_path.iterdir()} == {f"{name}_{dtype}" for name in names}


SLOW = """
oracle = st.NoisyOracle(st.losses.from_expression("(x*y - 1)**2/2"), st.noise.gaussian(dim=2))
slow = st.EulerMaruyama(st.SlowSDE(oracle, st.schedules.constant(0.5), at=[1.0, 1.0]), 0.5)
run = st.simulate(slow, [1.2, 0.9], 1.0, paths=5, observe=["x"], threads=1, backend="numba")
"""


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 70, "slow"])
def test_cached_code_needs_no_compiler(tmp_path, dim):
    """The first process imports Numba, the second one does not, with either method of matrix multiplication, and on a manifold of minimisers."""
    loss = f"st.losses.quadratic(__import__('numpy').eye({dim}))"
    code = RUN.replace('st.losses.from_expression("x**2/2")', loss).replace("none(1)", f"none({dim})")
    code = code.replace("[1.0]", f"[1.0] * {dim}").replace('"x"', '"x0"') if dim != "slow" else RUN + SLOW
    code += "import sys; print('numba' in sys.modules, file=sys.stderr)"
    assert in_a_process(code=code, SDETOOLS_CACHE=tmp_path / "own")[1] == "True\n"
    assert in_a_process(code=code, SDETOOLS_CACHE=tmp_path / "own")[1] == "False\n"


def copied(top: Path) -> Path:
    """A copy of the package."""
    return Path(shutil.copytree(Path(sdetools.__file__).parent, top / "sdetools", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.slow
@pytest.mark.parametrize("temporary", [True, False])
def test_a_read_only_installation_without_a_home_folder(tmp_path, temporary):
    """Kernels are compiled in the temporary folder, or for the process alone if there is none.

    Root may write everywhere, so besides the modes a file takes the place of each `__pycache__`.
    """
    package = copied(tmp_path / "installed")
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__pycache__").touch()
        folder.chmod(0o555)
    (tmp_path / "tmp").mkdir()
    code = RUN if temporary else "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere']" + RUN
    used, said = in_a_process(package, code, HOME="/proc/nowhere", TMPDIR=tmp_path / "tmp")
    assert not said and not list(package.rglob("*.code"))
    assert used == (str(tmp_path / f"tmp/sdetools-{os.getuid()}/kernels") if temporary else "None")
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


@pytest.mark.slow
def test_an_edit_of_an_inlined_file_recompiles(tmp_path):
    """An edit of a file that is inlined in other functions changes results at once, without a change of any other file.

    The sines of `elementary.py` are inlined in the functions on rows.
    """
    package = copied(tmp_path)
    # 2^-30 is its own sine to 18 digits, so the quotient is 1/4 exactly
    code = RUN.replace('"x"]', '"sin(x/2**28)"]').replace('at("x").value', 'at("sin(x/2**28)").value * 2**28')
    in_a_process(package, code, SDETOOLS_CACHE=tmp_path / "cache")
    sines = package / "graph/elementary.py"
    sines.write_text(sines.read_text().replace("            x if math.fabs(x)", "            2.0 * x if math.fabs(x)"))
    with pytest.raises(AssertionError, match=r"0\.5"):
        in_a_process(package, code, SDETOOLS_CACHE=tmp_path / "cache")


def test_concurrent_threads_get_one_function():
    """If each got its own, one would be freed with its machine code while a kernel still has its address."""
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
    for module in (rows, draw_rows, library):
        assert module.function(module.NAMES[0]) is module.function(module.NAMES[0])


def test_a_full_disk_leaves_no_incomplete_file(tmp_path, monkeypatch):
    """A failed write leaves no incomplete file."""

    def full(file, content):
        with file.open("wb") as out:
            out.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        _machine_code.write(tmp_path / "code", b"0" * 100)
    assert not list(tmp_path.iterdir())
