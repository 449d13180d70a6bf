"""The transducer loss of a joiner that adds: logits = am[t] + lm[u], never formed."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxem import lattice
from jaxem.semiring import PRECISION, logsumexp
from jaxem.targets import check_logits, computed, finished, negative
from jaxem.transducer.grid import (
    TOPOLOGY,
    Grid,
    GridTopology,
    check_fast_emit,
    check_topology,
)


def factored_loss(
    am: Float[Array, "B T V"],
    lm: Float[Array, "B U1 V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"] | None = None,
    label_lengths: Int[Array, " B"] | None = None,
    *,
    blank: int = 0,
    topology: GridTopology = "regular",
    fast_emit: float = 0.0,
    zero_infinity: bool = False,
) -> Float[Array, " B"]:
    """`loss` of the logits am[:, :, None] + lm[:, None], without an array [B, T, U+1, V].

    `am` are the logits of an acoustic model by frame, `lm` those of a language model by label
    position.  The normalisers Σ_v exp(am + lm) are a product of matrices; where their peaks lie so
    far apart that it underflows, they are summed in logs, position by position.  Everything else is
    as in `loss`, but that a first derivative by `jvp` is right too.

    Kuang et al. (2022), "Pruned RNN-T for fast, memory-efficient ASR training", §2.2.

    Raises:
        ValueError: as `loss`, and where `am` and `lm` do not fit each other.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> am, lm, labels = jnp.zeros((1, 10, 4)), jnp.zeros((1, 3, 4)), jnp.array([[1, 2]])
        >>> loss = jaxem.transducer.factored_loss(am, lm, labels)
        >>> round(float(jnp.exp(12 * jnp.log(4.0) - loss[0])))
        55
    """
    am, lm = check_logits("am", am, "B T V"), check_logits("lm", lm, "B U+1 V")
    check_topology(topology)
    if len(am) != len(lm) or am.shape[2] != lm.shape[2]:
        raise ValueError(
            "am [B, T, V] and lm [B, U+1, V] must have the same B and V, "
            f"but have shapes {am.shape} and {lm.shape}."
        )
    shape = (*am.shape[:2], *lm.shape[1:])
    grid = Grid.check(shape, labels, logit_lengths, label_lengths, blank)
    value = _loss(am, lm, grid, blank, topology, check_fast_emit(fast_emit))
    return finished(value, zero_infinity)


@partial(jax.jit, static_argnums=(3, 4))
def _loss(
    am: Array, lm: Array, grid: Grid, blank: int, topology: GridTopology, fast_emit: Array
) -> Array:
    dtype = computed(jnp.promote_types(am.dtype, lm.dtype))
    # NaN outside has no influence, on the gradient neither.
    am = jnp.where(grid.frames(am.shape[1])[..., None], am, 0).astype(dtype)
    lm = jnp.where(grid.positions[..., None], lm, 0).astype(dtype)
    am, lm = _below_peak(am), _below_peak(lm)
    log_total = _log_totals(am, lm)
    log_total = jnp.where(jnp.isneginf(log_total), 0, log_total)  # impossible, not undefined
    label = jnp.take_along_axis(am, grid.labels[:, None], 2)
    label += jnp.take_along_axis(lm[:, :-1], grid.labels[..., None], 2)[:, None, :, 0]
    label = _steeper(label - log_total[:, :, :-1], fast_emit.astype(dtype))
    blanks = am[:, :, None, blank] + lm[:, None, :, blank] - log_total
    potentials = grid.potentials(blanks, label, topology)
    log_prob = lattice.log_normalizer(TOPOLOGY, potentials, grid.paths(topology))
    return negative(log_prob, grid.is_valid)


def _below_peak(logits: Float[Array, "... V"]) -> Float[Array, "... V"]:
    """The logits less their largest: what is added to all of them cancels."""
    peak = lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    return logits - jnp.where(jnp.isneginf(peak), 0, peak)


def _log_totals(am: Float[Array, "B T V"], lm: Float[Array, "B U1 V"]) -> Float[Array, "B T U1"]:
    """log Σ_v exp(am[t, v] + lm[u, v]) of logits of at most 0: a product of matrices.

    Where the peaks of the two lie on different symbols the product may underflow: then in logs.
    """
    info = jnp.finfo(am.dtype)
    totals = jnp.einsum("btv,buv->btu", jnp.exp(am), jnp.exp(lm), precision=PRECISION)
    # What underflow takes from a total is less than V·tiny.
    exact = jnp.all(totals >= am.shape[2] * float(info.tiny) / float(info.eps))
    return lax.cond(exact, _by_product, _by_position, am, lm)


def _by_product(am: Array, lm: Array) -> Array:
    return jnp.log(jnp.einsum("btv,buv->btu", jnp.exp(am), jnp.exp(lm), precision=PRECISION))


def _by_position(am: Array, lm: Array) -> Array:
    """One label position after the other, each an array [B, T, V]."""

    @jax.checkpoint
    def step(_: None, lm: Array) -> tuple[None, Array]:
        return None, logsumexp(am + lm[:, None], 2)

    return jnp.moveaxis(lax.scan(step, None, jnp.swapaxes(lm, 0, 1))[1], 0, 2)


def _steeper(value: Array, more: Array) -> Array:
    """The same value with 1 + more times the gradient."""
    known = jnp.isfinite(value)
    finite = jnp.where(known, value, 0)
    return value + jnp.where(known, more * (finite - lax.stop_gradient(finite)), 0)
