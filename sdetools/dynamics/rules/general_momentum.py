"""Momentum with separate weights of gradient and buffer, and methods whose memory grows with the run or compensates its noise.

    GeneralMomentum   y' = (1 - D) y + g1 g,  x' = x - eta (g2 g + g3 y')                              contains SGDM, Nesterov, QHM
    DANA              the same with D = delta/(delta + k), g3 = c (1 + k)^-power, or a noise budget    Ferbach et al. 2025
    MaSS              w' = x - eta g,  x' = (1 + gamma) w' - gamma w + c eta g                         Liu & Belkin 2020
    ScheduleFree      z' = z - eta g(y),  x' = (1 - c) x + c z',  y = (1 - beta) z + beta x            Defazio et al. 2024
    AcSGD             x' = y - eta g(y),  z' = z - ratio eta (k + 1) g(y),  y = (k x + z) / (k + 1)    Varre & Flammarion 2022

A prime marks the value after the step, g = g(x) is the noisy gradient, and k = 0, 1, ... counts the steps. Their exact risk on least squares
is `st.exact.risk`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Oracle, State, columns, without_momentum
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.dynamics.rules.linear_filter import LinearFilter
from sdetools.dynamics.rules.without_gain import WithoutGain
from sdetools.noise.oracle import NoisyOracle
from sdetools.noise.streaming import StreamingNoise
from sdetools.schedules import Plan

_GRID = 512


class GeneralMomentum(LinearFilter):
    """General momentum: y' = (1 - D) y + g1 g(x), x' = x - eta (g2 g(x) + g3 y'), with a schedule for each number.

    A prime marks the value after the step; g(x) is the noisy gradient. The state is (x, y), position and buffer, each `(dim,)` or `(dim, paths)`.
    D = g1 = 1 - beta, g2 = 0, g3 = 1 is `SGDM`; D = 1 - mu, g1 = g2 = 1, g3 = mu is `Nesterov`; D = 1 - beta = g1, g2 = 1 - nu, g3 = nu is `QHM`. The
    gain, the rate of the equivalent plain SGD over eta, is g2 + g1 g3 / D. Source: the form of Ferbach et al., Dimension-adapted momentum outscales
    SGD, 2025.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0).
        D: The decay of y in (0, 1]: a number, or a sequence with one entry per step, constant after its last entry.
        g1: The weight of the gradient in y, a finite number or such a sequence, of a length of its own.
        g2: The weight of the gradient in the step, likewise.
        g3: The weight of y in the step, likewise.
        momentum: The initial y_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the gain, that of the last entries, times the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `D` lies outside (0, 1], an entry is not finite, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.GeneralMomentum(oracle, st.schedules.constant(eta=0.125), D=0.25, g2=1.0, g3=0.5).gain
        3.0
    """

    parts = ("x", "y")
    coefficients = ("eta", "D", "g1", "g2", "g3")
    formula = r"y_{k+1} = (1 - D_k) y_k + g_1 g_k, \quad x_{k+1} = x_k - \eta_k (g_2\, g_k + g_3\, y_{k+1})"

    def __init__(
        self,
        oracle: NoisyOracle,
        plan: Plan,
        D: Any = 0.1,
        g1: Any = 1.0,
        g2: Any = 1.0,
        g3: Any = 0.1,
        momentum: Any = None,
        step_time: float | None = None,
    ) -> None:
        given = {"D": D, "g1": g1, "g2": g2, "g3": g3}
        self.series = {name: np.atleast_1d(_check.finite(name, value)) for name, value in given.items()}
        for name, values in self.series.items():
            if values.ndim != 1 or not len(values):
                raise ValueError(f"`{name}` must be a number or one entry per step; got shape {np.shape(given[name])}.")
        if self.series["D"].min() <= 0 or self.series["D"].max() > 1:
            raise ValueError(f"`D` must lie in (0, 1]; got {_check.shown(D)}. At D = 1 the buffer is the last gradient.")
        super().__init__(
            oracle, without_momentum(plan, "GeneralMomentum", "D = 1 - beta"), momentum=momentum, step_time=step_time
        )

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, D: Any, g1: Any, g2: Any, g3: Any) -> State:
        x, y = state
        g = oracle(x)
        y = (1 - D) * y + g1 * g
        return x - eta * (g2 * g + g3 * y), y

    def coefficient_values(self, steps: int) -> np.ndarray:
        last = np.arange(steps)
        return columns(self.plan.etas(steps), *(v[np.minimum(last, len(v) - 1)] for v in self.series.values()))

    def _rows(self) -> np.ndarray:
        return self.coefficient_values(max(len(self.plan.eta_values), *map(len, self.series.values())) + 1)


class DANA(WithoutGain):
    """Dimension-adapted momentum: y' = (1 - D) y + g(x), x' = x - eta (g(x) + g3 y'), D = delta / (delta + k).

    A prime marks the value after the step k = 0, 1, ...; g(x) is the noisy gradient. The state is (x, y), position and buffer (y_0 = 0), each
    `(dim,)` or `(dim, paths)`. g3 = ratio (1 + k)^-power: with power = 0, and a ratio of about 1 over the dimension, it is DANA-constant; with
    power = 1/(2a) on a spectrum j^(-2a) it is DANA-decaying. With `share` s the schedule is instead g3 = min(1, 2 s B / (sigma^2 N(D / eta_k))), with
    N(mu) = sum_i lam_i / (lam_i + mu), the eigenvalues lam_i of the least squares, and B samples in a batch, whose noise sigma scales. Then the noise
    that the buffer adds is about the share s of the stability limit: it has both and Nesterov's g3 = 1 as its limits. As the memory grows with the
    run, no plain SGD is equivalent: `gain` raises ValueError. Source: Ferbach et al., Dimension-adapted momentum outscales SGD, arXiv:2505.16098
    (update and schedules); the noise budget is derived, see `st.exact.general_budget`.

    Args:
        oracle: The noisy gradient oracle; for `share` one of `st.streaming_least_squares`.
        plan: The schedule of eta_k, the authors' weight g2 of the gradient, without momentum (all beta_k = 0).
        delta: The memory is (delta + k) / delta steps after k steps; positive.
        ratio: g3 at k = 0, 0 or above.
        power: The exponent of its decay, 0 or above.
        share: Instead of `ratio` and `power`: the share s of the noise budget, positive; None for these.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, an argument lies outside its range, or `share` is given for another oracle.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> method = st.DANA(oracle, st.schedules.constant(eta=0.125), delta=1.0, ratio=0.5, power=1.0)
        >>> method.coefficient_values(2)  # eta, D, g1 = 1, g2 = 1, g3 for k = 0, 1
        array([[0.125, 1.   , 1.   , 1.   , 0.5  ],
               [0.125, 0.5  , 1.   , 1.   , 0.25 ]])
    """

    parts = ("x", "y")
    coefficients = ("eta", "D", "g1", "g2", "g3")
    formula = (
        r"y_{k+1} = (1 - D_k) y_k + g_k, \quad x_{k+1} = x_k - \eta_k (g_k + g_3 y_{k+1}), \quad D_k = \tfrac{\delta}{\delta + k}"
    )
    no_gain = "a filter with a fading memory; the memory of DANA grows with its run. Compare it with SGD at the same eta"

    def __init__(
        self,
        oracle: NoisyOracle,
        plan: Plan,
        delta: float = 8.0,
        ratio: float = 0.1,
        power: float = 0.0,
        share: float | None = None,
        step_time: float | None = None,
    ) -> None:
        self.delta = _check.positive("delta", delta)
        self.ratio, self.power = _check.number("ratio", ratio), _check.number("power", power)
        if self.ratio < 0 or self.power < 0:
            raise ValueError(f"`ratio` and `power` must be 0 or above; got ratio={ratio!r}, power={power!r}.")
        self.share = None if share is None else _check.positive("share", share)
        super().__init__(oracle, without_momentum(plan, "DANA", "delta"), step_time=step_time)
        if self.share is not None and not isinstance(self.oracle.noise, StreamingNoise):
            raise ValueError(
                f"`share` must come with an oracle of st.streaming_least_squares, whose spectrum it uses; got {self.oracle!r}. Give `ratio` and `power`."
            )

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, D: Any, g1: Any, g2: Any, g3: Any) -> State:
        return GeneralMomentum.rule(state, oracle, eta, D, g1, g2, g3)

    def coefficient_values(self, steps: int) -> np.ndarray:
        eta, k = self.plan.etas(steps), np.arange(steps, dtype=float)
        D = self.delta / (self.delta + k)
        g3 = self.ratio * (1 + k) ** -self.power if self.share is None else self._budgeted(D / eta, self.share)
        return columns(eta, D, 1.0, 1.0, g3)

    def _budgeted(self, mu: np.ndarray, share: float) -> np.ndarray:
        """Return g3 = min(1, 2 s B sigma^-2 / N(mu)) for each of the numbers `mu` = D / eta_k, `(steps,)`, where s = `share`.

        log N is interpolated between 512 values of log mu.
        """
        noise = self.oracle.noise
        assert isinstance(noise, StreamingNoise)
        grid = np.geomspace(mu.min(), mu.max(), _GRID) if mu.min() < mu.max() else mu[:1]
        known = np.log([noise.loss.effective_dimension(one) for one in grid])
        rows = noise.batch / self.oracle.sigma**2 if self.oracle.sigma else np.inf
        return np.minimum(1.0, 2 * share * rows / np.exp(np.interp(np.log(mu), np.log(grid), known)))


class MaSS(LinearFilter):
    """Momentum-added stochastic solver: w' = x - eta g(x), x' = (1 + gamma) w' - gamma w + c eta g(x), from w_0 = x_0.

    A prime marks the value after the step; g(x) is the noisy gradient. The state is (x, w), the extrapolated point and the point before
    extrapolation, each `(dim,)` or `(dim, paths)`. The last term compensates the noise that Nesterov's extrapolation adds:
    c = 0 is `Nesterov` with mu = gamma. The gain, the rate of the equivalent plain SGD over eta, is (1 - c) / (1 - gamma). On streaming least
    squares `st.exact.mass_parameters` gives the authors' eta, gamma and c. Source: Liu & Belkin, Accelerating SGD with momentum for
    over-parameterized learning, ICLR 2020.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, the authors' eta_1, without momentum (all beta_k = 0).
        gamma: The extrapolation in [0, 1).
        c: The compensation, the authors' eta_2 / eta_1, in [0, 1).
        step_time: The time of one step, positive; by default the gain times the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `gamma` or `c` lies outside its range, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.MaSS(oracle, st.schedules.constant(eta=0.125), gamma=0.75, c=0.5).gain
        2.0
    """

    parts = ("x", "w")
    at_x0 = ("w",)
    coefficients = ("eta", "gamma", "c")
    formula = r"w_{k+1} = x_k - \eta_k g_k, \quad x_{k+1} = (1 + \gamma) w_{k+1} - \gamma w_k + c\,\eta_k g_k"

    def __init__(
        self, oracle: NoisyOracle, plan: Plan, gamma: float = 0.9, c: float = 0.05, step_time: float | None = None
    ) -> None:
        self.gamma, self.c = _check.momentum("gamma", gamma), _check.momentum("c", c)
        super().__init__(oracle, without_momentum(plan, "MaSS", "gamma"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, gamma: Any, c: Any) -> State:
        x, w = state
        g = oracle(x)
        new = x - eta * g
        return (1 + gamma) * new - gamma * w + c * eta * g, new


class ScheduleFree(WithoutGain):
    """Schedule-free SGD: z' = z - eta g(y), x' = (1 - c) x + c z', y = (1 - beta) z + beta x, c = 1 / (k + 2), from z_0 = x_0.

    A prime marks the value after the step k = 0, 1, ...; g(y) is the noisy gradient at y. The state is (x, z), the average, which is observed, and
    the iterate of the gradient steps, each `(dim,)` or `(dim, paths)`. x_k is the mean of z_0, ..., z_k, so that beta = 0 is the Polyak-Ruppert
    average of `SGD`; beta = 1 is `PrimalAveraging` with a weight c that falls. As the memory grows with the run, no plain SGD is equivalent: `gain`
    raises ValueError. Source: Defazio et al., The road less scheduled, NeurIPS 2024.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0).
        beta: The weight of the average in the point of the gradient, in [0, 1].
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `beta` lies outside [0, 1], or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.ScheduleFree(oracle, st.schedules.constant(eta=0.125), beta=0.5).coefficient_values(2)  # eta, beta, c
        array([[0.125     , 0.5       , 0.5       ],
               [0.125     , 0.5       , 0.33333333]])
    """

    parts = ("x", "z")
    at_x0 = ("z",)
    coefficients = ("eta", "weight", "c")
    formula = (
        r"z_{k+1} = z_k - \eta_k\, g((1 - \beta) z_k + \beta x_k), \quad x_{k+1} = (1 - c_k)\, x_k + c_k z_{k+1}, \quad "
        r"c_k = \tfrac{1}{k + 2}"
    )
    no_gain = "a filter with a fading memory; the average of ScheduleFree is over its run. Compare it with SGD at the same eta"

    def __init__(self, oracle: NoisyOracle, plan: Plan, beta: float = 0.9, step_time: float | None = None) -> None:
        self.beta = _check.number("beta", beta, "lie in [0, 1]")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"`beta` must lie in [0, 1]; got beta={beta!r}. The authors use 0.9.")
        super().__init__(oracle, without_momentum(plan, "ScheduleFree", "its average"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, weight: Any, c: Any) -> State:
        x, z = state
        z = z - eta * oracle((1 - weight) * z + weight * x)
        return (1 - c) * x + c * z, z

    def coefficient_values(self, steps: int) -> np.ndarray:
        return columns(self.plan.etas(steps), self.beta, 1 / (np.arange(steps) + 2.0))


class AcSGD(WithoutGain):
    """Accelerated SGD for least squares: x' = y - eta g(y), z' = z - ratio eta (k + 1) g(y), y = (k x + z) / (k + 1), from z_0 = x_0.

    A prime marks the value after the step k = 0, 1, ...; g(y) is the noisy gradient at y. The state is (x, z), the sequences of short steps, which is
    observed, and of growing steps, each `(dim,)` or `(dim, paths)`. On least squares with rows of d Gaussian features, a `ratio` of about 1 / (2 d)
    has the risk of SGD in its noise and forgets the start as d / k^2 in place of 1 / k; ratio = 1 is accelerated gradient descent, for gradients
    without noise. As the memory grows with the run, no plain SGD is equivalent: `gain` raises ValueError. `AccSGD` is another method. Source: Varre &
    Flammarion, Accelerated SGD for non-strongly-convex least squares, COLT 2022, whose alpha and beta are eta and ratio eta.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0).
        ratio: The step size of z over that of x, 0 or above; None for 1 / (2 (d + 2)) with d = `oracle.dim`, the authors' for Gaussian features.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `ratio` is negative, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.AcSGD(oracle, st.schedules.constant(eta=0.125), ratio=0.5).coefficient_values(2)  # eta, 1 / (k + 1), ratio (k + 1)
        array([[0.125, 1.   , 0.5  ],
               [0.125, 0.5  , 1.   ]])
    """

    parts = ("x", "z")
    at_x0 = ("z",)
    coefficients = ("eta", "weight", "reach")
    formula = r"x_{k+1} = y_k - \eta_k\, g(y_k), \quad z_{k+1} = z_k - r \eta_k (k + 1)\, g(y_k), \quad y_k = \tfrac{k x_k + z_k}{k + 1}"
    no_gain = "a filter with a fading memory; the memory of AcSGD is as long as its run. Compare it with SGD at the same eta"

    def __init__(self, oracle: NoisyOracle, plan: Plan, ratio: float | None = None, step_time: float | None = None) -> None:
        super().__init__(oracle, without_momentum(plan, "AcSGD", "ratio"), step_time=step_time)
        self.ratio = 1 / (2 * (oracle.dim + 2)) if ratio is None else _check.non_negative("ratio", ratio, "At 0, z stays at x_0.")

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, weight: Any, reach: Any) -> State:
        x, z = state
        y = x + weight * (z - x)
        g = oracle(y)
        return y - eta * g, z - reach * eta * g

    def coefficient_values(self, steps: int) -> np.ndarray:
        counted = np.arange(1.0, steps + 1)
        return columns(self.plan.etas(steps), 1 / counted, self.ratio * counted)


_SOURCE = "D. Ferbach et al., arXiv:2505.16098"
_PLAN: tuple[dict[str, Any], str] = ({"plan": Plan}, "without momentum")
ENTRIES = (
    OptimiserEntry(
        GeneralMomentum,
        _SOURCE,
        "eta",
        valid=(
            {"D": 0.2, "g1": 0.2, "g2": 0.5, "g3": 0.5},
            {"D": [0.9, 0.5, 0.2], "g1": [1.0, 0.5], "g2": 1.0, "g3": [0.1, 0.2]},
        ),
        refused=(
            ({"D": 0.0}, "`D`"),
            ({"g1": "a"}, "`g1`"),
            ({"g2": np.inf}, "`g2`"),
            ({"g3": [[1.0]]}, "`g3`"),
            _PLAN,
        ),
    ),
    OptimiserEntry(
        DANA,
        _SOURCE,
        "eta",
        valid=({"delta": 4.0, "ratio": 0.2}, {"ratio": 1.0, "power": 0.5}, {"share": None}),
        refused=(
            ({"delta": 0.0}, "`delta`"),
            ({"ratio": -1.0}, "`ratio`"),
            ({"power": -1.0}, "`power`"),
            ({"share": 0.2}, "`share`"),
            _PLAN,
        ),
        gain=False,
        torch=True,
    ),
    OptimiserEntry(
        MaSS,
        "C. Liu, M. Belkin, ICLR 2020",
        "eta",
        valid=({"gamma": 0.8, "c": 0.1}, {"gamma": 0.0, "c": 0.0}),
        refused=(({"gamma": 1.0}, "`gamma`"), ({"c": -0.1}, "`c`"), _PLAN),
        torch=True,
    ),
    OptimiserEntry(
        ScheduleFree,
        "A. Defazio et al., NeurIPS 2024",
        "eta",
        valid=({"beta": 0.9}, {"beta": 0.0}, {"beta": 1.0}),
        refused=(({"beta": 1.1}, "`beta`"), _PLAN),
        gain=False,
    ),
    OptimiserEntry(
        AcSGD,
        "A. Varre, N. Flammarion, COLT 2022",
        "eta",
        valid=({"ratio": 0.1}, {"ratio": None}, {"ratio": 1.0}),
        refused=(({"ratio": -0.1}, "`ratio`"), _PLAN),
        gain=False,
    ),
)
