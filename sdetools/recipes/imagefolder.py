"""Pictures in folders, one a class: ImageNet as it is unpacked, `train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`.

Files are opened by Pillow in a few threads; which part of a picture is cut out, and whether it is turned, is a function of
(seed, batch, place), so that a run that goes on sees the same pixels.
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
from sdetools.recipes.datasets import MissingData, share

ENDINGS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, as everybody takes them."""


@dataclass(frozen=True)
class Folder:
    """Files and their classes, `(n,)` each."""

    files: Sequence[Path]
    labels: torch.Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> int:
        return len(self.names)

    def part(self, index: torch.Tensor) -> Folder:
        return Folder([self.files[i] for i in index.tolist()], self.labels[index], self.names)


def folders(place: str | Path) -> tuple[Folder, Folder]:
    """The training and the test pictures of `place`: `train/` and `val/`, with the same classes."""
    found = []
    for part in ("train", "val"):
        where = Path(place) / part
        names = tuple(sorted(p.name for p in where.iterdir() if p.is_dir())) if where.is_dir() else ()
        if not names:
            raise MissingData(
                f"the pictures are missing: {where} has no folders, one a class. Unpack ImageNet (www.image-net.org) so that it holds "
                "train/n01440764/*.JPEG and val/n01440764/*.JPEG, or name its folder with --set data=FOLDER."
            )
        pairs = [(file, n) for n, name in enumerate(names) for file in _pictures(where / name)]
        found.append(Folder([file for file, _ in pairs], torch.tensor([n for _, n in pairs]), names))
    train, test = found
    if train.names != test.names:
        odd = sorted(set(train.names) ^ set(test.names))
        raise ValueError(
            f"train/ and val/ in {place} must hold the same classes; {odd[0]!r} is in one of them only (of {len(odd)} such). "
            "ImageNet's validation pictures come in one folder: sort them into the classes' folders first."
        )
    return train, test


def _pictures(where: Path) -> list[Path]:
    files = sorted(file for file in where.iterdir() if file.suffix.lower() in ENDINGS)
    if not files:
        raise MissingData(f"a class without pictures: {where} holds no {', '.join(ENDINGS)} file. Unpack it again, or remove it.")
    return files


def opened(file: Path) -> Any:
    """A picture in three colours; ValueError where it is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{file} must be a picture; reading it raised {type(error).__name__}: {error}") from error


def random_part(picture: Any, size: int, draws: np.random.Generator) -> Any:
    """A part of 8 % to 100 % of the area with sides 3:4 to 4:3, scaled to `size` x `size`, turned in one case of two."""
    from PIL import Image

    width, height = picture.size
    for _ in range(10):
        area, ratio = width * height * draws.uniform(0.08, 1.0), math.exp(draws.uniform(-1, 1) * math.log(4 / 3))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(draws.integers(width - w + 1)), int(draws.integers(height - h + 1))
            break
    else:
        w = h = min(width, height)
        left, top = (width - w) // 2, (height - h) // 2
    out = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
    return out.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws.random() < 0.5 else out


def middle_part(picture: Any, size: int) -> Any:
    """The shorter side scaled to 8/7 of `size` (256 for 224), and of it the middle."""
    from PIL import Image

    width, height = picture.size
    side = min(width, height) * 7 / 8
    left, top = (width - side) / 2, (height - side) / 2
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def pixels(picture: Any) -> torch.Tensor:
    """Normalised, `(3, size, size)`."""
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class FolderBatches:
    """Normalised batches of random parts of a folder's pictures, each a function of (seed, number), decoded ahead of their use.

    `stride`: how many processes share the pieces, each asking for every `stride`-th.
    """

    AHEAD = 2

    def __init__(self, folder: Folder, size: int, seed: int, side: int = 224, threads: int = 4, stride: int = 1) -> None:
        self.folder, self.seed, self.side, self.stride = folder, seed, side, stride
        self.batches = Batches((torch.arange(len(folder)),), size)
        self._pool = _threads(threads)
        self._begun: deque[tuple[tuple[int, int, int], list[Future[torch.Tensor]], torch.Tensor]] = deque()

    def at(self, number: int, piece: int = 0, pieces: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Piece of batch number; those that a run asks for next are begun."""
        place = number * pieces + piece
        wanted = [(*divmod(place + i * self.stride, pieces), pieces) for i in range(self.AHEAD + 1)]
        while self._begun and self._begun[0][0] != wanted[0]:
            for waiting in self._begun.popleft()[1]:
                waiting.cancel()
        for key in wanted[len(self._begun) :]:
            self._begun.append((key, *self._begin(*key)))
        _, images, labels = self._begun.popleft()
        return torch.stack([image.result() for image in images]), labels

    def _begin(self, number: int, piece: int, pieces: int) -> tuple[list[Future[torch.Tensor]], torch.Tensor]:
        (index,) = self.batches.at(self.seed, number)
        rows = share(torch.arange(len(index)), piece, pieces)
        return [self._pool.submit(self._one, number, int(i), int(index[i])) for i in rows], self.folder.labels[index[rows]]

    def _one(self, number: int, place: int, i: int) -> torch.Tensor:
        draws = np.random.default_rng((self.seed, number, place))
        return pixels(random_part(opened(self.folder.files[i]), self.side, draws))

    def held(self, folder: Folder, size: int = 100) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Another folder's pictures, their middles, in order."""
        for at in range(0, len(folder), size):
            files = folder.files[at : at + size]
            yield (
                torch.stack(list(self._pool.map(lambda file: pixels(middle_part(opened(file), self.side)), files))),
                folder.labels[at : at + size],
            )


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    """One pool for all runs of a process."""
    return ThreadPoolExecutor(count)
