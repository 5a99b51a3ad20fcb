"""The manifold of minimisers Gamma of a loss: the gradient-flow projection Phi onto it, and the derivatives of Phi.

Example:
    >>> import sdetools as st
    >>> loss = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
    >>> point = st.manifold.project(loss, [2.0, 1.0])
    >>> point.round(5), st.manifold.at(loss, point).rank
    (array([1.81735, 0.55025]), 1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdetools._lazy import lazily

if TYPE_CHECKING:
    from sdetools.manifold.flow import FlowError, differential, project
    from sdetools.manifold.geometry import Geometry, at, distance, second_derivative, tangent_projection
    from sdetools.manifold.product_geometry import MatrixFree, matrix_free, retract

_HOME = {
    "FlowError": "flow",
    "Geometry": "geometry",
    "MatrixFree": "product_geometry",
    "at": "geometry",
    "differential": "flow",
    "distance": "geometry",
    "matrix_free": "product_geometry",
    "project": "flow",
    "retract": "product_geometry",
    "second_derivative": "geometry",
    "tangent_projection": "geometry",
}

__all__ = [
    "FlowError",
    "Geometry",
    "MatrixFree",
    "at",
    "differential",
    "distance",
    "matrix_free",
    "project",
    "retract",
    "second_derivative",
    "tangent_projection",
]

__getattr__, __dir__ = lazily(__name__, _HOME, __all__)
