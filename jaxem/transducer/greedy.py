"""The most probable symbol, one after the other (Graves 2012)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxem.hypotheses import NO_LABEL, Hypotheses, select
from jaxem.pytree import pytree
from jaxem.semiring import pairwise_sum
from jaxem.targets import check_logits, lengths_or_all
from jaxem.transducer.grid import GridTopology
from jaxem.transducer.predictor import (
    Join,
    Predict,
    begin,
    check_options,
    log_probs,
)


@pytree
class _Walk:
    """Where each sequence is on its way through the lattice."""

    frame: Int[Array, " B"]
    emitted: Int[Array, " B"]  # labels in this frame
    labels: Int[Array, "B L"]
    length: Int[Array, " B"]
    log_probs: Float[Array, "B T"]  # of the arcs taken, summed within each frame
    prediction: Any  # [B, ...]
    state: Any  # [B, ...]


def greedy(
    frames: Float[Array, "B T F"],
    logit_lengths: Int[Array, " B"] | None = None,
    *,
    predict: Predict,
    join: Join,
    start: Any,
    blank: int = 0,
    max_symbols: int = 10,
    max_length: int | None = None,
    topology: GridTopology = "regular",
) -> Hypotheses:
    """One labelling a sequence, from the most probable symbol at every node of the lattice.

    A label stays in its frame and the blank moves on to the next; in the "modified" topology both
    move on.  After `max_symbols` labels in a frame ("modified" has one), or `max_length` in all,
    only the blank is left, however improbable.  The first of equal symbols is taken.

    `log_prob`, and `score` as well, is the log-probability of the path that was taken: of one
    alignment, at most that of the labelling.  A path of probability 0 gives no labels and -inf, one
    that meets NaN no labels and NaN.

    `predict(state, token)` returns the prediction after one more token and the new state, `join(
    frame, prediction)` the logits [V]; both are pure functions of one hypothesis.  `start` is the
    first state and the blank the first token.  `predict` runs only when a sequence has a new label.

    The labels are [B, max_length], by default as many as the frames allow.  Frames past
    `logit_lengths` have no influence.  Computes in the dtype of the logits, float32 at least.  Put
    `jax.jit` around it: else each call is compiled again.

    Graves (2012).

    Raises:
        ValueError: a wrong shape or option, or lengths that are not 0 to T (NaN instead if they are
            traced).

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> frames = jnp.array([[[0.0, 4.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 4.0]]])
        >>> best = jaxem.transducer.greedy(
        ...     frames,
        ...     predict=lambda state, token: (token, token),
        ...     join=lambda frame, last: frame - 1.0 * (last == jnp.arange(3)),  # a bigram
        ...     start=0,
        ...     topology="modified",
        ... )
        >>> best.labels[0, : best.lengths[0]].tolist()
        [1, 2]
    """
    check_options(max_symbols, max_length, topology)
    frames = check_logits("frames", frames, "B T F")
    lengths = lengths_or_all("logit_lengths", logit_lengths, *frames.shape[:2])
    wrong = (lengths < 0) | (lengths > frames.shape[1])
    if frames.shape[1] == 0:  # there must be a frame to index, if only to pass over it
        frames = jnp.zeros((len(frames), 1, frames.shape[2]), frames.dtype)
    batch, steps, _ = frames.shape
    lengths = jnp.minimum(lengths, steps)
    rows, stays = jnp.arange(batch), topology == "regular"
    if max_length is None:
        max_length = steps * max_symbols if stays else steps
    joined = jax.vmap(partial(log_probs, join, blank))
    prediction, state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (batch, *leaf.shape)), begin(predict, start, blank)
    )

    def step(walk: _Walk) -> _Walk:
        inside = walk.frame < lengths
        log_prob = joined(frames[rows, jnp.minimum(walk.frame, steps - 1)], walk.prediction)
        full = walk.length == max_length
        full = full | (walk.emitted == max_symbols) if stays else full
        symbol = jnp.where(full, blank, jnp.argmax(log_prob, 1)).astype(jnp.int32)
        taken = jnp.where(inside, log_prob[rows, symbol], 0)
        new = inside & (symbol != blank)
        prediction, state = lax.cond(
            jnp.any(new),
            lambda: select(
                new, jax.vmap(predict)(walk.state, symbol), (walk.prediction, walk.state)
            ),
            lambda: (walk.prediction, walk.state),
        )
        moves = ~new if stays else jnp.ones_like(new)
        place = jnp.where(new, walk.length, max_length)  # past the end: dropped
        return _Walk(
            frame=walk.frame + moves,
            emitted=jnp.where(moves, 0, walk.emitted + 1),
            labels=walk.labels.at[rows, place].set(symbol, mode="drop"),
            length=walk.length + new,
            log_probs=walk.log_probs.at[rows, walk.frame].add(taken, mode="drop"),
            prediction=prediction,
            state=state,
        )

    none = jnp.zeros(batch, jnp.int32)
    dtype = jax.eval_shape(joined, frames[:, 0], prediction).dtype
    walk = _Walk(
        frame=none,
        emitted=none,
        labels=jnp.full((batch, max_length), NO_LABEL, jnp.int32),
        length=none,
        log_probs=jnp.zeros((batch, steps), dtype),
        prediction=prediction,
        state=state,
    )
    walk = lax.while_loop(lambda walk: jnp.any(walk.frame < lengths), step, walk)
    log_prob = jnp.where(wrong, jnp.nan, pairwise_sum(walk.log_probs.T))
    there = log_prob > -jnp.inf
    return Hypotheses(
        labels=jnp.where(there[:, None], walk.labels, NO_LABEL),
        lengths=jnp.where(there, walk.length, 0),
        score=log_prob,
        log_prob=log_prob,
    )
