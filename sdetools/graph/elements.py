"""Code for single elements of a graph: integer indices give unrolled code, loop variables the body of a loop. Expressions are texts of code.

A lane j is the place of a path in a block, a row one number for each lane. Row r of the state and of working memory begins at `r * lanes` in the flat
array `S`, rows of draws are in `Z`. Element k of a value, in C order, is row k from its first. LLVM sees that rows do not overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.graph.arrays import SIGNS, pull
from sdetools.graph.reals import DOUBLE, Real
from sdetools.graph.straight import ANGLES, Item, passes
from sdetools.graph.value import CONDITIONS, Value
from sdetools.graph.views import dense

INLINE = {
    "sqrt": "math.sqrt", "absolute": "math.fabs", "power": "lanes.vpow", "maximum": "lanes.vmaximum", "minimum": "lanes.vminimum",
    "sign": "lanes.vsign", "arctan": "lanes.vatan", "arcsin": "lanes.vasin", "arccos": "lanes.vacos",
}  # fmt: skip
"""Names of functions of one lane; all others are `lanes.v` and NumPy's name."""
PRICE = {"power": 60, "sinh": 40, "cosh": 30, "tanh": 35, "log1p": 25, "expm1": 40} | dict.fromkeys(
    ("exp", "log", "arctan", "arcsin", "arccos"), 20
)  # lines of code that an inlined function takes; 1 for all others
LITERALS = frozenset({0.0, 0.5, 0.25, *map(float, range(1, 17))})
"""Numbers that are written into the code. All others are passed as data, so that new values do not recompile."""


@dataclass(frozen=True)
class Draw:
    """Where generated code finds the draws (random numbers) of an input: draw i of lane (path) j is Z[(row + i) * lanes + j + shift], Z a flat array.

    `shift` is an expression of the code, such as "z0_1", or empty for 0. `sign(i)`, if given, returns an expression of draw i that does not read Z.
    Draws with `tile` > 0 may be made in the loop that reads them: the line of code `fill(first, count)`, whose arguments are expressions, makes
    `count` <= `tile` of them, from draw `first` on, in rows (one number for each lane) from `row` on.
    """

    row: int
    shift: str = ""
    sign: Callable[[int], str] | None = None
    tile: int = 0
    fill: Callable[[str, str], str] | None = None


@dataclass
class Tables:
    """What generated code refers to by name: arrays d0, d1, ... (`data`), numbers K[0], ... (`numbers`), lengths of loops N[0], ... (`sizes`).

    `functions` has the names in `graph.rows` of the functions at addresses F[0], ..., `stages` compiled functions by name, "stage0", `whole` pairs (array,
    contiguous copy) by the array's `id`. `real` is the type of floats, `straight` the number of operations in code without loops over components.
    """

    real: Real = DOUBLE
    data: list[np.ndarray] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    stages: dict[str, Any] = field(default_factory=dict)
    whole: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    straight: int = 0

    def function(self, name: str) -> str:
        """Return the name in the code, "F[2]", of the address of a function on arrays, which `graph.rows` calls `name`, "exp" say; it is added if new."""
        return f"F[{self.number_of_function(name)}]"

    def number_of_function(self, name: str) -> int:
        if name not in self.functions:
            self.functions.append(name)
        return self.functions.index(name)

    def array(self, a: np.ndarray) -> str:
        """Return the name of the array `a` in the code, "d0" (its address is "d0at"); it is added to `data` unless the same view of its memory is there."""
        a = a if a.flags.forc else self.whole.setdefault(id(a), (a, np.ascontiguousarray(a)))[1]
        for n, known in enumerate(self.data):
            if known is a or (
                known.shape == a.shape and known.dtype == a.dtype and np.shares_memory(known, a) and known.strides == a.strides
            ):
                return f"d{n}"
        self.data.append(a)
        return f"d{len(self.data) - 1}"

    def number(self, x: float) -> str:
        for n, known in enumerate(self.numbers):
            if known == x or (x != x and known != known):
                return f"K[{n}]"
        self.numbers.append(x)
        return f"K[{len(self.numbers) - 1}]"

    def size(self, n: int) -> str:
        """Return the name in the code of the loop length `n`, "N[2]", passed at run time: LLVM would unroll a loop of known length, and compile for long."""
        if n not in self.sizes:
            self.sizes.append(n)
        return f"N[{self.sizes.index(n)}]"

    def stage(self, function: Any) -> str:
        for name, known in self.stages.items():
            if known is function:
                return name
        name = f"stage{len(self.stages)}"
        self.stages[name] = function
        return name


