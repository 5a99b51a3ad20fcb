"""What is minimised: losses with their value, gradient, Hessian and third derivative.

Doors: `from_expression` (text, exact derivatives), `from_function` (Python or `@njit`), `from_torch` (a torch function, with data or without), the galleries. SymPy and Numba
are imported when a loss that needs them is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Loss, Stage

if TYPE_CHECKING:
    from .data import LinearModel, least_squares, logistic
    from .expression import ExpressionLoss, from_expression
    from .function import FunctionLoss, from_function
    from .gallery import (
        QuadraticLoss,
        double_well,
        exponential_valley,
        hyperbola,
        label_noise_valley,
        linear,
        quadratic,
        sphere,
    )
    from .torch_function import from_torch, from_torch_model

_HOME = {
    "ExpressionLoss": "expression",
    "FunctionLoss": "function",
    "LinearModel": "data",
    "QuadraticLoss": "gallery",
    "double_well": "gallery",
    "exponential_valley": "gallery",
    "from_expression": "expression",
    "from_function": "function",
    "from_torch": "torch_function",
    "from_torch_model": "torch_function",
    "hyperbola": "gallery",
    "label_noise_valley": "gallery",
    "least_squares": "data",
    "linear": "gallery",
    "logistic": "data",
    "quadratic": "gallery",
    "sphere": "gallery",
}

__all__ = [
    "ExpressionLoss",
    "FunctionLoss",
    "LinearModel",
    "Loss",
    "QuadraticLoss",
    "Stage",
    "double_well",
    "exponential_valley",
    "from_expression",
    "from_function",
    "from_torch",
    "from_torch_model",
    "hyperbola",
    "label_noise_valley",
    "least_squares",
    "linear",
    "logistic",
    "quadratic",
    "sphere",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
