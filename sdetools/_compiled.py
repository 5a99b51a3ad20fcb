"""Numba compilation of the library's own functions, with their machine code cached on disk (`_machine_code.py`)."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core import sigutils, typed_passes, untyped_passes
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import PassManager, register_pass

from sdetools._machine_code import code_file, fault, place_of, save, text_key

P = ParamSpec("P")
R = TypeVar("R")
ROW = "int64(int64, int64, int64, int64, int64, int64)"
"""The signature of all functions that kernels call by address: whole numbers, and addresses of arrays."""


class _Resolved:
    """A wrapper of Numba's typing context that resolves the type of a call once for each function and types of arguments, not for every call.

    Args:
        own: The typing context of Numba. All its attributes are those of the wrapper, too.
    """

    def __init__(self, own: Any) -> None:
        self._own = own
        self._known: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def resolve_function_type(self, function: Any, arguments: Any, named: dict[str, Any]) -> Any:
        key = function, tuple(arguments), tuple(sorted(named.items()))
        if self._known.get(key) is None:
            self._known[key] = self._own.resolve_function_type(function, arguments, named)
        return self._known[key]


@register_pass(mutates_CFG=True, analysis_only=False)
class _TypeInference(typed_passes.NopythonTypeInference):
    """Numba's type inference, by `_Resolved`: it visits every call several times, and a kernel repeats the calls of few functions."""

    _name = "sdetools_type_inference"

    def run_pass(self, state: Any) -> bool:
        own, state.typingctx = state.typingctx, _Resolved(state.typingctx)
        try:
            return super().run_pass(state)
        finally:
            state.typingctx = own


PASSES = {
    "TranslateByteCode": "analyzing bytecode",
    "FixupArgs": "fix up args",
    "IRProcessing": "processing IR",
    "RewriteSemanticConstants": "rewrite semantic constants",
    "DeadBranchPrune": "dead branch pruning",
    "RewriteDynamicRaises": "rewrite dynamic raises",
    "InlineInlinables": "inline inlinable functions",
    "ReconstructSSA": "ssa",
    "TypeInference": "nopython frontend",
    "PreLowerStripPhis": "remove phis nodes",
    "InlineOverloads": "inline overloaded functions",
    "IRLegalization": "ensure IR is legal prior to lowering",
    "AnnotateTypes": "annotate types",
    "NativeLowering": "native lowering",
    "NoPythonBackend": "nopython mode backend",
}
"""The passes of Numba's own pipeline that change plain loops over memory, in its order, each with its description there.

The others serve closures, `with`, literals and expressions of arrays, which functions called by address do not have. They
would take a sixth of the time and leave the machine code as it is.
"""


class _Compiler(Compiler):
    """Numba's compiler with the passes of `PASSES`; with its own if this version of Numba does not have all of these."""

    def define_pipelines(self) -> list[Any]:
        known = {**vars(untyped_passes), **vars(typed_passes), "TypeInference": _TypeInference}
        if not known.keys() >= PASSES.keys():
            own: list[Any] = super().define_pipelines()
            return own
        passes = PassManager("sdetools")
        for name, description in PASSES.items():
            passes.add_pass(known[name], description)
        passes.finalize()
        return [passes]


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Return a context without garbage collection: what a compilation makes lives until its end, and the collector would visit all objects in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Locator(_CacheLocator):
    """The cache folder of the compiled code of a `function` in a source `file`, in the form that Numba's caches ask for it."""

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
    """Return a decorator that compiles a function by `numba.njit(**options)` and caches its machine code on disk.

    Args:
        cache: Whether machine code is stored on disk, in the folder `_machine_code.place_of(file of the function)`; nowhere if that is None.
        **options: Options of `numba.njit`.

    Returns:
        A decorator that replaces a function by its compiled form. If Numba is disabled (NUMBA_DISABLE_JIT=1), it returns the function itself.
    """

    def compiled(function: Callable[P, R]) -> Callable[P, R]:
        made: Any = numba.njit(**{"pipeline_class": _Compiler} | options)(function)
        if cache and hasattr(made, "py_func"):  # not with NUMBA_DISABLE_JIT
            kept = place_of(Path(function.__code__.co_filename)) is not None
            made._cache = _Cache(function) if kept else NullCache()
        return made

    return compiled


def callback(function: Callable[..., Any], file: Path | None, key: str, signature: str = ROW, **options: Any) -> Any:
    """Return a function compiled to a C callback by Numba, a `CFunc` whose attribute `address` is its address in memory, and save its machine code.

    The option `forceinline` inlines the function into Numba's wrapper that catches its errors. If no error can be raised, that wrapper
    vanishes, and the code needs no symbol of Numba's.

    Args:
        function: The Python function: loops, branches, numbers and memory, without closures, comprehensions and arithmetic of arrays (`PASSES`).
        file: The file of the cache; None saves nothing.
        key: A text that is stored in the file and must be given to load it, such as `_machine_code.text_key()`.
        signature: The types of the arguments and of the result in Numba's notation; by default `ROW`, six integers to one.
        **options: Further options of `numba.cfunc`.
    """
    options |= {"forceinline": True}
    made = CFunc(function, sigutils.normalize_signature(signature), locals={}, options=options, pipeline_class=_Compiler)
    with _without_garbage_collection():
        made.compile()
    save(file, key, made)
    return made


def by_address(module: str, name: str, dtype: str, function: Callable[..., Any], **options: Any) -> Any:
    """Return a library function compiled to a C callback, a `CFunc`, of signature `ROW`; kernels call it by its `_machine_code.address`.

    Args:
        module: The module below `sdetools` that owns the function, such as "graph.rows". The code is cached under its name, and its own
            `function(name, dtype)` must return what is returned here.
        name: The name of the function in that module; with `dtype` it names the cache file.
        dtype: "float64" or "float32", the type of the numbers.
        function: The Python function.
        **options: Further options of `numba.cfunc`.
    """
    return callback(function, code_file(module, f"{name}_{dtype}"), text_key(), **options)
