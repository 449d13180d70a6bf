"""What the tests of CTC and the transducer compare with: float64 NumPy, nothing of jaxem.

Every answer comes twice: from all paths of a small lattice, one by one, and from a plain dynamic
programme in log space.  Batches are padded; what lies beyond a length is never looked at.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from oracles import logsumexp

# What lies in a lattice: log-likelihood, and the expected use of states or of two kinds of arcs.
CtcRow = Callable[[np.ndarray, np.ndarray, int], tuple[float, np.ndarray]]
TransducerRow = Callable[[np.ndarray, np.ndarray, str], tuple[float, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Batch:
    """Padded input of a loss, as the library takes it."""

    logits: np.ndarray  # CTC [B, T, V], transducer [B, T, U+1, V]
    labels: np.ndarray  # [B, L]
    logit_lengths: np.ndarray  # [B]
    label_lengths: np.ndarray  # [B]

    @property
    def arguments(self) -> tuple[np.ndarray, ...]:
        """In the order of the library's functions."""
        return self.logits, self.labels, self.logit_lengths, self.label_lengths

    def row(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Logits and labels of one row, cut to their lengths, in float64."""
        frames, count = int(self.logit_lengths[i]), int(self.label_lengths[i])
        logits = self.logits[i, :frames].astype(float)
        return logits[:, : count + 1] if logits.ndim == 3 else logits, self.labels[i, :count]

    def inside(self) -> np.ndarray:
        """Which logits are no padding: a mask of their shape."""
        frames = np.arange(self.logits.shape[1]) < self.logit_lengths[:, None]
        if self.logits.ndim == 3:
            return np.broadcast_to(frames[:, :, None], self.logits.shape)
        nodes = np.arange(self.logits.shape[2]) <= self.label_lengths[:, None]
        both = frames[:, :, None, None] & nodes[:, None, :, None]
        return np.broadcast_to(both, self.logits.shape)

    def with_garbage(self) -> "Batch":
        """The same with NaN and infinities, and labels that are none, wherever padding is."""
        garbage = np.array([np.nan, np.inf, -np.inf])[np.arange(self.logits.shape[-1]) % 3]
        logits = np.where(self.inside(), self.logits, garbage.astype(self.logits.dtype))
        places = np.arange(self.labels.shape[1])
        nonsense = np.array([-1, 0, 10**6, -(10**9), 1])[places % 5]
        labels = np.where(places < self.label_lengths[:, None], self.labels, nonsense)
        return Batch(logits, labels, self.logit_lengths, self.label_lengths)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis."""
    logits = logits.astype(float)
    return logits - logsumexp(logits, -1)[..., None]


def random_labels(
    rng: np.random.Generator, shape: tuple[int, ...], vocabulary: int, blank: int
) -> np.ndarray:
    """Labels that are not the blank; half of them repeat the one before."""
    labels = (blank + 1 + rng.integers(0, vocabulary - 1, shape)) % vocabulary
    for place in range(1, shape[-1]):
        again = rng.random(shape[:-1]) < 0.5
        labels[..., place] = np.where(again, labels[..., place - 1], labels[..., place])
    return labels


def random_batch(
    seed: int, shape: tuple[int, ...], labels: int, *, blank: int, zeros: float, spread: float
) -> Batch:
    """Logits [B, T, V] or [B, T, U+1, V] of standard deviation `spread`, a share `zeros` -inf.

    Every node has at least one finite logit.  Lengths are anything from 0 to the full width.
    """
    rng = np.random.default_rng(seed)
    logits = spread * rng.standard_normal(shape)
    holes = rng.random(shape) < zeros
    np.put_along_axis(holes, rng.integers(0, shape[-1], (*shape[:-1], 1)), False, -1)
    return Batch(
        np.where(holes, -np.inf, logits),
        random_labels(rng, (shape[0], labels), shape[-1], blank),
        rng.integers(0, shape[1] + 1, shape[0]),
        rng.integers(0, labels + 1, shape[0]),
    )


# CTC: states are blank, y1, blank, y2, ..., blank


@cache
def frame_labellings(frames: int, vocabulary: int) -> np.ndarray:
    """All ways to give each frame a symbol; [V^T, T]."""
    return np.array([*itertools.product(range(vocabulary), repeat=frames)], int)


def ctc_paths(
    frames: int, vocabulary: int, labels: np.ndarray, blank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frame labellings [P, T] that say `labels` once repeats and blanks are out; their states."""
    paths = frame_labellings(frames, vocabulary)
    before = np.pad(paths, [(0, 0), (1, 0)], constant_values=blank)[:, :-1]
    new = (paths != blank) & (paths != before)
    said = np.cumsum(new, 1)
    padded = np.append(labels, -1)  # beyond the last label there is none to agree with
    agree = ~new | (paths == padded[np.minimum(said - 1, len(labels))])
    right = agree.all(1) & (new.sum(1) == len(labels))
    return paths[right], (2 * said - (paths != blank))[right]


def ctc_row_by_enumeration(
    log_probs: np.ndarray, labels: np.ndarray, blank: int
) -> tuple[float, np.ndarray]:
    """Log-likelihood and p(state of the frame | labels) [T, 2L+1] from every frame labelling."""
    frames, vocabulary = log_probs.shape
    paths, states = ctc_paths(frames, vocabulary, labels, blank)
    weights = log_probs[np.arange(frames), paths].sum(1)
    log_likelihood = float(logsumexp(weights, 0)) if len(weights) else -np.inf
    expected = np.zeros((frames, 2 * len(labels) + 1))
    if np.isfinite(log_likelihood):
        probs = np.exp(weights - log_likelihood)
        for t in range(frames):
            np.add.at(expected[t], states[:, t], probs)
    return log_likelihood, expected


def ctc_row_by_recursion(
    log_probs: np.ndarray, labels: np.ndarray, blank: int
) -> tuple[float, np.ndarray]:
    """The same from a forward and a backward pass over the states, in log space."""
    frames, states = len(log_probs), 2 * len(labels) + 1
    if frames == 0:
        return (0.0 if states == 1 else -np.inf), np.zeros((0, states))
    extended = np.full(states, blank)
    extended[1::2] = labels
    emission = log_probs[:, extended]
    skips = np.zeros(states, bool)
    skips[3::2] = labels[1:] != labels[:-1]
    alpha, beta = np.full((2, frames, states), -np.inf)
    alpha[0, :2] = emission[0, :2]
    beta[-1, -2:] = 0
    for t in range(1, frames):
        message = alpha[t - 1].copy()
        message[1:] = np.logaddexp(message[1:], alpha[t - 1, :-1])
        skipped = np.where(skips[2:], alpha[t - 1, :-2], -np.inf)
        message[2:] = np.logaddexp(message[2:], skipped)
        alpha[t] = message + emission[t]
    for t in range(frames - 2, -1, -1):
        onward = beta[t + 1] + emission[t + 1]
        message = onward.copy()
        message[:-1] = np.logaddexp(message[:-1], onward[1:])
        message[:-2] = np.logaddexp(message[:-2], np.where(skips[2:], onward[2:], -np.inf))
        beta[t] = message
    log_likelihood = float(logsumexp(alpha[-1, -2:], 0))
    if np.isneginf(log_likelihood):
        return log_likelihood, np.zeros((frames, states))
    # Dividing frame by frame keeps the digits that a log-likelihood of many thousands has lost.
    together = alpha + beta
    return log_likelihood, np.exp(together - logsumexp(together, 1)[:, None])


@dataclass(frozen=True)
class Ctc:
    """What follows from CTC's lattices by definition; 0 everywhere beyond the lengths."""

    log_likelihood: np.ndarray  # [B], -inf for infeasible labels
    states: np.ndarray  # [B, T, 2L+1], p(state of the frame | labels), all 0 if infeasible
    symbols: np.ndarray  # [B, T, V], p(symbol of the frame | labels): minus the gradient of the
    # loss with respect to log-probabilities
    gradient: np.ndarray  # [B, T, V], of the loss with respect to logits


def ctc(
    batch: Batch,
    *,
    blank: int = 0,
    normalise: bool = True,
    row: CtcRow = ctc_row_by_enumeration,
) -> Ctc:
    """Loss, posterior and derivatives of a batch; logits are log-softmaxed if `normalise`."""
    rows, frames, vocabulary = batch.logits.shape
    width = batch.labels.shape[1]
    log_likelihood = np.empty(rows)
    states = np.zeros((rows, frames, 2 * width + 1))
    symbols, gradient = np.zeros((2, rows, frames, vocabulary))
    for i in range(rows):
        logits, labels = batch.row(i)
        log_probs = log_softmax(logits) if normalise else logits
        log_likelihood[i], expected = row(log_probs, labels, blank)
        steps, count = expected.shape
        states[i, :steps, :count] = expected
        symbols[i, :steps, blank] = expected[:, ::2].sum(1)
        for place, label in enumerate(labels):
            symbols[i, :steps, label] += expected[:, 2 * place + 1]
        if np.isfinite(log_likelihood[i]):
            gradient[i, :steps] = np.exp(log_probs) - symbols[i, :steps]
    return Ctc(log_likelihood, states, symbols, gradient)


@dataclass(frozen=True)
class CtcBest:
    """The best frame labelling of each row, and how many there are."""

    score: np.ndarray  # [B], -inf if infeasible
    symbols: np.ndarray  # [B, T], -1 beyond the frames and if infeasible
    states: np.ndarray  # [B, T], likewise
    ties: np.ndarray  # [B], how many labellings are as good as the best
    count: np.ndarray  # [B], number of labellings, whatever their probability


def ctc_best(batch: Batch, *, blank: int = 0) -> CtcBest:
    """Of equally good labellings that whose states, from the last frame back, are furthest on."""
    rows, frames, vocabulary = batch.logits.shape
    score, ties, count = np.full(rows, -np.inf), np.zeros(rows, int), np.zeros(rows, int)
    symbols, states = np.full((2, rows, frames), -1)
    for i in range(rows):
        logits, labels = batch.row(i)
        paths, path_states = ctc_paths(len(logits), vocabulary, labels, blank)
        count[i] = len(paths)
        weights = log_softmax(logits)[np.arange(len(logits)), paths].sum(1)
        score[i] = weights.max(initial=-np.inf)
        if np.isneginf(score[i]):
            continue
        best = np.flatnonzero(weights > score[i] - 1e-9)
        ties[i] = len(best)
        winner = max(best, key=lambda p, s=path_states: tuple(s[p, ::-1]))
        symbols[i, : len(logits)], states[i, : len(logits)] = paths[winner], path_states[winner]
    return CtcBest(score, symbols, states, ties, count)


def ctc_best_score(log_probs: np.ndarray, labels: np.ndarray, blank: int = 0) -> float:
    """Log-probability of the best frame labelling, by recursion: for lattices of any size."""
    extended = np.full(2 * len(labels) + 1, blank)
    extended[1::2] = labels
    skips = np.zeros(len(extended), bool)
    skips[3::2] = labels[1:] != labels[:-1]
    best = np.where(np.arange(len(extended)) < 2, log_probs[0, extended], -np.inf)
    for frame in log_probs[1:]:
        before = np.pad(best, (2, 0), constant_values=-np.inf)
        one, two = before[1:-1], before[:-2]
        best = np.maximum(np.maximum(best, one), np.where(skips, two, -np.inf)) + frame[extended]
    return float(best[-2:].max())


# The transducer: a path is the frame in which each label is emitted


def transducer_paths(frames: int, labels: int, topology: str) -> np.ndarray:
    """Frames of emission [P, U] of every monotone path."""
    draw = {
        "regular": itertools.combinations_with_replacement,
        "modified": itertools.combinations,
    }[topology]
    paths = [*draw(range(frames), labels)]
    return np.array(paths, int).reshape(len(paths), labels)


def arcs_of_paths(paths: np.ndarray, frames: int, topology: str) -> tuple[np.ndarray, np.ndarray]:
    """For each path and frame the labels emitted before its blank, and whether there is one."""
    steps = np.arange(frames)[:, None]
    if topology == "regular":  # the blank ends the frame
        emitted = (paths[:, None] <= steps).sum(2)
        return emitted, np.ones(emitted.shape, bool)
    emitted = (paths[:, None] < steps).sum(2)
    return emitted, ~(paths[:, None] == steps).any(2)


def path_weights(
    paths: np.ndarray, log_blank: np.ndarray, log_label: np.ndarray, topology: str
) -> np.ndarray:
    """Log-probability of every path; [P]."""
    frames, nodes = log_blank.shape
    emitted, has_blank = arcs_of_paths(paths, frames, topology)
    blanks = np.where(has_blank, log_blank[np.arange(frames), emitted], 0).sum(1)
    return blanks + log_label[paths, np.arange(nodes - 1)].sum(1)


def transducer_row_by_enumeration(
    log_blank: np.ndarray, log_label: np.ndarray, topology: str
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood and expected uses of arcs, [T, U+1] and [T, U], from every path."""
    frames, nodes = log_blank.shape
    paths = transducer_paths(frames, nodes - 1, topology)
    weights = path_weights(paths, log_blank, log_label, topology)
    log_likelihood = float(logsumexp(weights, 0)) if len(paths) else -np.inf
    blank, label = np.zeros(log_blank.shape), np.zeros(log_label.shape)
    if np.isfinite(log_likelihood):
        probs = np.exp(weights - log_likelihood)
        emitted, has_blank = arcs_of_paths(paths, frames, topology)
        for t in range(frames):
            np.add.at(blank[t], emitted[:, t], np.where(has_blank[:, t], probs, 0))
        for u in range(nodes - 1):
            np.add.at(label[:, u], paths[:, u], probs)
    return log_likelihood, blank, label


def transducer_row_by_recursion(
    log_blank: np.ndarray, log_label: np.ndarray, topology: str
) -> tuple[float, np.ndarray, np.ndarray]:
    """The same from a forward and a backward pass over the nodes, in log space.

    `alpha[t, u]` and `beta[t, u]` belong to u labels emitted and t frames done.
    """
    frames, nodes = log_blank.shape
    stays = 1 if topology == "modified" else 0  # frames that a label takes
    alpha, beta = np.full((2, frames + 1, nodes), -np.inf)
    alpha[0, 0] = beta[frames, nodes - 1] = 0
    for t in range(frames + 1):
        if t > 0:
            alpha[t] = np.logaddexp(alpha[t], alpha[t - 1] + log_blank[t - 1])
        for u in range(1, nodes):
            if stays <= t < frames + stays:
                emit = alpha[t - stays, u - 1] + log_label[t - stays, u - 1]
                alpha[t, u] = np.logaddexp(alpha[t, u], emit)
    for t in range(frames - 1, -1, -1):
        beta[t] = np.logaddexp(beta[t], beta[t + 1] + log_blank[t])
        for u in range(nodes - 2, -1, -1):
            emit = beta[t + stays, u + 1] + log_label[t, u]
            beta[t, u] = np.logaddexp(beta[t, u], emit)
    log_likelihood = float(alpha[frames, nodes - 1])
    if np.isneginf(log_likelihood):
        return log_likelihood, np.zeros(log_blank.shape), np.zeros(log_label.shape)
    blank = alpha[:-1] + log_blank + beta[1:]
    onward = beta[stays : frames + stays, 1:]
    label = alpha[:-1, :-1] + log_label + onward
    return log_likelihood, np.exp(blank - log_likelihood), np.exp(label - log_likelihood)


@dataclass(frozen=True)
class Transducer:
    """What follows from the transducer's lattices by definition; 0 beyond the lengths."""

    log_likelihood: np.ndarray  # [B], -inf for infeasible labels
    blank: np.ndarray  # [B, T, U+1], expected uses of each blank arc
    label: np.ndarray  # [B, T, U], expected uses of each label arc
    gradient: np.ndarray  # [B, T, U+1, V], of the loss with respect to logits


def arcs_of_logits(
    logits: np.ndarray, labels: np.ndarray, blank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of blank [T, U+1] and label [T, U] arcs from logits [T, U+1, V]."""
    log_probs = log_softmax(logits)
    return log_probs[:, :, blank], log_probs[:, np.arange(len(labels)), labels]


def transducer(
    batch: Batch,
    *,
    blank: int = 0,
    topology: str = "regular",
    fast_emit: float = 0.0,
    row: TransducerRow = transducer_row_by_enumeration,
) -> Transducer:
    """Loss, posterior and gradient of a batch; FastEmit counts label arcs 1 + fast_emit times."""
    rows, frames, nodes, _ = batch.logits.shape
    log_likelihood, gradient = np.empty(rows), np.zeros(batch.logits.shape)
    blanks, emits = np.zeros((rows, frames, nodes)), np.zeros((rows, frames, nodes - 1))
    for i in range(rows):
        logits, labels = batch.row(i)
        arcs = arcs_of_logits(logits, labels, blank)
        log_likelihood[i], used_blank, used_label = row(*arcs, topology)
        steps, count = used_label.shape
        blanks[i, :steps, : count + 1], emits[i, :steps, :count] = used_blank, used_label
        occupancy = np.zeros(logits.shape)
        occupancy[:, :, blank] = used_blank
        occupancy[:, np.arange(count), labels] = (1 + fast_emit) * used_label
        probs = np.exp(log_softmax(logits))
        inner = probs * occupancy.sum(2, keepdims=True) - occupancy
        gradient[i, :steps, : count + 1] = inner
    return Transducer(log_likelihood, blanks, emits, gradient)


@dataclass(frozen=True)
class TransducerBest:
    """The best path of each row."""

    score: np.ndarray  # [B], -inf if infeasible
    frames: np.ndarray  # [B, U], the frame of each label; -1 beyond the labels and if infeasible
    ties: np.ndarray  # [B], how many paths are as good as the best


def transducer_best(batch: Batch, *, blank: int = 0, topology: str = "regular") -> TransducerBest:
    """Of equally good paths the one that emits the last label first, then the one before it, ..."""
    rows = len(batch.logits)
    score, ties = np.full(rows, -np.inf), np.zeros(rows, int)
    frames = np.full(batch.labels.shape, -1)
    for i in range(rows):
        logits, labels = batch.row(i)
        paths = transducer_paths(len(logits), len(labels), topology)
        weights = path_weights(paths, *arcs_of_logits(logits, labels, blank), topology)
        score[i] = weights.max(initial=-np.inf)
        if np.isneginf(score[i]):
            continue
        best = np.flatnonzero(weights > score[i] - 1e-9)
        ties[i] = len(best)
        winner = min(best, key=lambda p, f=paths: tuple(f[p, ::-1]))
        frames[i, : len(labels)] = paths[winner]
    return TransducerBest(score, frames, ties)
