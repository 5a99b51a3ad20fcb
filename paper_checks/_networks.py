"""Small networks on real digits for the diagnosis of momentum. `SETTINGS` was fixed before any of its runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

STEPS = 1000
"""Length of the complete runs that serve as ground truth for a diagnosis."""


class Setting(NamedTuple):
    """A run with momentum 0.9 in torch's form; `lr` is torch's learning rate."""

    network: str
    batch: int
    lr: float


SETTINGS = (
    Setting("softmax", 8, 0.01), Setting("softmax", 8, 0.1), Setting("softmax", 8, 1.0),
    Setting("tanh", 64, 0.01), Setting("tanh", 64, 0.2), Setting("tanh", 64, 0.5),
    Setting("convolutions", 128, 0.01), Setting("convolutions", 128, 0.2), Setting("convolutions", 128, 0.5),
    Setting("residual", 32, 0.01), Setting("residual", 32, 0.1), Setting("residual", 32, 0.5),
)  # fmt: skip


@lru_cache(maxsize=2)
def digits(flat: bool) -> Any:
    """Return training and test digits: 8 x 8 in rows of 64 numbers, or 14 x 14 as images."""
    import torch

    if not flat:
        from sdetools.recipes.vision import ImageBatches, mnist_5k

        train, test = (part.downsampled(2) for part in mnist_5k())
        normalise = ImageBatches(train, 1, 0).normalise
        return [(normalise(part.images), part.labels) for part in (train, test)]
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = torch.randperm(len(raw.data), generator=torch.Generator().manual_seed(0))
    x, y = torch.as_tensor(raw.data / 16, dtype=torch.float32)[order], torch.as_tensor(raw.target)[order]
    return [(x[:1400], y[:1400]), (x[1400:], y[1400:])]


def network(name: str) -> tuple[Any, Any, Any]:
    """Return a network at its initialisation, and its training and test digits."""
    import torch
    from torch import nn

    from sdetools.recipes.networks import SmallResNet

    makers: dict[str, Callable[[], nn.Module]] = {
        "softmax": lambda: nn.Linear(64, 10),
        "tanh": lambda: nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)),
        "convolutions": lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
        ),
        "residual": lambda: SmallResNet(blocks=1, width=4, channels=1),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return makers[name](), *digits(name in ("softmax", "tanh"))


def complete_run(setting: Setting, method: str, seed: int) -> Any:
    """Return a run of `STEPS` steps from the network's initialisation, with momentum or with plain SGD at the equivalent learning rate."""
    from torch.nn import functional as F

    from sdetools.bridge import SGD, Batches, HeavyBall, convert
    from sdetools.recipes.training import TrainingTask

    model, train, test = network(setting.network)
    if method == "SGD":
        optimiser = SGD(model.parameters(), lr=convert(setting.lr, 0.9, source="heavy-ball", target="sgd")["lr"])
    else:
        optimiser = HeavyBall(model.parameters(), lr=setting.lr, momentum=0.9)
    batches = Batches(train, setting.batch)
    return TrainingTask(
        model, optimiser, STEPS, lambda k, piece, pieces: batches.at(seed, k),
        loss_of=lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]), evaluate=partial(test_loss, data=test), every=STEPS,
    )  # fmt: skip


def test_loss(model: Any, data: Any) -> dict[str, float]:
    """Return the loss on digits that no run trains on."""
    import torch
    from torch.nn import functional as F

    with torch.no_grad():
        return {"test_loss": float(F.cross_entropy(model(data[0]), data[1]))}
