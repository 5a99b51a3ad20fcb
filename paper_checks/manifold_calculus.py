r"""dPhi is the tangent projection and d2Phi has its formula, on losses whose flow is known and on random ones.

Nothing here is drawn but the losses themselves, so every number is exact up to how finely Phi is computed: to 1e-10 of its size, so that the
second difference of Phi at a step of 2e-3 errs by some 1e-5.
"""

from __future__ import annotations

import numpy as np

import sdetools as st

STEP = 2e-3


def hyperbola_phi(x):
    """The point of xy = 1 with the same x^2 - y^2, x > 0."""
    q = x[0] ** 2 - x[1] ** 2
    large = np.sqrt((np.abs(q) + np.sqrt(q * q + 4)) / 2)
    return np.array([large, 1 / large]) if q >= 0 else np.array([1 / large, large])


CLOSED = {
    "valley": (st.losses.exponential_valley(1.0), [0.4, 1.3], lambda x: np.array([x[0] - x[1] ** 2 / 4, 0.0])),
    "sphere": (st.losses.sphere(4), [0.5, -0.9, 0.3, 1.1], lambda x: x / np.linalg.norm(x)),
    "hyperbola": (st.losses.hyperbola(), [1.7, 0.9], hyperbola_phi),
}


def random_loss(seed):
    """L = sum_k w_k(x) r_k(x)^2 / 2 with r_k = x_k - f_k(the other coordinates) and random w_k > 0; a point of x_k = f_k; how many k."""
    rng = np.random.default_rng([11, seed])
    tangent, normal = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    names = [f"x{i}" for i in range(tangent + normal)]
    free = names[normal:]
    a = rng.uniform(-1, 1, (normal, tangent, 3)).round(4)
    w = rng.uniform(-0.5, 0.5, (normal, len(names))).round(4)
    curves = ["+".join(f"({p}*sin({v}) + {q}*{v}**2 + {r}*{v})" for (p, q, r), v in zip(row, free)) for row in a.tolist()]
    weights = ["exp(" + "+".join(f"({c})*{v}" for c, v in zip(row, names)) + ")" for row in w.tolist()]
    text = " + ".join(f"{u}*({v} - ({f}))**2/2" for u, v, f in zip(weights, names, curves))
    loss = st.losses.from_expression(text, variables=names)
    z = rng.uniform(-0.7, 0.7, tangent)
    on = (a[..., 0] * np.sin(z) + a[..., 1] * z**2 + a[..., 2] * z).sum(axis=1)
    return loss, st.manifold.project(loss, np.array([*on, *z])), normal, rng


def second_difference(loss, x, root):
    """sum_j d^2/dh^2 Phi(x + h r_j) at h = 0, r_j the columns of `root`, by the five-point rule."""
    steps = np.concatenate([x[:, None] + STEP * factor * root for factor in (-2, -1, 1, 2)], axis=1)
    ends = st.manifold.project(loss, steps).reshape(loss.dim, 4, -1)
    centre = st.manifold.project(loss, x)[:, None]
    return ((-ends[:, 0] + 16 * ends[:, 1] - 30 * centre + 16 * ends[:, 2] - ends[:, 3]) / (12 * STEP**2)).sum(axis=1)


def off(found, exact):
    return float(np.abs(found - exact).max() / np.abs(exact).max())


@st.claim(
    "dphi-is-the-tangent-projection",
    statement=r"On the manifold of minimisers $\partial\Phi$ is the orthogonal projection onto $\ker\nabla^2 L$.",
    source="Section 4; Lemma C.1 of Li, Wang and Arora (2022)",
)
def first(run):
    for name, (loss, start, phi) in CLOSED.items():
        run.measure(
            f"{name}: Phi against its closed form", off(st.manifold.project(loss, start), phi(np.array(start))), at_most=1e-9
        )
    losses = [
        *((loss, phi(np.array(start))) for loss, start, phi in CLOSED.values()),
        *(random_loss(seed)[:2] for seed in range(6)),
    ]
    worst, wrong = 0.0, np.inf
    for loss, x in losses:
        P = st.manifold.tangent_projection(loss, x)
        flow = st.manifold.differential(loss, x + 0.0)
        worst = max(worst, float(np.abs(P - flow).max()))
        oblique = P.copy()
        oblique[:, 0] *= 1.01
        wrong = min(wrong, float(np.abs(oblique - flow).max()))
    run.measure("P against the variational equation of the flow", worst, at_most=1e-9)
    with run.control("a projection with one column a hundredth too long"):
        run.measure("against the variational equation", wrong, at_most=1e-9)


@st.claim(
    "d2phi-formula",
    statement=r"$\partial^2\Phi[\Sigma] = -H^+ D[P\Sigma P] - P D[\mathcal L_H^{-1}(Q\Sigma Q)] - 2P D[H^+ Q\Sigma P]$ on the manifold.",
    source="Section 4, Eq. (4)",
)
def second(run):
    count = run.scale(quick=8, standard=100, full=300)
    rows, failing = [], []
    for seed in range(count):
        loss, x, normal, rng = random_loss(seed)
        geometry = st.manifold.at(loss, x)
        root = rng.normal(size=(loss.dim, loss.dim))
        exact = second_difference(loss, x, root)
        found = geometry.second_derivative(root @ root.T)
        rows.append(off(found, exact))
        failing.append(off(found - geometry.project_tangent(found), exact))
        if geometry.rank != normal:
            rows[-1] = np.inf
    run.measure(f"the worst of {count} random losses, relative to the second difference of Phi", max(rows), at_most=1e-4)
    run.note(f"Median {np.median(rows):.2g}: what a difference quotient leaves of Phi's own error.")
    run.figure(
        "Errors on random losses",
        lambda: histogram(rows),
        "Relative distance between the formula and the second difference of $\\Phi$.",
    )
    for name, (loss, start, phi) in CLOSED.items():
        x = phi(np.array(start))
        S = np.diag(np.arange(1.0, loss.dim + 1)) + 0.3
        closed = closed_second(name, x, S)
        run.measure(f"{name}: against the closed form", off(st.manifold.second_derivative(loss, x, S), closed), at_most=1e-9)
    with run.control("the formula without its tangent part"):
        run.measure("the worst", max(failing), at_most=1e-4)


def closed_second(name, x, S):
    if name == "valley":
        return np.array([-S[1, 1] / 2, 0.0])
    if name == "sphere":
        Sx = S @ x
        return -2 * Sx - x * np.trace(S) + 3 * x * (x @ Sx)
    # q(Phi(x)) = q(x) and Phi_1 Phi_2 = 1, differentiated twice
    P = np.outer([-x[0], x[1]], [-x[0], x[1]]) / (x @ x)
    tangent = P @ S @ P
    rows = np.array([[2 * x[0], -2 * x[1]], [x[1], x[0]]])
    return np.linalg.solve(rows, [2 * (S[0, 0] - S[1, 1]) - 2 * (tangent[0, 0] - tangent[1, 1]), -2 * tangent[0, 1]])


def histogram(rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.8))
    ax = figure.subplots()
    ax.hist(np.log10(rows), bins=20)
    ax.set(xlabel="log10 of the relative error", ylabel="losses")
    return figure
