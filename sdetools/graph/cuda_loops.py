"""Code generator of loops over components for CUDA: a thread is a lane, so there is no loop over lanes.

Row r of lane j lies at `r * lanes + j`: the threads of a warp read neighbouring numbers. All functions are written inline, because Numba
would ask the driver for the device of a device function. A product with a large matrix is not part of a kernel: it is one of `products`,
run between two kernels, and its key marks where the kernel is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any

from sdetools.graph.elements import Item, indent
from sdetools.graph.loops import Loops
from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Value
from sdetools.graph.views import dense

GEMM = 64 * 64
"""Entries of a matrix from which a product is a separate GEMM."""
LONGEST, PIECE = 200, 150
"""Operations of straight-line code in one kernel, and in each piece of a longer one."""
TEXTS = {
    "maximum": "({0} if {0} >= {1} or {0} != {0} else {1})",
    "minimum": "({0} if {0} <= {1} or {0} != {0} else {1})",
    "sign": "({one} if {0} > {zero} else (-{one} if {0} < {zero} else ({zero} if {0} == {zero} else {0})))",
}
"""Functions that CUDA's library lacks, with NumPy's results for NaN."""
LIBRARY = {"absolute": "fabs", "power": "pow", "arctan": "atan", "arcsin": "asin", "arccos": "acos"}
"""CUDA's names of functions, where they differ from NumPy's."""


@dataclass(frozen=True)
class Product:
    """A matrix product that runs between two CUDA kernels (functions that all threads execute, one thread for each path).

    out[i] = sum_k A[i, k] x[k], for i < n and k < d: A is `Tables.data[matrix]`, `(n, d)`. A row has one number for each path, and x[k] and out[i]
    are blocks of `columns` consecutive rows. The result is written to S, the array of the state and of working memory.

    Attributes:
        matrix: Number of the matrix A in `graph.elements.Tables.data`.
        array: "S" (state) or "Z" (draws), the array that has x.
        source: First row of x in that array.
        target: First row of out in S.
        columns: Number of rows of a block: the product of the lengths of all axes of x but the first, 1 for a vector.
    """

    matrix: int
    array: str
    source: int
    target: int
    columns: int


class CudaLoops(Loops):
    """Writes the code that computes values of a graph, as `Loops` does, for CUDA kernels in which each thread advances one lane, the place of a path.

    `given` are the arguments of `Loops` (outputs, rows, draws, names, free, lanes, tables), with `lanes`, the number of lanes, as a text, such as
    "lanes"; the attribute `lines` has the code. Where the code is cut into kernels it has a marking line, such as "product 12" or "cut 0"; the
    attribute `products` maps each of these lines to the matrix product that runs there, a `Product`, or to None.
    """

    NEVER_INLINED, ROWWISE, STORES, BUDGET = (), (), 24, inf

    def __init__(self, *given: Any) -> None:
        self.products: dict[str, Product | None] = {}
        super().__init__(*given)

    @property
    def in_registers(self) -> bool:
        """Whether `CudaStraight`, which uses no memory, can write the code.

        So it is if the code has no loop over components, is one kernel, and takes no samples of data at drawn indices (registers have no index).
        """
        return self.unrolled and not self.products and not any(n.op in ("rows", "tally") for n in self.nodes)

    def entry(self, name: str, index: tuple[Any, ...]) -> str:
        """Return the expression of element `index` of the constant array `name`: "d0[i0, 1]" for "d0" and ("i0", 1), ints or loop variables."""
        return f"{name}[{', '.join(map(str, index))}]"

    def begins(self, row: int) -> str:
        """Return the expression of the position in the flat array S at which row `row`, one number for each lane (path), begins: "4 * lanes"."""
        return f"{row} * {self.L}"

    def lane_loop(self, body: Sequence[str]) -> list[str]:
        """Return the lines of code `body` themselves: a thread advances one lane (path), so there is no loop over lanes."""
        return list(body)

    def begin(self) -> None:
        """Begin a new body of code: empty the lists of lines, variables and conditions (truth values) of the one before.

        Rows of working memory stay reserved.
        """
        super().begin()
        self.conditions: set[str] = set()

    def emit(self, v: Value | None, text: str, uses: Sequence[str], **more: Any) -> str:
        """Add the line `name = text` of code and return its new name, such as "v3"; if `v` is a condition, the name is added to `conditions`.

        Args:
            v: The value that the line computes; None for a load from memory.
            text: The right-hand side, such as "v1 + v2".
            uses: The names of the variables in `text`.
            **more: Further fields of `graph.straight.Item` by name, such as load=True.
        """
        name = super().emit(v, text, uses, **more)
        self.conditions |= {name} if v is not None and v.boolean else set()
        return name

    def scheduled(self, ends: Sequence[Item]) -> list[str]:
        """Return, as lines of code, what `emit` has added since `begin`, and then `ends`, the lines that write the results.

        More than `LONGEST` = 200 lines are cut into several kernels, by marking lines such as "cut 0", which are keys of `products`. Between kernels,
        values are in rows of working memory.
        """
        own = [item for item in self.items if not item.load]
        if len(own) > LONGEST:
            return self._in_pieces([own[n : n + PIECE] for n in range(0, len(own), PIECE)], ends)
        return [f"{item.target} = {item.text}" for item in [*self.items, *ends]]

    def _in_pieces(self, pieces: Sequence[list[Item]], ends: Sequence[Item]) -> list[str]:
        """Return the lines of several kernels, one for each of `pieces`, with cuts between them; `ends` are the last lines, which write the results."""
        loads = {item.target: [f"{item.target} = {item.text}"] for item in self.items if item.load}
        made = [{item.target for item in piece} for piece in pieces]
        wanted = [dict.fromkeys(use for item in piece for use in item.uses) for piece in [*pieces[:-1], [*pieces[-1], *ends]]]
        lines: list[str] = []
        for n, piece in enumerate(pieces):
            lines += [line for use in wanted[n] if use not in made[n] for line in loads[use]]
            lines += [f"{item.target} = {item.text}" for item in piece]
            for name in dict.fromkeys(use for later in wanted[n + 1 :] for use in later if use in made[n]):
                place, flag = self.place(self.take(1), 0), name in self.conditions
                lines.append(f"{place} = {self.number_of(name) if flag else name}")
                loads[name] = [f"{name} = {place} != {self.zero}" if flag else f"{name} = {place}"]
            if n + 1 < len(pieces):
                cut = f"cut {len(self.products)}"
                self.products[cut] = None
                lines += [cut, *self.pre]
        return [*lines, *(f"{end.target} = {end.text}" for end in ends)]

    def function(self, name: str, given: Sequence[str]) -> str:
        """Return the expression of NumPy's function `name` of the expressions `given`: "math.atan(v3)" for "arctan" and ["v3"].

        For "maximum", "minimum" and "sign", which CUDA's library lacks, it is a conditional expression from `TEXTS`.
        """
        if name in TEXTS:
            return TEXTS[name].format(*given, zero=self.zero, one=self.one)
        return f"math.{LIBRARY.get(name, name)}({', '.join(given)})"

    def _call(self, n: Value) -> list[str]:
        if n.op in ("join", "tally"):
            return super()._call(n)
        if n.op == "call":
            raise NotTraceable("a part that is compiled for a CPU (a loss or noise from data)")
        a, x = n.args
        inside = x.key in self.at or x.key in self.draws
        if a.size < GEMM or not inside:
            return self._written_out(n)
        from_z = x.key in self.draws
        row = self.draws[x.key].row if from_z else self.at[x.key]
        if from_z:
            self.from_rows.add(x.key)
        matrix = int(self.tables.array(a.extra)[1:])
        product = Product(matrix, "Z" if from_z else "S", row, self.at[n.key], prod(x.shape[1:]))
        name = f"product {product.target}"
        self.products[name] = product
        return [name]

    def _written_out(self, n: Value) -> list[str]:
        """Return the lines of code of the product `n` with a small matrix: a loop over its rows, with an inner loop for the sum."""
        self.begin()
        index = tuple(f"i{a}" if size > 1 else 0 for a, size in enumerate(n.shape))
        a, x = n.args
        factors = self.element(a, (index[0], "m")), self.element(x, ("m", *index[1:]))
        lines = [*self.pre, *(f"{item.target} = {item.text}" for item in self.items)]
        lines = [
            "total = " + self.zero,
            f"for m in range({self.tables.size(a.shape[1])}):",
            *indent([*lines, f"total += {' * '.join(factors)}"]),
        ]
        self.begin()
        place = self.place(self.at[n.key], self.flat(index, dense(n.shape)))
        lines += [*self.pre, f"{place} = total"]
        for axis in reversed(range(n.ndim)):
            if n.shape[axis] > 1:
                lines = [f"for i{axis} in range({self.tables.size(n.shape[axis])}):", *indent(lines)]
        return lines


class CudaStraight(CudaLoops):
    """Writes the code of `CudaLoops`, with its arguments `given`, in local variables of a thread instead of memory.

    That needs code without loops over components (`CudaLoops.in_registers`). Row 4 of S (state and working memory) is the variable s4, row 4 of Z
    (draws) is z4; the attribute `used` is the set of the rows of S that the code reads or writes.
    """

    def __init__(self, *given: Any) -> None:
        self.used: set[int] = set()
        super().__init__(*given)

    def place(self, row: int, flat: Any, array: str = "S", more: str = "") -> str:
        """Return the name of the local variable that is row `row + flat` of `array`: "s4" for row 4 of "S", "z4" for "Z".

        `flat` is an int, `more` is ignored. A row of "S" is added to `used`.
        """
        if array == "S":
            self.used.add(row + flat)
        return f"{array.lower()}{row + flat}"
