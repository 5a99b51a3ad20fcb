"""The identity of a function changes with all that it computes from, and with nothing else, in this process and in others."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from numba import njit

import sdetools as st
from sdetools._identity import function_identity

SCALE = 1.0


def of_global(x):
    return SCALE * x[0]


def inner(x):
    return SCALE + x[0]


def of_a_function(x):
    return inner(x)


class Slope:
    """A callable with state."""

    def __init__(self, a, more=None):
        self.a, self.more = a, more

    def __call__(self, x):
        return self.a * x[0]

    def method(self, x):
        return self.a + x[0]


class Named:
    """An object of a user whose attribute `identity` says nothing about its content."""

    identity = "the same"

    def __init__(self, a):
        self.a = a


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a

    def __call__(self, x):
        return self.a * x[0]


def keyword(a):
    def h(x, *, a=a):
        return a * x[0]

    return h


def positional(a):
    return lambda x, a=a: a * x[0]


def closed(a):
    return lambda x: a * x[0]


def compiled(a):
    return njit(lambda x: a * x[0])


def power(x, a):
    return x[0] ** a


MAKERS = {
    "partial": lambda a: functools.partial(power, a=a),
    "nested partial": lambda a: functools.partial(functools.partial(power, a=a)),
    "positional partial": lambda a: functools.partial(power, a),
    "keyword-only default": keyword,
    "default": positional,
    "closure": closed,
    "numba": compiled,
    "object": Slope,
    "slots": Slotted,
    "method": lambda a: Slope(a).method,
    "list": lambda a: closed([1, a]),
    "dict": lambda a: closed({"a": a}),
    "set": lambda a: closed({1, a}),
    "array": lambda a: closed(np.array([a])),
    "objects": lambda a: closed(np.array([a, None], dtype=object)),
    "tensor": lambda a: closed(torch.tensor([float(a)], requires_grad=True)),
    "tensor in bfloat16": lambda a: closed(torch.tensor([float(a)], dtype=torch.bfloat16)),
    "object with an identity of its own": lambda a: closed(Named(a)),
    "function": lambda a: closed(closed(a)),
    "object in an object": lambda a: Slope(1, Slope(a)),
    "loss": lambda a: closed(st.losses.quadratic([[float(a)]])),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_identity_changes_with_the_content(name):
    one, again, other = MAKERS[name](2), MAKERS[name](2), MAKERS[name](3)
    assert function_identity(one) == function_identity(again) != function_identity(other)


@pytest.mark.parametrize("function", [of_global, of_a_function])
def test_the_identity_changes_with_global_variables(function, monkeypatch):
    """Of the function, and of functions that it calls."""
    before = function_identity(function)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert function_identity(function) != before
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert function_identity(function) == before


def test_an_open_file_is_left_alone(tmp_path):
    """A function that writes to a file: `detach` of a file, unlike that of a tensor, would close it."""
    with (tmp_path / "log.txt").open("w") as log:
        function_identity(lambda x: log.write(f"{x}") and x[0])
        log.write("still open")
    assert (tmp_path / "log.txt").read_text() == "still open"


def test_functions_of_libraries_differ_by_name():
    found = {function_identity(f) for f in (np.sin, np.cos, np.sum, np.mean, max, min, np.linalg.norm)}
    assert len(found) == 7


def test_objects_that_contain_themselves():
    """And values that are shared many times, which are visited once."""
    loop = Slope(1.0)
    loop.more = loop
    assert function_identity(loop) == function_identity(loop)
    shared = [1.0]
    for _ in range(60):
        shared = [shared, shared]
    assert function_identity(closed(shared))


def test_the_identity_is_the_same_in_another_process(tmp_path):
    """With other hash seeds, on which the order of sets of texts depends."""
    (tmp_path / "own.py").write_text(
        textwrap.dedent("""
        import sys
        from sdetools._identity import function_identity
        NAMES = {"alpha", "beta", "gamma", "delta"}
        def f(x):
            return x in {"a", "b", "c", "d"} or x in NAMES
        print(function_identity(f))
        """)
    )
    found = set()
    for seed in ("1", "2", "3"):
        run = subprocess.run(
            [sys.executable, "own.py"], cwd=tmp_path, env={"PYTHONHASHSEED": seed, "PATH": ""}, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


def test_a_store_does_not_confuse_two_functions(tmp_path):
    """Two runs of one store, whose observables are partials with other arguments: each has its own result."""
    oracle = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1))
    rule = st.SGD(oracle, st.schedules.constant(0.1))
    found = []
    for a in (1, 2):
        run = functools.partial(st.simulate, rule, [1.0], 1.0, 50, {"h": functools.partial(power, a=a)}, backend="numpy")
        if a == 1:
            run(store=tmp_path / "run.db")
            found.append(run().at("h").value)
        else:
            with pytest.raises(ValueError, match="store"):
                run(store=tmp_path / "run.db", resume=True)
            found.append(run().at("h").value)
    assert found[0] != found[1]


class Leaky(st.Dynamics):
    """SGD with a leak, whose rule is a method that reads an attribute."""

    coefficients = ("eta",)

    def __init__(self, oracle, plan, leak):
        self.leak, self.inner = leak, [st.SGD(oracle, plan)]
        super().__init__(oracle, plan)

    @functools.cached_property
    def twice(self):
        return 2 * self.leak

    def rule(self, state, oracle, eta):
        (x,) = state
        return ((1 - self.leak) * x - eta * oracle(x),)


def test_a_rule_that_is_a_method_is_identified_by_what_it_reads():
    oracle = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1))
    plan = st.schedules.constant(0.1)
    one, same, other = (Leaky(oracle, plan, leak) for leak in (0.1, 0.1, 0.2))
    before = one.identity
    assert one.twice == 0.2 and before == one.identity == same.identity != other.identity
    assert st.simulate(one, [1.0], 0.5, 100, ["x0"]).at("x0").value != st.simulate(other, [1.0], 0.5, 100, ["x0"]).at("x0").value
