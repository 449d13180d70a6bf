"""Many fits in one compiled loop: a few lanes side by side, each taking one member after another.

A lane whose member has ended takes the next one from the queue, so that none waits for the slowest.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem import em, parameters
from jaxem.iteration import OUT_OF_STEPS, RUNNING, State, begin, step
from jaxem.lockstep import lockstep
from jaxem.pytree import pytree

IDLE_SHARE = 8  # of so many lanes one may idle before they are given new members


@pytree
class Queue:
    """Members to be fitted, C of them, the first `count` of which are real."""

    models: Any  # leaves [C, ...]
    data: Any  # prepared: of all members, or of each of S data sets, leaves [S, ...]
    data_set: Int[Array, " C"] | None  # which of them is each member's; None: there is but one
    prior: em.Prior  # resolved; fields [S, ...] where each data set has its own
    count: Int[Array, ""]


@pytree
class _Lanes:
    state: State  # leaves [L, ...]
    member: Int[Array, " L"]  # the place in the queue of what each lane works on; C: nothing
    waiting: Int[Array, ""]  # the first in the queue that no lane has taken
    ended: State  # leaves [C, ...]
    trace: Float[Array, "C max_steps+1"]


def drain(
    queue: Queue,
    tol: Array,
    *,
    num_lanes: int,
    max_steps: int,
    frozen: parameters.Names,
    accelerate: str | None = None,
) -> tuple[State, Float[Array, "C max_steps+1"]]:
    """The states in which the members end, leaves [C, ...], and their traces."""
    size = len(jax.tree.leaves(queue.models)[0])
    shared = queue.data_set is None
    dtype = tol.dtype
    take_step = lockstep(
        lambda s, data, prior: step(s, data, prior, tol, max_steps, frozen, accelerate),
        in_axes=(0, None, None) if shared else (0, 0, 0),
    )

    def refill(lanes: _Lanes) -> _Lanes:
        """What has ended put in its place, and the next members in the lanes that are free."""
        free = lanes.state.end != RUNNING
        place = jnp.where(free, lanes.member, size)
        ended = jax.tree.map(
            lambda all, one: all.at[place].set(one, mode="drop"), lanes.ended, lanes.state
        )
        order = lanes.waiting + jnp.cumsum(free) - 1
        taken = free & (order < queue.count)
        member = jnp.where(free, jnp.where(taken, order, size), lanes.member)
        fresh = jax.vmap(lambda model: begin(model, dtype, accelerate))(_at(queue.models, member))
        state = jax.tree.map(partial(_choose, taken), fresh, lanes.state)
        return _Lanes(state, member, lanes.waiting + jnp.sum(taken), ended, lanes.trace)

    def advance(lanes: _Lanes) -> _Lanes:
        """Steps in all lanes until too many of them have ended."""
        here = (queue.data, queue.prior)
        if queue.data_set is not None:
            here = _at(here, _at(queue.data_set, lanes.member))

        def keep_going(carry: tuple[State, Array]) -> Array:
            running = jnp.sum(carry[0].end == RUNNING)
            more = lanes.waiting < queue.count
            enough = num_lanes - num_lanes // IDLE_SHARE
            return jnp.where(more, running >= jnp.maximum(enough, 1), running > 0)

        def body(carry: tuple[State, Array]) -> tuple[State, Array]:
            s, trace = carry
            running = s.end == RUNNING
            following, objective = take_step(s, *here)
            place = jnp.where(running, lanes.member, size)
            trace = trace.at[place, s.num_steps].set(objective, mode="drop")
            return jax.tree.map(partial(_choose, running), following, s), trace

        state, trace = lax.while_loop(keep_going, body, (lanes.state, lanes.trace))
        return replace(lanes, state=state, trace=trace)

    blank = jax.vmap(lambda model: begin(model, dtype, accelerate))(queue.models)
    idle = _at(blank, jnp.zeros(num_lanes, int))
    idle = replace(idle, end=jnp.full(num_lanes, OUT_OF_STEPS))
    lanes = _Lanes(
        idle,
        jnp.full(num_lanes, size),
        jnp.zeros((), int),
        blank,
        jnp.full((size, max_steps + 1), jnp.nan, dtype),
    )
    lanes = lax.while_loop(
        lambda lanes: (lanes.waiting < queue.count) | jnp.any(lanes.state.end == RUNNING),
        lambda lanes: advance(refill(lanes)),
        lanes,
    )
    lanes = refill(lanes)
    return lanes.ended, lanes.trace


def in_blocks(function: Any, num_lanes: int, *arguments: Any) -> Any:
    """`function` of every member, whose leading axis the arguments have, so many side by side."""
    number = len(jax.tree.leaves(arguments)[0])
    blocks = -(-number // num_lanes)
    index = jnp.minimum(jnp.arange(blocks * num_lanes), number - 1).reshape(blocks, num_lanes)
    found = lax.map(lambda block: lockstep(function)(*_at(arguments, block)), index)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:number], found)


def _at(tree: Any, index: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[jnp.minimum(index, len(leaf) - 1)], tree)


def _choose(condition: Bool[Array, " L"], a: Array, b: Array) -> Array:
    return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)
