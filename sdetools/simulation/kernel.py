"""From source text to a compiled kernel: one module a text, under a name by which its machine code is found again on disk.

The name is a hash of the text and of the library's own compiled functions (`_machine_code.py`). The text lies beside the machine code, for
whoever wants to read it; what runs is the text at hand. Several processes may write the same file at once: each writes aside and renames.
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

from sdetools._machine_code import fault, folder, load, machine_key, once, text_key, write

__all__ = ["folder", "kernel", "one_blas_thread"]

CALLED = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def kernel(text: str, stages: dict[str, Callable[..., Any]], foreign: dict[str, Callable[..., Any]]) -> Callable[[int], int]:
    """The compiled `run` of a source text; `stages` are compiled functions in it, `foreign` those of the user's."""
    return _kernel(text, tuple(stages), tuple(foreign.items()))


@once
def _kernel(text: str, stages: tuple[str, ...], foreign: tuple[tuple[str, Callable[..., Any]], ...]) -> Callable[[int], int]:
    """Functions on arrays need Numba to run. Those of the user's are compiled anew in each process, as their text is not in the file's name."""
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
        sys.modules[module.__name__] = module  # Numba looks for it where machine code is loaded
    linecache.cache[str(file)] = (len(text), None, text.splitlines(keepends=True), str(file))
    exec(compile(text, str(file), "exec"), module.__dict__)  # our own; the user's functions only enter by reference
    module.__dict__.update(foreign)
    if stages:
        return jit(cache=not foreign, **lanes.FAST)(module.run)
    return CALLED(callback(module.run, code, text_key(), "int64(int64)", **lanes.FAST).address)


def _write(file: Path, text: str) -> None:
    """The text, in place of any other file of its name."""
    if file.is_symlink() or not file.exists() or fault(file) or file.read_text(encoding="utf-8") != text:
        write(file, text.encode())


class _OneBlasThread:
    """While it is entered, however often and from however many threads, matrix products take one thread each.

    Paths are shared out to threads already: more of them would wait for each other, and their number could change last bits.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limit: Any = None
        self._libraries: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                if self._libraries is None:
                    from threadpoolctl import ThreadpoolController

                    self._libraries = ThreadpoolController()
                self._free()
                self._limit = self._libraries.limit(limits=1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._free()  # who leaves last need not be who came first
                self._limit.restore_original_limits()
                self._free()

    def _free(self) -> None:
        """From threadpoolctl 3.7 on what one thread has limited others cannot change, and are not told so."""
        for library in self._libraries.lib_controllers:
            getattr(library, "clear_controlling_thread", lambda force: None)(force=True)


one_blas_thread = _OneBlasThread()
