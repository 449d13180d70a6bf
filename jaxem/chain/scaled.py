"""Forward-backward on rescaled probabilities: one small product a step, no logs inside the loop.

Everything is scaled so that the largest factor of each kind is 1.  What falls below the smallest
normal number is lost, and a path that is lost too early may be the only one to survive later.  So
`is_exact` proves, chain by chain, that what was lost cannot matter; where it cannot prove it, the
caller turns to `log_domain`.  There are two proofs.

Dense: if every move has at least a share a of the largest, a message's sum is at least a, and at
least a² before it is divided by the sum before; underflow takes at most K·tiny from it; and no
state's future is better than another's by more than 1/a.  So each step loses at most K·tiny/a³ of
the likelihood.

Floored: a second pass each way raises every normalised message to at least δ, more than underflow
can have taken from it.  Its messages α⁺ and β⁺ bound the true ones from above, so the share of all
paths that was ever lost at step t is at most K·δ / Σ_k α⁺_t(k) β⁺_t(k).
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxem.chain.potentials import Potentials
from jaxem.semiring import PRECISION, pairwise_sum


def _peak(potential: Array, axes: Any) -> Array:
    peak = lax.stop_gradient(jnp.max(potential, axes, keepdims=True))
    return jnp.where(jnp.isneginf(peak), 0, peak)


def _reciprocal(total: Array) -> Array:
    none = total == 0  # only an exact zero: NaN must stay NaN
    return jnp.where(none, 0, 1 / jnp.where(none, 1, total))


def _moves(p: Potentials) -> tuple[Array, Array]:
    """Transition factors with largest entry 1 (per step), and the logs taken out of them."""
    axes = (0, 1) if p.is_shared else (1, 2)
    peak = _peak(p.transition, axes)
    return jnp.exp(p.transition - peak), jnp.squeeze(peak, axes)


def _emissions(p: Potentials) -> tuple[Array, Array]:
    """Emission factors with largest entry 1 per step, and the logs taken out of them.

    The first step includes the initial potentials: their product is formed in logs.  A state that
    no move enters does not set the scale of later steps.
    """
    closed = jnp.all(jnp.isneginf(p.transition), 0 if p.is_shared else 1)
    if p.emission.ndim == 3 and p.transition.ndim < 4:
        closed = closed[..., None]
    rest = jnp.where(closed, -jnp.inf, p.emission[1:])
    joint = jnp.concatenate([(p.initial + p.emission[0])[None], rest])
    peak = _peak(joint, 1)
    return jnp.exp(joint - peak), jnp.squeeze(peak, 1)


def _apply(matrix: Array, message: Array) -> Array:
    """Σ_j matrix[i, j] message[j]."""
    if matrix.ndim == 2:
        return jnp.dot(matrix, message, precision=PRECISION)
    return jnp.sum(matrix * message[None], 1)


def forward(
    p: Potentials, floor: float | None = None
) -> tuple[Float[Array, "T K *B"], Float[Array, "T *B"], Float[Array, "*B"]]:
    """Messages, their sums over states, and the log-normaliser.

    A message is divided by its sum in the next step, which saves one pass over it: message t is
    p(z_t, x_t | x_1..t-1) up to the factors taken out.
    """
    moves, move_logs = _moves(p)
    emissions, emission_logs = _emissions(p)

    def step(carry: tuple[Array, Array], inputs: Any) -> tuple[Any, Any]:
        message, total = carry
        emission, move, inside = inputs
        move = jnp.swapaxes(moves if p.is_shared else move, 0, 1)
        if floor is None:
            new = _apply(move, message) * (emission * _reciprocal(total))
        else:
            new = _apply(move, jnp.maximum(message * _reciprocal(total), floor)) * emission
        if inside is not None:
            new = jnp.where(inside, new, message)
        return (new, jnp.sum(new, 0)), new

    first = emissions[0]
    inputs = (emissions[1:], None if p.is_shared else moves, p.inside_rest)
    _, rest = lax.scan(step, (first, jnp.sum(first, 0)), inputs)
    messages = jnp.concatenate([first[None], rest])
    totals = jnp.sum(messages, 1)
    none = totals == 0
    logs = jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1, totals))) + emission_logs
    if move_logs.ndim:  # [T-1] or [T-1, B] against [T-1, *B]
        move_logs = move_logs.reshape(*move_logs.shape, *[1] * (logs.ndim - move_logs.ndim))
    logs = logs.at[1:].add(jnp.broadcast_to(move_logs, logs[1:].shape))
    if p.inside is not None:
        logs = jnp.where(p.inside, logs, 0)
    return messages, totals, pairwise_sum(logs)


def backward(p: Potentials, floor: float | None = None) -> tuple[Array, Array]:
    """Messages β_t [T, K, *B] and the products emission · β̂ of the step after, β̂ having sum 1.

    Bishop (2006) 13.62.
    """
    moves, _ = _moves(p)
    emissions, _ = _emissions(p)

    def step(carry: tuple[Array, Array], inputs: Any) -> tuple[Any, Any]:
        message, total = carry
        emission, move, inside = inputs
        normalised = message * _reciprocal(total)
        normalised = normalised if floor is None else jnp.maximum(normalised, floor)
        new = _apply(moves if p.is_shared else move, emission * normalised)
        if inside is not None:
            new = jnp.where(inside, new, jnp.ones_like(new))
        return (new, jnp.sum(new, 0)), new

    last = jnp.ones_like(emissions[-1])
    inputs = (emissions[1:], None if p.is_shared else moves, p.inside_rest)
    _, rest = lax.scan(step, (last, jnp.sum(last, 0)), inputs, reverse=True)
    messages = jnp.concatenate([rest, last[None]])
    scale = _reciprocal(jnp.sum(messages[1:], 1, keepdims=True))
    return messages, emissions[1:] * (messages[1:] * scale)


def counts(
    p: Potentials, alpha: Float[Array, "T K *B"], weight: Float[Array, "*B"]
) -> tuple[Float[Array, "..."], Float[Array, "T K *B"]]:
    """Expected transitions (shaped like `p.transition`) and states, each chain times its weight.

    Transitions are a product over time and batch: no array [T, K, K] unless the potentials are one.
    Bishop (2006) 13.64, 13.65.
    """
    beta, onward = backward(p)
    moves, _ = _moves(p)
    # Each with sum 1 first: the product of two small messages could underflow although the overlap
    # of their directions is large.
    scale = _reciprocal(jnp.sum(beta, 1, keepdims=True))
    alpha = alpha * _reciprocal(jnp.sum(alpha, 1, keepdims=True))
    states = alpha * (beta * scale)
    share = weight * _reciprocal(jnp.sum(states, 1, keepdims=True))
    states = states * share
    left = alpha[:-1] * (share[:-1] * scale[:-1])
    if p.inside is not None:
        states = jnp.where(jnp.expand_dims(p.inside, 1), states, 0)
        left = jnp.where(jnp.expand_dims(p.inside[1:], 1), left, 0)
    if p.is_shared:
        axes = tuple(axis for axis in range(left.ndim) if axis != 1)
        pairs = lax.dot_general(left, onward, ((axes, axes), ((), ())), precision=PRECISION)
    elif p.transition.ndim == 4 or left.ndim == 2:
        pairs = left[:, :, None] * onward[:, None, :]
    else:
        pairs = jnp.einsum("tib,tjb->tij", left, onward, precision=PRECISION)
    return moves * pairs, states


def is_exact(p: Potentials) -> Bool[Array, ""]:
    """Whether no path that matters was lost to underflow, in any chain of the batch.

    NaN is never exact: the log domain passes it on.
    """
    info = jnp.finfo(p.emission.dtype)
    tiny, eps = float(info.tiny), float(info.eps)
    size = p.num_steps * p.emission.shape[1]
    moves, _ = _moves(p)
    dense = jnp.min(moves, initial=1) >= (size * tiny / eps) ** (1 / 3)
    floor = tiny / eps**2

    def bounded() -> Array:
        alpha, totals, _ = forward(p, floor)
        beta, _ = backward(p, floor)
        sums = jnp.sum(beta, 1)
        # On the way forward a message is multiplied before it is divided by its sum.
        raw = totals * jnp.concatenate([jnp.ones_like(totals[:1]), totals[:-1]])
        # Underflow takes at most K·tiny from a message: less than the floor gives, if it was not
        # near 0 altogether.
        unharmed = jnp.minimum(raw, sums) >= 4 * p.emission.shape[1] * tiny / floor
        above = jnp.maximum(alpha * jnp.expand_dims(_reciprocal(totals), 1), floor)
        below = jnp.maximum(beta * jnp.expand_dims(_reciprocal(sums), 1), floor)
        lost = 2 * p.emission.shape[1] * floor / jnp.sum(above * below, 1)
        if p.inside is not None:
            unharmed, lost = unharmed | ~p.inside, jnp.where(p.inside, lost, 0)
        return jnp.all(unharmed) & jnp.all(jnp.sum(lost, 0) <= eps)

    return lax.cond(dense, lambda: jnp.asarray(True), bounded)
