"""Simulations of every kind, by name, for backends that are compared path by path. Each is `(members, x0, options)`.

They are those of the other tests (every noise, rule, SDE, integrator, start), and losses in 1, 3, 40 and 300 coordinates.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import sdetools as st

STEPS = 4
Case = tuple[tuple[Any, ...], Any, dict[str, Any]]


@cache
def module(name: str) -> ModuleType:
    """A test file as a module."""
    spec = importlib.util.spec_from_file_location(f"programs_{Path(name).stem}", Path(__file__).parent / name)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def in_dimension(kind: str, d: int) -> Case:
    """SGDM and SGD on a dense, a separable and a chained loss."""
    rng = np.random.default_rng(d)
    root = rng.standard_normal((d, d)) / d**0.5

    def separable(x):
        return np.sum(x**4 / 4 - x**2 / 2)

    def chained(x):
        return np.sum(np.tanh(x[1:] - x[:-1] ** 2) ** 2 + np.log1p(np.exp(-x[1:]))) + np.max(np.abs(x))

    loss = {
        "dense": lambda: st.losses.quadratic(root @ root.T),
        "separable": lambda: st.losses.from_function(value=separable, dim=d),
        "chained": lambda: st.losses.from_function(value=chained, dim=d),
    }[kind]()
    oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=d), 0.5)
    plan = st.schedules.constant(0.0625, 0.8)
    return (st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())), np.linspace(1, 2, d), {"observe": ["x0**2"]}


def all_programs() -> dict[str, Callable[[], Case]]:
    """Functions that make the simulations, by name."""
    kernels, family, rules, nonlinear, torch, starts, orders = map(
        module,
        (
            *("simulation/test_sim_kernels.py", "dynamics/test_dynamics_family.py", "dynamics/test_dynamics_rules.py"),
            *("dynamics/test_dynamics_nonlinear.py", "simulation/test_sim_torch.py", "test_starts.py"),
            "dynamics/test_dynamics_weak_orders.py",
        ),
    )
    out = dict(kernels.CASES)
    for tests in (family, rules, nonlinear):
        for name, rule in tests.ALL.items():
            out[f"rule {name}"] = lambda rule=rule: ((rule(),), [2.0, 1.5], {"observe": ["x*y"]})
    for name in ("sums of draws", "choices", "student"):
        out[f"torch {name}"] = lambda name=name: (torch.CASES[name]()[0], [2.0, 0.5], {"observe": torch.CASES[name]()[1]})
    for n, (cls, sde, law) in enumerate(orders.WEAK):
        more = {} if law == "normal" else {"law": law}
        member = lambda cls=cls, sde=sde, more=more: cls(sde, dt=0.0625, **more)  # noqa: E731
        x0 = orders.START[: sde.dim]
        out[f"integrator {n} {cls.__name__} {law}"] = lambda m=member, x0=x0: ((m(),), x0, {"observe": {"h": first}})
    for name, (law, *_) in starts.LAWS.items():
        member = lambda: starts.RULES["SGDM"](starts.oracle(), starts.PLAN)  # noqa: E731
        out[f"start {name}"] = lambda m=member, law=law: ((m(),), law, {"observe": ["x*y"]})
    for name, rule in starts.RULES.items():
        for what, x0 in (("mixture", starts.LAWS["mixture"][0]), ("columns", np.linspace(-1, 1, 14).reshape(2, 7))):
            out[f"start {name}, {what}"] = lambda rule=rule, x0=x0: (
                (rule(starts.oracle(), starts.PLAN),),
                x0,
                {"observe": ["x"]},
            )
    for d in (1, 3, 40, 300):
        for kind in ("dense", "separable", *(["chained"] if d > 1 else [])):
            out[f"{kind} {d}"] = lambda kind=kind, d=d: in_dimension(kind, d)
    return out


def first(x):
    """The square of the first coordinate."""
    return x[0] ** 2


def run(case: Case, backend: str, paths: int = 5, seed: int = 3, **more: Any) -> Any:
    """A few steps of a simulation, with the final points."""
    members, x0, options = case
    given = {"x0": x0, "horizon": STEPS * max(m.step_time for m in members), "paths": paths, "seed": seed, "threads": 1}
    given |= {"times": "all", "keep_final": True, "backend": backend} | options | more
    return st.simulate(*members, **given) if len(members) == 1 else st.weak_gap(*members, **given)
