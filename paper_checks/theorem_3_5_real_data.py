"""Theorem 3.5 on real data: in logistic regression with minibatch noise the loss curves of SGDM and SGD agree as eta decreases.

The data: scikit-learn's breast cancer set, 569 patients, the ten mean features, 400 patients for training, the rest for testing.
Two regimes. (i) A batch size of 8 at every eta, sigma = 1: both tend to gradient flow, and their gap to that of the noise-free methods.
(ii) SVAG with l = 1/eta, sigma = eta^-1/2: the same minibatches, the largest noise that the theorem allows; both tend to an SDE.
"""

from __future__ import annotations

import numpy as np
from _common import limit, pair
from _plain import ROUNDING, already_contradicted, draws, follow, gap_path, relative_distance, sgd, sgdm

import sdetools as st
from sdetools.plots import loglog_orders

BETA, BATCH, RIDGE, HORIZON = 0.9, 8, 0.01, 1.0
ETAS = [2.0**-k for k in (4, 5, 6, 7)]
TIMES = [0.0, 0.125, 0.25, 0.5, 1.0]  # a loss evaluation uses every patient, so few times are recorded


def losses():
    """Return training and test loss on standardised features, and the data."""
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:400], order[400:]
    means = features[:, :10]
    means = (means - means[train].mean(axis=0)) / means[train].std(axis=0)
    parts = [(means[part], labels[part]) for part in (train, test)]
    return *(st.losses.logistic(*part, l2=RIDGE) for part in parts), parts


def study(run, oracle, observe, share=1.0, wrong=False):
    """Run an order study. Few paths suffice, as a loss varies little between them, least of all at a fixed batch size."""
    paths = round(share * run.scale(quick=2_000, standard=10_000, full=100_000))

    def dynamics(eta):
        sgdm, sgd = pair(oracle(eta), st.schedules.constant(eta, beta=BETA))
        return (sgdm, st.SGD(oracle(eta), st.schedules.constant((1 - BETA) * eta), step_time=eta)) if wrong else (sgdm, sgd)

    return st.order_study(dynamics, ETAS, np.zeros(10), HORIZON, observe=observe, times=TIMES, **run.options(paths=paths))


def noise_free(train, observe, eta, horizon=HORIZON, times=TIMES):
    """Return the gap without noise, from a single path."""
    plan = st.schedules.constant(eta, beta=BETA)
    quiet = st.NoisyOracle(train, st.noise.none(10))
    return st.weak_gap(*pair(quiet, plan), np.zeros(10), horizon, 1, observe, times=times, backend="numpy")


def plain_slope(part, x, rows=slice(None)):
    """Return the gradient of the mean over `rows` of log(1 + exp(-y a . x)), y = +-1, plus RIDGE |x|^2 / 2."""
    features, y = part[0][rows], 2.0 * part[1][rows] - 1
    return -(y / (1 + np.exp(y * (features @ x)))) @ features / len(features) + RIDGE * x


def plain_loss(part, x):
    """Return the regularised logistic loss in plain NumPy."""
    features, y = part[0], 2.0 * part[1] - 1
    return np.log1p(np.exp(-y * (features @ x))).mean() + RIDGE * (x @ x) / 2


def floyd(u, n):
    """Sample without replacement from one uniform each, by Floyd's algorithm.

    The sample is floor(u_b (last + 1)) with last = n - size + b, or last where that one is already taken.
    """
    out = []
    for b, v in enumerate(u):
        last = n - len(u) + b
        t = min(int(v * (last + 1)), last)
        out.append(last if t in out else t)
    return out


def measure_path(run, name, oracle, observe, parts, eta, l):
    """Compare the gap of both losses along one path of the kernel with reference implementations of batches and of SVAG, step by step.

    SVAG follows Definition 5.1; l = 0 means a plain batch.
    """
    two, steps = pair(oracle, st.schedules.constant(eta, beta=BETA)), 16
    found = gap_path(two, np.zeros(10), steps, observe, run.seed)
    train, n = parts[0], len(parts[0][1])
    rows = np.minimum((draws(two[0], steps, run.seed) * n).astype(int), n - 1)

    def noisy(k, x):
        if not l:
            return plain_slope(train, x, rows[k])
        root = np.sqrt(2 * l - 1)
        halves = [plain_slope(train, x, half) for half in np.split(rows[k], 2)]
        return (1 - root) / 2 * halves[0] + (1 + root) / 2 * halves[1]

    x = follow(sgdm, (np.zeros(10), np.zeros(10)), [(eta, BETA)] * steps, noisy)
    z = follow(sgd, (np.zeros(10),), [(eta,)] * steps, noisy)
    for o, (h, part) in enumerate(zip(observe, parts, strict=True)):
        expected = [plain_loss(part, a) - plain_loss(part, b) for a, b in zip(x, z, strict=True)]
        run.measure(
            f"{name}, {h}: the gap along one path beside its equations",
            relative_distance(found[:, o], expected),
            at_most=ROUNDING,
        )


