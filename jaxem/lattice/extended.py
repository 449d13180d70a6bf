"""Non-negative numbers of any size: a mantissa and a whole exponent of 2, each in its own array.

The probability of a path is a product of thousands of factors.  As a float it underflows; as a
logarithm of -3000 it has lost four digits in float32.  Apart, mantissa and exponent lose neither:
sums and products have a relative error of one rounding, whatever their size, and cost no
exponential and no logarithm.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.pytree import pytree

LEAST = -(2**29)  # the exponent of 0, and of what is nearly 0: the sum of three is an int32 yet


@pytree
class Extended:
    """mantissa · 2^exponent.  0 is 0 · 2^LEAST; NaN is a mantissa of NaN."""

    mantissa: Float[Array, "..."]
    exponent: Int[Array, "..."]


def from_log(log_value: Float[Array, "..."]) -> Extended:
    """exp(log_value), its mantissa between 1 and 2.

    -inf and what is below 2^LEAST give 0, what is above 2^(-LEAST) NaN.
    """
    value = log_value * (1 / math.log(2))
    whole = jnp.floor(value)
    none = value < LEAST
    mantissa = jnp.where(value > -LEAST, jnp.nan, jnp.exp2(value - whole))
    exponent = jnp.where(none | (value > -LEAST) | jnp.isnan(value), LEAST, whole)
    return Extended(jnp.where(none, 0, mantissa), exponent.astype(jnp.int32))


def log(number: Extended) -> Float[Array, "..."]:
    """The logarithm; -inf for 0."""
    none = number.mantissa == 0
    log_mantissa = jnp.log2(jnp.where(none, 1, number.mantissa))
    value = (number.exponent.astype(log_mantissa.dtype) + log_mantissa) * math.log(2)
    return jnp.where(none, -jnp.inf, value)


def indicator(which: Bool[Array, "..."], dtype: jnp.dtype) -> Extended:
    """1 where true, 0 elsewhere."""
    return Extended(which.astype(dtype), jnp.where(which, 0, LEAST).astype(jnp.int32))


def zero_like(number: Extended) -> Extended:
    """0 in every place."""
    return Extended(jnp.zeros_like(number.mantissa), jnp.full_like(number.exponent, LEAST))


def power(exponent: Int[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    """2^exponent, of exponents up to 0; 0 where that is no normal number."""
    integer, bits, bias = _format(dtype)
    field = jnp.maximum(exponent + bias, 0).astype(integer)
    return lax.bitcast_convert_type(field << bits, dtype)


def align(terms: list[Extended]) -> tuple[list[Float[Array, "..."]], Int[Array, "..."]]:
    """The terms as floats on one exponent, the largest of theirs, and that exponent."""
    exponent = terms[0].exponent
    for term in terms[1:]:
        exponent = jnp.maximum(exponent, term.exponent)
    dtype = terms[0].mantissa.dtype
    return [term.mantissa * power(term.exponent - exponent, dtype) for term in terms], exponent


def product(one: Extended, other: Extended) -> Extended:
    """The product, its mantissa not brought back to [1, 2)."""
    return Extended(one.mantissa * other.mantissa, one.exponent + other.exponent)


def normalise(number: Extended) -> Extended:
    """The same number with a mantissa between 1 and 2; what is smaller than 2^LEAST becomes 0."""
    mantissa, exponent = number.mantissa, number.exponent
    integer, bits, bias = _format(mantissa.dtype)
    pattern = lax.bitcast_convert_type(mantissa, integer)
    exponent = exponent + ((pattern >> bits) - bias).astype(jnp.int32)
    digits = (pattern & ((1 << bits) - 1)) | (bias << bits)
    some = (mantissa > 0) & (exponent > LEAST)
    rest = jnp.where(mantissa > 0, 0, mantissa)  # 0 stays 0, and NaN stays NaN
    mantissa = jnp.where(some, lax.bitcast_convert_type(digits, mantissa.dtype), rest)
    return Extended(mantissa, jnp.where(some, exponent, LEAST))


def _format(dtype: jnp.dtype) -> tuple[jnp.dtype, int, int]:
    """The integer dtype of the same size, the bits of a mantissa, and the bias of an exponent."""
    info = jnp.finfo(dtype)
    return jnp.dtype(f"int{info.bits}"), info.nmant, 1 - int(info.minexp)
