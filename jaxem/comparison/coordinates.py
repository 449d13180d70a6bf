"""The coordinates of the textbooks: probabilities, means, covariances and rates behind the leaves.

A table with a row for each family.  A family that is not in it is taken in its own leaves.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxem import parameters
from jaxem.comparison.positive_table import PositiveTable
from jaxem.families import covariance as cov
from jaxem.families.bernoulli import Bernoulli
from jaxem.families.categorical import Categorical
from jaxem.families.diagonal_gaussian import DiagonalGaussian
from jaxem.families.gaussian import Gaussian
from jaxem.families.poisson import Poisson
from jaxem.families.spherical_gaussian import SphericalGaussian
from jaxem.families.tied_gaussian import TiedGaussian
from jaxem.semiring import PRECISION, log

Arrays = tuple[Array, ...]  # one a leaf, in the order of the leaves


@dataclass(frozen=True)
class Coordinates:
    """How the leaves of a part read in the textbooks."""

    names: tuple[str, ...]  # of the quantity behind each leaf; a property of the part
    rebuild: Callable[..., Any]  # the part from its quantities, unchecked: to be differentiated
    # Gradients in units in which one observation's is about 1, so that N bounds them.
    whiten: Callable[[Any, Arrays], Arrays]

    def read(self, part: Any) -> Arrays:
        """The quantities of a part."""
        return tuple(attrgetter(name)(part) for name in self.names)


def _logit(probs: Array) -> Array:
    return log(probs) - log(1 - probs)


def _factor(covariance: Array) -> Array:
    """Packed log-Cholesky factor; its gradient is symmetric like the covariance."""
    symmetric = 0.5 * (covariance + jnp.swapaxes(covariance, -1, -2))
    return cov.pack(cov.cholesky(symmetric))


def _whiten_mean(scale_tril: Array, gradient: Array) -> Array:
    return jnp.einsum("...ij,...i->...j", scale_tril, gradient, precision=PRECISION)


def whiten_matrix(scale_tril: Array, gradient: Array) -> Array:
    """Lᵀ G L: what multiplies L⁻¹ dΣ L⁻ᵀ."""
    return jnp.einsum(
        "...ji,...jk,...kl->...il", scale_tril, gradient, scale_tril, precision=PRECISION
    )


def _full(part: Any, gradients: Arrays) -> Arrays:
    factor = part.scale_tril
    return _whiten_mean(factor, gradients[0]), whiten_matrix(factor, gradients[1])


def _diagonal(part: Any, gradients: Arrays) -> Arrays:
    return part.variance**0.5 * gradients[0], part.variance * gradients[1]


def _spherical(part: Any, gradients: Arrays) -> Arrays:
    return part.variance[:, None] ** 0.5 * gradients[0], part.variance * gradients[1]


COORDINATES: dict[type, Coordinates] = {
    Categorical: Coordinates(
        ("probs",), PositiveTable, lambda part, gradients: (part.probs * gradients[0],)
    ),
    Bernoulli: Coordinates(
        ("probs",),
        lambda probs: Bernoulli(_logit(probs)),
        lambda part, gradients: (part.probs * (1 - part.probs) * gradients[0],),
    ),
    Poisson: Coordinates(
        ("rate",),
        lambda rate: Poisson(log(rate)),
        lambda part, gradients: (part.rate * gradients[0],),
    ),
    Gaussian: Coordinates(
        ("mean", "covariance"),
        lambda mean, covariance: Gaussian(mean, _factor(covariance)),
        _full,
    ),
    TiedGaussian: Coordinates(
        ("mean", "covariance"),
        lambda mean, covariance: TiedGaussian(mean, _factor(covariance)),
        _full,
    ),
    DiagonalGaussian: Coordinates(
        ("mean", "variance"),
        lambda mean, variance: DiagonalGaussian(mean, 0.5 * log(variance)),
        _diagonal,
    ),
    SphericalGaussian: Coordinates(
        ("mean", "variance"),
        lambda mean, variance: SphericalGaussian(mean, 0.5 * log(variance)),
        _spherical,
    ),
}


def leaves_of(part: Any) -> Coordinates:
    """The coordinates of a part that is not in the table: its leaves themselves.

    A part may name the quantity behind each leaf in `quantities`, {"logit": "theta"}: it is what
    `information` then reports.
    """
    structure = jax.tree.structure(part)
    return Coordinates(
        parameters.leaf_names(part),
        lambda *leaves: jax.tree.unflatten(structure, leaves),
        lambda part, gradients: gradients,
    )


def coordinates_of(part: Any) -> Coordinates:
    """The row of the table for this part, or its leaves."""
    row = COORDINATES.get(type(part))
    if row is None:
        return leaves_of(part)
    method = getattr(part, "method", None)
    if method is None:
        return row
    return replace(row, rebuild=lambda *values: replace(row.rebuild(*values), method=method))


def is_known(part: Any) -> bool:
    """Whether the table has a row for this part."""
    return type(part) in COORDINATES


def bounded(part: Any) -> dict[str, str]:
    """The leaves of a part that a covariance floor bounds, and what they are."""
    if not is_known(part):
        return {}
    named = zip(parameters.leaf_names(part), coordinates_of(part).names, strict=True)
    return {leaf: name for leaf, name in named if name in ("covariance", "variance")}


def floor_slack(name: str, quantity: np.ndarray, floor: float) -> np.ndarray:
    """How far each covariance lies above the floor, relative to itself: I − ε Σ⁻¹ and the like.

    Matrices, whitened by the Cholesky factor, for a "covariance"; 1 − ε / σ² for a "variance".
    """
    if name == "variance":
        return 1 - floor / np.asarray(quantity, float)
    whiten = np.linalg.inv(np.linalg.cholesky(np.asarray(quantity, float)))
    return np.eye(whiten.shape[-1]) - floor * np.einsum("...ij,...kj->...ik", whiten, whiten)


def floor_margin(name: str, quantity: np.ndarray, floor: float) -> np.ndarray:
    """The smallest slack of each covariance, [K] or [], or variance, [K, D] or [K]."""
    slack = floor_slack(name, quantity, floor)
    return np.linalg.eigvalsh(slack).min(-1) if name == "covariance" else slack


def condition(part: Any, values: Arrays) -> float:
    """How much rounding a part's densities magnify: the condition number of its correlations."""
    worst = 1.0
    for name, value in zip(coordinates_of(part).names, values, strict=True):
        if name == "covariance" and is_known(part):
            deviation = np.sqrt(np.diagonal(value, axis1=-2, axis2=-1))
            correlation = value / (deviation[..., :, None] * deviation[..., None, :])
            worst = max(worst, float(np.max(np.linalg.cond(correlation), initial=1)))
    return worst
