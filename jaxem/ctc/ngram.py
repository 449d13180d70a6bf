"""An n-gram language model as a finite automaton."""

from collections.abc import Iterable
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxem.pytree import pytree


@pytree
class NGram:
    """A language model of which only the last few labels count, for `beam_search`.

    Its states are the contexts that were seen before some label, the empty one first; a call is two
    look-ups.  The log-probabilities of a state are those of the label that comes next, given the
    longest context that was seen.  There is no end of sequence, and a sequence begins with the
    empty context.  The tables take S · V numbers each.

    Examples:
        >>> import numpy as np, jaxem
        >>> model = jaxem.ctc.NGram.estimate([[1, 2, 1, 2, 1], [2, 1, 2]], 3, order=2)
        >>> log_probs, state = model(model.start, 1)  # after a 1
        >>> print(np.exp(log_probs).round(2))
        [0.02 0.12 0.87]
    """

    log_prob: Float[Array, "S V"]  # of each symbol after each context
    next_state: Int[Array, "S V"]  # the longest context that a context and a symbol end with

    @property
    def start(self) -> Int[Array, ""]:
        """The state of the empty context."""
        return jnp.zeros((), jnp.int32)

    def __call__(
        self, state: Int[Array, ""], token: Int[Array, ""] | int
    ) -> tuple[Float[Array, " V"], Int[Array, ""]]:
        """Log-probabilities of the label after `token`, and the state there; -1 is no token."""
        state = jnp.where(token < 0, state, self.next_state[state, token])
        return self.log_prob[state], state

    @classmethod
    def estimate(cls, sequences: Iterable[Any], num_symbols: int, *, order: int = 3) -> Self:
        """The model of label sequences, each symbol given the `order` − 1 before it.

        Witten-Bell smoothing: after a context of n labels in which u different ones were seen, a
        label seen c times has probability (c + u p) / (n + u), where p is its probability after
        the context without its first label; u different symbols of equal probability stand before
        the empty context.  So every symbol is possible, and each row sums to 1.

        `sequences` are of integers, 0 to `num_symbols` − 1; rows [N, L] may be padded with -1.
        `num_symbols` is that of the logits' columns, the blank's among them: never seen, it takes
        what an unseen label does, and a search never asks for it.  Tables of S · V numbers, where
        S − 1 is at most the number of different n-grams of up to `order` − 1 labels.

        Witten & Bell (1991), "The zero-frequency problem", method C; interpolated as in Chen &
        Goodman (1999), "An empirical study of smoothing techniques for language modeling".

        Raises:
            ValueError: a symbol out of range or that is not an integer, by sequence and position;
                no label at all; an order below 1.
        """
        if order < 1:
            raise ValueError(f"order must be 1 or more, got {order}.")
        symbols = _joined(sequences, num_symbols)
        # Context n of a position are the n labels before it; -1: there are not as many.
        context = np.where(symbols < 0, -1, 0)
        contexts, suffix, first = [context], [np.zeros(1, int)], [0, 1]
        for n in range(1, order):
            oldest = np.concatenate([np.full(n, -1), symbols])[: len(symbols)]
            known = (context >= 0) & (oldest >= 0)
            key, state = np.unique(
                context[known] * num_symbols + oldest[known], return_inverse=True
            )
            context = np.full_like(context, -1)
            context[known] = first[-1] + state
            contexts.append(context)
            suffix.append(key // num_symbols)
            first.append(first[-1] + len(key))
        suffix = np.concatenate(suffix)
        return cls(
            jnp.asarray(np.log(_probabilities(symbols, contexts, suffix, first, num_symbols))),
            jnp.asarray(_moves(symbols, contexts, suffix, first, num_symbols), jnp.int32),
        )


def _joined(sequences: Iterable[Any], num_symbols: int) -> Int[np.ndarray, " P"]:
    """All sequences behind each other, a -1 before each."""
    parts = []
    for i, sequence in enumerate(sequences):
        labels = np.asarray(sequence)
        if labels.ndim != 1 or (labels.size and not np.issubdtype(labels.dtype, np.integer)):
            raise ValueError(
                f"sequence {i} must be integers [L], got {labels.dtype} of shape {labels.shape}."
            )
        used = np.flatnonzero(labels != -1)
        labels = labels[: used[-1] + 1] if len(used) else labels[:0]
        for position in np.flatnonzero((labels < 0) | (labels >= num_symbols))[:1]:
            raise ValueError(
                f"symbol {labels[position]} at position {position} of sequence {i} is outside 0 "
                f"to {num_symbols - 1}; only the end of a sequence may be padded, with -1."
            )
        parts += [[-1], labels]
    symbols = np.concatenate([np.empty(0, int), *parts]).astype(int)
    if not np.any(symbols >= 0):
        raise ValueError("sequences hold no label; an n-gram model needs one at least.")
    return symbols


def _probabilities(
    symbols: np.ndarray,
    contexts: list[np.ndarray],
    suffix: np.ndarray,
    first: list[int],
    num_symbols: int,
) -> Float[np.ndarray, "S V"]:
    probs = np.zeros((first[-1], num_symbols))
    for context in contexts:
        known = context >= 0
        np.add.at(probs, (context[known], symbols[known]), 1)
    for begin, end in zip(first, first[1:], strict=False):
        counts = probs[begin:end]
        shorter = probs[suffix[begin:end]] if begin else 1 / num_symbols
        different = np.sum(counts > 0, 1, keepdims=True)
        total = np.sum(counts, 1, keepdims=True)
        probs[begin:end] = (counts + different * shorter) / (total + different)
    return probs


def _moves(
    symbols: np.ndarray,
    contexts: list[np.ndarray],
    suffix: np.ndarray,
    first: list[int],
    num_symbols: int,
) -> Int[np.ndarray, "S V"]:
    """The state after a context and a symbol."""
    moves = np.full((first[-1], num_symbols), -1)
    for shorter, longer in zip(contexts, contexts[1:], strict=False):
        here = np.flatnonzero(longer >= 0)
        moves[shorter[here - 1], symbols[here - 1]] = longer[here]
    for n, (begin, end) in enumerate(zip(first, first[1:], strict=False)):
        back = moves[suffix[begin:end]] if n else 0
        moves[begin:end] = np.where(moves[begin:end] < 0, back, moves[begin:end])
    return moves
