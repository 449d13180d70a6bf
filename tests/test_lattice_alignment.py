"""Best alignments of CTC and the transducer, and how many there are, against enumeration."""

import math
from typing import Any

import jax
import lattice_oracles as oracles
import numpy as np
import pytest

from jaxem import ctc, transducer

B = 64
CTC_SHAPE, LABELS = (B, 5, 4), 3
TRANSDUCER_SHAPE = (B, 4, LABELS + 1, 4)
TOPOLOGIES = ["regular", "modified"]


def hastily(function: Any, options: tuple[str, ...]) -> Any:
    """Compiled once a shape and dtype, in little time."""
    return jax.jit(
        function,
        static_argnames=options,
        compiler_options={"xla_backend_optimization_level": 0},
    )


CTC_ALIGN = hastily(ctc.align, ("blank",))
TRANSDUCER_ALIGN = hastily(transducer.align, ("blank", "topology"))


def random_batch(shape: tuple[int, ...], dtype: Any, *, blank: int, tied: bool) -> oracles.Batch:
    """A batch of all lengths with garbage in its padding.

    If tied, all possible symbols of a node are equally likely, and all nodes have as many.
    """
    batch = oracles.random_batch(blank, shape, LABELS, blank=blank, zeros=0.15, spread=2.0)
    logits = batch.logits
    if tied:
        rng = np.random.default_rng(3)
        forbidden = rng.integers(0, shape[-1], (*shape[:-1], 1))
        logits = np.where(np.arange(shape[-1]) == forbidden, -np.inf, 0.0)
    logits = logits.astype(dtype)
    rest = (batch.labels, batch.logit_lengths, batch.label_lengths)
    return oracles.Batch(logits, *rest).with_garbage()


def room(dtype: Any) -> dict[str, float]:
    """For rounding in a sum of a few log-probabilities."""
    return {"rtol": 50 * float(np.finfo(dtype).eps), "atol": 50 * float(np.finfo(dtype).eps)}


# CTC


