"""A loss of your own on the slow clock: SGD and SGDM after 1/eta^2 steps, compared with the slow SDE, and a figure of it.

python examples/slow_motion.py
"""

from pathlib import Path

import sdetools as st

# The minimisers are the curve y = sin x; curvature across it grows with x.
loss = st.losses.from_expression("exp(x/2) * (y - sin(x))**2 / 2", variables="x y")
oracle = st.NoisyOracle(loss, st.noise.rademacher(dim=2))

point = st.manifold.project(loss, [1.0, 2.0])
geometry = st.manifold.at(loss, point)
print("the gradient flow from (1, 2) ends at", point.round(6), "where the Hessian has rank", geometry.rank)
print("the slow drift there is", geometry.slow_drift([[1.0, 0.0], [0.0, 1.0]]).round(4))

study = st.slow_study(oracle, st.schedules.constant(eta=0.05, beta=0.8), x0=[1.0, 2.0], horizon=0.5, paths=5_000)
print(study.table())

target = Path("slow_motion.svg")
study.plot_manifold().savefig(target)
print("wrote", target)
