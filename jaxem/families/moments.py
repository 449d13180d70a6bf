"""Statistics of Gaussian families: what the four covariance structures share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxem import em
from jaxem.data import is_traced
from jaxem.families import optional
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION


@pytree
class GaussianStats:
    """Moments about the means of the members that made them, so that nothing large is subtracted.

    `second` is what the covariance needs: [K, D, D] full, [D, D] tied (summed over members),
    [K, D] diagonal, [K] spherical (summed over features).
    """

    weight: Float[Array, " K"]  # rows that speak of the mean
    covariance_weight: Float[Array, "..."]  # rows that speak of the covariance: [K], or [] if tied
    first: Float[Array, "K D"]  # Σ r (x − μ)
    second: Float[Array, "..."]  # Σ r (x − μ)(x − μ)ᵀ, or what the structure keeps of it
    floor: Float[Array, ""]  # smallest variance allowed: 0 in data, it comes with pretend data


def shift(stats: GaussianStats) -> Float[Array, "K D"]:
    """From the current mean to the weighted mean; 0 for a member that explains nothing."""
    none = stats.weight == 0
    return jnp.where(none[:, None], 0, stats.first / jnp.where(none, 1, stats.weight)[:, None])


def validate_moments(mean: Any, family: str) -> Array:
    """Means as a float array [K, D].

    Raises:
        ValueError: another number of axes.
    """
    mean = jnp.asarray(mean)
    mean_shape(mean, family)
    return mean if jnp.issubdtype(mean.dtype, jnp.floating) else mean.astype(jnp.zeros(()).dtype)


def mean_shape(mean: Any, family: str) -> tuple[int, int]:
    """K and D, or a ValueError where there are other axes."""
    if np.ndim(mean) != 2:
        raise ValueError(f"{family} needs a mean of shape [K, D], got {list(np.shape(mean))}.")
    return np.shape(mean)


def check_leaf(leaf: Any, shape: tuple[int, ...], name: str) -> None:
    """Raise a ValueError unless the leaf has this shape."""
    if np.shape(leaf) != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(np.shape(leaf))}.")


def pooled_moments(x: Any, num_members: int) -> tuple[Array, Array]:
    """Mean [K, D] and covariance [D, D] of all rows, for `num_members` members.

    The covariance has a floor at 1e-6 of its smallest positive variance, so that it is one even
    where rows lie in a plane.
    """
    x = jnp.asarray(x)
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.zeros(()).dtype)
    center = jnp.mean(x, 0)
    center = center + jnp.mean(x - center, 0)
    centred = x - center
    covariance = jnp.dot(centred.T, centred, precision=PRECISION) / len(x)
    variance = jnp.diagonal(covariance)
    smallest = jnp.min(jnp.where(variance > 0, variance, jnp.inf))
    floor = em.RELATIVE_FLOOR * jnp.where(jnp.isfinite(smallest), smallest, 1)
    covariance = covariance + floor * jnp.eye(len(covariance), dtype=x.dtype)
    return jnp.broadcast_to(center, (num_members, x.shape[1])), covariance


def pretend_mean(prior: em.Prior, mean: Float[Array, "K D"]) -> tuple[Array, Array]:
    """Weight [K] of the pretend rows that speak of the mean, and how far from it they lie."""
    weight = jnp.broadcast_to(jnp.asarray(prior.mean_weight, mean.dtype), mean.shape[:1])
    return weight, jnp.broadcast_to(jnp.asarray(prior.mean, mean.dtype), mean.shape) - mean


def pretend_scatter(prior: em.Prior, size: int, dtype: Any) -> Float[Array, "... D D"]:
    """The prior's scatter as a matrix: a number or a vector is the diagonal."""
    scatter = jnp.asarray(prior.scatter, dtype)
    identity = jnp.eye(size, dtype=dtype)
    return scatter if scatter.ndim >= 2 else scatter * identity


def pretend_floor(prior: em.Prior, dtype: Any) -> Float[Array, ""]:
    """The prior's floor; 0 where it is left relative to data that are not at hand."""
    return jnp.zeros((), dtype) if prior.floor is None else jnp.asarray(prior.floor, dtype)


def accurate(mean: Float[Array, "K D"], precision: Float[Array, "K D"]) -> Bool[Array, ""]:
    """Whether moments about the origin keep their digits for these members.

    Expanding (x − μ)ᵀΛ(x − μ) loses about ε Σ_d μ_d² Λ_dd nats a row: at most 5e-4 in float32 (a
    mean 64 standard deviations away) and 4e-11 in float64.
    """
    loss = jnp.sum(mean**2 * precision, -1)
    return jnp.all(loss <= max(2**12, float(jnp.finfo(mean.dtype).eps) ** (-1 / 3)))


METHODS = {
    "features": "products with the quadratic features of the rows: fast",
    "centred": "whitened about each member's own mean: right for the tightest clusters",
}


def check_method(method: str | None) -> None:
    """Raise a ValueError unless this is None or one of `METHODS`."""
    if method is not None and method not in METHODS:
        names = ", ".join(f"{name!r}" for name in METHODS)
        raise ValueError(f"a Gaussian family's method must be None or {names}, got {method!r}.")


def choose_form(family: Any, features: Callable[[Any], Any]) -> Any:
    """The form that the family's `method` names.

    None, the default, takes the features where `accurate` holds for all members, and the centred
    form elsewhere: one branch a step, chosen from the parameters.  Under `vmap` a branch runs both
    sides; a method named then spares one of them.
    """
    if family.method == "centred":
        return optional.Plain(family)
    form = features(family)
    return form if family.method is None else replace(form, accurate=True)


