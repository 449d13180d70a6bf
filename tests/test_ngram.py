"""The n-gram model, against Witten-Bell smoothing by dictionaries."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxem.ctc.ngram import NGram

V = 4
SEQUENCES = st.lists(st.lists(st.integers(0, V - 1), max_size=8), min_size=1, max_size=6).filter(
    any
)


def followers(sequences: list[list[int]], context: tuple[int, ...]) -> np.ndarray:
    """How often each symbol comes right after the context."""
    n = len(context)
    counts = np.zeros(V)
    for labels in sequences:
        for i in range(n, len(labels)):
            if tuple(labels[i - n : i]) == context:
                counts[labels[i]] += 1
    return counts


def witten_bell(sequences: list[list[int]], history: tuple[int, ...], order: int) -> np.ndarray:
    """Probabilities of what comes after the history, of which `order` - 1 labels count."""
    probs = np.full(V, 1 / V)
    for n in range(min(order - 1, len(history)) + 1):
        counts = followers(sequences, history[len(history) - n :])
        if counts.sum():
            different = (counts > 0).sum()
            probs = (counts + different * probs) / (counts.sum() + different)
    return probs


@settings(max_examples=40, deadline=None)
@given(SEQUENCES, st.integers(1, 4), st.lists(st.integers(0, V - 1), max_size=8))
def test_a_walk_sees_the_smoothed_probabilities(
    sequences: list[list[int]], order: int, walked: list[int]
) -> None:
    model = NGram.estimate(sequences, V, order=order)
    log_prob, moves, state = np.asarray(model.log_prob), np.asarray(model.next_state), 0
    for n in range(len(walked) + 1):
        expected = witten_bell(sequences, tuple(walked[:n]), order)
        np.testing.assert_allclose(np.exp(log_prob[state]), expected, rtol=1e-5)
        state = moves[state, walked[n]] if n < len(walked) else state
    np.testing.assert_allclose(np.exp(log_prob).sum(1), 1, rtol=1e-5)
    assert np.all(log_prob > -np.inf)
    assert log_prob.dtype == np.float32 and moves.dtype == np.int32


def test_a_call_is_a_step_of_the_automaton_and_minus_one_is_none() -> None:
    model = NGram.estimate([[0, 1, 2, 0, 1, 3]], V, order=3)
    call = jax.jit(lambda model, state, token: model(state, token))
    log_probs, state = call(model, model.start, -1)
    np.testing.assert_allclose(log_probs, model.log_prob[0])
    assert state == model.start == 0
    for token in (0, 1):
        log_probs, state = call(model, state, token)
    expected = witten_bell([[0, 1, 2, 0, 1, 3]], (0, 1), 3)
    np.testing.assert_allclose(np.exp(log_probs), expected, rtol=1e-5)
    assert len(model.log_prob) == 1 + 3 + 3  # nothing; 0, 1, 2; 01, 12, 20
    assert [leaf.shape for leaf in jax.tree.leaves(model)] == [(7, V), (7, V)]


def test_padded_rows_are_the_sequences_without_their_padding() -> None:
    rows = np.array([[0, 1, 2, -1], [3, -1, -1, -1], [-1, -1, -1, -1], [2, 1, 0, 3]])
    lists = iter([[0, 1, 2], [3], [], [2, 1, 0, 3]])
    padded, listed = NGram.estimate(rows, V), NGram.estimate(lists, V)
    np.testing.assert_array_equal(padded.log_prob, listed.log_prob)
    np.testing.assert_array_equal(padded.next_state, listed.next_state)


@pytest.mark.parametrize(
    ("sequences", "order", "message"),
    [
        ([[0, 1], [2, 4]], 3, "symbol 4 at position 1 of sequence 1 is outside 0 to 3"),
        ([[0, -1, 2]], 3, "symbol -1 at position 1 of sequence 0"),
        ([[-2]], 3, "symbol -2 at position 0 of sequence 0"),
        ([[0], [0.5]], 3, "sequence 1 must be integers"),
        ([0, 1], 3, "sequence 0 must be integers"),
        ([[], [-1, -1]], 3, "no label"),
        ([], 3, "no label"),
        ([[0]], 0, "order must be 1 or more"),
    ],
)
def test_wrong_sequences_are_refused(sequences: Any, order: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NGram.estimate(sequences, V, order=order)
