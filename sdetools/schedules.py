"""Learning-rate and momentum schedules, families of schedules scaled by eta, and the averaged schedule of Theorem 3.5.

Step k = 0, 1, ... of SGDM (Definition 2.3) uses the pair (eta_k, beta_k):

    m_{k+1} = beta_k m_k + (1 - beta_k) g_k,      x_{k+1} = x_k - eta_k m_{k+1}.

A `Plan` stores finitely many pairs; beyond the last pair the schedule is constant. With this convention

    c_k      = sum_{s>=k} eta_s prod_{t=k..s} beta_t                    (memory: y_k = x_k - c_k m_k)
    etabar_k = (1 - beta_k) sum_{s>=k} eta_s prod_{t=k+1..s} beta_t     (averaged schedule, Theorem 3.5)

are infinite sums with a geometric tail, by the backward recursion c_k = beta_k (eta_k + c_{k+1}), etabar_k = (1 - beta_k) (eta_k + c_{k+1}). The
auxiliary process obeys y_{k+1} = y_k - etabar_k g_k path by path, with the noisy gradient g_k. Invalid arguments raise ValueError.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from sdetools import _check, _lazy

_lazy.list_public_names(globals())
Numbers = float | Sequence[float] | np.ndarray


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Plan:
    """A schedule of learning rates eta_k and momentum coefficients beta_k, k = 0, 1, ..., constant beyond the last pair.

    Plans are immutable, and equal when their attributes are equal. The attributes `eta_values` and `beta_values` are read-only arrays `(K,)` without
    repetitions of the last pair (K = 1 for a constant plan), `eta` is the base rate, and `alpha` is as given.

    Args:
        eta_values: The learning rates, 0 or above: a number, or a sequence of eta_0, eta_1, ..., not empty.
        beta_values: The momentum coefficients in [0, 1): a number, or a sequence as long as that of the rates (one of one entry is a number).
        eta: The base rate, positive: the scale of Definition 3.1 and by default the time of one step (t = k eta). None for max_k eta_k.
        alpha: The index of the momentum scaling, 1 - beta_k ~ eta^alpha, 0 or above; 0 for a plan outside a scaled family.

    Raises:
        ValueError: If a rate is negative or all are zero, if a momentum coefficient lies outside [0, 1), or if array lengths differ.

    Example:
        >>> import sdetools as st
        >>> plan = st.Plan([0.1, 0.1, 0.05], [0.9, 0.9, 0.9])
        >>> plan
        Plan(eta=0.1, eta_k=0.1..0.05, beta_k=0.9, 3 pairs)
        >>> plan.etas(5)
        array([0.1 , 0.1 , 0.05, 0.05, 0.05])
    """

    eta_values: np.ndarray
    beta_values: np.ndarray
    eta: float
    alpha: float

    def __init__(self, eta_values: Numbers, beta_values: Numbers, eta: float | None = None, alpha: float = 0.0) -> None:
        etas, betas = _series("eta", eta_values), _series("beta", beta_values)
        if len(etas) != len(betas) and 1 not in (len(etas), len(betas)):
            raise ValueError(
                f"`eta` and `beta` must have one length; got {len(etas)} rates and {len(betas)} momenta. "
                "Give one number where the value is constant."
            )
        etas, betas = (a.copy() for a in np.broadcast_arrays(etas, betas))
        if etas.min() < 0:
            raise ValueError(f"`eta` must not be negative; got eta={float(etas.min())!r} at step {int(etas.argmin())}. {_SIGN}")
        if etas.max() == 0:
            raise ValueError(
                "`eta` must be positive at some step; got eta=0 at all of them. With zero rates the iterate never moves."
            )
        for beta in (betas.min(), betas.max()):
            _check.momentum("beta", float(beta))
        base = float(etas.max()) if eta is None else _check.positive("base", eta)
        alpha = _check.number("alpha", alpha, "be a number >= 0")
        if alpha < 0:
            raise ValueError(f"`alpha` must be a number >= 0; got alpha={alpha!r}. At alpha = 0 the momentum is fixed.")
        changes = np.flatnonzero((etas != etas[-1]) | (betas != betas[-1]))
        length = int(changes[-1]) + 2 if len(changes) else 1
        for name, values in (("eta_values", etas), ("beta_values", betas)):
            kept = values[:length] + 0.0  # a copy in which -0.0 is 0.0, so that equal plans have equal hashes
            kept.flags.writeable = False
            object.__setattr__(self, name, kept)
        object.__setattr__(self, "eta", base)
        object.__setattr__(self, "alpha", alpha)

    def etas(self, steps: int) -> np.ndarray:
        """Return the rates eta_0, ..., eta_{steps-1}, shape `(steps,)`, with the last stored rate repeated as often as necessary."""
        return _extend(self.eta_values, _check.count("steps", steps, least=0))

    def betas(self, steps: int) -> np.ndarray:
        """Return the momenta beta_0, ..., beta_{steps-1}, shape `(steps,)`, with the last stored one repeated as often as necessary."""
        return _extend(self.beta_values, _check.count("steps", steps, least=0))

    @property
    def has_momentum(self) -> bool:
        """Whether any momentum coefficient beta_k is positive."""
        return bool(self.beta_values.any())

    @property
    def longest_memory(self) -> float:
        """The longest memory of the momentum buffer in steps, max_k 1 / (1 - beta_k)."""
        return float(1 / (1 - self.beta_values.max()))

    def memory(self, steps: int) -> np.ndarray:
        """Return the memory c_0, ..., c_steps, an array `(steps + 1,)`, with c_k = sum_{s>=k} eta_s prod_{t=k..s} beta_t.

        With position x_k and momentum buffer m_k, x_k - c_k m_k is the auxiliary process y_k. For a constant plan c_k = eta beta / (1 - beta).
        """
        return _extend(self._memory, _check.count("steps", steps, least=0) + 1)

    def averaged(self) -> Plan:
        """Return the averaged schedule of Theorem 3.5: the plan of the SGD that approximates this SGDM, with the same base rate.

        Its rates are etabar_k = (1 - beta_k) sum_{s>=k} eta_s prod_{t=k+1..s} beta_t. A constant plan keeps its rate exactly.

            >>> import sdetools as st
            >>> st.Plan([0.3, 0.1], [0.5, 0.5]).averaged().eta_values
            array([0.2, 0.1])
        """
        return Plan(self._averaged, np.zeros(1), self.eta)

    def rate(self, t: float | np.ndarray, step_time: float | None = None) -> float | np.ndarray:
        """Return lambda_t = etabar_k / eta at step k = floor(t / step_time), the factor of drift and diffusion of the limiting SDE.

        eta is the base rate, etabar_k are the rates of `averaged()`. The result has the shape of `t` >= 0, a float for a number. `step_time` is the
        time of one step, by default the base rate; pass `plan.eta**2` on the slow clock t = k eta^2.

            >>> import numpy as np, sdetools as st
            >>> st.schedules.step_decay(0.1, at=[10], factor=0.5).rate(np.array([0.0, 0.9, 1.0]))
            array([1. , 1. , 0.5])
        """
        clock = self.eta if step_time is None else _check.positive("step_time", step_time)
        times = _check.finite("t", t)
        if times.size and times.min() < 0:
            raise ValueError(f"`t` must not be negative; got t={float(times.min())!r}. Time starts at the first step.")
        # the small excess compensates the rounding of t = k * step_time, so that the start of step k belongs to step k
        k = np.minimum(np.floor(times / clock * (1 + 1e-12) + 1e-9), len(self._averaged) - 1).astype(int)
        out = self._averaged[k] / self.eta
        return float(out) if np.ndim(t) == 0 else out

    @property
    def identity(self) -> str:
        """A text that is part of the keys of stored results, the same for two plans exactly when they are equal."""
        digest = hashlib.sha256()
        for values in (self.eta_values, self.beta_values, np.array([self.eta, self.alpha])):
            digest.update(np.asarray(values, dtype="<f8").tobytes())
            digest.update(b"|")
        return f"plan-{digest.hexdigest()[:32]}"

    @cached_property
    def _memory(self) -> np.ndarray:
        etas, betas = self.eta_values.tolist(), self.beta_values.tolist()
        out = [betas[-1] * etas[-1] / (1 - betas[-1])]
        for eta, beta in zip(reversed(etas[:-1]), reversed(betas[:-1]), strict=True):
            out.append(beta * (eta + out[-1]))
        return _frozen(out[::-1])

    @cached_property
    def _averaged(self) -> np.ndarray:
        out = self.eta_values.copy()  # the last entry needs no change: (1 - beta) eta / (1 - beta) = eta
        out[:-1] = (1 - self.beta_values[:-1]) * (self.eta_values[:-1] + self._memory[1:])
        return _frozen(out)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return (
            self.eta == other.eta
            and self.alpha == other.alpha
            and np.array_equal(self.eta_values, other.eta_values)
            and np.array_equal(self.beta_values, other.beta_values)
        )

    def __hash__(self) -> int:
        return hash(self.identity)

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (np.array(self.eta_values), np.array(self.beta_values), self.eta, self.alpha)

    def __repr__(self) -> str:
        pairs = len(self.eta_values)
        parts = [f"eta={self.eta:.6g}", f"eta_k={_span(self.eta_values)}", f"beta_k={_span(self.beta_values)}"]
        if self.alpha:
            parts.append(f"alpha={self.alpha:.6g}")
        return f"Plan({', '.join(parts)}, {pairs} pair{'s' if pairs != 1 else ''})"


def constant(eta: float, beta: float = 0.0) -> Plan:
    """Return the constant plan eta_k = eta > 0, beta_k = beta in [0, 1), whose averaged schedule has etabar_k = eta; ValueError outside these ranges.

    >>> import sdetools as st
    >>> st.schedules.constant(eta=0.01, beta=0.9)
    Plan(eta=0.01, eta_k=0.01, beta_k=0.9, 1 pair)
    """
    return Plan(np.array([_rate(eta)]), np.array([_check.momentum("beta", beta)]))


def warmup(eta: float, steps: int, start: float = 0.0, beta: float | Sequence[float] = 0.0) -> Plan:
    """Return the plan of a linear warm-up: eta_k = start + (eta - start) k / steps for k < steps, then eta; ValueError if invalid.

    Args:
        eta: The learning rate after the warm-up, positive. It is the base rate of the plan.
        steps: The number of warm-up steps, at least 1.
        start: The learning rate of step 0, at least 0. At 0, the first step only updates the momentum buffer.
        beta: The momentum coefficient: a number, or `steps + 1` entries, of which the last one holds from step `steps` on.

    Example:
        >>> import sdetools as st
        >>> st.schedules.warmup(0.4, steps=4).etas(6)
        array([0. , 0.1, 0.2, 0.3, 0.4, 0.4])
    """
    eta, steps = _rate(eta), _check.count("steps", steps)
    start = _check.non_negative("start", start)
    etas = start + (eta - start) * (np.arange(steps + 1) / steps)
    etas[-1] = eta
    return Plan(etas, beta, eta)


def step_decay(eta: float, at: Sequence[int], factor: float = 0.1, beta: float | Sequence[float] = 0.0) -> Plan:
    """Return the plan of a step decay: eta_k = eta * factor^n, where n is the number of milestones in `at` that are <= k; ValueError if invalid.

    Args:
        eta: The initial learning rate, positive. It is the base rate of the plan.
        at: The milestones: increasing step numbers >= 1; if empty, the rate is constant.
        factor: The positive factor by which the rate changes at each milestone.
        beta: The momentum coefficient: a number, or `at[-1] + 1` entries (any number if `at` is empty), of which the last one holds from then on.

    Example:
        >>> import sdetools as st
        >>> st.schedules.step_decay(1.0, at=[2, 4], factor=0.5).etas(6)
        array([1.  , 1.  , 0.5 , 0.5 , 0.25, 0.25])
    """
    eta, factor = _rate(eta), _check.positive("factor", factor)
    marks = [_check.count("at", k) for k in _check.several("at", at, "For one milestone write at=[100].")]
    if any(b <= a for a, b in pairwise(marks)):
        raise ValueError(f"`at` must hold increasing steps; got at={marks!r}. Sort it and remove repeated entries.")
    drops = np.searchsorted(marks, np.arange(marks[-1] + 1), side="right") if marks else np.zeros(1, dtype=int)
    return Plan([eta * factor**n for n in drops.tolist()], beta, eta)


def cosine(eta: float, steps: int, final: float = 0.0, beta: float | Sequence[float] = 0.0) -> Plan:
    """Return the plan of a cosine decay: eta_k = final + (eta - final) (1 + cos(pi k / steps)) / 2 for k < steps, then `final`; ValueError if invalid.

    Args:
        eta: The initial learning rate, positive. It is the base rate of the plan.
        steps: The number of steps of the decay, at least 1.
        final: The final learning rate, at least 0.
        beta: The momentum coefficient: a number, or `steps + 1` entries, of which the last one holds from step `steps` on.

    Example:
        >>> import sdetools as st
        >>> st.schedules.cosine(0.2, steps=2).etas(4)
        array([0.2, 0.1, 0. , 0. ])
    """
    eta, steps = _rate(eta), _check.count("steps", steps)
    final = _check.non_negative("final", final)
    etas = final + (eta - final) * (1 + np.cos(np.pi * np.arange(steps + 1) / steps)) / 2
    etas[-1] = final
    return Plan(etas, beta, eta)


def from_arrays(eta: Sequence[float] | float, beta: Sequence[float] | float = 0.0, base: float | None = None) -> Plan:
    """Return `Plan(eta, beta, base)` from rates and momenta, numbers or sequences of one length; the base rate `base` is max_k eta_k by default.

    >>> import sdetools as st
    >>> st.schedules.from_arrays([0.15, 0.05] * 2, beta=0.5).etas(5)
    array([0.15, 0.05, 0.15, 0.05, 0.05])
    """
    return Plan(eta, beta, base)


def from_functions(
    eta: Callable[[int], float], beta: Callable[[int], float] | float, steps: int, base: float | None = None
) -> Plan:
    """Return the plan eta_k = eta(k), beta_k = beta(k) or the number `beta`, for k < steps, then constant; base rate `base`, None for max_k eta_k.

    >>> import sdetools as st
    >>> st.schedules.from_functions(lambda k: 1 / (k + 1), beta=0.5, steps=2).etas(3)
    array([1. , 0.5, 0.5])
    """
    steps, eta = _check.count("steps", steps), _check.function("eta", eta, ["k"], "For a constant rate write lambda k: 0.1.")
    etas = [eta(k) for k in range(steps)]
    return Plan(etas, [beta(k) for k in range(steps)] if callable(beta) else beta, base)


def chain(first: Plan, steps: int, then: Plan, base: float | None = None) -> Plan:
    """Return the plan that follows `first` for `steps` >= 0 steps and then `then`, beginning with the pair k = 0 of `then`.

    The base rate `base`, the attribute `eta` of the plan returned, is by default the larger of the two base rates. Its `alpha` is 0.

        >>> import sdetools as st
        >>> st.schedules.chain(st.schedules.warmup(0.2, steps=2), 2, st.schedules.step_decay(0.2, at=[2], factor=0.5)).etas(6)
        array([0. , 0.1, 0.2, 0.2, 0.1, 0.1])
    """
    steps = _check.count("steps", steps, least=0)
    if not (isinstance(first, Plan) and isinstance(then, Plan)):
        raise ValueError(f"`first` and `then` must be schedules; got {_check.shown(first)} and {_check.shown(then)}.")
    etas, betas = map(np.concatenate, ((first.etas(steps), then.eta_values), (first.betas(steps), then.beta_values)))
    return Plan(etas, betas, max(first.eta, then.eta) if base is None else base)


def scaled(
    eta: float,
    alpha: float,
    rate: Callable[[float], float] | float = 1.0,
    damping: Callable[[float], float] | float = 1.0,
    horizon: float | None = None,
    step_time: float | None = None,
) -> Plan:
    """Return the plan eta_k = eta rate(t_k), 1 - beta_k = damping(t_k) eta^alpha, t_k = k step_time: a family scaled by eta (Definition 3.1).

    Args:
        eta: The base rate, positive.
        alpha: The index of the momentum scaling, at least 0.
        rate: The rate in units of eta, a number or a function of time, not negative.
        damping: The damping, a number or a function of time, positive with beta_k >= 0. For alpha < 1 the definition requires damping < 1.
        horizon: A time, required with a function: functions are evaluated at t_k <= horizon; from the last of these on the schedule is constant.
        step_time: The time of one step, positive; by default eta. On the slow clock it is eta**2.

    Raises:
        ValueError: If an argument lies outside its range, or `horizon` is missing.

    Example:
        >>> import sdetools as st
        >>> st.schedules.scaled(0.25, alpha=1, rate=lambda t: 1 / (1 + t), horizon=0.5).etas(3).round(4)
        array([0.25  , 0.2   , 0.1667])
    """
    eta, alpha = _rate(eta), _check.non_negative("alpha", alpha)
    clock = eta if step_time is None else _check.positive("step_time", step_time)
    steps = 1
    if callable(rate) or callable(damping):
        if horizon is None:
            raise ValueError(
                "`horizon` must be the last time at which `rate` and `damping` are evaluated; got None with a function of time."
            )
        steps = math.floor(_check.positive("horizon", horizon) / clock * (1 + 1e-12) + 1e-9) + 1
    times = clock * np.arange(steps)
    rates, dampings = (
        np.array([_check.number(name, f(float(t)) if callable(f) else f) for t in times])
        for name, f in (("rate", rate), ("damping", damping))
    )
    hint = "Definition 3.1 requires lambda_max < 1 when alpha < 1" if alpha < 1 else "damping is a friction"
    wrong = (dampings <= 0) | (dampings >= (1 if alpha < 1 else math.inf))
    if wrong.any():
        k = int(wrong.argmax())
        raise ValueError(
            f"`damping` must lie in {'(0, 1)' if alpha < 1 else '(0, inf)'} at alpha={alpha:g}; "
            f"got {float(dampings[k])!r} at t={float(times[k]):g}: {hint}."
        )
    if (dampings * eta**alpha > 1).any():
        raise ValueError(
            f"`damping` * eta^alpha = 1 - beta must not exceed 1; got {float(dampings.max() * eta**alpha)!r}. "
            "Take a smaller eta or less damping."
        )
    if rates.min() < 0:
        k = int(rates.argmin())
        raise ValueError(f"`rate` must not be negative; got {float(rates[k])!r} at t={float(times[k]):g}. {_SIGN}")
    return Plan(eta * rates, 1 - dampings * eta**alpha, eta, alpha)


def _rate(eta: Any) -> float:
    """Return a constant learning rate as a positive float; ValueError otherwise, with a remedy for what came."""
    if np.ndim(eta):
        raise ValueError(
            f"`eta` must be a positive number; got {_check.shown(eta)}. For a rate a step use schedules.from_arrays."
        )
    return _check.positive("eta", eta, _SIGN if isinstance(eta, (int, float)) and eta < 0 else "")


_SIGN = "A negative rate climbs the loss; for ascent change the sign of the loss."


def _series(name: str, values: Numbers) -> np.ndarray:
    out = np.atleast_1d(_check.finite(name, values))
    if out.ndim != 1 or not len(out):
        raise ValueError(
            f"`{name}` must be a number or a non-empty one-dimensional array, one entry per step; got shape {np.shape(values)}."
        )
    return out


def _extend(values: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([values[:length], np.full(max(0, length - len(values)), values[-1])])


def _frozen(values: Sequence[float] | np.ndarray) -> np.ndarray:
    out = np.array(values, dtype=float)
    out.flags.writeable = False
    return out


def _span(values: np.ndarray) -> str:
    return f"{values[0]:.6g}" if values.min() == values.max() else f"{values[0]:.6g}..{values[-1]:.6g}"
