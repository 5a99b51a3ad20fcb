"""The public names, each with its file: what type checkers read, and what is imported when a name is first used."""

from .adaptive_problem import (
    AdaptiveProblem as AdaptiveProblem,
)
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
from .exit_times import (
    exit_time as exit_time,
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
from .generators.derived_sde import (
    DerivedSDE as DerivedSDE,
)
from .generators.generator_gaps import (
    generator_gap as generator_gap,
)
from .generators.generator_result import (
    GeneratorGap as GeneratorGap,
)
from .generators.modified import (
    StepGenerator as StepGenerator,
    modified_equation as modified_equation,
    step_generator as step_generator,
)
from .lattice_laws import (
    LatticeLaw as LatticeLaw,
    sign_chain as sign_chain,
    stationary_sign_law as stationary_sign_law,
)
from .least_squares.dropping import (
    Dropping as Dropping,
    drop_momentum as drop_momentum,
    dropping_diagram as dropping_diagram,
)
from .least_squares.mass import (
    MassParameters as MassParameters,
    mass_parameters as mass_parameters,
)
from .least_squares.momentum_budget import (
    BatchThreshold as BatchThreshold,
    Best as Best,
    batch_threshold as batch_threshold,
    best as best,
    effective_dimension as effective_dimension,
    general_budget as general_budget,
    mode_edge as mode_edge,
    momentum_budget as momentum_budget,
    momentum_edge as momentum_edge,
    momentum_stationary_risk as momentum_stationary_risk,
)
from .least_squares.risk_result import (
    Risk as Risk,
)
from .least_squares.risks import (
    risk as risk,
)
from .least_squares.spectra import (
    Spectrum as Spectrum,
    from_data as from_data,
    power_law as power_law,
    random_features as random_features,
    two_bulks as two_bulks,
)
from .least_squares.stability import (
    rate as rate,
    stability_edge as stability_edge,
    stationary_risk as stationary_risk,
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
from .transfer_kernels import (
    TransferKernel as TransferKernel,
    semigroup as semigroup,
    transfer_kernel as transfer_kernel,
)
