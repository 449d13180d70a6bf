"""What is known of a chain's states, against enumeration of every path and published numbers."""

from typing import Any

import jax
import numpy as np
import oracles
import pytest
from chains import (
    ALL_STEPS,
    ANY_LENGTH,
    QUESTIONS,
    SHARING,
    B,
    random_batch,
    tolerance,
    with_garbage,
)

from jaxem import chain
from jaxem.chain import Chain


def assert_counts(counts: Chain, exact: oracles.Enumeration, like: Chain, dtype: Any) -> None:
    """Expected counts agree, summed over whatever the potentials were shared by."""
    for name in ["initial", "transition", "emission"]:
        got, wanted = np.asarray(getattr(counts, name)), getattr(exact, name)
        assert got.dtype == dtype
        assert got.shape == getattr(like, name).shape
        shared = wanted.ndim - got.ndim
        room = tolerance(dtype)
        room["atol"] *= np.sqrt(B) if shared else 1
        wanted = wanted.sum(tuple(range(shared)))
        np.testing.assert_allclose(got, wanted, **room, err_msg=name)


@pytest.mark.parametrize(
    ("sharing", "ragged", "dtype"),
    [
        ("shared", False, "float64"),
        ("shared", True, "float32"),
        ("per step", False, "float32"),
        ("per step", True, "float64"),
        ("per chain", False, "float32"),
        ("per chain", True, "float32"),
        ("per chain", True, "float64"),
    ],
    indirect=["dtype"],
)
def test_posterior_is_that_of_enumeration(dtype: Any, sharing: str, ragged: bool) -> None:
    lengths = ANY_LENGTH if ragged else ALL_STEPS
    # Without zeros by rescaled probabilities, with impossible chains among them by logarithms.
    for zeros in [0.0, 0.25 if sharing == "per chain" else 0.1]:
        batch, wide = random_batch(dtype, sharing, zeros=zeros)
        exact = oracles.enumerate_paths(*wide, lengths)
        batch = with_garbage(batch, lengths)
        log_z, counts = QUESTIONS["posterior"](batch, lengths if ragged else None)
        assert log_z.dtype == dtype
        np.testing.assert_allclose(log_z, exact.log_normalizer, **tolerance(dtype))
        assert_counts(counts, exact, batch, dtype)
        possible = np.isfinite(exact.log_normalizer).mean()
        assert 0.5 < possible < 1 if zeros else possible == 1
        # Where enumeration says 0 the counts are 0 exactly, for impossible chains everywhere.
        if sharing == "per chain":
            for name in ["initial", "transition", "emission"]:
                none = getattr(exact, name) == 0
                assert not np.any(np.asarray(getattr(counts, name))[none])


@pytest.mark.parametrize("sharing", SHARING)
def test_filter_is_that_of_enumeration(dtype: Any, sharing: str) -> None:
    batch, wide = random_batch(dtype, sharing, zeros=0.1)
    known = QUESTIONS["filter"](with_garbage(batch, ANY_LENGTH), ANY_LENGTH)
    assert known.filtered.dtype == known.predicted.dtype == dtype
    log_z = oracles.enumerate_paths(*wide, ANY_LENGTH).log_normalizer
    np.testing.assert_allclose(known.log_normalizer, log_z, **tolerance(dtype))
    few = tuple(part[:300] for part in wide)
    filtered, predicted = oracles.enumerate_filter(*few, ANY_LENGTH[:300])
    np.testing.assert_allclose(known.filtered[:300], filtered, **tolerance(dtype))
    np.testing.assert_allclose(known.predicted[:300], predicted, **tolerance(dtype))


@pytest.mark.parametrize("sharing", SHARING)
def test_entropy_is_that_of_enumeration(dtype: Any, sharing: str) -> None:
    batch, wide = random_batch(dtype, sharing, zeros=0.1)
    nats = QUESTIONS["entropy"](with_garbage(batch, ANY_LENGTH), ANY_LENGTH)
    exact = oracles.enumerate_paths(*wide, ANY_LENGTH)
    assert nats.dtype == dtype
    np.testing.assert_allclose(nats, exact.entropy, **tolerance(dtype))
    assert exact.entropy.max() > 2  # nats: not all chains are nearly certain of their path


def test_enumeration_notices_a_wrong_time_index(dtype: Any) -> None:
    """Negative control: transitions one step late are another posterior."""
    batch, wide = random_batch(dtype, "per chain", zeros=0.1)
    late = (wide[0], np.roll(wide[1], 1, axis=1), wide[2])
    exact = oracles.enumerate_paths(*late, ANY_LENGTH)
    log_z, counts = QUESTIONS["posterior"](batch, ANY_LENGTH)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(log_z, exact.log_normalizer, **tolerance(dtype))
    with pytest.raises(AssertionError):
        assert_counts(counts, exact, batch, dtype)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)  # the layout knows no dtype
@pytest.mark.parametrize("name", ["posterior", "filter", "entropy"])
def test_one_chain_alone_is_one_chain_of_a_batch(dtype: Any, name: str) -> None:
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
            np.testing.assert_allclose(leaf, leaf_together[row], **tolerance(dtype))


