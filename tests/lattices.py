"""What the tests of CTC and the transducer share; one padded shape, so that little is compiled."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import lattice_oracles as oracles
import numpy as np

ROWS, FRAMES, LABELS, SYMBOLS = 61, 12, 6, 6
FLOAT32 = np.dtype(np.float32)


def hastily(function: Any, *options: str) -> Any:
    """Compiled once a shape and dtype, in little time; what is named is no array."""
    return jax.jit(
        function,
        static_argnames=options,
        compiler_options={"xla_backend_optimization_level": 0},
    )


def value_and_gradient(loss: Any, *options: str, factors: int = 1) -> Any:
    """Losses [B] and the gradient of their sum with respect to the first arguments."""

    def ask(*arguments: Any, **chosen: Any) -> Any:
        def losses_of(*logits: Any) -> Any:
            return loss(*logits, *arguments[factors:], **chosen)

        losses, pullback = jax.vjp(losses_of, *arguments[:factors])
        gradients = pullback(jnp.ones_like(losses))
        return losses, gradients if factors > 1 else gradients[0]

    return hastily(ask, "blank", "zero_infinity", *options)


class Widened:
    """A batch inside one of the shape that all share, and the way back from its answers.

    What is added is padding of all kinds: rows of length 0, frames and labels of garbage, symbols
    of probability 0.  The blank comes last in float32 and first in any other dtype.
    """

    def __init__(self, batch: oracles.Batch, blank: int = 0) -> None:
        logits = batch.logits
        self.rows, self.frames, symbols = logits.shape[0], logits.shape[1], logits.shape[-1]
        self.nodes = logits.shape[2] if logits.ndim == 4 else None
        self.labels = batch.labels.shape[1]
        self.blank = SYMBOLS - 1 if logits.dtype == FLOAT32 else 0
        others = np.delete(np.arange(symbols), blank)
        self.place = np.empty(symbols, int)
        self.place[blank] = self.blank
        self.place[others] = np.arange(symbols - 1) + (self.blank == 0)
        axes = (FRAMES,) if self.nodes is None else (FRAMES, LABELS + 1)
        wide = np.full((ROWS, *axes, SYMBOLS), -np.inf, logits.dtype)
        self.inside = (slice(self.rows), slice(self.frames), slice(self.nodes))[: len(axes) + 1]
        wide[(*self.inside, self.place)] = logits
        labels = np.full((ROWS, LABELS), blank)
        labels[: self.rows, : self.labels] = batch.labels
        lengths, counts = np.zeros((2, ROWS), np.int32)
        lengths[: self.rows], counts[: self.rows] = batch.logit_lengths, batch.label_lengths
        labels = np.where(np.arange(LABELS) < counts[:, None], labels, blank)
        clean = oracles.Batch(wide, self.place[labels].astype(np.int32), lengths, counts)
        self.batch = clean.with_garbage()

    def gradient(self, wide: Any) -> np.ndarray:
        """The gradient of the batch; that of everything around it must be 0."""
        return only(wide, (*self.inside, self.place))


def only(wide: Any, inside: tuple[Any, ...]) -> np.ndarray:
    """The part that belongs to a batch; all else must be 0, but for rows of NaN."""
    wide = np.array(wide)
    narrow = wide[inside].copy()
    wide[inside] = 0
    ill = np.flatnonzero(np.isnan(narrow).any(tuple(range(1, narrow.ndim))))
    assert not np.any(np.delete(wide, ill, 0))
    return narrow


def cast(batch: oracles.Batch, dtype: Any) -> oracles.Batch:
    """The batch as floats of that kind."""
    logits = batch.logits.astype(dtype)
    return oracles.Batch(logits, batch.labels, batch.logit_lengths, batch.label_lengths)


def full_batch(logits: Any, labels: Any, dtype: Any = FLOAT32) -> oracles.Batch:
    """A batch without padding."""
    logits, labels = np.asarray(logits, dtype), np.asarray(labels, int)
    rows, frames = logits.shape[:2]
    return oracles.Batch(logits, labels, np.full(rows, frames), np.full(rows, labels.shape[1]))


def rounding(batch: oracles.Batch) -> dict[str, float]:
    """Room for rounding errors of the log-probability of every step of a path."""
    logits = batch.logits[batch.inside() & np.isfinite(batch.logits)]
    size = max(1.0, float(np.abs(logits, dtype=float).max(initial=0)))
    eps = float(np.finfo(batch.logits.dtype).eps)
    steps = batch.logits.shape[1] + batch.labels.shape[1]
    return {"rtol": 20 * eps, "atol": 5 * eps * size * steps}


def copies(batch: oracles.Batch, flat: np.ndarray) -> oracles.Batch:
    """One batch of many copies of a batch, one for each vector of logits [n, size]."""
    tiled = (
        np.tile(part, (len(flat), *[1] * (part.ndim - 1)))
        for part in (batch.labels, batch.logit_lengths, batch.label_lengths)
    )
    return oracles.Batch(flat.reshape(-1, *batch.logits.shape[1:]), *tiled)


def assert_exact(
    got: Any, batch: oracles.Batch, log_likelihood: np.ndarray, gradient: np.ndarray, **room: Any
) -> None:
    """Losses and their gradient agree, and are exactly 0 or infinite where they should be."""
    losses, slope = (np.asarray(part) for part in got)
    assert losses.dtype == slope.dtype == batch.logits.dtype
    assert np.all(losses >= 0)
    np.testing.assert_allclose(losses, -log_likelihood, **room)
    np.testing.assert_allclose(slope, gradient, **room)
    assert not np.any(slope[~batch.inside()])
    assert not np.any(slope[np.isneginf(log_likelihood)])
    assert not np.any(slope[np.isneginf(batch.logits)])


def assert_names(caught: Any, *words: str) -> None:
    """Every word, or number by itself, stands in the message of an exception."""
    message = str(caught.value)
    for word in words:
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?!\w)", message), f"{word!r}: {message}"


def scratch_bytes(function: Any, *shapes: Any) -> int:
    """What a compiled program needs besides its arguments and results."""
    arguments = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in shapes]
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def compilations(function: Any, *arguments: Any) -> int:
    """How many programs a call compiles."""
    counted = []

    def count(event: str, *_: Any, **__: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            counted.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        jax.block_until_ready(function(*arguments))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    return len(counted)
