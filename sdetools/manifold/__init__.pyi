"""The public names, each with its file: what type checkers read, and what is imported when a name is first used."""

from .flow import (
    FlowError as FlowError,
    differential as differential,
    project as project,
)
from .geometry import (
    Geometry as Geometry,
    at as at,
    distance as distance,
    second_derivative as second_derivative,
    tangent_projection as tangent_projection,
)
from .product_geometry import (
    MatrixFree as MatrixFree,
    matrix_free as matrix_free,
    retract as retract,
)
