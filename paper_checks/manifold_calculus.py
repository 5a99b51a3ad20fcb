"""dPhi is the tangent projection and d2Phi has its formula, on losses whose flow is known and on random ones.

Only the losses are random, so every number is exact up to the accuracy of Phi: 1e-10 relative, so that the second difference of Phi at
a step of 2e-3 has an error of some 1e-5. The formula has four implementations, all compared with the same values: by dense matrices,
by products, in the drift by NumPy, and in the compiled frame of the slow SDE.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
from _plain import already_contradicted, value_or_nan
from _slow import POINTS, closed_second_derivative, direct_second_derivative, relative_error, tangent_projection_at

import sdetools as st

STEP = 2e-3


def hyperbola_phi(x):
    """Return the point of xy = 1 with the same x^2 - y^2, x > 0."""
    q = x[0] ** 2 - x[1] ** 2
    large = np.sqrt((np.abs(q) + np.sqrt(q * q + 4)) / 2)
    return np.array([large, 1 / large]) if q >= 0 else np.array([1 / large, large])


CLOSED = {
    "valley": (st.losses.exponential_valley(1.0), [0.4, 1.3], lambda x: np.array([x[0] - x[1] ** 2 / 4, 0.0])),
    "sphere": (st.losses.sphere(4), [0.5, -0.9, 0.3, 1.1], lambda x: x / np.linalg.norm(x)),
    "hyperbola": (st.losses.hyperbola(), [1.7, 0.9], hyperbola_phi),
}


def random_loss(seed):
    """Return a random loss, a point of its manifold, its number of normal coordinates and the generator.

    L = sum_k w_k(x) r_k(x)^2 / 2 with r_k = x_k - f_k(the other coordinates) and random w_k > 0; on the manifold x_k = f_k.
    """
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
    """Return sum_j d^2/dh^2 Phi(x + h r_j) at h = 0, r_j the columns of `root`, by the five-point rule."""
    steps = np.concatenate([x[:, None] + STEP * factor * root for factor in (-2, -1, 1, 2)], axis=1)
    ends = st.manifold.project(loss, steps).reshape(loss.dim, 4, -1)
    centre = st.manifold.project(loss, x)[:, None]
    return ((-ends[:, 0] + 16 * ends[:, 1] - 30 * centre + 16 * ends[:, 2] - ends[:, 3]) / (12 * STEP**2)).sum(axis=1)


def onto_zeros(loss, x):
    """Return the point of zero residuals that Gauss-Newton steps of least norm reach from x."""
    for _ in range(30):
        J = loss.jacobian(x)
        x = x - J.T @ np.linalg.solve(J @ J.T, loss.residuals(x))
    return x


def compiled_second(loss, x, rank, covariances):
    """Return d2Phi of covariances `(n, dim, dim)` by the compiled frame, one lane each: `(n, dim)`."""
    from sdetools.manifold import kernels

    dim, n = loss.dim, len(covariances)
    pairs, triples = (tuple(np.array(list(combinations_with_replacement(range(dim), k))).T) for k in (2, 3))
    settings = np.array([dim, rank, 0.7, 1e-8])
    H, T = (
        np.repeat(tensor[places][:, None], n, axis=1) for tensor, places in ((loss.hessian(x), pairs), (loss.third(x), triples))
    )
    frame, out = np.empty((kernels.frame_rows(dim), n)), np.empty((2 * dim, n))
    kernels.frame(H, np.array(covariances).transpose(1, 2, 0)[pairs], frame, settings)
    kernels.pull(frame, T, out, settings)
    return out[:dim].T


@st.claim(
    "dphi-is-the-tangent-projection",
    statement=r"On the manifold of minimisers $\partial\Phi$ is the orthogonal projection onto $\ker\nabla^2 L$.",
    source="Section 4; Lemma C.1 of Li, Wang and Arora (2022)",
)
def first(run):
    """Check Phi, its differential and the tangent projection."""
    for name, (loss, start, phi) in CLOSED.items():
        run.measure(
            f"{name}: Phi against its closed form",
            relative_error(value_or_nan(st.manifold.project, loss, start), phi(np.array(start))),
            at_most=1e-9,
        )
    for name, (loss, x) in POINTS.items():
        P = tangent_projection_at(name, np.array(x))
        run.measure(
            f"{name}: P against that of the normal",
            relative_error(value_or_nan(st.manifold.tangent_projection, loss, x), P),
            at_most=1e-12,
        )
        run.measure(
            f"{name}: P v by products",
            relative_error(value_or_nan(lambda: st.manifold.matrix_free(loss, x).project_tangent(P + 1.0)), P @ (P + 1.0)),
            at_most=1e-9,
        )
    # off the manifold: Phi = (x - y^2/4, 0), and x/|x|
    z = np.array([0.4, 1.3])
    away = value_or_nan(st.manifold.differential, CLOSED["valley"][0], z)
    run.measure("valley: dPhi off the manifold", relative_error(away, np.array([[1.0, -z[1] / 2], [0.0, 0.0]])), at_most=1e-9)
    z = np.array(CLOSED["sphere"][1])
    r = float(np.linalg.norm(z))
    away = value_or_nan(st.manifold.differential, CLOSED["sphere"][0], z)
    run.measure("sphere: dPhi off the manifold", relative_error(away, (np.eye(4) - np.outer(z, z) / r**2) / r), at_most=1e-9)
    run.measure(
        "sphere: the distance from the manifold",
        relative_error(value_or_nan(st.manifold.distance, CLOSED["sphere"][0], z), abs(r - 1)),
        at_most=1e-9,
    )
    if already_contradicted(run):
        return
    losses = [
        *((loss, phi(np.array(start))) for loss, start, phi in CLOSED.values()),
        *(random_loss(seed)[:2] for seed in range(6)),
    ]
    worst, wrong = [], []
    for loss, x in losses:
        P, flow = (value_or_nan(function, loss, x) for function in (st.manifold.tangent_projection, st.manifold.differential))
        worst.append(relative_error(P, flow))
        wrong.append(relative_error(P * (1 + 0.01 * (np.arange(loss.dim) == 0)), flow))
    run.measure("P against the variational equation of the flow", max(worst), at_most=1e-9)
    with run.control("a projection with one column a hundredth too long"):
        run.measure("against the variational equation", min(wrong), at_most=1e-9)


@st.claim(
    "d2phi-formula",
    statement=r"$\partial^2\Phi[\Sigma] = -H^+ D[P\Sigma P] - P D[\mathcal L_H^{-1}(Q\Sigma Q)] - 2P D[H^+ Q\Sigma P]$ on the manifold.",
    source="Section 4, Eq. (4)",
)
def second(run):
    """Check the formula for d2Phi by all implementations."""
    for name, (loss, x) in POINTS.items():
        S = np.diag(np.arange(1.0, loss.dim + 1)) + 0.3
        closed, root = closed_second_derivative(name, np.array(x), S), np.linalg.cholesky(S)
        run.measure(
            f"{name}: against the closed form",
            relative_error(value_or_nan(st.manifold.second_derivative, loss, x, S), closed),
            at_most=1e-9,
        )
        drift = value_or_nan(lambda loss=loss, x=x, S=S: st.manifold.at(loss, x).slow_drift(S, rate=0.8))
        run.measure(f"{name}: the slow drift at lambda = 0.8", relative_error(drift, 0.32 * closed), at_most=1e-9)
        free = value_or_nan(lambda loss=loss, x=x, root=root: st.manifold.matrix_free(loss, x).second_derivative(root=root))
        run.measure(f"{name}: by products", relative_error(free, closed), at_most=1e-7)
        run.measure(
            f"{name}: by the compiled frame", relative_error(compiled_second(loss, np.array(x), 1, [S])[0], closed), at_most=1e-9
        )
    if already_contradicted(run):
        return
    count = run.scale(quick=8, standard=100, full=300)
    rows, failing, errors_by = [], [], {"dense matrices": [], "products": [], "the compiled frame": []}
    for seed in range(count):
        loss, x, normal, rng = random_loss(seed)
        root = rng.normal(size=(loss.dim, loss.dim))
        other = root[:, ::-1] @ np.diag(1.0 + np.arange(loss.dim)) @ root[:, ::-1].T
        derivatives = loss.hessian(x), loss.third(x)
        expected = np.array([direct_second_derivative(*derivatives, S) for S in (root @ root.T, other)])
        dense = [value_or_nan(st.manifold.second_derivative, loss, x, S) for S in (root @ root.T, other)]
        errors_by["dense matrices"].append(max(relative_error(one, value) for one, value in zip(dense, expected)))
        free = value_or_nan(lambda loss=loss, x=x, root=root: st.manifold.matrix_free(loss, x).second_derivative(root=root))
        errors_by["products"].append(relative_error(free, expected[0]))
        errors_by["the compiled frame"].append(relative_error(compiled_second(loss, x, normal, [root @ root.T, other]), expected))
        exact = value_or_nan(second_difference, loss, x, root)
        rows.append(relative_error(dense[0], exact))
        failing.append(relative_error(np.linalg.pinv(derivatives[0], rcond=1e-8) @ derivatives[0] @ dense[0], exact))
    run.measure(f"the worst of {count} random losses, relative to the second difference of Phi", max(rows), at_most=1e-4)
    for name, errors in errors_by.items():
        run.measure(f"the worst by {name}, relative to the formula by inverses", max(errors), at_most=1e-7)
    run.note(f"Median {np.median(rows):.2g}: Phi's own error, amplified by the difference quotient.")
    run.figure(
        "Errors on random losses",
        lambda: histogram(rows),
        "Relative distance between the formula and the second difference of $\\Phi$.",
    )
    with run.control("the formula without its tangent part"):
        run.measure("the worst", max(failing), at_most=1e-4)
    with run.control("without the mixed term"):
        S = np.diag([1.0, 2.0]) + 0.3
        mixed = np.array([[S[0, 0], 0.0], [0.0, S[1, 1]]])  # at (1, 0) on the circle the normal is the first coordinate
        found = compiled_second(st.losses.sphere(2), np.array([1.0, 0.0]), 1, [mixed])[0]
        run.measure("circle", relative_error(found, closed_second_derivative("circle", np.array([1.0, 0.0]), S)), at_most=1e-2)


@st.claim(
    "d2phi-by-products",
    statement=r"Without a matrix of the size of the parameters: for residuals $r$, $\partial^2\Phi[\Sigma]$ and $P\nabla\operatorname{tr}\nabla^2L$ come from "
    r"$D[M] = \frac1n\sum_i (2\nabla^2 r_i M\nabla r_i + \operatorname{tr}(\nabla^2 r_i M)\nabla r_i)$.",
    source="Section 4",
)
def products(run):
    """Check d2Phi and the trace gradient by products, without a dense Hessian."""
    import torch

    def model(x, a):
        first = x[0] * x[0] + x[1] * x[1] + x[2] * x[2] + x[3] * x[3] + 0.5 * x[4]
        second, third = x[0] * x[1] + x[2], torch.sin(x[4]) * x[3] + 0.5 * x[1]
        return torch.where(a == 0, first, torch.where(a == 1, second, third))

    names = "x0 x1 x2 x3 x4"
    text = "(x0**2 + x1**2 + x2**2 + x3**2 + x4/2 - 1)**2 + (x0*x1 + x2 - 0.2)**2 + (sin(x4)*x3 + x1/2 - 0.1)**2"
    plain = st.losses.from_expression(f"({text})/6", variables=names)
    loss = st.losses.from_torch_model(model, torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 0.2, 0.1]), dim=5)
    x = onto_zeros(loss, np.array([0.5, 0.6, 0.1, -0.7, 0.3]))
    H, third = plain.hessian(x), plain.third(x)
    S = np.diag([1.0, 2.0, 0.5, 1.5, 0.8]) + 0.3
    root, flattest = np.linalg.cholesky(S), direct_second_derivative(H, third, 0.7 * H)
    for name, of in (("residuals", loss), ("Lanczos", plain)):
        found = value_or_nan(lambda of=of: st.manifold.matrix_free(of, x).second_derivative(root=root))
        run.measure(
            f"{name}: against the formula by inverses", relative_error(found, direct_second_derivative(H, third, S)), at_most=1e-7
        )
        found = value_or_nan(lambda of=of: st.manifold.matrix_free(of, x).second_derivative(hessian_multiple=0.7))
        run.measure(f"{name}: Sigma = c Hess L", relative_error(found, flattest), at_most=1e-7)
    # on xy = 1 the trace of the Hessian is x^2 + y^2: its gradient along is (x, -y)(2x^2 - 2y^2) / (x^2 + y^2)
    one = st.losses.from_torch_model(lambda x, a: a * x[0] * x[1], torch.tensor([1.0]), torch.tensor([1.0]), dim=2)
    on = np.array([2.0, 0.5])
    slope = tangent_projection_at("hyperbola", on) @ (2 * on)
    for name, of in (("residuals", one), ("Lanczos", POINTS["hyperbola"][0])):

        def at_point(function, of=of):
            return value_or_nan(lambda: function(st.manifold.matrix_free(of, on)))

        run.measure(
            f"{name}: P grad tr H on the hyperbola",
            relative_error(at_point(lambda g: g.trace_gradient()[0]), slope),
            at_most=1e-7,
        )
        # with one nonzero curvature every probe is exact
        run.measure(f"{name}: by probes", relative_error(at_point(lambda g: g.trace_gradient(probes=4)[0]), slope), at_most=1e-7)
        drift = at_point(lambda g: g.slow_drift(hessian_multiple=0.7, rate=0.8))
        run.measure(f"{name}: the slow drift at lambda = 0.8", relative_error(drift, -0.112 * slope), at_most=1e-7)
    dense = value_or_nan(lambda: st.manifold.at(POINTS["hyperbola"][0], on).trace_gradient())
    run.measure("dense: P grad tr H there", relative_error(dense, slope), at_most=1e-9)
    home = value_or_nan(st.manifold.retract, one, [1.8, 0.7]) * np.ones(2)
    run.measure("the retraction: x y", relative_error(home[0] * home[1], 1.0), at_most=1e-12)
    with run.control("c a hundredth larger"):
        run.measure("Lanczos", relative_error(1.01 * found, flattest), at_most=1e-3)


def histogram(rows):
    """Plot a histogram of the relative errors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.8))
    ax = figure.subplots()
    ax.hist(np.log10(rows), bins=20)
    ax.set(xlabel="log10 of the relative error", ylabel="losses")
    return figure
