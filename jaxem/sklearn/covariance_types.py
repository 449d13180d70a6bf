"""Covariance types by name, and their arrays as Gaussian families and back, on the host."""

from typing import Any

import numpy as np

from jaxem.families import DiagonalGaussian, Gaussian, SphericalGaussian, TiedGaussian

FAMILIES = {
    "full": Gaussian,
    "tied": TiedGaussian,
    "diag": DiagonalGaussian,
    "spherical": SphericalGaussian,
}
SMALL = 2**20  # products of a row's features in an E-step, up to which compiling takes longer


def shape_of(covariance_type: str, num_members: int, num_features: int) -> tuple[int, ...]:
    """The shape of the covariances of this type."""
    return {
        "full": (num_members, num_features, num_features),
        "tied": (num_features, num_features),
        "diag": (num_members, num_features),
        "spherical": (num_members,),
    }[covariance_type]


def num_covariance_parameters(covariance_type: str, num_members: int, num_features: int) -> int:
    """How many numbers covariances of this type are free to take."""
    triangle = num_features * (num_features + 1) // 2
    return {
        "full": num_members * triangle,
        "tied": triangle,
        "diag": num_members * num_features,
        "spherical": num_members,
    }[covariance_type]


def family_of(covariance_type: str, means: np.ndarray, factor: np.ndarray, num_rows: int) -> Any:
    """The Gaussian family with these means [K, D] and factors, see `factor_of`.

    For few rows it is taken about each member's own mean: one program to compile instead of two.
    """
    leaf = np.log(factor) if covariance_type in ("diag", "spherical") else _packed(factor)
    small = num_rows * means.shape[0] * means.shape[1] ** 2 <= SMALL
    return FAMILIES[covariance_type](means, leaf, "centred" if small else None)


def factor_of_family(family: Any) -> np.ndarray:
    """The factors of a family of any type."""
    if not hasattr(family, "log_cholesky"):
        return np.exp(np.asarray(family.log_scale))
    packed = np.asarray(family.log_cholesky)
    size = family.mean.shape[1]
    rows, columns = np.tril_indices(size)
    factor = np.zeros((*packed.shape[:-1], size, size), packed.dtype)
    factor[..., rows, columns] = np.where(
        rows == columns, np.exp(np.where(rows == columns, packed, 0)), packed
    )
    return factor


def _packed(factor: np.ndarray) -> np.ndarray:
    rows, columns = np.tril_indices(factor.shape[-1])
    entries = factor[..., rows, columns]
    return np.where(rows == columns, np.log(np.where(rows == columns, entries, 1)), entries)


def factor_of(covariance_type: str, covariances: np.ndarray) -> np.ndarray:
    """Lower triangular factors of covariances; standard deviations of variances.

    Raises:
        LinAlgError: they are not positive definite.
    """
    if covariance_type in ("full", "tied"):
        return np.linalg.cholesky(covariances)
    if not np.all(covariances > 0):  # NaN is not
        raise np.linalg.LinAlgError("a variance is not positive")
    return np.sqrt(covariances)


def covariances_of(covariance_type: str, factor: np.ndarray) -> np.ndarray:
    """The covariances that these are the factors of."""
    if covariance_type in ("full", "tied"):
        return factor @ np.swapaxes(factor, -1, -2)
    return factor**2


def precision_factor_of(covariance_type: str, factor: np.ndarray) -> np.ndarray:
    """The upper triangular U with Σ⁻¹ = U Uᵀ, of a lower triangular factor of Σ."""
    if covariance_type in ("diag", "spherical"):
        return 1 / factor
    return np.triu(_inverse_transposed(factor))


def factor_of_precision_factor(covariance_type: str, upper: np.ndarray) -> np.ndarray:
    """The inverse of `precision_factor_of`."""
    if covariance_type in ("diag", "spherical"):
        return 1 / upper
    return np.tril(_inverse_transposed(upper))


def _inverse_transposed(factor: np.ndarray) -> np.ndarray:
    identity = np.broadcast_to(np.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return np.swapaxes(np.linalg.solve(factor, identity), -1, -2)


def factor_of_precisions(covariance_type: str, precisions: np.ndarray) -> np.ndarray:
    """Factors of the covariances whose inverses these are."""
    if covariance_type in ("diag", "spherical"):
        return 1 / np.sqrt(precisions)
    # Backwards, the lower triangular factor of a matrix is the upper triangular one.
    backwards = np.linalg.cholesky(precisions[..., ::-1, ::-1])[..., ::-1, ::-1]
    return factor_of_precision_factor(covariance_type, backwards)


def weighted_moments(
    x: np.ndarray, responsibilities: np.ndarray, covariance_type: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts [K], means [K, D] and covariances of rows shared among K members.

    A member without rows has the mean and the covariance of all.
    """
    counts = responsibilities.sum(0)
    shares = np.where(counts > 0, responsibilities, 1.0).astype(x.dtype)
    weights = np.where(counts > 0, counts, len(x)).astype(x.dtype)
    means = shares.T @ x / weights[:, None]
    scatter = np.stack(
        [
            _scatter(x - mean, share, covariance_type)
            for mean, share in zip(means, shares.T, strict=True)
        ]
    )
    if covariance_type == "tied":
        own = counts > 0
        return counts, means, scatter[own].sum(0) / counts.sum()
    return counts, means, scatter / weights.reshape(-1, *[1] * (scatter.ndim - 1))


def _scatter(away: np.ndarray, share: np.ndarray, covariance_type: str) -> np.ndarray:
    if covariance_type in ("full", "tied"):
        return (share * away.T) @ away
    squares = share @ away**2
    return squares if covariance_type == "diag" else squares.mean()


def add_to_diagonal(covariance_type: str, covariances: np.ndarray, value: float) -> np.ndarray:
    """The covariances with `value` added to every variance."""
    if covariance_type in ("full", "tied"):
        return covariances + value * np.eye(covariances.shape[-1], dtype=covariances.dtype)
    return covariances + np.asarray(value, covariances.dtype)
