"""The networks and data of the labels: 26 small tasks, each a function of its name and a seed.

A task is a network with a loss and at most 1,024 training samples: digits of scikit-learn, or data of a seeded teacher. Networks run under `torch.vmap` with
one set of parameters for each run, so that recurrent cells and attention are written out, and batch normalisation uses the statistics of its batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TRAIN, TEST = 1024, 512
"""Samples for training and for testing."""


@dataclass(frozen=True)
class Task:
    """A network at its initialisation, the loss of its output, and its data."""

    net: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Attention(nn.Module):
    """Self-attention with one head over `(batch, tokens, width)`, with or without a causal mask."""

    def __init__(self, width: int, causal: bool = False) -> None:
        super().__init__()
        self.mixed, self.out, self.causal = nn.Linear(width, 3 * width), nn.Linear(width, width), causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mixed(x).chunk(3, dim=-1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(x.shape[-1])
        if self.causal:
            scores = scores + torch.full(scores.shape[-2:], -1e9).triu(1)
        return self.out(scores.softmax(dim=-1) @ v)


class Positions(nn.Module):
    """x + a trainable vector for each token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.1 * torch.randn(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class Rows(nn.Module):
    """The final state of a recurrent cell over `(batch, steps, features)`: Elman's with tanh, gated ("gru") or long short-term memory ("lstm")."""

    def __init__(self, features: int, width: int, cell: str = "elman") -> None:
        super().__init__()
        gates = {"elman": 1, "gru": 3, "lstm": 4}[cell]
        self.width, self.cell = width, cell
        self.input, self.state = nn.Linear(features, gates * width), nn.Linear(width, gates * width)

    def forward(self, x: Tensor) -> Tensor:
        outside = self.input(x)
        h = c = torch.zeros_like(outside[:, 0, : self.width])
        for step in range(x.shape[1]):
            a, b = outside[:, step], self.state(h)
            if self.cell == "elman":
                h = torch.tanh(a + b)
            elif self.cell == "gru":
                (ar, az, an), (br, bz, bn) = a.chunk(3, dim=-1), b.chunk(3, dim=-1)
                z = torch.sigmoid(az + bz)
                h = (1 - z) * torch.tanh(an + torch.sigmoid(ar + br) * bn) + z * h
            else:
                i, f, g, o = (a + b).chunk(4, dim=-1)
                c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
        return h


class Shape(nn.Module):
    """Each sample with another shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)


class Patches(nn.Module):
    """Images of 8 x 8 in four patches of 4 x 4, as tokens `(batch, 4, 16)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2, 4, 2, 4).transpose(2, 3).reshape(-1, 4, 16)


class Mean(nn.Module):
    """The mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class Last(nn.Module):
    """The last token."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


class Tied(nn.Module):
    """An autoencoder whose decoder is the transpose of its encoder: a shared parameter."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, features) / math.sqrt(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight.T) @ self.weight + self.bias


class Pairs(nn.Module):
    """A factorisation of a matrix: the inner product of the embeddings of a row and a column, plus a bias for each."""

    def __init__(self, rows: int, columns: int, width: int) -> None:
        super().__init__()
        self.rows, self.columns = nn.Embedding(rows, width), nn.Embedding(columns, width)
        self.biases = nn.Embedding(columns, 1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.rows(x[:, 0]), self.columns(x[:, 1])
        return ((u * v).sum(dim=-1) + self.biases(x[:, 1]).squeeze(-1)) / math.sqrt(u.shape[-1])


def layers(*widths: int, act: Callable[[], nn.Module] = nn.ReLU, norm: Callable[[int], nn.Module] | None = None) -> nn.Sequential:
    """Return a fully connected network with these widths, with `norm` and `act` between its layers."""
    body: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        if body:
            body += [norm(before), act()] if norm else [act()]
        body.append(nn.Linear(before, after))
    return nn.Sequential(*body)


class Convolution(nn.Module):
    """A convolution of images `(batch, channels, size * size)` with kernels of 3 x 3 and zeros around, as a product with a matrix.

    Images here have at most 64 pixels: one product is several times faster than convolutions of a stack of networks.
    """

    def __init__(self, before: int, after: int, size: int, stride: int = 1) -> None:
        super().__init__()
        own = nn.Conv2d(before, after, 3, stride, 1)
        self.weight, self.bias = own.weight, own.bias
        delta = torch.eye(9).reshape(9, 1, 3, 3)
        pixels = torch.eye(size * size).reshape(-1, 1, size, size)
        self.places = F.conv2d(pixels, delta, stride=stride, padding=1).permute(1, 2, 3, 0).reshape(9, -1)  # (9, out * in)

    def forward(self, x: Tensor) -> Tensor:
        after, before = self.weight.shape[:2]
        matrix = (self.weight.reshape(after * before, 9) @ self.places).reshape(after, before, -1, x.shape[-1])
        matrix = matrix.transpose(1, 2).reshape(-1, before * x.shape[-1])
        return F.linear(x.flatten(1), matrix).reshape(len(x), after, -1) + self.bias[:, None]


class Normalised(nn.Module):
    """Batch normalisation of channels `(batch, channels, pixels)` by the statistics of the batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(0, 2), correction=0)
        scale = self.weight * torch.rsqrt(variance + 1e-5)
        return x * scale[:, None] + (self.bias - mean * scale)[:, None]


def block(width: int, norm: bool) -> nn.Module:
    """Return a residual block of two convolutions over images of 4 x 4, with or without batch normalisation."""
    after = lambda: [Normalised(width)] if norm else []  # noqa: E731
    return Residual(Convolution(width, width, 4), *after(), nn.ReLU(), Convolution(width, width, 4), *after())


@lru_cache
def digits() -> tuple[Tensor, Tensor]:
    """Return the digits of scikit-learn, `(samples, 64)` in [-1, 1] and labels, in an order of their own."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = torch.randperm(len(raw.data), generator=torch.Generator().manual_seed(0))
    return torch.as_tensor(raw.data / 8 - 1, dtype=torch.float32)[order], torch.as_tensor(raw.target)[order]


def rows_of_digits(wrong: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return digits; a share `wrong` of the labels is random."""
    x, y = digits()
    x, y = x[: TRAIN + TEST], y[: TRAIN + TEST]
    return x, torch.where(torch.rand(len(y)) < wrong, torch.randint(10, y.shape), y)


def gaussian(features: int, power: float) -> Tensor:
    """Return Gaussian rows whose coordinate j has the standard deviation j^(-power)."""
    return torch.randn(TRAIN + TEST, features) * torch.arange(1, features + 1).float() ** -power


def taught(x: Tensor, teacher: nn.Module, noise: float, classes: bool = False) -> tuple[Tensor, Tensor]:
    """Return rows with the outputs of a teacher, of variance one, plus noise; or with labels drawn from its softmax."""
    with torch.no_grad():
        out = teacher(x)
    if classes:
        return x, torch.distributions.Categorical(logits=3 * out / out.std()).sample()
    return x, out / out.std() + noise * torch.randn_like(out)


def sequences(symbols: int, length: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Return sequences of a random Markov chain, `(samples, length)`, and the number of the symbol that follows."""
    moves = 2 * torch.randn(symbols, symbols)
    chain = [torch.randint(symbols, (tokens,))]
    for _ in range(length):
        chain.append(torch.distributions.Categorical(logits=moves[chain[-1]]).sample())
    rows = torch.stack(chain, dim=1)
    return rows[:, :-1], rows[:, -1]


def marked(classes: int) -> tuple[Tensor, Tensor]:
    """Return series of 6 steps with 2 features, noise and a marker, and the class of the noise at the marked step: a task of memory."""
    noise, at = torch.rand(TRAIN + TEST, 6), torch.randint(6, (TRAIN + TEST,))
    chosen = noise.gather(1, at[:, None])[:, 0]
    return torch.stack([2 * noise - 1, F.one_hot(at, 6).float()], dim=-1), (chosen * classes).long().clamp(max=classes - 1)


def mean_square(out: Tensor, y: Tensor) -> Tensor:
    """Return half the mean squared error."""
    return 0.5 * ((out.reshape(y.shape) - y) ** 2).mean()


def one_hot_square(out: Tensor, y: Tensor) -> Tensor:
    """Return half the squared distance to the one-hot label, the mean over samples."""
    return 0.5 * ((out - F.one_hot(y, 10)) ** 2).sum(dim=-1).mean()


def sines() -> tuple[Tensor, Tensor]:
    """Return Gaussian rows and the sum of the sines of four coordinates, with noise."""
    x = gaussian(8, 0.2)
    return x, torch.sin(2 * x[:, :4]).sum(dim=1, keepdim=True) + 0.1 * torch.randn(len(x), 1)


def words_of_topics() -> tuple[Tensor, Tensor]:
    """Return 12 words of 60, drawn from one of six topics, and the topic."""
    topic = torch.randint(6, (TRAIN + TEST,))
    logits = 1.2 * torch.randn(6, 60)
    return torch.distributions.Categorical(logits=logits[topic]).sample((12,)).T.contiguous(), topic


def ratings() -> tuple[Tensor, Tensor]:
    """Return pairs of 40 rows and 30 columns with the entries of a noisy matrix of rank 3."""
    at = torch.stack([torch.randint(40, (TRAIN + TEST,)), torch.randint(30, (TRAIN + TEST,))], dim=1)
    matrix = torch.randn(40, 3) @ torch.randn(3, 30) / math.sqrt(3)
    return at, matrix[at[:, 0], at[:, 1]] + 0.3 * torch.randn(len(at))


def images(*body: nn.Module) -> nn.Sequential:
    """Return a network over digits as images `(batch, 1, 64)`."""
    return nn.Sequential(Shape(1, 64), *body)


def transformer(width: int, causal: bool = False) -> list[nn.Module]:
    """Return a transformer block, normalised before its attention and its two layers."""
    return [
        Residual(nn.LayerNorm(width), Attention(width, causal)),
        Residual(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)),
    ]


def itself(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the rows of `data` as their own targets."""
    return data[0], data[0]


Maker = tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], Callable[[Tensor, Tensor], Tensor]]
entropy = F.cross_entropy

# fmt: off
FITTED: dict[str, Maker] = {
    "linear": (lambda: nn.Linear(32, 1), lambda: taught(gaussian(32, 0.5), nn.Linear(32, 1), 0.3), mean_square),
    "softmax": (lambda: nn.Linear(64, 10), rows_of_digits, entropy),
    "tanh": (lambda: layers(64, 32, 32, 10, act=nn.Tanh), rows_of_digits, entropy),
    "relu": (lambda: layers(64, 32, 32, 10), rows_of_digits, entropy),
    "relu regression": (lambda: layers(16, 48, 1), lambda: taught(gaussian(16, 0.5), layers(16, 24, 1), 0.1), mean_square),
    "deep tanh regression": (
        lambda: layers(12, 24, 24, 24, 24, 1, act=nn.Tanh),
        lambda: taught(gaussian(12, 0.3), layers(12, 16, 1, act=nn.Tanh), 0.2), mean_square,
    ),
    "deep linear": (
        lambda: layers(20, 20, 20, 5, act=nn.Identity), lambda: taught(gaussian(20, 0.5), nn.Linear(20, 5), 0.1), mean_square,
    ),
    "convolutions": (
        lambda: images(
            Convolution(1, 8, 8, 2), nn.ReLU(), Convolution(8, 16, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
        ), rows_of_digits, entropy,
    ),
    "residual": (
        lambda: images(Convolution(1, 4, 8, 2), block(4, False), nn.ReLU(), block(4, False), nn.Flatten(), nn.Linear(64, 10)),
        rows_of_digits, entropy,
    ),
    "residual, batch norm": (
        lambda: images(Convolution(1, 4, 8, 2), block(4, True), nn.Flatten(), nn.Linear(64, 10)), rows_of_digits, entropy,
    ),
    "attention": (
        lambda: nn.Sequential(Patches(), nn.Linear(16, 12), Positions(4, 12), *transformer(12), Mean(), nn.Linear(12, 10)),
        rows_of_digits, entropy,
    ),
    "bag of words": (lambda: nn.Sequential(nn.Embedding(60, 16), Mean(), nn.Linear(16, 6)), words_of_topics, entropy),
    "recurrent": (lambda: nn.Sequential(Shape(8, 8), Rows(8, 16), nn.Linear(16, 10)), rows_of_digits, entropy),
    "gated recurrent, memory": (lambda: nn.Sequential(Rows(2, 12, "gru"), nn.Linear(12, 4)), lambda: marked(4), entropy),
    "autoencoder": (lambda: layers(64, 24, 8, 24, 64, act=nn.Tanh), lambda: itself(rows_of_digits()), mean_square),
    "layer norm, noisy labels": (lambda: layers(64, 32, 32, 10, norm=nn.LayerNorm), lambda: rows_of_digits(0.2), entropy),
    "next symbol": (
        lambda: nn.Sequential(nn.Embedding(20, 12), nn.Flatten(), *layers(72, 32, 20)),
        lambda: sequences(20, 6, TRAIN + TEST), entropy,
    ),
}
"""Networks of the first two thirds of the settings, to which the coefficients are fitted: how to make one, its data, its loss."""

UNSEEN: dict[str, Maker] = {
    "logistic": (lambda: nn.Linear(24, 2), lambda: taught(gaussian(24, 0.4), nn.Linear(24, 2), 0.0, classes=True), entropy),
    "sines": (lambda: layers(8, 32, 32, 1, act=nn.SiLU), sines, mean_square),
    "gelu": (lambda: layers(64, 40, 20, 10, act=nn.GELU), rows_of_digits, entropy),
    "convolutions, squared": (
        lambda: images(
            Convolution(1, 8, 8, 2), nn.Tanh(), Convolution(8, 12, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(48, 10)
        ), rows_of_digits, one_hot_square,
    ),
    "convolutions, batch norm": (
        lambda: images(
            Convolution(1, 8, 8, 2), Normalised(8), nn.ReLU(), Convolution(8, 8, 4, 2), Normalised(8), nn.ReLU(),
            nn.Flatten(), nn.Linear(32, 10),
        ), rows_of_digits, entropy,
    ),
    "language model": (
        lambda: nn.Sequential(nn.Embedding(16, 12), Positions(5, 12), *transformer(12, True), Last(), nn.Linear(12, 16)),
        lambda: sequences(16, 5, TRAIN + TEST), entropy,
    ),
    "long short-term memory": (
        lambda: nn.Sequential(Shape(8, 8), Rows(8, 12, "lstm"), nn.Linear(12, 10)), rows_of_digits, entropy,
    ),
    "ratings": (lambda: Pairs(40, 30, 4), ratings, mean_square),
    "tied autoencoder": (lambda: Tied(64, 12), lambda: itself(rows_of_digits()), mean_square),
}
"""Networks of the last third of the settings, run after the coefficients were frozen."""
# fmt: on

TASKS = FITTED | UNSEEN


def task(name: str, seed: int) -> Task:
    """Return the task `name`: its data are always the same, the parameters of its network depend on `seed`."""
    net, data, loss = TASKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(sum(name.encode()))
        x, y = data()
        torch.manual_seed(seed)
        return Task(net(), loss, (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:]))