def measure_noise(run, train, part):
    """Check a batch's gradient by NumPy, at a sigma other than 1, and its covariance, with and without replacement."""
    n, x = len(part[1]), np.linspace(-0.5, 0.5, 10)
    each = np.array([plain_slope(part, x, slice(i, i + 1)) for i in range(n)])
    spread, full, sigma = np.cov(each.T, bias=True), each.mean(axis=0), 1.3
    # without replacement a large batch, so that Floyd's algorithm often meets samples that are already taken
    for name, size, replace in (("with replacement", BATCH, True), ("without replacement", n - n // 4, False)):
        noise = st.noise.minibatch(train, size, replace)
        exact = spread / size * (1.0 if replace else (n - size) / (n - 1))
        run.measure(f"covariance of a batch {name}", relative_distance(noise.covariance(x), exact), at_most=ROUNDING)
        u, points = np.random.default_rng(run.seed).random((size, 4)), np.repeat(x[:, None], 4, axis=1)
        u[0, 0] = 1.0  # a uniform rounded up to 1: selects the last sample
        rows = [np.minimum((v * n).astype(int), n - 1) if replace else floyd(v, n) for v in u.T]
        plain = np.array([full + sigma * (plain_slope(part, x, own) - full) for own in rows]).T
        oracle = st.NoisyOracle(train, noise, sigma)
        run.measure(f"gradients of batches {name}", relative_distance(oracle(points, u), plain), at_most=ROUNDING)
    scaled = st.svag(st.NoisyOracle(train, st.noise.minibatch(train, BATCH)), 16)
    run.measure(
        "covariance of SVAG's gradient, l = 16", relative_distance(scaled.covariance(x), 16 * spread / BATCH), at_most=ROUNDING
    )


@st.claim(
    "theorem-3.5-real-data",
    statement=r"In logistic regression on real data with minibatch noise the gaps of training and test loss between SGDM and "
    r"SGD at the same learning rate vanish at least as fast as $\eta^{1/2}$ as $\eta \to 0$: at a fixed batch size, $\sigma = 1$, and with SVAG, "
    r"$\sigma = \eta^{-1/2}$.",
    source="Theorem 3.5, section 6",
)
def theorem_3_5_real_data(run):
    """Check the order of the gaps of training and test loss."""
    train, test, parts = losses()
    noise = st.noise.minibatch(train, BATCH)
    batch = st.NoisyOracle(train, noise)
    observe = {"train loss": train, "test loss": test}

    run.note(
        "A wrong rule, batch, gradient or weight of SVAG is detected along one path, step by step, in both losses; a wrong covariance by that "
        "of the patients' gradients."
    )
    measure_noise(run, train, parts[0])
    if already_contradicted(run):
        return
    measure_path(run, "batch of 8", batch, observe, parts, ETAS[0], 0)
    measure_path(run, "SVAG", st.svag(batch, round(1 / ETAS[0])), observe, parts, ETAS[0], round(1 / ETAS[0]))
    if already_contradicted(run):
        return
    flow = study(run, lambda eta: batch, observe, share=0.25)
    scaled = study(run, lambda eta: st.svag(batch, round(1 / eta)), observe)
    for name, found in (("batch of 8", flow), ("SVAG", scaled)):
        for h in observe:
            run.measure(f"{name}, {h}: fitted order", found.order(h), at_least=0.5)
    # Noise adds at most lam_max / 2 times the trace of the iterate's covariance, which is at most eta T Sigma, to the mean of a loss.
    # Both lam_max and Sigma are largest at the start, where no patient is classified yet.
    start = np.zeros(10)
    room = np.linalg.eigvalsh(train.hessian(start)).max() / 2 * float(np.trace(noise.covariance(start))) * HORIZON
    quiet = {h: [] for h in observe}
    for eta in flow.etas:
        gap = noise_free(train, observe, eta)
        for h in observe:
            quiet[h].append(gap.sup(h).value)
            name = f"batch of 8, {h} at eta = {eta:g}, beside the noise-free gap"
            run.measure(name, flow.sup(h, eta), quiet[h][-1], eta * room)
    deep = [2.0**-k for k in (7, 8, 9, 10)]
    gaps = [noise_free(train, observe, eta, horizon=0.5, times="all") for eta in deep]
    for h in observe:
        value, tolerance = limit(st.exact.local_orders(deep, [gap.sup(h).value for gap in gaps]))
        run.measure(f"limit of the local order of the noise-free gap, {h}", value, 1.0, tolerance)
    run.figure(
        "losses", plot_gaps({"batch of 8": flow, "SVAG": scaled}, quiet), r"Largest gaps; dashed: a batch of 8 without noise."
    )
    for name, oracle in (("batch of 8", lambda eta: batch), ("SVAG", lambda eta: st.svag(batch, round(1 / eta)))):
        with run.control(f"{name}, SGD at the wrong learning rate, (1 - beta) eta, on the same clock"):
            apart = study(run, oracle, observe, share=0.1, wrong=True)
            for h in observe:
                run.measure(f"{h}: fitted order, at least half of the theorem's", apart.order(h), at_least=0.25)


def plot_gaps(studies, quiet):
    """Plot the largest gaps against eta."""
    points = {f"{h}, {name}": study.estimates(h) for name, study in studies.items() for h in quiet}
    value, low, high = (
        {key: [getattr(e, part) for e in row] for key, row in points.items()} for part in ("value", "low", "high")
    )
    return loglog_orders(sorted(ETAS, reverse=True), value, low, high, {f"{h}, batch of 8": quiet[h] for h in quiet})
