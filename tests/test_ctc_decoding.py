"""Decoding, against enumeration of every path and a prefix beam search on dictionaries."""

import itertools
from functools import cache, partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import enable_x64
from hypothesis import given, settings, strategies as st

from jaxem.ctc import loss as ctc_loss
from jaxem.ctc.beam_search import beam_search
from jaxem.ctc.greedy import greedy
from jaxem.ctc.ngram import NGram
from jaxem.ctc.prefix_search import prefix_search
from jaxem.hypotheses import Hypotheses, Prefixes
from jaxem.pytree import pytree

beam_search_module: Any = import_module("jaxem.ctc.beam_search")  # not the function of that name

GRAVES = [  # numbers that look like probabilities, used as logits; blank 5
    [0.30999, 0.309938, 0.0679938, 0.0673362, 0.0708352, 0.173908],
    [0.215136, 0.439699, 0.0370931, 0.0393967, 0.0381581, 0.230517],
    [0.199959, 0.489485, 0.0233221, 0.0251417, 0.0233289, 0.238763],
    [0.279611, 0.452966, 0.0204795, 0.0209126, 0.0194803, 0.20655],
    [0.51286, 0.288951, 0.0243026, 0.0220788, 0.0219297, 0.129878],
]
T, V = 5, 3
LENGTHS = np.array([5, 4, 3, 2, 1, 0, 5, 5])
ROOM = 64  # more places than there are labellings of at most five frames
Labelling = tuple[int, ...]


@cache
def all_paths(num_frames: int, num_symbols: int, blank: int) -> tuple[np.ndarray, list[Labelling]]:
    """Every path [P, T] and its labelling."""
    paths = list(itertools.product(range(num_symbols), repeat=num_frames))
    labellings = [
        tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank) for path in paths
    ]
    return np.array(paths, int).reshape(len(paths), num_frames), labellings


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, float)
    total = np.logaddexp.reduce(logits, -1, keepdims=True)
    return logits - np.where(np.isneginf(total), 0, total)


def enumerate_labellings(logits: np.ndarray, blank: int = 0) -> dict[Labelling, float]:
    """The log-probability of every labelling of one lattice [T, V] that has any."""
    log_probs = log_softmax(logits)
    paths, labellings = all_paths(*log_probs.shape, blank)
    weights = np.exp(log_probs[np.arange(len(log_probs)), paths].sum(1))
    totals: dict[Labelling, float] = {}
    for labelling, weight in zip(labellings, weights, strict=True):
        totals[labelling] = totals.get(labelling, 0) + weight
    return {labelling: np.log(total) for labelling, total in totals.items() if total > 0}


def bonus(labels: Labelling, model: NGram | None, alpha: float, beta: float) -> float:
    """α log P_lm + β · length, where 0 · (−inf) = 0."""
    total, state = beta * len(labels), 0
    if model is not None and alpha:
        log_prob, moves = np.asarray(model.log_prob), np.asarray(model.next_state)
        for label in labels:
            total += alpha * log_prob[state, label]
            state = moves[state, label]
    return total


def dictionary_search(
    logits: np.ndarray, width: int, model: NGram | None, alpha: float, beta: float
) -> list[tuple[Labelling, float, float]]:
    """Labellings, scores and log-probabilities of the beam, best first; blank 0."""
    beam: dict[Labelling, tuple[float, float]] = {(): (0.0, -np.inf)}
    for frame in log_softmax(logits):
        new: dict[Labelling, np.ndarray] = {}
        for labels, (log_blank, log_label) in beam.items():
            total = np.logaddexp(log_blank, log_label)
            moves = [(labels, total + frame[0], -np.inf)]
            if labels:
                moves.append((labels, -np.inf, log_label + frame[labels[-1]]))
            for symbol in range(1, len(frame)):
                before = log_blank if labels[-1:] == (symbol,) else total
                moves.append(((*labels, symbol), -np.inf, before + frame[symbol]))
            for target, *ends in moves:
                new[target] = np.logaddexp(new.get(target, np.full(2, -np.inf)), ends)
        scores = {
            labels: np.logaddexp(*ends) + bonus(labels, model, alpha, beta)
            for labels, ends in new.items()
        }
        kept = sorted(new, key=lambda labels: -scores[labels])[:width]
        beam = {labels: tuple(new[labels]) for labels in kept if scores[labels] > -np.inf}
    found = [(labels, np.logaddexp(*ends)) for labels, ends in beam.items()]
    return [(labels, p + bonus(labels, model, alpha, beta), p) for labels, p in found]


