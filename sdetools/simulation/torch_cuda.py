"""The CUDA backend: kernels of `cuda.py` on a device, or on Numba's simulator (NUMBA_ENABLE_CUDASIM=1), in batches of chunks.

Kernels and torch share memory: torch allocates the arrays, multiplies large matrices, and computes the moments of records. On the
simulator NumPy does this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import config, cuda

from sdetools._install import install_command
from sdetools.graph.cuda_loops import Product
from sdetools.graph.reals import real_of
from sdetools.simulation import cuda_draws
from sdetools.simulation.chunk_batches import Arrays, ChunkBatches
from sdetools.simulation.chunks import ChunkTask
from sdetools.simulation.cuda import Phase, write

BATCH, MEMORY = 1 << 22, 0.5
"""The largest number of paths of a batch, and the share of a device's free memory that their rows may take."""
THREADS = 128
"""The number of threads of a block."""
SIMULATED = bool(config.ENABLE_CUDASIM)
LIBDEVICE = SimpleNamespace(
    fabs=np.fabs, pow=np.power, atan=np.arctan, asin=np.arcsin, acos=np.arccos,
    **{f: getattr(np, f) for f in ("sqrt", "exp", "log", "log1p", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh", "floor")},
)  # fmt: skip
"""The substitute for CUDA's math library on the simulator: Python's `math` raises where a device gives inf or nan."""


def arrays() -> Arrays:
    """Return the array operations of the CUDA backend: torch's on the device, or NumPy's on Numba's simulator.

    Raises:
        ValueError: There is no device, or no torch with support for CUDA.
    """
    if SIMULATED:
        return Arrays()
    if not cuda.is_available():
        raise ValueError(
            "backend 'cuda' requires a CUDA device and its driver; Numba finds none. Use backend='numba', or run the kernels on Numba's "
            "simulator, slowly, with NUMBA_ENABLE_CUDASIM=1 in the environment."
        )
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"backend 'cuda' requires torch for the operations between kernels; got {error}. Install it: {install_command('torch')}."
        ) from error
    if not torch.cuda.is_available():
        raise ValueError(
            "backend 'cuda' requires a torch that is built for CUDA; the installed one is not. See https://pytorch.org."
        )
    return Arrays(torch, "cuda")


@cache
def function(text: str, dtype: str) -> Callable[..., None]:
    """Return the CUDA kernel of a source text as a plain Python function, not compiled; the same text and type give the same object.

    Args:
        text: The source, the definition of a Python function `kernel`, as `cuda.Lines.text` generates it.
        dtype: The floating-point type of the kernel's numbers, "float64" or "float32".
    """
    real = np.dtype(dtype).type
    space: dict[str, Any] = {"np": np, "cuda": cuda, "u64": np.uint64, "real": real} | cuda_draws.names(dtype)
    space |= {"math": LIBDEVICE if SIMULATED else math}
    exec(compile(text, "<sdetools kernel>", "exec"), space)  # generated here
    return space["kernel"]


@cache
def _kernel(text: str, dtype: str) -> Any:
    return cuda.jit(function(text, dtype))


class CudaRunner(ChunkBatches):
    """The runner of the CUDA backend: it advances chunks, sets of consecutive paths, by kernels on arrays `(rows, paths)` of a device.

    On Numba's simulator (NUMBA_ENABLE_CUDASIM=1) the kernels are run by Python, and the arrays are those of NumPy.

    Args:
        task: The `ChunkTask`, which contains the program.

    Raises:
        ValueError: There is no device, or no torch with support for CUDA.
        NotTraceable: A part of the program needs another backend.
    """

    def __init__(self, task: ChunkTask) -> None:
        assert task.program is not None
        own = arrays()
        self.kernels = write(task.program, real_of(task.dtype))
        size = (self.kernels.rows + self.kernels.drawn) * self.kernels.real.size
        most = BATCH if own.torch is None else min(BATCH, int(MEMORY * own.torch.cuda.mem_get_info()[0] / size))
        super().__init__(task, most, own)
        program, put = self.program, lambda a: self.given(own.put(a))
        self.keys, self.C, self.P = map(
            put, (task.arguments[0], self.real(program.coefficients.ravel()), self.real(program.parameters))
        )
        self.matrices = [own.put(a) for a in self.kernels.data]
        self.data = [self.given(a) for a in self.matrices]
        self.K, self.N = put(self.kernels.numbers), put(self.kernels.sizes)

    def real(self, a: np.ndarray) -> np.ndarray:
        """Return an array of floats in the kernels' floating-point type, of the same shape.

        An empty array becomes a single zero with as many axes, because Numba does not accept empty arrays.
        """
        return self.kernels.real.array(a if a.size else np.zeros((1,) * a.ndim))

    def given(self, a: Any) -> Any:
        """Return an array in the form that Numba's CUDA kernels accept, with the same memory.

        Args:
            a: A torch tensor on the device, or a NumPy array on Numba's simulator. A read-only NumPy array is copied.
        """
        return np.require(a, requirements="W") if SIMULATED else cuda.as_cuda_array(a)

    def paths(self, first: int, count: int) -> _Paths:
        return _Paths(self, first, count)


class _Paths:
    """Consecutive paths as columns of an array S `(rows, paths)` of the device, advanced by kernels: the `MovingPaths` of the CUDA backend.

    The attribute `rows` is S; the meaning of its rows is given by `cuda.Kernels`.
    """

    def __init__(self, runner: CudaRunner, first: int, paths: int) -> None:
        self.runner, self.kernels, self.first, self.lanes, self.k = runner, runner.kernels, first, paths, 0
        own, dtype = runner.arrays, self.kernels.real.name
        self.S, self.Z = own.zeros(self.kernels.rows * paths, dtype), own.zeros(max(1, self.kernels.drawn) * paths, dtype)
        self.given = runner.given(self.S), runner.given(self.Z)
        self.rows = self.S.reshape(-1, paths)
        self._run(self.kernels.start)

    def _run(self, phases: Sequence[Phase], begin: int = 0, end: int = 1, c: float = 0.0, rho: float = 0.0) -> None:
        """Run the kernels and matrix products `phases` in order, for the steps from `begin` to `end - 1`.

        `c` and `rho` are the numbers that kernels of anchors and records read: the factor of m, or the two numbers of a control variate.
        """
        r = self.runner
        for phase in phases:
            if isinstance(phase, Product):
                self._multiply(phase)
                continue
            kernel = _kernel(phase.text(len(r.data), r.program.coefficients.shape[1]), self.kernels.real.name)
            threads = min(THREADS, self.lanes)
            kernel[-(-self.lanes // threads), threads](
                self.first, self.lanes, begin, end, r.keys, r.C, r.P, c, rho, *self.given, r.K, r.N, *r.data
            )

    def _multiply(self, p: Product) -> None:
        """Multiply rows of S or of the draws Z by a matrix of data, and write the product to rows of S, as `p` says."""
        n, d = self.runner.matrices[p.matrix].shape
        source = self.S if p.array == "S" else self.Z
        from_, to, width = p.source * self.lanes, p.target * self.lanes, p.columns * self.lanes
        matmul = (self.runner.arrays.torch or np).matmul
        matmul(
            self.runner.matrices[p.matrix],
            source[from_ : from_ + d * width].reshape(d, width),
            out=self.S[to : to + n * width].reshape(n, width),
        )

    def advance(self, k: int) -> None:
        if self.kernels.fused and k > self.k:
            self._run([phase for _, phase in self.kernels.step], self.k, k)
        for step in range(k if self.kernels.fused else self.k, k):
            self._run([phase for every, phase in self.kernels.step if (step + 1) % every == 0], step, step + 1)
        self.k = k

    def anchor(self, memory: float) -> Any:
        self._run(self.kernels.anchor, c=float(memory))
        return deepcopy(self.rows[self.kernels.anchors])

    def recorded(self, anchor: Any, c: float, rho: float) -> Any:
        if anchor is not None:
            self.rows[self.kernels.anchors] = anchor
        self._run(self.kernels.record, c=float(c), rho=float(rho))
        width = 3 if self.runner.program.pair else 1
        return self.rows[self.kernels.h : self.kernels.h + width * self.runner.program.columns]

    def diverged(self, i: int) -> np.ndarray:
        if i == 0:
            self._run(self.kernels.check)
        return self.runner.arrays.numpy(self.rows[self.kernels.diverged + i]) != 0.0

    def rows_of(self, rows: np.ndarray, picked: np.ndarray) -> np.ndarray:
        return np.asarray(self.runner.arrays.numpy(self.rows[rows, picked]), float)
