"""Make the labels: complete runs with and without momentum, in settings that were fixed before.

    python benchmarks/dropping_momentum run --part fitted --out labels.csv

Each setting is run with `FEATURE_SEEDS` seeds for evidence and 12 seeds for labels; where these do not decide, with 24 and 48. A setting's row is appended
when it is finished, so that an interrupted command goes on where it stopped. Two processes may share a table: `--share 0/2` and `--share 1/2`.
"""

from __future__ import annotations

import csv
import fcntl
import time
import zlib
from pathlib import Path

import numpy as np
import torch

from dropping_momentum.labels import (
    CHECKPOINTS,
    DEAD,
    FEATURE_SEEDS,
    HEADER,
    LISTS,
    METHODS,
    SEEDS,
    Row,
    cells,
    finite,
    read,
    summary,
    write,
)
from dropping_momentum.settings import LOOKS, PROBE_STEPS, STEPS, Setting, settings
from dropping_momentum.tasks import Task, task
from dropping_momentum.training import loss_function, order, sharpness, train


def find_edge(setting: Setting, own: Task, top: float, steps: int = PROBE_STEPS) -> float:
    """Return the largest x0 of the setting's grid at which one run of SGDM makes progress; the least of the grid if none does.

    Only runs with momentum are inspected: what plain SGD does has no influence on the choice of x0.
    """
    rates = torch.tensor(setting.grid / top * (1 - setting.momentum), dtype=torch.float32)
    orders = order([zlib.crc32(setting.network.encode()), setting.number], steps, setting.batch, len(own.train[0]))[None]
    losses, _ = train(own, rates, torch.full_like(rates, setting.momentum), orders, (steps,))
    params, loss = loss_function(own)
    start = float(loss(params, *own.train).detach())
    alive = setting.grid[losses[:, 0, 0] < (1 - DEAD) * start]
    return float(alive[-1]) if len(alive) else float(setting.grid[0])


def run_setting(setting: Setting, seeds: tuple[int, ...] = SEEDS, steps: int = STEPS) -> Row:
    """Return the row of a setting: its seeds are added until they decide."""
    own = task(setting.network, setting.seed)
    top, products = sharpness(own)
    edge = find_edge(setting, own, top)
    x0 = setting.x0(edge)
    plain_rate = x0 / top
    lr = plain_rate * (1 - setting.momentum)
    params, loss = loss_function(own)
    with torch.no_grad():
        start, test_start = (float(loss(params, *data)) for data in (own.train, own.test))
    looks = tuple(sorted({max(1, look * steps // STEPS) for look in LOOKS}))
    runs: dict[str, list[float]] = {name: [] for name in LISTS}
    row, done = None, -FEATURE_SEEDS
    for total in seeds:
        keys = [[zlib.crc32(setting.network.encode()), setting.number, seed + FEATURE_SEEDS] for seed in range(done, total)]
        orders = np.stack([order(key, steps, setting.batch, len(own.train[0])) for key in keys])
        rates, momenta = torch.tensor([plain_rate, lr]), torch.tensor([0.0, setting.momentum])
        losses, tests = train(own, rates, momenta, orders, looks)
        for i, method in enumerate(METHODS):
            for at, values in zip(CHECKPOINTS, losses[i].T):
                runs[f"{method}_{at}"] += [finite(float(v) / start) for v in values]
            runs[f"{method}_end"] += [finite(float(v) / start) for v in losses[i][:, -3:].mean(axis=1)]
            runs[f"{method}_test"] += [finite(float(v) / test_start) for v in tests[i]]
        row = Row(
            setting, edge, x0, lr, top, products, start, test_start, {name: np.array(values) for name, values in runs.items()}
        )
        done = total
        if row.verdict != "open":
            break
    assert row is not None
    return row


def append(row: Row, path: Path) -> None:
    """Append a row to the table, in one piece."""
    with path.open("a", newline="", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(HEADER)
        writer.writerow(cells(row))


def command(part: str, out: Path, share: str = "0/1", minutes: float = float("inf")) -> None:
    """Run the missing settings of a part and write the sorted table."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # the buffers of a network that no longer moves shrink to denormal numbers, which are slow
    began, (mine, workers) = time.monotonic(), map(int, share.split("/"))
    known = {row.setting.name for row in read(out)} if out.exists() else set()
    todo = [s for i, s in enumerate(settings(part)) if i % workers == mine and s.name not in known]
    for count, setting in enumerate(todo, start=1):
        if time.monotonic() - began > 60 * minutes:
            break
        before = time.process_time()
        row = run_setting(setting)
        append(row, out)
        print(
            f"{count}/{len(todo)} {setting.name}: momentum {setting.momentum:g}, batch {setting.batch}, x0 {row.x0:g} below {row.edge:.3g}: {row.verdict}, share "
            f"{row.share:.2f} of {len(row.gaps)}, progress {row.progress:.2f}, {time.process_time() - before:.1f} s, total {(time.monotonic() - began) / 60:.1f} min",
            flush=True,
        )
    rows = read(out)
    if workers == 1:
        write(rows, out)
    print(summary(rows))