def test_shapes_that_do_not_fit_are_refused() -> None:
    good = Chain(np.zeros(3), np.zeros((3, 3)), np.zeros((4, 5, 3)))
    bad = {
        "emission must be": Chain(good.initial, good.transition, np.zeros(3)),
        "initial must be": Chain(np.zeros(2), good.transition, good.emission),
        "transition must be": Chain(good.initial, np.zeros((5, 3, 3)), good.emission),
    }
    for message, batch in bad.items():
        with pytest.raises(ValueError, match=message):
            chain.log_normalizer(batch)
    with pytest.raises(ValueError, match="lengths must be"):
        chain.log_normalizer(good, np.array([5, 5, 5]))


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)  # the layout knows no dtype
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("steps", [0, 1])
def test_chains_of_no_and_of_one_step_have_the_obvious_answers(
    dtype: Any, sharing: str, steps: int
) -> None:
    start = np.array([[0.2, 0.8], [0.5, 0.5], [0.1, 0.9]])
    seen = np.array([[0.9, 1.0], [0.2, 0.6], [0.0, 1.0]])
    moves = {"shared": (2, 2), "per step": (0, 2, 2), "per chain": (3, 0, 2, 2)}[sharing]
    with np.errstate(divide="ignore"):
        batch = Chain(
            np.log(start).astype(dtype),
            np.zeros(moves, dtype),
            np.log(seen).astype(dtype)[:, None][:, :steps],
        )
    joint = start * seen
    if steps == 0:
        joint = np.array([[0.0, 1.0]] * 3)  # one path, of no states
    total = joint.sum(1)
    probs = (joint / total[:, None])[:, None][:, :steps]
    room = tolerance(dtype)

    log_z, counts = QUESTIONS["posterior"](batch, None)
    np.testing.assert_allclose(log_z, np.log(total), **room)
    np.testing.assert_allclose(counts.emission, probs, **room)
    np.testing.assert_allclose(counts.initial, probs.sum(1), **room)
    np.testing.assert_array_equal(counts.transition, np.zeros(moves))

    known = QUESTIONS["filter"](batch, None)
    np.testing.assert_allclose(known.log_normalizer, np.log(total), **room)
    np.testing.assert_allclose(known.filtered, probs, **room)
    np.testing.assert_allclose(known.predicted, start[:, None][:, :steps], **room)

    nats = [-np.sum(row[row > 0] * np.log(row[row > 0])) for row in probs]
    np.testing.assert_allclose(QUESTIONS["entropy"](batch, None), nats, **room)

    score, path = QUESTIONS["viterbi"](batch, None)
    np.testing.assert_allclose(np.exp(score), joint.max(1), **room)
    np.testing.assert_array_equal(path, np.ones((3, steps)))

    scores, paths = QUESTIONS["k_best"](batch, None)
    np.testing.assert_allclose(np.exp(scores[:, :2]), np.sort(joint)[:, ::-1], **room)
    assert np.all(np.isneginf(scores[:, 2:]))
    np.testing.assert_array_equal(paths[:, 0], path)

    drawn = QUESTIONS["sample"](batch, None)
    assert drawn.shape == (3, steps)
    assert steps == 0 or drawn[2, 0] == 1


def test_published_worlds_have_their_published_numbers(dtype: Any) -> None:
    """Two worlds among the chains of a batch.

    Umbrella world: Russell & Norvig, Artificial Intelligence, ch. 15.  Walk, shop, clean:
    Wikipedia, Viterbi algorithm, states Rainy and Sunny.  Recomputed in float64.
    """
    batch, _ = random_batch(dtype, "per chain", zeros=0.1)  # a shape that is compiled already
    lengths = np.concatenate([[5, 3], ANY_LENGTH[2:]])
    umbrella = [[0.9, 0.2], [0.9, 0.2], [0.1, 0.8], [0.9, 0.2], [0.9, 0.2]]
    weather = [[0.1, 0.6], [0.4, 0.3], [0.5, 0.1], [np.nan, np.nan], [np.nan, np.nan]]
    with np.errstate(divide="ignore"):
        batch.initial[:2] = np.log([[0.5, 0.5, 0], [0.6, 0.4, 0]])  # there is no third state
        batch.transition[0, :, :2, :2] = np.log([[0.7, 0.3], [0.3, 0.7]])
        batch.transition[1, :, :2, :2] = np.log([[0.7, 0.3], [0.4, 0.6]])
        batch.transition[:2, :, :2, 2] = -np.inf
        batch.emission[:2, :, :2] = np.log([umbrella, weather])
    room = {"rtol": 20 * np.finfo(dtype).eps, "atol": 1e-8}  # as many digits as are published

    log_z, counts = QUESTIONS["posterior"](batch, lengths)
    np.testing.assert_allclose(log_z[0], -3.3725020443, rtol=room["rtol"], atol=1e-10)
    np.testing.assert_allclose(np.exp(log_z[1]), 0.033612, rtol=room["rtol"])
    rain = [0.86733889, 0.82041905, 0.30748358, 0.82041905, 0.86733889]
    rainy = [0.23170296, 0.62406283, 0.86397715, 0, 0]
    np.testing.assert_allclose(counts.emission[:2, :, 0], [rain, rainy], **room)

    known = QUESTIONS["filter"](batch, lengths)
    np.testing.assert_allclose(known.filtered[0, :2, 0], [0.818, 0.883], rtol=0, atol=5e-4)

    score, path = QUESTIONS["viterbi"](batch, lengths)
    np.testing.assert_allclose(score[0], -4.4590, rtol=0, atol=5e-5)
    np.testing.assert_allclose(np.exp(score[1]), 0.01344, rtol=room["rtol"])
    assert path[:2].tolist() == [[0, 0, 1, 0, 0], [1, 0, 0, -1, -1]]  # 0: rain