def listed(found: Hypotheses, row: int) -> list[tuple[Labelling, float, float]]:
    """What stands in one row of a beam, best first; that the rest is empty is asserted."""
    hypotheses = []
    for labels, length, score, log_prob in zip(
        *(np.asarray(leaf)[row] for leaf in jax.tree.leaves(found)), strict=True
    ):
        assert np.all(labels[length:] == -1) and np.all(labels[:length] >= 0)
        if score > -np.inf:
            hypotheses.append((tuple(labels[:length].tolist()), float(score), float(log_prob)))
        else:
            assert length == 0 and log_prob == -np.inf
    assert np.all(np.diff(np.asarray(found.score)[row][: len(hypotheses)]) <= 0)
    return hypotheses


def assert_same(got: list[Any], wanted: list[Any], rtol: float = 1e-5) -> None:
    """The same labellings with the same numbers, in the same order but for equal scores."""
    assert [score for _, score, _ in got] == pytest.approx([s for _, s, _ in wanted], rel=rtol)
    scores = {labels: numbers for labels, *numbers in wanted}
    assert len({labels for labels, *_ in got}) == len(got) == len(scores)
    for labels, *numbers in got:
        assert numbers == pytest.approx(scores[labels], rel=rtol)


@pytest.fixture(scope="module")
def lattices() -> np.ndarray:
    """Logits [8, T, V], some -inf, one row impossible; NaN behind each end."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(len(LENGTHS), T, V))
    logits[2:, :, 1:][rng.random((len(LENGTHS) - 2, T, V - 1)) < 0.3] = -np.inf
    logits[6, 1] = -np.inf
    logits[np.arange(T) >= LENGTHS[:, None]] = np.nan
    return logits.astype(np.float32)


@pytest.fixture(scope="module")
def model() -> NGram:
    """In which, after some labels, some others are impossible."""
    sequences = np.random.default_rng(1).integers(0, V, (20, 6))
    plain = NGram.estimate(sequences, V, order=3)
    forbidden = np.random.default_rng(2).random(plain.log_prob.shape) < 0.1
    return NGram(jnp.where(forbidden, -jnp.inf, plain.log_prob), plain.next_state)


@pytest.mark.parametrize("weights", [None, (0.7, 0.9), (0.0, -0.5)])
def test_a_beam_with_room_for_all_lists_every_labelling_with_its_exact_score(
    lattices: np.ndarray, model: NGram, weights: tuple[float, float] | None
) -> None:
    options: Any = {}
    if weights is not None:
        options = {"language_model": model, "alpha": weights[0], "beta": weights[1]}
    found = beam_search(lattices, LENGTHS, width=ROOM, **options)
    assert found.labels.shape == (len(LENGTHS), ROOM, T)
    for row, length in enumerate(LENGTHS):
        exact = enumerate_labellings(lattices[row, :length])
        alpha, beta = weights or (0, 0)
        wanted = [(y, p + bonus(y, model, alpha, beta), p) for y, p in exact.items()]
        wanted = [entry for entry in wanted if entry[1] > -np.inf]
        assert_same(listed(found, row), sorted(wanted, key=lambda entry: -entry[1]))
    assert listed(found, 5) == [((), 0.0, 0.0)]
    assert listed(found, 6) == []
    if weights is None:
        np.testing.assert_array_equal(found.score, found.log_prob)


@pytest.mark.parametrize(("width", "with_model"), [(1, False), (5, False), (4, True)])
def test_a_narrow_beam_is_the_one_of_dictionaries(width: int, with_model: bool) -> None:
    """With more symbols than places, of which the search without a model looks at the best."""
    rng = np.random.default_rng(width)
    logits = (2 * rng.normal(size=(20, 12, 14))).astype(np.float32)
    logits[:, :, 0] += 2
    logits[:5, :, 4:] = -np.inf
    model = NGram.estimate(rng.integers(1, 14, (30, 8)), 14) if with_model else None
    found = beam_search(logits, width=width, language_model=model, alpha=0.8, beta=0.5)
    for row, lattice in enumerate(logits):
        assert_same(listed(found, row), dictionary_search(lattice, width, model, 0.8, 0.5))


def test_published_examples_of_greedy_and_exact_decoding() -> None:
    two = np.log([[[0.6, 0.4], [0.6, 0.4]]])
    best = greedy(two)
    assert best.lengths.tolist() == [0]
    assert float(jnp.exp(best.log_prob[0])) == pytest.approx(0.36)
    labels, log_prob = prefix_search(two[0])
    assert labels == [1] and np.exp(log_prob) == pytest.approx(0.64, abs=1e-12)
    labels, log_prob = prefix_search(np.array(GRAVES), blank=5)
    assert labels == [1, 0] and log_prob == pytest.approx(-4.717032194, abs=1e-9)


def test_published_prefix_beam_of_width_two() -> None:
    """TensorFlow's test of its beam search, of which most of the probability falls out."""
    found = listed(beam_search(np.array([GRAVES]), width=2, blank=5), 0)
    assert [labels for labels, *_ in found] == [(1, 0), (1,)]
    assert [score for _, score, _ in found] == pytest.approx([-5.811451, -6.63339], abs=2e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 5),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 0.7]),
    st.integers(0, 2**32 - 1),
)
def test_prefix_search_finds_the_best_of_all_labellings(
    num_frames: int, num_symbols: int, zeros: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(num_frames, num_symbols))
    logits[rng.random(logits.shape) < zeros] = -np.inf
    blank = int(rng.integers(num_symbols))
    exact = enumerate_labellings(logits, blank)
    labels, log_prob = prefix_search(logits, blank=blank)
    if not exact:
        assert (labels, log_prob) == ([], -np.inf)
        return
    assert log_prob == pytest.approx(max(exact.values()), abs=1e-12)
    assert exact[tuple(labels)] == pytest.approx(log_prob, abs=1e-12)


