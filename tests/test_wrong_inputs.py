"""Wrong inputs over the whole public surface: each is refused at the border, by a message with the argument's name, what came, and the way out.

A case is a function, or a command line as text, and the words that its message must contain, in order. Every message is a ValueError of a few
short sentences (exit code 2 on the command line), raised before any work. Cases of another type give the reason.
"""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from click.testing import CliRunner

import sdetools as st
from sdetools import bridge
from sdetools.cli import main

NAN, INF = math.nan, math.inf
PLAN, WITH_BETA = st.schedules.constant(0.1), st.schedules.constant(0.1, 0.5)
LOSS = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(2))
SGD = st.SGD(ORACLE, PLAN)
FLAT = st.NoisyOracle(st.losses.quadratic([1.0, 2.0]), st.noise.gaussian(2))
LINE = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(1))
DATA = st.losses.least_squares([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, 2.0, 3.0])
SDE = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
STREAM = st.streaming_least_squares([1.0, 0.5], label_noise=0.1, batch=2)
SPECTRUM = st.exact.power_law(5, 1.0, 0.5)
NET, MSE = torch.nn.Linear(2, 1), torch.nn.functional.mse_loss
BATCH = torch.ones(16, 2), torch.ones(16, 1)
BATCH_ARRAYS = np.ones((16, 2)), np.ones(16)
WEIGHTS = [torch.nn.Parameter(torch.zeros(2))]


def run(**change):
    """Simulate with valid arguments, some of them changed."""
    return st.simulate(**(dict(dynamics=SGD, x0=[1.0, 0.5], horizon=0.5, paths=20, observe=["x"], backend="numpy") | change))


def line(study, **change):
    """Call a study of one coordinate with valid arguments, some of them changed."""
    return study(**(dict(x0=[1.0], horizon=1.0, paths=20, observe=["x"], backend="numpy") | change))


def euler(dt):
    """Return the Euler-Maruyama scheme of `SDE` with step dt."""
    return st.EulerMaruyama(SDE, dt)


def pair(eta):
    """Return SGDM and SGD at the learning rate eta."""
    plan = st.schedules.constant(eta, 0.5)
    return st.SGDM(ORACLE, plan), st.SGD(ORACLE, plan.averaged())


def order(**change):
    """Measure an order with valid arguments, some of them changed."""
    given = dict(pair=pair, etas=[0.1, 0.05], x0=[1.0, 0.5], horizon=0.5, paths=20, observe=["x"], backend="numpy")
    return st.order_study(**(given | change))


def slow(**change):
    """Run a slow study with valid arguments, some of them changed."""
    return st.slow_study(**(dict(oracle=ORACLE, plan=WITH_BETA, x0=[1.0, 1.0], horizon=0.05, paths=10, backend="numpy") | change))


def levels(**change):
    """Run the multilevel estimator with valid arguments, some of them changed."""
    return st.multilevel(**(dict(make=euler, x0=[1.0], horizon=1.0, eps=0.1, observe=["x"], backend="numpy") | change))


def work(**change):
    """Measure work and precision with valid arguments, some of them changed."""
    return line(st.work_precision, **(dict(methods=[euler], dts=[0.1, 0.05], expected=0.3) | change))


def leaving(leaves, **change):
    """Estimate an exit time with valid arguments, some of them changed."""
    return line(st.exit_time, dynamics=euler(0.1), leaves=leaves, **change)


def diagnosis(**change):
    """Diagnose a small network with valid arguments, some of them changed."""
    return bridge.diagnose(**(dict(model=NET, loss=MSE, data=BATCH, lr=0.1, batch_size=4) | change))


def model(kind, g):
    """Return a torchsde model with two coordinates, noise of a kind and a diffusion g(y)."""
    members = {"noise_type": kind, "sde_type": "ito", "f": lambda self, t, y: -y, "g": lambda self, t, y: g(y)}
    return type("Model", (), members)()


class Whole(st.Dynamics):
    """A rule with a constant of its own, which is an integer."""

    coefficients, p = ("eta", "p"), 2

    @staticmethod
    def rule(state, oracle, eta, p):
        """Take a step of p eta."""
        return (state[0] - p * eta * oracle(state[0]),)


class Missing(Whole):
    """A rule whose constant was forgotten."""

    coefficients = ("eta", "q")


class Own(Whole):
    """A rule with a function for its numbers."""

    def __init__(self, oracle, plan, given):
        super().__init__(oracle, plan)
        self.given = given

    def coefficient_values(self, steps):
        """Return what the function gives."""
        return self.given(steps)


def canvas():
    """Return axes of matplotlib."""
    return st.plots.canvas()[1]


def two_paths():
    """Run two dynamics with paths."""
    return st.weak_gap(SGD, SGD, [1.0, 0.5], 0.5, 20, ["x"], trajectories=2, backend="numpy")


