"""Momentum as an average of gradients and heavy-ball momentum are one method, path by path, for gamma = (1 - beta) eta.

Definition 2.3 averages, m' = beta m + (1 - beta) g, x' = x - eta m'; Eq. (1) sums, m' = beta m + g, x' = x - gamma m'. The paper
converts one into the other through a form without a buffer,

    x_{k+1} = x_k - eta_k (1 - beta_k) g_k + beta_k (eta_k / eta_{k-1}) (x_k - x_{k-1}),

which holds for every schedule. All three run here on the same draws; their endpoints may differ by rounding only.

Rounding bound: a step rounds at most 8 times, each time by eps times the size of the numbers; the buffer carries an error for
1 / (1 - beta) steps; and as no weight of a past gradient exceeds eta, Gronwall's inequality bounds the growth by exp(Lip T).
"""

import math

import numpy as np

import sdetools as st

ETA, HORIZON, START = 1 / 64, 1.0, [1.5]
LOSS = st.losses.from_expression("x**2/2 + cos(2*x)/2")  # two wells
LIPSCHITZ = 3.0  # |L''| = |1 - 2 cos 2x|
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=ETA**-0.5)
QUIET = st.NoisyOracle(LOSS, st.noise.none(1))


def rounding(points: np.ndarray, steps: int, beta: float) -> float:
    """Return the bound on the rounding error of an endpoint after `steps` steps."""
    eps = np.finfo(float).eps
    return 8 * steps * eps * float(np.abs(points).max()) / (1 - beta) * math.exp(LIPSCHITZ * HORIZON)


def endpoints(run, first: st.Dynamics, second: st.Dynamics):
    """Run both methods on the same draws. An identity of paths needs few of them: 100,000 suffice at any budget."""
    options = run.options(paths=min(run.paths, 100_000), keep_final=True, control=False, times=[HORIZON])
    gap = st.weak_gap(first, second, START, HORIZON, observe=["x"], **options)
    distance, steps = np.abs(gap.final[0] - gap.final[1]), gap.steps[-1]
    return gap, float(distance.max()), rounding(gap.final, steps, first.plan.betas(steps).max())


def iterates(method: str, etas: np.ndarray, betas: np.ndarray) -> float:
    """Return x after the last step without noise, in plain arithmetic: L' = x - sin 2x."""
    x, m = START[0], 0.0
    for eta, beta in zip(etas, betas):
        g = x - math.sin(2 * x)
        m = beta * m + (1 - beta) * g if method == "SGDM" else beta * m + g
        x -= eta * m
    return x


def noiseless(run, method: st.Dynamics) -> tuple[float, float]:
    """Return the endpoint of one path and the bound on its rounding error."""
    steps = round(HORIZON / method.step_time)
    end = st.simulate(method, START, HORIZON, observe=["x"], keep_final=True, **run.options(paths=2, times=[HORIZON], store=None))
    return float(end.final[0, 0]), rounding(end.final, steps, method.plan.betas(steps).max())


