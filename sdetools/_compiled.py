"""The library's own compiled functions, and where their machine code is kept: what lies in that place is run, so it must be ours alone.

`folder()` is used by generated kernels, and by the library where its own `__pycache__` cannot be written. Machine code is found again by
the text of every file that others are inlined from, so an edit in one of them compiles all anew. Without a place all works, compiled once a
process.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numba
from numba.core import sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache, _CacheLocator
from numba.core.ccallback import CFunc

PACKAGE = Path(__file__).parent


@cache
def text_key() -> str:
    """A digest of the compiled functions' texts, and of the versions of Numba and Python."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:2]}".encode())
    for file in (
        Path(__file__),
        *sorted(PACKAGE.glob("*/kernels.py")),
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
def folder() -> Path | None:
    """Where kernels are kept: in `SDETOOLS_CACHE`, else in the user's cache folder, else in the system's temporary place.

    Only a folder of this user's own that nobody else can write to. One that is not is left alone, with a warning, for a fresh one of this
    process. None where nothing can be written.
    """
    temporary = (
        Path(tempfile.gettempdir()) / f"sdetools-{os.getuid() if hasattr(os, 'getuid') else 'cache'}" if _temporary() else None
    )
    for base in filter(None, (_chosen(), temporary)):
        place = base / "kernels"
        try:
            if base is temporary:  # its name can be guessed, so it may have been made by anybody
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
            f"{place} is not used for compiled kernels, because {reason}: what lies there would be run. They go to a folder of this "
            "process alone, and are compiled anew in the next. Remove that folder, or set SDETOOLS_CACHE to one of your own.",
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
    """Why what lies at a path may be another user's; empty if it cannot be. A `shared` folder may be root's, or one like /tmp."""
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


def _place_of(file: Path) -> Path | None:
    """Where the machine code of a file's functions is kept: beside the bytecode of the library if that can be written, else in `folder()`."""
    if PACKAGE in file.parents:
        own = file.parent / "__pycache__"
        with contextlib.suppress(OSError):
            own.mkdir(exist_ok=True)
            if not fault(own):
                tempfile.TemporaryFile(dir=own).close()
                return own
    return folder()


class _Locator(_CacheLocator):
    """Numba's view of that place."""

    def __init__(self, function: Any, file: str) -> None:
        self._py_file, self._line, self._place = file, function.__code__.co_firstlineno, _place_of(Path(file))

    def get_cache_path(self) -> str:
        return str(self._place)

    def get_source_stamp(self) -> str:
        return text_key()

    def get_disambiguator(self) -> str:
        return f"{Path(self._py_file).parent.name}-{self._line}"  # several rooms have a file of one name

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Locator:
        return cls(function, file)


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _Cache(FunctionCache):
    """Numba's cache on files that are ours; one that cannot be read or written is as good as none."""

    _impl_class = _Files

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            if all(not fault(file) for file in Path(self.cache_path).glob(f"{self._impl.filename_base}.*")):
                return super().load_overload(signature, target_context)
        except Exception:  # a file cut short, or gone
            return None
        return None

    def save_overload(self, signature: Any, data: Any) -> Any:
        for _ in range(2):
            try:
                return super().save_overload(signature, data)
            except OSError:  # a full disk
                return None
            except Exception:  # an index cut short
                with contextlib.suppress(OSError):
                    self.flush()
        return None


class _NamedCache(_Cache):
    """The same for functions of one text: told apart by their names, for what they close over has no lasting description."""

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return signature, codegen.magic_tuple(), hashlib.sha256(self._py_func.__code__.co_code).hexdigest()


def _cache_of(function: Callable[..., Any], kind: type[_Cache] = _Cache) -> Any:
    return NullCache() if _place_of(Path(function.__code__.co_filename)) is None else kind(function)


_asking = threading.RLock()


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`functools.cache` that makes one result however many threads ask at a time: an address must not outlive the function behind it."""
    made = cache(function)

    @wraps(function)
    def asked(*arguments: Any) -> Any:
        with _asking:
            return made(*arguments)

    return asked


def jit(cache: bool = True, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit(**options)`, cached in the place above."""

    def compiled(function: Callable[..., Any]) -> Any:
        made = numba.njit(**options)(function)
        if cache and hasattr(made, "py_func"):  # not with NUMBA_DISABLE_JIT
            made._cache = _cache_of(function)
        return made

    return compiled


def callback(signature: str, name: str = "", **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.cfunc(signature, **options)`, cached likewise. A `name` tells apart functions of one text that close over different ones."""

    def compiled(function: Callable[..., Any]) -> Any:
        function.__qualname__ = name or function.__qualname__  # in the names of its files
        made = CFunc(function, sigutils.normalize_signature(signature), locals={}, options=options)
        made._cache = _cache_of(function, _NamedCache if name else _Cache)
        made.compile()
        return made

    return compiled
