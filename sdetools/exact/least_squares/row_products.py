r"""Second moments of products of the empirical covariance H = (1/B) sum_b a_b a_b^T of Gaussian rows a_b ~ N(0, K), K = diag(lam).

A word is a product of letters: K itself, or H_l of the l-th of several independent batches. For two words W and V

    E W_ij V_ij = sum_rs c_rs lam_i^r lam_j^s + delta_ij sum_t d_t lam_i^t,        E W_ij V_ik = 0 for j != k,

for each entry (i, j), with c and d polynomials in 1/B and in the power sums tr K^q. By Isserlis' theorem each of the (2m-1)!! matchings of the 2m
factors a of m letters H contributes once: a matched pair is an entry of K, rows that matchings connect are one row, so that n of them in m letters
weigh B^(n-m); a path of r pairs between two open indices is lam^r, and a closed path is tr K^r. With two letters it is Wishart's covariance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Word = tuple[int, ...]
"""The letters of a product from left to right: `SPECTRUM` for K, and l >= 0 for H_l."""
Coefficient = Mapping[tuple[int, tuple[int, ...]], int]
"""A polynomial as a dict from terms to whole numbers: the key (k, lengths) stands for B^-k times the product of tr K^q over q in `lengths`."""
SPECTRUM = -1
MOST_FACTORS = 6
"""Largest number of letters H in two words: 10,395 matchings."""


@dataclass(frozen=True)
class ProductMoment:
    """E W_ij V_ij of two words W and V, for each entry (i, j): sum_rs coupled[r, s] lam_i^r lam_j^s + delta_ij sum_t diagonal[t] lam_i^t.

    A word is a product of the rows' covariance K = diag(lam) and of the empirical covariances H_l of batches of B rows.

    Attributes:
        coupled: For each pair (r, s) the coefficient of lam_i^r lam_j^s, a polynomial in 1/B and the tr K^q (see `Coefficient`).
        diagonal: For each t the coefficient of delta_ij lam_i^t, a polynomial of the same form.
    """

    coupled: Mapping[tuple[int, int], Coefficient]
    diagonal: Mapping[int, Coefficient]


@lru_cache(maxsize=4096)
def product_moment(first: Word, second: Word) -> ProductMoment:
    """Return E W_ij V_ij of two words, which together have at most `MOST_FACTORS` letters H (unchecked: the time grows like (2m-1)!!).

    Args:
        first: The word W, its letters from left to right: `SPECTRUM` (-1) for K, and l >= 0 for H_l.
        second: The word V.

    Example:
        >>> product_moment((0,), (0,))  # Cov H_ij = (K_ij^2 + K_ii K_jj) / B
        ProductMoment(coupled={(1, 1): {(1, ()): 1}}, diagonal={2: {(0, ()): 1, (1, ()): 1}})
    """
    copies: list[int] = []
    links: dict[int, tuple[int, int]] = {}  # the other end of an edge between letters, and the letters K on it
    ends: list[tuple[int, int]] = []  # for i and j of the first word, then of the second
    for word in (first, second):
        open_at, carried = -1 - len(ends), 0  # an end is a negative number, -1 ... -4
        ends += [(0, 0), (0, 0)]
        last = open_at
        for letter in word:
            if letter == SPECTRUM:
                carried += 1
                continue
            point = 2 * len(copies)
            copies.append(letter)
            _join(links, ends, last, point, carried)
            last, carried = point + 1, 0
        _join(links, ends, last, open_at - 1, carried)
    coupled: dict[tuple[int, int], Counter[tuple[int, tuple[int, ...]]]] = {}
    diagonal: dict[int, Counter[tuple[int, tuple[int, ...]]]] = {}
    for pairs in _matchings(list(range(2 * len(copies))), copies):
        weight = _components(pairs, len(copies))
        seen: set[int] = set()
        paths: list[tuple[tuple[int, int], int]] = []
        for start in (-1, -2, -3, -4):
            if any(start in pair for pair, _ in paths):
                continue
            at, length = ends[-1 - start]
            while at >= 0:
                other = pairs[at]
                seen |= {at, other}
                at, own = links[other]
                length += 1 + own
            paths.append(((start, at), length))
        loops = []
        for point in range(2 * len(copies)):
            if point not in seen:
                at, length = point, 0
                while at not in seen:
                    other = pairs[at]
                    seen |= {at, other}
                    at, own = links[other]
                    length += 1 + own
                loops.append(length)
        term = len(copies) - weight, tuple(sorted(loops))
        (one, r), (_, s) = paths
        if one == (-1, -3):
            coupled.setdefault((r, s), Counter())[term] += 1
        else:
            diagonal.setdefault(r + s, Counter())[term] += 1
    return ProductMoment(
        {k: dict(sorted(c.items())) for k, c in sorted(coupled.items())},
        {k: dict(sorted(c.items())) for k, c in sorted(diagonal.items())},
    )


def _join(links: dict[int, tuple[int, int]], ends: list[tuple[int, int]], left: int, right: int, carried: int) -> None:
    """Add an edge with `carried` letters K between two points of a word.

    Args:
        links: For each point of a letter H, the point at the other end of its edge and the number of letters K on it; changed in place.
        ends: The same for the open ends -1, -2, -3, -4: i and j of the first word, then of the second; changed in place.
        left: A point, or a negative number for an open end. Points 2 k and 2 k + 1 are the left and right index of the k-th letter H.
        right: The other point.
        carried: The number of letters K between the two.
    """
    for one, other in ((left, right), (right, left)):
        if one < 0:
            ends[-1 - one] = other, carried
        else:
            links[one] = other, carried


def _matchings(points: list[int], copies: list[int]) -> Iterator[dict[int, int]]:
    """Yield the matchings of points into pairs, as dicts that map each point to its partner.

    Args:
        points: The points; 2 k and 2 k + 1 belong to the k-th letter H.
        copies: The batch of rows of each letter; only points of the same batch are matched.
    """
    if not points:
        yield {}
        return
    first, *rest = points
    for k, other in enumerate(rest):
        if copies[first // 2] == copies[other // 2]:
            for found in _matchings(rest[:k] + rest[k + 1 :], copies):
                yield found | {first: other, other: first}


def _components(pairs: Mapping[int, int], letters: int) -> int:
    """Return the number of groups of letters that a matching connects; `pairs` maps each point to its partner, `letters` counts the letters H."""
    group = list(range(letters))
    for one, other in pairs.items():
        a, b = group[one // 2], group[other // 2]
        if a != b:
            group = [a if g == b else g for g in group]
    return len(set(group))


def evaluated_at(coefficient: Coefficient, rows: int, sums: np.ndarray) -> float:
    """Return the value of a coefficient, a polynomial in 1/B and the power sums tr K^q.

    Args:
        coefficient: The number of terms B^-k prod_q tr K^q by keys (k, tuple of the q).
        rows: The number B of rows of a batch.
        sums: The power sums tr K^q = sum_i lam_i^q, q = 0, 1, ..., `(powers,)`.
    """
    return float(sum(count * rows**-k * np.prod(sums[list(lengths)]) for (k, lengths), count in coefficient.items()))
