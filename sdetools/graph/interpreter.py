"""An interpreter of row operations, compiled once: a formula of any length adds nothing to compilation.

    lanes.call(address, code, count, bases, n, functions, 0)

`code` is the address of `count` instructions of five integers: an operation of `programs.CODES`, the location of its result, and those of
up to three operands. A location has a base in its high bits (an entry of the table `bases` of addresses) and an offset in bytes in its
low bits; it holds `n` numbers, or one number that all lanes share. A code beyond the table is the function of rows at that entry of
`functions`. A result may not overlap an operand, so all loops are vector code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sdetools._compiled import by_address
from sdetools._machine_code import once
from sdetools.graph import lanes, lanes32
from sdetools.graph.programs import BASE, CODES, FORMULAS, FUNCTIONS

_OPTIONS = dict(fastmath=lanes.FLAGS, error_model="numpy")
_HEAD = """
@njit(inline="always")
def at(bases, place):
    return np.int64(bases[place >> BASE]) + (place & LOW)

def run(code, count, bases_at, n, functions_at, _):
    program, bases, functions = words(code), words(bases_at), words(functions_at)
    for k in range(0, 5 * count, 5):
        op = np.int64(program[k])
        target, first = at(bases, np.int64(program[k + 1])), at(bases, np.int64(program[k + 2]))
        second = at(bases, np.int64(program[k + 3]))
        if op >= FUNCTIONS:
            call(np.int64(functions[op - FUNCTIONS]), first, target, n, second, 0, 0)
            continue
        to, A, B, C = real(target), real(first), real(second), real(at(bases, np.int64(program[k + 4])))
        if op < 0:
            return op
"""
_OPERATION = """
        elif op == {code}:
            {number} = {row}[0]
            for j in range(n):
                {operands} = {rows}
                to[j] = {formula}
"""


def _operation(code: int, name: str) -> str:
    """Return the lines of one operation, `code` being its place in `programs.CODES` and `name` its name there."""
    number = "a" if name.startswith("s_") else "b" if name.endswith("_s") else "_"
    own = [x for x in "abc" if x != number]
    rows, formula = ", ".join(f"{x.upper()}[j]" for x in own), FORMULAS[name.removeprefix("s_").removesuffix("_s")]
    return _OPERATION.format(
        code=code, number=number, row="B" if number == "b" else "A", operands=", ".join(own), rows=rows, formula=formula
    )


@once
def function(dtype: str = "float64") -> Any:
    """Return the interpreter of programs on rows, arrays with one number for each path, as a C callback with the attribute `address`.

    A program is a list of instructions such as "row 7 = row 3 + row 5". The callback takes six int64, (code, count, bases, n, functions, 0): the
    address of `count` instructions of five int64 each (`programs.encoded`), that of a table of base addresses, the number of floats in a row, and
    the address of a table of addresses of functions on rows. It returns an int64, 0; at an instruction whose operation is a negative number it
    stops and returns that number. Its source is generated from `programs.FORMULAS`.

    Args:
        dtype: Type of the numbers in a row, "float64" or "float32".
    """
    lane, one = (lanes32, np.float32(1)) if dtype == "float32" else (lanes, 1.0)
    space = {
        "__name__": __name__,
        "np": np,
        "math": math,
        "njit": njit,
        "lane": lane,
        "one": one,
        "zero": one - one,
        "real": lane.real_pointer,
    }
    space |= {"words": lanes.word_pointer, "call": lanes.call, "BASE": BASE, "LOW": (1 << BASE) - 1, "FUNCTIONS": FUNCTIONS}
    text = _HEAD + "".join(_operation(code, name) for code, name in enumerate(CODES)) + "    return 0\n"
    exec(compile(text, __file__, "exec"), space)  # generated above
    return by_address("graph.rows", "program", dtype, space["run"], **_OPTIONS)
