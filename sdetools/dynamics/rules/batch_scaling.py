"""Changes of a method that keep its SDE: other batch sizes (the square-root rule), and SVAG, the stochastic variance amplified gradient.

A step on a batch that is kappa times as large has the noise sigma / sqrt(kappa), and takes kappa times as long on a clock that counts samples. The
same SDE is kept by

    SGD, SGDM                          eta kappa                                                          the linear rule
    RMSProp (no momentum), Adam        eta sqrt(kappa), (1 - beta_i) kappa, eps / sqrt(kappa)              the square-root rule
    AdamW                              in addition the decoupled weight decay times sqrt(kappa)

and an initial second moment is divided by kappa. SVAG amplifies the covariance l times in place of a smaller batch, kappa = 1/l, by the combination
r_1 g_1 + r_2 g_2 of two independent gradients, and a plan lasts l times as many steps. The rule for adaptive methods needs noise that dominates the
gradients, as in their SDEs. Source: Malladi et al., On the SDEs and scaling rules for adaptive gradient algorithms, NeurIPS 2022, whose l is sqrt(l)
here.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar, overload

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Dynamics, check_oracle
from sdetools.dynamics.rules.optimisers import SGD, SGDM
from sdetools.dynamics.rules.second_moment import AdamW, RMSProp, SecondMoment
from sdetools.noise.oracle import NoisyOracle, svag as svag_oracle
from sdetools.schedules import Plan

Adaptive = TypeVar("Adaptive", bound=SecondMoment)
Method = TypeVar("Method", bound=Dynamics)


def square_root_rule(method: Adaptive, kappa: float, oracle: NoisyOracle | None = None) -> Adaptive:
    """Return Adam, AdamW or RMSProp for batches that are `kappa` times as large: eta sqrt(kappa), (1 - beta_i) kappa, eps / sqrt(kappa).

    beta_1 is beta_k of the plan and beta_2 is `beta2`. The new method, a copy, also has sigma / sqrt(kappa), the weight decay of AdamW times
    sqrt(kappa), the initial second moment divided by kappa, and `step_time` times kappa, so that both methods are compared at equal numbers of
    samples. They have one SDE, and their laws differ by O(eta^2) in its scaling. A beta_1 of 0 stays 0. A plan that changes from step to step is read
    at every kappa-th step. Source: Malladi et al. 2022.

    Args:
        method: The method for the original batch size: `Adam`, `AdamW`, or `RMSProp` without momentum, with `steps_taken` = 0.
        kappa: The new batch size over the original one, positive; at most 1 / (1 - beta_i).
        oracle: The oracle of the larger batches, of the same dimension; None for that of `method` with sigma / sqrt(kappa), exact for Gaussian noise,
            otherwise up to skewness.

    Raises:
        ValueError: If the method is another one, if `kappa` is not positive or too large, or if the oracle is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=8.0)
        >>> large = st.square_root_rule(st.Adam(oracle, st.schedules.constant(0.125, beta=0.875), beta2=0.96875, eps=0.5), 4)
        >>> large.plan, large.beta2, large.eps, large.oracle.sigma, large.step_time
        (Plan(eta=0.25, eta_k=0.25, beta_k=0.5, 1 pair), 0.875, 0.25, 4.0, 0.5)
    """
    kappa = _check.positive("kappa", kappa, "It is the new batch size over the original one.")
    if not isinstance(method, SecondMoment):
        raise ValueError(
            f"`method` must be Adam, AdamW or RMSProp; got {_check.shown(method)}. For SGD the linear rule holds: eta times kappa."
        )
    return _square_root(
        method, kappa, method.oracle.with_sigma(method.oracle.sigma / math.sqrt(kappa)) if oracle is None else oracle
    )


@overload
def svag(of: NoisyOracle, l: int) -> NoisyOracle: ...
@overload
def svag(of: Method, l: int) -> Method: ...
def svag(of: NoisyOracle | Dynamics, l: int) -> NoisyOracle | Dynamics:
    """Return the stochastic variance amplified gradient (SVAG) of an oracle, or a method on it whose steps are l times shorter in time.

    The gradient is r_1 g_1 + r_2 g_2 with two independent gradients and r_i = (1 + (-1)^i sqrt(2 l - 1)) / 2: it has the same mean and l times the
    covariance. Of an oracle, the result is the oracle `st.noise.svag(oracle, l)`. Of a method, it is a copy with this oracle, `step_time` / l and

        SGD, SGDM                   eta / l,        the same momentum,
        RMSProp, Adam, AdamW        eta / sqrt(l),  (1 - beta_i) / l,  eps sqrt(l),  weight decay / sqrt(l),  l times the initial second moment.

    beta_1 is beta_k of the plan and beta_2 is `beta2`. The SDE of the method is the same for all l and the limit l -> infinity. A plan that changes
    lasts l times as many steps, and a beta_1 of 0 stays 0. At l = 1 the method is itself, on the second of the two gradients. Sources: Li, Malladi &
    Arora 2021 (SGD); Malladi et al. 2022, whose l is sqrt(l) here.

    Args:
        of: The oracle, or one of these methods; RMSProp without momentum, and the last three with `steps_taken` = 0.
        l: The amplification of the covariance, a positive integer.

    Raises:
        ValueError: If `l` is not a positive integer, or if no such scaling is known for the method.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.rademacher(dim=1), sigma=2.0)
        >>> made = st.svag(st.Adam(oracle, st.schedules.constant(0.5, beta=0.5), beta2=0.75, eps=0.25), 4)
        >>> made.plan, made.beta2, made.eps, made.oracle.sigma, made.step_time
        (Plan(eta=0.25, eta_k=0.25, beta_k=0.875, 1 pair), 0.9375, 0.5, 4.0, 0.125)
    """
    if not isinstance(of, Dynamics):
        return svag_oracle(of, l)
    oracle = svag_oracle(of.oracle, l)
    if isinstance(of, SecondMoment):
        return _square_root(of, 1 / l, oracle)
    if type(of) in (SGD, SGDM):
        return _changed(of, oracle, _paced(of.plan, 1 / l, 1 / l), 1 / l)
    raise ValueError(
        f"`of` must be an oracle, SGD, SGDM, RMSProp, Adam or AdamW; got {of.name}. Give its rates yourself, on the oracle st.svag(oracle, l)."
    )


def _square_root(method: Adaptive, kappa: float, oracle: NoisyOracle) -> Adaptive:
    """Return a copy of the method with the numbers of the square-root rule for `kappa` on another oracle; ValueError where no rule is known."""
    if isinstance(method, RMSProp) and method.plan.has_momentum:
        raise ValueError(
            "`method` must be RMSProp without momentum; got a plan with beta > 0, for which no rule is known. Use a plan with beta = 0, or Adam."
        )
    if method.steps_taken:
        raise ValueError(
            f"`method` must start at its first step; got steps_taken={method.steps_taken}. Change the method at the beginning of its run."
        )
    shortest = min(method.beta2, *(float(beta) or 1.0 for beta in method.plan.beta_values))
    largest = math.inf if shortest == 1 else 1 / (1 - shortest)
    if kappa > largest:
        raise ValueError(
            f"`kappa` must be at most 1 / (1 - beta_i), here {largest:.6g}; got kappa={kappa:g}. Beyond it an average would be shorter than a step."
        )
    root = math.sqrt(kappa)
    out = _changed(method, oracle, _paced(method.plan, kappa, root, kappa), kappa)
    out.beta2, out.eps, out.second_moment = _decay(method.beta2, kappa), method.eps / root, method.second_moment / kappa
    if isinstance(out, AdamW):
        out.weight_decay *= root
    return out


def _changed(method: Method, oracle: NoisyOracle, plan: Plan, time: float) -> Method:
    """Return a copy of a method on another oracle (ValueError for another dimension) and plan, whose steps take `time` times as long."""
    out = copy.copy(method)
    out.oracle, out.plan, out.step_time = check_oracle(oracle), plan, method.step_time * time
    if out.oracle.dim != method.dim:
        raise ValueError(f"`oracle` must have the dimension of the method, {method.dim}; got {out.oracle.dim}.")
    return out


def _paced(plan: Plan, time: float, rate: float, memory: float = 1.0) -> Plan:
    """Return the plan whose step j is step floor(j time) of `plan`, with `rate` times its rates and `memory` times 1 - beta for positive beta."""
    stored = len(plan.eta_values)
    # the small excess compensates the rounding of j * time, so that the start of step k belongs to step k
    steps = np.floor(np.arange(math.ceil((stored - 1) / time) + 1) * time * (1 + 1e-12) + 1e-9).astype(int)
    k = np.minimum(steps, stored - 1)
    betas = [_decay(float(beta), memory) if beta else 0.0 for beta in plan.beta_values[k]]
    return Plan(plan.eta_values[k] * rate, betas, plan.eta * rate, plan.alpha)


def _decay(beta: float, factor: float) -> float:
    """Return 1 - factor (1 - beta), exactly beta at factor 1, and 0 where rounding would make it negative."""
    return max(beta + (1 - factor) * (1 - beta), 0.0)
