"""Products of a matrix and rows of lanes, `(n, d)` times `(d, width)`: small ones in registers, large ones by BLAS.

    lanes.call(address("small_product"), matrix, source, target, n << 32 | d, width, transposed)

The matrix is `(n, d)`; if `transposed`, its transpose is stored. The d source rows and the n target rows have `width` numbers each: one for
each column and path (lane). BLAS spends most of its time on packing for a small matrix; `small` uses tiles, blocks of a few rows and lanes,
whose sums stay in registers. Each element is one sum from k = 0 on, so that its bits depend neither on the tile nor on the width.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils

from sdetools._machine_code import GEMM, blas
from sdetools.graph.bits import intrinsic

FEW = 4
"""Rows of the tile for what wider tiles leave."""


def tile_of(wide: bool) -> tuple[int, int]:
    """Return the size of a tile, the block of results of a matrix product that is computed in registers, as (number of rows, bytes of a row).

    It is (8, 128), 16 registers, if `wide`: the processor's registers have 64 bytes (AVX-512). Else it is (4, 64), 8 registers of 32 bytes.
    """
    return (8, 128) if wide else (FEW, 64)


def _has_wide_registers() -> bool:
    """Whether the processor has 32 registers of 64 bytes (AVX-512)."""
    features = numba.config.CPU_FEATURES
    return "+avx512f" in features if features is not None else bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))


def _tile(kind: Any, rows: int, lanes: int) -> Any:
    """Return the intrinsic of one tile, with rows u and lanes j, for numbers of Numba's type `kind`.

    It computes out[o + u width + j] = sum_k A[a + u down + k across] x[q + k width + j].
    """

    @intrinsic
    def tile(typingctx, A, a, across, down, x, q, width, d, out, o):
        def codegen(context, builder, signature, arguments):
            A, a, across, down, x, q, width, d, out, o = arguments
            real, word, index = context.get_value_type(kind), ir.IntType(64), ir.IntType(32)
            vector, size = ir.VectorType(real, lanes), context.get_abi_sizeof(real)
            undefined = vector(ir.Undefined)

            def place(base, at, u, stride):
                return builder.gep(base, [builder.add(at, builder.mul(word(u), stride))])

            def lanes_at(pointer):
                return builder.bitcast(pointer, vector.as_pointer())

            sums = [cgutils.alloca_once_value(builder, vector(None)) for _ in range(rows)]
            for total in sums:
                builder.store(vector(None), total)
            with cgutils.for_range(builder, d) as loop:
                k = builder.mul(loop.index, across)
                row = builder.load(lanes_at(builder.gep(x, [builder.add(q, builder.mul(loop.index, width))])), align=size)
                for u, total in enumerate(sums):
                    entry = builder.load(place(A, builder.add(a, k), u, down))
                    entries = builder.shuffle_vector(
                        builder.insert_element(undefined, entry, index(0)), undefined, ir.VectorType(index, lanes)([0] * lanes)
                    )
                    term = builder.fmul(entries, row, flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), term, flags=("contract",)), total)
            for u, total in enumerate(sums):
                builder.store(builder.load(total), lanes_at(place(out, o, u, width)), align=size)
            return context.get_dummy_value()

        pointer, i = types.CPointer(kind), types.int64
        return types.void(pointer, i, i, i, pointer, i, i, i, pointer, i), codegen

    return tile


def small(pointer: Any, kind: Any, wide: bool | None = None) -> Any:
    """Return the Python function of a product with a small matrix, for Numba to compile (`rows.function("small_product")`).

    Its arguments are six ints (matrix, source, target, n << 32 | d, width, transposed): the addresses of a matrix `(n, d)`, of the factor
    `(d, width)` and of the result `(n, width)`, the sizes, and whether the matrix is stored as `(d, n)`, 1 or 0. It writes the result and returns 0.
    The product is computed in tiles (`tile_of`); the last tile of rows begins earlier and recomputes some of them, to the same bits.

    Args:
        pointer: Compiled function that casts an address to a pointer to the numbers, such as `bits.float_pointer`.
        kind: Numba's type of the numbers, `numba.types.float64` or `float32`.
        wide: Whether registers have 64 bytes; None for what this processor has.
    """
    most, size = tile_of(_has_wide_registers() if wide is None else wide)
    span = size // (kind.bitwidth // 8)
    many, few, one, single = _tile(kind, most, span), _tile(kind, FEW, span), _tile(kind, 1, span), _tile(kind, 1, 1)

    def rows(matrix, source, target, sizes, width, transposed):
        n, d = sizes >> 32, sizes & 0xFFFFFFFF
        A, x, out = pointer(matrix), pointer(source), pointer(target)
        across, down = (n, 1) if transposed else (1, d)
        whole = width // span * span
        for at in range(0, whole, span):
            r = 0
            while n - r > FEW and n >= most:
                r = min(r, n - most)
                many(A, r * down, across, down, x, at, width, d, out, r * width + at)
                r += most
            while n > r and n >= FEW:
                r = min(r, n - FEW)
                few(A, r * down, across, down, x, at, width, d, out, r * width + at)
                r += FEW
            for last in range(r, n):
                one(A, last * down, across, down, x, at, width, d, out, last * width + at)
        for at in range(whole, width):
            for r in range(n):
                single(A, r * down, across, down, x, at, width, d, out, r * width + at)
        return 0

    return rows


def _blas(kind: Any) -> Any:
    """Return the call of BLAS's matrix product for numbers of Numba's type `kind`, an intrinsic (transposed, width, n, d, x, a, out): out = a x.

    BLAS stores by columns: out `(n, width)` is to it the transpose, x^T a^T.
    """
    symbol = next(name for name, own in GEMM.items() if own[0] == {64: "d", 32: "s"}[kind.bitwidth])

    @intrinsic
    def gemm(typingctx, transposed, width, n, d, x, a, out):
        def codegen(context, builder, signature, arguments):
            transposed, *sizes, x, a, out = arguments
            char, index, real = ir.IntType(8), ir.IntType(32), context.get_value_type(kind)

            def place(value):
                return cgutils.alloca_once_value(builder, value)

            width, n, d = (builder.trunc(size, index) for size in sizes)
            flag = builder.icmp_signed("!=", transposed, transposed.type(0))
            whole, one, zero = place(char(ord("N"))), place(real(1.0)), place(real(0.0))
            other, down = place(builder.select(flag, char(ord("T")), char(ord("N")))), place(builder.select(flag, n, d))
            given = [whole, other, place(width), place(n), place(d), one, x, place(width), a, down, zero, out, place(width)]
            kinds = ir.FunctionType(ir.VoidType(), [value.type for value in given])
            builder.call(cgutils.get_or_insert_function(builder.module, kinds, symbol), given)
            return context.get_dummy_value()

        pointer, i = types.CPointer(kind), types.int64
        return types.void(i, i, i, i, pointer, pointer, pointer), codegen

    return gemm


def large(pointer: Any, kind: Any) -> Any:
    """Return the Python function of a product with a large matrix by BLAS, for Numba to compile (`rows.function("product")`).

    Its arguments are six ints (matrix, source, target, n << 32 | d, width, transposed): the addresses of a matrix `(n, d)`, of the factor
    `(d, width)` and of the result `(n, width)`, the sizes, and whether the matrix is stored as `(d, n)`, 1 or 0. It writes the result and returns 0.

    Args:
        pointer: Compiled function that casts an address to a pointer to the numbers, such as `bits.float_pointer`.
        kind: Numba's type of the numbers, `numba.types.float64` or `float32`.
    """
    blas()
    gemm = _blas(kind)

    def rows(matrix, source, target, sizes, width, transposed):
        gemm(transposed, width, sizes >> 32, sizes & 0xFFFFFFFF, pointer(source), pointer(matrix), pointer(target))
        return 0

    return rows
