"""The best alignment of a transducer."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem import lattice
from jaxem.pytree import pytree
from jaxem.targets import LogScale, check_logits, first_place, negative
from jaxem.transducer.grid import (
    TOPOLOGY,
    Grid,
    GridTopology,
    check_topology,
    grid_potentials,
    label_log_probs,
)


@pytree
class Alignment:
    """The most probable alignment of each label sequence."""

    score: Float[Array, " B"]  # its log-probability
    frames: Int[Array, "B U"]  # in which each label is emitted; -1 past the end and where none is
    confidence: Float[Array, "B U"]  # the probability of the label where it is emitted; 0 where not


def align(
    logits: Float[Array, "B T U1 V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"] | None = None,
    label_lengths: Int[Array, " B"] | None = None,
    *,
    blank: int = 0,
    topology: GridTopology = "regular",
) -> Alignment:
    """The most probable way to emit the labels: in which frame each is emitted.

    Of equally good alignments it is the one that, from the last label back, emits each as early as
    it can.  Arguments, edges and errors are those of `loss`; a target that has no alignment has
    score -inf, no frames (-1) and confidence 0.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> logits = jnp.zeros((1, 3, 2, 4)).at[0, 1, 0, 2].set(5.0)  # the label 2, in frame 1
        >>> jaxem.transducer.align(logits, jnp.array([[2]])).frames.tolist()
        [[1]]
    """
    logits = check_logits("logits", logits, "B T U+1 V")
    check_topology(topology)
    grid = Grid.check(logits.shape, labels, logit_lengths, label_lengths, blank)
    return _align(logits, grid, blank, topology)


@partial(jax.jit, static_argnums=(2, 3))
def _align(logits: Array, grid: Grid, blank: int, topology: GridTopology) -> Alignment:
    log_scale = LogScale.of(logits)
    potentials = grid_potentials(logits, grid, log_scale, blank, topology)
    score, taken = lattice.best_path(TOPOLOGY, potentials, grid.paths(topology))
    _, emitted = grid.counts(taken, logits.shape[1], topology)
    unknown = jnp.isnan(log_scale.peak) & grid.inside(logits.shape[1])[..., 0]
    is_valid = grid.is_valid & ~jnp.any(unknown, (1, 2))
    hits = (emitted > 0) & is_valid[:, None, None]
    prob = jnp.exp(label_log_probs(logits, grid, log_scale))
    return Alignment(
        -negative(score, is_valid),
        first_place(hits),
        jnp.sum(jnp.where(hits, prob, 0), 1),
    )
