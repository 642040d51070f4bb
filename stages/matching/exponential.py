"""The exponential of sixteen float32 numbers at once, which neither numba nor LLVM has on every machine."""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from .lanes import LANES, WIDTH

_FLOATS = ir.VectorType(ir.FloatType(), WIDTH)
_INTEGERS = ir.VectorType(ir.IntType(32), WIDTH)

# Below it the result would leave the normal float32 numbers; it is cut there, at 1.6e-38.
_LOWEST = -87.0
# Adding it rounds to a whole number, which then stands in the last bits of the sum.
_ROUNDER = 1.5 * 2**23
_PER_LOG_2 = 1.4426950408889634
# ln 2 in two parts: the first has few enough digits that its small multiples are exact.
_LOG_2 = (0.693145751953125, 1.4286068203094173e-06)
# The polynomial from r^6 down whose relative error on [-ln 2 / 2, ln 2 / 2] is least, 1.9e-9 before rounding.
_COEFFICIENTS = (0.0013836835, 0.0083748242, 0.041668225, 0.1666642, 0.49999991, 1.0, 1.0)


@intrinsic
def exp(typing_context, lanes):
    """`exp(lanes)`: e^x for x <= 88, relative error 2e-7; below -87 it stays at 1.6e-38, for a nan too.

    x = k ln 2 + r with a whole k: a polynomial gives e^r, and k goes into the exponent's bits.
    """

    def generate(context, builder, signature, arguments):
        def constant(number):
            return ir.Constant(_FLOATS, number)

        def fused(factor, other, added):
            return builder.fadd(builder.fmul(factor, other, flags=("contract",)), added, flags=("contract",))

        (x,) = arguments
        x = builder.select(builder.fcmp_ordered(">", x, constant(_LOWEST)), x, constant(_LOWEST))
        rounded = fused(x, constant(_PER_LOG_2), constant(_ROUNDER))
        whole = builder.fsub(rounded, constant(_ROUNDER))
        rest = x
        for part in _LOG_2:
            rest = fused(whole, constant(-part), rest)
        power = constant(_COEFFICIENTS[0])
        for coefficient in _COEFFICIENTS[1:]:
            power = fused(power, rest, constant(coefficient))
        exponent = builder.shl(builder.bitcast(rounded, _INTEGERS), ir.Constant(_INTEGERS, 23))
        return builder.bitcast(builder.add(builder.bitcast(power, _INTEGERS), exponent), _FLOATS)

    return LANES(LANES), generate
