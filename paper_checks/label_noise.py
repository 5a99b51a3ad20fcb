"""Label noise: Sigma = c H on the manifold, without diffusion; dX = -(c/4) P grad tr H dt leads X to the flattest minimisers.

For L = (1/2n) sum r_i^2 and fresh label noise of size delta on a batch of size B, c = delta^2 / B. Two problems. The valley
f = sqrt(1 + x^2) y, tr H = 1 + x^2, where x decays like e^{-c t / 2}. And the diagonal network f_i = <z_i, u^2 - v^2>, whose
tr H = (4/n) sum_j (sum_i z_ij^2)(u_j^2 + v_j^2): label noise drives it to the interpolating w = u^2 - v^2 of least (weighted) l1 norm,
which is the sparse truth, while gradient descent from the same large start keeps a dense one. The sparse solution is a singular point
of the manifold, where the rank of H drops. The slow flow is therefore integrated up to the time at which its smallest curvature
vanishes.
"""

from __future__ import annotations

import itertools

import numpy as np
from _plain import ROUNDING, already_contradicted, draws, follow, path, relative_distance, sgdm
from slow_regimes import Scaled

import sdetools as st

EPS = 0.5
VALLEY = st.losses.label_noise_valley()
MODEL = "sqrt(1 + x**2)*y"


def valley_oracle():
    """Return the oracle of the valley with label noise."""
    return st.NoisyOracle(VALLEY, st.noise.label_noise(model=MODEL, std=EPS, variables="x y"))


def measure_labels(run):
    """Check label noise of least squares and of formulas: Sigma = (std^2 / size) H over all outcomes, and a path of the kernel."""
    rng = np.random.default_rng(3)
    a, y, x = rng.normal(size=(5, 3)), rng.normal(size=5), np.array([0.4, -0.7, 0.2])
    size, std, sigma, plan = 2, 0.6, 1.2, st.schedules.constant(0.1, beta=0.6)
    loss = st.losses.least_squares(a, y)
    H, residuals = a.T @ a / 5, a @ x - y
    g = residuals[:, None] * a
    spread = np.cov(g.T, bias=True) / size

    def deviation(z, x, batch):
        """Return (1/size) sum_b (batch: r_i a_i) - std s_b a_i, minus the full gradient for a batch."""
        rows = np.minimum((z[:size] * 5).astype(int), 4)
        own = (a[rows] @ x - y[rows]) if batch else 0.0
        full = a.T @ (a @ x - y) / 5
        return a[rows].T @ (own - std * z[size:]) / size - (full if batch else 0.0)

    cells = [
        [*u, *s]
        for u in itertools.product((np.arange(5) + 0.5) / 5, repeat=size)
        for s in itertools.product([-1.0, 1.0], repeat=size)
    ]
    for name, batch in (("labels alone", False), ("a batch with its labels", True)):
        noise = st.noise.label_noise(loss, std, size=size, batch=batch)
        exact = std**2 / size * H + (spread if batch else 0.0)
        run.measure(f"{name}: Sigma as stated, c H", relative_distance(noise.covariance(x), exact), at_most=ROUNDING)
        v = noise.value(np.repeat(x[:, None], len(cells), axis=1), np.array(cells).T)
        run.measure(f"{name}: its mean over all outcomes", float(np.abs(v.mean(axis=1)).max()), at_most=ROUNDING)
        run.measure(f"{name}: its covariance over all outcomes", relative_distance(v @ v.T / len(cells), exact), at_most=ROUNDING)
        method = st.SGDM(st.NoisyOracle(loss, noise, sigma=sigma), plan)
        z, found = draws(method, 12, run.seed), path(method, x, 12, list(loss.names), run.seed)

        def noisy(k, x, z=z, batch=batch):
            return a.T @ (a @ x - y) / 5 + sigma * deviation(z[k], x, batch)

        plain = follow(sgdm, (x, 0 * x), [(0.1, 0.6)] * 12, noisy)
        run.measure(f"{name}: a path of the kernel beside its equations", relative_distance(found, plain), at_most=ROUNDING)
    # two models, b x^2 y and sin(x) - y: -(std / sqrt(n size)) times their gradients
    noise = st.noise.label_noise(model=["b*x**2*y", "sin(x) - y"], std=std, size=3, variables="x y", parameters={"b": 0.4})
    at = np.array([0.7, -0.5])
    root = -std / np.sqrt(6) * np.array([[0.8 * at[0] * at[1], np.cos(at[0])], [0.4 * at[0] ** 2, -1.0]])
    s = np.array([1.0, -1.0])
    run.measure("formulas: v beside its gradients", relative_distance(noise.value(at, s), root @ s), at_most=ROUNDING)
    run.measure("formulas: Sigma beside its gradients", relative_distance(noise.covariance(at), root @ root.T), at_most=ROUNDING)


