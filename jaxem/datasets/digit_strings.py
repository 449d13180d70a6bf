"""Strings of real handwritten digits: data for recognisers that have to find where labels are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxem.pytree import pytree

HELD_OUT = 4  # every fourth image
SIZE = 8  # rows, and columns, of an image


@pytree
class DigitStrings:
    """Strings as sequences of columns, and what they say; everything past the end is padding."""

    frames: Float[Array, "B T 8"]  # columns from left to right, ink in [0, 1]; padding is 0
    num_frames: Int[Array, " B"]
    labels: Int[Array, "B L"]  # digit + 1, so that 0 is free for a blank; padding is -1
    num_labels: Int[Array, " B"]


def digit_strings(
    key: Array,
    num_strings: int,
    *,
    min_length: int = 3,
    max_length: int = 8,
    max_gap: int = 3,
    transition: Float[Array, "10 10"] | None = None,
    held_out: bool = False,
) -> DigitStrings:
    """Strings of handwritten digits side by side, drawn from scikit-learn's `load_digits`.

    A string has from `min_length` to `max_length` digits and from 0 to `max_gap` empty columns
    before each, all equally likely. Row i of `transition` are the probabilities of the digit after
    digit i; the first digit is uniform, and without a `transition` so are the others. Every digit
    is an image of 8 columns drawn at random from those of its kind. Every fourth of the 1797
    images is held out: training strings are made from the others alone, held-out ones from these.
    The same people wrote both.

    The arrays are T = max_length (8 + max_gap) frames and L = max_length labels wide.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        ValueError: lengths out of order, a negative gap, or rows of `transition` that are not
            probabilities.

    Alpaydın, E. & Kaynak, C. (1998), *Optical Recognition of Handwritten Digits*, UCI Machine
    Learning Repository; scikit-learn has the part of it that is meant for testing.

    Examples:
        >>> import jax, jaxem
        >>> strings = jaxem.datasets.digit_strings(jax.random.key(0), 100)  # doctest: +SKIP
        >>> strings.frames.shape, strings.labels.shape  # doctest: +SKIP
        ((100, 88, 8), (100, 8))
    """
    if not 0 <= min_length <= max_length or max_length < 1:
        raise ValueError(
            f"lengths must be 0 <= min_length <= max_length and 1 <= max_length, got {min_length} "
            f"and {max_length}."
        )
    if max_gap < 0:
        raise ValueError(f"max_gap must not be negative, got {max_gap}.")
    moves = _probabilities(transition)
    images, kinds = _images(held_out)
    draws = np.asarray(jax.random.uniform(key, (4, num_strings, max_length)), float)
    length = min_length + _below(draws[0, :, 0], max_length - min_length + 1)
    digit = _chain(draws[1], moves)
    there = np.arange(max_length) < length[:, None]

    members = [np.flatnonzero(kinds == kind) for kind in range(10)]
    count = np.array([len(each) for each in members])
    table = np.stack([np.resize(each, max(count)) for each in members])
    image = images[table[digit, _below(draws[2], count[digit])]]  # [B, L, row, column]
    gap = _below(draws[3], max_gap + 1)
    first = np.cumsum(SIZE + gap, 1) - SIZE  # the frame at which each digit begins

    frames = np.zeros((num_strings, max_length * (SIZE + max_gap), SIZE), np.float32)
    string, place = np.nonzero(there)
    columns = first[string, place][:, None] + np.arange(SIZE)
    frames[string[:, None], columns] = image[string, place].swapaxes(1, 2)
    end = np.where(there, first + SIZE, 0).max(1, initial=0)
    return DigitStrings(
        jnp.asarray(frames),
        jnp.asarray(end),
        jnp.asarray(np.where(there, digit + 1, -1)),
        jnp.asarray(length),
    )


def _images(held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 8, 8] with ink in [0, 1], and what digits they are."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as absent:
        raise ModuleNotFoundError(
            'the digits are scikit-learn\'s: pip install "jaxem[sklearn]"', name="sklearn"
        ) from absent
    digits: Any = load_digits()
    part = (np.arange(len(digits["target"])) % HELD_OUT == 0) == held_out
    return digits["images"][part] / 16, digits["target"][part]


def _probabilities(transition: Array | None) -> np.ndarray:
    table = np.full((10, 10), 0.1) if transition is None else np.asarray(transition, float)
    if table.shape != (10, 10) or (table < 0).any() or not np.allclose(table.sum(1), 1, atol=1e-5):
        raise ValueError(
            "transition must be probabilities [10, 10] whose rows sum to 1, got shape "
            f"{table.shape} and row sums {table.sum(-1)}."
        )
    return table


def _below(uniform: np.ndarray, bound: Any) -> np.ndarray:
    """Integers 0 ... bound - 1, all equally likely."""
    return (uniform * bound).astype(int)


def _chain(uniform: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """A Markov chain in every row, by inversion."""
    cumulative = np.cumsum(transition, 1)
    cumulative[:, -1] = 1
    digit = np.empty(uniform.shape, int)
    for place, draw in enumerate(uniform.T):
        before = np.full((len(draw), 10), np.arange(1, 11) / 10)
        if place:
            before = cumulative[digit[:, place - 1]]
        digit[:, place] = (draw[:, None] >= before).sum(1)
    return digit
