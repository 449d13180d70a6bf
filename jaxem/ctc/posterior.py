"""The posterior over a labelling's alignments."""

from functools import partial

import jax
from jaxtyping import Array, Float, Int

from jaxem import lattice
from jaxem.blocks import by_blocks
from jaxem.ctc.labelling import TOPOLOGY, Labelling
from jaxem.pytree import pytree
from jaxem.targets import LogScale, negative, or_nan


@pytree
class Posterior:
    """Expected occupancy of each state of a labelling in each frame."""

    log_likelihood: Float[Array, " B"]  # of the labels
    states: Float[Array, "B T S"]  # S = 2L + 1: blank, first label, blank, ..., last label, blank

    @property
    def labels(self) -> Float[Array, "B T L"]:
        """The probability that a frame belongs to a label, given all labels."""
        return self.states[:, :, 1::2]

    @property
    def blanks(self) -> Float[Array, "B T L1"]:
        """The probability that a frame is a blank, before each label and after the last."""
        return self.states[:, :, 0::2]


def posterior(
    logits: Float[Array, "B T V"],
    labels: Int[Array, "B L"],
    logit_lengths: Int[Array, " B"] | None = None,
    label_lengths: Int[Array, " B"] | None = None,
    *,
    blank: int = 0,
) -> Posterior:
    """Which label or blank each frame belongs to, as expected given the labels.

    The `Posterior` has the log-likelihood [B] and the occupancy [B, T, 2L+1] of the states, which
    sums to 1 over the states of a frame; it is 0 past the end, and for a target that has no path.
    Arguments, edges and errors are those of `loss`, whose gradient it is.

    Graves et al. (2006) (14).

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> logits = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))
        >>> jaxem.ctc.posterior(logits, jnp.array([[1]])).states.round(3).tolist()
        [[[0.375, 0.625, 0.0], [0.0, 0.625, 0.375]]]
    """
    logits, labelling = Labelling.check(logits, labels, logit_lengths, label_lengths, blank)
    return _posterior(logits, labelling, blank)


@partial(jax.jit, static_argnums=2)
def _posterior(logits: Array, labelling: Labelling, blank: int) -> Posterior:
    def rows(logits: Array, labelling: Labelling) -> Posterior:
        log_scale = LogScale.of(labelling.within(logits))
        potentials = labelling.apart(labelling.potentials(logits, log_scale, blank))
        log_prob, counts = lattice.posterior(TOPOLOGY, potentials, labelling.paths)
        states = or_nan(labelling.is_valid, labelling.interleaved(counts))
        return Posterior(-negative(log_prob, labelling.is_valid), states)

    return by_blocks(rows, logits, labelling)
