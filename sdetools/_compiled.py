"""Numba compilation of the library's own functions, with their machine code cached in the folder of `_machine_code.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core import sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache, _CacheLocator
from numba.core.ccallback import CFunc

from sdetools._machine_code import code_file, fault, place_of, save, text_key

P = ParamSpec("P")
R = TypeVar("R")
ROW = "int64(int64, int64, int64, int64, int64, int64)"
"""The signature of all functions that kernels call by address: whole numbers, and addresses of arrays."""


class _Locator(_CacheLocator):
    """The cache folder, as Numba's interface asks for it."""

    def __init__(self, function: Any, file: str) -> None:
        self._py_file, self._line, self._place = file, function.__code__.co_firstlineno, place_of(Path(file))

    def get_cache_path(self) -> str:
        return str(self._place)

    def get_source_stamp(self) -> str:
        return text_key()

    def get_disambiguator(self) -> str:
        return f"{Path(self._py_file).parent.name}-{self._line}"  # several packages have a file of one name

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Locator:
        return cls(function, file)


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _Cache(FunctionCache):
    """Numba's cache, restricted to files of this user; a file that cannot be read or written is ignored."""

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


def jit(cache: bool = True, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`numba.njit(**options)`, with its cache in the folder of `place_of`.

    Args:
        cache: Whether machine code is kept on disk.
        **options: Options of `numba.njit`.

    Returns:
        The decorator.
    """

    def compiled(function: Callable[P, R]) -> Callable[P, R]:
        made: Any = numba.njit(**options)(function)
        if cache and hasattr(made, "py_func"):  # not with NUMBA_DISABLE_JIT
            kept = place_of(Path(function.__code__.co_filename)) is not None
            made._cache = _Cache(function) if kept else NullCache()
        return made

    return compiled


def callback(function: Callable[..., Any], file: Path | None, key: str, signature: str = ROW, **options: Any) -> Any:
    """Compile `numba.cfunc(signature, **options)`, and keep its machine code in a file under a key.

    `forceinline` inlines the function into the wrapper that catches its errors. The wrapper vanishes where none can be raised, and the code
    then needs no symbol of Numba's.
    """
    made = CFunc(function, sigutils.normalize_signature(signature), locals={}, options=options | {"forceinline": True})
    made.compile()
    save(file, key, made)
    return made


def by_address(module: str, name: str, dtype: str, function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function that kernels of one type call by address (`_machine_code.address`)."""
    return callback(function, code_file(module, f"{name}_{dtype}"), text_key(), **options)
