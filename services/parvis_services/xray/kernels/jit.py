"""How the kernels are compiled, and the few machine operations that plain indexing cannot say.

The compiled code is kept on disk (in `NUMBA_CACHE_DIR` if set, else beside the module, else in the user's
cache directory), so that only the first process on a kind of machine pays for compilation. Where no directory
can be written, kernels are compiled anew in each process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

WIDE = 32
"""Bytes that `copy_wide` moves at once."""

LANES = 16
"""Pixels that `leading_plain` and `running_sum` treat at once."""

FLAGS = 64
"""Bytes that `set_flags` looks at at once."""

BOX_LANES = 8
"""Columns that `box_sums` treats at once."""


def kernel(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile without the interpreter lock, without bounds checks, and keep the machine code on disk."""
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba found no directory it may write to
        return njit(nogil=True, **options)(function)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a part of a kernel that makes no arrays and gives none back: it counts no references to arrays.

    In what is called for every row or pixel, counting would take a quarter of the time.
    """
    return kernel(function, _nrt=False)


def _operation(typing: Callable[..., Any]) -> Callable[..., Any]:
    """An intrinsic of numba, called without the typing context that its definition begins with."""
    return cast("Callable[..., Any]", intrinsic(typing))


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, pointed: Any) -> Any:
    """Address `offset` bytes into a byte array, as a pointer to something else."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), pointed.as_pointer())


@_operation
def copy_wide(
    typing_context: Any,  # noqa: ARG001
    target: Any,
    target_offset: Any,  # noqa: ARG001
    source: Any,
    source_offset: Any,  # noqa: ARG001
) -> Any:
    """Copy `WIDE` bytes between byte arrays: all are read before any is written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.VectorType(ir.IntType(8), WIDE)
        to = _address(context, builder, signature.args[0], arguments[0], arguments[1], wide)
        from_ = _address(context, builder, signature.args[2], arguments[2], arguments[3], wide)
        builder.store(builder.load(from_, align=1), to, align=1)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), generate


@_operation
def fetch_ahead(typing_context: Any, array: Any, offset: Any) -> Any:  # noqa: ARG001
    """Ask for the memory `offset` bytes into an array, soon to be read. Beyond its end nothing happens."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.gep(builder.bitcast(data, address), [arguments[1]])
        kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
        builder.call(fetch, [place, number(0), number(3), number(1)])  # to read; into all caches; data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@_operation
def set_flags(typing_context: Any, flags: Any, offset: Any) -> Any:  # noqa: ARG001
    """Which of the `FLAGS` bytes at `offset` are not 0, one bit each, the first the lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        octets = ir.VectorType(ir.IntType(8), FLAGS)
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1], octets)
        found = builder.icmp_unsigned("!=", builder.load(address, align=1), octets([0] * FLAGS))
        return builder.bitcast(found, ir.IntType(FLAGS))

    return types.uint64(flags, types.int64), generate


@_operation
def lowest_bit(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
    """The place of the lowest bit set in a word that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), generate


@_operation
def fill_wide(typing_context: Any, target: Any, offset: Any, word: Any) -> Any:  # noqa: ARG001
    """Fill `WIDE` bytes of a byte array with a 64-bit word, again and again."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = ir.VectorType(ir.IntType(64), WIDE // 8)
        nothing, first = words(ir.Undefined), ir.IntType(32)(0)
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1], words)
        once = builder.insert_element(nothing, arguments[2], first)
        everywhere = ir.VectorType(ir.IntType(32), WIDE // 8)([0] * (WIDE // 8))
        builder.store(builder.shuffle_vector(once, nothing, everywhere), address, align=1)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.uint64), generate


@_operation
def leading_plain(typing_context: Any, source: Any, offset: Any) -> Any:  # noqa: ARG001
    """How many of the `LANES` bytes at `offset` come before the first 0x80; `LANES` if it is not there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        octets = ir.VectorType(ir.IntType(8), LANES)
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1], octets)
        escapes = builder.icmp_signed("==", builder.load(address, align=1), octets([-128] * LANES))
        bits = builder.zext(builder.bitcast(escapes, ir.IntType(LANES)), ir.IntType(64))
        found = builder.or_(bits, ir.IntType(64)(1 << LANES))
        return builder.cttz(found, ir.IntType(1)(1))

    return types.int64(source, types.int64), generate


