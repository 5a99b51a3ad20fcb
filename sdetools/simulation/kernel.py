"""Compilation of source text to a kernel, the compiled loop over steps of a simulation, with a cache of machine code on disk.

The name of a cached file is a hash of the text and of the library's own compiled functions (`_machine_code.py`). The text is saved
beside the machine code for inspection only; the text that is compiled is the one in memory. Several processes may write the same
file at once, because each writes a temporary file and renames it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import linecache
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdetools._machine_code import blas_modules, fault, folder, load, machine_key, once, text_key, write

__all__ = ["folder", "kernel", "one_blas_thread"]

CALLED = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def kernel(text: str, stages: dict[str, Callable[..., Any]], foreign: dict[str, Callable[..., Any]]) -> Callable[[int], int]:
    """Return the compiled function `run` of a source text: from the cache on disk, or compiled by Numba; each is compiled once in a process.

    Args:
        text: The source, a Python module that defines `run(address)`, as `cpu.write` generates it.
        stages: The compiled functions on arrays that the text calls, such as a user's gradient, by name; empty for most kernels.
        foreign: Those of `stages` that are the user's and not the library's; with any, the machine code is not cached on disk.

    Returns:
        A function of one integer, the address of a table of integers and addresses of arrays (see `launch.table`). It runs the kernel, which
        writes its results to these arrays, and returns 0.
    """
    return _kernel(text, tuple(stages), tuple(foreign.items()))


@once
def _kernel(text: str, stages: tuple[str, ...], foreign: tuple[tuple[str, Callable[..., Any]], ...]) -> Callable[[int], int]:
    """Compile or load a kernel; arguments and result are those of `kernel`, as tuples that can be keys of a cache.

    `stages` are the names of the compiled functions that the text calls, `foreign` the pairs (name, function) of those that belong to the user. A
    kernel that calls functions on arrays needs Numba at run time. Functions of the user are compiled in each process, because their source is
    not part of the cached file's name.
    """
    name = "k" + hashlib.sha256((text_key() + text).encode()).hexdigest()[:24]
    place = None if foreign else folder()
    file = (place or Path("nowhere")) / f"{name}.py"
    if place is not None:
        with contextlib.suppress(OSError):
            _write(file, text)
    code = place and place / f"{name}.{machine_key()}.code"
    if not stages and (address := load(code, text_key())) is not None:
        return CALLED(address)
    from sdetools._compiled import callback, jit
    from sdetools.graph import lanes

    module = types.ModuleType(f"sdetools._kernels.{name}")
    if not foreign:
        sys.modules[module.__name__] = module  # Numba imports it when it loads machine code
    linecache.cache[str(file)] = (len(text), None, text.splitlines(keepends=True), str(file))
    exec(compile(text, str(file), "exec"), module.__dict__)  # generated here; functions of the user enter only by reference
    module.__dict__.update(foreign)
    if stages:
        return jit(cache=not foreign, **lanes.FAST)(module.run)
    return CALLED(callback(module.run, code, text_key(), "int64(int64)", **lanes.FAST).address)


def _write(file: Path, text: str) -> None:
    """Write a source text to `file`, unless it is there already; another file, a damaged one or a link of this name is replaced."""
    if file.is_symlink() or not file.exists() or fault(file) or file.read_text(encoding="utf-8") != text:
        write(file, text.encode())


class _OneBlasThread:
    """A context manager in which matrix products (BLAS) use one thread each; its only instance is `one_blas_thread`.

    It may be entered several times, by any threads: the limit is set at the first entry and removed at the last exit. Paths are already divided
    among threads. Further threads would wait for each other, and their number could change the last bits of a result.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limits: list[Any] = []
        self._controller: Any = None
        self._known: set[str] = set()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            loaded = {"scipy.linalg", "torch"} & sys.modules.keys() | blas_modules
            if self._controller is None or loaded != self._known:  # a controller knows the libraries of its creation only
                from threadpoolctl import ThreadpoolController

                self._controller, self._known = ThreadpoolController(), loaded
            elif self._limits:
                return
            self._free()
            self._limits.append(self._controller.limit(limits=1, user_api="blas"))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            while self._inside == 0 and self._limits:
                self._free()  # the last thread to leave need not be the first that entered
                self._limits.pop().restore_original_limits()
                self._free()

    def _free(self) -> None:
        """Remove threadpoolctl's restriction (from version 3.7 on) that only the thread that set a limit may change it."""
        for library in self._controller.lib_controllers:
            getattr(library, "clear_controlling_thread", lambda force: None)(force=True)


one_blas_thread = _OneBlasThread()
