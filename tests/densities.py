"""What the families and models are compared with: their formulas in float64 NumPy.

Nothing of jaxem is imported, and nothing is shared with its way of computing: covariances are
inverted, recursions run over probabilities row by row.
"""

from math import lgamma
from typing import Any

import numpy as np
from oracles import logsumexp


def _log(probs: Any) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(probs, float))


def _as_columns(x: Any) -> np.ndarray:
    return np.asarray(x, float).reshape(len(x), -1)


def categorical(family: Any, x: np.ndarray) -> np.ndarray:
    """Log-probabilities [N, K] of symbols [N], or of rows [N, D] of them."""
    table = log_probs(family)
    table = table.reshape(len(table), -1, table.shape[-1])  # [K, D, V]
    columns = x.reshape(len(x), -1).T
    return np.sum([table[:, d, column].T for d, column in enumerate(columns)], 0)


def log_probs(table: Any) -> np.ndarray:
    """Normalised logits of a table of probabilities."""
    logits = np.asarray(table.logits, float)
    return logits - logsumexp(logits, -1)[..., None]


def bernoulli(family: Any, x: np.ndarray) -> np.ndarray:
    """Log-probabilities [N, K] of rows of zeros and ones."""
    with np.errstate(over="ignore"):
        probs = 1 / (1 + np.exp(-_as_columns(family.logits)))
    ones = _as_columns(x)[:, None]
    return np.sum(np.where(ones == 1, _log(probs), _log(1 - probs)), -1)


def poisson(family: Any, x: np.ndarray) -> np.ndarray:
    """Log-probabilities [N, K] of counts."""
    rate, counts = np.exp(_as_columns(family.log_rate)), _as_columns(x)[:, None]
    base = np.vectorize(lgamma)(counts + 1)
    terms = np.where(counts == 0, 0, counts * np.where(counts == 0, 0, _log(rate)))
    return np.sum(terms - rate - base, -1)


def gaussian(family: Any, x: np.ndarray) -> np.ndarray:
    """Log-densities [N, K] under any of the Gaussian families."""
    mean, covariance = moments(family)
    away = _as_columns(x)[:, None] - mean
    distance = np.einsum("nki,kij,nkj->nk", away, np.linalg.inv(covariance), away)
    return -0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])


def moments(family: Any) -> tuple[np.ndarray, np.ndarray]:
    """Means [K, D] and covariances [K, D, D] from the leaves of a Gaussian family."""
    mean = np.asarray(family.mean, float)
    members, size = mean.shape
    if hasattr(family, "log_scale"):
        variance = np.exp(2 * np.asarray(family.log_scale, float)).reshape(members, -1)
        return mean, variance[:, :, None] * np.eye(size)
    packed = np.asarray(family.log_cholesky, float)
    packed = np.broadcast_to(packed, (members, packed.shape[-1]))
    factor = np.zeros((members, size, size))
    factor[:, *np.tril_indices(size)] = packed
    diagonal = np.arange(size)
    factor[:, diagonal, diagonal] = np.exp(factor[:, diagonal, diagonal])
    return mean, factor @ factor.transpose(0, 2, 1)


def mixture_of(inner: Any) -> Any:
    """The log-density of a family whose members are mixtures over `inner`."""

    def log_density(family: Any, x: np.ndarray) -> np.ndarray:
        log_weights = log_probs(family.weights)
        each = inner(family.components, x).reshape(len(x), *log_weights.shape)
        return logsumexp(log_weights + each, -1)

    return log_density


def expected(log_density: Any) -> Any:
    """Q as a function (self, candidate, x, r): Σ r log p(x | candidate)."""
    return lambda _, candidate, x, r: float(np.sum(r * log_density(candidate, x)))


