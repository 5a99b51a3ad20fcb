"""SVAG around your own training loop: the difference between SGD and SGDM at constant noise and decreasing step size.

At l = 1 both train as usual, at one learning rate in the form of Def. 2.3. As l grows, the steps become l times smaller, the noise stays
that of the SDE, and the two converge.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import sdetools as st

digits = load_digits()
x, y = torch.as_tensor(digits.data / 16, dtype=torch.float32), torch.as_tensor(digits.target)
batches = st.bridge.Batches((x, y), 64)


def final_loss(l, momentum, seed, steps=60, lr=1.0):
    """Train under SVAG for `steps` steps of SGD and return the final training loss."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    if momentum:
        optimiser = st.bridge.SGDM(model.parameters(), lr=lr, momentum=momentum)
    else:
        optimiser = st.bridge.SGD(model.parameters(), lr=lr)
    svag = st.bridge.SVAG(optimiser, l)
    for k in range(l * steps):
        optimiser.zero_grad()
        svag.backward(
            lambda batch: cross_entropy(model(batch[0]), batch[1]), batches.at(seed, 2 * k), batches.at(seed, 2 * k + 1)
        )
        optimiser.step()
    with torch.no_grad():
        return float(cross_entropy(model(x), y))


if __name__ == "__main__":
    for l in (1, 4, 16):
        runs = torch.tensor([[final_loss(l, momentum, seed) for seed in range(3)] for momentum in (0.0, 0.9)])
        print(f"l = {l:2}: SGD {runs[0].mean():.3f}, SGDM {runs[1].mean():.3f}, apart {(runs[0] - runs[1]).abs().mean():.3f}")
