"""Q and ℓ as functions of vectors of leaves, and of the quantities of the textbooks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxem import chain, parameters
from jaxem.comparison.coordinates import Arrays, coordinates_of
from jaxem.comparison.parts import join, split
from jaxem.hmm import HMM
from jaxem.semiring import pairwise_sum


def at_leaves(model: Any, free: Bool[Array, " P"], vector: Float[Array, " P"]) -> Any:
    """The model with its free entries taken from the vector."""
    return parameters.unravel(model, jnp.where(free, vector, parameters.ravel(model)))


def quantities(model: Any) -> tuple[Arrays, ...]:
    """Probabilities, means, covariances, rates: a tuple a part."""
    return tuple(coordinates_of(part).read(part) for _, part in split(model))


def at_quantities(model: Any, values: Sequence[Arrays]) -> Any:
    """The model with these quantities, tables not normalised."""
    parts = zip(split(model), values, strict=True)
    return join(model, [coordinates_of(part).rebuild(*own) for (_, part), own in parts])


def log_likelihood(model: Any, data: Any) -> Float[Array, ""]:
    """ℓ of prepared data, by the function whose gradient is the posterior."""
    if isinstance(model, HMM):
        log_z = chain.log_normalizer(model.potentials(data), data.lengths)
        return pairwise_sum(data.weighted(log_z))
    return model.e_step(data)[1]


def slopes_of_q(anchor: Any, total: Any, candidate: Any) -> tuple[Arrays, ...]:
    """∇Q at the candidate in the quantities of the textbooks, tables taken as free numbers."""

    def function(values: tuple[Arrays, ...]) -> Array:
        return anchor.expected_log_prob(total, at_quantities(candidate, values))

    return jax.grad(function)(quantities(candidate))


def slopes_of_prior(model: Any, prior: Any) -> tuple[Arrays, ...]:
    """The gradient of the log-prior in the same coordinates."""

    def function(values: tuple[Arrays, ...]) -> Array:
        return at_quantities(model, values).log_prior(prior) + jnp.zeros(())

    return jax.grad(function)(quantities(model))


@jax.jit
def slopes_of_log_likelihood(model: Any, data: Any) -> tuple[Arrays, ...]:
    """∇ℓ in the same coordinates, compiled."""

    def function(values: tuple[Arrays, ...]) -> Array:
        return log_likelihood(at_quantities(model, values), data)

    return jax.grad(function)(quantities(model))


@jax.jit
def q_at(anchor: Any, stats: Any, candidate: Any) -> Float[Array, ""]:
    """Q(candidate), compiled."""
    return anchor.expected_log_prob(stats, candidate)