def crowded(seed: int = 0) -> np.ndarray:
    """Few symbols and many frames: prefixes meet in every frame."""
    return np.random.default_rng(seed).normal(size=(4, 40, 3)).astype(np.float32)


def repetitions(found: Hypotheses) -> int:
    rows = [[labels for labels, *_ in listed(found, row)] for row in range(len(found.labels))]
    return sum(len(row) - len(set(row)) for row in rows)


def test_equal_prefixes_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    found = beam_search(crowded(), width=16)
    assert found.score[:, -1].min() > -np.inf and repetitions(found) == 0
    # Control: a search that knows no parents keeps the alignments of a prefix apart.
    monkeypatch.setattr(Prefixes, "parent", property(lambda self: -jnp.ones_like(self.lengths)))
    search = beam_search_module._search.__wrapped__
    again = jax.jit(lambda *arguments: search(*arguments), static_argnums=(3, 4, 5, 6))
    monkeypatch.setattr(beam_search_module, "_search", again)
    apart = beam_search(crowded(), width=16)
    assert repetitions(apart) > 10
    assert jnp.all(apart.log_prob[:, 0] < found.log_prob[:, 0] - 0.1)


def test_padding_company_and_jit_change_nothing_and_nan_stays_nan() -> None:
    logits = np.concatenate([crowded(), crowded(1)])
    lengths = np.array([40, 39, 33, 20, 8, 5, 1, 0])
    model = NGram.estimate(np.random.default_rng(0).integers(1, 3, (5, 9)), 3)
    search = partial(beam_search, width=5, language_model=model, alpha=0.5, beta=1.0)
    together = jax.tree.map(np.asarray, search(logits, lengths))
    assert np.all(together.lengths <= lengths[:, None])
    # Each row with seven others beside it, possible or not.
    for company in (logits[::-1], np.full_like(logits, -np.inf)):
        mixed = np.where(np.arange(8)[:, None, None] % 2, logits, company)
        found = search(mixed, np.where(np.arange(8) % 2, lengths, lengths[::-1]))
        jax.tree.map(
            lambda got, row: np.testing.assert_array_equal(got[1::2], row[1::2]), found, together
        )
    spoilt = np.where(np.arange(40)[:, None] < lengths[:, None, None], logits, np.nan)
    spoilt, lengths = np.concatenate([spoilt, crowded()[:3]]), np.append(lengths, [40, 41, -1])
    spoilt[8, 30, 1] = np.nan
    jitted = jax.tree.map(np.asarray, jax.jit(search)(spoilt, lengths))
    jax.tree.map(lambda got, row: np.testing.assert_array_equal(got[:8], row), jitted, together)
    assert np.all(np.isnan(jitted.score[8:])) and np.all(np.isnan(jitted.log_prob[8:]))
    assert np.all(jitted.labels[8:] == -1) and np.all(jitted.lengths[8:] == 0)


