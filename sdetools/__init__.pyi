"""The public names, each with its file: what type checkers read, and what is imported when a name is first used."""

from . import (
    bridge as bridge,
    claims as claims,
    estimates as estimates,
    exact as exact,
    losses as losses,
    manifold as manifold,
    noise as noise,
    plots as plots,
    recipes as recipes,
    report as report,
    schedules as schedules,
    starts as starts,
    studies as studies,
    weak as weak,
)
from ._arrays import (
    components as components,
    select as select,
)
from ._version import (
    __version__ as __version__,
)
from .claims import (
    claim as claim,
    verify as verify,
)
from .dynamics.base import (
    Dynamics as Dynamics,
    Moving as Moving,
)
from .dynamics.integrators import (
    BAOAB as BAOAB,
    OBABO as OBABO,
    RI1 as RI1,
    SRA1 as SRA1,
    UBU as UBU,
    EulerMaruyama as EulerMaruyama,
    Heun as Heun,
    Integrator as Integrator,
    Milstein as Milstein,
    Platen as Platen,
)
from .dynamics.rules import (
    DANA as DANA,
    IGT as IGT,
    PNM as PNM,
    QHM as QHM,
    SAM as SAM,
    SGD as SGD,
    SGDF as SGDF,
    SGDM as SGDM,
    SNGM as SNGM,
    STORM as STORM,
    AccSGD as AccSGD,
    AcSGD as AcSGD,
    Adam as Adam,
    AdamW as AdamW,
    Auxiliary as Auxiliary,
    ClippedSGD as ClippedSGD,
    GeneralMomentum as GeneralMomentum,
    HeavyBall as HeavyBall,
    Lion as Lion,
    LocalSGD as LocalSGD,
    MaSS as MaSS,
    Nesterov as Nesterov,
    NormalisedSGD as NormalisedSGD,
    PrimalAveraging as PrimalAveraging,
    RandomScaling as RandomScaling,
    RMSProp as RMSProp,
    ScheduleFree as ScheduleFree,
    SignSGD as SignSGD,
    Signum as Signum,
    square_root_rule as square_root_rule,
    svag as svag,
)
from .dynamics.sdes import (
    SDE as SDE,
    AdamSDE as AdamSDE,
    AdaptiveSlowFlow as AdaptiveSlowFlow,
    ClippedSDE as ClippedSDE,
    GradientFlow as GradientFlow,
    HamiltonianSDE as HamiltonianSDE,
    KineticSDE as KineticSDE,
    LimitSDE as LimitSDE,
    ModifiedMomentumSDE as ModifiedMomentumSDE,
    ModifiedSDE as ModifiedSDE,
    RMSPropSDE as RMSPropSDE,
    SignSDE as SignSDE,
    SlowSDE as SlowSDE,
)
from .estimates import (
    ConfidenceInterval as ConfidenceInterval,
    Estimate as Estimate,
)
from .noise.oracle import (
    NoisyOracle as NoisyOracle,
)
from .noise.streaming import (
    streaming_least_squares as streaming_least_squares,
)
from .results.saving import (
    load as load,
)
from .schedules import (
    Plan as Plan,
)
from .simulation.store import (
    Store as Store,
    StoreError as StoreError,
)
from .studies import (
    Accumulate as Accumulate,
    Bounded as Bounded,
    Indicator as Indicator,
    LossVariation as LossVariation,
    PathLength as PathLength,
    SquaredIncrements as SquaredIncrements,
    order_study as order_study,
    simulate as simulate,
    weak_gap as weak_gap,
)
from .studies.distance import (
    distance as distance,
)
from .studies.execution import (
    Execution as Execution,
)
from .studies.exits import (
    exit_time as exit_time,
)
from .studies.extrapolation import (
    extrapolate as extrapolate,
)
from .studies.long_paths import (
    stationary as stationary,
)
from .studies.multilevel.estimator import (
    multilevel as multilevel,
)
from .studies.slow_clock import (
    slow_study as slow_study,
)
from .studies.sweep import (
    sweep as sweep,
)
from .studies.work_diagrams import (
    work_precision as work_precision,
)
