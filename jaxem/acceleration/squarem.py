"""SQUAREM: two EM steps say how they shrink, and a squared step goes where they would end.

A cycle takes three E-steps.  θ₁ = M(θ₀), θ₂ = M(θ₁) are plain; with r = θ₁ − θ₀, v = θ₂ − θ₁ − r,
α = −‖r‖/‖v‖ the next is θ′ = θ₀ − 2αr + α²v, and M(θ′) begins a new cycle.  θ′ itself is never
accepted, as it need not heed a covariance floor: where θ′ or M(θ′) lies below θ₁, the fit goes on
from θ₂.  So the objective does not fall, and every model accepted comes out of an M-step.

Varadhan & Roland (2008), Simple and globally convergent methods for accelerating the convergence
of any EM algorithm: scheme S3; the bound on |α| is that of their R package SQUAREM.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxem import parameters
from jaxem.acceleration.judged import Judged
from jaxem.pytree import pytree

START, FIRST, SECOND, EXTRAPOLATED, STABILISED = range(5)  # what is judged next
STEP_MAX = 1.0  # the first bound on |α|; at 1, θ′ is θ₂
GROWTH = 4.0  # of the bound where it was reached, and its shrinking where that failed


@pytree
class Memory:
    """Where in its cycle a fit is."""

    place: Int[Array, ""]
    origin: Any  # θ₀
    fallback: Any  # θ₂
    step_max: Float[Array, ""]
    bounded: Bool[Array, ""]  # whether the last |α| was cut to the bound

    @property
    def trial(self) -> Bool[Array, ""]:
        """Whether an extrapolation, or what an M-step made of it, is judged next."""
        return self.place >= EXTRAPOLATED


def begin(model: Any) -> Memory:
    """The memory before the first E-step."""
    dtype = parameters.ravel(model).dtype
    return Memory(
        jnp.asarray(START), model, model, jnp.asarray(STEP_MAX, dtype), jnp.asarray(False)
    )


def passes(_: Memory, judged: Judged) -> Bool[Array, ""]:
    """Whether the objective is at least that of θ₁."""
    return jnp.isfinite(judged.objective) & (judged.objective >= judged.previous)


def follow(memory: Memory, judged: Judged, passed: Array) -> tuple[Any, Bool[Array, ""], Memory]:
    """The next model; whether a trial is accepted, which only M(θ′) is; and the memory."""
    place = memory.place
    failed = memory.trial & ~passed
    # The start is no θ₀: its logits need not be normalised as those of M-steps are.
    opens = (place == FIRST) | ((place == STABILISED) & passed)
    beyond, reaches, bounded = extrapolate(memory, judged)
    closes = place == SECOND
    tries = closes & reaches & (judged.room >= 2)  # one E-step for θ′, one for M(θ′)
    following = _choose(tries, beyond, _choose(failed, memory.fallback, judged.proposal))
    then = jnp.where(opens, SECOND, FIRST)
    then = jnp.where(tries, EXTRAPOLATED, then)
    then = jnp.where((place == EXTRAPOLATED) & passed, STABILISED, then)
    # A cut |α| that did no harm may be larger next time; cut to 1 it is no trial at all.
    arrived = jnp.where(closes, ~reaches & bounded, (place == STABILISED) & memory.bounded)
    step_max = memory.step_max * jnp.where(arrived & passed, GROWTH, 1)
    shrunk = jnp.maximum(memory.step_max / GROWTH, STEP_MAX)
    step_max = jnp.where(failed & memory.bounded, shrunk, step_max)
    return (
        following,
        place == STABILISED,
        Memory(
            then,
            _choose(opens, judged.model, memory.origin),
            _choose(closes, judged.proposal, memory.fallback),
            step_max,
            jnp.where(closes, bounded, memory.bounded),
        ),
    )


def extrapolate(memory: Memory, judged: Judged) -> tuple[Any, Bool[Array, ""], Bool[Array, ""]]:
    """θ′ from θ₀, θ₁ and θ₂; whether it goes beyond θ₂, and whether |α| was cut to its bound.

    Only entries that are finite in all three and not frozen are extrapolated.
    """
    first, second, third = map(parameters.ravel, (memory.origin, judged.model, judged.proposal))
    free = parameters.is_free(judged.proposal, judged.frozen)
    free &= jnp.isfinite(first) & jnp.isfinite(second)
    first, second, end = (jnp.where(free, theta, 0) for theta in (first, second, third))
    r = second - first
    v = (end - second) - r
    curved, length = jnp.linalg.norm(v), jnp.linalg.norm(r)
    straight = curved == 0  # as where a logit goes to -inf
    alpha = jnp.where(straight, jnp.inf, length / jnp.where(straight, 1, curved))
    bounded = alpha >= memory.step_max
    alpha = jnp.maximum(jnp.minimum(alpha, memory.step_max), STEP_MAX)
    beyond = first + 2 * alpha * r + alpha**2 * v
    reaches = (alpha > STEP_MAX) & (length > 0)
    return parameters.unravel(judged.proposal, jnp.where(free, beyond, third)), reaches, bounded


def _choose(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), a, b)
