"""What an HMM expects of the steps to come."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxem import chain
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION, logsumexp


@pytree
class Forecast:
    """Predictive distributions: mixtures of the emission family's members."""

    states: Float[Array, "... H K"]  # p(z_{T+h} | x_1..T), h = 1..H
    emission: Any  # the family whose members the states mix

    def log_prob(self, x: Array) -> Float[Array, "... H"]:
        """log p(x_{T+h} | x_1..T) of values [H, …], or [B, H, …], one a step."""
        event = self.emission.event_shape
        rows = jnp.asarray(x)
        if event == (1,) and rows.shape == self.states.shape[:-1]:
            rows = rows[..., None]
        shape = rows.shape[: rows.ndim - len(event)]
        log_probs = self.emission.log_prob(rows.reshape(-1, *event)).reshape(*shape, -1)
        log_states = jnp.log(self.states)
        return logsumexp(log_states + log_probs, -1)

    def sample(self, key: Array) -> Array:
        """An observation a step, [H, …] or [B, H, …], from its own predictive distribution."""
        state_key, row_key = jax.random.split(key)
        state = jax.random.categorical(state_key, jnp.log(self.states))
        rows = self.emission.sample(row_key, state.reshape(-1))
        return rows.reshape(*state.shape, *self.emission.event_shape)


@partial(jax.jit, static_argnames="steps")
def states_ahead(model: Any, data: Any, steps: int) -> Float[Array, "B H K"]:
    """Probabilities of an HMM's states in the `steps` steps after the end of each sequence."""
    prepared = model.prepare(data)
    filtered = chain.filter(model.potentials(prepared), prepared.lengths).filtered
    batch, num_steps = filtered.shape[:2]
    lengths = jnp.full(batch, num_steps) if prepared.lengths is None else prepared.lengths
    initial = jnp.broadcast_to(jnp.exp(model.log_initial), (batch, model.num_states))
    moves = model.transition.probs
    last = filtered[jnp.arange(batch), jnp.maximum(lengths - 1, 0)] if num_steps else initial
    onward = jnp.dot(last, moves, precision=PRECISION)
    first = jnp.where((lengths == 0)[:, None], initial, onward)

    def step(states: Array, _: None) -> tuple[Array, Array]:
        return jnp.dot(states, moves, precision=PRECISION), states

    return jax.lax.scan(step, first, length=steps)[1].swapaxes(0, 1)
