"""The public names, each with its file: what type checkers read, and what is imported when a name is first used."""

from .base import (
    Loss as Loss,
    Stage as Stage,
)
from .data import (
    LinearModel as LinearModel,
    least_squares as least_squares,
    logistic as logistic,
)
from .diagonal import (
    DiagonalQuadratic as DiagonalQuadratic,
)
from .expression import (
    ExpressionLoss as ExpressionLoss,
    from_expression as from_expression,
)
from .function import (
    FunctionLoss as FunctionLoss,
)
from .gallery import (
    QuadraticLoss as QuadraticLoss,
    double_well as double_well,
    exponential_valley as exponential_valley,
    hyperbola as hyperbola,
    label_noise_valley as label_noise_valley,
    linear as linear,
    quadratic as quadratic,
    sphere as sphere,
)
from .problems import (
    ModelLoss as ModelLoss,
    diabetes_network as diabetes_network,
    diagonal_network as diagonal_network,
    from_models as from_models,
    matrix_sensing as matrix_sensing,
    sparse_teacher as sparse_teacher,
    two_layer as two_layer,
    uv_model as uv_model,
)
from .samples import (
    FunctionSamples as FunctionSamples,
    from_function as from_function,
)
from .torch_function import (
    from_torch as from_torch,
    from_torch_model as from_torch_model,
)
