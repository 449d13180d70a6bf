"""What CTC and the transducer ask of a batch of logits and label sequences."""

from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.data import is_traced
from jaxem.pytree import pytree

NONE = -1  # no frame, no symbol


def check_logits(name: str, logits: Any, axes: str) -> Float[Array, "..."]:
    """An array of logits with these axes, as "B T V"."""
    logits = jnp.asarray(logits)
    if logits.ndim != len(axes.split()) or not jnp.issubdtype(logits.dtype, jnp.floating):
        wanted = ", ".join(axes.split())
        raise ValueError(
            f"{name} must be a floating array [{wanted}], "
            f"but got one of {logits.dtype} of shape {logits.shape}."
        )
    return logits


def check_blank(blank: int, num_symbols: int) -> None:
    """The blank is a symbol, known when the program is compiled."""
    if not isinstance(blank, int | np.integer):
        raise ValueError(f"blank must be an int and no array, but is {blank!r}.")
    if not 0 <= blank < num_symbols:
        raise ValueError(
            f"blank must be a symbol, 0 to {num_symbols - 1} for V = {num_symbols}, but is {blank}."
        )


def lengths_or_all(name: str, lengths: Any, batch: int, most: int | None) -> Int[Array, " B"]:
    """The lengths as an array; None is `most` for every row.  Traced ones are not looked into."""
    if lengths is None and most is not None:
        return jnp.full(batch, most, jnp.int32)
    lengths = jnp.asarray(lengths) if is_traced(lengths) else np.asarray(lengths)
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be {batch} integers, one for each row of the batch, "
            f"but got {lengths.dtype} of shape {lengths.shape}."
        )
    if not is_traced(lengths):
        limit = np.inf if most is None else most
        for row in np.flatnonzero((lengths < 0) | (lengths > limit))[:1]:
            size = "0 or more" if most is None else f"from 0 to {most}, the size of the array"
            raise ValueError(f"{name}[{row}] is {lengths[row]}, but must be {size}.")
    return jnp.asarray(lengths, jnp.int32)


def check_labels(
    labels: Any, batch: int, lengths: Any, num_symbols: int, blank: int
) -> tuple[Int[Array, "B L"], Int[Array, " B"]]:
    """Label sequences and their lengths.  What is past a length may be anything."""
    labels = jnp.asarray(labels) if is_traced(labels) else np.asarray(labels)
    shape, dtype = labels.shape, labels.dtype
    if (
        len(shape) != 2
        or shape[0] != batch
        or not (
            jnp.issubdtype(dtype, jnp.integer) or 0 in shape  # an empty list is one of floats
        )
    ):
        raise ValueError(
            f"labels must be integers [B, L] with B = {batch} as the logits have, "
            f"but got {dtype} of shape {shape}."
        )
    lengths = lengths_or_all("label_lengths", lengths, batch, shape[1])
    if not is_traced(labels) and not is_traced(lengths):
        inside = np.arange(shape[1]) < np.asarray(lengths)[:, None]
        wrong = inside & ((labels < 0) | (labels >= num_symbols) | (labels == blank))
        for row, place in np.argwhere(wrong)[:1]:
            what = "the blank" if labels[row, place] == blank else "no symbol"
            raise ValueError(
                f"labels[{row}, {place}] is {labels[row, place]}, {what}: labels are from 0 to "
                f"{num_symbols - 1} without {blank}; pass label_lengths if it is padding."
            )
    return jnp.asarray(labels, jnp.int32), lengths


def are_valid(
    labels: Int[Array, "B L"],
    num_labels: Int[Array, " B"],
    num_frames: Int[Array, " B"],
    most_frames: int,
    num_symbols: int,
    blank: int,
) -> Bool[Array, " B"]:
    """Whether the labels and lengths of a row are right: the same checks, of traced values."""
    most = labels.shape[1]
    past = jnp.arange(most) >= num_labels[:, None]
    known = (labels >= 0) & (labels < num_symbols) & (labels != blank)
    fit = (num_labels >= 0) & (num_labels <= most)
    return jnp.all(past | known, 1) & fit & (num_frames >= 0) & (num_frames <= most_frames)


def or_nan(is_valid: Bool[Array, " B"], value: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """The value; NaN in rows of traced labels or lengths that should have been refused."""
    return jnp.where(jnp.expand_dims(is_valid, range(1, value.ndim)), value, jnp.nan)


def first_place(hits: Bool[Array, "B T L"]) -> Int[Array, "B L"]:
    """The first frame in which each label is hit, NONE if there is none."""
    found = jnp.argmax(jnp.pad(hits, [(0, 0), (0, 1), (0, 0)]), 1)  # T may be 0
    return jnp.where(jnp.any(hits, 1), found, NONE)


def computed(dtype: Any) -> jnp.dtype:
    """The dtype to compute in: float32 for the shorter ones."""
    return jnp.promote_types(dtype, jnp.float32)


def negative(log_prob: Float[Array, " B"], is_valid: Bool[Array, " B"]) -> Float[Array, " B"]:
    """The loss of a log-probability.

    A probability that rounding has made more than 1 costs 0, with its slope.  Rows of traced labels
    or lengths that should have been refused cost NaN.
    """
    loss = or_nan(is_valid, -log_prob)
    return loss + lax.stop_gradient(jnp.maximum(-loss, 0))


def finished(loss: Float[Array, " B"], zero_infinity: bool) -> Float[Array, " B"]:
    """The loss as asked for."""
    return jnp.where(jnp.isposinf(loss), 0, loss) if zero_infinity else loss


def slope(
    loss: Float[Array, " B"], cotangent: Float[Array, " B"], inside: Bool[Array, "B T ..."]
) -> Float[Array, "B T ..."]:
    """By what a gradient is multiplied: 0 where the loss is infinite and past the end, whatever the
    cotangent, and NaN where the loss is NaN."""
    row = jnp.where(jnp.isnan(loss), jnp.nan, jnp.where(jnp.isinf(loss), 0, cotangent))
    return jnp.where(inside, jnp.expand_dims(row, range(1, inside.ndim)), 0)


@pytree
class LogScale:
    """What makes logits log-probabilities: log_prob = (logit - peak) - log_total.

    In this order: logits of 100 less their log-normaliser have lost two digits in float32.
    """

    peak: Float[Array, "..."]
    log_total: Float[Array, "..."]

    @classmethod
    def of(cls, logits: Float[Array, "... V"]) -> Self:
        """By softmax over the last axis; nothing but -inf stays -inf."""
        logits = logits.astype(computed(logits.dtype))
        peak = lax.stop_gradient(jnp.max(logits, -1))
        peak = jnp.where(jnp.isneginf(peak), 0, peak)
        total = jnp.sum(jnp.exp(logits - peak[..., None]), -1)
        return cls(peak, jnp.where(total == 0, 0, jnp.log(jnp.where(total == 0, 1, total))))

    @classmethod
    def none(cls, shape: tuple[int, ...], dtype: Any) -> Self:
        """For logits that are log-probabilities already."""
        return cls(jnp.zeros(shape, computed(dtype)), jnp.zeros(shape, computed(dtype)))

    def log_prob(self, logits: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log-probabilities of one logit each, or of [..., N] of them."""
        more = (None,) * (logits.ndim - self.peak.ndim)
        index = (..., *more)
        return (logits.astype(self.peak.dtype) - self.peak[index]) - self.log_total[index]
