"""What the tests compare with: float64 NumPy, enumeration, finite differences; nothing of jaxem.

Chains here always have a batch axis: initial [B, K], transition [B, T-1, K, K], emission [B, T, K],
lengths [B].  Padding may hold anything, NaN included.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Enumeration:
    """Every path of every chain, and what follows from their weights by definition.

    Paths are listed in the order of their last state, then of the one before it, and so on.  Beyond
    a sequence's end only state 0 is listed: a shorter sequence has fewer paths of weight above 0.
    """

    paths: np.ndarray  # [P, T]
    log_weights: np.ndarray  # [B, P]
    probs: np.ndarray  # [B, P], all 0 for an impossible chain
    log_normalizer: np.ndarray  # [B]
    emission: np.ndarray  # [B, T, K], p(z_t = k | x)
    transition: np.ndarray  # [B, T-1, K, K], p(z_t = i, z_t+1 = j | x)
    entropy: np.ndarray  # [B]

    @property
    def initial(self) -> np.ndarray:
        """p(z_1 = k | x); [B, K]."""
        return self.emission[:, 0]


def logsumexp(a: np.ndarray, axis: int) -> np.ndarray:
    """Log of the sum of exponentials; -inf for a slice of nothing but -inf."""
    peak = np.max(a, axis, keepdims=True)
    peak = np.where(np.isneginf(peak), 0, peak)
    with np.errstate(divide="ignore"):
        return np.log(np.sum(np.exp(a - peak), axis)) + np.squeeze(peak, axis)


def enumerate_paths(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: np.ndarray,
    lengths: np.ndarray,
) -> Enumeration:
    """All K^T paths of each chain."""
    batch, steps, states = emission.shape
    paths = np.arange(states**steps)[:, None] // states ** np.arange(steps) % states
    inside = np.arange(steps) < np.asarray(lengths)[:, None]
    emission = np.where(inside[:, :, None], emission.astype(float), 0)
    transition = np.where(inside[:, 1:, None, None], transition.astype(float), 0)
    initial = np.where(inside[:, :1], initial.astype(float), 0)
    step = np.arange(steps)
    log_weights = (
        initial[:, paths[:, 0]]
        + emission[:, step, paths].sum(-1)
        + transition[:, step[:-1], paths[:, :-1], paths[:, 1:]].sum(-1)
    )
    listed = np.all(inside[:, None] | (paths == 0), -1)
    log_weights = np.where(listed, log_weights, -np.inf)
    log_normalizer = logsumexp(log_weights, 1)
    shift = np.where(np.isneginf(log_normalizer), 0, log_normalizer)[:, None]
    probs = np.exp(log_weights - shift)
    one_hot = np.eye(states)[paths]  # [P, T, K]
    pairs = one_hot[:, :-1, :, None] * one_hot[:, 1:, None, :]
    return Enumeration(
        paths,
        log_weights,
        probs,
        log_normalizer,
        np.tensordot(probs, one_hot, 1) * inside[:, :, None],
        np.tensordot(probs, pairs, 1) * inside[:, 1:, None, None],
        -np.sum(probs * (np.where(probs > 0, log_weights, 0) - shift), 1),
    )


def enumerate_filter(
    initial: np.ndarray, transition: np.ndarray, emission: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """p(z_t | x_1..t) and p(z_t | x_1..t-1) by enumeration of every beginning; both [B, T, K]."""
    filtered, predicted = np.zeros(emission.shape), np.zeros(emission.shape)
    for t in range(emission.shape[1]):
        beginning = np.where(np.asarray(lengths) > t, t + 1, 0)
        unseen = emission.astype(float).copy()
        unseen[:, t] = 0
        for probs, seen in [(filtered, emission), (predicted, unseen)]:
            part = enumerate_paths(initial, transition, seen, beginning)
            probs[:, t] = part.emission[:, t]
    return filtered, predicted


def forward_backward(
    initial: np.ndarray, transition: np.ndarray, emission: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-normaliser, p(z_t | x) [T, K] and expected moves [K, K] of one possible chain.

    `transition` is [K, K] or [T-1, K, K].  By logarithms: nothing underflows, however small.
    """
    steps, states = emission.shape
    emission, initial = emission.astype(float), initial.astype(float)
    moves = np.broadcast_to(transition.astype(float), (steps - 1, states, states))
    alpha, beta = np.empty((steps, states)), np.zeros((steps, states))
    totals = np.zeros(steps)
    message = initial + emission[0]
    for t in range(
        steps
    ):  # every message has log-sum 0, to be far from nothing and keep its digits
        if t > 0:
            message = logsumexp(message[:, None] + moves[t - 1], 0) + emission[t]
        totals[t] = logsumexp(message, 0)
        message = alpha[t] = message - totals[t]
    for t in range(steps - 2, -1, -1):
        message = logsumexp(moves[t] + emission[t + 1] + beta[t + 1], 1)
        beta[t] = message - logsumexp(message, 0)
    log_states = alpha + beta
    pairs = alpha[:-1, :, None] + moves + (emission[1:] + beta[1:])[:, None, :]
    flat = pairs.reshape(steps - 1, -1)
    return (
        float(totals.sum()),
        np.exp(log_states - logsumexp(log_states, 1)[:, None]),
        np.exp(flat - logsumexp(flat, 1)[:, None]).sum(0).reshape(states, states),
    )


