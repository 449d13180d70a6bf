"""Best paths and drawn paths, against enumeration of every path."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from chains import (
    ANY_LENGTH,
    QUESTIONS,
    SHARING,
    B,
    K,
    Parts,
    T,
    quick,
    random_batch,
    tolerance,
    with_garbage,
)

from jaxem import chain
from jaxem.chain import NO_STATE, Chain

DRAWS = 20_000


def best_paths(exact: oracles.Enumeration, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-weights [B, k] and states [B, k, T] of the best paths, equal ones in the order listed."""
    order = np.argsort(-exact.log_weights, axis=1, kind="stable")[:, :k]
    log_weights = np.take_along_axis(exact.log_weights, order, 1)
    outside = np.arange(T) >= ANY_LENGTH[:, None, None]
    none = outside | np.isneginf(log_weights)[:, :, None]
    return log_weights, np.where(none, NO_STATE, exact.paths[order])


def assert_paths(got: Any, wanted: np.ndarray, scores: np.ndarray, dtype: Any) -> None:
    """Paths [B, k, T] agree wherever no other path scores the same up to rounding."""
    with np.errstate(invalid="ignore"):  # the gap between two paths of weight 0 is NaN
        gap = -np.diff(scores, axis=1)  # scores [B, k + 1]
    room = 1000 * np.finfo(dtype).eps
    apart = ~(gap < room) & ~(np.pad(gap, [(0, 0), (1, 0)], constant_values=1)[:, :-1] < room)
    assert apart.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(got)[apart], wanted[apart])


@pytest.mark.parametrize("sharing", SHARING)
def test_viterbi_finds_the_best_of_all_paths(dtype: Any, sharing: str) -> None:
    batch, wide = random_batch(dtype, sharing, zeros=0.2)
    exact = oracles.enumerate_paths(*wide, ANY_LENGTH)
    scores, paths = best_paths(exact, 2)
    score, path = QUESTIONS["viterbi"](with_garbage(batch, ANY_LENGTH), ANY_LENGTH)
    assert score.dtype == dtype
    np.testing.assert_allclose(score, scores[:, 0], **tolerance(dtype))
    assert_paths(path[:, None], paths[:, :1], scores, dtype)
    assert np.isneginf(scores[:, 0]).any()
    assert np.all(np.asarray(path)[np.isneginf(scores[:, 0])] == NO_STATE)


def tied_batch(dtype: Any) -> tuple[Chain, Parts]:
    """Potentials of 0, -1 and -inf only: sums are exact and many chains have several best paths."""
    rng = np.random.default_rng(0)
    parts = oracles.random_chains(rng, B, T, K, zeros=0.1, spread=1.0)
    wide = tuple(
        np.where(np.isneginf(part), part, np.where(part < 0.5, 0, -1)).astype(dtype)
        for part in parts
    )
    return Chain(*wide), wide


def test_of_equally_good_paths_viterbi_takes_the_one_whose_last_differing_state_is_lowest(
    dtype: Any,
) -> None:
    batch, wide = tied_batch(dtype)
    exact = oracles.enumerate_paths(*wide, ANY_LENGTH)
    scores, paths = best_paths(exact, 2)
    tied = np.isfinite(scores[:, 0]) & (scores[:, 0] == scores[:, 1])
    assert tied.mean() > 0.5
    score, path = QUESTIONS["viterbi"](batch, ANY_LENGTH)
    np.testing.assert_array_equal(score, scores[:, 0])
    np.testing.assert_array_equal(path, paths[:, 0])


