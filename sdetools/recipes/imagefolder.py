"""Images in one folder per class, as in ImageNet: `train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`.

Files are decoded by Pillow in a thread pool. Crops and flips are functions of (seed, batch, place in the batch), so that a resumed run sees the
same pixels. A piece is one of several equal parts of a batch.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdetools.bridge.batches import Batches
from sdetools.recipes.datasets import MissingData, batch_piece
from sdetools.recipes.processes import own_share

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The customary mean and standard deviation of ImageNet's channels."""


@dataclass(frozen=True)
class Folder:
    """Image files with labels.

    Attributes:
        files: The paths of the n files.
        labels: The class index of each file, int64 `(n,)`.
        names: The names of the classes; a class index is a position in them.
    """

    files: Sequence[Path]
    labels: torch.Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.names)

    def subset(self, index: torch.Tensor) -> Folder:
        """Return the images with the indices `index`, an integer tensor `(m,)`, in this order; the classes are the same."""
        return Folder([self.files[i] for i in index.tolist()], self.labels[index], self.names)


def of_sizes(n: int, classes: int) -> Folder:
    """Return `n` images without files, all of class 0 of `classes`, which stand for a data set of this size where only numbers are asked for."""
    return Folder([Path()] * n, torch.zeros(n, dtype=torch.long), tuple(map(str, range(classes))))


def folders(root: str | Path) -> tuple[Folder, Folder]:
    """List the training and the test images below a folder, without reading them.

    Args:
        root: The folder that contains `train/` and `val/`, with the same classes.

    Returns:
        The training images (`train/`) and the test images (`val/`), in alphabetical order of classes and files.

    Raises:
        MissingData: If there are no class folders, or a class folder has no images.
        ValueError: If `train/` and `val/` have different classes.
    """
    parts = []
    for split in ("train", "val"):
        folder = Path(root) / split
        names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir())) if folder.is_dir() else ()
        if not names:
            raise MissingData(
                f"the images are missing: {folder} must have one folder per class. Unpack ImageNet (www.image-net.org) such that it "
                "contains train/n01440764/*.JPEG and val/n01440764/*.JPEG, or name its folder with --set data=FOLDER."
            )
        pairs = [(file, n) for n, name in enumerate(names) for file in _image_files(folder / name)]
        parts.append(Folder([file for file, _ in pairs], torch.tensor([n for _, n in pairs]), names))
    train, test = parts
    if train.names != test.names:
        unmatched = sorted(set(train.names) ^ set(test.names))
        raise ValueError(
            f"train/ and val/ in {root} must contain the same classes; {unmatched[0]!r} is in only one of them (of {len(unmatched)} such). "
            "ImageNet's validation images come in one folder: sort them into the classes' folders first."
        )
    return train, test


def _image_files(folder: Path) -> list[Path]:
    """Return the paths of the images in the folder of a class, in alphabetical order; MissingData if there are none."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise MissingData(
            f"a class has no images: {folder} contains no {', '.join(SUFFIXES)} file. Unpack it again, or remove it."
        )
    return files


def open_image(file: Path) -> Any:
    """Read an image file and return a Pillow image in RGB; ValueError if the file is not an image or cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{file} must be an image; reading it raised {type(error).__name__}: {error}") from error


def random_crop(image: Any, size: int, draws: np.random.Generator) -> Any:
    """Return a random crop, rescaled to `size` x `size` pixels and flipped with probability 1/2.

    The crop has 8 % to 100 % of the area and an aspect ratio from 3:4 to 4:3. If ten draws do not fit into the image, it is the central square.

    Args:
        image: A Pillow image.
        size: The side of the result, in pixels.
        draws: The random generator, which is advanced.

    Returns:
        A Pillow image.
    """
    from PIL import Image

    width, height = image.size
    for _ in range(10):
        area, ratio = width * height * draws.uniform(0.08, 1.0), math.exp(draws.uniform(-1, 1) * math.log(4 / 3))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(draws.integers(width - w + 1)), int(draws.integers(height - h + 1))
            break
    else:
        w = h = min(width, height)
        left, top = (width - w) // 2, (height - h) // 2
    out = image.crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BILINEAR)
    return out.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws.random() < 0.5 else out


