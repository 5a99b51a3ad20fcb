"""Programs of row operations, run by one function that is compiled once: a formula of any length costs a kernel nothing to compile.

    lanes.call(address, code, count, bases, n, functions, 0)

`code` is the address of `count` instructions of five whole numbers: an operation of `programs.CODES`, the place of its result, and those of
up to three operands. A place is a base in its upper bits (a row of the table `bases` of addresses) and bytes from there in its lower ones;
there lie `n` numbers, or the one number of all lanes. An operation beyond the table is the function of rows at that address of `functions`.
A result may not lie where an operand does: so all loops are vector code.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from sdetools._compiled import callback
from sdetools.graph import lanes, lanes32
from sdetools.graph.programs import BASE, CODES, FUNCTIONS

_OPTIONS = dict(fastmath=lanes.FLAGS, error_model="numpy")
_SIGNATURE = "int64(int64, int64, int64, int64, int64, int64)"
(
    COPY, FILL, ADD, ADD_S, SUB, SUB_S, S_SUB, MUL, MUL_S, DIV, DIV_S, S_DIV, MADD, MADD_S, NEGATIVE, ABSOLUTE, SQRT, FLOOR, SIGN, MAXIMUM,
    MAXIMUM_S, MINIMUM, MINIMUM_S, LESS, LESS_S, S_LESS, LESS_EQUAL, LESS_EQUAL_S, S_LESS_EQUAL, EQUAL, EQUAL_S, NOT_EQUAL, NOT_EQUAL_S,
    AND, OR, NOT, WHERE,
) = range(len(CODES))  # fmt: skip


def _unary(f: Any) -> Any:
    @njit(**_OPTIONS)
    def loop(o, a, n):
        for j in range(n):
            o[j] = f(a[j])

    return loop


def _binary(f: Any) -> Any:
    @njit(**_OPTIONS)
    def loop(o, a, b, n):
        for j in range(n):
            o[j] = f(a[j], b[j])

    return loop


def _number_last(f: Any) -> Any:
    @njit(**_OPTIONS)
    def loop(o, a, b, n):
        number = b[0]
        for j in range(n):
            o[j] = f(a[j], number)

    return loop


def _number_first(f: Any) -> Any:
    @njit(**_OPTIONS)
    def loop(o, a, b, n):
        number = a[0]
        for j in range(n):
            o[j] = f(number, b[j])

    return loop


@njit(**_OPTIONS)
def _fill(o, a, n):
    number = a[0]
    for j in range(n):
        o[j] = number


@njit(**_OPTIONS)
def _madd(o, a, b, c, n):
    for j in range(n):
        o[j] = a[j] * b[j] + c[j]


@njit(**_OPTIONS)
def _madd_s(o, a, b, c, n):
    number = b[0]
    for j in range(n):
        o[j] = a[j] * number + c[j]


@njit(**_OPTIONS)
def _where(o, a, b, c, n):
    for j in range(n):
        yes, no = b[j], c[j]
        o[j] = yes if a[j] != 0.0 else no


def _inlined(f: Any) -> Any:
    return njit(inline="always")(f)


def _write(lane: Any, real: Any) -> Any:
    """The function that runs programs on numbers of a type."""
    pointer, words, call, zero, one = lane.real_pointer, lanes.word_pointer, lanes.call, real(0.0), real(1.0)
    low = np.int64((1 << BASE) - 1)
    plus, minus, times, over = map(_inlined, (lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / y))
    below, most = map(_inlined, (lambda x, y: one if x < y else zero, lambda x, y: one if x <= y else zero))
    same, other = map(_inlined, (lambda x, y: one if x == y else zero, lambda x, y: one if x != y else zero))
    both = _inlined(lambda x, y: one if (x != zero) & (y != zero) else zero)
    either = _inlined(lambda x, y: one if (x != zero) | (y != zero) else zero)
    copy, negative = _unary(_inlined(lambda x: x)), _unary(_inlined(lambda x: -x))
    absolute, root = _unary(_inlined(lambda x: math.fabs(x))), _unary(_inlined(lambda x: math.sqrt(x)))
    floor, sign, none = _unary(lane.vfloor), _unary(lane.vsign), _unary(_inlined(lambda x: one if x == zero else zero))
    add, add_s, mul, mul_s = _binary(plus), _number_last(plus), _binary(times), _number_last(times)
    sub, sub_s, s_sub = _binary(minus), _number_last(minus), _number_first(minus)
    div, div_s, s_div = _binary(over), _number_last(over), _number_first(over)
    maximum, maximum_s = _binary(lane.vmaximum), _number_last(lane.vmaximum)
    minimum, minimum_s = _binary(lane.vminimum), _number_last(lane.vminimum)
    less, less_s, s_less = _binary(below), _number_last(below), _number_first(below)
    less_equal, less_equal_s, s_less_equal = _binary(most), _number_last(most), _number_first(most)
    equal, equal_s, not_equal, not_equal_s = _binary(same), _number_last(same), _binary(other), _number_last(other)
    all_of, any_of = _binary(both), _binary(either)

    @_inlined
    def at(bases, place):
        return np.int64(bases[place >> BASE]) + (place & low)

    def run(code, count, bases_at, n, functions_at, _):
        program, bases, functions = words(code), words(bases_at), words(functions_at)
        for k in range(0, 5 * count, 5):
            op = np.int64(program[k])
            target, first = at(bases, np.int64(program[k + 1])), at(bases, np.int64(program[k + 2]))
            second = at(bases, np.int64(program[k + 3]))
            if op >= FUNCTIONS:
                call(np.int64(functions[op - FUNCTIONS]), first, target, n, second, 0, 0)
                continue
            o, a, b, c = pointer(target), pointer(first), pointer(second), pointer(at(bases, np.int64(program[k + 4])))
            if op == MADD:
                _madd(o, a, b, c, n)
            elif op == MADD_S:
                _madd_s(o, a, b, c, n)
            elif op == ADD:
                add(o, a, b, n)
            elif op == ADD_S:
                add_s(o, a, b, n)
            elif op == SUB:
                sub(o, a, b, n)
            elif op == SUB_S:
                sub_s(o, a, b, n)
            elif op == S_SUB:
                s_sub(o, a, b, n)
            elif op == MUL:
                mul(o, a, b, n)
            elif op == MUL_S:
                mul_s(o, a, b, n)
            elif op == DIV:
                div(o, a, b, n)
            elif op == DIV_S:
                div_s(o, a, b, n)
            elif op == S_DIV:
                s_div(o, a, b, n)
            elif op == COPY:
                copy(o, a, n)
            elif op == FILL:
                _fill(o, a, n)
            elif op == NEGATIVE:
                negative(o, a, n)
            elif op == ABSOLUTE:
                absolute(o, a, n)
            elif op == SQRT:
                root(o, a, n)
            elif op == FLOOR:
                floor(o, a, n)
            elif op == SIGN:
                sign(o, a, n)
            elif op == MAXIMUM:
                maximum(o, a, b, n)
            elif op == MAXIMUM_S:
                maximum_s(o, a, b, n)
            elif op == MINIMUM:
                minimum(o, a, b, n)
            elif op == MINIMUM_S:
                minimum_s(o, a, b, n)
            elif op == LESS:
                less(o, a, b, n)
            elif op == LESS_S:
                less_s(o, a, b, n)
            elif op == S_LESS:
                s_less(o, a, b, n)
            elif op == LESS_EQUAL:
                less_equal(o, a, b, n)
            elif op == LESS_EQUAL_S:
                less_equal_s(o, a, b, n)
            elif op == S_LESS_EQUAL:
                s_less_equal(o, a, b, n)
            elif op == EQUAL:
                equal(o, a, b, n)
            elif op == EQUAL_S:
                equal_s(o, a, b, n)
            elif op == NOT_EQUAL:
                not_equal(o, a, b, n)
            elif op == NOT_EQUAL_S:
                not_equal_s(o, a, b, n)
            elif op == AND:
                all_of(o, a, b, n)
            elif op == OR:
                any_of(o, a, b, n)
            elif op == NOT:
                none(o, a, n)
            else:
                _where(o, a, b, c, n)
        return 0

    return run


@cache
def function(dtype: str = "float64") -> Any:
    """That function for a type, as a C callback."""
    lane, real = (lanes32, np.float32) if dtype == "float32" else (lanes, np.float64)
    return callback(_SIGNATURE, name=f"program_{dtype}", **_OPTIONS)(_write(lane, real))
