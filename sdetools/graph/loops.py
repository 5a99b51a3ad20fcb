"""Code generator for loops over components and lanes, shared by CPUs (inner loop over lanes) and CUDA (a thread is a lane).

Few components become straight-line code. Many become loops, whose code is as long for 10 components as for 10,000. Values that are stored before
they are read (rows of a GEMM, long sums, joins, functions of rows) divide the work into phases; all else is fused. See `elements` for lane, row, S, Z.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from sdetools.graph.arrays import pull
from sdetools.graph.elements import PRICE, Draw, Tables, indent
from sdetools.graph.long_formulas import LINES, LongFormulas
from sdetools.graph.value import MOST, Value, order
from sdetools.graph.views import dense

UNROLL, STORES = 160, 64
"""Operations on arrays, and elements of results, up to which everything is straight-line code; scalar operations always are."""
JAM = 4
"""Columns of a sample that one iteration reads (unroll and jam)."""
BEGIN = {"add": "0.0", "multiply": "1.0", "maximum": "-np.inf", "minimum": "np.inf"}
"""Initial values of reductions."""
CHAIN = 40
"""Longest chain of dependent operations in a loop: the generator recurses for each, and LLVM holds their results in registers."""
SHORT = 4
"""Number of terms up to which a sum is written out within a loop."""
SMALL = 64
"""Rows and columns up to which a matrix is too small for BLAS, which would spend longer on packing than on the product."""
ROWWISE = ("sin", "cos", "tan", "exp", "log", "log1p", "expm1", "sinh", "cosh", "tanh", "arctan", "arcsin", "arccos", "power")
"""Functions that loops over components call on whole rows, and straight-line code inlines (except for angles)."""


class Loops(LongFormulas):
    """Writes, when it is created, the code that computes `outputs`, pairs (first row in the array S, symbolic array); attribute `lines` has the code.

    Attribute `by_tiles` says whether the lines are one loop over tiles (ranges of components) that are independent of each other; `opening` is then
    its first line. `rows`, `draws` and `names` map `Value.key` of an input to its place: its first row in S, a `Draw`, the name of a variable. `free` is
    the first row of working memory, `lanes` the number of lanes (paths) or its text, and `tables` collects what the code refers to.
    """

    ROWWISE: tuple[str, ...] = ROWWISE
    STORES: int = STORES

    def __init__(
        self, outputs: Sequence[tuple[int, Value]], rows: dict[Any, int], draws: dict[Any, Draw], names: dict[Any, str], free: int, lanes: Any,
        tables: Tables,
    ) -> None:  # fmt: skip
        super().__init__(rows, draws, names, free, lanes, tables)
        self.outputs = list(outputs)
        self.nodes = order([v for _, v in self.outputs])
        self.unrolled = self.cost <= UNROLL and sum(v.size for _, v in self.outputs) <= self.STORES
        self.opening, self.by_tiles = "", False
        self.lines = self._phases()
        if len(self.lines) > LINES:
            self.lines, self.by_tiles = self.shorter(dict(rows), free), False

    @property
    def cost(self) -> int:
        """Operations of one path if all loops over components were written out: entries of arrays and terms of sums, without what all paths share."""
        return sum(operations(n) for n in self.nodes if not n.uniform and (n.size > 1 or n.op == "reduce"))

    # ---- phases

    def _phases(self) -> list[str]:
        if self.unrolled and not any(n.op == "call" for n in self.nodes):
            sampled = [n for n in self.nodes if n.op in ("rows", "tally")]
            self.at |= {n.key: self.take(n.size) for n in sampled}
            return [*(line for n in sampled for line in self._sampled(n)), *self.straight(self.outputs)]
        if self._is_long(self.nodes) and (made := self.as_programs(self.outputs, self.nodes)) is not None:
            return made
        stored = self._stored_values()
        level: dict[Any, int] = {}
        for n in self.nodes:
            level[n.key] = max((level[a.key] + (a.key in stored) for a in n.args), default=0)
        groups: dict[tuple[Any, ...], list[tuple[Value, int | None]]] = {}
        for n in stored.values():
            self.at[n.key] = self.take(n.size + (n.extra.scratch if n.op == "call" else 0))
        for n in stored.values():
            kind = self._kind(n)
            shape = n.args[0].shape if kind == "loop" and n.op == "reduce" else n.shape
            separate = () if kind == "straight" else n.key if kind == "call" else shape
            head = level[n.key], {"loop": 0, "call": 1, "straight": 1}[kind], kind, separate
            groups.setdefault(head, []).append((n, None))
        for row, v in self.outputs:
            kind = "loop" if v.size > 1 and self._kind(v) != "straight" else "straight"
            groups.setdefault((level[v.key], 2, kind, () if kind == "straight" else v.shape), []).append((v, row))
        schedule = sorted(groups.items(), key=lambda e: e[0][:2])
        self._tile(schedule)
        lines, late = list[str](), list[str]()
        for e, (head, members) in enumerate(schedule):
            lines += self._group(head[2], members, schedule[e + 1 :], late)
        self.by_tiles = len(schedule) == 1 and lines[:1] == [self.opening] and not late
        return lines + late

    def _is_long(self, nodes: Sequence[Value]) -> bool:
        """Whether the loops of these nodes exceed the budget of code, but their elements are few enough for a program."""
        made = [n for n in nodes if n.op in ("map", "reduce", "contract", "join") and not n.uniform]
        numbers = sum(n.size * (n.args[0].shape[1] if n.op == "contract" else 1) for n in made)
        return len(made) > self.BUDGET and numbers <= MOST

    def _stored_values(self) -> dict[Any, Value]:
        """Return the values that must be stored as rows before they are read, in order."""
        stored: set[Any] = set()
        long: dict[Any, int] = {}
        for n in self.nodes:
            long[n.key] = 1 + max((long[a.key] for a in n.args if a.key not in stored), default=0)
            if long[n.key] > CHAIN and n.op == "map" and n.size > 1:
                stored.add(n.key)
            if n.uniform and n.op not in ("join", "reduce", "contract"):
                continue
            if n.op in ("contract", "call", "join", "tally") or (n.op == "reduce" and n.args[0].size > SHORT * n.size):
                stored.add(n.key)
            if self.rowwise(n):
                stored |= {n.key, *(a.key for a in n.args)}
            if n.op == "map" and n.name in self.NEVER_INLINED and n.size == 1:  # a loop inlines all other functions
                stored.add(n.key)
            if n.op in ("contract", "call"):
                stored |= {a.key for a in n.args if not a.uniform or (n.op == "call" and a.ndim)}
            if n.op == "view" and n.args[0].op not in ("input", "const") and pull(n) is None and n.size > 1:
                stored.add(n.args[0].key)
            if n.op == "reduce":  # a nested sum would be written out for every term
                stored |= self._nested_sums(n.args[0], stored)
            if n.op in ("map", "rows") and n.size > 1:  # a loop would recompute it in every iteration
                stored |= {a.key for a in map(source_of, n.args) if a.op == "map" and not a.uniform and a.size < n.size}
        rows = set(self.inputs) | set(self.draws)
        return {
            n.key: n for n in self.nodes if n.key in stored and n.op != "const" and n.key not in rows and n.key not in self.names
        }

    def _nested_sums(self, v: Value, stored: set[Any]) -> set[Any]:
        """Return the keys of the sums from which a value is computed and that its code would write out; `stored` has the keys of stored values."""
        found, todo, seen = set(), [v], set()
        while todo:
            n = todo.pop()
            if n.key in seen or n.key in stored or n.uniform:
                continue
            seen.add(n.key)
            found |= {n.key} if n.op == "reduce" else set()
            todo += () if n.op == "reduce" else n.args
        return found

    def _kind(self, n: Value) -> str:
        """Return how a stored value is made: in a loop over components ("loop"), by a call ("call"), or as code without loops ("straight")."""
        if n.op in ("contract", "call", "tally"):
            return "call"
        if self.rowwise(n):
            return "call"
        if n.op == "join":
            return "straight" if all(p.size == 1 for p in n.args) else "call"
        return "loop" if (n.args[0].size if n.op == "reduce" else n.size) > 1 else "straight"

    def rowwise(self, n: Value) -> bool:
        """Whether the value n is computed by a call on whole arrays: a function of `ROWWISE`, exp say, of values of its shape that differ between paths."""
        return (
            n.op == "map" and n.name in self.ROWWISE and n.size > 1 and all(a.shape == n.shape and not a.uniform for a in n.args)
        )

    def _tile(self, schedule: Sequence[Any]) -> None:
        """Generate draws in tiles of rows if a single loop reads them, each at its own component."""
        for key, draw in self.draws.items():
            z = next((n for n in self.nodes if n.key == key), None)
            if z is None or not draw.tile or z.size <= draw.tile:
                continue
            readers = [n for n in self.nodes if any(a.key == key for a in n.args)]
            loops = [(head, members) for head, members in schedule if any(self._reads(m, key) for m, _ in members)]
            if (
                all(n.op == "map" and n.shape == z.shape for n in readers)
                and len(loops) == 1
                and loops[0][0][2:] == ("loop", z.shape)
            ):
                self.tiled.add(key)

    def _reads(self, m: Value, key: Any) -> bool:
        """Whether computing `m` reads an input other than through stored rows."""
        return any(n.key == key for n in self._dependencies([m]))

    def _dependencies(self, members: Sequence[Value]) -> Iterator[Value]:
        """Yield the values that a loop reads or writes to compute some values."""
        todo, seen = list(members), {m.key for m in members}
        while todo:
            n = todo.pop()
            yield n
            if n.key in self.at and n.key not in {m.key for m in members}:
                continue
            for a in n.args:
                if a.key not in seen:
                    seen.add(a.key)
                    todo.append(a)

    def _group(self, kind: str, members: Sequence[tuple[Value, int | None]], later: Sequence[Any], late: list[str]) -> list[str]:
        stores: list[tuple[Value, int]] = []
        for v, row in members:
            if row is not None and not self._may_overwrite(v, row, kind, [m for m, _ in members], later):
                kept = self.take(v.size)
                late += self.copied(kept, row, v.size)
                row = kept
            stores.append((v, self.at[v.key] if row is None else row))
        self.making = {v.key for v, row in members if row is None}
        if kind == "loop" and self._is_long(list(self._dependencies([m for m, _ in members]))):
            kind = "straight"
        if kind == "straight":
            lines = self.straight([(row, v) for v, row in stores])
        elif kind == "call":
            lines = self._call(stores[0][0])
        else:
            lines = self._loop(stores)
        self.making = set()
        return lines

    def _may_overwrite(self, v: Value, row: int, kind: str, together: Sequence[Value], later: Sequence[Any]) -> bool:
        """Whether an output may overwrite its row: no later loop reads the old content, this one only at its own component."""
        own_keys = {b.key for b in together}
        below = {n.key for n in self._dependencies(together) if n.key not in self.at or n.key in own_keys}
        own = [
            n
            for n in self.nodes
            if n.key in self.inputs and self.inputs[n.key] < row + v.size and row < self.inputs[n.key] + n.size
        ]
        for s in own:
            if any(self._reads(m, s.key) for _, members in later for m, _ in members):
                return False
            reading = {s.key}
            for n in self.nodes:  # arguments first; a sum in between reads other components
                if n.key in below and any(a.key in reading for a in n.args):
                    reading.add(n.key)
                    if kind == "loop" and not (n.op == "map" and n.shape == v.shape and s.shape == v.shape):
                        return False
        return True

    def copied(self, source: int, target: int, count: int) -> list[str]:
        body = self.lane_loop([f"S[{self.begins(target)} + q + j] = S[{self.begins(source)} + q + j]"])
        return [f"for i in range({self.tables.size(count)}):", *indent([f"q = i * {self.L}", *body])]

    def _call(self, n: Value) -> list[str]:
        """Return the lines that compute a stored value by a function of rows, or join its parts."""
        L, at = self.L, self.at
        if n.op == "join":
            out, row = [], at[n.key]
            for part in n.args:
                out += self._loop([(part, row)]) if part.size > 1 else self.straight([(row, part)])
                row += part.size
            return out
        if n.op == "tally":
            return self._sampled(n)
        if n.op == "map":
            sources = [self.start_of(a) for a in n.args]
            count, more = f"{self.tables.size(n.size)} * {L}", sources[1] if len(sources) > 1 else "0"
            return [f"lanes.call({self.tables.function(n.name)}, {sources[0]}, {self.start_of(n)}, {count}, {more}, 0, 0)"]
        if n.op == "call" and n.extra.address:
            given = [*map(self.start_of, (*n.args, n)), *(f"{self.tables.array(d)}at" for d in n.extra.data), str(L), *"000"]
            return [f"lanes.call({self.tables.function(n.extra.address)}, {', '.join(given[:6])})"]
        if n.op == "call":
            self.begin()
            given = [self.number_argument(a) if a.uniform and not a.ndim else self.block(a) for a in n.args]
            data = "".join(f", {self.array_argument(d)}" for d in n.extra.data)
            out = f"S2[{at[n.key]}]" if n.ndim == 0 else f"S2[{at[n.key]}:{at[n.key] + n.size + n.extra.scratch}]"
            return [*self.pre, f"{self.tables.stage(n.extra.function)}({', '.join([*given, out])}{data})"]
        a, x = n.args
        product = self.tables.function("small_product" if max(a.shape) <= SMALL else "product")
        matrix = self.tables.array(a.extra)
        transposed = int(not self.tables.data[int(matrix[1:])].flags.c_contiguous)
        sizes = f"{a.shape[0] << 32 | a.shape[1]}, {self.tables.size(prod(x.shape[1:]))} * {L}"
        return [f"lanes.call({product}, {matrix}at, {self.start_of(x)}, {self.start_of(n)}, {sizes}, {transposed})"]

    def _sampled(self, n: Value) -> list[str]:
        """Return the lines that gather rows of data, or sum draws by index: loops over lanes of their own, as indexed access is not vectorised."""
        index, row, self.making = n.args[-1] if n.op == "rows" else n.args[0], self.at[n.key], {n.key}
        self.begin()
        at = ("i0",) if index.ndim else ()
        if n.op == "rows":
            rest = n.shape[index.ndim :]
            ends = []
            for k in np.ndindex(*rest):
                name = self.element(n, (*at, *k))
                strides = dense(n.shape)[0 if index.size > 1 else index.ndim :]
                ends.append(f"{self.place(row, self.flat((*(at if index.size > 1 else ()), *k), strides))} = {name}")
            lines = []
        else:
            which, *weights = [self.sample(index, at), *(self.element(a, at) for a in n.args[1:])]
            place = f"S[({row} + {which}) * {self.L} + j]"
            ends = [f"{place} = {place} + {weights[0] if weights else self.one}"]
            lines = self.filled(row, n.size, "0.0")
        self.making = set()
        body = [*self.pre, *self.lane_loop([*(f"{item.target} = {item.text}" for item in self.items), *ends])]
        if index.size > 1:
            body = [f"for i0 in range({self.tables.size(index.size)}):", *indent(body)]
        return [*lines, *body]

    def filled(self, row: int, count: int, number: str) -> list[str]:
        """Return the lines of code that set `count` rows of the array S, from row `row` on, to `number`, a text such as "0.0"."""
        body = [f"q = i * {self.L}", *self.lane_loop([f"S[{self.begins(row)} + q + j] = {number}"])]
        return [f"for i in range({self.tables.size(count)}):", *indent(body)]

    def array_argument(self, a: np.ndarray) -> str:
        """Return the expression of the constant array `a` with its shape, as an argument of a compiled function: "lanes.carray(d0, (N[0], ))"."""
        shape = "".join(f"{self.tables.size(n)}, " for n in a.shape)
        return f"lanes.carray({self.tables.array(np.ascontiguousarray(a))}, ({shape}))"

    def number_argument(self, v: Value) -> str:
        """Return the expression of v, one number for all paths, as an argument of a compiled function: a variable, "v3", or, if it is stored, "S[64]"."""
        return f"S[{self.at[v.key] * self.L}]" if v.key in self.at else self.element(v, ())

    def start_of(self, v: Value) -> str:
        """Return the expression of the address of v in memory, in bytes: "base + 8192" if it is stored in the array S, "Zbase + 8192" for draws."""
        size = self.tables.real.size
        if v.key in self.draws:
            draw = self.draws[v.key]
            self.from_rows.add(v.key)
            return f"Zbase + {size * draw.row * self.L}" + (f" + {size} * {draw.shift}" if draw.shift else "")
        return f"base + {size * self.at[v.key] * self.L}"

    def block(self, v: Value) -> str:
        """Return the expression of v, stored in S or Z (draws), as argument of a compiled function: "S2[4:7]", `(n, lanes)`, for a scalar "S2[4]"."""
        if v.key in self.draws:
            draw = self.draws[v.key]
            self.from_rows.add(v.key)
            return (
                f"Z2[{draw.row}:{draw.row + v.size}]"
                if not draw.shift
                else f"Z2[{draw.row} + {draw.shift} // {self.L}:{draw.row + v.size} + {draw.shift} // {self.L}]"
            )
        row = self.at[v.key]
        return f"S2[{row}:{row + v.size}]" if v.ndim else f"S2[{row}]"

    def _loop(self, stores: Sequence[tuple[Value, int]]) -> list[str]:
        """Return nested loops over the components of values of one shape, or of reductions over that shape."""
        shape = next(v.args[0].shape if self._reduces(v) else v.shape for v, _ in stores)
        zero = [line for v, row in stores if self._reduces(v) for line in self.filled(row, v.size, BEGIN[v.name])]
        sizes = [self.tables.size(n) if n > 1 else "1" for n in shape]
        ranges = [f"range({n})" for n in sizes]
        tiles = [self.draws[k] for k in self.tiled if any(n.key == k for n in self._dependencies([v for v, _ in stores]))]
        if tiles:
            ranges[0] = f"range(t, min(t + {tiles[0].tile}, {sizes[0]}))"
        lines = self._nest(stores, shape, ranges)
        jammed = next((a for a, n in enumerate(shape) if n >= JAM and f"i{a}" in self.columns), None)
        if jammed is not None:  # a lane's sample is looked up once for several columns
            last = [*ranges]
            ranges[jammed] = f"range(0, {sizes[jammed]} - {JAM - 1}, {JAM})"
            last[jammed] = f"range({sizes[jammed]} // {JAM} * {JAM}, {sizes[jammed]})"
            lines = self._nest(stores, shape, ranges, jammed)
            lines += self._nest(stores, shape, last) if shape[jammed] % JAM else []
        if tiles:
            fills = [d.fill("t", f"min({d.tile}, {sizes[0]} - t)") for d in tiles if d.fill is not None]
            self.opening = f"for t in range(0, {sizes[0]}, {tiles[0].tile}):"
            lines = [self.opening, *indent([*fills, *lines])]
        return [*zero, *lines]

    def _reduces(self, v: Value) -> bool:
        return v.op == "reduce" and v.key in self.making

    def _nest(
        self, stores: Sequence[tuple[Value, int]], shape: Sequence[int], ranges: Sequence[str], jammed: int = -1
    ) -> list[str]:
        """Return loops over the axes of a shape, whose body has `JAM` neighbours along one axis."""
        self.begin()
        own = tuple(f"i{a}" if n > 1 else 0 for a, n in enumerate(shape))
        neighbours = [f"i{jammed}{'abcdefg'[u]}" for u in range(JAM - 1)] if jammed >= 0 else []
        ends = []
        for index in [own, *((*own[:jammed], name, *own[jammed + 1 :]) for name in neighbours)]:
            for v, row in stores:
                name = self.element(v.args[0] if self._reduces(v) else v, index)
                kept = [i for a, i in enumerate(index) if not (self._reduces(v) and a in v.extra)]
                place = self.place(row, self.flat(kept, dense(v.shape)))
                if self._reduces(v):
                    sign = {"add": "+", "multiply": "*"}.get(v.name)
                    name = f"{place} {sign} {name}" if sign else self.function(v.name, (place, name))
                elif v.boolean:
                    name = self.number_of(name)
                ends.append(f"{place} = {name}")
        lines = [*self.pre, *self.lane_loop([*(f"{item.target} = {item.text}" for item in self.items), *ends])]
        for a in reversed(range(len(shape))):
            if shape[a] > 1:
                more = [f"{name} = i{a} + {u + 1}" for u, name in enumerate(neighbours)] if a == jammed else []
                lines = [f"for i{a} in {ranges[a]}:", *indent([*more, *lines])]
        return lines


def source_of(v: Value) -> Value:
    """Return the value whose elements the view `v` rearranges, through views of views; `v` itself if it is no view."""
    while v.op == "view":
        v = v.args[0]
    return v


def operations(n: Value) -> int:
    """Return how many operations n, one node of a graph, takes for a path without loops: `PRICE` for a function such as exp, 0 for a view or join."""
    if n.op == "map":
        return n.size * PRICE.get(n.name, 1)
    if n.op == "reduce":
        return n.args[0].size
    if n.op == "rows":
        return n.size
    return n.size * n.args[0].shape[1] if n.op == "contract" else 0