def mixture_of_expected(inner: Any) -> Any:
    """Q over both latent variables, the inner one given by its posterior under `self`."""

    def joint(family: Any, x: np.ndarray) -> np.ndarray:
        log_weights = log_probs(family.weights)
        return log_weights + inner(family.components, x).reshape(len(x), *log_weights.shape)

    def expected(family: Any, candidate: Any, x: np.ndarray, r: np.ndarray) -> float:
        log_joint = joint(family, x)
        share = np.exp(log_joint - logsumexp(log_joint, -1)[..., None])
        return float(np.sum(r[..., None] * share * joint(candidate, x)))

    return expected


def categorical_log_prior(family: Any, prior: Any) -> float:
    """Σ pretend symbols · log p."""
    return float(np.sum(prior.symbols * log_probs(family)))


def bernoulli_log_prior(family: Any, prior: Any) -> float:
    """Σ pretend ones · log p + pretend zeros · log(1 − p)."""
    logits = np.asarray(family.logits, float)
    ones, zeros = -np.log1p(np.exp(-logits)), -np.log1p(np.exp(logits))
    return float(np.sum(prior.successes * ones + prior.failures * zeros))


def poisson_log_prior(family: Any, prior: Any) -> float:
    """Σ pretend events · log λ − pretend observations · λ."""
    log_rate = np.asarray(family.log_rate, float)
    return float(np.sum(prior.events * log_rate - prior.exposure * np.exp(log_rate)))


def gaussian_log_prior(family: Any, prior: Any) -> float:
    """Normal-inverse-Wishart without its Jacobian; a shared covariance has the scatter once."""
    mean, covariance = moments(family)
    tied = np.ndim(getattr(family, "log_cholesky", mean)) == 1
    precision = np.linalg.inv(covariance)
    away = prior.mean - mean
    of_mean = prior.mean_weight * np.einsum("ki,kij,kj->", away, precision, away)
    of_scatter = np.einsum("kij,ji->k", precision, np.asarray(prior.scatter, float))
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    per_member = -0.5 * (prior.scatter_weight * log_det + of_scatter)
    return float((per_member[0] if tied else np.sum(per_member)) - 0.5 * of_mean)


def mixture_of_log_prior(inner: Any) -> Any:
    """The log-prior of a family whose members are mixtures over `inner`."""

    def log_prior(family: Any, prior: Any) -> float:
        own = np.sum(prior.inner_weights * log_probs(family.weights))
        return float(own + inner(family.components, prior))

    return log_prior


def mixture_log_likelihoods(log_weights: np.ndarray, each: np.ndarray) -> np.ndarray:
    """log p(x_n) [N] from log-weights [K] and log-densities [N, K]."""
    return logsumexp(log_weights + each, -1)


def hmm_log_likelihood(initial: np.ndarray, transition: np.ndarray, each: np.ndarray) -> float:
    """log p(x) of one sequence from probabilities [K], [K, K] or [T-1, K, K], and log-densities."""
    total, state = 0.0, initial
    for step, log_density in enumerate(each):
        if step > 0:
            state = state @ (transition if transition.ndim == 2 else transition[step - 1])
        peak = np.max(log_density)
        joint = state * np.exp(log_density - peak)
        total += np.log(joint.sum()) + peak
        state = joint / joint.sum()
    return float(total)


def stationary(transition: np.ndarray) -> np.ndarray:
    """The left eigenvector of eigenvalue 1, normalised."""
    values, vectors = np.linalg.eig(transition.T)
    vector = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    return vector / vector.sum()


def gaussian_em_step(
    weights: np.ndarray, mean: np.ndarray, covariance: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and full covariances after one EM step of a Gaussian mixture."""
    away = x[:, None] - mean
    distance = np.einsum("nki,kij,nkj->nk", away, np.linalg.inv(covariance), away)
    log_joint = np.log(weights) - 0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])
    r = np.exp(log_joint - logsumexp(log_joint, 1)[:, None])
    count = r.sum(0)
    mean = r.T @ x / count[:, None]
    away = x[:, None] - mean
    return count / len(x), mean, np.einsum("nk,nki,nkj->kij", r, away, away) / count[:, None, None]
