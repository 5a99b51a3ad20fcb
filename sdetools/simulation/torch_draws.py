"""Draws as rows of paths in torch: filled by the compiled lane functions on a CPU, elsewhere by Philox in torch's integers."""

from __future__ import annotations

import math
from typing import Any

import torch

from sdetools.simulation.philox import LOW, M0, M1, SIGN_SLOT, W0, W1, WordPlan


class Draws:
    """The rows of draws of one step for consecutive paths, at their addresses."""

    def __init__(self, keys: list[int], first: int, paths: int, device: torch.device, dtype: torch.dtype) -> None:
        self.keys, self.first, self.paths, self.device, self.dtype = keys, first, paths, device, dtype
        if device.type != "cpu":
            path = torch.arange(first, first + paths, dtype=torch.int64, device=device)
            self.low, self.high = path & 0xFFFFFFFF, path >> 32

    def __call__(self, s: int, plan: WordPlan, step: int) -> list[torch.Tensor]:
        return self._rows(self.keys[s], plan, step)

    def start(self, plan: WordPlan) -> list[torch.Tensor]:
        return self._rows(self.keys[-1], plan, 0)

    def _rows(self, key: int, plan: WordPlan, step: int) -> list[torch.Tensor]:
        if not plan.rows:
            return []
        if self.device.type == "cpu":
            from sdetools.simulation.library import fill_draws

            return list(torch.from_numpy(fill_draws(plan, key, self.first, self.paths, step)).to(self.dtype))
        return _device_rows(self, key, plan, step)


def _device_rows(draws: Draws, key: int, plan: WordPlan, step: int) -> list[torch.Tensor]:
    """`philox.fill` in torch's integers."""
    taken: list[torch.Tensor] = []
    if plan.words == 1:
        taken = [_device_words(draws, key, step // 2, 0)[step % 2]]
    elif plan.words:
        for slot in range((plan.words + 1) // 2):
            taken += _device_words(draws, key, step, slot)
    signs: list[torch.Tensor] = []
    if plan.sign_words == 1:
        block, within = divmod(step, plan.sign_steps)
        word = _device_words(draws, key, block // 2, SIGN_SLOT)[block % 2]
        signs = [(word >> (within * plan.signs + i)) & 1 for i in range(plan.signs)]
    elif plan.sign_words:
        for slot in range((plan.sign_words + 1) // 2):
            for word in _device_words(draws, key, step, SIGN_SLOT + slot):
                signs += [(word >> i) & 1 for i in range(64)]
    out: list[torch.Tensor] = []
    words, bits = iter(taken), iter(signs)
    for draw in plan.draws:
        kind = type(draw).__name__
        for i in range(draw.n):
            if kind == "Normal":
                if i % 2 == 0:
                    pair = _device_normals(next(words))
                out.append(pair[i % 2].to(draws.dtype))
            elif kind == "Uniform":
                word = next(words)
                out.append((((((word >> 12) & 0xFFFFFFFFFFFFF).double()) + 0.5) * 2.0**-52).to(draws.dtype))
            else:
                out.append(1.0 - 2.0 * next(bits).to(draws.dtype))
    return out


def _device_words(draws: Draws, key: int, step: int, slot: int) -> list[torch.Tensor]:
    """Two 64-bit words for each path; products of 32-bit numbers wrap as they should in 64 bits."""
    mask, top = int(LOW), ((step >> 32) << 10) | ((slot >> 32) << 20)
    k0, k1 = key & mask, key >> 32
    c0, c3 = draws.low, draws.high | top
    c1: Any = torch.full_like(c0, step & mask)
    c2: Any = torch.full_like(c0, slot & mask)
    for _ in range(10):
        p0, p1 = c0 * int(M0), c2 * int(M1)
        c0, c1, c2, c3 = ((p1 >> 32) & mask) ^ c1 ^ k0, p1 & mask, ((p0 >> 32) & mask) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + int(W0)) & mask, (k1 + int(W1)) & mask
    return [(c0 << 32) | c1, (c2 << 32) | c3]


def _device_normals(word: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Box-Muller as in `philox.normals`."""
    u = 1.0 - (((word >> 24) & 0xFFFFFFFFFF).double() + 0.5) * 2.0**-40
    angle = (((word & 0x3FFFFF).double() + 0.5) * 2.0**-22 - 0.5) * (math.pi / 2)
    radius, sine, cosine = torch.sqrt(-torch.log(u)), torch.sin(angle), torch.cos(angle)
    first = 1.0 - 2.0 * ((word >> 23) & 1).double()
    second = 1.0 - 2.0 * ((word >> 22) & 1).double()
    return first * radius * (cosine - sine), second * radius * (cosine + sine)
