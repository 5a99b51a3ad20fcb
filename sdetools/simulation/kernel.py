"""From source text to a compiled kernel: one module file a text, imported by name so that Numba's cache on disk finds it again.

The files live in a folder of their own (`SDETOOLS_CACHE`, else the user's cache folder), named by the hash of the text, of the lane
library and of Numba's version. Several processes may write the same file at once: each writes aside and renames.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = "sdetools._kernels"
_lock = threading.Lock()


@cache
def folder() -> Path:
    """Where kernels are kept; a folder in the system's temporary place when the user's cache cannot be written."""
    chosen = os.environ.get("SDETOOLS_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdetools"
    for candidate in (base, Path(tempfile.gettempdir()) / f"sdetools-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"):
        try:
            (candidate / "kernels").mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=candidate / "kernels"):
                pass
        except OSError:
            continue
        return candidate / "kernels"
    raise OSError(f"no folder for compiled kernels: neither {base} nor the temporary folder can be written; set SDETOOLS_CACHE.")


@cache
def _library_key() -> str:
    import numba

    from sdetools.losses import kernels as loss_kernels
    from sdetools.manifold import kernels as manifold_kernels
    from sdetools.noise import kernels as noise_kernels
    from sdetools.simulation import lanes, library

    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:2]}".encode())
    for module in (lanes, library, loss_kernels, manifold_kernels, noise_kernels):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


def load(text: str, stages: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The compiled `run` of a source text; `stages` are the user's compiled functions in it. Compiling waits for the first call."""
    if stages:
        return _with_foreign(text, tuple(stages.items()))
    return _from_file(text)


@cache
def _from_file(text: str) -> Callable[..., Any]:
    name = "k" + hashlib.sha256((_library_key() + text).encode()).hexdigest()[:24]
    with _lock:
        file = folder() / f"{name}.py"
        if not file.exists():
            aside = file.with_suffix(f".{os.getpid()}.tmp")
            aside.write_text(text)
            aside.replace(file)
        if _PACKAGE not in sys.modules:
            package = types.ModuleType(_PACKAGE)
            package.__path__ = [str(folder())]  # type: ignore[attr-defined]
            sys.modules[_PACKAGE] = package
        importlib.invalidate_caches()
        return importlib.import_module(f"{_PACKAGE}.{name}").run


@cache
def _with_foreign(text: str, foreign: tuple[tuple[str, Callable[..., Any]], ...]) -> Callable[..., Any]:
    """A kernel around functions of the user's: compiled anew in each process, as their text is not in the file's name."""
    module = types.ModuleType("sdetools_kernel_with_user_functions")
    code = compile(text, "<sdetools kernel>", "exec")
    exec(code, module.__dict__)  # the text is our own; the user's functions only enter by reference
    for name, function in foreign:
        module.__dict__[name] = function
    return module.__dict__["run"]
