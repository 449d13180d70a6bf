"""EM as long as it is fast, then L-BFGS on the same leaves, and EM again to confirm the end.

By Fisher's identity the gradient of ℓ is that of Q at the model which made the statistics, so a
trial costs one E-step, which gives its objective too.  Coordinates have such units that a
gradient step is as long as the EM step at the hand-over: the scale of the data does not matter.

L-BFGS does not know the covariance floor.  It is found out by Q: a trial from where the M-step
would lower Q, and so might lower ℓ, is rejected.  The last step of all is one of EM.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem import parameters
from jaxem.acceleration.judged import Judged
from jaxem.pytree import pytree

SLOW = 0.9  # a rate of convergence above which EM hands over ...
PATIENCE = 3  # ... after so many steps in a row
HALVINGS = 6  # of a direction's length before it is given up
SUFFICIENT = 1e-4  # share of the rise that the gradient promises (Armijo)

_SOLVER = optax.scale_by_lbfgs(memory_size=10)


@pytree
class Direction:
    """Where L-BFGS goes from the accepted model."""

    step: Float[Array, " P"]
    slope: Float[Array, ""]  # rise of the objective along it
    unit: Float[Array, " P"]  # of each coordinate
    solver: Any  # state of optax


@pytree
class Memory:
    """How fast EM is, or how L-BFGS fares."""

    trial: Bool[Array, ""]  # whether a step of L-BFGS is judged next
    size: Float[Array, ""]  # length of the last EM step
    slow: Int[Array, ""]  # EM steps in a row above the rate
    usable: Bool[Array, ""]  # False once the floor stood in the way
    fallback: Any  # the EM step from the accepted model
    direction: Direction
    length: Float[Array, ""]  # share of the direction that is tried


def begin(model: Any) -> Memory:
    """The memory before the first E-step."""
    vector = parameters.ravel(model)
    zero = jnp.zeros((), vector.dtype)
    nowhere = jnp.zeros_like(vector)
    return Memory(
        trial=jnp.asarray(False),
        size=zero,
        slow=jnp.asarray(0),
        usable=jnp.asarray(True),
        fallback=model,
        direction=Direction(nowhere, zero, nowhere, _SOLVER.init(nowhere)),
        length=zero + 1,
    )


def passes(memory: Memory, judged: Judged) -> Bool[Array, ""]:
    """Whether a trial rises as its slope promises, and EM can go on from it."""
    wanted = judged.previous + SUFFICIENT * memory.length * memory.direction.slope
    rises = jnp.isfinite(judged.objective) & (judged.objective >= wanted)
    return rises & _is_feasible(judged)


def follow(memory: Memory, judged: Judged, passed: Array) -> tuple[Any, Bool[Array, ""], Memory]:
    """The next model; whether a trial is accepted; and the memory."""
    trial, failed = memory.trial, memory.trial & ~passed
    size, slow = _pace(memory, judged)
    hands_over = ~trial & memory.usable & (slow >= PATIENCE)
    advances = trial & passed & (judged.objective - judged.previous > judged.negligible)
    direction = lax.cond(
        hands_over | advances,
        lambda: _direction(memory.direction, judged, hands_over),
        lambda: memory.direction,
    )
    length = jnp.where(failed, memory.length / 2, 1)
    worth = jnp.where(failed, length >= 0.5**HALVINGS, hands_over | advances)
    tries = worth & (direction.slope > 0) & (judged.room >= 2)  # the trial, and an EM step
    fallback = _choose(failed, memory.fallback, judged.proposal)
    base = _choose(failed, judged.accepted, judged.model)
    vector = parameters.ravel(base)
    moved = jnp.where(
        parameters.is_free(base, judged.frozen), vector + length * direction.step, vector
    )
    gave_up = failed & ~tries
    following = _choose(tries, parameters.unravel(base, moved), fallback)
    usable = memory.usable & ~(gave_up & ~_is_feasible(judged))
    slow = jnp.where(trial | tries, 0, slow)
    return following, passed, Memory(tries, size, slow, usable, fallback, direction, length)


def _is_feasible(judged: Judged) -> Bool[Array, ""]:
    """Whether the M-step raises Q, as it does from every model that heeds its constraints."""

    def value(candidate: Any) -> Array:
        return judged.anchor.expected_log_prob(judged.stats, candidate) + candidate.log_prior(
            judged.prior
        )

    return value(judged.proposal) >= value(judged.model) - judged.rounding


def _pace(memory: Memory, judged: Judged) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """The length of the EM step from here, and how many in a row have been slow."""
    size = jnp.linalg.norm(_em_step(judged))
    slow = jnp.where(size > SLOW * memory.size, memory.slow + 1, 0)
    return size, jnp.where(memory.size > 0, slow, 0)


def _em_step(judged: Judged) -> Float[Array, " P"]:
    before, after = parameters.ravel(judged.model), parameters.ravel(judged.proposal)
    free = parameters.is_free(judged.model, judged.frozen) & jnp.isfinite(after)
    return jnp.where(free, after, 0) - jnp.where(free, before, 0)


def _direction(old: Direction, judged: Judged, afresh: Array) -> Direction:
    """Where to go from the model just judged: its gradient, bent by those before."""
    here = parameters.ravel(judged.model)
    free = parameters.is_free(judged.model, judged.frozen)

    def objective(vector: Array) -> Array:
        # What is not free is a constant, so that its slope is exactly 0 and never NaN.
        candidate = parameters.unravel(judged.model, jnp.where(free, vector, here))
        expected = judged.anchor.expected_log_prob(judged.stats, candidate)
        return expected + candidate.log_prior(judged.prior)

    slope = jnp.where(free, jax.grad(objective)(here), 0)
    unit = jnp.where(afresh, _units(judged, slope), old.unit)
    fall = -unit * slope
    point = jnp.where(free, here, 0) / unit
    bend = jnp.sum((point - old.solver.params) * (fall - old.solver.updates))
    fresh = _SOLVER.init(jnp.zeros_like(here))
    solver = _choose(afresh | ~(bend > 0), fresh, old.solver)  # else it is no descent
    downhill, solver = _SOLVER.update(fall, solver, point)
    step = jnp.where(free, -unit * jnp.asarray(downhill), 0)
    return Direction(step, jnp.sum(step * slope), unit, solver)


def _units(judged: Judged, slope: Float[Array, " P"]) -> Float[Array, " P"]:
    """√(length of the EM step / length of the gradient), feature by feature of each leaf.

    A leaf [..., D] has features of different units; one with fewer than two axes is taken whole.
    """

    def unit(step: Array, slope: Array) -> Array:
        axes = tuple(range(step.ndim - 1)) if step.ndim > 1 else None
        ratio = jnp.sqrt(jnp.sum(step**2, axes) / jnp.sum(slope**2, axes))
        sound = jnp.isfinite(ratio) & (ratio > 0)
        return jnp.broadcast_to(jnp.sqrt(jnp.where(sound, ratio, 1)), step.shape)

    step = parameters.unravel(judged.model, _em_step(judged))
    return parameters.ravel(jax.tree.map(unit, step, parameters.unravel(judged.model, slope)))


def _choose(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), a, b)
