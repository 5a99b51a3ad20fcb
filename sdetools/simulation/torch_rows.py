"""Draws as tensors of paths, in the layout of `draws.py`.

On a CPU they come from the compiled functions, on other devices from Philox in torch's integers.
"""

from __future__ import annotations

import numpy as np
import torch

from sdetools.simulation.draws import DrawPlan, drawn


class Draws:
    """The random draws of consecutive paths as tensors `(rows, paths)`, one row for each draw of a path.

    `draws(s, plan, step)` returns those of a step, `draws.start(plan)` those of the starting points and momenta.

    Args:
        keys: The 64-bit keys of the draws (`philox.stream_key`): one for both of two coupled dynamics, else one for each; last that of the starts.
        first: The index of the first path.
        paths: The number of paths.
        device: The device of the tensors.
        dtype: The type of the tensors, float64 or float32.
    """

    def __init__(self, keys: list[int], first: int, paths: int, device: torch.device, dtype: torch.dtype) -> None:
        self.keys, self.first, self.paths, self.device, self.dtype = keys, first, paths, device, dtype
        if device.type != "cpu":
            self.path = torch.arange(first, first + paths, dtype=torch.int64, device=device)

    def __call__(self, s: int, plan: DrawPlan, step: int) -> torch.Tensor:
        """Return the draws of one step, a tensor `(plan.rows, paths)`.

        Args:
            s: The index of the set of draws, 0; 1 for the second of two independent dynamics.
            plan: The draws of a step of this set (`draws.DrawPlan`), which determines the order of the rows.
            step: The step, from 0; for dynamics with a longer step, the number of that step.
        """
        return self._rows(self.keys[s], plan, step)

    def start(self, plan: DrawPlan) -> torch.Tensor:
        """Return the random draws of the starting points and momenta.

        Args:
            plan: The draws of a start, `Program.start_plan`.

        Returns:
            A tensor `(plan.rows, paths)`; it has no rows if starts are not random.
        """
        return self._rows(self.keys[-1], plan, 0)

    def _rows(self, key: int, plan: DrawPlan, step: int) -> torch.Tensor:
        """Return the draws of a plan for one step under a key, a tensor `(plan.rows, paths)`."""
        if not plan.rows:
            return torch.empty((0, self.paths), dtype=self.dtype, device=self.device)
        if self.device.type == "cpu":
            from sdetools.simulation.draw_rows import fill_block

            dtype = np.float32 if self.dtype == torch.float32 else np.float64
            return torch.from_numpy(fill_block(plan, key, self.first, self.paths, step, dtype))
        return drawn(plan, key, self.path, step, torch, self.dtype)
