"""Loss functions with their value, gradient, Hessian and third derivative.

A loss has three input forms: an expression (`from_expression`, exact derivatives by SymPy; `from_models` for sums of squares), a Python
function (`from_function`, the value or the gradient in NumPy, with data or without) and a torch function (`from_torch`, with data or
without). The other functions build losses from the literature. SymPy, Numba and torch are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdetools._lazy import lazily
from sdetools.losses.base import Loss, Stage

if TYPE_CHECKING:
    from sdetools.losses.data import LinearModel, least_squares, logistic
    from sdetools.losses.expression import ExpressionLoss, from_expression
    from sdetools.losses.function import FunctionLoss
    from sdetools.losses.gallery import (
        QuadraticLoss,
        double_well,
        exponential_valley,
        hyperbola,
        label_noise_valley,
        linear,
        quadratic,
        sphere,
    )
    from sdetools.losses.problems import (
        ModelLoss,
        diabetes_network,
        diagonal_network,
        from_models,
        matrix_sensing,
        sparse_teacher,
        two_layer,
        uv_model,
    )
    from sdetools.losses.samples import FunctionSamples, from_function
    from sdetools.losses.torch_function import from_torch, from_torch_model

_HOME = {
    "diabetes_network": "problems",
    "diagonal_network": "problems",
    "double_well": "gallery",
    "exponential_valley": "gallery",
    "ExpressionLoss": "expression",
    "from_expression": "expression",
    "from_function": "samples",
    "from_models": "problems",
    "from_torch": "torch_function",
    "from_torch_model": "torch_function",
    "FunctionLoss": "function",
    "FunctionSamples": "samples",
    "hyperbola": "gallery",
    "label_noise_valley": "gallery",
    "least_squares": "data",
    "linear": "gallery",
    "LinearModel": "data",
    "logistic": "data",
    "matrix_sensing": "problems",
    "ModelLoss": "problems",
    "quadratic": "gallery",
    "QuadraticLoss": "gallery",
    "sparse_teacher": "problems",
    "sphere": "gallery",
    "two_layer": "problems",
    "uv_model": "problems",
}

__all__ = [
    "ExpressionLoss",
    "FunctionLoss",
    "FunctionSamples",
    "LinearModel",
    "Loss",
    "ModelLoss",
    "QuadraticLoss",
    "Stage",
    "diabetes_network",
    "diagonal_network",
    "double_well",
    "exponential_valley",
    "from_expression",
    "from_function",
    "from_models",
    "from_torch",
    "from_torch_model",
    "hyperbola",
    "label_noise_valley",
    "least_squares",
    "linear",
    "logistic",
    "matrix_sensing",
    "quadratic",
    "sparse_teacher",
    "sphere",
    "two_layer",
    "uv_model",
]

__getattr__, __dir__ = lazily(__name__, _HOME, __all__)