def spans(states: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last frame of each label [B, L] of a path of states [B, T]; -1 if it has none."""
    here = states[:, :, None] == 2 * np.arange(labels) + 1
    first = np.where(here.any(1), here.argmax(1), -1)
    last = np.where(here.any(1), states.shape[1] - 1 - here[:, ::-1].argmax(1), -1)
    return first, last


def mean_probability(batch: oracles.Batch, best: oracles.CtcBest) -> np.ndarray:
    """Of each label [B, L] over the frames of its span; 0 if it has none."""
    mean = np.zeros(batch.labels.shape)
    for row, place in np.argwhere(np.ones(mean.shape, bool)):
        frames = np.flatnonzero(best.states[row] == 2 * place + 1)
        if len(frames):
            probs = np.exp(oracles.log_softmax(batch.logits[row, frames]))
            mean[row, place] = probs[:, batch.labels[row, place]].mean()
    return mean


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
def test_ctc_alignment_is_the_best_of_all(dtype: Any, tied: bool) -> None:
    """Of equally good ones that whose state, from the last frame back, is furthest on."""
    for blank in [0, 2]:
        batch = random_batch(CTC_SHAPE, dtype, blank=blank, tied=tied)
        best = oracles.ctc_best(batch, blank=blank)
        got = CTC_ALIGN(*batch.arguments, blank=blank)
        assert np.isneginf(best.score).any() and np.isfinite(best.score).mean() > 0.4
        assert (best.ties > 1).any() == tied
        assert got.score.dtype == dtype
        np.testing.assert_allclose(got.score, best.score, **room(dtype))
        np.testing.assert_array_equal(got.states, best.states)
        np.testing.assert_array_equal(got.path, best.symbols)
        first, last = spans(best.states, LABELS)
        np.testing.assert_array_equal(got.first, first)
        np.testing.assert_array_equal(got.last, last)


def test_forced_alignment_of_a_published_tie() -> None:
    frames = np.array([[[0, -1, -3], [-1, -2, -2], [-2, 0, 0]]], np.float32)
    got = ctc.align(frames, np.array([[1, 2]]))
    lost = np.log(np.exp(frames).sum(-1)).sum()
    np.testing.assert_allclose(got.score + lost, -2, rtol=1e-6)
    assert got.path.tolist() in ([[1, 0, 2]], [[0, 1, 2]])


def test_ctc_alignment_of_a_long_row_is_where_the_labels_are() -> None:
    rng = np.random.default_rng(0)
    frames, width = 3000, 200
    labels = oracles.random_labels(rng, (1, width), 8, 0)
    starts = 15 * np.arange(width) + rng.integers(1, 8, width)
    states = np.zeros(frames, int)
    logits = 0.1 * rng.standard_normal((1, frames, 8)).astype(np.float32)
    symbols = np.zeros(frames, int)
    for place, start in enumerate(starts):
        length = rng.integers(1, 5)
        states[start : start + length] = 2 * place + 1
        states[start + length :] = 2 * place + 2
        symbols[start : start + length] = labels[0, place]
    logits[0, np.arange(frames), symbols] += 6
    logits[0] -= 5000  # a constant per frame is nothing
    got = jax.jit(ctc.align)(logits, labels)
    np.testing.assert_array_equal(got.states[0], states)
    np.testing.assert_array_equal(got.path[0], symbols)
    first, last = spans(states[None], width)
    np.testing.assert_array_equal(got.first, first)
    np.testing.assert_array_equal(got.last, last)
    assert np.all((got.confidence > 0.5) & (got.confidence <= 1))


def test_ctc_alignment_of_a_long_row_without_clear_choices_is_the_best() -> None:
    """Where the sum of log-probabilities leaves few digits for the choice in one frame."""
    rng = np.random.default_rng(0)
    frames, width = 4000, 1500
    logits = 3 * rng.standard_normal((1, frames, 8)).astype(np.float32)
    labels = oracles.random_labels(rng, (1, width), 8, 0)
    got = jax.jit(ctc.align)(logits, labels)
    log_probs = oracles.log_softmax(logits[0])
    best = oracles.ctc_best_score(log_probs, labels[0])
    reached = log_probs[np.arange(frames), np.asarray(got.path[0])].sum()
    np.testing.assert_allclose(got.score, best, rtol=2e-7)
    assert best - 1e-6 < reached <= best + 1e-9


def test_alignments_are_counted(dtype: Any) -> None:
    labels = np.array([[1, 2, -1], [1, 1, -1], [1, 2, 3], [1, 1, 1], [9, 9, 9], [1, 1, 1]])
    lengths, counts = np.array([5, 5, 6, 6, 4, 4]), np.array([2, 2, 3, 3, 0, 3])
    got = ctc.count(labels, lengths, counts)
    np.testing.assert_array_equal(got, [35, 15, 84, 7, 1, 0])
    batch = random_batch(CTC_SHAPE, dtype, blank=0, tied=True)
    best = oracles.ctc_best(batch)
    assert (best.count == 0).any() and (best.count > 10).any()
    arguments = batch.arguments[1:]
    for ask in [ctc.count, jax.jit(ctc.count)]:
        np.testing.assert_array_equal(ask(*arguments), best.count)
    for wrong in [np.ones(3, int), np.ones((B, 1), int), np.full(B, -1)]:
        with pytest.raises(ValueError, match="logit_lengths"):
            ctc.count(batch.labels, wrong, batch.label_lengths)
    with np.errstate(divide="ignore"):
        logs = np.log(best.count)
    np.testing.assert_allclose(ctc.log_count(*arguments), logs, rtol=1e-5, atol=1e-5)


def test_so_many_alignments_that_only_their_logarithm_is_a_number() -> None:
    rng = np.random.default_rng(0)
    labels = oracles.random_labels(rng, (2, 500), 20, 0)
    lengths, counts = np.array([4000, 2000]), np.array([500, 300])
    got = ctc.log_count(labels, lengths, counts)
    for row, (t, n) in enumerate(zip(lengths, counts, strict=True)):
        again = int(np.sum(labels[row, 1:n] == labels[row, : n - 1]))
        wanted = math.log(math.comb(int(t) + int(n) - again, int(t) - int(n) - again))
        np.testing.assert_allclose(got[row], wanted, rtol=1e-6)
    np.testing.assert_allclose(
        ctc.log_count(np.array([[1, 2, 3, 4]]), np.array([20_000])),
        math.log(math.comb(20_004, 19_996)),
        rtol=1e-6,
    )


# The transducer


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
def test_transducer_alignment_is_the_best_of_all(dtype: Any, topology: str, tied: bool) -> None:
    """Of equally good ones that which emits the last label first, then the one before it, ..."""
    batch = random_batch(TRANSDUCER_SHAPE, dtype, blank=1, tied=tied)
    best = oracles.transducer_best(batch, blank=1, topology=topology)
    got = TRANSDUCER_ALIGN(*batch.arguments, blank=1, topology=topology)
    assert np.isneginf(best.score).any() and np.isfinite(best.score).mean() > 0.3
    assert (best.ties > 1).any() == tied
    assert got.score.dtype == dtype
    np.testing.assert_allclose(got.score, best.score, **room(dtype))
    np.testing.assert_array_equal(got.frames, best.frames)
    confidence = np.zeros(best.frames.shape)
    for row, place in np.argwhere(best.frames >= 0):
        log_probs = oracles.log_softmax(batch.logits[row, best.frames[row, place], place])
        confidence[row, place] = np.exp(log_probs[batch.labels[row, place]])
    np.testing.assert_allclose(got.confidence, confidence, **room(dtype))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_transducer_alignment_of_a_long_row_is_where_the_labels_are(topology: str) -> None:
    rng = np.random.default_rng(0)
    frames, width = 600, 60
    labels = oracles.random_labels(rng, (1, width), 5, 0)
    at = np.sort(rng.choice(frames, width, replace=False))
    logits = 0.1 * rng.standard_normal((1, frames, width + 1, 5)).astype(np.float32)
    logits[..., 0] += 3
    logits[0, at, np.arange(width), labels[0]] += 9
    got = jax.jit(transducer.align, static_argnames="topology")(logits, labels, topology=topology)
    np.testing.assert_array_equal(got.frames[0], at)
    assert np.all((got.confidence > 0.5) & (got.confidence <= 1))


def test_nothing_to_align() -> None:
    """Arrays without frames, labels or rows."""
    some, none = np.ones((2, 1), int), np.zeros((2, 0), int)
    for frames, labels, wanted in [(0, none, 0), (0, some, -np.inf), (1, none, -np.log(3))]:
        got = ctc.align(np.zeros((2, frames, 3), np.float32), labels)
        np.testing.assert_allclose(got.score, wanted, rtol=1e-6)
        assert got.path.shape == got.states.shape == (2, frames)
        assert not np.any(got.path)
        assert np.all(got.first == -1) and np.all(got.last == -1) and not np.any(got.confidence)
        assert got.first.shape == labels.shape
        for topology in TOPOLOGIES:
            nodes = labels.shape[1] + 1
            logits = np.zeros((2, frames, nodes, 3), np.float32)
            got = transducer.align(logits, labels, topology=topology)
            np.testing.assert_allclose(got.score, wanted, rtol=1e-6)
            assert np.all(got.frames == -1) and not np.any(got.confidence)
            assert got.frames.shape == labels.shape
    assert ctc.align(np.zeros((0, 3, 3), np.float32), some[:0]).path.shape == (0, 3)
    assert transducer.align(np.zeros((0, 3, 2, 3), np.float32), some[:0]).frames.shape == (0, 1)


def test_counts_are_whole_as_far_as_floats_count() -> None:
    cases = [(33, 3), (20, 4), (12, 6), (40, 2), (9, 0), (300, 1)]
    labels = np.tile(np.arange(1, 7), (len(cases), 1))
    frames, lengths = np.array(cases).T
    exact = [math.comb(T + L, 2 * L) for T, L in cases]
    assert 2**20 < max(exact) < 2**22
    assert ctc.count(labels, frames, lengths).tolist() == exact
    np.testing.assert_allclose(
        ctc.log_count(labels, frames, lengths), np.log(exact), rtol=1e-6, atol=1e-6
    )


def test_a_transducer_alignment_that_meets_nan_is_nan() -> None:
    logits = np.zeros((2, 3, 2, 3), np.float32)
    logits[0, 1, 1] = np.nan
    logits[1, 2] = np.nan  # past its end
    got = transducer.align(logits, np.array([[1], [1]]), np.array([3, 2]))
    assert np.isnan(got.score).tolist() == [True, False]
    assert got.frames[0, 0] == -1 and got.frames[1, 0] >= 0
