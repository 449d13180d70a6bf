"""The loop of expectation-maximisation: one step, how it is judged, and steps to an end."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem import parameters
from jaxem.acceleration import STRATEGIES, Judged
from jaxem.pytree import pytree

ROUNDING = 2 / 3  # ε to this power is the share of the log-likelihood that rounding may take

RUNNING, CONVERGED, AT_RESOLUTION, OUT_OF_STEPS, NON_FINITE, FELL = range(6)
OUTCOMES = (
    "still running",
    "converged",
    "converged to the resolution of the dtype",
    "out of steps",
    "stopped at a non-finite log-likelihood; the last finite model, or the start, is returned",
    "stopped, but the objective fell on the way by more than rounding explains (see largest_fall)",
)


@pytree
class State:
    """A fit on its way; its trace is kept apart, by whoever takes the steps."""

    model: Any  # where the next E-step is taken
    anchor: Any  # whose means its statistics are about
    again: Bool[Array, ""]  # the same E-step once more, about a nearer anchor
    accepted: Any  # the last model with a finite objective ...
    log_likelihood: Float[Array, ""]  # ... and what belongs to it
    log_prior: Float[Array, ""]
    num_steps: Int[Array, ""]
    largest_fall: Float[Array, ""]
    end: Int[Array, ""]
    memory: Any  # what the acceleration has to know; nothing in plain EM


def begin(model: Any, dtype: Any, accelerate: str | None = None) -> State:
    """The state before the first E-step."""
    nothing = jnp.asarray(jnp.nan, dtype)
    return State(
        model=model,
        anchor=model,
        again=jnp.asarray(False),
        accepted=model,
        log_likelihood=nothing,
        log_prior=nothing,
        num_steps=jnp.asarray(0),
        largest_fall=jnp.zeros((), dtype),
        end=jnp.asarray(RUNNING),
        memory=STRATEGIES[accelerate].begin(model),
    )


def step(
    s: State,
    data: Any,
    prior: Any,
    tol: Array,
    last: int,
    frozen: parameters.Names,
    accelerate: str | None = None,
) -> tuple[State, Float[Array, ""]]:
    """One E-step, its judgement, and the M-step if the fit goes on; at most `last` M-steps.

    The second result is what the trace has at the place `s.num_steps`.  With acceleration the model
    judged may be a trial.  One that fails costs its step, and the fit stays where it was.
    """
    stats, log_likelihood = s.model.e_step(data, about=s.anchor)
    log_prior = s.model.log_prior(prior)
    objective = log_likelihood + log_prior
    num_terms = max((leaf.size for leaf in jax.tree.leaves(data)), default=0)
    end, fall, negligible, rounding = _judge(s, objective, tol, num_terms)
    proposal = s.anchor.m_step(stats, prior, frozen)
    strategy = STRATEGIES[accelerate]
    judged = Judged(
        model=s.model,
        stats=stats,
        anchor=s.anchor,
        proposal=proposal,
        prior=prior,
        objective=objective,
        accepted=s.accepted,
        previous=s.log_likelihood + s.log_prior,
        negligible=negligible,
        rounding=rounding,
        room=last - s.num_steps,
        frozen=frozen,
    )
    trial = s.memory.trial
    passed = ~trial | strategy.passes(s.memory, judged)
    end, fall = jnp.where(trial, RUNNING, end), jnp.where(trial, 0, fall)
    largest_fall = jnp.maximum(s.largest_fall, fall)
    end = jnp.where((end == RUNNING) & (s.num_steps >= last), OUT_OF_STEPS, end)
    # A mean that moved by very many of its new standard deviations cost the covariance its
    # digits: take the same expectation once more, about where the mean went.
    again = ~s.again & ~s.anchor.near(proposal) & (end == RUNNING) & passed
    running = (end == RUNNING) & ~again
    rejected = (end == NON_FINITE) & (s.num_steps > 0)
    following, accepts, memory = strategy.follow(s.memory, judged, passed)
    stays = jnp.where(trial, ~(accepts & passed) | again, rejected)
    keep = partial(jax.tree.map, partial(jnp.where, stays))
    after = State(
        model=jax.tree.map(partial(jnp.where, running), following, s.model),
        anchor=jax.tree.map(partial(jnp.where, again), proposal, following),
        again=again,
        accepted=keep(s.accepted, s.model),
        log_likelihood=keep(s.log_likelihood, log_likelihood),
        log_prior=keep(s.log_prior, log_prior),
        num_steps=s.num_steps + running - rejected,
        largest_fall=largest_fall,
        end=end,
        memory=jax.tree.map(partial(jnp.where, running), memory, s.memory),
    )
    level = jnp.where(rejected, jnp.nan, judged.previous)
    return after, jnp.where(stays, level, objective)


@partial(jax.jit, static_argnames=("frozen", "accelerate"))
def advance(
    state: State,
    trace: Float[Array, " max_steps+1"],
    data: Any,
    prior: Any,
    tol: Array,
    limit: Array,
    frozen: parameters.Names,
    accelerate: str | None = None,
) -> tuple[State, Float[Array, " max_steps+1"]]:
    """EM steps until one ends the fit, `limit` steps are done or the trace is full."""
    last = len(trace) - 1
    limit = jnp.minimum(limit, last)

    def body(carry: tuple[State, Array]) -> tuple[State, Array]:
        s, trace = carry
        following, objective = step(s, data, prior, tol, last, frozen, accelerate)
        return following, trace.at[s.num_steps].set(objective)

    def keep_going(carry: tuple[State, Array]) -> Array:
        s, _ = carry
        return (s.end == RUNNING) & ((s.num_steps <= limit) | s.again)

    return lax.while_loop(keep_going, body, (state, trace))


def _judge(
    s: State, objective: Array, tol: Array, num_terms: int
) -> tuple[Array, Array, Array, Array]:
    """How the fit stands at this objective, by how much it fell to get here; and the largest gain,
    and the largest fall, that count as none.
    """
    previous = s.log_likelihood + s.log_prior
    first = (s.num_steps == 0) | s.again
    # A sum of n terms near 1 is no better known than n times the resolution, even if it cancels.
    size = jnp.maximum(jnp.maximum(jnp.abs(objective), jnp.abs(previous)), num_terms)
    scale = jnp.finfo(objective.dtype).eps * size
    gain = objective - previous
    # From an impossible start (-inf) the first M-step may still lead to possible parameters.
    broken = jnp.where(
        first, jnp.isnan(objective) | (objective == jnp.inf), ~jnp.isfinite(objective)
    )
    rounding = jnp.finfo(objective.dtype).eps ** ROUNDING * size
    fall = jnp.where(first | ~jnp.isfinite(gain), 0, jnp.maximum(-gain, 0))
    fell = jnp.maximum(fall, s.largest_fall) > rounding
    negligible = jnp.maximum(tol, scale)
    stopped = ~first & (gain <= negligible) & (-gain <= rounding)
    end = jnp.where(tol >= scale, CONVERGED, AT_RESOLUTION)
    end = jnp.where(fell, FELL, end)
    end = jnp.where(broken, NON_FINITE, jnp.where(stopped, end, RUNNING))
    return end, fall, negligible, rounding
