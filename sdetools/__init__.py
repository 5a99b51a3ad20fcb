"""pytest for theorems about stochastic optimisation: simulate optimisers over very many paths, and measure how close they are.

>>> import sdetools as st
>>> loss = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
>>> oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=2), sigma=0.01**-0.5)
>>> plan = st.schedules.constant(eta=0.01, beta=0.9)
>>> gap = st.weak_gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), x0=[2.0, 0.5], horizon=0.1, paths=5_000, observe=["x**2 + y**2"])
>>> gap.paths
5000
"""

from __future__ import annotations

from sdetools._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
