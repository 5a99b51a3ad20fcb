"""The torch backend: the same traced steps as straight lines of torch operations on rows of paths, on any device.

State is a list of rows, one tensor of paths each; a line `v7 = v3 * v5` is one operation on all paths of a batch. Draws have the same
addresses as in the other backends: on a CPU they are filled by the compiled lane functions, elsewhere by Philox in torch's integers.
Losses given as torch functions run as stages through `torch.func`. Chunks keep their meaning, so results do not depend on the batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sdetools.simulation.build import Build
from sdetools.simulation.chunks import ChunkResult, Task
from sdetools.simulation.frame import LANES
from sdetools.simulation.loops import Item
from sdetools.simulation.program import NEVER, Program
from sdetools.simulation.source import NotTraceable, control_value, layout, observable_value, passes
from sdetools.simulation.torch_draws import Draws
from sdetools.simulation.trace import Tape, symbols

CPU_BATCH, DEVICE_BATCH = 1 << 14, 1 << 22
"""Paths at once: rows that stay in a core's cache, and enough to keep a device busy."""
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def parse(backend: str) -> tuple[torch.device, torch.dtype]:
    """ "torch", "torch:cuda", "torch:cuda:1:float32", "torch:cpu:float32": a device and a type. ValueError for one that is not there."""
    parts = backend.split(":")[1:]
    dtype = torch.float64
    if parts and parts[-1] in DTYPES:
        dtype = DTYPES[parts.pop()]
    name = ":".join(parts) or "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device, dtype=dtype)
    except (RuntimeError, AssertionError, TypeError) as error:
        there = ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.backends.mps.is_available() else [])]
        told = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`backend` must name a device that is there ({', '.join(there)}) and float64 or float32; got {backend!r} ({told}). "
            'Write for example backend="torch:cuda:float32".'
        ) from error
    return device, dtype


class _Functions:
    """Elementary functions by the names that traces give them."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        for name in ("exp", "log", "sin", "cos", "tan", "tanh", "sinh", "cosh", "log1p", "expm1", "pow"):
            setattr(self, name, getattr(torch, name))

    def where(self, condition: torch.Tensor, yes: Any, no: Any) -> torch.Tensor:
        """torch.where that gives two numbers the type of the run, not torch's default."""
        if not isinstance(yes, torch.Tensor):
            yes = torch.as_tensor(yes, dtype=self.dtype, device=self.device)
        return torch.where(condition, yes, no)


_ROW = re.compile(r"\b([SZH])\[(\d+) \+ j\]")
_ANCHOR = re.compile(r"V\[slot \+ (\d+) \+ j\]")
_CHOICE = re.compile(r"^\((\S+) if (.+) else (\S+)\)$")
_CALL = re.compile(r"^(\w+)\((.*)\)$")


def _torch(text: str) -> str:
    """A traced line in torch's words."""
    text = _ROW.sub(lambda m: f"{m[1]}[{int(m[2]) // LANES}]", text)
    text = _ANCHOR.sub(lambda m: f"V[slot][{int(m[1]) // LANES}]", text)
    choice = _CHOICE.match(text)
    if choice:
        text = f"F.where({choice[2].replace('not ', '~')}, {choice[1]}, {choice[3]})"
    text = text.replace("lanes.v", "F.").replace("math.fabs(", "torch.abs(")
    return re.sub(r"math\.(sqrt|atan|asin|acos)\(", r"torch.\1(", text)


def lines_of(items: Sequence[Item]) -> list[str]:
    """Traced lines and stores as torch statements."""
    return [f"{_torch(item.target)} = {_torch(item.text)}" for item in items]