@st.claim(
    "label-noise-flow",
    statement=r"Under label noise, $\Sigma = c\nabla^2L$ on the manifold, SGD and SGDM follow $\dot x = -\frac c4 P\nabla\operatorname{tr}\nabla^2 L$.",
    source="Section 4; Li, Wang and Arora (2022)",
)
def flow(run):
    """Check the slow flow, SGD and SGDM under label noise on the valley."""
    measure_labels(run)
    if already_contradicted(run):
        return
    paths = run.scale(quick=512, standard=4096, full=32_768)
    etas = run.scale(quick=[0.04, 0.02], standard=[0.02, 0.01], full=[0.02, 0.01, 0.005])
    oracle, horizon = valley_oracle(), 4.0
    times = np.linspace(0.4, horizon, 10)
    slow = st.SlowSDE(oracle, st.schedules.constant(etas[-1]), at=[1.0, 0.0])
    run.measure("Brownian motions of the slow SDE", float(slow.noise_dim), expected=0.0, tolerance=1e-9)
    exact = np.exp(-(EPS**2) * times / 2)
    smooth = st.simulate(st.RI1(slow, 0.1), x0=[1.0, 0.0], horizon=horizon, observe=["x"], times=times, **run.options(paths=1))
    run.measure(
        "the slow SDE, farthest from e^(-ct/2)",
        float(np.abs([smooth.at("x", t).value for t in times] - exact).max()),
        at_most=1e-4,
    )
    # lambda = 0.8: the exponent has lambda^2
    slower = st.SlowSDE(oracle, st.schedules.from_arrays(np.full(8, 0.8 * etas[-1]), base=etas[-1]), at=[1.0, 0.0])
    end = st.simulate(st.RI1(slower, 0.1), x0=[1.0, 0.0], horizon=horizon, observe=["x"], times=times, **run.options(paths=1))
    run.measure("the slow SDE at lambda = 0.8, at the end", end.at("x").value, expected=float(exact[-1] ** 0.64), tolerance=1e-4)
    trace = st.manifold.at(VALLEY, [0.7, 0.0]).trace_gradient()
    run.measure("P grad tr H at (0.7, 0), tr H = 1 + x^2", float(np.abs(trace - [1.4, 0.0]).max()), at_most=1e-9)
    curves = {}
    for eta in etas:
        plan = st.schedules.constant(eta, beta=0.9)
        for name, dynamics in (
            ("SGD", st.SGD(oracle, plan.averaged(), step_time=eta**2)),
            ("SGDM", st.SGDM(oracle, plan, step_time=eta**2)),
        ):
            found = st.simulate(dynamics, x0=[1.0, 0.0], horizon=horizon, observe=["x"], times=times, **run.options(paths=paths))
            curves[f"{name}, eta = {eta:g}"] = found
            run.measure(
                f"{name}, eta = {eta:g}: E x at t = {horizon:g} over e^(-ct/2)",
                Scaled(found.at("x"), exact[-1]),
                expected=1.0,
                tolerance=1.5 * eta,
            )
    run.figure("Label noise on the valley", lambda: decay(times, curves, exact), "$E x$ on the slow clock; line: $e^{-ct/2}$.")
    with run.control("twice the rate"):
        run.measure("E x over e^(-ct)", Scaled(found.at("x"), exact[-1] ** 2), expected=1.0, tolerance=0.2)


