"""What `bench.gpu` checks jaxem with: plain NumPy in float64, nothing of jaxem or JAX."""

import math
from typing import Any

import numpy as np

from bench.agreement import log_densities

SUBSAMPLE = 10_000  # rows, or steps, that are looked at where all would take too long
BLOCK = 1000  # steps over which transfer matrices are multiplied, for all blocks at once


def em_step(x: Any, means: Any) -> tuple[dict[str, Any], Any]:
    """Parameters after one step from equal weights and unit covariances, and log p(x_n)."""
    members, size = means.shape
    log_joint = log_densities(x, means, np.ones_like(means)) - math.log(members)
    each = np.logaddexp.reduce(log_joint, 1)
    r = np.exp(log_joint - each[:, None])
    counts = r.sum(0)
    centre = r.T @ x / counts[:, None]
    covariances = np.empty((members, size, size))
    for k in range(members):
        away = x - centre[k]
        covariances[k] = (r[:, k, None] * away).T @ away / counts[k]
    return {"weights": counts / len(x), "means": centre, "covariances": covariances}, each


def chain_oracle(emission: Any, moves: Any) -> tuple[Any, Any]:
    """Log-normalisers [b] of chains [b, T, K], and p(z_t | x) of the first steps.

    The chains start uniformly.  More than one must be short enough to be looked at whole.
    """
    first = emission[:, : 2 * SUBSAMPLE]
    log_z, gamma = _smoother(first, moves)
    if first.shape[1] < emission.shape[1]:  # what follows a long way on does not reach back
        return _log_normalizer(emission[0], moves)[None], gamma[:, :SUBSAMPLE]
    return log_z, gamma


def _smoother(emission: Any, moves: Any) -> tuple[Any, Any]:
    """Forward and backward by rescaled probabilities, all chains [b, T, K] at once."""
    peak = emission.max(2, keepdims=True).astype(float)
    factor = np.exp(emission - peak)
    alpha, beta = np.empty_like(factor), np.ones_like(factor)
    log_z = peak.sum((1, 2)) - math.log(len(moves))
    for t in range(factor.shape[1]):
        alpha[:, t] = factor[:, t] if t == 0 else alpha[:, t - 1] @ moves * factor[:, t]
        total = alpha[:, t].sum(1)
        alpha[:, t] /= total[:, None]
        log_z += np.log(total)
    for t in reversed(range(factor.shape[1] - 1)):
        beta[:, t] = (factor[:, t + 1] * beta[:, t + 1]) @ moves.T
        beta[:, t] /= beta[:, t].sum(1, keepdims=True)
    gamma = alpha * beta
    return log_z, gamma / gamma.sum(2, keepdims=True)


def _log_normalizer(emission: Any, moves: Any) -> Any:
    """Of one long chain [T, K]: transfer matrices of all blocks at once, then one after another."""
    states, whole = len(moves), (len(emission) - 1) // BLOCK * BLOCK
    head, tail = emission[: len(emission) - whole], emission[len(emission) - whole :]
    peak = tail.max(1, keepdims=True)
    factor = np.exp(tail.astype(float) - peak).reshape(-1, BLOCK, 1, states)
    matrix = np.broadcast_to(np.eye(states), (len(factor), states, states))
    log_z = np.sum(peak, dtype=float) - math.log(states)
    for t in range(BLOCK):
        matrix = matrix @ moves * factor[:, t]
        total = matrix.sum((1, 2), keepdims=True)
        matrix = matrix / total
        log_z += np.log(total).sum()
    message = np.ones(states)
    for t, row in enumerate(head.astype(float)):
        message = (message @ moves if t else message) * np.exp(row)
        log_z += math.log(message.sum())
        message /= message.sum()
    for block in matrix:
        message = message @ block
        log_z += math.log(message.sum())
        message /= message.sum()
    return log_z
