"""The on-disk cache of machine code: where it lies, who owns it, by which key it is found, and how it runs without a compiler.

Cached code is executed, so its folder must be writable by this user alone. `folder()` is for the kernels that the package generates for each
simulation, and for its own compiled functions where the `__pycache__` beside their file cannot be written. The key is a digest of every file that
others are inlined from, so an edit in one of them recompiles everything. Without a folder everything works, and is compiled once per process.

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

COMPILING = os.environ.get("NUMBA_DISABLE_JIT", "").strip() in ("", "0")
"""Whether Numba compiles; not with the environment variable NUMBA_DISABLE_JIT=1."""

P = ParamSpec("P")
R = TypeVar("R")
PACKAGE = Path(__file__).parent
OPTIONS = ("CPU_NAME", "CPU_FEATURES", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO")
"""Numba's options (NUMBA_...) that change machine code."""
GEMM = {"sdetools_dgemm": "dgemm", "sdetools_sgemm": "sgemm"}
"""Symbols by which machine code calls BLAS, and the functions of `scipy.linalg.cython_blas` behind them."""


@cache
def text_key() -> str:
    """Return a digest (hexadecimal text) of the source files of compiled functions, and of the versions of Python, Numba and LLVM.

    Machine code in the cache is valid if this key is unchanged.
    """
    digest = hashlib.sha256(f"{llvmlite.__version__} {sys.version_info[:2]}".encode())
    numba = find_spec("numba")
    for file in (
        *([Path(numba.origin).with_name("_version.py")] if numba is not None and numba.origin else []),
        Path(__file__),
        Path(__file__).with_name("_compiled.py"),
        *sorted((PACKAGE / "manifold").glob("kernel*.py")),
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
    """Return 12 hexadecimal digits that identify the processor and Numba's options for it.

    They are part of the names of cache files, because several machines may share a folder.
    """
    options = [os.environ.get(f"NUMBA_{name}") for name in OPTIONS]
    found = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), options
    return hashlib.sha256(repr(found).encode()).hexdigest()[:12]


# ---- folders


@cache
def folder() -> Path | None:
    """Return the cache folder of generated kernels; None if no folder can be written.

    The candidates in order: `SDETOOLS_CACHE` (or, if unset, the user's cache folder), then the temporary folder. The folder must belong to
    this user, with no write permission for others. If one fails this check, a RuntimeWarning is given, and this process uses a fresh
    temporary folder that is deleted at its end.
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
    """Return a reason why another user may have written the file or folder at a path, such as "/x is a symbolic link"; empty text for none.

    Args:
        path: An existing file or folder.
        shared: Whether the path may belong to root, or be writable for others with a sticky bit, as /tmp is. A symbolic link is then followed.

    Raises:
        OSError: If nothing exists at the path.
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
    """Return the folder that caches the compiled functions of a source file.

    For a module of the library it is the `__pycache__` beside the file, if that is writable and this user's. Otherwise, and for a file outside of
    the library, it is `folder()`, which may be None.
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
    """Return a function with a cache of its results by argument, as `functools.cache` does, but safe for threads.

    A result is computed once, however many threads ask for it; an error is raised and not stored. Without this, two threads could each compile
    a function, and the machine code of one could be freed while its address is still in use. Arguments must be hashable.
    """
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
    """Return the path of the cache file of a library function's machine code; None if there is no cache folder.

    `module` is the module below `sdetools` that makes the function, such as "graph.rows"; `name` is the function's name and type, such as
    "normals_float64".
    """
    *packages, own = module.split(".")
    place = place_of(PACKAGE.joinpath(*packages, f"{own}.py"))
    return None if place is None else place / f"{own}.{name}.{machine_key()}.code"


@once
def address(module: str, name: str, dtype: str = "float64") -> int:
    """Return the address in memory of the machine code of a library function, as an integer.

    The code is loaded from the cache. If it is not there or not valid, it is compiled by the module's own `function(name, dtype)`.

    Args:
        module: The module below `sdetools` that makes the function, such as "graph.rows".
        name: The function's name.
        dtype: "float64" or "float32", the type of the numbers.
    """
    found = load(code_file(module, f"{name}_{dtype}"), text_key())
    return import_module(f"sdetools.{module}").function(name, dtype).address if found is None else found


def save(file: Path | None, key: str, made: Any) -> None:
    """Save the machine code of a compiled C callback to a file, for `load`.

    Nothing is saved, and no error is raised, if `file` is None, if the code needs symbols of Numba, or if the disk cannot be written.

    Args:
        file: The path of the file; None saves nothing.
        key: A text that `load` must be given, such as `text_key()`.
        made: The compiled callback, a Numba `CFunc`, such as `_compiled.callback` makes.
    """
    library = made._library
    needs = [f.name for f in library._final_module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    if file is None or not all(map(known, needs)):
        return
    _, _, (code, _) = library.serialize_using_object_code()
    head = {"key": key, "digest": hashlib.sha256(code).hexdigest(), "entry": made._wrapper_name, "needs": needs}
    with contextlib.suppress(OSError):  # a full disk
        write(file, json.dumps(head).encode() + b"\n" + code)


def load(file: Path | None, key: str) -> int | None:
    """Load machine code from a file of `save` and return the address of its function, an integer.

    None is returned if `file` is None, missing, damaged, another user's or of another `key`, or if the code needs a symbol that cannot be
    resolved.
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
    """Return whether machine code from the cache can resolve a symbol in any process.

    It can for symbols of the C library and of BLAS, and cannot for those that Numba or Python register (`numba...`, `NRT_...`, `Py...`).
    """
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
    """Register the addresses of BLAS's matrix products under the symbols of `GEMM`, by which machine code calls them.

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
    """Write bytes to a file atomically, by way of a temporary file in the same folder, so that several processes may write it at once.

    A file of this name is replaced. An OSError, such as a full disk, is raised and leaves no temporary file.
    """
    aside = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        aside.write_bytes(content)
        aside.replace(file)
    finally:  # on a full disk a part of it would stay
        aside.unlink(missing_ok=True)
