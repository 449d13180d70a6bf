"""Sequences of different lengths in one array, and their labels, on the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


def padded_sequences(sequences: Sequence[Any]) -> tuple[np.ndarray, Int[np.ndarray, " B"]]:
    """Sequences [T_i, ...] in one array [B, T, ...], zeros behind the shorter ones, and the T_i.

    Raises:
        ValueError: no sequence at all, or sequences whose steps differ in shape.
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("Sequences.pack needs at least one sequence, got an empty list.")
    for i, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"every sequence must be [T, ...] with the same step shape; sequence 0 has "
                f"shape {arrays[0].shape}, sequence {i} has shape {array.shape}."
            )
    lengths = np.array([len(array) for array in arrays])
    return _padded(arrays, 0, np.result_type(*arrays)), lengths


def padded_labels(labels: Sequence[Any], lengths: Int[np.ndarray, " B"]) -> np.ndarray:
    """Labels [T_i], or soft ones [T_i, K], of each sequence in one array.

    Padding says nothing, nor do sequences that have None: -1, or ones.

    Raises:
        ValueError: not as many as sequences, or as their steps; hard and soft ones mixed.
    """
    if len(labels) != len(lengths):
        raise ValueError(
            f"labels must be {len(lengths)} arrays (or None), one a sequence, got {len(labels)}."
        )
    known = [np.asarray(own) for own in labels if own is not None]
    step = known[0].shape[1:] if known else ()
    nothing = np.float16(1) if step else np.int8(-1)
    arrays = [
        np.full((length, *step), nothing) if own is None else np.asarray(own)
        for own, length in zip(labels, lengths, strict=True)
    ]
    for i, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
        if array.shape != (length, *step):
            raise ValueError(
                f"labels of sequence {i} must be {[int(length), *step]}, got {list(array.shape)}."
            )
    return _padded(arrays, nothing, np.result_type(nothing, *arrays))


def _padded(arrays: list[np.ndarray], filling: Any, dtype: Any) -> np.ndarray:
    longest = max(len(array) for array in arrays)
    together = np.full((len(arrays), longest, *arrays[0].shape[1:]), filling, dtype)
    for row, array in zip(together, arrays, strict=True):
        row[: len(array)] = array
    return together
