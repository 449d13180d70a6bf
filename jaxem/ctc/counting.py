"""How many alignments a labelling has."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxem.semiring import pairwise_sum
from jaxem.targets import lengths_or_all


def count(
    labels: Int[Array, "B L"],
    logit_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """The number of paths that collapse to each label sequence; 0 where there are too few frames.

    C(T + L - r, 2L) for L labels in T frames, r of them equal to the one before.  Whole numbers as
    floats: exact up to 2^22 in float32, to a few roundings above, and +inf beyond the range of the
    dtype, where `log_count` still serves.

    Raises:
        ValueError: shapes that do not fit; unless traced, negative or too large lengths.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> jaxem.ctc.count(jnp.array([[1, 2], [1, 1]]), jnp.array([5, 5])).tolist()
        [35.0, 15.0]
    """
    spare, lengths = _checked(labels, logit_lengths, label_lengths)
    return _count(spare, lengths, jnp.shape(labels)[1])


def log_count(
    labels: Int[Array, "B L"],
    logit_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """The logarithm of `count`, of any size.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> jaxem.ctc.log_count(jnp.array([[1, 2]]), jnp.array([10_000])).round(2).tolist()
        [33.66]
    """
    spare, lengths = _checked(labels, logit_lengths, label_lengths)
    return _log_count(spare, lengths, jnp.shape(labels)[1])


def _checked(labels: Any, frames: Any, lengths: Any) -> tuple[Array, Array]:
    """Frames to spare, T - L - r, and label lengths; ValueErrors."""
    labels = jnp.asarray(labels)
    if labels.ndim != 2 or not (jnp.issubdtype(labels.dtype, jnp.integer) or not labels.size):
        raise ValueError(
            f"labels must be integers [B, L], but got {labels.dtype} of shape {labels.shape}."
        )
    lengths = lengths_or_all("label_lengths", lengths, len(labels), labels.shape[1])
    frames = lengths_or_all("logit_lengths", frames, len(labels), None)
    inside = jnp.arange(1, labels.shape[1]) < lengths[:, None]
    repeats = jnp.sum((labels[:, 1:] == labels[:, :-1]) & inside, 1)
    return frames - lengths - repeats, lengths


@partial(jax.jit, static_argnums=2)
def _count(spare: Array, lengths: Array, most: int) -> Array:
    """Drawn one by one: after each the number is whole, which takes the roundings off."""

    def draw(total: Array, drawn: Array) -> tuple[Array, None]:
        more = jnp.round(total * (spare + drawn) / drawn)
        return jnp.where(drawn <= 2 * lengths, more, total), None

    start = jnp.where(spare < 0, 0, jnp.ones(spare.shape))
    return lax.scan(draw, start, jnp.arange(1, 2 * most + 1))[0]


@partial(jax.jit, static_argnums=2)
def _log_count(spare: Array, lengths: Array, most: int) -> Array:
    drawn = jnp.arange(1, 2 * most + 1)[:, None]
    ratio = jnp.log1p(jnp.maximum(spare, 0) / drawn)
    total = pairwise_sum(jnp.where(drawn <= 2 * lengths, ratio, 0))
    return jnp.where(spare < 0, -jnp.inf, total)