def space_of(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The names that such statements use."""
    return {"torch": torch, "F": _Functions(dtype, device), "np": np, "math": math}


def _call(text: str) -> str:
    name, given = _CALL.match(text).groups()  # type: ignore[union-attr]
    arguments = [a.replace("S2[", "S[").replace("Z2[", "Z[") for a in given.split(", ")]
    out = max(i for i, a in enumerate(arguments) if a.startswith("S["))
    target = arguments.pop(out)
    return f"{target} = {name}({', '.join(arguments)})"


class _NumbaStage:
    """A compiled stage on rows of a CPU batch; rows go through memory that NumPy and torch share."""

    def __init__(self, function: Any, scalar: bool, outputs: int | None = None) -> None:
        self.function, self.scalar, self.outputs = function, scalar, outputs

    def __call__(self, *arguments: Any) -> Any:
        like = max(
            (row for rows in arguments if isinstance(rows, list) for row in rows if isinstance(row, torch.Tensor)), key=len_of
        )
        plain = [_array(a, like) for a in arguments]
        out = np.empty(len(like)) if self.scalar else np.empty((self.outputs or len(plain[0]), len(like)))
        split = next((i for i, a in enumerate(arguments) if isinstance(a, np.ndarray)), len(plain))
        self.function(*plain[:split], out, *plain[split:])
        made = torch.from_numpy(out).to(like.dtype)
        return made if self.scalar else list(made)


def len_of(row: torch.Tensor) -> int:
    """Paths of a row; a constant has none."""
    return len(row) if row.ndim else 0


def _array(a: Any, like: torch.Tensor) -> Any:
    if isinstance(a, list):
        rows = [torch.as_tensor(row, dtype=like.dtype).expand(like.shape) for row in a]
        return np.ascontiguousarray(torch.stack(rows).double().numpy())
    return float(a) if isinstance(a, torch.Tensor) else a


@dataclass(frozen=True)
class TorchSource:
    """Compiled Python functions: `step(S, Z, A, C, P, k)` for each length of step, and `record(S, V, slot, c, rho, P)`."""

    steps: tuple[tuple[int, Any], ...]
    record: Any
    rows: int
    first: tuple[int, ...]
    held: int
    gathered: int


def write_torch(program: Program, device: torch.device, dtype: torch.dtype) -> TorchSource:
    """The torch functions of a program; NotTraceable when a part of it cannot run there."""
    build = Build(program, torch=True)
    first, held, sums, gathered = layout(build)
    draw_rows = np.cumsum([0, *(p.rows for p in program.noise.sets)])
    build.draw_rows = draw_rows.tolist()
    build.draw_texts = [
        [f"Z[{(at + i) * LANES} + j]" for i in range(p.rows)] for at, p in zip(build.draw_rows, program.noise.sets)
    ]
    names = [(i, name) for i, m in enumerate(program.members) for name in m.coefficients]
    texts: dict[int, list[str]] = {}
    for every, bodies, calls in passes(build, first, held, sums, gathered):
        lines = [f"c{i}_{name} = C[{n}]" for n, (i, name) in enumerate(names)]
        lines += [f"p{i} = P[{i}]" for i in range(len(program.parameters))]
        lines += ["share = P[1]"] if max(program.every) > 1 else []
        for n, (body, stores) in enumerate(bodies):
            lines += lines_of([*body, *(s if s.uses else Item(s.target, f"torch.full_like(S[0], {s.text})", ()) for s in stores)])
            lines += [_call(c) for c in calls[n : n + 1]]
        texts[every] = lines
    known = set(build.stages)
    record = _record_lines(build, first, held, sums)
    space = space_of(dtype, device)
    for name, function in build.stages.items():
        own = getattr(function, "torch_stage", False)
        if not own and device.type != "cpu":
            raise NotTraceable(f"a part that is compiled for a CPU (a loss or noise from data) cannot run on {device}")
        space[name] = function if own else _NumbaStage(function, name not in known, build.outputs_of.get(name))
    space |= {f"d{i}": array for i, array in enumerate(build.data)}
    steps = []
    for every, lines in texts.items():
        exec(compile(_function("step", "S, Z, C, P", lines), "<sdetools torch step>", "exec"), space)  # our own text
        steps.append((every, space["step"]))
    exec(compile(_function("record", "S, V, slot, c, rho, P", record), "<sdetools torch record>", "exec"), space)
    return TorchSource(tuple(steps), space["record"], build.rows, tuple(first), held, gathered)


def _function(name: str, arguments: str, lines: list[str]) -> str:
    return f"def {name}({arguments}):\n" + "\n".join(f"    {line}" for line in lines or ["pass"]) + "\n"


def _record_lines(build: Build, first: list[int], held: int, sums: int) -> list[str]:
    """Lines that return, for each recorded quantity, h of each member and the control."""
    program = build.program
    lines = [f"p{i} = P[{i}]" for i in range(len(program.parameters))] + ["out = []"]
    for o, h in enumerate(program.observables):
        tape = Tape()
        offset = program.parameter_offset(len(program.members) + o)
        p = symbols(tape, [f"p{offset + n}" for n in range(len(getattr(h, "parameters", ())))])
        outputs: list[tuple[str, Any]] = []
        for i, member in enumerate(program.members):
            x = symbols(tape, [f"S[{(first[i] + d) * LANES} + j]" for d in range(member.dim)])
            stage = build.value_stage(h)
            if stage is not None:
                name, data = build.stage(stage)
                lines.append(f"w{i} = {name}(S[{first[i]}:{first[i] + member.dim}]{data})")
                value: Any = tape.load(f"w{i}")
            else:
                value = observable_value(h, x, p)
            for coordinate in x:
                value = value + coordinate * 0.0
            outputs.append((f"h{i}", value))
        if program.pair:
            controlled = program.control is not None and build.value_stage(h) is None
            outputs.append(("h2", control_value(build, h, tape, p, held) if controlled else 0.0))
        ((body, stores),), _ = tape.segments(outputs, lambda n: f"s{n}")
        lines += lines_of([*body, *stores])
        lines.append(f"out.append(({', '.join(target for target, _ in outputs)},))")
    for f in range(len(program.functionals)):
        rows = [f"S[{sums + f * len(program.members) + i}]" for i in range(len(program.members))]
        lines.append(f"out.append(({', '.join([*rows, '0.0'][: 3 if program.pair else 1])},))")
    return [*lines, "return out"]


class Runner:
    """Runs chunks of a task in batches on one device."""

    def __init__(self, task: Task) -> None:
        assert task.program is not None
        self.task, self.program = task, task.program
        self.device, self.dtype = parse(task.backend)
        self.source = write_torch(self.program, self.device, self.dtype)
        self.keys = [int(k) for k in task.arguments[0]]
        self.size = task.blocks * LANES

    def batches(self, waiting: Sequence[int]) -> Iterator[list[int]]:
        """Runs of consecutive chunks, each of at most a batch's paths (one chunk at least)."""
        most = max(1, (CPU_BATCH if self.device.type == "cpu" else DEVICE_BATCH) // self.size)
        batch: list[int] = []
        for index in waiting:
            if batch and (index != batch[-1] + 1 or len(batch) >= most):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    @torch.no_grad()
    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        """The results of consecutive chunks."""
        program, source = self.program, self.source
        begin, until = batch[0] * self.size, min((batch[-1] + 1) * self.size, self.task.paths)
        paths = until - begin
        sizes = [min(self.size, self.task.paths - i * self.size) for i in batch]
        draws = Draws(self.keys, begin, paths, self.device, self.dtype)
        S = self._start(draws, paths)
        C = torch.as_tensor(program.coefficients, dtype=self.dtype, device=self.device)
        P = torch.as_tensor(program.parameters, dtype=self.dtype, device=self.device)
        sums = np.zeros((len(batch), *self.task.shape))
        control, V = program.control, {}
        record = {int(k): t for t, k in enumerate(program.record)}
        dim, n = program.members[0].dim, program.noise.motions
        seen = [np.full(len(batch), NEVER) for _ in program.members]
        for k in range(program.steps + 1):
            if control is not None and control.anchor_slot[k] >= 0:
                at = source.first[0]
                V[int(control.anchor_slot[k])] = [
                    *(S[at + d] - float(control.memory[k]) * S[at + dim + d] for d in range(dim)),
                    *(S[source.held + d] for d in range(dim)),
                ]
            if k in record:
                t = record[k]
                slot, c, rho = (
                    (int(control.slot[t]), float(control.factor[t]), float(control.fading[t])) if control else (0, 0.0, 0.0)
                )
                for o, values in enumerate(source.record(S, V, slot, c, rho, P)):
                    sums[:, t, o] = _moments(values, sizes, paths, self.device)
            if k == program.steps:
                break
            Z: list[torch.Tensor] = []
            for s, plan in enumerate(program.noise.sets):
                every = program.noise.every(s)
                Z += draws(s, plan, k // every) if (k + 1) % every == 0 else [torch.empty(0)] * plan.rows
            if program.noise.gathered:
                for i in range(n):
                    if program.noise.gathered > n:
                        S[source.gathered + n + i] = (
                            S[source.gathered + n + i] + S[source.gathered + i] + 0.5 * Z[i] + 0.5 / 3**0.5 * Z[n + i]
                        )
                    S[source.gathered + i] = S[source.gathered + i] + Z[i]
            row = C[min(k, len(C) - 1)]
            for every, step in source.steps:
                if (k + 1) % every == 0:
                    step(S, Z, row, P)
                    if every > 1:
                        for i in range(program.noise.gathered):
                            S[source.gathered + i] = torch.zeros_like(S[source.gathered + i])
            if (k + 1) % 64 == 0 or k + 1 == program.steps:
                self._watch(S, sizes, seen, k + 1)
        return self._results(S, sums, sizes, batch, seen)

    def _start(self, draws: Draws, paths: int) -> list[torch.Tensor]:
        program = self.program
        S = [torch.zeros(paths, dtype=self.dtype, device=self.device) for _ in range(self.source.rows)]
        z = draws.start(program.start_plan)
        for i, (member, x0) in enumerate(zip(program.members, program.x0)):
            own, offset = sum(d.n for d in member.start_draws), program.start_offset(i)
            mean = np.concatenate(member.start(x0, np.zeros(own)))
            for r, value in enumerate(mean.tolist()):
                row = torch.full((paths,), value, dtype=self.dtype, device=self.device)
                for j in range(own):
                    factor = float(np.concatenate(member.start(x0, np.eye(own)[j]))[r] - value)
                    if factor:
                        row = row + factor * z[offset + j]
                S[self.source.first[i] + r] = row
        return S

    def _rows(self, S: list[torch.Tensor], i: int) -> torch.Tensor:
        member, at = self.program.members[i], self.source.first[i]
        total = sum(S[at + r] * 0.0 for r in range(len(member.parts) * member.dim))
        return total != 0.0

    def _watch(self, S: list[torch.Tensor], sizes: list[int], seen: list[np.ndarray], k: int) -> None:
        """Notes the first look (every 64 steps) at which a chunk had lost paths; the exact step is found by running those again."""
        for i in range(len(self.program.members)):
            gone = self._rows(S, i)
            if bool(gone.any()):
                for c, part in enumerate(torch.split(gone, sizes)):
                    if bool(part.any()):
                        seen[i][c] = min(seen[i][c], k)

    def _results(
        self, S: Any, sums: np.ndarray, sizes: list[int], batch: Sequence[int], seen: list[np.ndarray]
    ) -> list[ChunkResult]:
        lost = [[int(part.sum()) for part in torch.split(self._rows(S, i), sizes)] for i in range(len(self.program.members))]
        points: Any = [np.empty((self.task.position_rows, 0))] * len(batch)
        if self.task.keep:
            rows = [S[self.source.first[i] + d] for i, m in enumerate(self.program.members) for d in range(m.dim)]
            points = [part.double().cpu().numpy() for part in torch.split(torch.stack(rows), sizes, dim=1)]
        out = []
        for c, index in enumerate(batch):
            first = np.array([s[c] for s in seen])
            if (first != NEVER).any():
                first = self._first_loss(index, first)
            out.append(ChunkResult(sums[c], sizes[c], np.array([row[c] for row in lost]), first, points[c]))
        return out

    @torch.no_grad()
    def _first_loss(self, index: int, looked: np.ndarray) -> np.ndarray:
        """The exact first steps at which a chunk lost a path: the same paths once more, with a look at every step."""
        program, source = self.program, self.source
        begin = index * self.size
        paths = min(self.size, self.task.paths - begin)
        draws = Draws(self.keys, begin, paths, self.device, self.dtype)
        S, found = self._start(draws, paths), np.full(len(program.members), NEVER)
        C = torch.as_tensor(program.coefficients, dtype=self.dtype, device=self.device)
        P = torch.as_tensor(program.parameters, dtype=self.dtype, device=self.device)
        if max(program.every) > 1:
            return looked  # a look is exact to 64 of the short steps
        for k in range(int(looked[looked != NEVER].max())):
            Z = [z for s, plan in enumerate(program.noise.sets) for z in draws(s, plan, k)]
            for _, step in source.steps:
                step(S, Z, C[min(k, len(C) - 1)], P)
            for i in range(len(program.members)):
                if found[i] == NEVER and bool(self._rows(S, i).any()):
                    found[i] = k + 1
        return found


def _moments(values: tuple[Any, ...], sizes: list[int], paths: int, device: torch.device) -> np.ndarray:
    """Moments of each chunk as the other backends have them, `(chunks, statistics)`, in double precision."""
    rows = [v.double() if isinstance(v, torch.Tensor) else torch.zeros(paths, dtype=torch.float64, device=device) for v in values]
    if len(rows) == 3:
        rows.insert(2, rows[0] - rows[1])
    means, centred = zip(*(_centred(r, sizes) for r in rows))
    if len(rows) == 1:
        return np.column_stack([means[0], _sums(centred[0] ** 2, sizes)])
    x, z, d, c = centred
    products = [_sums(v, sizes) for v in (x * x, z * z, d * d, c * c, d * c)]
    return np.column_stack([*means[:3], *products[:3], means[3], *products[3:]])


def _centred(row: torch.Tensor, sizes: list[int]) -> tuple[np.ndarray, torch.Tensor]:
    """Means of chunks, and the row about them: about each chunk's first value first, so that equal values give exactly zero."""
    starts = np.cumsum([0, *sizes[:-1]])
    pivot = row[torch.as_tensor(starts, device=row.device)]
    counts = torch.as_tensor(sizes, device=row.device)
    own = row - torch.repeat_interleave(pivot, counts, output_size=len(row))
    shift = torch.as_tensor(_sums(own, sizes) / np.array(sizes), device=row.device)
    return (pivot + shift).cpu().numpy(), own - torch.repeat_interleave(shift, counts, output_size=len(row))


def _sums(row: torch.Tensor, sizes: list[int]) -> np.ndarray:
    """Sums over chunks in an order that does not depend on threads."""
    if row.device.type == "cpu":
        return np.add.reduceat(row.numpy(), np.cumsum([0, *sizes[:-1]]))
    even = len(sizes) if sizes[-1] == sizes[0] else len(sizes) - 1
    whole = row[: even * sizes[0]].view(even, sizes[0]).sum(dim=1).cpu().numpy() if even else np.zeros(0)
    return np.append(whole, float(row[even * sizes[0] :].sum())) if even < len(sizes) else whole
