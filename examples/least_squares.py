"""Where momentum is worth something on least squares: exact risks, the batch size from which it gains, and where it may be dropped.

No number here is simulated. Writes least_squares_risk.png, least_squares_batches.png and least_squares_dropping.png. Takes ten seconds.
"""

import numpy as np

import sdetools as st
from sdetools import exact, plots

# 1. Eigenvalues j^-2, targets j^-0.3: the risk falls as t^-0.8 with a fixed memory and faster with a memory that grows with the run.
law, eta, steps = exact.power_law(100_000, a=1.0, b=0.3), 0.2, 10_000
oracle = st.streaming_least_squares(law.values, law.label_noise, batch=16)
plan = st.schedules.constant(eta)
rules = {
    "SGD": st.SGD(oracle, plan),
    "SGDM, beta = 0.9": st.SGDM(oracle, st.schedules.constant(eta, beta=0.9)),
    "DANA within a noise budget": st.DANA(oracle, plan, share=0.25),
}
record = np.unique(np.geomspace(1, steps, 120).astype(int))
risks = {name: exact.risk(rule, law.distance, steps, record) for name, rule in rules.items()}
for name, one in risks.items():
    tail = np.log(one.risk[-1] / one.at(int(record[80]))) / np.log(record[-1] / record[80])
    print(f"{name}: risk {one.risk[-1]:.3g} at step {steps}, falling as t^{tail:.2f}")
axes = plots.risk_curves(
    record, {name: one.risk for name, one in risks.items()}, slopes=[-0.8, -1.2], title="Exact risk, batch 16"
)
axes.figure.savefig("least_squares_risk.png", dpi=150)

# 2. The speed-up by the best momentum over the best SGD, for three spectra of one condition number: nearly one function of B / B*.
kappa, dim = 400.0, 16
spectra = {
    "power law": np.arange(1.0, dim + 1) ** -(np.log(kappa) / np.log(dim)),
    "equal ratios": np.geomspace(1, 1 / kappa, dim),
    "two bulks": exact.two_bulks((4, 12), kappa).values,
}
curves, scales = {}, {}
for name, lam in spectra.items():
    threshold = exact.batch_threshold(lam).threshold
    batches = np.unique(np.maximum(1, np.round(threshold * 5.0 ** np.arange(-2, 3))).astype(int))
    rates = [[exact.best(lam, int(B), momentum).rate for momentum in (True, False)] for B in batches]
    gain = np.array([np.log(fast) / np.log(slow) for fast, slow in rates])
    curves[name], scales[name] = (batches, gain), (threshold, kappa**0.5)
    print(f"{name}: B* = {threshold:.3g}, speed-up {gain[0]:.2f} at B = {batches[0]} and {gain[-1]:.1f} at B = {batches[-1]}")
left, _ = plots.collapse_panels(
    curves,
    scales,
    labels=("batch size B (rows)", "speed-up by momentum (ratio of steps)"),
    scaled_labels=(r"$B / B^*$", r"speed-up / $\sqrt{\kappa}$"),
)
left.figure.savefig("least_squares_batches.png", dpi=150)

# 3. Where the rule says that SGDM with beta = 0.9 may be replaced by SGD at the same rate h, up to 5 % in log risk.
noisy = exact.power_law(100, a=1.0, b=0.5, label_noise=10.0)
batches, rates = np.unique(np.geomspace(1, 1024, 21).round().astype(int)), np.geomspace(1e-4, 3, 33)
bound = exact.dropping_diagram(noisy, batches, rates, beta=0.9, steps=2_000)
axes = plots.phase_diagram(rates, batches, bound, level=0.05, label="bound on |log ratio of risks|", blank="plain SGD unstable")
axes.figure.savefig("least_squares_dropping.png", dpi=150)
for B in (1, 1024):
    safe = rates[bound[list(batches).index(B)] <= 0.05]
    print(f"batch {B}: momentum may be dropped up to h = {safe.max():.2g}")
