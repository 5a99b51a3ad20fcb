"""The public names, each with its file: what type checkers read, and what is imported when a name is first used."""

from .adam_trial import (
    AdamTrial as AdamTrial,
    diagnose_adam as diagnose_adam,
)
from .adaptive_state import (
    method_from_torch as method_from_torch,
    state_from_torch as state_from_torch,
    state_to_torch as state_to_torch,
)
from .batches import (
    Batches as Batches,
)
from .diagnosis import (
    diagnose as diagnose,
)
from .diagnosis_result import (
    Diagnosis as Diagnosis,
)
from .modules import (
    loss_of_module as loss_of_module,
)
from .plan_scheduler import (
    PlanScheduler as PlanScheduler,
)
from .svag import (
    SVAG as SVAG,
)
from .torch_general_momentum import (
    DANA as DANA,
    MaSS as MaSS,
)
from .torch_optimisers import (
    PNM as PNM,
    QHM as QHM,
    SGD as SGD,
    SGDF as SGDF,
    SGDM as SGDM,
    SNGM as SNGM,
    HeavyBall as HeavyBall,
    Nesterov as Nesterov,
    Optimizer as Optimizer,
    RandomScaling as RandomScaling,
    buffer_bytes as buffer_bytes,
    convert as convert,
)
from .torch_sign_descent import (
    Lion as Lion,
    Signum as Signum,
)
from .torchsde import (
    from_torchsde as from_torchsde,
    to_torchsde as to_torchsde,
)
