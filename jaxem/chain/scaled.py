"""Forward-backward on rescaled probabilities: one small product a step, no logs inside the loop.

What falls below the smallest normal number is lost, and a path that is lost too early may be the
only one to survive later.  So it is proved, chain by chain, that what was lost cannot matter; where
it cannot be proved, the caller turns to `log_domain`.  There are two proofs.

Dense: if every move has at least a share a of the largest, a message's sum is at least a, and at
least a² before it is divided by the sum before; underflow takes at most K·tiny from it; and no
state's future is better than another's by more than 1/a.  So each step loses at most K·tiny/a³ of
the likelihood.

Floored: a second pass each way raises every message to at least δ, more than underflow can have
taken from it.  Its messages α⁺ and β⁺ bound the true ones from above, so the share of all paths
that was ever lost at step t is at most δ·Σ_k β⁺_t(k) / Σ_k α⁺_t(k) β⁺_t(k) on the way there, and
likewise on the way back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxem.chain.factors import Factors, back, onward, reciprocal
from jaxem.chain.potentials import moves_in, moves_out
from jaxem.lockstep import everywhere
from jaxem.semiring import PRECISION, compensated_sum


@dataclass(frozen=True)
class Messages:
    """Messages both ways, and the sums they are to be divided by."""

    alpha: Float[Array, "T K *B"]
    alpha_sum: Float[Array, "T *B"]
    beta: Float[Array, "T K *B"]
    ahead_sum: Float[Array, "T *B"]  # Σ_k emission[t, k] beta[t, k]


def forward(
    f: Factors, floor: float | None = None
) -> tuple[Float[Array, "T K *B"], Float[Array, "T *B"]]:
    """Messages and their sums over states.

    A message is divided by its sum in the next step, which saves one pass over it: message t is
    p(z_t, x_t | x_1..t-1) up to the factors taken out.
    """

    def step(carry: tuple[Array, Array], inputs: Any) -> tuple[Any, Any]:
        message, total = carry
        emission, first, moves, inside = inputs
        moves = f.moves if f.is_shared else moves
        new = raised(onward(moves, message) * (emission * _scale(total, floor)), floor)
        if inside is not None:
            new = jnp.where(inside, new, message)
        # Here, because a first row put before the others copies them all.
        new = jnp.where(first, raised(emission, floor), new)
        total = jnp.sum(new, 0)
        return (new, total), (new, None if f.is_wide else total)

    start = jnp.ones_like(f.emissions[0])
    inputs = (f.emissions, f.chain.is_first, moves_in(f.moves), f.inside)
    messages, totals = lax.scan(step, (start, jnp.sum(start, 0)), inputs)[1]
    return messages, jnp.sum(messages, 1) if totals is None else totals


def backward(
    f: Factors, floor: float | None = None
) -> tuple[Float[Array, "T K *B"], Float[Array, "T *B"]]:
    """Messages β, and their sums with the emission of their step.  Bishop (2006) 13.62.

    What is carried is a message with the emission of its step, divided by its sum in the next one.
    """

    def step(carry: tuple[Array, Array], inputs: Any) -> tuple[Any, Any]:
        ahead, total = carry
        emission, goes_on, moves = inputs
        moves = f.moves if f.is_shared else moves
        beta = jnp.where(goes_on, back(moves, ahead) * _scale(total, floor), 1)
        ahead = raised(emission * beta, floor)
        total = jnp.sum(ahead, 0)
        return (ahead, total), ((ahead, None) if f.is_wide else (beta, total))

    start = jnp.ones_like(f.emissions[0])
    inputs = (f.emissions, f.chain.goes_on, moves_out(f.moves))
    messages, totals = lax.scan(step, (start, jnp.sum(start, 0)), inputs, reverse=True)[1]
    if totals is not None:
        return messages, totals
    totals = jnp.sum(messages, 1)
    ahead = messages * reciprocal(totals)[:, None]
    beta = jnp.dot(jnp.roll(ahead, -1, 0), f.moves.T, precision=PRECISION)
    return jnp.where(f.chain.goes_on[:, None], beta, 1), totals


def counts(
    f: Factors, alpha: Array, alpha_sum: Array, weight: Float[Array, "*B"]
) -> tuple[Float[Array, "..."], Float[Array, "T K *B"]]:
    """Expected transitions (shaped like the moves) and states, each chain times its weight.

    One chain with one matrix is counted after the way back, by a product over time; others on the
    way, so that no β of all steps is written.  No array [T, K, K] unless the potentials are one.
    Bishop (2006) 13.64, 13.65.
    """
    if f.is_shared and alpha.ndim == 2:
        return products(f, Messages(alpha, alpha_sum, *backward(f)), weight)

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        ahead, total, pairs = carry
        emission, goes_on, moves, inside, alpha, alpha_sum = inputs
        moves = f.moves if f.is_shared else moves
        scale = reciprocal(total)
        beta = jnp.where(goes_on, back(moves, ahead) * scale, 1)
        left, states = _shares(alpha, reciprocal(alpha_sum), beta, weight, 0)
        step_pairs = _pairs(jnp.where(goes_on, left * scale, 0), ahead, moves)
        if inside is not None:
            states = jnp.where(inside, states, 0)
        ahead = emission * beta
        total = jnp.sum(ahead, 0)
        if f.is_shared:
            return (ahead, total, compensated_sum(pairs, step_pairs)), (states, None)
        return (ahead, total, None), (states, moves * step_pairs)

    start = jnp.ones_like(f.emissions[0])
    nothing = (jnp.zeros_like(f.moves),) * 2 if f.is_shared else None
    inputs = (f.emissions, f.chain.goes_on, moves_out(f.moves), f.inside, alpha, alpha_sum)
    carry = (start, jnp.sum(start, 0), nothing)
    (_, _, pairs), (states, moves) = lax.scan(step, carry, inputs, reverse=True)
    return (moves[:-1] if pairs is None else f.moves * pairs[0]), states


def products(
    f: Factors, m: Messages, weight: Float[Array, "*B"]
) -> tuple[Float[Array, "K K"], Float[Array, "T K *B"]]:
    """What `counts` returns, from messages both ways and one shared matrix: one large product."""
    left, states = _shares(m.alpha, reciprocal(m.alpha_sum), m.beta, weight, 1)
    if f.inside is not None:
        states = jnp.where(jnp.expand_dims(f.inside, 1), states, 0)
        left = jnp.where(jnp.expand_dims(f.chain.goes_on, 1), left, 0)
    scale = jnp.expand_dims(reciprocal(m.ahead_sum[1:]), 1)
    ahead = f.emissions[1:] * (m.beta[1:] * scale)
    axes = tuple(axis for axis in range(left.ndim) if axis != 1)
    pairs = lax.dot_general(left[:-1], ahead, ((axes, axes), ((), ())), precision=PRECISION)
    return f.moves * pairs, states


def _shares(
    alpha: Array, alpha_scale: Array, beta: Array, weight: Array, axis: int
) -> tuple[Array, Array]:
    """What makes left[i] moves[i, j] ahead[j] shares, and γ; both times the weight.

    α with sum 1 first (β comes from an `ahead` of sum 1): the product of two small messages could
    underflow although the overlap of their directions is large.
    """
    alpha = alpha * jnp.expand_dims(alpha_scale, axis)
    states = alpha * beta
    share = weight * reciprocal(jnp.sum(states, axis, keepdims=True))
    return alpha * share, states * share


def _pairs(left: Array, ahead: Array, moves: Array) -> Array:
    """left[i] ahead[j], summed over the batch where it shares the moves."""
    if left.ndim == 1 or moves.ndim > 2:
        return left[:, None] * ahead[None]
    return lax.dot_general(left, ahead, (((1,), (1,)), ((), ())), precision=PRECISION)


def is_dense(f: Factors, num_messages: int = 1) -> Bool[Array, ""]:
    """The first proof: no move is so rare that underflow could matter.

    `num_messages` share one scale: what is small beside another of them is lost as well.
    """
    info = jnp.finfo(f.emissions.dtype)
    size = f.emissions.shape[0] * f.emissions.shape[1] * num_messages
    return jnp.min(f.moves, initial=1) >= (size * float(info.tiny) / float(info.eps)) ** (1 / 3)


def sequential(f: Factors, floor: float | None = None) -> Messages:
    """Messages by two scans, one each way."""
    return Messages(*forward(f, floor), *backward(f, floor))


def is_exact(
    f: Factors, messages: Callable[[Factors, float], Messages] = sequential
) -> Bool[Array, ""]:
    """Whether no path that matters was lost to underflow, in any chain of the batch.

    NaN is never exact: the log domain passes it on.
    """
    dense = is_dense(f)
    return lax.cond(
        everywhere(dense, f.is_nan),
        lambda: jnp.asarray(True),
        lambda: dense | _is_bounded(f, messages),
    )


def _is_bounded(f: Factors, messages: Callable[[Factors, float], Messages]) -> Bool[Array, ""]:
    """The second proof."""
    info = jnp.finfo(f.emissions.dtype)
    floor = float(info.tiny) / float(info.eps) ** 2
    m = messages(f, floor)
    states = f.emissions.shape[1]
    # Underflow takes at most K·tiny from a message before it is divided by its sum: less than the
    # floor gives, if the sum was not near 0 altogether.
    unharmed = jnp.minimum(m.alpha_sum, m.ahead_sum) >= 4 * states * float(info.tiny) / floor
    overlap = jnp.sum(m.alpha * jnp.expand_dims(reciprocal(m.alpha_sum), 1) * m.beta, 1)
    lost = floor * jnp.sum(m.beta, 1) * reciprocal(m.alpha_sum)
    # What comes in on the way back to step t + 1 is at most K times the message of step t.
    ahead_sum = jnp.concatenate([m.ahead_sum[1:], jnp.ones_like(m.ahead_sum[:1])])
    lost = (lost + floor * states * reciprocal(ahead_sum)) / overlap
    if f.inside is not None:
        unharmed, lost = unharmed | ~f.inside, jnp.where(f.inside, lost, 0)
    return jnp.all(unharmed) & jnp.all(jnp.sum(lost, 0) <= float(info.eps))


def _scale(total: Array, floor: float | None) -> Array:
    """1 / total; a total that has a floor is not 0, and a loop that asks is three times slower."""
    return reciprocal(total) if floor is None else 1 / total


def raised(message: Array, floor: float | None) -> Array:
    """The message, no entry below the floor; after the emission, where it costs no kernel."""
    return message if floor is None else jnp.maximum(message, floor)