@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_best_are_the_best_of_all_paths_in_order(dtype: Any, k: int) -> None:
    batch, wide = random_batch(dtype, "per chain", zeros=0.5)  # often fewer than five possible
    exact = oracles.enumerate_paths(*wide, ANY_LENGTH)
    scores, paths = best_paths(exact, k + 1)
    batch = with_garbage(batch, ANY_LENGTH)
    if k == 5:
        got_scores, got_paths = QUESTIONS["k_best"](batch, ANY_LENGTH)
    else:
        got_scores, got_paths = quick(lambda batch: chain.k_best(batch, k, ANY_LENGTH))(batch)
    assert got_scores.dtype == dtype
    assert got_paths.shape == (B, k, T)
    np.testing.assert_allclose(got_scores, scores[:, :k], **tolerance(dtype))
    assert_paths(got_paths, paths[:, :k], scores, dtype)
    possible = np.isfinite(scores)
    assert np.any(possible[:, 0] & ~possible[:, k])


@pytest.mark.parametrize("sharing", ["shared", "per step"])
def test_k_best_are_the_best_of_all_paths_where_potentials_are_shared(
    dtype: Any, sharing: str
) -> None:
    batch, wide = random_batch(dtype, sharing, zeros=0.1)
    scores, paths = best_paths(oracles.enumerate_paths(*wide, ANY_LENGTH), 6)
    got_scores, got_paths = QUESTIONS["k_best"](with_garbage(batch, ANY_LENGTH), ANY_LENGTH)
    np.testing.assert_allclose(got_scores, scores[:, :5], **tolerance(dtype))
    assert_paths(got_paths, paths[:, :5], scores, dtype)


def test_k_best_among_equals_are_different_paths_of_the_right_weight(dtype: Any) -> None:
    batch, wide = tied_batch(dtype)
    exact = oracles.enumerate_paths(*wide, ANY_LENGTH)
    got_scores, got_paths = QUESTIONS["k_best"](batch, ANY_LENGTH)
    np.testing.assert_array_equal(got_scores, best_paths(exact, 5)[0])
    listed = np.maximum(got_paths, 0) @ K ** np.arange(T)  # the row of `exact.paths`
    possible = np.isfinite(got_scores)
    weights = np.take_along_axis(exact.log_weights, listed, 1)
    np.testing.assert_array_equal(weights[possible], np.asarray(got_scores)[possible])
    for row, there in zip(listed, possible, strict=True):
        assert len(set(row[there])) == there.sum()
    assert np.all(np.asarray(got_paths)[~possible] == NO_STATE)


def test_k_best_needs_a_k_of_one_or_more() -> None:
    with pytest.raises(ValueError, match="k must be 1 or more"):
        chain.k_best(Chain(np.zeros(2), np.zeros((2, 2)), np.zeros((3, 2))), 0)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)  # the layout knows no dtype
@pytest.mark.parametrize("name", ["viterbi", "k_best", "sample"])
def test_one_chain_alone_has_the_paths_of_a_batch_of_one(dtype: Any, name: str) -> None:
    batch, _ = random_batch(dtype, "per chain", zeros=0.1)
    together = jax.tree.leaves(QUESTIONS[name](batch, ANY_LENGTH))
    for row in range(20):
        one = jax.tree.map(lambda part, row=row: part[row : row + 1], batch)
        alone = QUESTIONS[name](jax.tree.map(lambda part: part[0], one), ANY_LENGTH[row])
        batch_of_one = QUESTIONS[name](one, ANY_LENGTH[row : row + 1])
        for leaf, leaf_of_one, leaf_together in zip(
            jax.tree.leaves(alone), jax.tree.leaves(batch_of_one), together, strict=True
        ):
            np.testing.assert_array_equal(leaf[None], leaf_of_one)
            if name == "sample":  # which draws something else for each shape
                ended = leaf_together[row] == NO_STATE
                np.testing.assert_array_equal(leaf == NO_STATE, ended)
            else:
                np.testing.assert_allclose(leaf, leaf_together[row], **tolerance(dtype))


