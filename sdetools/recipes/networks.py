"""Residual networks: for small images with activations before or after the convolutions, and for ImageNet."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module, util
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def make_norm(kind: str, affine: bool, eps: float) -> Callable[[int], nn.Module]:
    """Return a function from a number of channels to a normalisation layer.

    Args:
        kind: "batch" for batch normalisation or "group" for group normalisation with 8 groups (fewer if there are fewer channels).
        affine: Whether the layer has gains and offsets.
        eps: The number that is added to a variance, positive.

    Raises:
        ValueError: If `kind` is unknown.
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


def three_stages(block: Callable[[int, int, int, bool], nn.Module], blocks: int, width: int) -> tuple[nn.Sequential, int]:
    """Return three stages of residual blocks, one module, and the number of channels at their end.

    Each stage after the first halves height and width and doubles the channels.

    Args:
        block: `block(inner, outer, stride, first)` returns a block from `inner` to `outer` channels; `first` says whether it begins a stage.
        blocks: The number of blocks of a stage.
        width: The number of channels at the beginning and in the first stage.
    """
    found, inner = [], width
    for stage in range(3):
        for number in range(blocks):
            outer = width << stage
            found.append(block(inner, outer, 2 if stage and not number else 1, not number))
            inner = outer
    return nn.Sequential(*found), inner


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
        norm: "batch" or "group" normalisation; see `make_norm`.
        affine: Whether normalisations have gains and offsets.
        frozen_last: Whether the last layer stays at its initial values: its parameters then require no gradient.
        eps: The number that is added to a variance in normalisations.

    Raises:
        ValueError: If `norm` is unknown.

    Example:
        >>> from sdetools.recipes.networks import PreResNet
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
        self.blocks, inner = three_stages(functools.partial(_PreBlock, norm=normalisation), blocks, width)
        self.norm, self.last = normalisation(inner), nn.Linear(inner, classes)
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

    It has three stages of `blocks` residual blocks each; each stage after the first halves height and width and doubles the channels. Shortcuts subsample
    pixels and pad channels with zeros. Convolutions are normal with variance 2 / fan-in; the last layer is initialised as torch does.

    Args:
        blocks: The number of blocks of a stage; 5 is ResNet-32.
        width: The number of channels of the first stage.
        channels: The number of channels of an image.
        classes: The number of classes.
        norm: "batch" or "group" normalisation; see `make_norm`.
        affine: Whether normalisations have gains and offsets.
        frozen_last: Whether the last layer stays at its initial values: its parameters then require no gradient.
        eps: The number that is added to a variance in normalisations.

    Raises:
        ValueError: If `norm` is unknown.

    Example:
        >>> from sdetools.recipes.networks import SmallResNet
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
        self.blocks, inner = three_stages(
            lambda inner, outer, stride, _: _PostBlock(inner, outer, stride, normalisation), blocks, width
        )
        self.last = nn.Linear(inner, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if frozen_last:
            self.last.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `(n, classes)` of normalised images `(n, channels, height, width)`."""
        x = self.blocks(F.relu(self.norm(self.first(x))))
        return self.last(x.mean((2, 3)))


class _Bottleneck(nn.Module):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution, each followed by batch normalisation; the inner ones have a quarter of the channels.

    Args:
        inner: The number of channels of the input.
        outer: The number of channels of the output.
        stride: The stride of the 3x3 convolution, by which height and width are divided.
    """

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        width = outer // 4
        self.conv1, self.bn1 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outer, 1, bias=False), nn.BatchNorm2d(outer)
        self.downsample = _projection(inner, outer, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output `(n, outer, height / stride, width / stride)` for an input `(n, inner, height, width)`."""
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class _Basic(nn.Module):
    """Residual block of two 3x3 convolutions, each followed by batch normalisation.

    Args:
        inner: The number of channels of the input.
        outer: The number of channels of the output.
        stride: The stride of the first convolution, by which height and width are divided.
    """

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.downsample = _projection(inner, outer, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output `(n, outer, height / stride, width / stride)` for an input `(n, inner, height, width)`."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _projection(inner: int, outer: int, stride: int) -> nn.Module | None:
    """Return the shortcut of a block from `inner` to `outer` channels: None for the identity, else a 1x1 convolution with `stride` and a normalisation."""
    if stride == 1 and inner == outer:
        return None
    return nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))


BLOCKS: dict[str, Callable[[int, int, int], nn.Module]] = {"bottleneck": _Bottleneck, "basic": _Basic}
"""The blocks of `ResNet`: functions of the channels of input and output, and the stride."""
RESNET50: tuple[Sequence[int], Sequence[int], int, str] = ((3, 4, 6, 3), (256, 512, 1024, 2048), 64, "bottleneck")
"""The depths, widths, stem and block of ResNet-50."""


class ResNet(nn.Module):
    """Residual network for large images, with the modules, their names and the arithmetic of torchvision's.

    Args:
        depths: The number of blocks of each stage; each stage after the first halves height and width.
        widths: The number of channels at the end of each stage, as many numbers as `depths` has.
        stem: The number of channels of the first layer, a 7x7 convolution, which is followed by a maximum over 3x3 pixels; both have stride 2.
        block: "bottleneck" or "basic", a key of `BLOCKS`.
        channels: The number of channels of an image.
        classes: The number of classes.

    Example:
        >>> from sdetools.recipes.networks import RESNET50, ResNet
        >>> sum(p.numel() for p in ResNet(*RESNET50).parameters())
        25557032
    """

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], stem: int, block: str, channels: int = 3, classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, stem, 7, 2, 3, bias=False), nn.BatchNorm2d(stem)
        inner, self.stages = stem, [f"layer{n}" for n in range(1, len(depths) + 1)]
        for name, depth, outer in zip(self.stages, depths, widths):
            strides = [2 if name != "layer1" else 1, *[1] * (depth - 1)]
            blocks = [BLOCKS[block](outer if i else inner, outer, stride) for i, stride in enumerate(strides)]
            self.add_module(name, nn.Sequential(*blocks))
            inner = outer
        self.fc = nn.Linear(inner, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `(n, classes)` of normalised images `(n, channels, height, width)`."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


@functools.cache
def torchvision() -> Any:
    """Return the module torchvision; None if it is not installed or cannot be imported, as beside a torch without its operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that an image format is missing, which is not read by it
        try:
            return import_module("torchvision") if util.find_spec("torchvision") else None
        except (ImportError, RuntimeError, OSError):
            return None


def initialise(model: nn.Module, seed: int) -> nn.Module:
    """Set the weights of a `ResNet`, or of torchvision's, as Goyal et al. 2017 do, and return the model.

    Convolutions are normal with variance 2 / fan-out, the last layer is normal with standard deviation 0.01 and has no bias at first. Gains are 1, and
    0 in the last normalisation of each block, so that blocks are identities at first; offsets are 0.

    Args:
        model: The network, changed in place.
        seed: The seed of the weights; equal seeds give equal bits in both networks.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Conv2d):
                fan_out = part.weight.shape[0] * part.weight[0, 0].numel()
                part.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
            elif isinstance(part, nn.Linear):
                part.weight.normal_(0, 0.01, generator=generator)
                part.bias.zero_()
            elif isinstance(part, nn.BatchNorm2d):
                part.weight.fill_(1)
                part.bias.zero_()
        for part in model.modules():
            last = getattr(part, "bn3", getattr(part, "bn2", None))  # of a block
            if last is not None:
                last.weight.zero_()
    return model
