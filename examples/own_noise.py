"""A noise of your own: rare large gradients. The limiting SDE depends on mean and covariance only; the gap is O(sqrt(eta)).

The skewness causes it: each of the T/eta steps adds -eta^3 sigma^3 E v^3 = -eta^(3/2) E v^3 to E x^3.
"""

import numpy as np

import sdetools as st

JUMP = 0.05  # the probability of a large gradient


def value(x, z):
    """Return a skewed two-valued noise from one uniform draw, larger near 0; `select` is the branch that a kernel supports."""
    jump = st.select(z[0] < JUMP, ((1 - JUMP) / JUMP) ** 0.5, -((JUMP / (1 - JUMP)) ** 0.5))
    return [(1 + np.cos(x[0]) / 2) * jump]


def covariance(x):
    """Return the covariance. It is checked against 200,000 draws when the noise is made."""
    return [[(1 + np.cos(x[0]) / 2) ** 2]]


loss = st.losses.from_expression("x**2 / 2")
rare = st.noise.from_function(value, dim=1, draws=st.noise.Uniform(1), covariance=covariance)
normal = st.noise.gaussian(root=[["1 + cos(x)/2"]], variables="x")


def main():
    """Compare E x^3 under rare jumps and under Gaussian noise."""
    print("  eta    E x^3 with rare jumps     Gaussian       difference / sqrt(eta)")
    for eta in (0.1, 0.05, 0.025):
        means = []
        for noise in (rare, normal):
            oracle = st.NoisyOracle(loss, noise, sigma=eta**-0.5)
            sgd = st.SGD(oracle, st.schedules.constant(eta=eta))
            means.append(st.simulate(sgd, x0=[0.5], horizon=1.0, paths=400_000, observe=["x**3"]).at("x**3"))
        a, b = means
        error = (a.stderr**2 + b.stderr**2) ** 0.5 / eta**0.5
        print(f"  {eta:<5}  {a.value:8.4f} +- {a.stderr:.4f}   {b.value:8.4f} +- {b.stderr:.4f}   "
              f"{(a.value - b.value) / eta**0.5:6.2f} +- {error:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
