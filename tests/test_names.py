"""Names: what tab completion lists, and what the errors for wrong names suggest."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import sdetools as st
from sdetools import _check

PACKAGE = Path(st.__file__).parent
LAZY = sorted(".".join(stub.relative_to(PACKAGE.parent).parts[:-1]) for stub in PACKAGE.rglob("__init__.pyi"))
"""The packages whose names are imported when they are first used: those with a stub."""


@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_package_lists_its_public_names(name):
    package = importlib.import_module(name)
    assert dir(package) == sorted(package.__all__) and len(dir(package)) >= 5


def test_names_are_listed_without_torch_and_without_importing_anything():
    code = "import sys\nsys.modules['torch'] = None\nimport sdetools as st\n"
    code += "before = set(sys.modules)\nprint(len(dir(st.bridge)), {'AdamTrial', 'diagnose'} <= set(dir(st.bridge)), 'torch' in str(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    count, found, imported = done.stdout.split()
    assert int(count) >= 20 and (found, imported) == ("True", "False")


def test_modules_of_functions_list_their_public_names_only():
    assert "np" not in dir(st.schedules) and "constant" in dir(st.schedules)
    assert "np" not in dir(st.starts) and "gaussian" in dir(st.starts)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("simulat", "simulate"),
        ("sgdm", "SGDM"),
        ("losses.quadratc", "quadratic"),
        ("noise.gausian", "gaussian"),
        ("schedules.constnt", "constant"),
        ("starts.guassian", "gaussian"),
        ("manifold.projct", "project"),
        ("exact.expectatoin", "expectation"),
        ("plots.gap_curves", "gap_curve"),
        ("bridge.diagnoze", "diagnose"),
        ("claims.colect", "collect"),
    ],
)
def test_a_wrong_attribute_suggests_the_nearest(wrong, right):
    *home, name = wrong.split(".")
    module = importlib.import_module(".".join(["sdetools", *home]))
    with pytest.raises(AttributeError, match=rf"module '{module.__name__}' has no attribute '{name}'. Did you mean `{right}`\?$"):
        getattr(module, name)
    with pytest.raises(AttributeError, match="has no attribute 'zzzzzzz'$"):
        module.zzzzzzz  # noqa: B018


RULE = st.SGD(st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1)), st.schedules.constant(eta=0.5))
SDE = st.SDE(drift=["-x"], diffusion=["1"], variables="x")


def run(**more):
    return st.simulate(RULE, [1.0], 1.0, 4, ["x", "x**2"], backend=more.pop("backend", "numpy"), **more)


@pytest.mark.parametrize(
    ("call", "kind", "right"),
    [
        (lambda: run(backend="nubma"), ValueError, "numba"),
        (lambda: run(backend="torhc:cuda"), ValueError, "torch"),
        (lambda: run(executor="procesess:4"), ValueError, "processes"),
        (lambda: run(tread=2), TypeError, "threads"),
        (lambda: run(trajectory=2), TypeError, "trajectories"),
        (lambda: st.weak_gap(RULE, RULE, [1.0], 1.0, 4, ["x"], slice=[1.0]), TypeError, "slices"),
        (lambda: run().at("x*2"), ValueError, "x**2"),
        (lambda: st.simulate(RULE, [1.0], 1.0, 4, ["X"]), ValueError, "x"),
        (lambda: st.losses.from_expression("sine(x)", variables="x"), ValueError, "sin"),
        (lambda: st.losses.from_expression("speed*x", variables="sped x"), ValueError, "sped"),
        (lambda: st.SDE(drift=["-x"], diffusion=["1"], variables="x", calculus="stratonovic"), ValueError, "stratonovich"),
        (lambda: st.SDE(drift=["-x"], diffusion=["1"], variables="x", noise="adittive"), ValueError, "additive"),
        (lambda: st.EulerMaruyama(SDE, 0.1, law="nromal"), ValueError, "normal"),
        (lambda: st.distance([1.0] * 60, [2.0] * 60, "enrgy"), ValueError, "energy"),
        (lambda: st.verify([], budget="standart"), ValueError, "standard"),
    ],
)
def test_a_wrong_word_suggests_the_nearest(call, kind, right):
    with pytest.raises(kind) as caught:
        call()
    assert f"Did you mean `{right}`?" in str(caught.value)


def test_nothing_is_suggested_that_does_not_resemble():
    assert _check.suggestion("zebra", ["numba", "numpy"]) == ""
    with pytest.raises(ValueError, match="got 'zebra'. Take one.$"):
        _check.choice("kind", "zebra", ["numba"], "Take one.")
    with pytest.raises(ValueError, match="`kind` must be one of numba; got 3.$"):
        _check.choice("kind", 3, ["numba"])
    assert _check.choice("kind", "numba", ["numba"]) == "numba"
