"""A torch model of your own on the slow clock: its manifold of interpolating parameters, and the drift of label noise along it.

All derivatives are products with vectors; no Hessian is formed.

    python examples/own_torch_manifold.py
"""

import numpy as np
import torch

import sdetools as st

FEATURES, WIDTH, SAMPLES = 10, 200, 40
DIM = WIDTH * (FEATURES + 2)


def network(x, a):
    """Return f(x, a): one hidden layer of tanh, all parameters in one vector x."""
    w, b, v = x[: WIDTH * FEATURES].reshape(WIDTH, FEATURES), x[WIDTH * FEATURES : -WIDTH], x[-WIDTH:]
    return v @ torch.tanh(w @ a / FEATURES**0.5 + b) / WIDTH**0.5


rng = np.random.default_rng(0)
inputs = torch.as_tensor(rng.normal(size=(SAMPLES, FEATURES)))
targets = torch.sin(inputs[:, 0]) + 0.3 * inputs[:, 1]
loss = st.losses.from_torch_model(network, inputs, targets, dim=DIM)

x = st.manifold.retract(loss, rng.normal(size=DIM))
print(st.manifold.matrix_free(loss, x))

# Label noise of size delta on batches of B drives x along Gamma by -(c/4) P grad tr H dt, c = delta^2 / B, on the clock t = k eta^2.
dt, trace = 5.0, []
for _ in range(20):
    geometry = st.manifold.matrix_free(loss, x)
    trace.append(geometry.eigenvalues.sum())
    x = st.manifold.retract(loss, x + dt * geometry.slow_drift(hessian_multiple=1.0))
print(f"tr Hess L along the slow flow: {trace[0]:.3f} at first, {trace[-1]:.3f} at t = {dt * 19:g}")
assert trace[-1] < trace[0]
