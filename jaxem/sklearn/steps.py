"""Sequences as hmmlearn takes them: rows one after the other, and how many each has."""

from typing import Any

import numpy as np

from jaxem.sklearn.tables import log_of


def check_lengths(lengths: Any, num_rows: int) -> np.ndarray:
    """Lengths [B] of the sequences, which may be 0; None for one sequence of all rows.

    Raises:
        ValueError: no whole numbers from 0; another sum than the number of rows.
    """
    if lengths is None:
        return np.array([num_rows])
    given = np.atleast_1d(np.asarray(lengths))
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer) or np.any(given < 0):
        raise ValueError(f"lengths must be whole numbers from 0, one a sequence, got {lengths}.")
    if given.sum() != num_rows:
        raise ValueError(f"lengths array {lengths} doesn't sum to {num_rows} samples")
    return given


def check_sequence_weight(weight: Any, lengths: np.ndarray) -> np.ndarray | None:
    """Weights [B] of the sequences, none of them negative; None stays None.

    Raises:
        ValueError: not one a sequence; a negative one, or one that is not finite; all 0.
    """
    if weight is None:
        return None
    weight = np.asarray(weight, float)
    if weight.shape != lengths.shape:
        raise ValueError(
            f"sample_weight must be [{len(lengths)}], one a sequence, got {list(weight.shape)}."
        )
    if not np.all((weight >= 0) & (weight < np.inf)) or not np.any(weight > 0):
        raise ValueError("sample_weight must be finite, not negative, and not 0 everywhere.")
    return weight


def each_step(weight: np.ndarray | None, lengths: np.ndarray) -> np.ndarray | None:
    """The weight of its sequence for every row."""
    return None if weight is None else np.repeat(weight, lengths)


def as_rows(padded: Any, lengths: np.ndarray) -> np.ndarray:
    """What is padded [B′, T, ...] as rows one after the other."""
    padded = np.asarray(padded)[: len(lengths)]
    return padded[np.arange(padded.shape[1]) < lengths[:, None]]


def check_sums(probs: Any, name: str) -> None:
    """Raise a ValueError in hmmlearn's words unless the last axis sums to 1 and holds no less
    than 0."""
    sums = np.sum(probs, -1)
    if not np.allclose(sums, 1):
        if np.ndim(sums) == 0:
            raise ValueError(f"{name} must sum to 1 (got {sums:.4f})")
        raise ValueError(f"{name} rows must sum to 1 (got row sums of {sums})")
    if np.any(np.asarray(probs) < 0):
        raise ValueError(f"{name} must not be negative")


def spread_over(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A prior's parameter for every entry: as NumPy broadcasts it, or one a state.

    Raises:
        ValueError: neither.
    """
    value = np.asarray(value, float)
    try:
        return np.broadcast_to(value, shape)
    except ValueError:
        if value.shape and value.shape == shape[: value.ndim]:
            return np.broadcast_to(
                value.reshape(*value.shape, *[1] * (len(shape) - value.ndim)), shape
            )
        raise ValueError(f"{name} must broadcast to {shape}, got {value.shape}.") from None


def log_prob_of_path(
    startprob: Any, transmat: Any, states: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """log p(z_t | z_{t-1}) of every row [N], log p(z_1) of the first of each sequence."""
    first = np.zeros(len(states), bool)
    first[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    before = np.concatenate([states[:1], states[:-1]])
    return np.where(first, log_of(startprob)[states], log_of(transmat)[before, states])
