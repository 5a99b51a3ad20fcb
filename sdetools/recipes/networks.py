"""Residual networks: for small images with activations before or after the convolutions, and for ImageNet."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


def make_norm(kind: str, affine: bool, eps: float) -> Callable[[int], nn.Module]:
    """Return a function from a number of channels to a normalisation layer; ValueError for an unknown kind.

    Args:
        kind: "batch" for batch normalisation or "group" for group normalisation with 8 groups (fewer if there are fewer channels).
        affine: Whether the layer has gains and offsets.
        eps: The number that is added to a variance.
    """
    if kind not in ("batch", "group"):
        raise ValueError(f"`norm` must be batch or group; got {kind!r}.")

    def made(n: int) -> nn.Module:
        return nn.BatchNorm2d(n, eps, affine=affine) if kind == "batch" else nn.GroupNorm(min(8, n), n, eps, affine)

    return made


class _PreBlock(nn.Module):
    """Residual block of two 3x3 convolutions, each after a normalisation and a rectifier.

    Args:
        inner: The number of channels of the input.
        outer: The number of channels of the output.
        stride: The stride of the first convolution, by which height and width are divided.
        projects: Whether the shortcut is a normalisation and a 1x1 convolution instead of the identity.
        norm: A function that returns a normalisation layer for a number of channels.
    """

    def __init__(self, inner: int, outer: int, stride: int, projects: bool, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.first = norm(inner), nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.norm2, self.second = norm(outer), nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        shortcut: list[nn.Module] = [norm(inner), nn.Conv2d(inner, outer, 1, stride, bias=False)] if projects else []
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output `(n, outer, height / stride, width / stride)` for an input `(n, inner, height, width)`."""
        return self.second(F.relu(self.norm2(self.first(F.relu(self.norm1(x)))))) + self.shortcut(x)


class PreResNet(nn.Module):
    """Pre-activation residual network for small images such as 32x32, with 6 * `blocks` + 2 layers, as in public code for SVAG.

    It has three stages of `blocks` residual blocks each. Each stage begins with a block whose shortcut is a normalisation and a 1x1 convolution.
    Each stage after the first halves height and width and doubles the channels. The last normalisation is followed by the mean over pixels, without
    a rectifier. Weights are normal with variance 2 / fan-in, also those of the last layer; its bias is 0.

    Args:
        blocks: The number of blocks of a stage; 5 is ResNet-32.
        width: The number of channels of the first stage.
        channels: The number of channels of an image.
        classes: The number of classes.
        norm: "batch" or "group", see `make_norm`.
        affine: Whether normalisations have gains and offsets.
        frozen_last: Keep the last layer at its initial values.
        eps: The number that is added to a variance.

    Raises:
        ValueError: If `norm` is unknown.

    Example:
        >>> sum(p.numel() for p in PreResNet(blocks=5).parameters())
        464698
    """

    def __init__(
        self, blocks: int = 5, width: int = 16, channels: int = 3, classes: int = 10, norm: str = "batch", affine: bool = False,
        frozen_last: bool = True, eps: float = 1e-12,
    ) -> None:  # fmt: skip
        super().__init__()
        normalisation = make_norm(norm, affine, eps)
        self.first = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        stages, inner = [], width
        for stage in range(3):
            for block in range(blocks):
                outer = width << stage
                stages.append(_PreBlock(inner, outer, 2 if stage and not block else 1, not block, normalisation))
                inner = outer
        self.blocks, self.norm, self.last = nn.Sequential(*stages), normalisation(inner), nn.Linear(inner, classes)
        for part in self.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(part.weight, std=math.sqrt(2 / part.weight[0].numel()))
        nn.init.zeros_(self.last.bias)
        if frozen_last:
            self.last.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `(n, classes)` of normalised images `(n, channels, height, width)`."""
        return self.last(self.norm(self.blocks(self.first(x))).mean((2, 3)))


class _PostBlock(nn.Module):
    """Residual block of two 3x3 convolutions; the shortcut subsamples pixels and pads channels with zeros.

    Args:
        inner: The number of channels of the input.
        outer: The number of channels of the output, at least `inner`.
        stride: The stride of the first convolution, by which height and width are divided.
        norm: A function that returns a normalisation layer for a number of channels.
    """

    def __init__(self, inner: int, outer: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), norm(outer)
        self.second, self.norm2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), norm(outer)
        self.stride, self.extra_channels = stride, outer - inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output `(n, outer, height / stride, width / stride)` for an input `(n, inner, height, width)`."""
        y = self.norm2(self.second(F.relu(self.norm1(self.first(x)))))
        shortcut = F.pad(
            x[:, :, :: self.stride, :: self.stride],
            (0, 0, 0, 0, self.extra_channels // 2, self.extra_channels - self.extra_channels // 2),
        )
        return F.relu(y + shortcut)


class SmallResNet(nn.Module):
    """Residual network of K. He et al. 2016 for small images such as 32x32, with 6 * `blocks` + 2 layers and activations after sums.

    It has three stages of `blocks` residual blocks each. Each stage after the first halves height and width and doubles the channels.

    Args:
        blocks: The number of blocks of a stage; 5 is ResNet-32.
        width: The number of channels of the first stage.
        channels: The number of channels of an image.
        classes: The number of classes.
        norm: "batch" or "group", see `make_norm`.
        affine: Whether normalisations have gains and offsets.
        frozen_last: Keep the last layer at its initial values.
        eps: The number that is added to a variance.

    Raises:
        ValueError: If `norm` is unknown.

    Example:
        >>> sum(p.numel() for p in SmallResNet(blocks=5).parameters())
        464154
    """

    def __init__(
        self, blocks: int = 5, width: int = 16, channels: int = 3, classes: int = 10, norm: str = "batch", affine: bool = True,
        frozen_last: bool = False, eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        normalisation = make_norm(norm, affine, eps)
        self.first, self.norm = nn.Conv2d(channels, width, 3, 1, 1, bias=False), normalisation(width)
        stages, inner = [], width
        for stage in range(3):
            for block in range(blocks):
                outer = width << stage
                stages.append(_PostBlock(inner, outer, 2 if stage and not block else 1, normalisation))
                inner = outer
        self.blocks, self.last = nn.Sequential(*stages), nn.Linear(inner, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if frozen_last:
            self.last.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `(n, classes)` of normalised images `(n, channels, height, width)`."""
        x = self.blocks(F.relu(self.norm(self.first(x))))
        return self.last(x.mean((2, 3)))
