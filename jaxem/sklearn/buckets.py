"""Sizes that data are padded to, so that shapes that differ a little share a compiled program."""

from typing import Any

import numpy as np

from jaxem.data import Samples, Sequences

ROWS = 16  # rows, or steps, come in multiples of so many at least
SHARE = 8  # of a size, at most one in so many is padding, beyond these
SEQUENCES = 4  # several sequences come in multiples of so many at least
WASTE, ROOM = 64, 2**24  # padded steps for each that is there, beyond so many: too uneven


def bucket(number: int, least: int = 1) -> int:
    """The smallest size of at least `number` that data are padded to.

    Multiples of `least`, and from 16 of them on of an eighth of the largest power of two in it.

    Examples:
        >>> from jaxem.sklearn.buckets import bucket
        >>> [bucket(number, 16) for number in (1, 120, 135, 150, 1000, 1001)]
        [16, 128, 144, 160, 1024, 1024]
    """
    step = max(least, 2 ** max(number.bit_length() - 1, 0) // SHARE)
    return max(-(-number // step), 1) * step


def pad(rows: Any, size: int, value: Any) -> np.ndarray:
    """An array with rows of this value at its end, so that there are `size`."""
    rows = np.asarray(rows)
    padding = np.full((size - len(rows), *rows.shape[1:]), value, rows.dtype)
    return np.concatenate([rows, padding]) if len(padding) else rows


def padded_samples(x: np.ndarray, weight: Any, observed: np.ndarray | None) -> Samples:
    """Rows padded with copies of the first; these have weight 0.  All rows have a weight."""
    size = bucket(len(x), ROWS)
    weight = np.ones(len(x), float) if weight is None else np.asarray(weight, float)
    return Samples(
        pad(x, size, x[0]),
        pad(weight, size, 0.0),
        None if observed is None else pad(observed, size, observed[0]),
    )


def padded_sequences(
    x: np.ndarray, lengths: np.ndarray, weight: Any, observed: np.ndarray | None
) -> Sequences:
    """Rows of sequences one after the other as padded ones; those added have length 0.

    Raises:
        ValueError: lengths so uneven that nearly all would be padding.
    """
    batch = bucket(len(lengths), SEQUENCES if len(lengths) > 1 else 1)
    steps = bucket(int(lengths.max(initial=0)), ROWS)
    if batch * steps > max(WASTE * len(x), ROOM):
        raise ValueError(
            f"{len(lengths)} sequences are padded to the longest, {lengths.max()} steps: "
            f"{batch * steps} steps for {len(x)} rows. Cut the long ones into pieces."
        )
    lengths = pad(lengths.astype(np.int32), batch, 0)
    inside = np.arange(steps) < lengths[:, None]

    def laid_out(rows: np.ndarray, value: Any) -> np.ndarray:
        padded = np.full((batch, steps, *rows.shape[1:]), value, rows.dtype)
        padded[inside] = rows
        return padded

    return Sequences(
        laid_out(x, x[0] if len(x) else 0),
        lengths,
        None if weight is None else pad(np.asarray(weight, float), batch, 0.0),
        None if observed is None else laid_out(observed, True),
    )
