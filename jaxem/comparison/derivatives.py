"""Derivatives of ℓ and of the EM map in the leaves, a batch of directions at a time.

By reverse mode alone, twice where it must be: the chain's log-normaliser has no forward mode.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxem import chain, parameters
from jaxem.comparison import objective
from jaxem.families import optional
from jaxem.hmm import HMM
from jaxem.mixture import Mixture
from jaxem.semiring import logsumexp, pairwise_sum, softmax

BATCH = 16  # directions taken at a time: more cost memory, O(BATCH · chunk)

Leaves = Float[Array, " P"]


def _map(function: Callable[[Leaves], Leaves], directions: Float[Array, "R P"]) -> Array:
    return lax.map(function, directions, batch_size=BATCH)


def _start(model: Any, free: Bool[Array, " P"]) -> Leaves:
    return jnp.where(free, parameters.ravel(model), 0)


def _em_map(model: Any, free: Array, data: Any, prior: Any, frozen: Any) -> Callable:
    """M as a function of the free leaves; entries that are not free come out as 0."""

    def function(vector: Leaves) -> Leaves:
        here = objective.at_leaves(model, free, vector)
        proposal = here.m_step(here.e_step(data)[0], prior, frozen)
        return jnp.where(free, parameters.ravel(proposal), 0)

    return function


@partial(jax.jit, static_argnames="frozen")
def em_jacobian(
    model: Any,
    free: Bool[Array, " P"],
    data: Any,
    prior: Any,
    frozen: Any,
    directions: Float[Array, "R P"],
) -> Float[Array, "R P"]:
    """`directions` times the Jacobian of the EM map at θ."""
    function = _em_map(model, free, data, prior, frozen)
    _, pull = jax.vjp(function, _start(model, free))
    return _map(lambda direction: pull(direction)[0], directions)


@partial(jax.jit, static_argnames="frozen")
def em_tangent(
    model: Any, free: Bool[Array, " P"], data: Any, prior: Any, frozen: Any, direction: Leaves
) -> Leaves:
    """The Jacobian of the EM map at θ times a direction."""
    function = _em_map(model, free, data, prior, frozen)
    _, pull = jax.vjp(function, _start(model, free))
    # What reverse mode does is linear; reversed once more it is forward mode.
    return jax.vjp(lambda weight: pull(weight)[0], jnp.zeros_like(direction))[1](direction)[0]


@jax.jit
def log_likelihood_hessian(
    model: Any, free: Bool[Array, " P"], data: Any, prior: Any, directions: Float[Array, "R P"]
) -> Float[Array, "R P"]:
    """`directions` times the Hessian of ℓ + log-prior at θ, by autodiff."""

    def function(vector: Leaves) -> Array:
        here = objective.at_leaves(model, free, vector)
        return objective.log_likelihood(here, data) + here.log_prior(prior)

    _, pull = jax.vjp(jax.grad(function), _start(model, free))
    return _map(lambda direction: pull(direction)[0], directions)


@jax.jit
def missing_information(
    model: Any, free: Bool[Array, " P"], data: Any, directions: Float[Array, "R P"]
) -> Float[Array, "R P"]:
    """`directions` times the information that the latent variables would have added.

    The variance of the complete-data score given the data, Louis (1982) 3.2.  The score is linear
    in the counts of what is latent, whose variance is the second derivative of log Z in the
    log-potentials φ: (∂φ/∂θ)ᵀ ∇² log Z (∂φ/∂θ).
    """
    start = _start(model, free)

    def along(direction: Leaves) -> Leaves:
        given = getattr(data, "missing", None), getattr(data, "labels", None)
        if any(part is not None for part in given):  # what is latent is more, or less, than a path
            return _missing_by_divergence(model, free, data, start, direction)
        if isinstance(model, HMM):
            return _missing_in_chain(model, free, data, start, direction)
        if isinstance(model, Mixture):
            return _missing_in_rows(model, free, data, start, direction)
        return _missing_by_divergence(model, free, data, start, direction)

    return _map(along, directions)


def _missing_in_rows(
    model: Mixture, free: Array, rows: Any, start: Leaves, direction: Leaves
) -> Leaves:
    def in_form(as_form: Callable[[Any], Any]) -> Leaves:
        def one(x: Array, weight: Array | None) -> tuple[Leaves, Array]:
            def potentials(vector: Leaves) -> Array:
                here = objective.at_leaves(model, free, vector)
                form = as_form(optional.translate(here.components, rows.center))
                log_joint = optional.log_joint(form, x)
                return here.weights.log_probs[:, None, None] + log_joint

            log_joint, change = jax.jvp(potentials, (start,), (direction,))
            shape = log_joint.shape
            probs = softmax(log_joint.reshape(-1, shape[-1]), 0)[0]
            change = jnp.where(probs > 0, change.reshape(probs.shape), 0)
            spread = probs * (change - jnp.sum(probs * change, 0))
            spread = spread if weight is None else spread * weight
            return jax.vjp(potentials, start)[1](spread.reshape(shape))[0], jnp.zeros(())

        return rows.accumulate(one)[0]

    accurate = optional.form(optional.translate(model.components, rows.center)).accurate
    return lax.cond(accurate, lambda: in_form(optional.form), lambda: in_form(optional.plain_form))


def _missing_in_chain(
    model: HMM, free: Array, data: Any, start: Leaves, direction: Leaves
) -> Leaves:
    def potentials(vector: Leaves) -> tuple[Array, Array, Array]:
        here = objective.at_leaves(model, free, vector)
        family = optional.translate(here.emission, data.center)

        def walk(form: Any) -> Array:
            return data.rows.map(lambda x: optional.log_joint(form, x))

        return here.log_initial, here.transition.log_probs, optional.in_best_form((family,), walk)

    def log_z(parts: tuple[Array, Array, Array]) -> Array:
        initial, transition, inner = parts
        emission = data.gather(jax.vmap(data.by_step)(logsumexp(inner, 2)))
        whole = chain.Chain(initial, transition, emission)
        return pairwise_sum(data.weighted(chain.log_normalizer(whole, data.lengths)))

    here, change = jax.jvp(potentials, (start,), (direction,))
    spread = jax.vjp(jax.grad(log_z), here)[1](change)[0]  # symmetric: ∇² log Z times the change
    return jax.vjp(potentials, start)[1](spread)[0]


def _missing_by_divergence(
    model: Any, free: Array, data: Any, start: Leaves, direction: Leaves
) -> Leaves:
    """∇² of KL(p(z | x, θ) ‖ p(z | x, ·)) at θ is that variance, whatever model and z are."""

    def function(vector: Leaves) -> Array:
        return model.posterior_divergence(data, objective.at_leaves(model, free, vector))

    return jax.vjp(jax.grad(function), start)[1](direction)[0]