@st.claim(
    "definition-2.3-heavy-ball",
    statement=r"SGDM (Def. 2.3) with $(\eta, \beta)$ and heavy-ball momentum (Eq. (1)) with $\gamma = (1-\beta)\,\eta$ have "
    r"the same iterates, path by path, and so a weak gap of exactly zero.",
    source="Definition 2.3, Equation (1)",
)
def heavy_ball(run):
    """Check that both forms of momentum have the same iterates at constant schedules."""
    rows = []
    for beta in (0.5, 0.9, 0.99):
        average = st.SGDM(ORACLE, st.schedules.constant(eta=ETA, beta=beta))
        heavy = st.HeavyBall(ORACLE, gamma=(1 - beta) * ETA, beta=beta)
        run.measure(f"time of a step of HeavyBall, beta={beta}", heavy.step_time, expected=ETA, relative=1e-12)
        rates = heavy.averaged().etas(3)
        run.measure(f"averaged rate of HeavyBall, beta={beta}", float(np.abs(rates - ETA).max()), at_most=1e-12 * ETA)
        gap, distance, allowed = endpoints(run, average, heavy)
        run.measure(f"largest distance of two endpoints, beta={beta}", distance, at_most=allowed)
        run.measure(f"gap of x, beta={beta}", gap.at("x"), expected=0.0, tolerance=allowed)
        with run.control(f"gamma = eta, beta={beta}"):
            _, wrong, allowed = endpoints(run, average, st.HeavyBall(ORACLE, gamma=ETA, beta=beta, step_time=ETA))
            run.measure("largest distance of two endpoints", wrong, at_most=allowed)
        steps = round(HORIZON / ETA)
        for name, rate, method in (
            ("SGDM", ETA, st.SGDM(QUIET, st.schedules.constant(eta=ETA, beta=beta))),
            ("HeavyBall", (1 - beta) * ETA, st.HeavyBall(QUIET, gamma=(1 - beta) * ETA, beta=beta, step_time=ETA)),
        ):
            end, near = noiseless(run, method)
            exact = iterates(name, np.full(steps, rate), np.full(steps, beta))
            run.measure(f"endpoint of {name} without noise, beta={beta}", end, expected=exact, tolerance=near)
        rows.append((beta, f"{distance:.1e}", f"{gap.at('x').stderr:.1e}", f"{wrong:.2f}"))
    run.note(
        "Without noise each form is compared with its equation in plain arithmetic, with noise with the other form. Detected: any changed "
        "constant, sign or term of either, beta for 1 - beta, a rate that is not (1 - beta) eta."
    )
    run.table("endpoints", rows, ["beta", "largest distance", "standard error of the gap", "largest distance for gamma = eta"])


class WithoutBuffer(st.Dynamics):
    """x_{k+1} = x_k - eta_k (1 - beta_k) g_k + beta_k ratio_k (x_k - x_{k-1}), ratio_k = eta_k / eta_{k-1}, x_{-1} = x_0."""

    parts, coefficients = ("x", "previous"), ("eta", "beta", "ratio")

    @staticmethod
    def rule(state, oracle, eta, beta, ratio):
        x, previous = state
        return x - eta * (1 - beta) * oracle(x) + beta * ratio * (x - previous), x

    def start(self, x0, z=None):
        return x0, x0

    def coefficient_values(self, steps):
        eta = self.plan.etas(steps)
        return np.column_stack([eta, self.plan.betas(steps), eta / np.concatenate([eta[:1], eta[:-1]])])


class ForgetsTheRatio(WithoutBuffer):
    """The form without a buffer with eta_k / eta_{k-1} replaced by 1, as for a constant schedule."""

    def coefficient_values(self, steps):
        return super().coefficient_values(steps) * [1, 1, 0] + [0, 0, 1]


@st.claim(
    "definition-2.3-without-buffer",
    statement=r"For any schedule, $x_{k+1} = x_k - \eta_k (1-\beta_k) g_k + \beta_k \frac{\eta_k}{\eta_{k-1}} (x_k - x_{k-1})$ "
    r"gives the iterates of Def. 2.3, path by path.",
    source="Section 2, the rewriting of Equation (3)",
)
def without_buffer(run):
    """Check the form without a buffer on a random schedule."""
    random, steps = np.random.default_rng(run.seed), round(HORIZON / ETA)
    etas, betas = ETA * random.uniform(0.5, 1.5, steps), random.uniform(0.5, 0.95, steps)
    plan = st.schedules.from_arrays(eta=etas, beta=betas, base=ETA)
    momentum = st.SGDM(ORACLE, plan)
    _, distance, allowed = endpoints(run, momentum, WithoutBuffer(ORACLE, plan))
    allowed *= 3  # an error of step j is multiplied by eta_k / eta_j <= 1.5 / 0.5
    run.measure("largest distance of two endpoints, random schedule", distance, at_most=allowed)
    end, near = noiseless(run, st.SGDM(QUIET, plan))
    exact = iterates("SGDM", etas, betas)
    run.measure("endpoint of SGDM without noise, random schedule", end, expected=exact, tolerance=3 * near)
    run.note(
        "Detected: a rate or a momentum of the previous or next step, an inverted or omitted ratio, a changed constant, sign or term of SGDM."
    )
    with run.control("eta_k / eta_{k-1} forgotten"):
        _, distance, _ = endpoints(run, momentum, ForgetsTheRatio(ORACLE, plan))
        run.measure("largest distance of two endpoints", distance, at_most=allowed)
