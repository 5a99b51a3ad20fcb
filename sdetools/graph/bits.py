"""LLVM instructions that Python lacks: bits of floats, sums rounded as written, polynomials, calls by address.

All accept float64 and float32, and all become a few instructions, so that a loop over lanes (one number for each path) is vectorised. They
are called in code that Numba compiles. Their first argument, `typingctx`, is supplied by Numba: a call is `bits_of(x)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from llvmlite import ir
from numba import extending, types
from numba.np import arrayobj

P = ParamSpec("P")
_WORD = ir.IntType(64)


def intrinsic(function: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
    """Return `numba.extending.intrinsic(function)`; for type checkers it lacks the first argument, `typingctx`, which callers do not pass.

    `function(typingctx, *types)` gets Numba's types of the arguments, and returns a signature of Numba and a function that generates the
    instructions.
    """
    made: Any = extending.intrinsic(function)
    return made


def _real(*given: Any) -> Any:
    """Return the common type of the arguments: float32 if all are, else float64."""
    return types.float32 if all(t == types.float32 for t in given) else types.float64


@intrinsic
def bits_of(typingctx, x):
    """Return the bits of the float `x` as a uint64; those of a float32 are the lower half. Numba supplies `typingctx`."""
    real = _real(x)

    def codegen(context, builder, signature, arguments):
        if real == types.float64:
            return builder.bitcast(arguments[0], _WORD)
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(32)), _WORD)

    return types.uint64(real), codegen


@intrinsic
def float_of(typingctx, i):
    """Return the float64 whose bits are those of the uint64 `i`. Numba supplies `typingctx`."""
    return types.float64(types.uint64), lambda ctx, b, sig, a: b.bitcast(a[0], ir.DoubleType())


@intrinsic
def float32_of(typingctx, i):
    """Return the float32 whose bits are the lower 32 of the uint64 `i`. Numba supplies `typingctx`."""
    return types.float32(types.uint64), lambda ctx, b, sig, a: b.bitcast(b.trunc(a[0], ir.IntType(32)), ir.FloatType())


def _rounded_once(name: str) -> Any:
    """Return an operation of two floats, LLVM's "fadd" or "fsub" (`name`), whose result is rounded as written, whatever fast-math allows."""

    @intrinsic
    def operation(typingctx, x, y):
        real = _real(x, y)
        return real(real, real), lambda ctx, b, sig, a: getattr(b, name)(*a, flags=())

    return operation


sub_exact, add_exact = _rounded_once("fsub"), _rounded_once("fadd")


@intrinsic
def fma(typingctx, x, y, z):
    """Return x y + z, rounded once on every machine: by an instruction if there is one, else by libm's `fma`. Numba supplies `typingctx`.

    The result is float32 if all arguments are, else float64.
    """
    real = _real(x, y, z)
    return real(real, real, real), lambda ctx, b, sig, a: b.fma(*a)


@intrinsic
def whole_below(typingctx, x):
    """Return the largest whole number that is not above the float `x`, of the same type; -0.0 stays -0.0. Numba supplies `typingctx`."""
    real = _real(x)

    def codegen(context, builder, signature, arguments):
        return builder.call(builder.module.declare_intrinsic("llvm.floor", [arguments[0].type]), arguments)

    return real(real), codegen


def polynomial(*coefficients: float) -> Any:
    """Return a function x -> c_0 + c_1 x + c_2 x^2 + ... of one number, by Horner's rule, to be called in functions that Numba compiles.

    The coefficients are c_0, c_1, ..., at least one. The result has the type of x, float32 or float64, to which the coefficients are rounded.
    """

    @intrinsic
    def horner(typingctx, x):
        def codegen(context, builder, signature, arguments):
            (s,) = arguments
            total = ir.Constant(s.type, coefficients[-1])
            for c in coefficients[-2::-1]:
                product = builder.fmul(total, s, flags=("contract",))
                total = builder.fadd(product, ir.Constant(s.type, c), flags=("contract",))
            return total

        real = _real(x)
        return real(real), codegen

    return horner