def center_crop(image: Any, size: int) -> Any:
    """Return the central `size` x `size` pixels of a Pillow image, rescaled such that its shorter side has `size` * 8/7 pixels: 224 out of 256."""
    from PIL import Image

    width, height = image.size
    short = round(size * 8 / 7)
    w, h = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    left, top = round((w - size) / 2), round((h - size) / 2)
    return image.resize((w, h), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def normalised(image: Any) -> torch.Tensor:
    """Return the pixels of an RGB image, scaled to [0, 1] and normalised by `MEAN` and `STD` of each channel: float32 `(3, height, width)`."""
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class FolderBatches:
    """Normalised batches of random crops of a folder's images, each a function of (seed, number), decoded in advance.

    Batches are numbered 0, 1, ... through the epochs; an incomplete last batch of an epoch is dropped.

    Args:
        folder: The images.
        size: The batch size.
        seed: The seed of shuffles and crops.
        side: The side of a crop, in pixels.
        threads: The number of threads that decode images; all objects with this number share them.
        stride: The number of processes that share the pieces; each reads every `stride`-th piece, so that the next pieces are known.

    Attributes:
        batches: The batches of indices into the folder (`Batches`), with `per_epoch`.

    Raises:
        ValueError: If the batch size exceeds the number of images.
    """

    PREFETCHED = 2
    """The number of pieces decoded in advance."""

    def __init__(self, folder: Folder, size: int, seed: int, side: int = 224, threads: int = 4, stride: int = 1) -> None:
        self.folder, self.seed, self.side, self.stride = folder, seed, side, stride
        self.batches = Batches((torch.arange(len(folder)),), size)
        self._pool = _threads(threads)
        self._started: deque[tuple[tuple[int, int, int], list[Future[torch.Tensor]], torch.Tensor]] = deque()

    def at(self, number: int, piece: int = 0, pieces: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one of `pieces` equal parts of a batch, and start to decode the next ones.

        Args:
            number: The number of the batch, 0, 1, ... through the epochs.
            piece: The number of the part, 0 ... `pieces` - 1.
            pieces: The number of parts, which divides the batch size.

        Returns:
            The images, float32 `(n, 3, side, side)`, and their class indices, `(n,)`, with n = size / pieces.

        Raises:
            ValueError: If `pieces` does not divide the batch size, or if a file is not an image.
        """
        position = number * pieces + piece
        wanted = [(*divmod(position + i * self.stride, pieces), pieces) for i in range(self.PREFETCHED + 1)]
        while self._started and self._started[0][0] != wanted[0]:
            for waiting in self._started.popleft()[1]:
                waiting.cancel()
        for key in wanted[len(self._started) :]:
            self._started.append((key, *self._submit(*key)))
        _, images, labels = self._started.popleft()
        return torch.stack([image.result() for image in images]), labels

    def _submit(self, number: int, piece: int, pieces: int) -> tuple[list[Future[torch.Tensor]], torch.Tensor]:
        """Start to decode piece `piece` of `pieces` of batch `number`.

        Returns:
            One future per image, with the image `(3, side, side)` as its result, and the class indices `(n,)`.
        """
        (index,) = self.batches.at(self.seed, number)
        rows = batch_piece(torch.arange(len(index)), piece, pieces)
        return [self._pool.submit(self._load, number, int(i), int(index[i])) for i in rows], self.folder.labels[index[rows]]

    def _load(self, number: int, position: int, i: int) -> torch.Tensor:
        """Return a random crop of image `i` of the folder, normalised, `(3, side, side)`.

        Its draws depend only on the seed, the batch `number` and the `position` in the batch.
        """
        draws = np.random.default_rng((self.seed, number, position))
        return normalised(random_crop(open_image(self.folder.files[i]), self.side, draws))

    def evaluation_batches(self, folder: Folder, size: int = 100) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the central crops of the images of another folder, in order, `size` per batch; the last batch may be smaller.

        The processes of a group yield different batches, each one of them in exactly one process. A batch is a pair of normalised images, float32
        `(n, 3, side, side)`, and class indices `(n,)`.
        """
        for at in own_share(range(0, len(folder), size)):
            files = folder.files[at : at + size]
            yield (
                torch.stack(list(self._pool.map(lambda file: normalised(center_crop(open_image(file), self.side)), files))),
                folder.labels[at : at + size],
            )


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Return the thread pool of `count` threads that all runs of a process share."""
    return ThreadPoolExecutor(count)
