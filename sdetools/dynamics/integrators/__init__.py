"""Integrators, which discretise an SDE with a step size and make a dynamics of it.

    EulerMaruyama   strong 1/2 (additive 1)   weak 1   Ito            any noise; normal, two- or three-point draws
    Milstein        strong 1                  weak 1   Ito            additive, scalar, diagonal, commutative noise; derivative-free
    Heun            strong 1/2 (comm. 1)      weak 1   Stratonovich   any noise
    SRA1            strong 3/2                weak 2   either         additive noise
    Platen          strong 1/2                weak 2   Ito            any noise; normal or three-point draws; a sign per pair of motions
    RI1             strong 1/2                weak 2   Ito            any noise; normal or three-point draws; a sign per pair of motions
    OBABO, BAOAB    weak 2                             either         kinetic equations, split; UBU: additive noise only

The weak orders hold for any number of Brownian motions, commutative or not: the tests compare E f after one step with the generator's
expansion, for all moments up to the fourth and one to four motions. Steps with random signs share no Brownian path with steps of
another length.
"""

from sdetools.dynamics.integrators.base import Integrator
from sdetools.dynamics.integrators.splittings import BAOAB, OBABO, UBU
from sdetools.dynamics.integrators.strong import SRA1, Heun
from sdetools.dynamics.integrators.taylor import EulerMaruyama, Milstein
from sdetools.dynamics.integrators.weak_two import RI1, Platen

__all__ = [
    "BAOAB",
    "OBABO",
    "RI1",
    "SRA1",
    "UBU",
    "EulerMaruyama",
    "Heun",
    "Integrator",
    "Milstein",
    "Platen",
]
