"""SGD with clipped and with normalised gradients.

    ClippedSGD      x' = x - eta clip(g, -C, C),  or  x' = x - eta g min(1, C / |g|)                  Pascanu et al. 2013
    NormalisedSGD   x' = x - eta g / |g|                                                              Nesterov 1984

A prime marks the value after the step, g = g(x) is the noisy gradient and |g| its Euclidean norm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Oracle, State, without_momentum
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.dynamics.rules.without_gain import WithoutGain, direction
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


def _by_value(state: State, oracle: Oracle, eta: Any, limit: Any) -> State:
    """Return the state (x,) after a step of length `eta` with the gradient clipped to [-limit, limit] in each coordinate."""
    (x,) = state
    return (x - eta * np.minimum(np.maximum(oracle(x), -limit), limit),)


def clipped_by_norm(g: Any, limit: Any) -> Any:
    """Return g min(1, limit / |g|_2), with the norm over all coordinates, in the shape of `g`: `(dim,)`, `(dim, paths)`, or a traced value.

    `limit` is a positive number, possibly infinite.

    Example:
        >>> import numpy as np
        >>> from sdetools.dynamics.rules.clipping import clipped_by_norm
        >>> clipped_by_norm(np.array([[3.0, 0.3], [4.0, 0.4]]), 1.0).tolist()
        [[0.6, 0.3], [0.8, 0.4]]
    """
    return g / np.maximum(np.sqrt((g * g).sum(axis=0)) / limit, 1.0)


def _by_norm(state: State, oracle: Oracle, eta: Any, limit: Any) -> State:
    """Return the state (x,) after a step of length `eta` with the gradient scaled to a Euclidean norm of at most `limit`."""
    (x,) = state
    return (x - eta * clipped_by_norm(oracle(x), limit),)


class ClippedSGD(WithoutGain):
    """SGD with clipped gradients: x' = x - eta clip(g(x), -C, C) with `value` = C, or x' = x - eta g(x) min(1, C / |g(x)|_2) with `norm` = C.

    A prime marks the value after the step, g(x) is the noisy gradient, and |g|_2 its norm over all coordinates. At C = infinity the method is
    `SGD`. Clipping by norm is that of `torch.nn.utils.clip_grad_norm_` without its 1e-6 in the denominator. The method is not linear in g,
    and no plain SGD is equivalent: `gain` raises ValueError. Source: Pascanu, Mikolov & Bengio, ICML 2013.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0).
        value: The largest absolute value of a coordinate of the gradient, positive, possibly infinite; None to clip by `norm`.
        norm: The largest norm of the gradient, positive, possibly infinite; None to clip by `value`.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `value` or `norm` is not positive, not exactly one of them is given, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic([3.0, 4.0]), st.noise.none(dim=2))
        >>> plan = st.schedules.constant(eta=0.5)
        >>> clipped = [st.ClippedSGD(oracle, plan, value=2.5), st.ClippedSGD(oracle, plan, norm=2.5)]
        >>> [method.rule((np.ones(2),), oracle.loss.gradient, 0.5, 2.5)[0].tolist() for method in clipped]
        [[-0.25, -0.25], [0.25, 0.0]]
    """

    parts = ("x",)
    coefficients = ("eta", "limit")
    linear = False
    no_gain = "a linear filter; ClippedSGD is not linear: it limits large gradients. Compare it with SGD at the same eta"

    def __init__(
        self,
        oracle: NoisyOracle,
        plan: Plan,
        value: float | None = None,
        norm: float | None = None,
        step_time: float | None = None,
    ) -> None:
        if (value is None) == (norm is None):
            given = "neither" if value is None else f"value={_check.shown(value)} and norm={_check.shown(norm)}"
            raise ValueError(f"`value` or `norm` must be given, one of them; got {given}. value clips each coordinate by itself.")
        name, limit = ("value", value) if norm is None else ("norm", norm)
        self.limit = math.inf if isinstance(limit, float) and limit == math.inf else _check.positive(name, limit)
        self.by_norm = norm is not None
        small = r"\min(1, C / |g_k|_2)\, g_k" if self.by_norm else r"\mathrm{clip}(g_k, -C, C)"
        self.formula = rf"x_{{k+1}} = x_k - \eta_k\, {small}"
        super().__init__(oracle, without_momentum(plan, "ClippedSGD"), step_time=step_time)

    @property
    def rule(self) -> Any:
        """The rule, a function (state, oracle, eta, limit) -> state that clips by norm or by value, as was asked for.

        state is the tuple (x,), oracle the function of a point that returns the noisy gradient there, eta the learning rate and limit the bound C.
        """
        return _by_norm if self.by_norm else _by_value


class NormalisedSGD(WithoutGain):
    """SGD with normalised gradients: x' = x - eta g(x) / |g(x)|_2.

    A prime marks the value after the step, g(x) is the noisy gradient, and |g|_2 its norm over all coordinates. Where the norm is 0, or so
    small that its square underflows, the direction is g itself, which avoids a division by zero. In one coordinate the method is `SignSGD`;
    `SNGM` is the method with momentum. It is not linear in g, and no plain SGD is equivalent: `gain` raises ValueError. Source: Y. Nesterov,
    Minimization methods for nonsmooth convex and quasiconvex functions, 1984; Hazan, Levy & Shalev-Shwartz, NeurIPS 2015.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, the length of a step; without momentum (all beta_k = 0).
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> loss = st.losses.quadratic([3.0, 4.0])
        >>> st.NormalisedSGD.rule((np.ones(2),), loss.gradient, 0.5)  # state, oracle, eta
        (array([0.7, 0.6]),)
    """

    parts = ("x",)
    coefficients = ("eta",)
    linear = False
    formula = r"x_{k+1} = x_k - \eta_k\, g_k / |g_k|_2"
    no_gain = (
        "a linear filter; NormalisedSGD is not linear: its step does not depend on the size of the gradient. Compare it with SGD at a rate "
        "that you choose"
    )

    def __init__(self, oracle: NoisyOracle, plan: Plan, step_time: float | None = None) -> None:
        super().__init__(oracle, without_momentum(plan, "NormalisedSGD", instead="st.SNGM"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any) -> State:
        (x,) = state
        return (x - eta * direction(oracle(x)),)


_PLAN: tuple[dict[str, Any], str] = ({"plan": Plan}, "without momentum")
ENTRIES = (
    OptimiserEntry(
        ClippedSGD,
        "R. Pascanu, T. Mikolov, Y. Bengio, ICML 2013",
        "eta",
        valid=({"value": 1.5}, {"norm": 2.0}, {"norm": math.inf}),
        refused=(
            ({}, "got neither"),
            ({"value": 1.0, "norm": 2.0}, "one of them"),
            ({"value": 0.0}, "`value`"),
            ({"norm": math.nan}, "`norm`"),
            ({"plan": Plan, "norm": 1.0}, "without momentum"),
        ),
        exact=False,
        gain=False,
    ),
    OptimiserEntry(
        NormalisedSGD,
        "E. Hazan, K. Levy, S. Shalev-Shwartz, NeurIPS 2015",
        "eta",
        refused=(_PLAN, ({"plan": 0.1}, "schedule")),
        exact=False,
        gain=False,
    ),
)
