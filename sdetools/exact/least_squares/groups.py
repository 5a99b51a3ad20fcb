"""Very many modes in few groups: interpolation in the eigenvalue, with a proved bound on its error.

A mode is a coordinate of the eigenbasis, with its eigenvalue lam. All modes are coupled through one number a step, the level of the noise: s^2 +
sum_i lam_i E u_i^2, with s the label noise and u the point of the gradient. For given levels, what a mode contributes to the risk and to the levels is a
polynomial in lam, of a degree that grows with the steps: F(lam) = r . E(lam)^k v, with v the packed moments of its start or its noise, E(lam) the map of
`exact.least_squares.moment_maps`, and r the row that reads the risk or the level off the moments. In a group, F is replaced by the polynomial that has its
values at q Chebyshev nodes of the group. So a group of any number of modes is q modes, whose initial moments and noise are sums over the group with
Lagrange weights, and the loop over steps is unchanged.

The bound, for one gradient a step and constant coefficients. Let W be a matrix, |x|_W = |W x|, and r > w such that |E(lam)|_W <= theta < 1 on
the disc |lam - c| <= r about the centre c of a group of half-width w. Then |F| <= |row W^-1| |W v| theta^k on the disc, and Hermite's
formula for the remainder of interpolation at the nodes x_j gives

    |F - interpolated F| <= gamma |row W^-1| |W v| theta^k,      gamma = 2 (w/2)^q / prod_j (r - |x_j - c|)  r / (r - w).

Summed over modes and, for noise, over steps (sum theta^k = 1/(1 - theta)), this bounds the errors of the contributions of the start,
and of the kernel K(t) >= 0 by which the level of step k enters that of step k + t. With kappa = sum_t K(t) < 1, the condition of stability,

    |level - its approximation| <= (error of the start + error of sum K  max level) / (1 - kappa)

at every step, and the error of the risk follows in the same way. Rounding is not part of the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sdetools.exact.least_squares.moment_maps import MomentMap, pack

NODES = 4
"""The number q of nodes of a group by default."""
WIDTH = 1 / 4
"""The half-width of a group over its centre, and over the radius of the disc of the bound."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Modes in groups: q nodes stand for a group of more than q modes, and each other mode is its own node. `group` makes them.

    Attributes:
        lam: The eigenvalues of the nodes, group after group from the largest eigenvalue down, shape `(nodes,)`.
        weights: The Lagrange weight of each mode at each of the q nodes of its group, rows by `order`, shape `(modes, q)`; (1, 0, ...) for a single mode.
        place: The index in `lam` of the first node of each mode's group, by `order`, shape `(modes,)`.
        discs: For each group of several modes: centre and half-width of its interval of eigenvalues, the radius of the disc of the bound, and the slice
            (first, end) of its modes within `order`.
        order: The indices of the modes by decreasing eigenvalue, shape `(modes,)`.
    """

    lam: np.ndarray
    weights: np.ndarray
    place: np.ndarray
    discs: tuple[tuple[float, float, float, int, int], ...]
    order: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return sum_i weights_ij values_i at each node j, `(..., nodes)`, from values of the modes in their original order, `(..., modes)`."""
        flat, q = values.reshape(-1, values.shape[-1])[:, self.order], self.weights.shape[1]
        out = np.zeros((len(flat), len(self.lam) + q))
        for row, own in zip(out, flat, strict=True):
            for j in range(q):
                row += np.bincount(self.place + j, self.weights[:, j] * own, minlength=len(row))[: len(row)]
        return out[:, : len(self.lam)].reshape(*values.shape[:-1], -1)


def group(spectrum: np.ndarray, nodes: int, radius: Callable[[float], float] | None) -> Groups:
    """Return modes of positive eigenvalues in groups; where an interval has at most `nodes` modes, they remain single.

    Args:
        spectrum: The eigenvalues, positive, in any order, shape `(modes,)`.
        nodes: The number q of nodes of a group.
        radius: A function from a centre to the radius of the disc about it on which the moment map contracts; the half-width of a group is then at
            most `WIDTH` of it, as the bound needs. With None it is `WIDTH` of the centre.
    """
    order = np.argsort(-spectrum, kind="stable")
    lam = spectrum[order]
    found: list[np.ndarray] = []
    weights, place, discs = np.zeros((len(lam), nodes)), np.empty(len(lam), dtype=np.int64), []
    first = used = 0
    while first < len(lam):
        top = float(lam[first])
        w = top * WIDTH / (1 + WIDTH)
        if radius is not None:
            w = min(w, WIDTH * radius(top))
            while w > WIDTH * radius(top - w):
                w *= 0.8
        centre = top - w
        end = first + int(np.searchsorted(-lam[first:], -(centre - w), side="right"))
        if end - first <= nodes:
            end = first + 1
            weights[first, 0], place[first] = 1.0, used
            found.append(lam[first:end])
        else:
            x = np.cos(np.pi * (2 * np.arange(nodes) + 1) / (2 * nodes))
            weights[first:end], place[first:end] = _lagrange(x, (lam[first:end] - centre) / w), used
            found.append(centre + w * x)
            discs.append((centre, w, w / WIDTH, first, end))
        used += len(found[-1])
        first = end
    return Groups(np.concatenate(found), weights, place, tuple(discs), order)