def test_labellings_grow_no_longer_than_asked(lattices: np.ndarray) -> None:
    found = beam_search(lattices, LENGTHS, width=ROOM, max_length=2)
    assert found.labels.shape == (len(LENGTHS), ROOM, 2)
    for row, length in enumerate(LENGTHS):
        exact = enumerate_labellings(lattices[row, :length])
        short = [(y, p, p) for y, p in exact.items() if len(y) <= 2]
        assert_same(listed(found, row), sorted(short, key=lambda entry: -entry[1]))


def test_ten_thousand_frames_of_float32_keep_their_digits() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 10_000, 4)).astype(np.float32)
    model = NGram.estimate(np.random.default_rng(1).integers(1, 4, (5, 9)), 4)
    search = partial(beam_search, width=4, language_model=model, alpha=0.5, beta=1.5)
    single = search(logits)
    with enable_x64():
        double = search(logits.astype(np.float64))
    assert single.score.dtype == np.float32 and double.score.dtype == np.float64
    np.testing.assert_array_equal(single.labels[:, 0], double.labels[:, 0])
    np.testing.assert_allclose(single.log_prob, double.log_prob, rtol=1e-6)
    np.testing.assert_allclose(single.score, double.score, rtol=2e-6)


def test_half_precision_is_computed_in_float32() -> None:
    half = jnp.asarray(crowded(), jnp.bfloat16)
    found = greedy(half)
    jax.tree.map(np.testing.assert_array_equal, found, greedy(half.astype(jnp.float32)))
    for form in (found, jax.eval_shape(partial(beam_search, width=3), half)):
        assert form.score.dtype == form.log_prob.dtype == jnp.float32
        assert form.labels.dtype == form.lengths.dtype == jnp.int32


def test_greedy_is_the_labelling_of_the_best_path(lattices: np.ndarray) -> None:
    found = greedy(lattices, LENGTHS, blank=2)
    assert found.labels.shape == (len(LENGTHS), T) and found.labels.dtype == np.int32
    for row, length in enumerate(LENGTHS):
        log_probs = log_softmax(lattices[row, :length])
        paths, labellings = all_paths(length, V, 2)
        weights = log_probs[np.arange(length), paths].sum(1)
        wanted = labellings[np.argmax(weights)] if weights.max() > -np.inf else ()
        assert found.lengths[row] == len(wanted)
        assert found.labels[row].tolist() == [*wanted, *[-1] * (T - len(wanted))]
        np.testing.assert_allclose(found.log_prob[row], weights.max(), rtol=1e-5)
    np.testing.assert_array_equal(found.score, found.log_prob)


def test_greedy_keeps_nan_where_values_cannot_be_checked() -> None:
    spoilt = crowded()
    spoilt[0, 30, 1] = np.nan
    found = jax.jit(greedy)(spoilt, jnp.array([40, 41, -1, 0]))
    assert np.isnan(found.score).tolist() == [True, True, True, False]
    assert np.all(found.labels == -1) and np.all(found.lengths == 0)


@pytree
class Bigram:
    """A language model of someone else's: the state is the last label, in a dictionary."""

    table: Any

    @property
    def start(self) -> dict[str, int]:
        return {"last": 0}

    def __call__(self, state: dict[str, Any], token: Any) -> tuple[Any, dict[str, Any]]:
        last = jnp.where(token < 0, state["last"], token)
        return self.table[last], {"last": last}


