"""The manifold of minimisers Gamma of a loss: the gradient-flow projection Phi onto it, and the derivatives of Phi.

Words of this room: H is the Hessian of the loss at a point of Gamma, and M its rank. The kernel of H is the tangent space of Gamma, with
the orthogonal projection P. Its complement is the normal space, with the projection Q = I - P: its directions lead across Gamma, those of
the tangent space along it. H^+ is the pseudo-inverse of H. A flow is the gradient flow x' = -grad L(x). Its limit from x is Phi(x), a point of
Gamma; the derivatives of Phi are dPhi, a matrix, and d2Phi[Sigma] = sum_ij (d^2 Phi / dx_i dx_j) Sigma_ij, a vector. A point `x` is `(dim,)`,
and many points are `(dim, paths)`, a column for each.

Example:
    >>> import sdetools as st
    >>> loss = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
    >>> point = st.manifold.project(loss, [2.0, 1.0])
    >>> point.round(5), st.manifold.at(loss, point).rank
    (array([1.81735, 0.55025]), 1)
"""

from __future__ import annotations

from sdetools._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
