"""The most probable labelling, exactly."""

from heapq import heappop, heappush
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxem.targets import check_blank


def prefix_search(logits: Float[Any, "T V"], *, blank: int = 0) -> tuple[list[int], float]:
    """The most probable labelling of one sequence, and its log-probability.

    Exact, and for small problems: prefixes are extended by every label, that one first of which all
    longer labellings together are most probable, until no such sum exceeds the best labelling.
    With confident logits that is soon; the worst case is exponential in T.  Each of those steps
    takes O(T V).  Of equal labellings any may be returned.  A frame of nothing but -inf leaves no
    labelling: [] and -inf.

    Runs on the host in NumPy's double precision and cannot be traced.

    Graves et al. (2006) §3.2, "prefix search decoding", without its heuristic of cutting the
    sequence at confident blanks.

    Raises:
        ValueError: logits that are not [T, V], NaN or +inf among them, a `blank` outside the
            vocabulary.

    Examples:
        >>> import numpy as np, jaxem
        >>> labels, log_prob = jaxem.ctc.prefix_search(np.log([[0.6, 0.4], [0.6, 0.4]]))
        >>> labels, round(float(np.exp(log_prob)), 2)
        ([1], 0.64)
    """
    if np.ndim(logits) != 2:
        raise ValueError(f"logits must be [T, V], one sequence, got shape {np.shape(logits)}.")
    log_probs = _log_softmax(np.asarray(logits, float))
    check_blank(blank, log_probs.shape[1])
    # What the alignments of a prefix that end with a blank, and with its last label, add up to,
    # before the first frame and after each.
    log_blank = np.concatenate([[0.0], np.cumsum(log_probs[:, blank])])
    best, log_best = [], float(log_blank[-1])
    queue: list[Any] = [(-0.0, [], log_blank, np.full_like(log_blank, -np.inf))]
    while queue and -queue[0][0] > log_best:
        _, prefix, log_blank, log_label = heappop(queue)
        log_blank, log_label, log_begin = _children(
            log_probs, blank, prefix[-1:], log_blank, log_label
        )
        log_end = np.logaddexp(log_blank[-1], log_label[-1])
        if log_end.max() > log_best:
            best, log_best = [*prefix, int(log_end.argmax())], float(log_end.max())
        log_beyond = _log_difference(log_begin, log_end)
        for label in np.flatnonzero(log_beyond > log_best):
            ends = log_blank[:, label].copy(), log_label[:, label].copy()
            heappush(queue, (-log_beyond[label], [*prefix, int(label)], *ends))
    return best, log_best


def _children(
    log_probs: Float[np.ndarray, "T V"],
    blank: int,
    last: list[int],
    log_blank: Float[np.ndarray, " T+1"],
    log_label: Float[np.ndarray, " T+1"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A prefix followed by each symbol: its forward variables [T + 1, V], and what all labellings
    that begin with it add up to [V]; never the blank.
    """
    T, V = log_probs.shape
    before = np.repeat(np.logaddexp(log_blank, log_label)[:-1, None], V, 1)
    before[:, last] = log_blank[:-1, None]
    before[:, blank] = -np.inf
    begin = before + log_probs
    with_blank, with_label = np.full((2, T + 1, V), -np.inf)
    for t in range(T):
        with_blank[t + 1] = np.logaddexp(with_blank[t], with_label[t]) + log_probs[t, blank]
        with_label[t + 1] = np.logaddexp(with_label[t] + log_probs[t], begin[t])
    return with_blank, with_label, np.logaddexp.reduce(begin, 0, initial=-np.inf)


def _log_difference(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """log(exp(whole) − exp(part)) of a part that is no more than the whole but for rounding."""
    some = whole > part
    log_ratio = np.where(some, part, -1) - np.where(some, whole, 0)
    return np.where(some, whole + np.log(-np.expm1(log_ratio)), -np.inf)


def _log_softmax(logits: Float[np.ndarray, "T V"]) -> Float[np.ndarray, "T V"]:
    for frame, symbol in np.argwhere(np.isnan(logits) | np.isposinf(logits))[:1]:
        raise ValueError(
            f"logits[{frame}, {symbol}] is {logits[frame, symbol]}; logits must be finite or -inf."
        )
    total = np.logaddexp.reduce(logits, 1, keepdims=True)
    return logits - np.where(np.isneginf(total), 0, total)