class Constant:
    """The same, of which JAX knows nothing."""

    def __init__(self, bigram: Bigram) -> None:
        self.start = bigram.start
        self.bigram = bigram

    def __call__(self, state: Any, token: Any) -> tuple[Any, Any]:
        return self.bigram(state, token)


def test_any_pure_function_with_a_start_is_a_language_model() -> None:
    rng = np.random.default_rng(0)
    tables = log_softmax(2 * rng.normal(size=(2, 3, 3))).astype(np.float32)
    search = partial(beam_search, crowded(), width=4)
    first = search(language_model=Bigram(tables[0]))
    programs = beam_search_module._search._cache_size()
    second = search(language_model=Bigram(tables[1]), alpha=0.5, beta=1)
    assert beam_search_module._search._cache_size() == programs
    assert jnp.any(first.score != second.score)
    constant = search(language_model=Constant(Bigram(jnp.asarray(tables[0]))))
    jax.tree.map(np.testing.assert_array_equal, constant, first)


class Restless:
    start = 0

    def __call__(self, state: Any, token: Any) -> tuple[Any, Any]:
        return jnp.zeros(3), (token, token)


class Unhashable(Restless):
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be 1 or more, got 0"),
        ({"max_length": -1}, "max_length must be 0 or more"),
        ({"blank": 3}, "blank must be a symbol, 0 to 2"),
        ({"alpha": -0.5}, "alpha must be finite and not negative"),
        ({"beta": np.nan}, "beta must be finite"),
        ({"language_model": Bigram(np.zeros((3, 4)))}, r"log-probabilities \[3\], one for each"),
        ({"language_model": Restless()}, "state of the form of its"),
        ({"language_model": Unhashable()}, "Unhashable is neither"),
        ({"logits": np.zeros((4, 3))}, r"logits must be .* \[B, T, V\]"),
        ({"logit_lengths": np.array([1, 2])}, "logit_lengths must be 4 integers"),
        ({"logit_lengths": np.array([1, 41, 2, 3])}, r"logit_lengths\[1\] is 41"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        beam_search(**{"logits": crowded(), "width": 2, **options})


def test_prefix_search_refuses_a_batch_and_nan() -> None:
    with pytest.raises(ValueError, match=r"logits must be \[T, V\], one sequence"):
        prefix_search(crowded())
    with pytest.raises(ValueError, match=r"logits\[0, 2\] is nan"):
        prefix_search(np.array([[0, 1, np.nan]]))
    with pytest.raises(ValueError, match="blank must be a symbol"):
        prefix_search(np.zeros((2, 3)), blank=-1)


def test_found_labels_are_at_most_as_probable_as_the_loss_says_at_any_offset() -> None:
    """Confident logits, far from 0: digits lost in a log-softmax would show."""
    logits = np.tile(np.array([[[9.0, 0, 0]]], np.float32), (1, 1000, 1))
    exact = 1000 * np.log1p(2 * np.exp(-9.0))
    for offset in (0, 100):
        shifted = logits + np.float32(offset)
        found = beam_search(shifted, width=2)
        loss = ctc_loss(shifted, np.zeros((1, 0), int))
        np.testing.assert_allclose([-found.log_prob[0, 0], loss[0]], exact, atol=2e-4)
        np.testing.assert_allclose(greedy(shifted).log_prob, -exact, atol=2e-4)


def test_a_language_model_that_knows_nothing_of_empty_places_does_no_harm() -> None:
    @pytree
    class Careful:
        start: Any

        def __call__(self, state: Any, token: Any) -> Any:
            known = (token >= 0) | (state == 0)
            return jnp.where(known, jnp.log(jnp.full(3, 1 / 3)), jnp.nan), state + 1

    logits = np.random.default_rng(0).normal(size=(1, 6, 3)).astype(np.float32)
    found = beam_search(logits, np.array([2]), width=16, language_model=Careful(jnp.int32(0)))
    assert not np.any(np.isnan(found.score))