@intrinsic
def low_product(typingctx, x, y):
    """Return ((x mod 2^32) y) mod 2^64 as a uint64, for uint64 x and y: the upper half of x is ignored. Numba supplies `typingctx`.

    For a constant y below 2^32 it becomes one vector instruction.
    """
    low = ir.Constant(_WORD, 0xFFFFFFFF)
    return types.uint64(types.uint64, types.uint64), lambda ctx, b, sig, a: b.mul(b.and_(a[0], low), a[1])


def _pointer(kind: Any, pointee: Any) -> Any:
    """Return a function for compiled code that casts an address, an int64, to a pointer to numbers: `kind` is Numba's type of them, `pointee` LLVM's."""

    @intrinsic
    def pointer(typingctx, address):
        return types.CPointer(kind)(types.int64), lambda ctx, b, sig, a: b.inttoptr(a[0], pointee.as_pointer())

    return pointer


float_pointer = _pointer(types.float64, ir.DoubleType())
float32_pointer = _pointer(types.float32, ir.FloatType())
word_pointer = _pointer(types.uint64, _WORD)
whole_pointer = _pointer(types.int64, _WORD)


@intrinsic
def rows_at(typingctx, pointer, rows, lanes):
    """Return the array `(rows, lanes)` at a pointer, C-contiguous, without a count of references: `numba.carray` needs Numba's run time for one.

    The numbers must outlive its use. Numba supplies `typingctx`.
    """
    array = types.Array(pointer.dtype, 2, "C")

    def codegen(context, builder, signature, arguments):
        data, n, width = arguments
        made = context.make_array(array)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(data.type.pointee))
        strides = [builder.mul(width, size), size]
        arrayobj.populate_array(made, data=data, shape=[n, width], strides=strides, itemsize=size, meminfo=None, parent=None)
        return made._getvalue()

    return array(pointer, types.intp, types.intp), codegen


def stack_array(kind: Any, count: int, zeros: bool = True) -> Any:
    """Return a function without arguments, to be called in code that Numba compiles: it allocates numbers on the stack and returns a pointer to them.

    The pointer is indexed like an array, `p[i]`. It is valid until the function that makes the call returns; calls in a loop return the same memory.

    Args:
        kind: Numba's type of the numbers, such as `numba.types.float64`.
        count: How many there are.
        zeros: Whether each call sets them to zero; else their values are undefined.
    """

    @intrinsic
    def made(typingctx):
        def codegen(context, builder, signature, arguments):
            with builder.goto_entry_block():
                array = builder.alloca(ir.ArrayType(context.get_value_type(kind), count))
            array.align = 64
            if zeros:
                builder.store(array.type.pointee(None), array)
            return builder.gep(array, [ir.Constant(ir.IntType(32), 0)] * 2)

        return types.CPointer(kind)(), codegen

    return made


def block_copy(kind: Any, count: int) -> Any:
    """Return a function `copy(source, at, target, to)`, to be called in code that Numba compiles: it copies `count` numbers by vector instructions.

    It copies from position `at` of the pointer `source` to position `to` of the pointer `target`, both counted in numbers, and returns nothing.

    Args:
        kind: Numba's type of the numbers, such as `numba.types.float64`.
        count: How many numbers one call copies.
    """

    @intrinsic
    def copied(typingctx, source, at, target, to):
        def codegen(context, builder, signature, arguments):
            source, at, target, to = arguments
            pointer = ir.VectorType(context.get_value_type(kind), count).as_pointer()
            size = context.get_abi_sizeof(context.get_value_type(kind))
            value = builder.load(builder.bitcast(builder.gep(source, [at]), pointer), align=size)
            builder.store(value, builder.bitcast(builder.gep(target, [to]), pointer), align=size)
            return context.get_dummy_value()

        pointer = types.CPointer(kind)
        return types.void(pointer, types.intp, pointer, types.intp), codegen

    return copied


@intrinsic
def call(typingctx, address, a, b, c, d, e, f):
    """Return the int64 that the compiled function at `address` returns for the arguments `a`, `b`, `c`, `d`, `e` and `f`; all are int64.

    Numba supplies `typingctx`. The address must be that of such a function; it is not checked.
    """

    def codegen(context, builder, signature, arguments):
        function = builder.inttoptr(arguments[0], ir.FunctionType(_WORD, [_WORD] * 6).as_pointer())
        return builder.call(function, arguments[1:])

    return types.int64(*[types.int64] * 7), codegen