CASES = {
    # names and formulas
    "a name of no coordinate": (
        lambda: run(observe=["x + z"]),
        "`observe`",
        "names x, y",
        "`z` in `x + z`",
        "The loss has the variables x y",
    ),
    "a number in quotes": (
        lambda: st.schedules.constant("0.1"),
        "`eta`",
        "positive number",
        "eta='0.1'",
        "Write it without quotes",
    ),
    "coordinates called otherwise": (lambda: run(observe=["x0"]), "`observe`", "x, y", "`x0`", "Did you mean `x`?"),
    "a coordinate called x0": (
        lambda: line(st.simulate, dynamics=st.SGD(LINE, PLAN)),
        "`observe`",
        "names x0",
        "`x`",
        "Did you mean `x0`?",
    ),
    "half a formula": (lambda: run(observe=["x +"]), "`observe`", "must be a formula", "`x +`"),
    "an empty formula": (lambda: run(observe=[""]), "`observe`", "coordinates x y", "empty", "Write 'x**2'"),
    "a function of NumPy": (lambda: run(observe=["np.exp(x)"]), "`observe`", "without a module", "np.exp(x)", "Write exp"),
    "an unknown function": (lambda: run(observe=["maximum(x, 0)"]), "`observe`", "maximum(x, 0)", "Write max"),
    "Unicode": (lambda: run(observe=["é"]), "`observe`", "names x, y", "é"),
    "bytes": (lambda: run(observe=[b"x"]), "`observe`", "expressions", "b'x'", "Write it like 'x**2'"),
    "None among observables": (lambda: run(observe=[None]), "`observe`", "got None", "Write it like"),
    "a number as observable": (lambda: run(observe=5), "`observe`", "a list of them", "got 5"),
    "a generator of observables": (lambda: run(observe=(o for o in ["x"])), "`observe`", "a list", "generator"),
    "a data frame of observables": (lambda: run(observe=pd.Series(["x"])), "`observe`", "a list", "dtype"),
    "a function without argument": (lambda: run(observe=[lambda: 1.0]), "`observe`", "function of x", "arguments ()", "lambda x"),
    "a vector": (lambda: run(observe=[lambda x: x]), "`observe`", "one real number a path", r"shape (2, 2)"),
    "observables by number": (lambda: run(observe={1: "x"}), "`observe`", "by text", "the name 1"),
    # numbers and their types
    "horizon in words": (lambda: run(horizon="abc"), "`horizon`", "positive number", "'abc'"),
    "horizon complex": (lambda: run(horizon=1j), "`horizon`", "positive number", "1j"),
    "horizon with a gradient": (
        lambda: run(horizon=torch.tensor(0.5, requires_grad=True)),
        "`horizon`",
        "requires one",
        ".item()",
    ),
    "steps that hide": (
        lambda: run(horizon=0.30000001),
        "`horizon`",
        "0.30000001",
        "3.0000001 steps of 0.1",
        "Take horizon=0.3 (3 steps)",
    ),
    "one step": (lambda: run(times=[0.13]), "`times`", "1.3 steps", "times=0.1 (1 step)"),
    "time in words": (lambda: run().at("x", "end"), "`time`", "recorded time", "'end'", "Leave it out"),
    "paths in words": (lambda: run(paths="100"), "`paths`", "whole number", "'100'", "number of simulated paths"),
    "paths too many": (lambda: run(paths=10**15), "`paths`", "at most 2**42", "1000000000000000"),
    "paths True": (lambda: run(paths=True), "`paths`", "whole number", "True"),
    "paths NaN": (lambda: run(paths=NAN), "`paths`", "whole number", "nan"),
    "paths infinite": (lambda: run(paths=INF), "`paths`", "whole number", "inf"),
    "paths of one entry": (lambda: run(paths=pd.Series([20])), "`paths`", "whole number", "20"),
    "seed None": (lambda: run(seed=None), "`seed`", "whole number", "None"),
    "stream negative": (lambda: run(stream=-1), "`stream`", "at least 0", "-1", "Streams are 0, 1, 2"),
    "confidence in per cent": (lambda: run(confidence=95), "`confidence`", "between 0 and 1", "95", "write 0.95"),
    "dtype of NumPy": (lambda: run(dtype=np.float32), "`dtype`", "'float64' or 'float32'", "float32'>"),
    "unknown backend": (lambda: run(backend="gpu"), "`backend`", "'numba'", "'gpu'"),
    "yes for True": (lambda: run(keep_final="yes"), "`keep_final`", "True or False", "'yes'"),
    "coupled 3": (lambda: st.weak_gap(SGD, SGD, [1.0, 0.5], 0.5, 20, ["x"], coupled=3), "`coupled`", "True or False", "3"),
    "an index of observables": (lambda: run().at(0.0), "`observable`", "a name or an index", "0.0"),
    # points
    "x0 None": (lambda: run(x0=None), "`x0`", "array of real numbers", "None"),
    "x0 one number": (lambda: run(x0=1.0), "`x0`", "(2,)", "shape ()", "2 coordinates"),
    "x0 a 0-d array": (lambda: run(x0=np.array(1.0)), "`x0`", "(2,)", "shape ()"),
    "x0 a generator": (lambda: run(x0=(i for i in (1.0, 2.0))), "`x0`", "array of real numbers", "generator"),
    "x0 a dict": (lambda: run(x0={"x": 1.0}), "`x0`", "array of real numbers", "{'x': 1.0}"),
    "x0 complex": (lambda: run(x0=[1 + 1j, 2]), "`x0`", "array of real numbers", "(1+1j)"),
    "x0 infinite": (lambda: run(x0=[INF, 1.0]), "`x0`", "finite numbers", "infinity"),
    "x0 with a gradient": (
        lambda: run(x0=torch.tensor([1.0, 2.0], requires_grad=True)),
        "`x0`",
        "array of real numbers",
        "requires_grad=True",
        ".detach()",
    ),
    "x0 masked": (lambda: run(x0=np.ma.masked_array([1.0, 2.0], [0, 1])), "`x0`", "masked", ".filled"),
    "x0 transposed": (lambda: run(x0=xr.DataArray(np.ones((5, 2)))), "`x0`", "(2, n)", "(5, 2)"),
    # what is simulated
    "a class": (lambda: st.simulate(st.SGD, [1.0], 1.0, 10, ["x"]), "`dynamics`", "a dynamics", "SGD", "st.SGD(...)"),
    "an SDE": (lambda: st.simulate(SDE, [1.0], 1.0, 10, ["x"]), "`dynamics`", "a dynamics", "SDE", "st.EulerMaruyama"),
    "an oracle": (
        lambda: st.weak_gap(SGD, ORACLE, [1.0, 0.5], 0.5, 20, ["x"]),
        "`second`",
        "a dynamics",
        "NoisyOracle",
        "st.SGD",
    ),
    "a class of functionals": (
        lambda: run(functionals=st.PathLength),
        "`functionals`",
        "increment",
        "PathLength",
        "Try st.PathLength()",
    ),
    "a functional of one argument": (lambda: st.Accumulate("a", lambda x: 1.0), "`function`", "before, after", "(x)"),
    "a functional of no loss": (lambda: st.LossVariation("x**2"), "`loss`", "a loss", "'x**2'", "oracle.loss"),
    "a coordinate by name": (lambda: run(functionals=st.SquaredIncrements("x")), "`coordinate`", "whole number", "'x'"),
    # files
    "a result without a file": (lambda: run().save(None), "`path`", "path of a file", "None"),
    "a file that is no result": (lambda: st.load(__file__), "`path`", "a result that was saved", "cannot be read"),
    "load None": (lambda: st.load(None), "`path`", "path of a file", "None"),
    # schedules
    "a list of rates": (lambda: st.schedules.constant([0.1, 0.2]), "`eta`", "positive number", "[0.1, 0.2]", "from_arrays"),
    "a list as plan": (lambda: st.SGD(ORACLE, [0.1, 0.2]), "`plan`", "a schedule", "[0.1, 0.2]", "st.schedules.from_arrays"),
    "an array as plan": (
        lambda: st.SGDM(ORACLE, np.array([0.1, 0.2])),
        "`plan`",
        "a schedule",
        "array",
        "st.schedules.from_arrays",
    ),
    "a number as plan": (lambda: st.SGD(ORACLE, 0.1), "`plan`", "a schedule", "0.1", "st.schedules.constant"),
    "a negative rate": (lambda: st.schedules.constant(-0.1), "`eta`", "positive", "-0.1", "sign of the loss"),
    "a milestone": (lambda: st.schedules.step_decay(0.1, 5), "`at`", "a list", "5", "at=[100]"),
    "a rate for a function": (lambda: st.schedules.from_functions(0.1, 0.5, 10), "`eta`", "function of k", "0.1", "lambda k"),
    "a chain of numbers": (lambda: st.schedules.chain(PLAN, 5, 0.1), "`then`", "schedules", "0.1"),
    # losses
    "names as a number": (lambda: st.losses.from_expression("x**2", variables=3), "`variables`", "names", "3"),
    "parameters in a list": (
        lambda: st.losses.from_expression("a*x", "x", ["a"]),
        "`parameters`",
        "a dict",
        "['a']",
        "{'a': 1.0}",
    ),
    "a parameter and a coordinate": (
        lambda: st.losses.from_expression("x", "x", {"x": 1.0}),
        "`parameters`",
        "coordinate",
        "x",
        "Rename",
    ),
    "an unknown constant": (lambda: st.losses.from_expression("a*x", "x"), "`text`", "names x", "`a` in `a*x`", "parameters="),
    "a formula for a function": (
        lambda: st.losses.from_function("x**2"),
        "`gradient`",
        "function of x",
        "'x**2'",
        "from_expression",
    ),
    "a gradient without dim": (
        lambda: st.losses.from_function(lambda x: [x[0]]),
        "`dim`",
        "whole number",
        "None",
        "number of coordinates",
    ),
    "a gradient without argument": (lambda: st.losses.from_function(lambda: 1, 1), "`gradient`", "function of x", "()"),
    "no models": (lambda: st.losses.from_models([], [], "x"), "`models`", "at least one", "none", "['x*y']"),
    "a loss with a jump": (
        lambda: st.NoisyOracle(st.losses.from_expression("x > 0"), st.noise.gaussian(1)),
        "`loss`",
        "(x > 0)",
        "max",
    ),
    # noise
    "no batch size": (lambda: st.noise.minibatch(DATA, None), "`size`", "whole number", "None"),
    "batches of a formula": (lambda: st.noise.minibatch(LOSS, 2), "`loss`", "have data", "(x*y - 1)**2 / 2", "noise.gaussian"),
    "noise and loss exchanged": (
        lambda: st.NoisyOracle(st.noise.gaussian(2), LOSS),
        "`loss`",
        "a loss",
        "gaussian noise",
        "from_expression",
    ),
    "a model of other names": (
        lambda: st.noise.label_noise(model="x*z", variables="x y"),
        "`model`",
        "names x, y",
        "`z` in `x*z`",
    ),
    "a root of other names": (
        lambda: st.noise.gaussian(root=[["z"], ["x"]], variables="x y"),
        "`root`",
        "names x, y",
        "`z`",
        "parameters=",
    ),
    "a negative spread": (lambda: st.NoisyOracle(LOSS, st.noise.gaussian(2), sigma=-1), "`sigma`", "0 or above", "-1"),
    # SDEs and integrators
    "a drift of other names": (lambda: st.SDE(["-x"], ["1"], "y"), "`drift`", "names y", "`x` in `-x`"),
    "a diffusion of other names": (lambda: st.SDE(["-x"], ["sqrt(z)"], "x"), "`diffusion`", "names x", "`z`"),
    "names of an SDE as a number": (lambda: st.SDE(["-x"], ["1"], 3), "`variables`", "names", "3"),
    "an optimiser in an integrator": (lambda: st.EulerMaruyama(SGD, 0.1), "`sde`", "an SDE", "SGD", "st.SDE"),
    "a splitting of any SDE": (lambda: st.BAOAB(SDE, 0.1), "`sde` of BAOAB", "kinetic", "SDE(dim=1", "st.EulerMaruyama"),
    "a step of NaN": (lambda: st.EulerMaruyama(SDE, NAN), "`dt`", "positive", "nan"),
    # rules
    "momentum for SGD": (lambda: st.SGD(ORACLE, WITH_BETA), "`plan` of SGD", "without momentum", "averaged"),
    "beta2 of 1": (lambda: st.Lion(ORACLE, WITH_BETA, 1.0), "`beta2`", "[0, 1)", "1.0"),
    "steps of local SGD": (lambda: st.LocalSGD(ORACLE, PLAN, 2, 1.5), "`local_steps`", "whole number", "1.5"),
    # studies
    "a pair that is none": (lambda: order(pair=(SGD, SGD)), "`pair`", "function of eta", "SGD", "lambda eta"),
    "a pair without argument": (lambda: order(pair=lambda: SGD), "`pair`", "function of eta", "()"),
    "a pair of one": (lambda: order(pair=lambda eta: SGD), "`pair`", "two dynamics", "SGD"),
    "one eta": (lambda: order(etas=0.1), "`etas`", "a list", "0.1", "[0.1, 0.05]"),
    "expected numbers": (lambda: order(expected={"x": 1.0}), "`expected`", "functions of eta", "{'x': 1.0}"),
    "expected of others": (lambda: order(expected={"z": lambda eta: eta}), "`expected`", "observables of `observe`", "'z'"),
    "a slow study of a number": (lambda: slow(plan=0.1), "`plan`", "a schedule", "0.1", "st.schedules.constant"),
    "an integrator by name": (lambda: slow(integrator="euler"), "`integrator`", "function of sde, dt", "'euler'", "st.Platen"),
    "paths shown": (lambda: slow(shown=-1), "`shown`", "at least 0", "-1"),
    "levels of one step": (lambda: levels(make=euler(0.1)), "`make`", "function of dt", "EulerMaruyama", "lambda dt"),
    "eps out of reach": (lambda: levels(eps=1e-12), "`eps`", "in reach", "1e-12", "larger one"),
    "levels that divide nothing": (lambda: levels(dt=0.3), "`dt`", "divide the horizon", "0.3", "Take dt="),
    "extrapolation of a number": (lambda: line(st.extrapolate, make=3, dt=0.1), "`make`", "function of dt", "3", "lambda dt"),
    "points of other dimensions": (
        lambda: st.distance(np.zeros((2, 5)), np.zeros((3, 5))),
        "`first` and `second`",
        "2 and 3",
        "component first",
    ),
    "a distance of runs without points": (lambda: st.distance(run(), run()), "`first`", "last points", "keep_final=True"),
    "an unknown distance": (lambda: st.distance([1.0, 2.0], [1.0, 2.0], "euclid"), "`kind`", "wasserstein", "'euclid'"),
    "burn-in beyond the end": (lambda: line(st.stationary, dynamics=euler(0.1), burn_in=9.0), "`burn_in`", "horizon", "9.0"),
    "exits of a number": (lambda: leaving(3), "`leaves`", "a comparison such as 'x > 1'", "3"),
    "exits of other names": (lambda: leaving("y > 1"), "`leaves`", "names x", "`y` in `y > 1`", "variables x"),
    "half a comparison": (lambda: leaving("x >"), "`leaves`", "a formula", "`x >`"),
    "no methods": (lambda: work(methods=None), "`methods`", "list or dict", "None", "lambda dt"),
    "no steps": (lambda: work(dts=[]), "`dts`", "at least one", "none", "[0.1, 0.05]"),
    "neither truth nor reference": (lambda: work(expected=None), "`expected` or `reference`", "neither", "small step"),
    # exact results
    "moments of nothing": (lambda: st.exact.moments(None, [1.0], 3), "`dynamics`", "a dynamics", "None", "st.SGD"),
    "moments of a formula": (lambda: st.exact.moments(SGD, [1.0, 0.5], 3), "quadratic loss", "(x*y - 1)**2 / 2", "Simulate it"),
    "expectation of a dynamics": (lambda: st.exact.expectation(SGD, "x"), "`moments`", "st.exact.moments", "SGD"),
    "expectation of other names": (
        lambda: st.exact.expectation(st.exact.moments(st.SGD(FLAT, PLAN), [1.0, 2.0], 1), "z"),
        "`observable`",
        "names x0, x1",
        "`z`",
        "x0 x1",
    ),
    "exact gap of one": (lambda: st.exact.gap(st.SGD(FLAT, PLAN), None, [1.0, 2.0], 3, "x0"), "`second`", "a dynamics", "None"),
    "risk of other data": (
        lambda: st.exact.risk(st.SGD(FLAT, PLAN), [1.0, 2.0], 3),
        "streaming least squares",
        "gaussian noise",
        "st.streaming",
    ),
    "edge of an oracle": (lambda: st.exact.stability_edge(STREAM), "`dynamics`", "a rule, such as st.SGD", "NoisyOracle"),
    "transfer of nothing": (lambda: st.exact.transfer(None, [1.0], 3, "x0"), "`dynamics`", "a dynamics", "None"),
    "modes beyond memory": (lambda: st.exact.power_law(10**12, 1.0, 1.0), "`modes`", "at most 1,073,741,824", "1000000000000"),
    "bulks by one number": (lambda: st.exact.two_bulks(5, 10.0), "`modes` and `distance` pairs", "5"),
    "an edge without rows": (lambda: st.exact.mode_edge(0), "`batch`", "positive", "0"),
    "negative label noise": (lambda: st.exact.momentum_stationary_risk([1.0], 1, -1, 0.1), "`label_noise`", "0 or above", "-1"),
    "eigenvalues for a spectrum": (
        lambda: st.exact.drop_momentum([1.0, 2.0], 4, 0.1, 0.9, 9),
        "`spectrum`",
        "a Spectrum",
        "[1.0, 2.0]",
        "power_law",
    ),
    "a diagram of nothing": (lambda: st.exact.dropping_diagram(SPECTRUM, [], [0.1], 0.9, 9), "`batches` and `rates`", "0 and 1"),
    "an exact exit of nothing": (
        lambda: st.exact.exit_time(None, [1.0], -1, 1),
        "`of`",
        "an SDE or a dynamics",
        "None",
        "st.exit_time",
    ),
    "a generator of a number": (lambda: st.exact.modified_equation(3), "`rule`", "an optimiser", "3"),
    "times that decrease": (lambda: st.exact.solution(SDE, [1.0], [1.0, 0.5]), "`times`", "increase", "0.5"),
    # manifold
    "a projection of a word": (lambda: st.manifold.distance(LOSS, "a"), "`x`", "array of real numbers", "'a'"),
    "a projection of an oracle": (
        lambda: st.manifold.project(ORACLE, [1.0, 2.0]),
        "`loss`",
        "a loss",
        "NoisyOracle",
        "from_expression",
    ),
    # networks
    "no parameters": (lambda: bridge.SGDM(None, lr=0.1), "`params`", "parameters of a network", "None", "model.parameters()"),
    "a negative lr": (lambda: bridge.SGD(WEIGHTS, lr=-1.0), "`lr`", "at least 0", "-1.0"),
    "a scheduler of nothing": (lambda: bridge.PlanScheduler(None, PLAN), "`optimizer`", "an optimiser of torch", "None"),
    "a scheduler without plan": (lambda: bridge.PlanScheduler(torch.optim.SGD(WEIGHTS, 0.1), 0.1), "`plan`", "a schedule", "0.1"),
    "a scheduler of unequal groups": (
        lambda: bridge.PlanScheduler(
            torch.optim.SGD(
                [{"params": WEIGHTS, "lr": 0.1}, {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1000001}], 0.1
            ),
            PLAN,
        ),
        "`optimizer`",
        "one lr in all groups",
        "0.1, 0.1000001",
        "yourself",
    ),
    "buffers of nothing": (lambda: bridge.buffer_bytes(None), "`optimizer`", "an optimiser of torch", "None"),
    "batches of text": (lambda: bridge.Batches("abc", 2), "`data`", "arrays (inputs, targets)", "str"),
    "batches of a tuple of numbers": (lambda: bridge.Batches((torch.ones(3), 5), 2), "`data`", "arrays", "tuple of Tensor, int"),
    "batches of equal arrays": (
        lambda: bridge.Batches([torch.ones(3), torch.ones(3)], 2),
        "`data`",
        "arrays or samples",
        "2 arrays",
        "tuple(data)",
    ),
    "batches without a size": (lambda: bridge.Batches(BATCH, None), "`batch_size`", "whole number", "None", "Pass it"),
    "a diagnosis on no device": (lambda: diagnosis(device="foo"), "`device`", "available device", "'foo'"),
    "a diagnosis without a size": (lambda: diagnosis(batch_size=None), "`batch_size`", "whole number", "None"),
    "a diagnosis of a seed": (lambda: diagnosis(seed=-1), "`seed`", "at least 0", "-1"),
    "g without its motions": (
        lambda: bridge.from_torchsde(model("general", lambda y: torch.ones(len(y), 2)), 2),
        "`g`",
        "(batch, 2, noise_dim)",
        "general",
        "(2, 2)",
    ),
    "g with a matrix": (
        lambda: bridge.from_torchsde(model("diagonal", lambda y: torch.ones(len(y), 2, 2)), 2),
        "`g`",
        "(batch, 2)",
        "diagonal",
        "(2, 2, 2)",
    ),
    "g of NumPy": (lambda: bridge.from_torchsde(model("scalar", lambda y: y.numpy()), 2), "`g`", "real tensor", "ndarray"),
    # Booleans are no coordinates, and no times
    "x0 of Booleans": (lambda: run(x0=[True, False]), "`x0`", "real numbers", "[True, False]", "Write 1.0 and 0.0"),
    "x0 with one Boolean": (lambda: run(x0=[True, 0.5]), "`x0`", "real numbers", "[True, 0.5]", "Write 1.0"),
    "points of Booleans": (lambda: run(x0=np.ones((2, 3), dtype=bool)), "`x0`", "real numbers", "True", "Write 1.0"),
    "a tensor of Booleans": (lambda: run(x0=torch.tensor([True, False])), "`x0`", "real numbers", "True", "Write 1.0"),
    "an exact start of Booleans": (lambda: st.exact.moments(st.SGD(FLAT, PLAN), [True, True], 3), "`x0`", "[True, True]", "1.0"),
    "a momentum of Booleans": (lambda: st.SGDM(ORACLE, WITH_BETA, momentum=[True, False]), "`momentum`", "[True, False]", "1.0"),
    "times True": (lambda: run(times=True), "`times`", "real numbers", "True", "Write 1.0"),
    # signs
    "a move against the gradient": (lambda: st.SAM(ORACLE, PLAN, rho=-0.05), "`rho`", "0 or above", "-0.05", "At rho = 0"),
    "a negative rate to convert": (
        lambda: bridge.convert(-0.1, 0.9, source="heavy-ball", target="sgdm"),
        "`lr`",
        "0 or above",
        "-0.1",
        "the sign of the loss",
    ),
    "a negative rate in torch": (lambda: bridge.HeavyBall(WEIGHTS, lr=-0.1), "`lr`", "at least 0", "-0.1"),
    # rules of one's own
    "coefficients in a dict": (
        lambda: run(dynamics=Own(ORACLE, PLAN, lambda n: {"p": 1.0})),
        "`coefficient_values` of Own",
        "(5, 2)",
        "eta, p",
        "{'p': 1.0}",
        "float attributes",
    ),
    "coefficients of one step": (
        lambda: run(dynamics=Own(ORACLE, PLAN, lambda n: np.ones((1, 2)))),
        "`coefficient_values` of Own",
        "(5, 2)",
        "shape (1, 2)",
        "float attributes",
    ),
    "a coefficient that is an integer": (
        lambda: run(dynamics=Whole(ORACLE, PLAN)),
        "`coefficients` of Whole",
        "float attributes",
        "'p', whose value is 2",
        "such as 2.0",
    ),
    "a coefficient that is none": (
        lambda: run(dynamics=Missing(ORACLE, PLAN)),
        "`coefficients` of Missing",
        "'q', whose value is None",
        "Set self.q",
    ),
    # objects, and what was nearly one
    "a noise that was not called": (
        lambda: st.NoisyOracle(LOSS, st.noise.gaussian),
        "`noise`",
        "<function gaussian>",
        "gaussian(dim=2)",
    ),
    "two dimensions": (
        lambda: st.weak_gap(SGD, st.SGD(LINE, PLAN), [1.0, 0.5], 0.5, 20, ["x"]),
        "one dimension",
        "2 and 1",
        "losses",
    ),
    "a distance from None": (
        lambda: st.distance(None, np.ones((1, 5))),
        "`first`",
        "(dim, paths)",
        "NoneType",
        "keep_final=True",
    ),
    "a functional without a name": (lambda: st.Accumulate("", lambda a, b: a[0]), "`name`", "a text", "''", "'crossings'"),
    "a functional with a number for a name": (
        lambda: st.Accumulate(3, lambda a, b: a[0]),
        "`name`",
        "a text",
        "3",
        "'crossings'",
    ),
    "claims None": (lambda: st.verify(None), "`paths`", "file or folder", "None", "'claims.py'"),
    "claims by number": (lambda: st.verify([3]), "`paths`", "file or folder", "3", "'claims.py'"),
    "coordinates as a text": (lambda: run(trajectories=2).plot_paths(coordinates="x"), "`coordinates`", "a list", "'x'", "['x']"),
    "two axes for one plane": (
        lambda: two_paths().plot_paths(ax=[canvas(), canvas()]),
        "`ax`",
        "1 axes",
        "got 2",
        "separate=True",
    ),
    "no processes": (lambda: run(executor="processes:0"), "`executor`", "at least 1", "0", "number of workers"),
    "a gradient at a text": (lambda: LOSS.gradient("x"), "`x`", "real numbers", "'x'", "[1.0, 0.5]"),
    "a value without the data": (
        lambda: st.losses.from_function(value=lambda x: x[0] ** 2, dim=2, data=BATCH_ARRAYS),
        "`value`",
        "function of x, row_0, row_1",
        "(x)",
    ),
    "a matrix for a diagonal": (lambda: st.starts.gaussian([0.0, 0.0], [[1.0]]), "`covariance`", "(2, 2)", "(1, 1)", "diagonal"),
    "a list of sigmas": (lambda: st.NoisyOracle(LOSS, st.noise.gaussian(2), sigma=[1, 2]), "`sigma`", "0 or above", "[1, 2]"),
    "beta of 1": (lambda: st.schedules.constant(0.1, 1.0), "`beta`", "[0, 1)", "1.0", "Take it below 1"),
    "no step_time": (lambda: st.SGD(ORACLE, PLAN, step_time=0), "`step_time`", "positive", "0"),
    "one batch of too many": (lambda: st.noise.minibatch(DATA, 5, replace=False), "`size`", "at most", "3", "5", "replace=True"),
    "a matrix that is not symmetric": (
        lambda: st.losses.quadratic([[1.0, 2.0], [0.0, 1.0]]),
        "`H`",
        "symmetric",
        "2",
        "(H + H.T) / 2",
    ),
    "bounds exchanged": (lambda: st.Bounded("x", 2, 1), "`low`", "below `high`", "low=2", "Swap them"),
    "a time before the start": (lambda: run(times=[-0.1]), "`times`", "between 0 and the horizon", "-0.1"),
    "no times": (lambda: run(times=[]), "`times`", "between 0 and the horizon", "[]"),
    "an observable twice": (lambda: run(observe=["x", "x"]), "`observe`", "once", "x, x", "a dict"),
    "more trajectories than paths": (lambda: run(trajectories=30), "`trajectories`", "at most", "30 of 20", "run more paths"),
    "steps of two lengths": (
        lambda: st.weak_gap(SGD, st.SGD(ORACLE, st.schedules.constant(0.07)), [1.0, 0.5], 0.5, 20, ["x"]),
        "must nest",
        "0.1 and 0.07",
        "step_time=",
    ),
    "two budgets": (
        lambda: st.weak_gap(SGD, SGD, [1.0, 0.5], 0.5, 20, ["x"], precision=0.1),
        "`paths` or `precision`",
        "100_000",
    ),
    # diagnosis
    "a batch of none": (lambda: diagnosis(batch_size=0), "`batch_size`", "at least 1", "0", "Pass it"),
    "a batch of none beside a loader": (
        lambda: diagnosis(batch_size=0, data=torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*BATCH), batch_size=4)),
        "`batch_size`",
        "at least 1",
        "0",
    ),
    "another form of momentum": (lambda: diagnosis(form="adam"), "`form`", "heavy-ball, sgdm, nesterov", "'adam'"),
    "the class of a loss": (lambda: diagnosis(loss=torch.nn.MSELoss), "`loss`", "the class MSELoss", "Write MSELoss()"),
    "yes for exact": (lambda: diagnosis(exact="yes"), "`exact`", "True or False", "'yes'"),
    "the class of a criterion": (
        lambda: bridge.loss_of_module(NET, torch.nn.MSELoss, *BATCH),
        "`criterion`",
        "the class MSELoss",
        "Write MSELoss()",
    ),
    "a criterion by name": (
        lambda: bridge.loss_of_module(NET, "mse", *BATCH),
        "`criterion`",
        "(output, target)",
        "'mse'",
        "mse_loss",
    ),
    "the class of a network": (
        lambda: bridge.loss_of_module(torch.nn.Linear, MSE, *BATCH),
        "`module`",
        "Linear",
        "not its class",
    ),
    # commands
    "an empty loss": ("gap --loss '' --x0 1 --eta 0.1", "`--loss`", "a formula such as", "got ``"),
    "a loss with ^": ("gap --loss x^2 --x0 1 --eta 0.1", "`--loss`", "powers with `**`", "`^` in `x^2`", "Replace ^ by **"),
    "a constant loss": ("gap --loss 3 --x0 1 --eta 0.1", "`--variables`", "a formula without any", "`3`", "--variables x"),
    "a constant loss on the slow clock": ("slow --loss 3 --x0 1 --eta 0.1", "`--variables`", "`3`", "--variables x"),
    "a momentum of 1 on the command line": ("gap --loss x**2 --x0 1 --eta 0.1 --beta 1.0", "`beta`", "[0, 1)", "1.0"),
    "a rate twice": ("sweep --loss x**2 --x0 1 --eta 0.1,0.1 --beta 0.5", "`eta`", "different values", "[0.1, 0.1]"),
    "a horizon between steps": (
        "gap --loss x**2 --x0 1 --eta 0.1 --horizon 0.15",
        "`horizon`",
        "1.5 steps of 0.1",
        "horizon=0.1",
    ),
    "a spectrum of words": ("risk --spectrum power:a,b --eta 0.1", "`spectrum`", "numbers separated by commas", "'a,b'"),
    "a setting without a value": ("train resnet32-cifar10 --miniature --set seeds", "--set must be key=value", "'seeds'"),
    "an unknown name on the command line": ("gap --loss x**2 --x0 1 --eta 0.1 --observe y", "only the names x", "`y`"),
    "a rate in words": ("gap --loss x**2 --x0 1 --eta fast", "`eta`", "numbers separated by commas", "'fast'", "0.1,0.05"),
    "a point in words": ("gap --loss x**2 --x0 a --eta 0.1", "x0", "numbers separated by commas", "'a'"),
    "a point of two": ("gap --loss x**2 --x0 1,2 --eta 0.1", "`x0`", "(1,)", "(2,)"),
    "an unknown option": ("gap --loss x**2 --x0 1 --eta 0.1 --learning-rate 3", "No such option '--learning-rate'"),
    "no manifold": ("slow --loss x**2 --x0 1 --eta 0.1 --paths 10", "manifold of minimisers", "x**2", "isolated"),
    "an unknown recipe": ("train foo", "RECIPE", "resnet32-cifar10", "'foo'"),
    "an unknown setting": ("train resnet32-cifar10 --miniature --set foo=1", "--set must name one of", "seeds", "'foo'"),
    "a file that does not exist": ("diagnose /none.py --lr 0.1", "FILE must exist", "/none.py", "model, loss and data"),
    "an unknown law": ("risk --spectrum foo:1,2 --eta 0.1", "`spectrum`", "power:A,MODES", "'foo:1,2'"),
    "an unknown method": ("risk --spectrum power:1,9 --eta 0.1 --methods foo", "must be one of", "sgdm", "'foo'"),
    "a folder without claims": ("verify /none", "must exist", "/none"),
    "results that do not exist": ("compare /none /none", "`path`", "results.json", "/none", "does not exist"),
    "a dimension of 0": ("bench --dimension 0", "`dims`", "at least 1", "0"),
}


