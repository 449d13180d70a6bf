"""How many alignments a labelling has."""

import jax
import jax.numpy as jnp
import numpy as np
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
    floats: exact as far as the dtype counts, +inf beyond its range, where `log_count` still serves.

    Raises:
        ValueError: shapes that do not fit; unless traced, negative or too large lengths.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> jaxem.ctc.count(jnp.array([[1, 2], [1, 1]]), jnp.array([5, 5])).tolist()
        [35.0, 15.0]
    """
    return jnp.round(jnp.exp(log_count(labels, logit_lengths, label_lengths)))


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
    shape = np.shape(labels)
    if len(shape) != 2:
        raise ValueError(f"labels must be [B, L], but got shape {shape}.")
    lengths = lengths_or_all("label_lengths", label_lengths, shape[0], shape[1])
    frames = lengths_or_all("logit_lengths", logit_lengths, shape[0], None)
    return _log_count(jnp.asarray(labels), frames, lengths)


@jax.jit
def _log_count(labels: Array, frames: Array, lengths: Array) -> Array:
    place = jnp.arange(1, labels.shape[1])
    repeats = (labels[:, 1:] == labels[:, :-1]) & (place < lengths[:, None])
    spare = frames - lengths - jnp.sum(repeats, 1)  # T - L - r
    drawn = jnp.arange(1, 2 * labels.shape[1] + 1)[:, None]
    dtype = jnp.result_type(float)
    ratio = jnp.log1p(jnp.maximum(spare, 0).astype(dtype) / drawn)
    total = pairwise_sum(jnp.where(drawn <= 2 * lengths, ratio, 0))
    return jnp.where(spare < 0, -jnp.inf, total)
