"""The labelling of the best path."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem.data import mask_from_lengths
from jaxem.hypotheses import NO_LABEL, Hypotheses
from jaxem.semiring import pairwise_sum
from jaxem.targets import LogScale, check_blank, check_logits, computed, lengths_or_all


def greedy(
    logits: Float[Array, "B T V"], logit_lengths: Int[Array, " B"] | None = None, *, blank: int = 0
) -> Hypotheses:
    """The labelling of the most probable path, one for each sequence.

    Repeated symbols become one and blanks are left out.  `log_prob`, and `score` too, is that of
    the path, which is at most that of its labelling: another labelling may be more probable, see
    `prefix_search`.  Of equally probable symbols of a frame the first is taken.

    The labels are [B, T], the log-probabilities float32 at least.  Frames past `logit_lengths` have
    no influence.  A sequence with a frame of nothing but -inf has no labels, and -inf; one with NaN
    or +inf has none, and NaN.

    Graves et al. (2006) §3.2, "best path decoding".

    Raises:
        ValueError: logits that are not floating [B, T, V], a `blank` outside the vocabulary,
            lengths that are not 0 to T (NaN instead if they are traced).

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> best = jaxem.ctc.greedy(jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]])))
        >>> best.lengths.tolist(), jnp.exp(best.log_prob).round(2).tolist()
        ([0], [0.36])
    """
    logits = check_logits("logits", logits, "B T V")
    batch, num_frames, num_symbols = logits.shape
    check_blank(blank, num_symbols)
    return _greedy(logits, lengths_or_all("logit_lengths", logit_lengths, batch, num_frames), blank)


@partial(jax.jit, static_argnames="blank")
def _greedy(logits: Array, lengths: Array, blank: int) -> Hypotheses:
    logits = logits.astype(computed(logits.dtype))
    B, T = logits.shape[:2]
    inside = mask_from_lengths(lengths, T)
    path = jnp.where(inside, jnp.argmax(logits, 2), blank)
    before = jnp.pad(path[:, :-1], [(0, 0), (1, 0)], constant_values=blank)[:, :T]
    new = (path != blank) & (path != before)
    best = LogScale.of(logits).log_prob(jnp.max(logits, 2))
    log_prob = pairwise_sum(jnp.where(inside, best, 0).T)
    log_prob = jnp.where((lengths < 0) | (lengths > T), jnp.nan, log_prob)
    new &= (log_prob > -jnp.inf)[:, None]
    place = jnp.where(new, jnp.cumsum(new, 1) - 1, T)
    labels = jnp.full((B, T), NO_LABEL, jnp.int32)
    labels = labels.at[jnp.arange(B)[:, None], place].set(path.astype(jnp.int32), mode="drop")
    return Hypotheses(labels, jnp.sum(new, 1, dtype=jnp.int32), log_prob, log_prob)