def _lagrange(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the values at points `at`, `(points,)`, of the q Lagrange polynomials of the nodes `x`, `(q,)`: `(points, q)`."""
    out = np.ones((len(at), len(x)))
    for j in range(len(x)):
        for i in range(len(x)):
            if i != j:
                out[:, j] *= (at - x[i]) / (x[j] - x[i])
    return out


def contraction(maps: MomentMap, centre: float) -> tuple[float, float, np.ndarray]:
    """Return (radius, theta, W): on the disc of complex lam of this radius about `centre`, |W E(lam) W^-1| <= theta < 1 in the spectral norm.

    E(lam), `(p, p)`, is the map of the packed second moments of a mode of eigenvalue lam in a step. theta is half-way between the spectral radius of
    E(centre) and 1. W, `(p, p)`, is taken from the eigenvectors of E(centre) or from its Lyapunov equation, whichever has the larger disc. For an
    unstable mode the result is (0.0, 1.0, the identity).

    Args:
        maps: The map E, with p = n (n + 1) / 2 moments for n parts of the state.
        centre: The eigenvalue at the centre of the disc.
    """
    E = maps.at(centre)
    slope = maps.E1 + 2 * centre * maps.E2
    rho = float(np.abs(np.linalg.eigvals(E)).max())
    theta, best = (1 + rho) / 2, (0.0, 1.0, np.eye(len(E)))
    if rho >= 1:
        return best
    for W in (np.linalg.pinv(np.linalg.eig(E)[1]), _lyapunov(E, 1 - 0.75 * (1 - rho))):
        inverse = np.linalg.inv(W) if np.linalg.cond(W) < 1e8 else None
        if inverse is None:
            continue
        a, b, c = (float(np.linalg.norm(W @ one @ inverse, 2)) for one in (maps.E2, slope, E))
        if (slack := theta - c) > 0:
            radius = 2 * slack / (b + np.sqrt(b * b + 4 * a * slack)) if a or b else np.inf
            best = max(best, (float(radius), theta, W), key=lambda found: found[0])
    return best


def _lyapunov(E: np.ndarray, scale: float) -> np.ndarray:
    """Return W with P = W^T W and P - (E / scale)^T P (E / scale) = I, so that |W E W^-1| < scale; `scale` exceeds the spectral radius of E."""
    F, n = E.T / scale, len(E)
    P = np.linalg.solve(np.eye(n * n) - np.kron(F, F), np.eye(n).ravel()).reshape(n, n)
    return np.linalg.cholesky((P + P.T) / 2).T


def grouping_bound(groups: Groups, maps: MomentMap, start: np.ndarray, drive: np.ndarray, largest_level: float) -> float:
    """Return a bound on the error of the risk by grouping at every step of a run, by the formulas of the module; infinity if the run is not stable.

    Args:
        groups: The groups, made with the radii of `contraction`.
        maps: The map of the second moments of a mode in a step, from `moment_map`; coefficients are constant, and a step has one gradient.
        start: The initial moments lam_i E s_a s_b of the n parts of the state, modes in their original order, `(n, n, modes)`.
        drive: lam_i^2, by which the level of the noise enters the moments of a mode, `(modes,)`.
        largest_level: The largest level of the noise in the computed run.
    """
    z, q = pack(start)[:, groups.order], groups.weights.shape[1]
    added, rows = maps.N[0, 0], {"level": maps.points[0, 0], "risk": maps.position / 2}
    own = drive[groups.order]
    from_start, of_kernel = dict.fromkeys(rows, 0.0), dict.fromkeys(rows, 0.0)
    for centre, w, r, first, end in groups.discs:
        _, theta, W = contraction(maps, centre)
        x = np.abs(np.cos(np.pi * (2 * np.arange(q) + 1) / (2 * q))) * w
        gamma = 2 * (w / 2) ** q / np.prod(r - x) * r / (r - w)
        inverse = np.linalg.inv(W)
        for name, row in rows.items():
            scale = gamma * np.linalg.norm(row @ inverse)
            from_start[name] += scale * np.linalg.norm(W @ z[:, first:end], axis=0).sum()
            of_kernel[name] += scale * np.linalg.norm(W @ added) * own[first:end].sum() / (1 - theta)
    at = maps.at(groups.lam)
    if np.abs(np.linalg.eigvals(at)).max() >= 1:
        return np.inf
    sums = np.linalg.solve(np.eye(at.shape[-1]) - at, added[:, None])[..., 0] * groups.sums(drive)[:, None]
    kernel = {name: abs(float(sums.sum(axis=0) @ row)) + of_kernel[name] for name, row in rows.items()}
    if kernel["level"] >= 1:
        return np.inf
    level = (from_start["level"] + of_kernel["level"] * largest_level) / (1 - kernel["level"])
    return float(from_start["risk"] + of_kernel["risk"] * largest_level + kernel["risk"] * level)
