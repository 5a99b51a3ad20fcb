"""Draws as rows of paths in torch, in the layout of `draws.py`: by the compiled functions on a CPU, elsewhere by Philox in torch's integers."""

from __future__ import annotations

import numpy as np
import torch

from sdetools.simulation.draws import DrawPlan, drawn


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
        return drawn(plan, key, self.path, step, torch, self.dtype)
