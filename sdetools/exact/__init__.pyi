"""The public names, each with its file: what type checkers read, and what is imported when a name is first used."""

from .closed_forms import (
    Warmup as Warmup,
    local_orders as local_orders,
    stationary_variance as stationary_variance,
    warmup as warmup,
)
from .closed_observables import (
    Absolute as Absolute,
    Below as Below,
)
from .equations import (
    solution as solution,
    step_law as step_law,
)
from .expectations import (
    expectation as expectation,
    gap as gap,
)
from .gaussian import (
    absolute_moment as absolute_moment,
    probability_below as probability_below,
    raw_moment as raw_moment,
)
from .moments import (
    moments as moments,
)
from .quadrature import (
    transfer as transfer,
)
from .recorded import (
    Moments as Moments,
)
