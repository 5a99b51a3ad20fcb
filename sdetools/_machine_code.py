"""The on-disk cache of machine code: where it lies, who owns it, by which key it is found, and how it runs without a compiler.

Cached code is executed, so its folder must be writable by this user alone. `folder()` serves generated kernels, and the library where its
own `__pycache__` cannot be written. The key is a digest of every file that others are inlined from, so an edit in one of them recompiles
everything. Without a folder everything works, and is compiled once per process.

Neither finding code nor running it imports Numba, which takes longer than a short run. So only code that needs no Numba symbol is kept.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import llvmlite
import llvmlite.binding as llvm

P = ParamSpec("P")
R = TypeVar("R")
PACKAGE = Path(__file__).parent
OPTIONS = ("CPU_NAME", "CPU_FEATURES", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO")
"""Numba's options (NUMBA_...) that change machine code."""
GEMM = {"sdetools_dgemm": "dgemm", "sdetools_sgemm": "sgemm"}
"""Symbols by which machine code calls BLAS, and the functions of `scipy.linalg.cython_blas` behind them."""


@cache
def text_key() -> str:
    """Return a digest of the source files of compiled functions, and of the versions of Python, Numba and LLVM."""
    digest = hashlib.sha256(f"{llvmlite.__version__} {sys.version_info[:2]}".encode())
    numba = find_spec("numba")
    for file in (
        *([Path(numba.origin).with_name("_version.py")] if numba is not None and numba.origin else []),
        Path(__file__),
        Path(__file__).with_name("_compiled.py"),
        PACKAGE / "manifold" / "kernels.py",
        PACKAGE / "noise" / "sampling_kernel.py",
        *(
            PACKAGE / "graph" / f"{name}.py"
            for name in ("bits", "elementary", "gemm", "interpreter", "lanes", "lanes32", "programs", "rows")
        ),
        *sorted((PACKAGE / "simulation").glob("l*.py")),
        PACKAGE / "simulation" / "records.py",
        *sorted((PACKAGE / "simulation").glob("draw*.py")),
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def machine_key() -> str:
    """Return a digest of the processor and Numba's options for it, for file names: machines may share a folder."""
    options = [os.environ.get(f"NUMBA_{name}") for name in OPTIONS]
    found = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), options
    return hashlib.sha256(repr(found).encode()).hexdigest()[:12]


# ---- folders


@cache
def folder() -> Path | None:
    """Return the cache folder of kernels: in `SDETOOLS_CACHE`, else the user's cache folder, else the temporary folder.

    It must belong to this user, with no write permission for others. One that fails the check is not used: a warning is given, and this
    process uses a fresh temporary folder. None if nothing can be written.
    """
    temporary = (
        Path(tempfile.gettempdir()) / f"sdetools-{os.getuid() if hasattr(os, 'getuid') else 'cache'}" if _temporary() else None
    )
    for base in filter(None, (_chosen(), temporary)):
        place = base / "kernels"
        try:
            if base is temporary:  # its name can be guessed, so anybody may have created it
                base.mkdir(mode=0o700, exist_ok=True)
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            reason = fault(base, shared=base is not temporary) or fault(place)
            if not reason:
                place.chmod(0o700)
                tempfile.TemporaryFile(dir=place).close()
                return place
        except OSError:
            continue
        warnings.warn(
            f"{place} is not used for compiled kernels, because {reason}: files in it would be executed. This process uses a temporary "
            "folder, and the next one compiles anew. Remove that folder, or set SDETOOLS_CACHE to one of your own.",
            RuntimeWarning,
            stacklevel=2,
        )
        break
    if not _temporary():
        return None
    fresh = tempfile.mkdtemp(prefix="sdetools-")
    atexit.register(shutil.rmtree, fresh, ignore_errors=True)
    return Path(fresh)


def _chosen() -> Path | None:
    if chosen := os.environ.get("SDETOOLS_CACHE"):
        return Path(chosen).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdetools"
    except RuntimeError:  # a user without a home
        return None


def _temporary() -> str | None:
    try:
        return tempfile.gettempdir()
    except OSError:
        return None


def fault(path: Path, shared: bool = False) -> str:
    """Return why the file at a path may be another user's; empty if it cannot be.

    Args:
        path: A file or folder.
        shared: Whether the folder may belong to root, or be world-writable with a sticky bit, as /tmp is.
    """
    found = path.lstat()
    if shared and stat.S_ISLNK(found.st_mode):
        found = path.stat()
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a symbolic link"
    if not hasattr(os, "getuid"):
        return ""
    if found.st_uid != os.getuid() and not (shared and found.st_uid == 0):
        return f"{path} belongs to another user (number {found.st_uid})"
    if found.st_mode & 0o022 and not (shared and found.st_mode & stat.S_ISVTX):
        return f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


