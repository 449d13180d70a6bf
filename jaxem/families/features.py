"""Some features of a row told from the others: what marginals and conditionals share."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxem.data import is_traced
from jaxem.families import covariance as cov
from jaxem.semiring import PRECISION


def split(dims: Any, num_features: int) -> tuple[np.ndarray, np.ndarray]:
    """The features named, in their order, and the others in theirs.

    Raises:
        ValueError: none named; one that does not exist, or twice.
    """
    named = np.atleast_1d(np.asarray(dims))
    if named.ndim != 1 or named.size == 0 or not np.issubdtype(named.dtype, np.integer):
        raise ValueError(f"dims must be numbers of features, at least one, got {dims}.")
    if np.any(named < -num_features) or np.any(named >= num_features):
        raise ValueError(f"dims must be features from 0 to {num_features - 1}, got {dims}.")
    named = named % num_features
    if len(np.unique(named)) < len(named):
        raise ValueError(f"dims must name each feature once, got {dims}.")
    return named, np.setdiff1d(np.arange(num_features), named)


def split_known(dims: Any, values: Any, num_features: int) -> tuple[np.ndarray, np.ndarray, Array]:
    """As `split`, with the values [d] of the features named.

    Raises:
        ValueError: as `split`; all features named; values that are not one a feature, or not
            finite.
    """
    named, others = split(dims, num_features)
    if others.size == 0:
        raise ValueError("every feature is given; leave at least one to say something of.")
    values = jnp.atleast_1d(jnp.asarray(values))
    if values.shape != named.shape:
        raise ValueError(f"values must be [{len(named)}], one a feature, got {values.shape}.")
    if not is_traced(values) and not np.all(np.isfinite(values)):
        raise ValueError(f"values must be finite, got {values}.")
    return named, others, values


def first(
    scale_tril: Float[Array, "... D D"], named: np.ndarray, others: np.ndarray
) -> Float[Array, "... D D"]:
    """The factor of the same covariance with the named features first."""
    order = np.concatenate([named, others])
    return cov.triangular(jnp.asarray(scale_tril)[..., order, :])


def regress(
    factor: Float[Array, "... D D"], away: Float[Array, "K d"]
) -> tuple[Float[Array, "K d"], Float[Array, "K e"]]:
    """What values that far from the means are in independent normals, and how far from their means
    they put the other features, under a factor with the features of the values first."""
    size = away.shape[-1]
    noise = jnp.einsum(
        "...ij,...j->...i", cov.inverse(factor[..., :size, :size]), away, precision=PRECISION
    )
    moved = jnp.einsum("...ij,...j->...i", factor[..., size:, :size], noise, precision=PRECISION)
    return noise, moved