class Elements:
    """Writes the code of elements of values (symbolic arrays), in bodies of loops over lanes (paths): `begin()` opens one.

    Arguments `rows`, `draws`, `names` map `Value.key` of an input to its place: its first row in the array S (a row has one number for each lane), a
    `Draw`, the variable of a uniform input, the same for all lanes. Rows from `free` on are working memory (`take(n)` reserves n, returns the first),
    `lanes` is the number of lanes or its text, `tables` collects what the code refers to. Attributes that are sets of keys: `making` (what the body
    computes); of draws `in_place` (read by `Draw.sign`), `from_rows` (the caller must make them first), `tiled` (the loop makes them).
    """

    NEVER_INLINED: tuple[str, ...] = ANGLES  # sin, cos and tan: calls on whole rows

    def __init__(
        self, rows: dict[Any, int], draws: dict[Any, Draw], names: dict[Any, str], free: int, lanes: Any, tables: Tables
    ) -> None:
        self.inputs, self.draws, self.names, self.L, self.tables = rows, draws, names, lanes, tables
        self.rows, self.at = free, dict(rows)
        self.zero, self.one = map(tables.real.number, (0.0, 1.0))
        self.making: set[Any] = set()
        self.in_place: set[Any] = set()
        self.from_rows: set[Any] = set()
        self.tiled: set[Any] = set()

    def take(self, rows: int) -> int:
        self.rows += rows
        return self.rows - rows

    def begin(self) -> None:
        self.pre: list[str] = []
        self.items: list[Item] = []
        self.known: dict[Any, str] = {}
        self.varying: set[str] = set()
        self.columns: set[Any] = set()

    def emit(self, v: Value | None, text: str, uses: Sequence[str], **more: Any) -> str:
        """Add the line of code `name = text` and return its new name, "v3"; `uses` are the variables in `text`, `more` further fields of `straight.Item`.

        It goes before the loop over lanes (paths) if `v`, the value that it computes, and `uses` are the same for all; v = None says that it differs.
        """
        name = f"v{len(self.pre) + len(self.items)}"
        if v is not None and v.uniform and not any(u in self.varying for u in uses):
            self.pre.append(f"{name} = {text}")
        else:
            self.varying.add(name)
            self.items.append(Item(name, text, tuple(u for u in uses if u in self.varying), **more))
        return name

    def element(self, v: Value, index: tuple[Any, ...]) -> str:
        """Return the variable, "v3", with element `index` of `v`, or a number's text; add its lines. `index` has an int or loop variable for each axis."""
        index = tuple(0 if n == 1 else i for i, n in zip(index[len(index) - v.ndim :], v.shape))
        if v.op == "const" and v.ndim == 0:
            return self.number(v)
        key = (v.key, index)
        if key not in self.known:
            self.known[key] = self.write(v, index)
        return self.known[key]

    def entry(self, name: str, index: tuple[Any, ...]) -> str:
        """Return the expression of element `index` (ints or loop variables) of the constant array `name`: "d0[i0 * 3 + 1]" for "d0", ("i0", 1)."""
        a = self.tables.data[int(name[1:])]
        return f"{name}[{self.flat(index, [s // a.itemsize for s in a.strides])}]"

    def number(self, v: Value) -> str:
        if v.boolean:
            return repr(bool(v.extra))
        x = float(v.extra)
        if abs(x) in LITERALS:
            return self.tables.real.number(x)
        key = ("number", x)
        if key not in self.known:
            name = self.known[key] = f"k{len(self.known)}"
            self.pre.append(f"{name} = {self.tables.number(x)}")
        return self.known[key]

    def write(self, v: Value, index: tuple[Any, ...]) -> str:
        if v.key in self.names:
            name = self.names[v.key]
            return name if v.ndim == 0 else self.emit(v, f"{name}[{self.flat(index, dense(v.shape))}]", ())
        if v.op == "const":
            return self.emit(v, self.entry(self.tables.array(v.extra), index), ())
        if v.key in self.draws:
            return self.drawn(v, index)
        if v.key in self.at and v.key not in self.making:
            place = self.place(self.at[v.key], self.flat(index, dense(v.shape)))
            return self.emit(None, f"{place} != {self.zero}" if v.boolean else place, (), load=True, reads=place)
        return getattr(self, "_" + v.op)(v, index)

    def drawn(self, v: Value, index: tuple[Any, ...]) -> str:
        draw, i = self.draws[v.key], index[0]
        if draw.sign is not None and isinstance(i, (int, np.integer)):
            self.in_place.add(v.key)
            return self.emit(None, draw.sign(int(i)), (), load=True)
        self.from_rows.add(v.key)
        at = f"({i} - t)" if v.key in self.tiled else i
        more = f" + {draw.shift}" if draw.shift else ""
        return self.emit(None, self.place(draw.row, at, "Z", more), (), load=True)

    def _map(self, v: Value, index: tuple[Any, ...]) -> str:
        a = [self.element(x, index[len(index) - x.ndim :] if x.ndim else ()) for x in v.args]
        if v.name not in CONDITIONS and v.name != "where":
            a = [self.number_of(n) if x.boolean else n for n, x in zip(a, v.args)]
        if v.name in SIGNS:
            return self.emit(v, f"{a[0]} {SIGNS[v.name]} {a[1]}", self.named(a))
        if v.name == "negative":
            return self.emit(v, f"-{a[0]}", self.named(a))
        if v.name == "logical_not":
            return self.emit(v, f"not {a[0]}", self.named(a))
        if v.name == "where":
            return self.emit(v, f"({a[1]} if {a[0]} else {a[2]})", self.named(a))
        if v.name in self.NEVER_INLINED:
            if v.uniform:
                return self.emit(v, f"math.{v.name}({a[0]})", self.named(a))
            argument = a[0] if a[0] in self.varying else self.emit(None, a[0], ())
            key = ("angle", v.name, argument)  # shared by equal nodes: one row to fill
            if key not in self.known:
                self.known[key] = self.emit(v, "", (argument,), angle=v.name)
            return self.known[key]
        return self.emit(v, self.function(v.name, a), self.named(a))

    def function(self, name: str, given: Sequence[str]) -> str:
        """Return the expression of NumPy's function `name` of the expressions `given` for one lane (path), such as "lanes.vexp(v3)"."""
        return f"{INLINE.get(name, 'lanes.v' + name)}({', '.join(given)})"

    def number_of(self, name: str) -> str:
        """Return the expression that is 1 where the condition in variable `name` holds and 0 elsewhere: "(1.0 if v3 else 0.0)" for "v3"."""
        return f"({self.one} if {name} else {self.zero})"

    @staticmethod
    def named(texts: Sequence[str]) -> list[str]:
        """Return the variable in each of the `texts`, in order: a text is a variable, "v3", or what `number_of` makes of it, "(1.0 if v3 else 0.0)"."""
        return [t.split(" if ")[1].split(" else ")[0] if " if " in t else t for t in texts]

    def _view(self, v: Value, index: tuple[Any, ...]) -> str:
        source, w = v.args[0], v.extra
        flat = self.flat(index, w.strides, w.start)
        if w.table is not None:
            if isinstance(flat, int):
                place = int(np.frombuffer(w.table, np.int64)[flat])
                return self.zero if place < 0 else self.element(source, tuple(map(int, np.unravel_index(place, source.shape))))
            return self.looked_up(v, source, flat)
        if isinstance(flat, int):
            return self.element(source, tuple(map(int, np.unravel_index(flat, source.shape))))
        direct = pull(v)
        if direct is not None:
            return self.element(source, tuple(0 if a is None else index[a] for a in direct))
        return self.element(source, self.unravel(flat, source))

    def looked_up(self, v: Value, source: Value, flat: str) -> str:
        """Return the name of the variable with element `table[flat]` of `source`, 0 for entry -1: `table` is `View.table` of `v`, `flat` an expression."""
        table = np.frombuffer(v.extra.table, np.int64)
        name = f"o{len(self.known)}"
        self.known["place", v.key, flat] = name
        self.pre.append(f"{name} = {self.tables.array(table)}[{flat}]")
        if table.min() >= 0:
            return self.element(source, self.unravel(name, source))
        self.pre.append(f"{name}in = {name} if {name} >= 0 else 0")
        inner = self.element(source, self.unravel(f"{name}in", source))
        return self.emit(v, f"({inner} if {name} >= 0 else {self.zero})", (inner,))

    def _join(self, v: Value, index: tuple[Any, ...]) -> str:
        i = index[0]
        for part in v.args:
            if i < part.shape[0]:
                return self.element(part, (i, *index[1:]))
            i -= part.shape[0]
        raise IndexError(index)

    def _reduce(self, v: Value, index: tuple[Any, ...]) -> str:
        (x,) = v.args
        terms = [self.element(x, mixed(v, index, k)) for k in np.ndindex(*(x.shape[a] for a in v.extra))]
        if v.name in ("add", "multiply"):
            terms = [t for t in terms if t != self.zero] if v.name == "add" else terms
            return self.emit(v, (" + " if v.name == "add" else " * ").join(terms) or self.zero, terms)
        found = terms[0]
        for term in terms[1:]:
            found = self.emit(v, self.function(v.name, (found, term)), (found, term))
        return found

    def _contract(self, v: Value, index: tuple[Any, ...]) -> str:
        a, x = v.args
        pairs = [
            (self.element(a, (index[0], k)), self.element(x, (k, *index[1:])))
            for k in range(a.shape[1])
            if a.extra[index[0], k] != 0.0
        ]
        return self.emit(
            v, " + ".join(f"{p} * {q}" for p, q in pairs if q != self.zero) or self.zero, [n for pair in pairs for n in pair]
        )

    def _rows(self, v: Value, index: tuple[Any, ...]) -> str:
        which = self.sample(v.args[1], index[: v.args[1].ndim])
        samples, rest = v.args[0].shape[0], index[v.args[1].ndim :]
        self.columns |= set(rest)
        column = self.flat(rest, [s * samples for s in dense(v.args[0].shape[1:])])
        if isinstance(column, str):
            name = f"q{len(self.known)}"
            self.known["column", column] = name
            self.pre.append(f"{name} = {column}")
            column = name
        place = (
            f"np.uint64({which})" if column == 0 else f"np.uint64({column} + {which})"
        )  # Numba checks signed indices for wrap-around
        return self.emit(v, f"{self.tables.array(v.extra)}[{place}]", (which,))

    def sample(self, v: Value, index: tuple[Any, ...]) -> str:
        """Return the name of the variable, "v3", with element `index` of `v` converted to an integer; `v` has indices of samples of data as floats."""
        number = self.element(v, index)
        if ("sample", number) not in self.known:
            self.known["sample", number] = self.emit(v, f"np.int64({number})", (number,))
        return self.known["sample", number]

    def flat(self, index: Sequence[Any], strides: Sequence[int], start: int = 0) -> Any:
        """Return the position start + index . strides in a flattened array: an int, or if `index` has loop variables an expression, "i0 * 3 + 1"."""
        fixed = start + sum(int(i) * s for i, s in zip(index, strides) if isinstance(i, (int, np.integer)))
        moving = [i if s == 1 else f"{i} * {s}" for i, s in zip(index, strides) if not isinstance(i, (int, np.integer)) and s]
        return " + ".join([*moving, *([str(fixed)] if fixed else [])]) if moving else int(fixed)

    def unravel(self, flat: str, source: Value) -> tuple[Any, ...]:
        if source.ndim == 1:
            return (flat if flat.isidentifier() else f"({flat})",)
        return tuple(f"(({flat}) // {s} % {n})" if n > 1 else 0 for s, n in zip(dense(source.shape), source.shape))

    def place(self, row: int, flat: Any, array: str = "S", more: str = "") -> str:
        """Return the expression of lane j (path) of row `row + flat` of `array`: "S[1024 + j]"; `flat` is an int or text, `more` is appended: " + z0"."""
        return f"{array}[{self.offset(row, flat)}{more}]"

    def begins(self, row: int) -> str:
        """Return the text of the position in the flat array S at which row `row`, one number for each lane, begins: "1024" for row 4 with 256 lanes."""
        return f"{row * self.L}"

    def lane_loop(self, body: Sequence[str]) -> list[str]:
        return [f"for j in range({self.L}):", *indent(body)] if body else []

    def offset(self, row: int, flat: Any) -> str:
        """Return the expression of the position of lane j (path) of row `row + flat` in the array S or Z, "1024 + j"; `flat` is an int or expression."""
        if isinstance(flat, int):
            return f"{self.begins(row + flat)} + j"
        key = ("offset", flat)
        if key not in self.known:
            self.known[key] = f"q{len(self.known)}"
            self.pre.append(f"{self.known[key]} = ({flat}) * {self.L}")
        return f"{self.begins(row)} + {self.known[key]} + j"

    def straight(self, stores: Sequence[tuple[int, Value]]) -> list[str]:
        """Return the lines of code, without loops over components, that compute `stores`, pairs (first row of the result in S, value)."""
        self.begin()
        ends = []
        for row, v in stores:
            for index in np.ndindex(*v.shape):
                place = self.place(row + self.flat(index, dense(v.shape)), 0)
                name = self.element(v, index)
                text, uses = self.number_of(name) if v.boolean else name, (name,) if name in self.varying else ()
                ends.append(Item(place, text, uses, store=True))
        return [*self.pre, *self.scheduled(ends)]

    def scheduled(self, ends: Sequence[Item]) -> list[str]:
        """Return loops over lanes (paths), as lines of code, that run what `emit` has added since `begin`, and then `ends`, which write the results."""
        scratch: dict[str, str] = {}

        def keep(name: str) -> str:
            if name not in scratch:
                scratch[name] = self.place(self.take(1), 0)
            return scratch[name]

        lines = []
        for one in passes(self.items, ends, keep):
            lines += self.lane_loop(one.lines)
            lines += self.angles(one.angles)
        return lines

    def angles(self, wanted: Sequence[tuple[str, str, str]]) -> list[str]:
        """Return lines of code that compute sin, cos and tan of whole rows; `wanted` has triples ("sin", the argument's place "S[0 + j]", the result's)."""
        by_row: dict[str, dict[str, str]] = {}
        for function, source, target in wanted:
            by_row.setdefault(source, {})[function] = target
        out = []
        for source, targets in by_row.items():
            at = {name: f"base + {self.tables.real.size} * ({place[2:-5]})" for name, place in [("of", source), *targets.items()]}
            if "sin" in at and "cos" in at:
                out.append(f"lanes.call({self.tables.function('sincos')}, {at['of']}, {at['sin']}, {self.L}, {at['cos']}, 0, 0)")
            alone = [f for f in targets if f == "tan" or not {"sin", "cos"} <= targets.keys()]
            out += [f"lanes.call({self.tables.function(f)}, {at['of']}, {at[f]}, {self.L}, 0, 0, 0)" for f in alone]
        return out


def mixed(v: Value, kept: Sequence[Any], summed: Sequence[Any]) -> tuple[Any, ...]:
    """Return the index, in the argument of the reduction (a sum, say) `v`, of one term: entries `kept` along axes that remain, `summed` along others."""
    kept, summed = iter(kept), iter(summed)
    return tuple(next(summed) if a in v.extra else next(kept) for a in range(v.args[0].ndim))


def indent(lines: Sequence[str], by: int = 4) -> list[str]:
    """Return the lines of code, each indented by `by` spaces."""
    return [" " * by + line for line in lines]
