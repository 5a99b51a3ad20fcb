"""An SDE and an integrator of your own, compared with exact moments: weak orders, and a gap on one Brownian path."""

import numpy as np

import sdetools as st

sde = st.SDE(
    drift=["a*(1 - x)", "x - y"],
    diffusion=[["s*x", "0"], ["0.2", "s*y"]],
    variables="x y",
    parameters={"a": 2.0, "s": 0.4},
)
print(sde)


class Midpoint(st.Integrator):
    """Euler's scheme with the drift at the midpoint: order 2 in the drift, weak order 1, since the noise is Euler's."""

    weak_order = 1.0
    strong_order = 0.5

    def step(self, eq, y, h):
        half = y + 0.5 * h * eq.drift(y)
        return y + h * eq.drift(half) + eq.diffusion(y, [np.sqrt(h) * xi for xi in eq.xi[0]])


x0, exact = [0.5, 0.0], st.exact.solution(sde, [0.5, 0.0], times=[1.0])
for scheme in (st.EulerMaruyama, Midpoint, st.Platen):
    errors = []
    for steps in (16, 32, 64):
        at = st.exact.moments(scheme(sde, 1 / steps), x0, steps, record=[steps])
        errors.append(np.abs(at.covariance - exact.covariance).max())
    print(f"{scheme.__name__:14} weak order {np.log2(errors[1] / errors[2]):.2f} (declared {scheme.weak_order:g})")

gap = st.weak_gap(Midpoint(sde, 1 / 8), st.Platen(sde, 1 / 32), x0, 1.0, 20_000, ["x*y"], times=[1.0], coupled=False)
print(gap)
coupled = st.weak_gap(Midpoint(sde, 1 / 8), Midpoint(sde, 1 / 32), x0, 1.0, 20_000, ["x*y"], times=[1.0])
print(f"one Brownian path for both step sizes saves a factor of {coupled.variance_reduction('x*y')[0]:.0f} in paths")
