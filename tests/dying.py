"""Chunks that kill the process in which they run, importable by worker processes."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Executor
from pathlib import Path


class Dying:
    """A function of (task, index) that calls another one, and kills its own process in the first `times` calls for one index."""

    def __init__(self, run, folder, index, times=1):
        self.run, self.folder, self.index, self.times = run, Path(folder), index, times

    def __call__(self, task, index):
        if index == self.index:
            for n in range(self.times):
                try:
                    (self.folder / f"died-{n}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return self.run(task, index)


class Deadly(Executor):
    """An executor that submits chunks to another one, of which one chunk kills its process `times` times. `sent` counts submissions."""

    def __init__(self, inner, folder, index, times=1):
        self.inner, self.given, self.sent = inner, (folder, index, times), {}

    @property
    def _max_workers(self):
        return getattr(self.inner, "_max_workers", None) or self.inner.num_workers

    def submit(self, fn, /, task, index):
        self.sent[index] = self.sent.get(index, 0) + 1
        return self.inner.submit(Dying(fn, *self.given), task, index)