@_operation
def running_sum(
    typing_context: Any,  # noqa: ARG001
    target: Any,
    index: Any,  # noqa: ARG001
    source: Any,
    offset: Any,  # noqa: ARG001
    start: Any,  # noqa: ARG001
) -> Any:
    """Write to `target` `start` plus the running sum of `LANES` signed bytes, as int32; gives the last."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        octets, sums = (ir.VectorType(ir.IntType(bits), LANES) for bits in (8, 32))
        lanes = ir.VectorType(ir.IntType(32), LANES)
        source_address = _address(context, builder, signature.args[2], arguments[2], arguments[3], octets)
        total = builder.sext(builder.load(source_address, align=1), sums)
        zeros = sums([0] * LANES)
        for distance in (1 << step for step in range(LANES.bit_length() - 1)):
            earlier = lanes([LANES - distance + lane for lane in range(LANES)])
            total = builder.add(total, builder.shuffle_vector(zeros, total, earlier))
        first = ir.IntType(32)(0)
        last = builder.add(arguments[4], builder.extract_element(total, ir.IntType(32)(LANES - 1)))
        spread = builder.insert_element(sums(ir.Undefined), arguments[4], first)
        spread = builder.shuffle_vector(spread, sums(ir.Undefined), lanes([0] * LANES))
        byte_index = builder.mul(arguments[1], ir.IntType(64)(4))
        raw = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.gep(builder.bitcast(raw, ir.IntType(8).as_pointer()), [byte_index])
        builder.store(builder.add(total, spread), builder.bitcast(place, sums.as_pointer()), align=1)
        return last

    return types.int32(target, types.int64, source, types.int64, types.int32), generate


@_operation
def box_sums(typing_context: Any, rows: Any, column: Any, leave_out: Any) -> Any:  # noqa: ARG001
    """Number, sum and sum of squares of the values that are not negative in a box of int32 `rows`.

    The box has all rows, and as many columns from `column` on as `leave_out` has entries (a multiple of
    `BOX_LANES`); those where `leave_out` is -1 instead of 0 do not count.
    """
    numbers = types.UniTuple(types.int64, 3)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, lanes = ir.IntType(64), ir.VectorType(ir.IntType(32), BOX_LANES)
        wide = ir.VectorType(word, BOX_LANES)
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        keep = context.make_array(signature.args[2])(context, builder, arguments[2])
        height, pitch = (builder.extract_value(array.shape, i) for i in (0, 1))
        sums = [cgutils.alloca_once_value(builder, wide([0] * BOX_LANES)) for _ in range(3)]
        with cgutils.for_range_slice(builder, word(0), keep.nitems, word(BOX_LANES), inc=True) as (group, _):
            unwanted = builder.load(
                builder.bitcast(builder.gep(keep.data, [group]), lanes.as_pointer()), align=4
            )
            first = builder.add(arguments[1], group)
            with cgutils.for_range(builder, height) as row:
                place = builder.gep(array.data, [builder.add(builder.mul(row.index, pitch), first)])
                value = builder.load(builder.bitcast(place, lanes.as_pointer()), align=4)
                value = builder.sext(builder.or_(value, unwanted), wide)
                counts = builder.icmp_signed(">=", value, wide([0] * BOX_LANES))
                value = builder.select(counts, value, wide([0] * BOX_LANES))
                terms = (builder.zext(counts, wide), value, builder.mul(value, value))
                for total, term in zip(sums, terms, strict=True):
                    builder.store(builder.add(builder.load(total), term), total)
        totals = [_lane_sum(builder, builder.load(total)) for total in sums]
        return context.make_tuple(builder, numbers, totals)

    return numbers(rows, types.int64, leave_out), generate


def _lane_sum(builder: Any, vector: Any) -> Any:
    """The sum of the lanes of a vector, halving it again and again."""
    index = ir.IntType(32)
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        halves = [
            builder.shuffle_vector(
                vector, vector, ir.VectorType(index, lanes)([start + lane for lane in range(lanes)])
            )
            for start in (0, lanes)
        ]
        vector = builder.add(*halves)
    return builder.extract_element(vector, index(0))
