"""Reductions in log space.

In log space multiplication is `+`; a semiring is the choice of what stands for addition.
Minus infinity is a value, the log of zero, and nothing here turns it into NaN.
"""

import functools
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

PRECISION = lax.Precision.HIGHEST  # TF32 and bfloat16 defaults are wrong by whole nats in densities
UNROLLED = 16  # alternatives up to which a reduction is written out: XLA vectorises that on a CPU
SERIES_ORDER = 18  # of exp within 1 of 0: the next term, 2/19!, is lost in any dtype's rounding


def logsumexp(a: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Log of the sum of exponentials along `axis`.

    A slice of nothing but -inf gives -inf, and a gradient of exactly 0 (not NaN).  NaN stays NaN.
    """
    return softmax(a, axis)[1]


def softmax(a: Float[Array, "..."], axis: int) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Probabilities proportional to exp(a) along `axis`, and the log of what they were divided by.

    Bishop (2006) 9.13 with one exponential for both.  A slice of nothing but -inf has probabilities
    0 and log-normaliser -inf.
    """
    peak = lax.stop_gradient(jnp.expand_dims(_across(jnp.maximum, a, axis), axis))
    peak = jnp.where(jnp.isneginf(peak), 0, peak)
    unnormalised = jnp.exp(a - peak)
    total = jnp.expand_dims(_across(jnp.add, unnormalised, axis), axis)
    none = total == 0  # only an exact zero: NaN must stay NaN
    total = jnp.where(none, 1, total)
    log_normalizer = jnp.where(none, -jnp.inf, jnp.log(total) + peak)
    return unnormalised / total, jnp.squeeze(log_normalizer, axis)


def _across(combine: Any, a: Array, axis: int | tuple[int, ...]) -> Array:
    """The maximum or the sum along axes; slice by slice where one axis has few and long ones."""
    one = axis % a.ndim if isinstance(axis, int) else a.ndim - 1
    if one == a.ndim - 1 or not 1 < a.shape[one] <= UNROLLED:
        return (jnp.max if combine is jnp.maximum else jnp.sum)(a, axis)
    return functools.reduce(combine, jnp.unstack(a, axis=one))


def maximum(a: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Maximum along `axis` whose gradient is one-hot even on ties, so that it selects one path."""
    best = jnp.expand_dims(jnp.argmax(a, axis), axis)
    return jnp.squeeze(jnp.take_along_axis(a, best, axis), axis)


def log_normalize(logits: Float[Array, "... V"]) -> Float[Array, "... V"]:
    """Log-probabilities along the last axis; a row of nothing but -inf stays as it is."""
    total = logsumexp(logits, -1)[..., None]
    return logits - jnp.where(jnp.isneginf(total), 0, total)


def log(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm, whose gradient at 0, where it is -inf, is 0: arithmetic goes on beside it."""
    none = value == 0
    return jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1, value)))


def times(count: Float[Array, "..."], log_value: Float[Array, "..."]) -> Float[Array, "..."]:
    """count · log_value where nothing times an infinity is nothing: 0 · (±inf) = 0."""
    nothing = count == 0
    return jnp.where(nothing, 0, count * jnp.where(nothing, 0, log_value))


def relative_entropy(log_q: Float[Array, "..."], log_p: Float[Array, "..."]) -> Float[Array, "..."]:
    """q·log(q/p) − q + p of each pair, never negative; summed, the divergence of q from p in nats.

    That is so where q and p have the same sum: the last two terms then cancel, and each summand is
    as small as q and p are close, q·log²(q/p)/2, where q·log(q/p) is of either sign and much
    larger.  The relative error is a few roundings, at any q/p; equal arguments give exactly 0.

    Where q is 0 the value is p.  Where p alone is 0 it is +inf, even for a q that underflows.
    """
    never, only_q = jnp.isneginf(log_q), jnp.isneginf(log_p) & ~jnp.isneginf(log_q)
    log_ratio = jnp.where(never | only_q, 0, log_q - log_p)
    q, p = jnp.exp(log_q), jnp.exp(log_p)
    close = (jnp.abs(log_ratio) < 1) & ~never
    small = jnp.where(close, log_ratio, 0)
    # r − 1 + exp(−r) = r²/2 · (1 − r/3 · (1 − r/4 · (…))), whose leading terms have cancelled
    series = jnp.ones_like(small)
    for order in range(SERIES_ORDER, 2, -1):
        series = 1 - small * (1 / order) * series
    # Of subnormal q and p the rounding may be larger than the difference.
    apart = jnp.maximum(q * (log_ratio - 1) + p, 0)
    value = jnp.where(close, q * (small * small / 2 * series), apart)
    return jnp.where(only_q, jnp.inf, value)


def expected_log(
    counts: Float[Array, "N E"], log_value: Float[Array, "K E"]
) -> Float[Array, "N K"]:
    """Σₑ counts[n, e] · log_value[k, e] as one product, with 0 · (−inf) = 0.

    A positive count of something impossible gives -inf.
    """
    impossible = jnp.isneginf(log_value)
    finite = jnp.where(impossible, 0, log_value)
    hits = jnp.dot(
        (counts > 0).astype(log_value.dtype),
        impossible.T.astype(log_value.dtype),
        precision=PRECISION,
    )
    total = jnp.dot(counts, finite.T, precision=PRECISION)
    return jnp.where(hits > 0, -jnp.inf, total)


def pairwise_sum(terms: Float[Array, "T ..."]) -> Float[Array, "..."]:
    """Sum over the leading axis in a tree: the error grows with log T, not with T."""
    while len(terms) > 1:
        half = len(terms) // 2
        pairs = terms[:half] + terms[half : 2 * half]
        terms = jnp.concatenate([pairs, terms[2 * half :]])
    return jnp.sum(terms, 0)


def compensated_sum(total: tuple[Array, Array], term: Array) -> tuple[Array, Array]:
    """A sum and what rounding has added to it (Kahan 1965): the error does not grow with terms."""
    value, lost = total
    term = term - lost
    new = value + term
    return new, (new - value) - term
