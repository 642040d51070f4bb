"""Sixteen float32 numbers as one value, `Lanes`, for compiled loops: +, -, * and / work on all of them at once.

LLVM rarely finds such vectors by itself in loops that run over a few numbers in memory, so the loops say what they
mean. Every target has them: one register with AVX-512, two with AVX2, four with NEON.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 16

_FLOATS = ir.VectorType(ir.FloatType(), WIDTH)

# Products and sums may fuse. Infinities and nans keep their meaning, for padding may hold them; a division alone may
# take them for impossible, which lets it be an estimate of the reciprocal and a Newton step (exact to 2e-7).
_FUSE = ("contract", "nsz")
_ESTIMATE = ("contract", "nsz", "arcp", "ninf")


class Lanes(types.Type):
    """The numba type of sixteen float32 numbers."""

    def __init__(self):
        super().__init__(name="Lanes")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, of):
        super().__init__(manager, of, _FLOATS)


LANES = Lanes()


def _address(context, builder, array_type, array, at):
    start = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(start, [at]), _FLOATS.as_pointer())


@intrinsic
def load(typing_context, array, at):
    """`load(array, at)`: the sixteen numbers in memory from element `at` of a float32 array's first one on."""

    def generate(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=4)

    return LANES(array, types.intp), generate


@intrinsic
def store(typing_context, array, at, lanes):
    """`store(array, at, lanes)`: write sixteen numbers from element `at` of a float32 array on."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), generate


@intrinsic
def gather(typing_context, array, at, step, count):
    """`gather(array, at, step, count)`: numbers of a float32 array, `step` elements apart.

    Lanes from `count` on repeat the one before: where fewer than sixteen are left, all lanes compute what is known.
    """

    def generate(context, builder, signature, arguments):
        lanes = ir.Constant(_FLOATS, ir.Undefined)
        for lane, place in enumerate(_apart(context, builder, signature.args[0], *arguments)):
            lanes = builder.insert_element(lanes, builder.load(place), ir.Constant(ir.IntType(32), lane))
        return lanes

    return LANES(array, types.intp, types.intp, types.intp), generate


@intrinsic
def scatter(typing_context, array, at, step, count, lanes):
    """`scatter(array, at, step, count, lanes)`: write to where `gather` reads.

    Lanes from `count` on are written in the place of the one before, and must hold the same number.
    """

    def generate(context, builder, signature, arguments):
        *where, lanes = arguments
        for lane, place in enumerate(_apart(context, builder, signature.args[0], *where)):
            builder.store(builder.extract_element(lanes, ir.Constant(ir.IntType(32), lane)), place)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, LANES), generate


def _apart(context, builder, array_type, array, at, step, count):
    start = context.make_array(array_type)(context, builder, array).data
    for lane in range(1, WIDTH + 1):
        yield builder.gep(start, [at])
        more = builder.icmp_signed("<", ir.Constant(count.type, lane), count)
        at = builder.select(more, builder.add(at, step), at)


@intrinsic
def turn(typing_context, source, at, step, target, to, step_to):
    """`turn(source, at, step, target, to, step_to)`: sixteen rows of sixteen numbers of a float32 array, written to
    another as sixteen columns; rows begin `step` elements apart, and `step_to` where they are written."""

    def generate(context, builder, signature, arguments):
        source, at, step, target, to, step_to = arguments
        rows = []
        for _ in range(WIDTH):
            rows.append(builder.load(_address(context, builder, signature.args[0], source, at), align=4))
            at = builder.add(at, step)
        for row in _transposed(builder, rows):
            builder.store(row, _address(context, builder, signature.args[3], target, to), align=4)
            to = builder.add(to, step_to)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


def _transposed(builder, rows):
    """Halves are exchanged across the diagonal, then quarters within them, and so on."""
    half = WIDTH // 2
    while half:
        upper = _places([k if not k & half else WIDTH + k - half for k in range(WIDTH)])
        lower = _places([k + half if not k & half else WIDTH + k for k in range(WIDTH)])
        for i in range(WIDTH):
            if not i & half:
                one, other = rows[i], rows[i + half]
                rows[i] = builder.shuffle_vector(one, other, upper)
                rows[i + half] = builder.shuffle_vector(one, other, lower)
        half //= 2
    return rows


@intrinsic
def spread(typing_context, number):
    """`spread(number)`: the same number in all lanes."""

    def generate(context, builder, signature, arguments):
        nothing = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, nothing, _places([0] * WIDTH))

    return LANES(types.float32), generate


@intrinsic
def above(typing_context, test, bound, lanes, otherwise):
    """`above(test, bound, lanes, otherwise)`: `lanes` where test > bound, else (and for a nan) `otherwise`."""

    def generate(context, builder, signature, arguments):
        test, bound, lanes, otherwise = arguments
        return builder.select(builder.fcmp_ordered(">", test, bound), lanes, otherwise)

    return LANES(LANES, LANES, LANES, LANES), generate


@intrinsic
def total(typing_context, lanes):
    """`total(lanes)`: the sum of all sixteen, a float32."""

    def generate(context, builder, signature, arguments):
        return _fold(builder, arguments[0], lambda left, right: builder.fadd(left, right, flags=_FUSE))

    return types.float32(LANES), generate


@intrinsic
def highest(typing_context, lanes):
    """`highest(lanes)`: the largest of all sixteen, a float32."""

    def generate(context, builder, signature, arguments):
        def larger(left, right):
            return builder.select(builder.fcmp_ordered(">", left, right), left, right)

        return _fold(builder, arguments[0], larger)

    return types.float32(LANES), generate


def _places(numbers) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), list(numbers))


def _fold(builder, lanes, combine):
    width = WIDTH
    while width > 1:
        width //= 2
        low = builder.shuffle_vector(lanes, lanes, _places(range(width)))
        high = builder.shuffle_vector(lanes, lanes, _places(range(width, 2 * width)))
        lanes = combine(low, high)
    return builder.extract_element(lanes, ir.Constant(ir.IntType(32), 0))


def _operation(name, flags):
    @intrinsic
    def compute(typing_context, left, right):
        def generate(context, builder, signature, arguments):
            return getattr(builder, name)(*arguments, flags=flags)

        return LANES(LANES, LANES), generate

    return compute


def _overload(operation, compute):
    @overload(operation)
    def choose(left, right):
        if isinstance(left, Lanes) and isinstance(right, Lanes):
            return lambda left, right: compute(left, right)


_overload(operator.add, _operation("fadd", _FUSE))
_overload(operator.sub, _operation("fsub", _FUSE))
_overload(operator.mul, _operation("fmul", _FUSE))
_overload(operator.truediv, _operation("fdiv", _ESTIMATE))