def decay(times, curves, exact):
    """Plot E x on the slow clock."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3))
    ax = figure.subplots()
    for n, (name, found) in enumerate(curves.items()):
        ax.plot(times, [found.at("x", t).value for t in times], "os^vDx"[n % 6], ms=4, label=name)
    ax.plot(times, exact, "k-", lw=0.8)
    ax.set(xlabel=r"$t = k\eta^2$", ylabel=r"$E\,x$")
    ax.legend(fontsize=7)
    return figure


D, N, SPARSITY = 8, 6, 1
START = 0.9
WELL = 0.3
"""Threshold of recovery for the mean over paths, which fluctuate by sqrt(eta) about the sparse solution."""


def network():
    """Return the diagonal network and its sparse truth.

    For these features the truth is the unique interpolating w of least l1 norm, as a linear program shows.
    """
    features, targets, truth = st.losses.sparse_teacher(N, D, SPARSITY, seed=0)
    return st.losses.diagonal_network(features, targets), truth


def weights(x):
    """Return w = u^2 - v^2."""
    return x[:D] ** 2 - x[D:] ** 2


def miss(x, truth):
    """Return |w - truth|_1 / |truth|_1."""
    return np.abs(weights(x) - truth.reshape(-1, *[1] * (x.ndim - 1))).sum(axis=0) / np.abs(truth).sum()


@st.claim(
    "label-noise-sparse-recovery",
    statement=r"On a diagonal network label noise recovers a sparse truth from fewer samples than weights, with SGD, with SGDM and with the slow SDE; gradient descent from the same start does not.",
    source="Section 4; Li, Wang and Arora (2022), Section 6",
)
def sparse(run):
    """Check sparse recovery on a diagonal network by SGD, SGDM and the slow SDE."""
    loss, truth = network()
    std, eta = 1.0, run.scale(quick=0.02, standard=0.01, full=0.005)
    oracle = st.NoisyOracle(loss, st.noise.label_noise(loss, std=std))
    start, horizon = np.full(2 * D, START), 4.0
    plan = st.schedules.constant(eta, beta=0.9)
    # |w_j - truth_j| as observables: their means over paths stay positive because of fluctuations of size sqrt(eta)
    observe = ["+".join(f"abs(u{j}**2 - v{j}**2 - ({truth[j]:g}))" for j in range(D))]
    times = np.linspace(0.2, horizon, 20)
    options = run.options(paths=run.scale(quick=256, standard=256, full=1024))

    missed, curves = {}, {}
    for name, dynamics in (
        ("SGD", st.SGD(oracle, plan.averaged(), step_time=eta**2)),
        ("SGDM", st.SGDM(oracle, plan, step_time=eta**2)),
    ):
        curves[name] = st.simulate(dynamics, x0=start, horizon=horizon, observe=observe, times=times, **options)
        missed[name] = curves[name].at(0)
        run.measure(
            f"{name} with label noise: E |w - truth|_1 / |truth|_1",
            Scaled(missed[name], float(np.abs(truth).sum())),
            at_most=WELL,
        )
    slow = st.SlowSDE(oracle, plan.averaged(), at=start)
    descent = float(miss(slow.start(start)[0], truth))
    flow, until = integrated(slow, start, horizon, observe)
    ratio = curvature_ratio(loss, flow.final[:, 0], slow.rank)
    run.measure(f"the slow SDE at t = {until:g}: |w - truth|_1 / |truth|_1", float(miss(flow.final[:, 0], truth)), at_most=0.1)
    run.note(
        f"The slow SDE is integrated to t = {until:g}, where the smallest curvature of the manifold is {ratio:.1g} of the largest: the sparse solution is a singular point."
    )
    run.measure("|w - truth|_1 / |truth|_1 of gradient descent", descent, at_least=2 * WELL)
    run.figure(
        "Sparse recovery",
        lambda: recovery(times, curves, descent),
        "Mean distance of $w = u^2 - v^2$ from the truth; dashed: gradient descent.",
    )
    with run.control("gradient descent in place of label noise"):
        run.measure("|w - truth|_1 / |truth|_1", descent, at_most=WELL)


def curvature_ratio(loss, x, rank):
    """Return the smallest of the `rank` nonzero eigenvalues of the Hessian relative to the largest."""
    values = np.sort(np.linalg.eigvalsh(loss.hessian(x)))[::-1]
    return float(values[rank - 1] / values[0])


def integrated(slow, start, horizon, observe, dt=0.05):
    """Integrate the slow SDE, here an ODE, to the horizon or to the last step at which the Hessian's rank is well defined."""
    own = {
        "x0": start,
        "paths": 1,
        "observe": observe,
        "keep_final": True,
        "backend": "numpy",
    }  # one path: not worth compiling
    found = st.simulate(st.RI1(slow, dt), horizon=horizon, times=[horizon], **own)
    if found.diverged:
        horizon = (found.first_divergence - 1) * dt
        found = st.simulate(st.RI1(slow, dt), horizon=horizon, times=[horizon], **own)
    return found, horizon


def recovery(times, curves, descent):
    """Plot the mean distance from the truth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3))
    ax = figure.subplots()
    for n, (name, found) in enumerate(curves.items()):
        ax.plot(times, [found.at(0, t).value for t in times], "os"[n], ms=4, label=name)
    ax.axhline(descent, color="k", ls="--", lw=0.8, label="gradient descent")
    ax.set(xlabel=r"$t = k\eta^2$", ylabel=r"$E\,\|w - w^*\|_1$", ylim=(0, None))
    ax.legend(fontsize=7)
    return figure
