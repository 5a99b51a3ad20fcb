"""The weak gap between SGDM and SGD on a network of your own, with the noise of its minibatches, at three learning rates.

The network is small and its data real. All of the weak-gap machinery applies: many paths at once, shared batches, intervals.
"""

import torch
from sklearn.datasets import load_diabetes

import sdetools as st

raw = load_diabetes()
x = torch.as_tensor(raw.data[:64, :3] * 20)
y = torch.as_tensor((raw.target[:64, None] - 150) / 80)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
loss = st.bridge.loss_of_module(model, torch.nn.functional.mse_loss, x, y)
oracle = st.NoisyOracle(loss, st.noise.minibatch(loss, size=4))


def pair(eta):
    """Return SGDM and SGD at the learning rate `eta`."""
    plan = st.schedules.constant(eta=eta, beta=0.8)
    return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())


if __name__ == "__main__":
    study = st.order_study(pair, etas=[0.2, 0.1, 0.05], x0=loss.start, horizon=1.0, paths=2000, observe=["x0", "x12**2"])
    print(study.table())
