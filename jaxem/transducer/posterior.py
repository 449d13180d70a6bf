"""The posterior over a transducer's alignments."""

from functools import partial

import jax
from jaxtyping import Array, Float, Int

from jaxem import lattice
from jaxem.pytree import pytree
from jaxem.targets import LogScale, check_logits, negative, or_nan
from jaxem.transducer.grid import TOPOLOGY, Grid, GridTopology, check_topology, grid_potentials


@pytree
class Posterior:
    """Expected uses of each arc of the grid, given the labels."""

    log_likelihood: Float[Array, " B"]  # of the labels
    blank: Float[Array, "B T U1"]  # of the blank after u labels in frame t
    label: Float[Array, "B T U"]  # of the label u in frame t


def posterior(
    logits: Float[Array, "B T U1 V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"] | None = None,
    label_lengths: Int[Array, " B"] | None = None,
    *,
    blank: int = 0,
    topology: GridTopology = "regular",
) -> Posterior:
    """When each label and each blank is emitted, as expected given the labels.

    The `Posterior` has the log-likelihood [B] and the expected uses of each arc of the grid: each
    label is used once in all, and in each frame one blank (in the modified topology one blank or
    one label).  All is 0 past the end, and for a target that has no alignment.  Arguments, edges
    and errors are those of `loss`.

    Graves (2012) §2.4.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> expected = jaxem.transducer.posterior(jnp.zeros((1, 3, 2, 4)), jnp.array([[1]]))
        >>> expected.label[0, :, 0].round(3).tolist()  # in which of three frames
        [0.333, 0.333, 0.333]
    """
    logits = check_logits("logits", logits, "B T U+1 V")
    check_topology(topology)
    grid = Grid.check(logits.shape, labels, logit_lengths, label_lengths, blank)
    return _posterior(logits, grid, blank, topology)


@partial(jax.jit, static_argnums=(2, 3))
def _posterior(logits: Array, grid: Grid, blank: int, topology: GridTopology) -> Posterior:
    log_scale = LogScale.of(grid.within(logits))
    potentials = grid_potentials(logits, grid, log_scale, blank, topology)
    log_prob, counts = lattice.posterior(TOPOLOGY, potentials, grid.paths(topology))
    blanks, label = grid.counts(counts, logits.shape[1], topology)
    blanks, label = or_nan(grid.is_valid, blanks), or_nan(grid.is_valid, label)
    return Posterior(-negative(log_prob, grid.is_valid), blanks, label)
