"""Families in exponential form: log p(x) = η·T(x) − A(η) + log h(x).

EM is then a step along the natural gradient: ∇_η ℓ = Σ_k N_k (τ_k(θ′) − τ_k(θ)), τ = E[T].  T is
taken about the current means, so that nothing large is subtracted.  A family of one's own joins in
with the two methods of `Exponential`.
"""

from typing import Any, Protocol

import jax.numpy as jnp
from jaxtyping import Array

from jaxem.families import covariance as cov
from jaxem.families.bernoulli import Bernoulli
from jaxem.families.categorical import Categorical
from jaxem.families.diagonal_gaussian import DiagonalGaussian
from jaxem.families.gaussian import Gaussian
from jaxem.families.poisson import Poisson
from jaxem.families.spherical_gaussian import SphericalGaussian
from jaxem.families.tied_gaussian import TiedGaussian
from jaxem.semiring import PRECISION


class Exponential(Protocol):
    """What a family may offer to be certified as an exponential one."""

    def natural_parameters(self, candidate: Any) -> Any:
        """η of the candidate, for statistics T taken about self's means; any pytree."""
        ...

    def mean_step(self, stats: Any, candidate: Any) -> Any:
        """N_k (τ_k(candidate) − τ_k(self)), shaped like η: each block with its own count."""
        ...


def is_exponential(part: Any) -> bool:
    """Whether the exponential form of this part is known."""
    return type(part) in _NATURAL or hasattr(part, "natural_parameters")


def natural_parameters(here: Any, candidate: Any) -> Any:
    """η of the candidate, for statistics about the means of `here`."""
    if type(here) in _NATURAL:
        return _NATURAL[type(here)](here, candidate)
    return here.natural_parameters(candidate)


def mean_step(here: Any, stats: Any, there: Any) -> Any:
    """N_k (τ_k(there) − τ_k(here)), shaped like η."""
    if type(here) in _MEAN_STEP:
        return _MEAN_STEP[type(here)](here, stats, there)
    return here.mean_step(stats, there)


def _precision(part: Any) -> Array:
    whiten = cov.inverse(part.scale_tril)
    return jnp.einsum("...ji,...jk->...ik", whiten, whiten, precision=PRECISION)


def _gaussian(here: Any, candidate: Any) -> tuple[Array, Array]:
    # η = (Λ(μ − c), −Λ/2) for T = (x − c, (x − c)(x − c)ᵀ)
    precision = _precision(candidate)
    away = candidate.mean - here.mean
    product = "kij,kj->ki" if precision.ndim == 3 else "ij,kj->ki"
    return jnp.einsum(product, precision, away, precision=PRECISION), -0.5 * precision


def _diagonal(here: Any, candidate: Any) -> tuple[Array, Array]:
    precision = 1 / candidate.variance
    return precision * (candidate.mean - here.mean), -0.5 * precision


def _spherical(here: Any, candidate: Any) -> tuple[Array, Array]:
    precision = 1 / candidate.variance
    return precision[:, None] * (candidate.mean - here.mean), -0.5 * precision


_NATURAL = {
    Categorical: lambda here, candidate: candidate.logits,
    Bernoulli: lambda here, candidate: candidate.logits,
    Poisson: lambda here, candidate: candidate.log_rate,
    Gaussian: _gaussian,
    TiedGaussian: _gaussian,
    DiagonalGaussian: _diagonal,
    SphericalGaussian: _spherical,
}


def _categorical_step(here: Any, stats: Any, there: Any) -> Array:
    return jnp.sum(stats, -1, keepdims=True) * (there.probs - here.probs)


def _bernoulli_step(here: Any, stats: Any, there: Any) -> Array:
    return (stats.successes + stats.failures) * (there.probs - here.probs)


def _poisson_step(here: Any, stats: Any, there: Any) -> Array:
    exposure = stats.exposure.reshape(-1, *[1] * (here.log_rate.ndim - 1))
    return exposure * (there.rate - here.rate)


# E[(x − c)(x − c)ᵀ] = Σ + (μ − c)(μ − c)ᵀ: pretend data may weigh the two parts differently.


def _full_step(here: Any, stats: Any, there: Any) -> tuple[Array, Array]:
    move = there.mean - here.mean
    outer = stats.weight[:, None, None] * move[:, :, None] * move[:, None, :]
    weight = stats.covariance_weight[:, None, None]
    return stats.weight[:, None] * move, weight * (there.covariance - here.covariance) + outer


def _tied_step(here: Any, stats: Any, there: Any) -> tuple[Array, Array]:
    move = there.mean - here.mean
    outer = jnp.einsum("k,ki,kj->ij", stats.weight, move, move, precision=PRECISION)
    change = stats.covariance_weight * (there.covariance - here.covariance)
    return stats.weight[:, None] * move, change + outer


def _diagonal_step(here: Any, stats: Any, there: Any) -> tuple[Array, Array]:
    move = there.mean - here.mean
    change = stats.covariance_weight[:, None] * (there.variance - here.variance)
    return stats.weight[:, None] * move, change + stats.weight[:, None] * move**2


def _spherical_step(here: Any, stats: Any, there: Any) -> tuple[Array, Array]:
    move = there.mean - here.mean
    weight = stats.covariance_weight * here.mean.shape[1]
    change = weight * (there.variance - here.variance)
    return stats.weight[:, None] * move, change + stats.weight * jnp.sum(move**2, 1)


_MEAN_STEP = {
    Categorical: _categorical_step,
    Bernoulli: _bernoulli_step,
    Poisson: _poisson_step,
    Gaussian: _full_step,
    TiedGaussian: _tied_step,
    DiagonalGaussian: _diagonal_step,
    SphericalGaussian: _spherical_step,
}
