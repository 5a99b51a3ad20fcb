"""What a file of a result contains of dynamics and of other code: their descriptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Described:
    """What a file of a result contains of a dynamics, such as `st.SGD`, or of other code: a description, which cannot be run.

    Attributes:
        name: The name, which is also the repr.
        names: The names of the coordinates, such as "x0" and "x1"; empty for code other than dynamics.
        parts: The names of the arrays that make up the state, such as "x" (point) and "m" (momentum buffer); empty for other code.
        dim: The number of coordinates; 0 for other code.
        step_time: The time by which one step advances; 0 for other code.
        loss: Always None: a file contains no loss.
    """

    name: str
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    dim: int = 0
    step_time: float = 0.0
    loss: None = None

    @classmethod
    def of(cls, given: Any) -> Described:
        """Return the description of any object `given`.

        It has all fields if the object has coordinates, that is, attributes `names` and `dim`. Otherwise it has a name alone: the attribute `name` or
        `label` of the object, or the name of its class.
        """
        found = {key: getattr(given, key, None) for key in ("names", "parts", "dim", "step_time")}
        if not isinstance(found["names"], (tuple, list)) or not isinstance(found["dim"], (int, np.integer)):
            return cls(str(getattr(given, "name", None) or getattr(given, "label", None) or type(given).__name__))
        names, parts = (tuple(map(str, found[key] or ())) for key in ("names", "parts"))
        return cls(
            str(getattr(given, "name", type(given).__name__)),
            names,
            parts,
            int(found["dim"]),
            float(found["step_time"] or 0.0),
        )

    def __repr__(self) -> str:
        return self.name
