"""Forward-backward in log space: exact however small the probabilities; K² exponentials a step."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxem.chain.potentials import Potentials, widen
from jaxem.semiring import logsumexp


def _normalize(message: Float[Array, "K *B"]) -> tuple[Array, Array]:
    """The message with log-sum 0, and what was taken from it; an impossible one stays -inf."""
    total = logsumexp(message, 0)
    return message - jnp.where(jnp.isneginf(total), 0, total), total


def forward(
    p: Potentials,
) -> tuple[Float[Array, "T K *B"], Float[Array, "T *B"], Float[Array, "T K *B"]]:
    """log p(z_t | x_1..t), log p(x_t | x_1..t-1) and log p(z_t | x_1..t-1) for every step.

    From the end of a sequence on the first repeats itself and the second is 0.
    Bishop (2006) 13.55, 13.59.
    """

    @jax.checkpoint
    def step(alpha: Array, inputs: Any) -> tuple[Array, tuple[Array, Array, Array]]:
        emission, transition, inside = inputs
        transition = widen(p.transition if p.is_shared else transition, alpha)
        predicted, total = _normalize(logsumexp(alpha[:, None] + transition, 0))
        new, increment = _normalize(predicted + emission)
        increment = increment + total
        if inside is not None:
            new, increment = jnp.where(inside, new, alpha), jnp.where(inside, increment, 0)
        return new, (new, increment, predicted)

    first, start = _normalize(p.initial + p.emission[0])
    if p.inside is not None:
        start = jnp.where(p.inside[0], start, 0)
    steps = (first, start, _normalize(p.initial)[0])
    _, rest = lax.scan(step, first, (p.emission[1:], p.per_step, p.inside_rest))
    return jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), steps, rest)


def counts(
    p: Potentials, weight: Float[Array, "*B"], end: Float[Array, "K *B"] | None = None
) -> tuple[Float[Array, "..."], Float[Array, "T K *B"]]:
    """Expected transitions (shaped like `p.transition`) and states, each chain times its weight.

    β starts from `end`, by default zeros.

    Bishop (2006) 13.62, 13.64, 13.65, with every message normalised at every step.
    """
    alpha, increments, _ = forward(p)
    impossible = jnp.any(jnp.isneginf(increments), 0)
    weight = jnp.where(impossible, 0, weight)
    shared_batch = p.transition.ndim <= 3 and alpha.ndim == 3

    @jax.checkpoint
    def step(carry: tuple[Array, Array], inputs: Any) -> tuple[tuple[Array, Array], Any]:
        beta, total = carry
        emission, alpha, transition, inside = inputs
        transition = widen(p.transition if p.is_shared else transition, beta)
        onward = transition + (emission + beta)
        joint = alpha[:, None] + onward
        peak = jnp.max(joint, (0, 1), keepdims=True)
        joint = jnp.exp(joint - jnp.where(jnp.isneginf(peak), 0, peak))
        size = jnp.sum(joint, (0, 1), keepdims=True)
        moves = joint * (weight / jnp.where(size == 0, 1, size))
        new = _normalize(logsumexp(onward, 1))[0]
        if inside is not None:
            new, moves = jnp.where(inside, new, beta), jnp.where(inside, moves, 0)
        if shared_batch:
            moves = jnp.sum(moves, -1)
        return (new, total + moves if p.is_shared else total), (new, None if p.is_shared else moves)

    last = jnp.zeros_like(p.initial) if end is None else end
    start = jnp.zeros_like(p.transition) if p.is_shared else jnp.zeros(())
    inputs = (p.emission[1:], alpha[:-1], p.per_step, p.inside_rest)
    (_, total), (rest, moves) = lax.scan(step, (last, start), inputs, reverse=True)
    log_states = alpha + jnp.concatenate([rest, last[None]])
    peak = jnp.max(log_states, 1, keepdims=True)
    states = jnp.exp(log_states - jnp.where(jnp.isneginf(peak), 0, peak))
    size = jnp.sum(states, 1, keepdims=True)
    states = states * (weight / jnp.where(size == 0, 1, size))
    if p.inside is not None:
        states = jnp.where(jnp.expand_dims(p.inside, 1), states, 0)
    return total if p.is_shared else moves, states
