"""Training of many copies of a network at once: the seeds of a setting, with and without momentum, in one stack of parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from dropping_momentum.tasks import Task
from sdetools.bridge.curvature import lanczos
from sdetools.bridge.hessian_products import Derivatives
from sdetools.bridge.modules import Objective

PIECE = 1 << 25
"""The largest number of entries of an activation in evaluations, roughly: chains are evaluated in groups."""


def loss_function(task: Task) -> tuple[Tensor, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Return the parameters of the network, `(dim,)`, and the loss of parameters `(dim,)` on a batch."""
    names, params = zip(*task.net.named_parameters())
    sizes = [p.numel() for p in params]

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        own = {name: part.view(p.shape) for name, part, p in zip(names, flat.split(sizes), params)}
        return task.loss(functional_call(task.net, own, (x,)), y)

    return torch.cat([p.detach().ravel() for p in params]), loss


def sharpness(task: Task) -> tuple[float, int]:
    """Return the largest Hessian eigenvalue of the loss over all training data by Lanczos, and the number of Hessian products."""
    own = Derivatives(task.net, Objective(task.loss), task.train)
    product, count = own.linear(task.train), 0

    def counted(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return product(v)

    return lanczos(counted, own.direction(0)).value, count


def order(seed: int, steps: int, batch: int, samples: int) -> np.ndarray:
    """Return the samples of each batch, `(steps, batch)`: epochs without replacement, whose incomplete last batch is dropped."""
    rng, per_epoch = np.random.default_rng(seed), samples // batch
    epochs = [rng.permutation(samples)[: per_epoch * batch] for _ in range(-(-steps // per_epoch))]
    return np.concatenate(epochs).reshape(-1, batch)[:steps]


def train(
    task: Task, rates: Tensor, momenta: Tensor, orders: np.ndarray, looks: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Train one copy of the network for each method and seed by heavy-ball momentum, v' = beta v + g, x' = x - lr v'.

    Args:
        task: The network at its initialisation, and its data.
        rates: The learning rate of each method, `(methods,)`.
        momenta: beta of each method, `(methods,)`; 0 is plain SGD.
        orders: The samples of each batch, `(seeds, steps, batch)`.
        looks: The steps after which the loss over the training data is evaluated.

    Returns:
        The training losses `(methods, seeds, looks)`, and the test losses at the end `(methods, seeds)`.
    """
    start, loss = loss_function(task)
    methods, seeds = len(rates), len(orders)
    x, y = task.train
    index = torch.as_tensor(np.tile(orders.swapaxes(0, 1), (1, methods, 1)))
    lr, beta = (each.repeat_interleave(seeds)[:, None] for each in (rates, momenta))
    params = start.repeat(methods * seeds, 1).requires_grad_()
    buffer = torch.zeros_like(params)
    batched = torch.vmap(loss)
    losses = []
    for step in range(index.shape[0]):
        (gradient,) = torch.autograd.grad(batched(params, x[index[step]], y[index[step]]).sum(), params)
        with torch.no_grad():
            buffer.mul_(beta).add_(gradient)
            params.addcmul_(lr, buffer, value=-1)
        if step + 1 in looks:
            losses.append(evaluate(loss, params, task.train))
    test = evaluate(loss, params, task.test)
    return torch.stack(losses, dim=-1).reshape(methods, seeds, -1).numpy(), test.reshape(methods, seeds).numpy()


@torch.no_grad()
def evaluate(loss: Callable[[Tensor, Tensor, Tensor], Tensor], params: Tensor, data: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of each row of parameters over all data, `(rows,)`."""
    return torch.cat([torch.vmap(loss, in_dims=(0, None, None))(part, *data) for part in params.split(16)])
