r"""The second moments of linear rules whose gradients on streaming least squares form chains, as x' = x - eta g(x + rho g(x)) on the same rows.

A gradient is g(u) = F u + f with F = (1 - sigma) K + sigma sum_l r_l H_l and f = sigma s sum_l r_l f_l. Batch l of B rows a_b ~ N(0, K), K =
diag(lam), gives H_l = (1/B) sum_b a_b a_b^T and f_l = (1/B) sum_b a_b eps_b with eps_b ~ N(0, 1); s is the label noise, and r_l are the weights of
the batches, (1,) without `st.svag`. With one gradient inside another, a step is a sum of words W, products of the letters K and H_l,

    s' = sum_W (W (x) A_W) s + sum_Wl (W f_l) (x) b_Wl,        a matrix A_W and vectors b_Wl, with all factors, over the parts of the state for each word.

Signs of single coordinates change neither the law of the rows nor that of the state, so that second moments of different coordinates stay out of the
risk. Those of coordinate i, S_i = E s_i s_i^T over the n parts of the state, obey

    S_i' = sum_WV (d_WV(lam_i) A_W S_i A_V^T + sum_rs c_WV,rs lam_i^r A_W (sum_j lam_j^s S_j) A_V^T) + noise_i,

with E W_ij V_ij = sum_rs c_WV,rs lam_i^r lam_j^s + delta_ij d_WV(lam_i) from `exact.least_squares.row_products`; noise_i is what the f_l add.
SAM has words of two letters, thus moments of the rows up to order 8.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sdetools.exact.least_squares.mode_problem import ModeProblem
from sdetools.exact.least_squares.mode_steps import ModeSteps
from sdetools.exact.least_squares.row_products import (
    MOST_FACTORS,
    SPECTRUM,
    Coefficient,
    Word,
    evaluated_at,
    product_moment,
)

MOST_KINDS = 64
"""Largest number of kinds of steps (different coefficients) whose matrices are in memory at once."""


@dataclass(frozen=True)
class WordSum:
    """A sum of words, products of K and the H_l, that act on the state s of n parts and on the label noise f_l of batches.

    K is the covariance of the rows and H_l = (1/B) sum_b a_b a_b^T that of the rows of batch l; f_l = (1/B) sum_b a_b eps_b. The sum is either one
    vector over the coordinates, such as a gradient or the point of one (an entry of `state` is a vector `(n,)`, one of `noise` a number), or the
    whole new state (a matrix `(n, n)` and a vector `(n,)`). A word is a tuple of letters from left to right: -1 is K, and l >= 0 is H_l, with the
    batches of all copies of the noise in one count.

    Attributes:
        state: For each word W, what multiplies W s.
        noise: For each pair (W, l), what multiplies W f_l; the factors r_l, sigma and s are included.
    """

    state: dict[Word, np.ndarray] = field(default_factory=dict)
    noise: dict[tuple[Word, int], np.ndarray] = field(default_factory=dict)

    def add(self, other: WordSum, by: np.ndarray | float) -> None:
        """Add `by` times another sum in place.

        Args:
            other: The sum to add.
            by: A number; or a vector `(n,)`, whose outer products with the entries of `other` make the entries of a new state.
        """
        for word, c in other.state.items():
            self.state[word] = self.state.get(word, 0.0) + np.multiply.outer(by, c)
        for key, c in other.noise.items():
            self.noise[key] = self.noise.get(key, 0.0) + np.multiply.outer(by, c)


def word_step(problem: ModeProblem, made: ModeSteps, kind: int) -> WordSum:
    """Return the new state after a step as a sum of words: products of the rows' covariance K and the empirical covariances H_l of batches.

    Args:
        problem: The problem, with the weights r_l of the batches in a gradient, sigma and the label noise.
        made: The steps of the rule.
        kind: Which of its different steps, an index of `made.A`.

    Raises:
        ValueError: If more than 3 gradients form a chain.
    """
    many, root = len(problem.weights), problem.label_variance**0.5
    gradients: list[WordSum] = []
    for j, copy in enumerate(made.copies.tolist()):
        point, answer = WordSum({(): made.U[kind, j]}), WordSum()
        for i in range(j):
            if made.K[kind, j, i]:
                point.add(gradients[i], float(made.K[kind, j, i]))
        letters = {many * copy + l: problem.spread * r for l, r in enumerate(problem.weights) if r}
        for letter, weight in ({SPECTRUM: 1.0 - problem.spread} | letters).items():
            if weight:
                state = {(letter, *word): weight * c for word, c in point.state.items()}
                noise = {((letter, *word), l): weight * c for (word, l), c in point.noise.items()}
                answer.add(WordSum(state, noise), 1.0)
                if letter != SPECTRUM and root:
                    answer.add(WordSum(noise={((), letter): np.array(weight * root)}), 1.0)
        gradients.append(answer)
    out = WordSum({(): made.A[kind]})
    for answer, G in zip(gradients, made.G[kind], strict=True):
        out.add(answer, G)
    longest = max(sum(letter != SPECTRUM for letter in word) for word in out.state)
    if 2 * longest > MOST_FACTORS:
        raise ValueError(
            f"the exact risk must have at most {MOST_FACTORS // 2} gradients in a chain, each at a point that contains the one before, since moments of "
            f"the rows of order {2 * MOST_FACTORS} have 10,395 terms and those of the next order two million; got {longest}. Simulate it instead."
        )
    return out


class ChainedMoments:
    """The recursion of the second moments of a rule with chained gradients, at points that contain other gradients on the same rows.

    A mode i is a coordinate of the eigenbasis of the rows' covariance K, with the eigenvalue lam_i. z_i = lam_i E s s^T, with the n parts s of the
    state in this mode; as an array, z has the shape `(n^2, modes)`, with lam_i E s_a s_b in row n a + b. The module has the formula. Steps with the
    same coefficients are of one kind. What kinds and words, products of covariances of rows, need is computed at first use and remains in memory.

    Args:
        problem: The problem: eigenvalues, rows of a batch, label noise.
        made: The steps of the rule in one coordinate.

    Attributes:
        problem: The problem.
        made: The steps.
        n: The number of parts of the state.
        powers: lam_i^t in row t = 0, ..., 23, shape `(24, modes)`.
        sums: tr K^t = sum_i lam_i^t, shape `(24,)`.
        moments: The results of `values` by pairs of words.
        kinds: The results of `step` by kinds of steps.
    """

    def __init__(self, problem: ModeProblem, made: ModeSteps) -> None:
        self.problem, self.made, self.n = problem, made, made.A.shape[1]
        self.powers = np.power.outer(problem.lam, np.arange(4 * MOST_FACTORS)).T
        self.sums = self.powers.sum(axis=1)
        self.moments: dict[tuple[Word, Word], tuple[np.ndarray, dict[tuple[int, int], float]]] = {}
        self.kinds: dict[int, tuple[np.ndarray, dict[tuple[int, int], np.ndarray], np.ndarray]] = {}

    def values(self, first: Word, second: Word) -> tuple[np.ndarray, dict[tuple[int, int], float]]:
        """Return the two parts of E W_ij V_ij = sum_rs c_rs lam_i^r lam_j^s + delta_ij d(lam_i), for all entries (i, j) of two words W and V.

        Args:
            first: The word W, a product of covariances: its letters from left to right, -1 for K and l >= 0 for that of the rows of batch l.
            second: The word V.

        Returns:
            d at every eigenvalue, shape `(modes,)`, and c as a dict from (r, s) to a number.
        """
        key = first, second
        if key not in self.moments:
            found = product_moment(first, second)
            diagonal = np.zeros(len(self.problem.lam))
            for t, c in found.diagonal.items():
                diagonal += self.number(c) * self.powers[t]
            self.moments[key] = diagonal, {rs: self.number(c) for rs, c in found.coupled.items()}
        return self.moments[key]

    def number(self, coefficient: Coefficient) -> float:
        """Return the value of a polynomial in 1/B and the power sums tr K^q on this problem.

        `coefficient` has an integer by (p, (q_1, q_2, ...)), the coefficient of B^-p times the product of the tr K^(q_i).
        """
        return evaluated_at(coefficient, self.problem.rows, self.sums)

    def step(self, kind: int) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray], np.ndarray]:
        """Return the step z_i <- own_i z_i + sum_rs lam_i^(r+1) shared_rs sum_j lam_j^(s-1) z_j + lam_i noise_i as its three parts.

        z_i are the n^2 numbers lam_i E s_a s_b of mode i, for the n parts s of the state.

        Args:
            kind: Which of the different steps, an index of `made.A`.

        Returns:
            own, shape `(n^2, n^2, modes)`; shared, a dict from (r, s) to a matrix `(n^2, n^2)`; and noise, shape `(n^2, modes)`.
        """
        if kind not in self.kinds:
            if len(self.kinds) >= MOST_KINDS:
                self.kinds.clear()
            self.kinds[kind] = self._step(kind)
        return self.kinds[kind]

    def _step(self, kind: int) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray], np.ndarray]:
        words, size, modes = word_step(self.problem, self.made, kind), self.n**2, len(self.problem.lam)
        own, noise = np.zeros((size, size, modes)), np.zeros((size, modes))
        shared: dict[tuple[int, int], np.ndarray] = {}
        for first, A in words.state.items():
            for second, B in words.state.items():
                diagonal, coupled = self.values(first, second)
                both = np.kron(A, B)
                own += both[..., None] * diagonal
                for rs, c in coupled.items():
                    shared[rs] = shared.get(rs, 0.0) + c * both
        for (first, l), a in words.noise.items():
            for (second, k), b in words.noise.items():
                if l == k:  # E (W f_l)_i (V f_l)_i = E (W H_l V^T)_ii / B
                    diagonal, _ = self.values((*first, l, *second[::-1]), ())
                    noise += np.kron(a, b)[:, None] * diagonal / self.problem.rows
        return own, shared, noise

    def after(self, z: np.ndarray, kind: int) -> np.ndarray:
        """Return z after a step of a kind, a new array, from z before it, both `(n^2, modes)`."""
        own, shared, noise = self.step(kind)
        out = np.einsum("pqm,qm->pm", own, z) + self.problem.lam * noise
        for (r, s), matrix in shared.items():
            out += np.multiply.outer(matrix @ (z @ self.powers[s - 1]), self.powers[r + 1])
        return out


def chained_risk(
    problem: ModeProblem, made: ModeSteps, start: np.ndarray, total: int, kept: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the risk 1/2 sum_i lam_i E x_i^2 along the steps of a rule with chained gradients, and second moments if they are asked for.

    Chained are gradients at points that contain other gradients on the same rows, as in `st.SAM`.

    Args:
        problem: The problem.
        made: The steps of the rule, at least `total` of them.
        start: lam_i E s_a s_b at the start, for the n parts of the state, `(n, n, modes)`.
        total: The number of steps.
        kept: The steps at which second moments are returned, increasing, within 0, ..., `total`; None for no moments.

    Returns:
        The risk after 0, ..., `total` steps, shape `(total + 1,)`, infinite from where it overflows; and lam_i E s_a s_b at the steps `kept`, shape
        `(len(kept), n, n, modes)`, or None.

    Raises:
        ValueError: If more than 3 gradients form a chain.
    """
    n = len(start)
    recursion, z = ChainedMoments(problem, made), start.reshape(n * n, -1)
    marks, found, curve = set() if kept is None else set(kept.tolist()), [], np.empty(total + 1)
    with np.errstate(all="ignore"):
        for k in range(total + 1):
            if k:
                z = recursion.after(z, int(made.index[k - 1]))
            curve[k] = z[0].sum() / 2
            if k in marks:
                found.append(z.reshape(n, n, -1))
    curve[~np.isfinite(curve)] = np.inf
    return curve, np.array(found) if kept is not None else None
