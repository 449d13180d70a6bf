"""The best alignment of a labelling."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem import lattice
from jaxem.blocks import by_blocks
from jaxem.ctc.labelling import TOPOLOGY, Labelling
from jaxem.pytree import pytree
from jaxem.semiring import pairwise_sum
from jaxem.targets import NONE, LogScale, first_place, negative


@pytree
class Alignment:
    """The most probable path of each labelling; -1 where there is no frame, no label or no path."""

    score: Float[Array, " B"]  # its log-probability
    path: Int[Array, "B T"]  # the symbol of each frame
    states: Int[Array, "B T"]  # the state: 0 blank, 1 first label, 2 blank, 3 second label, ...
    first: Int[Array, "B L"]  # frame of each label
    last: Int[Array, "B L"]  # frame of each label
    confidence: Float[Array, "B L"]  # mean probability of the label in its frames; 0 if it has none


def align(
    logits: Float[Array, "B T V"],
    labels: Int[Array, "B L"],
    logit_lengths: Int[Array, " B"] | None = None,
    label_lengths: Int[Array, " B"] | None = None,
    *,
    blank: int = 0,
) -> Alignment:
    """The most probable path that collapses to the labels, and the frames of each label on it.

    Of equally good paths it is the one that, going back from the last frame, is in the state
    furthest on: each label begins as early as it can.  Equal logits do tie: paths are compared
    before what normalises the frames is taken off.  Arguments, edges and errors are those of
    `loss`; a target that has no path has score -inf, no frames (-1) and confidence 0.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> logits = jnp.array([[[0.0, -1.0, -3.0], [-1.0, -2.0, -2.0], [-2.0, 0.0, 0.0]]])
        >>> best = jaxem.ctc.align(logits, jnp.array([[1, 2]]))
        >>> best.path.tolist(), best.first.tolist(), best.last.tolist()
        ([[1, 0, 2]], [[0, 2]], [[0, 2]])
    """
    logits, labelling = Labelling.check(logits, labels, logit_lengths, label_lengths, blank)
    return _align(logits, labelling, blank)


@partial(jax.jit, static_argnums=2)
def _align(logits: Array, labelling: Labelling, blank: int) -> Alignment:
    return by_blocks(partial(_align_rows, blank), logits, labelling)


def _align_rows(blank: int, logits: Array, labelling: Labelling) -> Alignment:
    log_scale = LogScale.of(logits)
    # Paths are compared without what normalises a frame, the same for all: so ties remain ties.
    relative = LogScale(log_scale.peak, jnp.zeros_like(log_scale.log_total))
    potentials = labelling.apart(labelling.potentials(logits, relative, blank))
    score, taken = lattice.best_path(TOPOLOGY, potentials, labelling.paths)
    inside = labelling.inside(logits.shape[1])
    score -= pairwise_sum(jnp.where(inside, log_scale.log_total, 0).T)
    occupied = labelling.interleaved(taken)
    some = inside & (labelling.is_valid & (score > -jnp.inf))[:, None]
    states = jnp.where(some, jnp.argmax(occupied, 2), NONE)
    symbols = labelling.extended(blank)
    path = jnp.take_along_axis(symbols, jnp.maximum(states, 0), 1)
    hits = (occupied[:, :, 1::2] > 0) & some[..., None]  # [B, T, L]
    frames = jnp.sum(hits, 1)
    first = first_place(hits)
    chosen = jnp.take_along_axis(logits, jnp.maximum(path, 0)[..., None], 2)
    prob = jnp.exp(log_scale.log_prob(chosen))
    prob = jnp.sum(jnp.where(hits, prob, 0), 1) / jnp.maximum(frames, 1)
    return Alignment(
        -negative(score, labelling.is_valid),
        jnp.where(some, path, NONE),
        states,
        first,
        jnp.where(frames > 0, first + frames - 1, NONE),
        prob,
    )
