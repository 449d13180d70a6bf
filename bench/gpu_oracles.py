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


def ctc_oracle(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Losses [b] of sequences [b, T, V] with labels [b, L], blank 0, and their gradient."""
    log_probs = _log_softmax(logits)
    states = np.zeros((len(labels), 2 * labels.shape[1] + 1), int)
    states[:, 1::2] = labels
    arcs = np.take_along_axis(log_probs, states[:, None], 2)  # [b, T, S]
    skip = np.zeros(states.shape, bool)
    skip[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    start = np.arange(states.shape[1]) < 2
    alpha = _ctc_forward(arcs, skip, start)
    back = np.zeros_like(skip)  # of the reversed states, what two of them may be taken at once
    back[:, 2:] = skip[:, ::-1][:, :-2]
    beta = _ctc_forward(arcs[:, ::-1, ::-1], back, start)[:, ::-1, ::-1]
    log_z = np.logaddexp(alpha[:, -1, -1], alpha[:, -1, -2])
    occupancy = np.exp(alpha + beta - arcs - log_z[:, None, None])
    gradient = np.exp(log_probs)
    for row, here in enumerate(states):
        np.subtract.at(gradient[row].T, here, occupancy[row].T)
    return -log_z, gradient


def _ctc_forward(arcs: Any, skip: Any, start: Any) -> Any:
    """Log of the sum over all ways to each state, the state's own factor included."""
    alpha = np.full(arcs.shape, -np.inf)
    alpha[:, 0] = np.where(start, arcs[:, 0], -np.inf)
    padded = np.full((len(arcs), arcs.shape[2] + 2), -np.inf)
    for t in range(1, arcs.shape[1]):
        padded[:, 2:] = alpha[:, t - 1]
        two = np.where(skip, padded[:, :-2], -np.inf)
        alpha[:, t] = arcs[:, t] + np.logaddexp(np.logaddexp(padded[:, 2:], padded[:, 1:-1]), two)
    return alpha


def transducer_oracle(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Losses [b] of logits [b, T, U + 1, V] with labels [b, U], blank 0, and their gradient."""
    log_probs = _log_softmax(logits)
    blank = log_probs[..., 0]
    label = np.take_along_axis(log_probs[:, :, :-1], labels[:, None, :, None], 3)[..., 0]
    alpha, beta = np.full(blank.shape, -np.inf), np.full(blank.shape, -np.inf)
    frames, places = blank.shape[1:]
    for t in range(frames):
        for u in range(places):
            over = alpha[:, t - 1, u] + blank[:, t - 1, u] if t else 0.0 if u == 0 else -np.inf
            up = alpha[:, t, u - 1] + label[:, t, u - 1] if u else -np.inf
            alpha[:, t, u] = np.logaddexp(over, up)
    for t in reversed(range(frames)):
        for u in reversed(range(places)):
            last = 0.0 if u == places - 1 else -np.inf
            over = blank[:, t, u] + (beta[:, t + 1, u] if t + 1 < frames else last)
            up = beta[:, t, u + 1] + label[:, t, u] if u + 1 < places else -np.inf
            beta[:, t, u] = np.logaddexp(over, up)
    log_z = beta[:, 0, 0]
    emitted = np.exp(alpha[:, :, :-1] + label + beta[:, :, 1:] - log_z[:, None, None])
    visited = np.exp(alpha + beta - log_z[:, None, None])
    gradient = visited[..., None] * np.exp(log_probs)
    gradient[..., 0] -= visited - np.pad(emitted, ((0, 0), (0, 0), (0, 1)))
    for row, u in np.ndindex(*labels.shape):
        gradient[row, :, u, labels[row, u]] -= emitted[row, :, u]
    return -log_z, gradient


def _log_softmax(logits: Any) -> Any:
    away = logits - logits.max(-1, keepdims=True)
    return away - np.log(np.exp(away).sum(-1, keepdims=True))
