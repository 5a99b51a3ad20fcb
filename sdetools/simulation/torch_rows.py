"""Draws as rows of paths in torch, in the layout of `draws.py`: by the compiled functions on a CPU, elsewhere by Philox in torch's integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from sdetools.noise.base import Normal, Sign
from sdetools.simulation.draws import DrawPlan, Segment, groups
from sdetools.simulation.philox import LOW, M0, M1, W0, W1


class Draws:
    """The draws of one step for consecutive paths, at their addresses: float64 or float32, `(plan.rows, paths)`."""

    def __init__(self, keys: list[int], first: int, paths: int, device: torch.device, dtype: torch.dtype) -> None:
        self.keys, self.first, self.paths, self.device, self.dtype = keys, first, paths, device, dtype
        if device.type != "cpu":
            self.path = torch.arange(first, first + paths, dtype=torch.int64, device=device)

    def __call__(self, s: int, plan: DrawPlan, step: int) -> torch.Tensor:
        return self._rows(self.keys[s], plan, step)

    def start(self, plan: DrawPlan) -> torch.Tensor:
        return self._rows(self.keys[-1], plan, 0)

    def _rows(self, key: int, plan: DrawPlan, step: int) -> torch.Tensor:
        if not plan.rows:
            return torch.empty((0, self.paths), dtype=self.dtype, device=self.device)
        if self.device.type == "cpu":
            from sdetools.simulation.draw_rows import fill_block

            dtype = np.float32 if self.dtype == torch.float32 else np.float64
            return torch.from_numpy(fill_block(plan, key, self.first, self.paths, step, dtype))
        return device_rows(plan, key, self.path, step, self.dtype)


def device_rows(plan: DrawPlan, key: int, path: torch.Tensor, step: int, dtype: torch.dtype) -> torch.Tensor:
    """`draws.fill` in torch's integers, for a row of paths on any device: `(plan.rows, paths)`."""
    rows = [(_signs if s.kind is Sign else _grouped)(s, key, path, step, dtype) for s in plan.segments]
    return torch.cat(rows) if rows else torch.empty((0, path.numel()), dtype=dtype, device=path.device)


def _grouped(segment: Segment, key: int, path: torch.Tensor, step: int, dtype: torch.dtype) -> torch.Tensor:
    """Normals or uniforms: `(n, paths)`."""
    call, at = segment.address(step)
    rows = []
    for first, m, T in groups(segment.drawn, segment.group, segment.a_slot):
        pair = _words(key, path, call, segment.base + first // segment.a_slot, T)
        decoded = [x for word in pair for x in (_normals(word, dtype) if segment.kind is Normal else [_uniforms(word, dtype)])]
        rows.append(torch.cat(decoded)[:m])
    return torch.cat(rows)[at : at + segment.n]


def _signs(segment: Segment, key: int, path: torch.Tensor, step: int, dtype: torch.dtype) -> torch.Tensor:
    """Signs: `(n, paths)`."""
    call, at = segment.address(step)
    words = torch.stack(_words(key, path, call, segment.base, segment.slots), dim=1).reshape(-1, path.numel())
    index = at + torch.arange(segment.n, device=path.device)
    return 1.0 - 2.0 * ((words[index // 64] >> (index % 64)[:, None]) & 1).to(dtype)


def _words(key: int, path: torch.Tensor, step: int, slot: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two words of `count` slots for each path, `(count, paths)`; products of 32-bit numbers wrap as they should in 64 bits."""
    mask, top = int(LOW), ((step >> 32) << 10) | ((slot >> 32) << 20)
    k0, k1 = key & mask, key >> 32
    c0: Any = (path & mask)[None]
    c3: Any = ((path >> 32) | top)[None]
    c2: Any = (slot & mask) + torch.arange(count, device=path.device)[:, None]
    c1: Any = torch.full_like(c0, step & mask)
    for _ in range(10):
        p0, p1 = c0 * int(M0), c2 * int(M1)
        c0, c1, c2, c3 = ((p1 >> 32) & mask) ^ c1 ^ k0, p1 & mask, ((p0 >> 32) & mask) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + int(W0)) & mask, (k1 + int(W1)) & mask
    return (c0 << 32) | c1, (c2 << 32) | c3


def _normals(word: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Box-Muller as in `philox.normals`; x is the smaller of u and 1 - u, so that float32 loses none of the 40 bits."""
    bits = (word >> 24) & 0xFFFFFFFFFF
    upper = bits >= 1 << 39
    x = (torch.where(upper, 0xFFFFFFFFFF - bits, bits).to(dtype) + 0.5) * 2.0**-40
    radius = torch.sqrt(-torch.where(upper, torch.log(x), torch.log1p(-x)))
    angle = (((word & 0x3FFFFF).to(dtype) + 0.5) * 2.0**-22 - 0.5) * (math.pi / 2)
    sine, cosine = torch.sin(angle), torch.cos(angle)
    first = 1.0 - 2.0 * ((word >> 23) & 1).to(dtype)
    second = 1.0 - 2.0 * ((word >> 22) & 1).to(dtype)
    return first * radius * (cosine - sine), second * radius * (cosine + sine)


def _uniforms(word: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A number in (0, 1) from 52 bits; float32 rounds it once, and never up to 1."""
    bits = (word >> 12) & 0xFFFFFFFFFFFFF
    if dtype == torch.float32:
        # 2 bits + 1 is whole and odd, so its rounding to float32 is that of the double; 2^53 would be 1
        return ((2 * bits + 1).to(dtype) * 2.0**-53).clamp(max=1 - 2.0**-24)
    return (bits.to(dtype) + 0.5) * 2.0**-52
