"""The transducer loss: minus the log-probability of a label sequence, over all its alignments."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem import lattice
from jaxem.targets import LogScale, check_logits, finished, negative, slope
from jaxem.transducer.grid import (
    TOPOLOGY,
    Grid,
    GridTopology,
    check_fast_emit,
    check_topology,
    grid_potentials,
)


def loss(
    logits: Float[Array, "B T U1 V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"] | None = None,
    label_lengths: Int[Array, " B"] | None = None,
    *,
    blank: int = 0,
    topology: GridTopology = "regular",
    fast_emit: float = 0.0,
    zero_infinity: bool = False,
) -> Float[Array, " B"]:
    """Minus the log-probability of each label sequence, summed over all its alignments.

    logits[b, t, u] are those of the symbol after u labels in frame t.  In the "regular" topology
    the blank moves on to the next frame and a label stays; a path ends with the blank of the last
    frame.  In the "modified" one a label moves on too: there is at most one label a frame, and a
    path ends when the frames do.

    The log-softmax is part of the loss: besides the gradient no array [B, T, U+1, V] is made, but
    one in float32 of shorter floats, and only the entries of blanks and labels enter the recursion.

    The gradient is that of the value for `fast_emit` 0; otherwise labels count 1 + fast_emit times
    in it and the value stays the same, as FastEmit wants it: labels are emitted earlier.
    Derivatives of any order are right, by `jacrev(jacrev)` or `hessian`; only a first one by `jvp`
    is not supported.

    A target that has no alignment has loss +inf, or 0 if `zero_infinity`, and a gradient of 0.
    Logits of -inf are legal; a path whose probability is below 2^(-2^29) counts as impossible.  The
    loss is never negative; it is right to a few roundings of itself, or of 1 for each step.  What
    lies past the lengths, NaN too, has no influence.  A NaN before gives its row NaN.  bfloat16 and
    float16 are computed in float32, which the loss has then; the gradient has the dtype of the
    logits.  Under `shard_map` pass `check_vma=False`.

    Graves (2012) §2.4; Yu et al. (2021), "FastEmit: low-latency streaming ASR with sequence-level
    emission regularization"; Kuang et al. (2022), "Pruned RNN-T", for the modified topology.

    Raises:
        ValueError: shapes that do not fit, a `blank` outside the vocabulary, an unknown topology;
            unless traced, lengths beyond the arrays, and labels that are the blank or no symbol.
            Under `jit` a row that has one of these gets NaN.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> loss = jaxem.transducer.loss(jnp.zeros((1, 10, 3, 4)), jnp.array([[1, 2]]))
        >>> round(float(jnp.exp(12 * jnp.log(4.0) - loss[0])))  # alignments, of 12 symbols of ¼
        55
    """
    logits = check_logits("logits", logits, "B T U+1 V")
    check_topology(topology)
    grid = Grid.check(logits.shape, labels, logit_lengths, label_lengths, blank)
    value = _compiled(blank, topology, logits, grid, check_fast_emit(fast_emit))
    return finished(value, zero_infinity)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss(blank: int, topology: GridTopology, logits: Array, grid: Grid, fast_emit: Array) -> Array:
    # Not the logits within the grid: that would be a copy of them.
    potentials = grid_potentials(logits, grid, LogScale.of(logits), blank, topology)
    log_prob = lattice.log_normalizer(TOPOLOGY, potentials, grid.paths(topology))
    return negative(log_prob, grid.is_valid)


def _forward(
    blank: int, topology: GridTopology, logits: Array, grid: Grid, fast_emit: Array
) -> tuple[Array, Any]:
    log_scale = LogScale.of(grid.within(logits))
    potentials = grid_potentials(logits, grid, log_scale, blank, topology)
    log_prob, counts = lattice.posterior(TOPOLOGY, potentials, grid.paths(topology))
    value = negative(log_prob, grid.is_valid)
    return value, (logits, grid, fast_emit, log_scale, counts, value)


def _backward(
    blank: int, topology: GridTopology, residuals: Any, cotangent: Array
) -> tuple[Array, None, None]:
    logits, grid, fast_emit, log_scale, counts, value = residuals
    scale = slope(value, cotangent, grid.inside(logits.shape[1]))
    blanks, hits = grid.counts(counts, logits.shape[1], topology)
    hits = jnp.pad(hits * (1 + fast_emit.astype(hits.dtype)), [(0, 0), (0, 0), (0, 1)])
    # By comparison, not by index: so that this is one pass over the logits and writes once.
    symbol = jnp.arange(logits.shape[3])
    label = jnp.pad(grid.labels, [(0, 0), (0, 1)], constant_values=-1)[:, None, :, None]
    softmax = jnp.exp(log_scale.log_prob(grid.within(logits)))
    gradient = softmax * (blanks + hits)[..., None]
    gradient -= jnp.where(symbol == blank, blanks[..., None], 0)
    gradient -= jnp.where(symbol == label, hits[..., None], 0)
    return (scale * gradient).astype(logits.dtype), None, None


_loss.defvjp(_forward, _backward)
_compiled = jax.jit(_loss, static_argnums=(0, 1))
