"""The public names, each with its file: what type checkers read, and what is imported when a name is first used."""

from .base import (
    Noise as Noise,
    Normal as Normal,
    Sign as Sign,
    Uniform as Uniform,
    sample_draws as sample_draws,
)
from .batch_sampling import (
    SampledNoise as SampledNoise,
)
from .custom import (
    FunctionNoise as FunctionNoise,
    from_function as from_function,
)
from .laws import (
    RootedNoise as RootedNoise,
    centred_exponential as centred_exponential,
    gaussian as gaussian,
    none as none,
    rademacher as rademacher,
    student_t as student_t,
    three_point as three_point,
    two_point as two_point,
    uniform as uniform,
)
from .minibatch import (
    Minibatch as Minibatch,
    SampleGaussian as SampleGaussian,
    label_noise as label_noise,
    minibatch as minibatch,
)
from .oracle import (
    NoisyOracle as NoisyOracle,
    SVAGNoise as SVAGNoise,
    svag as svag,
)
from .stable import (
    StableNoise as StableNoise,
    alpha_stable as alpha_stable,
)
from .streaming import (
    StreamingNoise as StreamingNoise,
    streaming_least_squares as streaming_least_squares,
)