def test_viterbi_in_float32_still_sees_a_thousandth_after_a_million_steps() -> None:
    """Scores that were summed up instead would be near -5e6, where float32 numbers are .5 apart."""
    rng = np.random.default_rng(0)
    edge = np.where(rng.random(1_000_000) < 0.5, 1e-3, -1e-3)
    emission = np.stack([edge, np.zeros_like(edge)], 1).astype(np.float32)
    moves = np.full((2, 2), -5, np.float32)
    score, path = QUESTIONS["viterbi"](Chain(np.zeros(2, np.float32), moves, emission), None)
    np.testing.assert_array_equal(path, edge < 0)
    np.testing.assert_allclose(score, -5 * 999_999 + edge.clip(0).sum(), rtol=1e-6)


def path_frequencies(batch: Chain, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each path of `oracles.enumerate_paths` is drawn [B, P]; the draws [n, B, T]."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    draws = np.asarray(quick(jax.vmap(lambda key: chain.sample(key, batch, lengths)))(keys))
    listed = np.maximum(draws, 0) @ K ** np.arange(T)
    return np.stack([np.bincount(row, minlength=K**T) for row in listed.T]), draws


def excess(observed: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Pearson's statistic [B] in standard deviations above its mean; cells of few draws as one."""
    expected = DRAWS * probs
    few = expected < 5
    degrees = (~few).sum(1) - 1 + few.any(1)
    together = np.sum(np.where(few, observed - expected, 0), 1) ** 2
    together = together / np.maximum(np.sum(np.where(few, expected, 0), 1), 1)
    statistic = np.sum(np.where(few, 0, (observed - expected) ** 2 / np.maximum(expected, 5)), 1)
    return (statistic + together - degrees) / np.sqrt(2 * np.maximum(degrees, 1))


@pytest.mark.parametrize(
    ("sharing", "dtype"),
    [("shared", "float32"), ("per step", "float32"), ("per chain", "float64")],
    indirect=["dtype"],
)
def test_drawn_paths_have_the_frequencies_of_the_posterior(dtype: Any, sharing: str) -> None:
    batch, wide = random_batch(dtype, sharing, zeros=0.1)
    exact = oracles.enumerate_paths(*wide, ANY_LENGTH)
    certain = exact.probs.max(1)
    rows = np.concatenate(  # full and short ones of uncertain path, and impossible ones
        [np.flatnonzero((ANY_LENGTH == n) & (0 < certain) & (certain < 0.5))[:2] for n in (5, 3, 1)]
        + [np.flatnonzero(ANY_LENGTH == 0)[:1], np.flatnonzero(certain == 0)[:2]]
    )
    few = Chain(
        batch.initial if sharing == "shared" else batch.initial[rows],
        batch.transition[rows] if sharing == "per chain" else batch.transition,
        batch.emission[rows],
    )
    observed, draws = path_frequencies(few, ANY_LENGTH[rows])
    possible = certain[rows] > 0
    ended = np.arange(T) >= np.where(possible, ANY_LENGTH[rows], 0)[:, None]
    np.testing.assert_array_equal(draws == NO_STATE, np.broadcast_to(ended, draws.shape))
    observed, probs = observed[possible], exact.probs[rows][possible]
    assert not np.any(observed[probs == 0])
    assert np.all(excess(observed, probs) < 5)
    # Negative control: the paths of another chain are another distribution.
    assert np.all(excess(observed[:2], probs[1::-1]) > 5)


def test_chains_of_a_batch_are_drawn_independently() -> None:
    one = random_batch(np.float32, "per chain", zeros=0.0)[1]
    first = np.argmin(oracles.enumerate_paths(*one, np.full(B, T)).probs.max(1))
    twice = tuple(part[[first, first]] for part in one)
    probs = oracles.enumerate_paths(*twice, np.full(2, T)).probs[0]
    _, draws = path_frequencies(Chain(*twice), np.full(2, T))
    same, chance = np.mean(np.all(draws[:, 0] == draws[:, 1], -1)), np.sum(probs**2)
    assert abs(same - chance) < 5 * np.sqrt(chance / DRAWS)
    assert jnp.any(draws[0] != draws[1])
