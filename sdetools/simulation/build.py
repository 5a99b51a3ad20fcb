"""A source while it is written: rows of the state array, the tape of the step, and the stages that are cut into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.losses.base import Stage
from sdetools.simulation.frame import row
from sdetools.simulation.program import Program
from sdetools.simulation.trace import NotTraceable, Tape, Traced, symbols


@dataclass
class Build:
    """Rows of the state array, stage functions and their data, while a source is written."""

    program: Program
    tape: Tape = field(default_factory=Tape)
    rows: int = 0
    stages: dict[str, Callable[..., Any]] = field(default_factory=dict)
    data: list[np.ndarray] = field(default_factory=list)
    outputs: list[tuple[Any, Any]] = field(default_factory=list)
    draw_texts: list[list[str]] = field(default_factory=list)
    draw_rows: list[int] = field(default_factory=list)
    torch: bool = False
    """Whether stages are torch functions where there are any."""
    outputs_of: dict[str, int] = field(default_factory=dict)
    """Rows that the stage of a block writes, by its name."""
    _blocks: dict[Any, np.ndarray] = field(default_factory=dict)

    def take(self, count: int) -> int:
        """Reserves rows of the state array."""
        self.rows += count
        return self.rows - count

    def gradient_stage(self, loss: Any) -> Any:
        """The stage of a loss's gradient, if it has one for this backend."""
        return (loss.torch_stage if self.torch else None) or loss.stage

    def value_stage(self, observable: Any) -> Any:
        """The stage of an observable's value, likewise."""
        own = getattr(observable, "torch_value_stage", None) if self.torch else None
        return own or getattr(observable, "value_stage", None)

    def rows_of(self, x: Any) -> int | None:
        """The first of the consecutive state rows that `x` consists of, if it is nothing but state."""
        texts = [self.tape.text_of(value) for value in x]
        for r in range(self.rows - len(texts) + 1):
            if texts[0] == row(r):
                return r if texts == [row(r + i) for i in range(len(texts))] else None
        return None

    def new_tape(self) -> None:
        """An empty tape, whose blocks run here."""
        self.tape, self.outputs, self._blocks = Tape(run=self.run_block), [], {}

    def run_stage(self, stage: Any, parts: Sequence[Any], rows: int, more: str = "") -> tuple[str, np.ndarray]:
        """Cuts the tape for a stage on rows, `function(*parts, more, out, *data)` with `rows` rows of `out`: its name and their symbols."""
        out, views = self.take(rows), []
        for part in parts:
            at = self.rows_of(part)
            if at is None:
                at = self.take(len(part))
                segment = len(self.tape.calls)
                self.outputs += [((segment, row(at + i)), value) for i, value in enumerate(part)]
            views.append(f"S2[{at}:{at + len(part)}]")
        name, data = self.stage(stage)
        self.tape.cut(f"{name}({', '.join(views)}{more}, S2[{out}:{out + rows}]{data})")
        return name, symbols(self.tape, [row(out + i) for i in range(rows)])

    def run_block(self, block: Any, parts: Sequence[Any]) -> np.ndarray:
        """The results of a block on traced rows; the same block on the same rows runs once."""
        key = (id(block), *(v.name if isinstance(v, Traced) else float(v) for part in parts for v in part))
        if key not in self._blocks:
            if block.function is None and not self.torch:
                raise NotTraceable("a part that runs on whole arrays only")
            stage = Stage(block.function or Plain(block), block.data)
            rows = block.outputs + (block.scratch if block.function is not None else 0)
            name, made = self.run_stage(stage, parts, rows)
            self.outputs_of[name] = rows
            self._blocks[key] = made[: block.outputs]
        return self._blocks[key]

    def stage(self, stage: Any) -> tuple[str, str]:
        """The name of a stage's function in the text, and its data arguments; NotTraceable for one of torch where torch does not run."""
        if getattr(stage.function, "torch_stage", False) and not self.torch:
            raise NotTraceable("a part that is given to torch")
        for name, known in self.stages.items():
            if known is stage.function:
                break
        else:
            name = f"stage{len(self.stages)}"
            self.stages[name] = stage.function
        arguments = []
        for array in stage.data:
            for i, known_array in enumerate(self.data):
                if known_array is array:
                    break
            else:
                i = len(self.data)
                self.data.append(array)
            arguments.append(f"d{i}")
        return name, "".join(f", {a}" for a in arguments)


class Plain:
    """A block without compiled code as a stage: rows go to its `plain` and come back, through memory that NumPy shares."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, *rows: np.ndarray) -> None:
        rows[-1][:] = self.block.plain(*rows[:-1])
