"""What momentum is worth in Adam, and where Adam goes that SGD does not: two figures.

Writes adaptive_momentum.png and adaptive_manifold.png. Takes fifteen seconds, of which compilation takes half.
"""

import math

import numpy as np
from matplotlib.ticker import NullLocator
from scipy.integrate import quad

import sdetools as st
from sdetools import plots

# 1. Adam against RMSProp at the same rate on x^2/2, in the scaling sigma = .5/eta, eps = .2/eta, 1 - beta2 = h, v_0 = 2.5 sigma^2, where a step takes the time
# h = eta^2. u = v / sigma^2 is then a number that moves by itself, and to first order the means at time 2 differ by kappa A + h beta1 B, kappa = h beta1/(1 - beta1).
SIGMA, EPS, U0, T = 0.5, 0.2, 2.5, 2.0


def method(kind, h, beta):
    """Return Adam or RMSProp with beta1 = beta, whose steps take the time h."""
    eta = math.sqrt(h)
    oracle = st.NoisyOracle(st.losses.quadratic([1.0]), st.noise.gaussian(dim=1), sigma=SIGMA / eta)
    plan = st.schedules.constant(eta, beta)
    more = {"lagged": True, "bias_correction": False, "second_moment": U0 * oracle.sigma**2, "step_time": h}
    return kind(oracle, plan, beta2=1 - h, eps=EPS / eta, **more)


def difference(h, beta, paths=200_000):
    """Return the mean of Adam less that of RMSProp at time 2, on the same draws."""
    pair = method(st.Adam, h, beta), method(st.RMSProp, h, 0.0)
    return st.weak_gap(*pair, [1.0], T, observe=["x0"], times=[T], paths=paths).at("x0")


def integral(f):
    """Return the integral of f(u, P) over time, with u(t) and the denominator P = SIGMA u^(1/2) + EPS."""
    u = lambda t: 1 + (U0 - 1) * math.exp(-t)  # noqa: E731
    return quad(lambda t: f(u(t), SIGMA * u(t) ** 0.5 + EPS), 0, T)[0]


mean = math.exp(-integral(lambda u, P: 1 / P))
A = mean * (1 / (SIGMA * U0**0.5 + EPS) - integral(lambda u, P: P**-2))
B = mean * SIGMA * integral(lambda u, P: u**-0.5 * P**-2)


def law(h, beta):
    """Return the difference of the means to first order."""
    return h * beta / (1 - beta) * A + h * beta * B


steps = [0.1, 0.05, 0.025, 0.0125]
fixed = {rf"$\beta_1 = {beta}$": beta for beta in (0.5, 0.8, 0.9)}
found = {name: [difference(h, beta) for h in steps] for name, beta in fixed.items()}
for name, beta in fixed.items():
    order = math.log2(found[name][-2].value / found[name][-1].value)
    ratio = ", ".join(f"{gap.value / law(h, beta):.3f}" for gap, h in zip(found[name], steps))
    print(f"beta_1 = {beta}: order {order:.2f} in h at last; measured over the law at h = {', '.join(map(str, steps))}: {ratio}")
found[r"$1 - \beta_1 = 2h$"] = [difference(h, 1 - 2 * h) for h in steps]
print("1 - beta_1 = 2h:", ", ".join(f"{gap.value:.3f}" for gap in found[r"$1 - \beta_1 = 2h$"]), "does not vanish")
figure, (left, right) = plots.axes_for(2, size=(10.0, 4.2))
plots.loglog_orders(
    steps,
    {name: [-gap.value for gap in gaps] for name, gaps in found.items()},
    {name: [-gap.high for gap in gaps] for name, gaps in found.items()},
    {name: [-gap.low for gap in gaps] for name, gaps in found.items()},
    slopes=(1.0,),
    xlabel=r"$h = \eta^2$, the time of a step",
    ylabel=r"$E\,x$ of RMSProp less that of Adam",
    title=r"Order 1 at a fixed $\beta_1$, and none where it grows with $1/h$",
    ax=left,
)
for i, beta in enumerate(fixed.values()):
    left.plot(
        steps,
        [-law(h, beta) for h in steps],
        "--",
        color=plots.COLOURS[i],
        lw=1,
        label=None if i else r"$-(\kappa A + h \beta_1 B)$",
    )
