"""Three input forms of a loss: a formula, a function, a compiled function. The draws are the same, so are the results."""

import numpy as np
from numba import njit

import sdetools as st

formula = st.losses.from_expression("log(cosh(x)) + y**2 / 2", variables="x y")


def gradient(x):
    """Return the gradient by coordinate. The same code accepts one point, rows of paths, or the symbols of a traced kernel."""
    return [np.tanh(x[0]), x[1]]


def value(x):
    """Return the value. With it the gradient is validated by finite differences when the loss is made."""
    return np.log(np.cosh(x[0])) + x[1] ** 2 / 2


function = st.losses.from_function(gradient, dim=2, value=value, names=("x", "y"))


@njit
def compiled_gradient(x):
    """Return the gradient. Code that cannot be traced (loops, branches, tables) is compiled by Numba and called inside the kernel."""
    return np.tanh(x[0]), x[1]


compiled = st.losses.from_function(compiled_gradient, dim=2, names=("x", "y"))


def main():
    """Simulate SGDM on all three forms, and show the error for a wrong gradient."""
    plan = st.schedules.constant(eta=0.02, beta=0.9)
    for name, loss in (("formula", formula), ("function", function), ("compiled", compiled)):
        oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=2), sigma=1.0)
        run = st.simulate(st.SGDM(oracle, plan), x0=[2.0, -1.0], horizon=1.0, paths=20_000, observe=["x**2", "y**2"])
        print(
            f"{name:<9} E x^2 = {run.at('x**2').value:.12f}   E y^2 = {run.at('y**2').value:.12f}   (error {run.at().stderr:.1g})"
        )
    try:
        st.losses.from_function(lambda x: [np.tanh(x[0]), 2 * x[1]], dim=2, value=value, names=("x", "y"))
    except ValueError as error:
        print("A wrong gradient:", error)


if __name__ == "__main__":
    main()
