"""Best paths, and paths drawn from the posterior."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxem.chain import log_domain
from jaxem.chain.potentials import (
    Chain,
    Potentials,
    lay_out,
    moves_in,
    moves_out,
    restore_batch,
    widen,
)
from jaxem.platform import is_cpu
from jaxem.semiring import pairwise_sum

UNROLLED = 16  # states up to which a CPU takes a maximum over origins in one loop over the batch
NO_STATE = -1  # past the end of a sequence, and along a path that does not exist


def viterbi(
    chain: Chain, lengths: Int[Array, "..."] | None = None
) -> tuple[Float[Array, "..."], Int[Array, "... T"]]:
    """Log-weight and states of the best path of each chain; a scalar and [T], or [B] and [B, T].

    Of equally good paths the one whose last differing state is lowest.  States past the end are -1,
    and so are all states of an impossible chain, whose log-weight is -inf.  Scores are kept
    relative to the best, so that float32 decides between neighbours as well at T = 1e6 as at T =
    10.

    Bishop (2006) 13.68.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> emission = jnp.array([[1.0, 0.0], [0.0, 2.0]])
        >>> chain = jaxem.chain.Chain(jnp.zeros(2), jnp.zeros((2, 2)), emission)
        >>> score, path = jaxem.chain.viterbi(chain)
        >>> float(score), path.tolist()
        (3.0, [0, 1])
    """
    p = lay_out(chain, lengths)
    if p.num_steps == 0:
        return _nothing(chain, p, ())

    def step(carry: tuple[Array, Array], inputs: Any) -> tuple[Any, Any]:
        message, best = carry
        emission, first, transition, inside = inputs
        transition = p.transition if p.is_shared else transition
        new = _best_onward(transition, message) + (emission - jnp.where(best > -jnp.inf, best, 0))
        new = new if inside is None else jnp.where(inside, new, message)
        new = jnp.where(first, p.initial + emission, new)
        gain = jnp.max(new, 0)
        return (new, gain), (new, gain)

    inputs = (p.emission, p.is_first, moves_in(p.transition), p.inside)
    _, (messages, gains) = lax.scan(step, (p.initial, p.initial[0]), inputs)
    score = pairwise_sum(gains if p.inside is None else jnp.where(p.inside, gains, 0))
    path = _trace_back(p, messages, lambda log_origin, _: jnp.argmax(log_origin, 0))
    path = jnp.where(score > -jnp.inf, path, NO_STATE)
    return restore_batch(score, chain), _batch_first(path, chain)


def _best_onward(transition: Array, message: Float[Array, "K *B"]) -> Float[Array, "K *B"]:
    """max_i message[i] + transition[i, j]."""
    transition = widen(transition, message)
    if message.ndim == 1 or not is_cpu():
        return jnp.max(message[:, None] + transition, 0)

    def origin(best: Array, row: Any) -> tuple[Array, None]:
        message, transition = row
        return jnp.maximum(best, message + transition), None

    rest = message[1:], transition[1:]
    unroll = max(len(message) - 1, 1) if len(message) <= UNROLLED else 1
    return lax.scan(origin, message[0] + transition[0], rest, unroll=unroll)[0]


def _trace_back(
    p: Potentials, messages: Array, choose: Callable[..., Array], keys: Any = None
) -> Array:
    """States [T, *B] from the last back, each chosen given the one after it; -1 past the end."""

    def step(state: Array, inputs: Any) -> tuple[Array, Array]:
        message, goes_on, transition, key = inputs
        transition = p.transition if p.is_shared else transition
        onward = jnp.where(goes_on, _column(transition, state), 0)
        state = choose(message + onward, key)
        return state, state

    start = jnp.zeros(messages.shape[2:], int)
    inputs = (messages, p.goes_on, moves_out(p.transition), keys)
    path = lax.scan(step, start, inputs, reverse=True)[1]
    return path if p.inside is None else jnp.where(p.inside, path, NO_STATE)


def _column(transition: Array, state: Array) -> Array:
    """Potentials [K, *B] of the moves into `state` [*B]."""
    if transition.ndim == 2:
        return jnp.moveaxis(transition.T[state], -1, 0)
    return jnp.take_along_axis(transition, state[None, None], 1)[:, 0]


def _score(p: Potentials, path: Array) -> Array:
    """Log-weight of paths [T, *B]."""
    state = jnp.maximum(path, 0)
    emission = jnp.take_along_axis(p.emission, state[:, None], 1)[:, 0]
    first = jnp.take_along_axis(p.initial, state[:1], 0)
    if p.is_shared:
        moves = p.transition[state[:-1], state[1:]]
    elif p.transition.ndim == 3:
        step = jnp.arange(p.num_steps - 1).reshape(-1, *[1] * (state.ndim - 1))
        moves = p.transition[step, state[:-1], state[1:]]
    else:
        rows = jnp.take_along_axis(p.transition, state[:-1, None, None], 1)[:, 0]
        moves = jnp.take_along_axis(rows, state[1:, None], 1)[:, 0]
    terms = emission + jnp.concatenate([first, moves])
    terms = terms if p.inside is None else jnp.where(p.inside, terms, 0)
    return pairwise_sum(terms)


def _batch_first(path: Array, chain: Chain) -> Array:
    return restore_batch(jnp.moveaxis(path, 0, -1), chain)


def _nothing(chain: Chain, p: Potentials, extra: tuple[int, ...]) -> tuple[Array, Array]:
    shape = (*jnp.shape(chain.emission)[:-2], *extra)
    return jnp.zeros(shape, p.emission.dtype), jnp.zeros((*shape, 0), int)


def k_best(
    chain: Chain, k: int, lengths: Int[Array, "..."] | None = None
) -> tuple[Float[Array, "... k"], Int[Array, "... k T"]]:
    """Log-weights and states of the k best paths, best first; [k] and [k, T], or [B, k] and [B, k,
    T].

    Where there are fewer than k possible paths the rest have log-weight -inf and states -1.
    O(T K² k) time, O(T K k) memory.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}.")
    p = lay_out(chain, lengths)
    if p.num_steps == 0:
        score, path = _nothing(chain, p, (k,))
        return score.at[..., 1:].set(-jnp.inf), path
    states = p.emission.shape[1]

    def best(candidates: Array, to: Array | float) -> tuple[Array, Array]:
        # candidates [K·k, ..., *B] -> the k best along the first axis, [k, ..., *B]
        score, origin = lax.top_k(jnp.moveaxis(candidates, 0, -1), k)
        return jnp.moveaxis(score, -1, 0) + to, jnp.moveaxis(origin, -1, 0)

    def step(message: Array, inputs: Any) -> tuple[Array, Array]:
        emission, transition, inside = inputs  # message [k, K, *B]
        transition = widen(p.transition if p.is_shared else transition, message[0])
        candidates = (message[:, :, None] + transition).reshape(
            k * states, states, *emission.shape[1:]
        )
        new, origin = best(candidates, emission)
        peak = jnp.max(new, (0, 1))
        new = new - jnp.where(jnp.isneginf(peak), 0, peak)
        new = new if inside is None else jnp.where(inside, new, message)
        return new, origin

    first = p.initial + p.emission[0]
    if p.inside is not None:  # a chain of no steps has one path, not one a state
        only = jnp.full_like(first, -jnp.inf).at[0].set(0)
        first = jnp.where(p.inside[0], first, only)
    message = jnp.full((k, *first.shape), -jnp.inf, first.dtype).at[0].set(first)
    last, origins = lax.scan(step, message, (p.emission[1:], p.per_step, p.inside_rest))
    score, slot = best(last.reshape(k * states, *first.shape[1:]), 0.0)

    def back(slot: Array, inputs: Any) -> tuple[Array, Array]:
        origin, inside = inputs  # slot = rank · K + state; origin [k, K, *B]
        new = jnp.take_along_axis(origin.reshape(k * states, *origin.shape[2:]), slot, 0)
        new = new if inside is None else jnp.where(inside, new, slot)
        return new, new

    _, slots = lax.scan(back, slot, (origins, p.inside_rest), reverse=True)
    path = jnp.concatenate([slots, slot[None]]) % states  # [T, k, *B]
    if p.inside is not None:
        path = jnp.where(p.inside[:, None], path, NO_STATE)
    weight = jax.vmap(lambda one: _score(p, one), 1)(path)
    weight = jnp.where(jnp.isfinite(score), weight, score)  # -inf: no such path; NaN stays NaN
    path = jnp.where(weight[None] > -jnp.inf, path, NO_STATE)
    if weight.ndim == 2:
        weight, path = weight.T, path.transpose(2, 1, 0)
        return weight, path
    return restore_batch(weight, chain), restore_batch(path.T, chain)


def sample(
    key: Array, chain: Chain, lengths: Int[Array, "..."] | None = None
) -> Int[Array, "... T"]:
    """One path drawn from the posterior of each chain; [T], or [B, T].

    Forward filtering, backward sampling.  States past the end are -1; so are those of an impossible
    chain.  For several draws, `jax.vmap` over keys.
    """
    p = lay_out(chain, lengths)
    if p.num_steps == 0:
        return _nothing(chain, p, ())[1]
    alpha, increments, _ = log_domain.forward(p)

    def draw(log_origin: Array, key: Array) -> Array:
        return jax.random.categorical(key, log_origin, axis=0)

    path = _trace_back(p, alpha, draw, jax.random.split(key, p.num_steps))
    path = jnp.where(jnp.any(jnp.isneginf(increments), 0), NO_STATE, path)
    return _batch_first(path, chain)
