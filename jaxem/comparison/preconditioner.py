"""EM as a preconditioned gradient step: Δθ = P(θ) ∇ℓ in the quantities of the textbooks.

P is the variance of the sufficient statistics over the expected count, positive definite: for
probabilities (diag p − p pᵀ)/N, for a mean Σ/N, for a covariance (2/N) Σ⊗Σ, for a rate λ/N.
Xu & Jordan (1996), theorem 1.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxem.comparison.coordinates import Arrays
from jaxem.families.bernoulli import Bernoulli
from jaxem.families.categorical import Categorical
from jaxem.families.diagonal_gaussian import DiagonalGaussian
from jaxem.families.gaussian import Gaussian
from jaxem.families.poisson import Poisson
from jaxem.families.spherical_gaussian import SphericalGaussian
from jaxem.families.tied_gaussian import TiedGaussian
from jaxem.semiring import PRECISION


def predicted_step(part: Any, stats: Any, moves: Arrays, slopes: Arrays) -> Arrays:
    """P(θ) ∇ℓ for every quantity of a part.

    `moves` is how far the M-step went: a covariance's scatter is about the mean where it went to,
    which costs a second-order term, −ΔμΔμᵀ, beside Xu and Jordan's.
    """
    return _PRECONDITIONED[type(part)](part, stats, moves, slopes)


def _over(numerator: Array, count: Array) -> Array:
    """Per observation; 0 for a member without any, which the M-step leaves alone."""
    count = jnp.reshape(count, (*jnp.shape(count), *[1] * (numerator.ndim - jnp.ndim(count))))
    none = count == 0
    return jnp.where(none, 0, numerator / jnp.where(none, 1, count))


def _table(part: Any, stats: Any, moves: Arrays, slopes: Arrays) -> Arrays:
    # P = (diag p − p pᵀ) / N, row by row
    probs, slope = part.probs, slopes[0]
    projected = probs * slope - probs * jnp.sum(probs * slope, -1, keepdims=True)
    return (_over(projected, jnp.sum(stats, -1)),)


def _coin(part: Any, stats: Any, moves: Arrays, slopes: Arrays) -> Arrays:
    probs = part.probs
    return (_over(probs * (1 - probs) * slopes[0], stats.successes + stats.failures),)


def _count(part: Any, stats: Any, moves: Arrays, slopes: Arrays) -> Arrays:
    return (_over(part.rate * slopes[0], stats.exposure),)


def _share(stats: Any, outer: Array) -> Array:
    return outer * stats.weight.reshape(-1, *[1] * (outer.ndim - 1))


def _full(part: Any, stats: Any, moves: Arrays, slopes: Arrays) -> Arrays:
    sigma, (move, _) = part.covariance, moves
    product = "kij,kj->ki" if sigma.ndim == 3 else "ij,kj->ki"
    mean = _over(jnp.einsum(product, sigma, slopes[0], precision=PRECISION), stats.weight)
    curve = 2 * jnp.einsum("...ij,...jk,...kl->...il", sigma, slopes[1], sigma, precision=PRECISION)
    outer = _share(stats, move[:, :, None] * move[:, None, :])
    outer = outer if sigma.ndim == 3 else jnp.sum(outer, 0)
    return mean, _over(curve - outer, stats.covariance_weight)


def _diagonal(part: Any, stats: Any, moves: Arrays, slopes: Arrays) -> Arrays:
    variance, (move, _) = part.variance, moves
    mean = _over(variance * slopes[0], stats.weight)
    curve = 2 * variance**2 * slopes[1] - _share(stats, move**2)
    return mean, _over(curve, stats.covariance_weight)


def _spherical(part: Any, stats: Any, moves: Arrays, slopes: Arrays) -> Arrays:
    variance, (move, _) = part.variance, moves
    mean = _over(variance[:, None] * slopes[0], stats.weight)
    curve = 2 * variance**2 * slopes[1] - _share(stats, jnp.sum(move**2, 1))
    return mean, _over(curve, stats.covariance_weight * move.shape[1])


_PRECONDITIONED: dict[type, Callable[..., Arrays]] = {
    Categorical: _table,
    Bernoulli: _coin,
    Poisson: _count,
    Gaussian: _full,
    TiedGaussian: _full,
    DiagonalGaussian: _diagonal,
    SphericalGaussian: _spherical,
}