@cache
def place_of(file: Path) -> Path | None:
    """Return the cache folder of a file's functions.

    That is `__pycache__` beside a module of the library if it is writable, else `folder()`.
    """
    if PACKAGE in file.parents:
        own = file.parent / "__pycache__"
        with contextlib.suppress(OSError):
            own.mkdir(exist_ok=True)
            if not fault(own):
                tempfile.TemporaryFile(dir=own).close()
                return own
    return folder()


# ---- functions


_lock = threading.RLock()


def once(function: Callable[P, R]) -> Callable[P, R]:
    """`functools.cache` that computes a result once, however many threads ask: an address must not outlive its function."""
    made: dict[Any, R] = {}

    @wraps(function)
    def cached(*arguments: P.args, **named: P.kwargs) -> R:
        key = arguments, tuple(sorted(named.items()))
        if key not in made:  # a known result does not wait for a compilation in another thread
            with _lock:
                if key not in made:
                    made[key] = function(*arguments, **named)
        return made[key]

    return cached


def code_file(module: str, name: str) -> Path | None:
    """Return the file of the machine code of one of the library's functions; None if there is no cache folder."""
    *packages, own = module.split(".")
    place = place_of(PACKAGE.joinpath(*packages, f"{own}.py"))
    return None if place is None else place / f"{own}.{name}.{machine_key()}.code"


@once
def address(module: str, name: str, dtype: str = "float64") -> int:
    """Return the address of one of the library's functions: from the cache, or from `function(name, dtype)` of its module."""
    found = load(code_file(module, f"{name}_{dtype}"), text_key())
    return import_module(f"sdetools.{module}").function(name, dtype).address if found is None else found


def save(file: Path | None, key: str, made: Any) -> None:
    """Save the machine code of a compiled C callback, if it can run without Numba."""
    library = made._library
    needs = [f.name for f in library._final_module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    if file is None or not all(map(known, needs)):
        return
    _, _, (code, _) = library.serialize_using_object_code()
    head = {"key": key, "digest": hashlib.sha256(code).hexdigest(), "entry": made._wrapper_name, "needs": needs}
    with contextlib.suppress(OSError):  # a full disk
        write(file, json.dumps(head).encode() + b"\n" + code)


def load(file: Path | None, key: str) -> int | None:
    """Load machine code from a file and return the address of its function.

    None if the file is missing, truncated, another user's or of another key, or if it needs a symbol that cannot be resolved.
    """
    try:
        if file is None or fault(file):
            return None
        head, _, code = file.read_bytes().partition(b"\n")
        kept = json.loads(head)
        if kept["key"] != key or kept["digest"] != hashlib.sha256(code).hexdigest() or not all(map(known, kept["needs"])):
            return None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(kept["entry"])


_engines: list[Any] = []
"""LLVM's execution engines, kept alive because they own the machine code."""


def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def known(symbol: str) -> bool:
    """Whether machine code can resolve a symbol in any process: one of the C library or BLAS, not one that Numba registers."""
    if not _engines:  # the first engine makes LLVM load the symbols of the process
        _engines.append(_engine())
    if symbol in GEMM:
        blas()
        return True
    return not symbol.startswith(("numba", "NRT_", "Py", "_Py")) and llvm.address_of_symbol(symbol) is not None


blas_modules: set[str] = set()
"""Modules that `blas` has loaded, each with a library of its own."""


@once
def blas() -> None:
    """Register BLAS for machine code.

    Only SciPy's module `cython_blas` is loaded: the package `scipy.linalg` takes longer than a short run.
    """
    import ctypes

    import scipy

    found = PathFinder.find_spec("cython_blas", [str(Path(scipy.__file__).with_name("linalg"))])
    if found is None or found.loader is None:
        cython_blas = import_module("scipy.linalg.cython_blas")
    else:
        cython_blas = module_from_spec(found)
        found.loader.exec_module(cython_blas)
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    for symbol, name in GEMM.items():
        capsule = cython_blas.__pyx_capi__[name]
        llvm.add_symbol(symbol, pointer_of(capsule, name_of(capsule)))
    blas_modules.add("cython_blas")


def write(file: Path, content: bytes) -> None:
    """Write a file atomically, by way of a temporary one: several processes may write it at once."""
    aside = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        aside.write_bytes(content)
        aside.replace(file)
    finally:  # on a full disk a part of it would stay
        aside.unlink(missing_ok=True)