def message_of(wrong) -> str:
    """Return the message of a wrong input: of the ValueError, or what a command prints with exit code 2."""
    if isinstance(wrong, str):
        found = CliRunner().invoke(main, shlex.split(wrong))
        assert found.exit_code == 2 and (found.exception is None or isinstance(found.exception, SystemExit)), found.output
        return found.output.strip().splitlines()[-1]
    with pytest.raises(ValueError) as caught:
        wrong()
    return str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_input_is_refused_by_its_name_with_what_came_and_the_way_out(case):
    """The words stand in the message in this order; it is one line of at most three sentences and 400 characters."""
    wrong, *words = CASES[case]
    message = message_of(wrong)
    assert re.search(".*".join(map(re.escape, words)), message), message
    assert "\n" not in message and len(message) <= 400
    assert len(re.findall(r"[.:;!?] [A-Z]", message)) <= 2
    assert "object at 0x" not in message and "Traceback" not in message


def test_the_table_covers_the_public_surface():
    """At least 60 cases, and words for each of them."""
    assert len(CASES) >= 60 and all(len(words) >= 2 or isinstance(wrong, str) for wrong, *words in CASES.values())


def test_valid_neighbours_of_the_wrong_inputs_run():
    """Negative control: the helpers that build the cases run unchanged."""
    assert Own(ORACLE, PLAN, lambda n: np.full((n, 2), 0.1)).given(3).shape == (3, 2)
    assert run(dynamics=Own(ORACLE, PLAN, lambda n: np.full((n, 2), 0.1))).paths == run(x0=[1, 0]).paths == 20
    assert two_paths().plot_paths(ax=[canvas(), canvas()], separate=True) is not None
    assert bridge.convert(0.0, source="sgd", target="sgd") == {"lr": 0.0} and st.SAM(ORACLE, PLAN, rho=0.0).rho == 0
    assert run().paths == 20 and leaving("x > 2").run.paths == 20
    assert order().gaps[0].paths == 20 and work().paths == 20
    assert run(x0=pd.Series([1.0, 0.5])).at("x").value == run(x0=xr.DataArray([1.0, 0.5])).at("x").value == run().at("x").value
    frozen = np.array([1.0, 0.5])
    frozen.flags.writeable = False
    assert run(x0=frozen, paths=np.array(20)).at("x").value == run(paths=torch.tensor(20)).at("x").value


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (
            lambda: run(path=5),
            TypeError,
            "unexpected keyword argument `path`.*`paths`",
        ),  # as Python does for any misspelt argument
        (lambda: run(observe=[lambda x: x[5]]), IndexError, "index 5 is out of bounds"),  # the user's own code, with its line
        (
            lambda: st.load("/none/run.nc"),
            FileNotFoundError,
            "`path` must be a file that exists; got '/none/run.nc'",
        ),  # as for any file
        (lambda: run(store=Path("/")), st.StoreError, "not a store of sdetools but a folder"),  # nothing is overwritten
    ],
)
def test_other_types_of_errors_have_a_reason(wrong, error, words):
    """They are those that Python and the operating system raise for the same fault."""
    with pytest.raises(error, match=words) as caught:
        wrong()
    if error is IndexError:
        assert "test_wrong_inputs.py" in caught.value.__notes__[0] and "x[5]" in caught.value.__notes__[0]