def scaled_forward_backward(
    initial: np.ndarray, transition: np.ndarray, emission: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `forward_backward`, for long well-behaved chains in a batch: [B], [B, T, K], [B, K, K]."""
    batch, steps, states = emission.shape
    peak = emission.astype(float).max(2, keepdims=True)
    factor = np.exp(emission - peak)
    moves, start = np.exp(transition.astype(float)), np.exp(initial.astype(float))
    alpha, beta = np.empty(factor.shape), np.ones(factor.shape)
    totals = np.empty((batch, steps))
    message = start
    for t in range(steps):
        message = (message if t == 0 else message @ moves) * factor[:, t]
        totals[:, t] = message.sum(1)
        message = message / totals[:, t, None]
        alpha[:, t] = message
    message = beta[:, -1]
    for t in range(steps - 2, -1, -1):
        message = (message * factor[:, t + 1]) @ moves.T / totals[:, t + 1, None]
        beta[:, t] = message
    onward = factor[:, 1:] * beta[:, 1:] / totals[:, 1:, None]
    return (
        (np.log(totals) + peak[:, :, 0]).sum(1),
        alpha * beta,
        moves * np.einsum("bti,btj->bij", alpha[:, :-1], onward),
    )


def blocked_log_normalizer(
    initial: np.ndarray, transition: np.ndarray, emission: np.ndarray, blocks: int
) -> float:
    """Log-normaliser of one very long chain, by transfer matrices of `blocks` stretches of it."""
    steps, states = emission.shape
    factor = emission.astype(float).copy()
    factor[0] += initial
    peak = factor.max(1, keepdims=True)
    factor = np.exp(factor - peak).reshape(blocks, steps // blocks, states)
    moves = np.exp(transition.astype(float))
    matrix = np.broadcast_to(np.eye(states), (blocks, states, states))
    logs = np.zeros((blocks, steps // blocks))
    for t in range(steps // blocks):
        matrix = np.where((t > 0) | (np.arange(blocks) > 0)[:, None, None], matrix @ moves, matrix)
        matrix = matrix * factor[:, t, None, :]
        size = matrix.sum((1, 2), keepdims=True)
        matrix, logs[:, t] = matrix / size, np.log(size[:, 0, 0])
    message, total = np.ones(states), 0.0
    for block in matrix:
        message = message @ block
        total += np.log(message.sum())
        message = message / message.sum()
    return float(logs.sum() + peak.sum() + total)


def central_differences(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float
) -> np.ndarray:
    """Derivative [n, M] by each of x [n]; `function` maps a batch [B, n] to [B, M]."""
    moves = step * np.eye(len(x))
    values = np.asarray(function(np.concatenate([x + moves, x - moves])))
    return (values[: len(x)] - values[len(x) :]) / (2 * step)


def random_chains(
    rng: np.random.Generator, batch: int, steps: int, states: int, *, zeros: float, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-potentials of standard deviation `spread`, of which a share `zeros` is -inf."""

    def draw(*shape: int) -> np.ndarray:
        values = spread * rng.standard_normal(shape)
        return np.where(rng.random(shape) < zeros, -np.inf, values)

    return draw(batch, states), draw(batch, steps - 1, states, states), draw(batch, steps, states)