def products(columns: Float[Array, "D n"], i: Any, j: Any) -> Float[Array, "F n"]:
    """Features z_i z_j of z = [1; x]; the pairs that begin with 0 are 1 and x themselves.

    Taking rows by number is one loop to XLA's CPU compiler; joining blocks of products takes longer
    than both matrix products.
    """
    ones = jnp.ones((1, columns.shape[1]), columns.dtype)
    z = jnp.concatenate([ones, columns])
    return z[i] * z[j]


def quadratic_features(columns: Float[Array, "D n"]) -> Float[Array, "F n"]:
    """[1; x; x_i x_j for i <= j]; F = (D + 1)(D + 2)/2."""
    return products(columns, *np.triu_indices(len(columns) + 1))


def square_features(columns: Float[Array, "D n"]) -> Float[Array, "F n"]:
    """[1; x; x_i²]; F = 1 + 2D."""
    linear, squares = np.arange(len(columns) + 1), np.arange(1, len(columns) + 1)
    first = np.concatenate([np.zeros_like(linear), squares])
    return products(columns, first, np.concatenate([linear, squares]))


def outer_coefficients(matrix: Float[Array, "... D D"]) -> Float[Array, "... F"]:
    """Coefficients of x_i x_j for i <= j that make xᵀ M x with symmetric M."""
    i, j = np.triu_indices(matrix.shape[-1])
    return matrix[..., i, j] * np.where(i == j, 1, 2).astype(matrix.dtype)


def outer_matrix(sums: Float[Array, "F K"], size: int) -> Float[Array, "K D D"]:
    """Sums of x_i x_j for i <= j as symmetric matrices Σ x xᵀ."""
    place = np.zeros((size, size), int)
    place[np.triu_indices(size)] = np.arange(len(sums))
    return jnp.moveaxis(sums[place + np.triu(place, 1).T], -1, 0)


def stats_about(
    sums: Float[Array, "F K"], mean: Float[Array, "K D"]
) -> tuple[Float[Array, " K"], Float[Array, "K D"], Float[Array, "K D"]]:
    """Weight, Σ r x and Σ r (x − μ) from the sums of [1; x; …]."""
    weight = sums[0]
    raw = sums[1 : mean.shape[1] + 1].T
    return weight, raw, raw - weight[:, None] * mean


def weighted_sums(features: Float[Array, "F n"], responsibilities: Float[Array, "n K"]) -> Array:
    """Σ_n features · responsibilities; [F, K].  XLA's CPU product is fastest this way round."""
    dimensions = (((1,), (1,)), ((), ()))
    return lax.dot_general(features, responsibilities.T, dimensions, precision=PRECISION)


def whitened(
    columns: Float[Array, "D n"],
    mean: Float[Array, " D"],
    whiten: Float[Array, "D D"],
    constant: Float[Array, ""],
) -> Float[Array, " n"]:
    """`constant` − ½ |whiten (x − mean)|² of every row: a log-density about its own mean."""
    z = jnp.dot(whiten, columns - mean[:, None], precision=PRECISION)
    return constant - 0.5 * jnp.sum(z**2, 0)


def gaussian_constant(size: int) -> float:
    """−½ D log 2π."""
    return -0.5 * size * float(np.log(2 * np.pi))


def log_scale_of(variance: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Log standard deviations of variances that somebody typed in.

    Raises:
        ValueError: variances that do not broadcast to `shape`, or are not positive.
    """
    variance = jnp.asarray(variance, dtype)
    try:
        variance = jnp.broadcast_to(variance, shape)
    except ValueError:
        raise ValueError(
            f"variance must have shape {list(shape)}, got {list(variance.shape)}."
        ) from None
    if not is_traced(variance) and not np.all(variance > 0):
        raise ValueError(f"variance must be positive, got {variance}.")
    return 0.5 * jnp.log(variance)


def squared_distance(
    columns: Float[Array, "D n"],
    mean: Float[Array, "K D"],
    inverse_scale: Float[Array, "K D"],
    observed: Bool[Array, "D n"] | None = None,
) -> Float[Array, "K n"]:
    """Σ_d ((x_d − μ_kd) / σ_kd)² over what is observed, feature by feature: O(K n) memory."""

    def feature(total: Array, parts: Any) -> tuple[Array, None]:
        row, mean, inverse_scale, there = parts
        squared = ((row - mean[:, None]) * inverse_scale[:, None]) ** 2
        return total + (squared if there is None else jnp.where(there, squared, 0)), None

    start = jnp.zeros((len(mean), columns.shape[1]), columns.dtype)
    return lax.scan(feature, start, (columns, mean.T, inverse_scale.T, observed))[0]


def moments_by_feature(
    x: Float[Array, "n D"],
    mean: Float[Array, "K D"],
    responsibilities: Float[Array, "n K"],
    observed: Bool[Array, "D n"] | None = None,
) -> tuple[Float[Array, "K D"], Float[Array, "K D"]]:
    """Σ r (x_d − μ_kd) and Σ r (x_d − μ_kd)² over what is observed, feature by feature."""
    weight = responsibilities.T

    def feature(parts: Any) -> tuple[Array, Array]:
        row, mean, there = parts
        centred = row - mean[:, None]
        weighted = centred * (weight if there is None else jnp.where(there, weight, 0))
        return jnp.sum(weighted, 1), jnp.sum(weighted * centred, 1)

    first, second = lax.map(feature, (jnp.asarray(x, mean.dtype).T, mean.T, observed))
    return first.T, second.T
