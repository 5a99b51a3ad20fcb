"""The passes of our own compilation leave the machine code as it is: it is compared with that of Numba's pipeline."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import pytest
from numba.core.compiler import Compiler
from numba.core.errors import TypingError

from sdetools import _compiled
from sdetools.graph import lanes, rows
from sdetools.graph.reals import real_of
from sdetools.manifold import kernels
from sdetools.simulation import draw_rows, library
from sdetools.simulation.cpu import write
from sdetools.studies.means import make_program

sys.path.insert(0, str(Path(__file__).parent))
from test_sim_kernels import CASES, ETA, STEPS


def instructions(made) -> str:
    """The assembly text of a compiled callback, without the number that Numba gives to each compilation, and the declarations of unused objects."""
    text = re.sub(r"B\d+v\d+B", "BvB", made._library.get_asm_str())
    return "\n".join(line for line in text.splitlines() if not (line.startswith("\t.comm") or line.endswith("@object")))


def both(monkeypatch, compiled) -> tuple[str, str]:
    """The assembly text of what `compiled()` returns, by our passes and by those of Numba."""
    own = instructions(compiled())
    with monkeypatch.context() as m:
        m.setattr(_compiled, "_Compiler", Compiler)
        return own, instructions(compiled())


def compiled_kernel(name: str, dtype: str):
    """A function that compiles the kernel of a case."""
    members, x0, more = CASES[name]()
    given = more.get("functionals", ()), more.get("control", True) and len(members) == 2, more.get("coupled", True)
    program, *_ = make_program(members, x0, STEPS * ETA, more["observe"], "all", *given)
    space: dict = {}
    exec(write(program, real_of(dtype)).text, space)
    return lambda: _compiled.callback(space["run"], None, "", "int64(int64)", **lanes.FAST)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("name", "dtype"), [("two point", "float32"), ("labels of a batch", "float64")])
def test_the_machine_code_of_a_kernel_is_that_of_numbas_pipeline(monkeypatch, name, dtype):
    """Instruction by instruction: straight code, loops, gathers and functionals."""
    own, numbas = both(monkeypatch, compiled_kernel(name, dtype))
    assert own == numbas and len(own) > 10_000


@pytest.mark.sample(1)
@pytest.mark.parametrize(("module", "name"), [(rows, "tan"), (draw_rows, "signs"), (library, "carry"), (kernels, "newton")])
def test_the_machine_code_of_a_library_function_is_that_of_numbas_pipeline(monkeypatch, module, name):
    """Functions that have others inlined, and branches on what is None."""
    monkeypatch.setattr(_compiled, "code_file", lambda *_: None)
    own, numbas = both(monkeypatch, lambda: module.function.__wrapped__(name, "float64"))
    assert own == numbas and len(own) > 1000


def test_a_version_of_numba_without_one_of_the_passes_compiles_by_its_own(monkeypatch):
    """The machine code is the same, so that nothing but time depends on it."""

    def doubled(at):
        lanes.float_pointer(at)[0] *= 2.0
        return 0

    def code():
        return instructions(_compiled.callback(doubled, None, "", "int64(int64)", **lanes.FAST))

    own = code()
    monkeypatch.setattr(_compiled, "PASSES", _compiled.PASSES | {"NoSuchPass": "of another version"})
    assert code() == own


def test_another_formula_has_other_instructions(monkeypatch):
    """Negative control: the comparison detects that one operation is another, or that a product and a sum are not fused."""

    def plus(at):
        p = lanes.float_pointer(at)
        p[0] = p[1] * p[2] + p[3]
        return 0

    def minus(at):
        p = lanes.float_pointer(at)
        p[0] = p[1] * p[2] - p[3]
        return 0

    minus.__name__ = minus.__qualname__ = plus.__name__
    minus.__qualname__ = plus.__qualname__
    given = (None, "", "int64(int64)")
    one, again, other, apart = (
        instructions(_compiled.callback(f, *given, **options))
        for f, options in ((plus, lanes.FAST), (plus, lanes.FAST), (minus, lanes.FAST), (plus, lanes.FAST | {"fastmath": False}))
    )
    assert one == again and len({one, other, apart}) == 3


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_as_before(enabled):
    """A compilation pauses it, whether it succeeds or not, and does not enable it for those who disabled it."""

    def fails(at):
        return at.no_such_attribute

    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        _compiled.callback(lambda at: at, None, "", "int64(int64)")
        assert gc.isenabled() == enabled
        with pytest.raises(TypingError):
            _compiled.callback(fails, None, "", "int64(int64)")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
