"""Every integrator on an equation for which it is made: weak errors against cost, and strong errors of those that follow a Brownian path.

python examples/work_precision.py
"""

from pathlib import Path

import sdetools as st

DTS, PATHS = [0.5, 0.25, 0.125, 0.0625], 400_000


def equation(noise, calculus="ito"):
    """Return a linear equation in the plane."""
    return st.SDE(drift=["-x + 0.3*y", "-0.2*x - 0.7*y"], diffusion=noise, variables="x y", calculus=calculus)


oracle = st.NoisyOracle(st.losses.quadratic([1.7, 1.0]), st.noise.gaussian(dim=2), sigma=0.5 * 0.01**-0.5)
PROBLEMS = {
    "diagonal noise": (equation(["0.5*x", "0.4*y"]), [st.EulerMaruyama, st.Milstein, st.Platen, st.RI1]),
    "Stratonovich": (equation(["0.5*x", "0.4*y"], "stratonovich"), [st.Heun]),
    "additive noise": (equation(["0.5", "0.4"]), [st.EulerMaruyama, st.SRA1]),
    "kinetic equation": (st.KineticSDE(oracle, st.schedules.scaled(0.01, alpha=1.0)), [st.OBABO, st.BAOAB, st.UBU]),
}
figure, axes = st.plots.axes_for(2 * len(PROBLEMS), columns=2, size=(9.6, 14.0))
for i, (name, (sde, integrators)) in enumerate(PROBLEMS.items()):
    methods = {cls.__name__: lambda dt, cls=cls, sde=sde: cls(sde, dt) for cls in integrators}
    end = st.exact.solution(sde, [1.0, 0.5], times=[1.0])
    exact = float(end.mean[0, 0] ** 2 + end.covariance[0, 0, 0])
    weak = st.work_precision(methods, DTS, [1.0, 0.5], 1.0, PATHS, [f"{sde.names[0]}**2"], expected=exact)
    print(f"{name}\n{weak.table(seconds=False)}\n")
    weak.plot(ax=axes[2 * i])
    shared = {
        cls.__name__: methods[cls.__name__] for cls in integrators if cls(sde, 0.5).brownian and cls.strong_order is not None
    }
    if shared:
        fine = next(cls for cls in reversed(integrators) if cls.__name__ in shared)(sde, 2**-10)
        strong = st.work_precision(shared, DTS, [1.0, 0.5], 1.0, 20_000, reference=fine, strong=True)
        print(f"{strong.table(seconds=False)}\n")
        strong.plot(ax=axes[2 * i + 1], seconds=True)
    axes[2 * i].set_title(name)

target = Path("work_precision.svg")
figure.savefig(target)
print("wrote", target)