left.set_xticks(steps, [f"{h:g}" for h in steps])
left.xaxis.set_minor_locator(NullLocator())
left.legend(frameon=False, fontsize=8, loc="lower right")
betas, fine = np.array([0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9]), np.linspace(0, 0.92, 100)
for i, h in enumerate((0.05, 0.0125)):
    gaps = [difference(h, beta, 100_000) for beta in betas]
    spread = np.array([[(gap.value - gap.low) / h, (gap.high - gap.value) / h] for gap in gaps]).T
    right.errorbar(
        betas, [-gap.value / h for gap in gaps], spread, fmt=plots.MARKERS[i], color=plots.COLOURS[i], ms=5, label=f"h = {h:g}"
    )
right.plot(fine, -law(1.0, fine), "--", color=plots.INK, label=r"the law, $h \to 0$")
plots.finish(right, r"$\beta_1$", "difference over h", r"What $\beta_1$ is worth at a given rate", legend=True)
figure.savefig("adaptive_momentum.png", dpi=150)

# 2. On (x^2 y - 1)^2/2 with label noise SGD moves along the minimisers y = x^-2 to x = 2^(1/6), where the trace of the Hessian is least, and Adam to x = 1,
# where that of the root of its diagonal is. Time is eta^2 k on both.
NOISE, C, START, END, eta = 0.5, 4.0, 1.06, 6.0, 0.01
loss = st.losses.from_expression("(x**2*y - 1)**2 / 2", variables="x y")
oracle = st.NoisyOracle(loss, st.noise.label_noise(model=["x**2*y"], std=1.0, variables="x y"), sigma=NOISE)
x0 = [START, START**-2]
start = {"second_moment": NOISE**2 * np.array([4 / START**2, START**4]), "bias_correction": False, "eps": 1e-12}
plan = st.schedules.constant(eta)
slow = {
    "SGD": st.SlowSDE(oracle, plan, at=x0),
    "Adam": st.AdaptiveSlowFlow(oracle, plan, beta2=1 - C * eta**2, eps=0.0, at=x0),
}
methods = {
    "SGD": st.SGD(oracle, plan, step_time=eta**2),
    "Adam": st.Adam(oracle, st.schedules.constant(eta, 0.9), beta2=1 - C * eta**2, step_time=eta**2, **start),
}
times, colours = np.linspace(0, END, 41), (plots.INK, plots.COLOURS[0])
figure, (left, right) = plots.axes_for(2, size=(10.0, 4.2))
paths = {}
for i, (name, one) in enumerate(methods.items()):
    run = st.simulate(one, x0, END, 400, ["x"], times=times, trajectories=3)
    flow = st.simulate(st.Platen(slow[name], 0.05), x0, END, 2, ["x"], times=times, backend="numpy")
    paths[name] = run.trajectories.values[:, :, 0, :].transpose(2, 1, 0)
    means, spread = run.data["mean"].values[:, 0], 1.96 * run.data["stderr"].values[:, 0]
    right.fill_between(times, means - spread, means + spread, color=colours[i], alpha=0.25, lw=0)
    right.plot(times, means, color=colours[i], label=f"{name}, mean of 400 paths")
    right.plot(times, flow.data["mean"].values[:, 0], "--", color=colours[i], label=f"its slow flow, to {('$2^{1/6}$', '1')[i]}")
    print(f"{name}: x({END:g}) = {means[-1]:.4f} +- {spread[-1]:.4f}, its flow {float(flow.data['mean'].values[-1, 0]):.4f}")
for rest in (2 ** (1 / 6), 1.0):
    right.axhline(rest, color=plots.FAINT, lw=0.8, linestyle=":")
plots.finish(right, r"time $\eta^2 k$", r"$E\,x$", "They part on the minimisers", legend=True)
curve = np.linspace(0.8, 1.4, 400)
plots.manifold_plot(loss, paths, np.stack([curve, curve**-2]), np.array(x0), ax=left)
left.set_title("Three paths of each", fontsize=11, loc="left", color=plots.INK)
figure.savefig("adaptive_manifold.png", dpi=150)
print("wrote adaptive_momentum.png and adaptive_manifold.png")
