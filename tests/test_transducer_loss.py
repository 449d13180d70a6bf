"""The transducer's losses, derivatives and posterior, against enumeration and published numbers."""

import math
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import lattice_oracles as oracles
import numpy as np
import pytest
from chains import quick
from conftest import enable_x64
from hypothesis import given, settings, strategies
from lattices import (
    FLOAT32,
    LABELS,
    ROWS,
    SYMBOLS,
    Widened,
    assert_exact,
    assert_names,
    cast,
    compilations,
    copies,
    full_batch,
    hastily,
    only,
    rounding,
    scratch_bytes,
    value_and_gradient,
)
from oracles import central_differences

from jaxem import transducer

pytestmark = pytest.mark.numerics

B, T, V, U = 48, 4, 4, 3
TOPOLOGIES = ["regular", "modified"]
LOSS = value_and_gradient(transducer.loss, "topology", "fast_emit")
FACTORED = value_and_gradient(transducer.factored_loss, "topology", "fast_emit", factors=2)
POSTERIOR = hastily(transducer.posterior, "blank", "topology")


def solve(batch: oracles.Batch, *, blank: int = 0, **options: Any) -> Any:
    """Losses and gradient of a small batch, by the programs that all small batches share."""
    wide = Widened(batch, blank)
    losses, gradient = LOSS(*wide.batch.arguments, blank=wide.blank, **options)
    return np.asarray(losses)[: wide.rows], wide.gradient(gradient)


def posterior(batch: oracles.Batch, *, blank: int = 0, **options: Any) -> dict[str, np.ndarray]:
    """Log-likelihoods and uses of arcs of a small batch, likewise."""
    wide = Widened(batch, blank)
    known = POSTERIOR(*wide.batch.arguments, blank=wide.blank, **options)
    uses = {"log_likelihood": np.asarray(known.log_likelihood)[: wide.rows]}
    for name, nodes in [("blank", wide.labels + 1), ("label", wide.labels)]:
        inside = (slice(wide.rows), slice(wide.frames), slice(nodes))
        uses[name] = only(getattr(known, name), inside)
    return uses


def random_batch(seed: int, dtype: Any, *, blank: int = 0, zeros: float = 0.1) -> oracles.Batch:
    """A batch of all lengths whose padding is garbage; its numbers are those of the dtype."""
    shape = (B, T, U + 1, V)
    batch = oracles.random_batch(seed, shape, U, blank=blank, zeros=zeros, spread=2.0)
    return cast(batch, dtype).with_garbage()


# Against enumeration


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_loss_and_gradient_are_those_of_enumeration(dtype: Any, topology: str) -> None:
    batch = random_batch(1, dtype, blank=2)
    exact = oracles.transducer(batch, blank=2, topology=topology)
    assert 0.1 < np.isneginf(exact.log_likelihood).mean() < 0.6
    got = solve(batch, blank=2, topology=topology)
    assert_exact(got, batch, exact.log_likelihood, exact.gradient, **rounding(batch))
    # Negative control: the other topology is another loss.
    other = {"regular": "modified", "modified": "regular"}[topology]
    wrong = oracles.transducer(batch, blank=2, topology=other)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong.log_likelihood, exact.log_likelihood, rtol=0.1)


@pytest.mark.parametrize(
    ("dtype", "topology"),
    [
        ("float32", "regular"),
        ("float64", "modified"),
        pytest.param("float64", "regular", marks=pytest.mark.slow),
        pytest.param("float32", "modified", marks=pytest.mark.slow),
    ],
    indirect=["dtype"],
)
def test_posterior_is_that_of_enumeration(dtype: Any, topology: str) -> None:
    batch = random_batch(5, dtype)
    exact = oracles.transducer(batch, topology=topology)
    uses = posterior(batch, topology=topology)
    for name, got in uses.items():
        wanted = getattr(exact, name)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, **rounding(batch), err_msg=name)
        if name != "log_likelihood":
            assert not np.any(got[wanted == 0])
            assert np.all(got >= 0)
    # Every possible row emits each of its labels once.
    possible = np.isfinite(exact.log_likelihood)
    wanted = possible[:, None] & (np.arange(U) < batch.label_lengths[:, None])
    np.testing.assert_allclose(uses["label"].sum(1), wanted, **rounding(batch))


@pytest.mark.parametrize("topology", [pytest.param("regular", marks=pytest.mark.slow), "modified"])
def test_fast_emit_counts_labels_more_than_once_and_leaves_the_loss_alone(topology: str) -> None:
    batch = random_batch(2, FLOAT32)
    plain, plain_gradient = solve(batch, topology=topology)
    exact = oracles.transducer(batch, topology=topology, fast_emit=0.25)
    got = solve(batch, topology=topology, fast_emit=0.25)
    np.testing.assert_array_equal(got[0], plain)
    assert_exact(got, batch, exact.log_likelihood, exact.gradient, **rounding(batch))
    with pytest.raises(AssertionError):  # negative control
        np.testing.assert_allclose(plain_gradient, exact.gradient, rtol=0, atol=0.03)


# Factored logits


def factored(
    am: np.ndarray, lm: np.ndarray, batch: oracles.Batch, *, blank: int = 0, **options: Any
) -> Any:
    """Factored losses and both gradients, by the programs that all small batches share."""
    rows = len(am)
    wide = Widened(oracles.Batch(am, *batch.arguments[1:]), blank)
    tokens = np.zeros((ROWS, LABELS + 1, SYMBOLS), lm.dtype)  # NaN anywhere would choose the way
    tokens[:rows, : lm.shape[1], wide.place] = lm
    past = np.arange(LABELS + 1) > wide.batch.label_lengths[:, None]
    tokens[past] = np.nan
    arguments = (wide.batch.logits, tokens, *wide.batch.arguments[1:])
    losses, gradients = FACTORED(*arguments, blank=wide.blank, **options)
    narrow = np.asarray(gradients[1])[:rows, : lm.shape[1], wide.place]
    return np.asarray(losses)[:rows], wide.gradient(gradients[0]), narrow


def random_factors(dtype: Any) -> tuple[np.ndarray, np.ndarray, oracles.Batch]:
    """Acoustic and language factors with some -inf, and the batch of their sums."""
    rng = np.random.default_rng(1)
    am, lm = 2 * rng.standard_normal((B, T, V)), 2 * rng.standard_normal((B, U + 1, V))
    am[:, :, 1:][rng.random((B, T, V - 1)) < 0.05] = -np.inf
    lm[:, :, 1:][rng.random((B, U + 1, V - 1)) < 0.05] = -np.inf
    am, lm = am.astype(dtype), lm.astype(dtype)
    labels = oracles.random_labels(rng, (B, U), V, 0)
    lengths, counts = rng.integers(0, T + 1, B), rng.integers(0, U + 1, B)
    return (
        am,
        lm,
        oracles.Batch(am[:, :, None].astype(float) + lm[:, None], labels, lengths, counts),
    )


def assert_factored(got: Any, exact: oracles.Transducer, **room: float) -> None:
    """Losses and both gradients are those of the sum of the factors."""
    losses, *gradients = got
    assert np.all(losses >= 0)
    np.testing.assert_allclose(losses, -exact.log_likelihood, rtol=1e-5, **room)
    for gradient, axis in zip(gradients, [2, 1], strict=True):
        np.testing.assert_allclose(gradient, exact.gradient.sum(axis), rtol=1e-5, **room)
        assert gradient.dtype == losses.dtype
        assert not np.any(gradient[np.isneginf(exact.log_likelihood)])


@pytest.mark.parametrize(
    ("dtype", "topology", "fast_emit"),
    [("float32", "regular", 0.0), ("float64", "modified", 0.0), ("float32", "modified", 0.25)],
    indirect=["dtype"],
)
def test_factored_loss_is_the_loss_of_the_sum(dtype: Any, topology: str, fast_emit: float) -> None:
    am, lm, batch = random_factors(dtype)
    options = {"topology": topology, "fast_emit": fast_emit}
    exact = oracles.transducer(batch, **options)
    assert 0.1 < np.isneginf(exact.log_likelihood).mean() < 0.5
    got = factored(am, lm, batch, **options)
    assert got[0].dtype == dtype
    assert_factored(got, exact, atol=rounding(cast(batch, dtype))["atol"])
    for gradient, factor in zip(got[1:], [am, lm], strict=True):
        assert not np.any(gradient[np.isneginf(factor)])


@pytest.mark.parametrize(
    ("dtype", "topology", "distances"),
    [
        ("float32", "regular", [40, 70, 80, 86, 88, 90, 100, 200]),
        ("float64", "modified", [600, 700, 708, 720, 740, 2000]),
    ],
    indirect=["dtype"],
)
def test_factors_far_apart_are_still_the_loss_of_their_sum(
    dtype: Any, topology: str, distances: list[float]
) -> None:
    """am is sure of one symbol and lm of another: products of their exponentials are all but 0."""
    rng = np.random.default_rng(3)
    for apart in distances:
        am, lm = rng.standard_normal((3, 5, V)), rng.standard_normal((3, U + 1, V))
        am[:, :, 1] += apart
        lm[:, :, 2] += apart
        am[1, ::2, 3] += 2 * apart
        am[2, :, 1], lm[2, :, 2] = -np.inf, -np.inf  # only what neither is sure of is left
        labels = np.array([[1, 2, 1], [3, 1, 2], [3, 3, 3]])
        am, lm = am.astype(dtype), lm.astype(dtype)
        batch = full_batch(am[:, :, None].astype(float) + lm[:, None], labels, float)
        exact = oracles.transducer(batch, topology=topology)
        room = 20 * float(np.finfo(dtype).eps) * apart
        assert_factored(factored(am, lm, batch, topology=topology), exact, atol=room)


def test_a_constant_per_frame_or_token_changes_no_factored_loss() -> None:
    """The library of fast RNN-T losses has published the number."""
    lm = np.array([[[0, 0, 1], [0, 1, 1], [1, 0, 1], [2, 2, 0]]], np.float32)
    am = np.array([[[0, 1, 2], [0, 0, 0], [0, 2, 4], [0, 3, 3]]], np.float32)
    batch = full_batch(am[:, :, None] + lm[:, None], [[0, 1, 0]])
    losses, *gradients = factored(am, lm, batch, blank=2, topology="regular", fast_emit=0.0)
    np.testing.assert_allclose(losses, 7.5040133560, rtol=5e-7)
    frames, tokens = np.array([[5], [-7], [0], [64]]), np.array([[1], [-32], [2], [0]])
    am, lm = (am + frames).astype(np.float32), (lm + tokens).astype(np.float32)
    shifted = factored(am, lm, batch, blank=2, topology="regular", fast_emit=0.0)
    np.testing.assert_allclose(shifted[0], losses, rtol=2e-5)
    for got, wanted in zip(shifted[1:], gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-5)
        np.testing.assert_allclose(np.asarray(got).sum(-1), 0, rtol=0, atol=5e-5)


# Derivatives


def small_batch() -> oracles.Batch:
    """Rows of every kind, infeasible ones and ones without frames or labels included."""
    batch = oracles.random_batch(3, (6, 3, 3, 3), 2, blank=0, zeros=0.15, spread=1.0)
    lengths, counts = np.array([3, 3, 2, 1, 0, 0]), np.array([2, 1, 2, 2, 0, 1])
    return oracles.Batch(batch.logits, batch.labels, lengths, counts).with_garbage()


def gradient_of_squares(batch: oracles.Batch, flat: np.ndarray, topology: str) -> np.ndarray:
    """Gradients [n, B, T, U+1, V] of half the sum of squared losses, infeasible ones 0."""
    exact = oracles.transducer(copies(batch, flat), topology=topology)
    losses = np.where(np.isneginf(exact.log_likelihood), 0, -exact.log_likelihood)
    slope = losses[:, None, None, None] * exact.gradient
    return slope.reshape(len(flat), *batch.logits.shape)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_gradient_is_the_difference_of_the_loss(topology: str) -> None:
    batch = small_batch()

    def feasible_losses(flat: np.ndarray) -> np.ndarray:
        exact = oracles.transducer(copies(batch, flat), topology=topology)
        losses = -exact.log_likelihood.reshape(len(flat), -1)
        return np.where(np.isposinf(losses), 0, losses).sum(1, keepdims=True)

    wanted = central_differences(feasible_losses, batch.logits.ravel(), 1e-5)[:, 0]
    _, gradient = solve(batch, topology=topology)
    np.testing.assert_allclose(gradient.ravel(), wanted, rtol=0, atol=1e-8)
    assert np.abs(wanted).max() > 0.3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("topology", "outer"),
    [
        ("regular", jax.jacrev),
        pytest.param("modified", jax.jacrev, marks=pytest.mark.slow),
        pytest.param("regular", jax.jacfwd, marks=pytest.mark.slow),
    ],
)
def test_second_derivatives_are_the_differences_of_the_gradient(topology: str, outer: Any) -> None:
    """Of half the sum of squares: the cotangents depend on the logits too."""
    batch = small_batch()

    def objective(flat: Any) -> Any:
        logits = flat.reshape(batch.logits.shape)
        rest = batch.arguments[1:]
        losses = transducer.loss(logits, *rest, topology=topology, zero_infinity=True)
        return 0.5 * jnp.sum(losses**2)

    def exact_gradient(flat: np.ndarray) -> np.ndarray:
        return gradient_of_squares(batch, flat, topology).reshape(len(flat), -1)

    at = batch.logits.ravel()
    got = np.asarray(quick(outer(jax.jacrev(objective)))(at))
    wanted = central_differences(exact_gradient, at, 1e-5)
    assert np.all(np.isfinite(got))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8)
    assert np.abs(wanted).max() > 0.3
    assert not np.any(got[~np.isfinite(at)]) and not np.any(got[:, ~np.isfinite(at)])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("topology", "outer"),
    [
        ("modified", jax.jacrev),
        pytest.param("regular", jax.jacrev, marks=pytest.mark.slow),
        pytest.param("modified", jax.jacfwd, marks=pytest.mark.slow),
    ],
)
def test_second_derivatives_of_the_factored_loss(topology: str, outer: Any) -> None:
    rng = np.random.default_rng(2)
    am, lm = rng.standard_normal((3, 3, 3)), rng.standard_normal((3, 3, 3))
    am[0, 1, 2] = lm[1, 1, 1] = -np.inf
    labels = np.array([[1, 2], [1, 1], [2, 1]])
    lengths, counts = np.array([3, 3, 1]), np.array([2, 1, 2])
    am[2, 1:], lm[1, 2:] = np.nan, np.nan
    at = np.concatenate([am.ravel(), lm.ravel()])

    def objective(flat: Any) -> Any:
        am, lm = flat.reshape(2, 3, 3, 3)
        rest = (labels, lengths, counts)
        losses = transducer.factored_loss(am, lm, *rest, topology=topology, zero_infinity=True)
        return 0.5 * jnp.sum(losses**2)

    def exact_gradient(flat: np.ndarray) -> np.ndarray:
        parts = flat.reshape(-1, 2, 3, 3, 3)
        added = parts[:, 0, :, :, None] + parts[:, 1, :, None]
        batch = oracles.Batch(added[0], labels, lengths, counts)
        slope = gradient_of_squares(batch, added.reshape(len(flat), -1), topology)
        return np.stack([slope.sum(3), slope.sum(2)], 1).reshape(len(flat), -1)

    got = np.asarray(quick(outer(jax.jacrev(objective)))(at))
    wanted = central_differences(exact_gradient, at, 1e-5)
    assert np.all(np.isfinite(got))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8)
    assert np.abs(wanted).max() > 0.3
    assert not np.any(got[~np.isfinite(at)]) and not np.any(got[:, ~np.isfinite(at)])


# Published and closed-form numbers

FIRST = [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.2, 0.8, 0.1]]
SECOND = [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.1, 0.1], [0.7, 0.1, 0.2, 0.1, 0.1]]


def test_loss_is_what_warp_transducer_has_published(dtype: Any) -> None:
    logits = np.array([[FIRST, SECOND, FIRST]] * 4, dtype)
    logits[0, 2] = np.nan
    lengths, counts = np.array([2, 3, 1, 1]), np.array([2, 2, 2, 0])
    batch = oracles.Batch(logits, np.array([[1, 2]] * 4), lengths, counts)
    losses, gradient = solve(batch, topology="regular")
    wanted = [4.495666773770733, 5.7367250428101615, 4.274244594423859, 1.7314291957733714]
    room = {"rtol": 1e-6 if dtype == np.float32 else 1e-12}
    np.testing.assert_allclose(losses, wanted, **room)
    first_frame = [
        [-0.131166855, -0.399926795, *[0.177031217] * 3],
        [-0.185727535, 0.122470537, -0.181684077, 0.122470537, 0.122470537],
        [-0.320912461, 0.062691395, 0.069284706, 0.126244966, 0.062691395],
    ]
    np.testing.assert_allclose(gradient[0, 0], first_frame, rtol=1e-5, atol=2e-9)
    assert not np.any(gradient[0, 2])
    losses, _ = solve(batch, blank=4, topology="regular")
    np.testing.assert_allclose(losses[0], 5.095666773771, rtol=room["rtol"] + 1e-12)


def test_equally_likely_symbols_only_count_the_paths() -> None:
    """(T+U) ln V - ln C(T+U-1, U), modified T ln V - ln C(T, U)."""
    rng = np.random.default_rng(0)
    frames, width = 12, 5
    logits = np.zeros((40, frames, width + 1, 4), np.float32)
    labels = oracles.random_labels(rng, (40, width), 4, 0)
    lengths, counts = rng.integers(1, frames + 1, 40), rng.integers(0, width + 1, 40)
    lengths[0], counts[0] = 10, 2
    batch = oracles.Batch(logits, labels, lengths, counts)
    regular, _ = solve(batch, topology="regular")
    modified, _ = solve(batch, topology="modified")
    np.testing.assert_allclose(regular[0], 12.628199148206, rtol=1e-6)
    for row, (t, u) in enumerate(zip(lengths, counts, strict=True)):
        wanted = (t + u) * np.log(4) - np.log(math.comb(t + u - 1, u))
        np.testing.assert_allclose(regular[row], wanted, rtol=1e-5)
        wanted = t * np.log(4) - np.log(math.comb(t, u)) if u <= t else np.inf
        np.testing.assert_allclose(modified[row], wanted, rtol=1e-5)


def test_a_confident_loss_is_never_negative(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    rows, frames, width = 24, 12, 4
    labels = oracles.random_labels(rng, (rows, width), 4, 0)
    for topology in TOPOLOGIES:
        logits = rng.standard_normal((rows, frames, width + 1, 4))
        boost = rng.choice([15.0, 20.0, 50.0, 1000.0], rows)
        logits[..., 0] += boost[:, None, None]
        for row in range(rows):
            at = np.sort(rng.choice(frames, width, replace=False))
            logits[row, at, np.arange(width), labels[row]] += 2 * boost[row]
        losses, gradient = solve(full_batch(logits, labels, dtype), topology=topology)
        assert np.all(losses >= 0)
        assert losses.max() < 0.1
        assert np.abs(gradient).max() < 0.1
    # The label is certain in the last frame and not needed there if it came before: all paths are.
    logits = rng.standard_normal((48, 2, 2, 2))
    logits[:, 1, 0, 0] = logits[:, :, 1, 1] = -np.inf
    for topology in TOPOLOGIES:
        losses, _ = solve(full_batch(logits, np.ones((48, 1)), dtype), topology=topology)
        assert np.all(losses >= 0)
        assert losses.max() < 20 * np.finfo(dtype).eps


# Edges


@pytest.mark.parametrize(
    ("dtype", "topology"), [("float32", "regular"), ("float64", "modified")], indirect=["dtype"]
)
def test_infeasible_labels_have_an_infinite_loss_and_no_gradient(dtype: Any, topology: str) -> None:
    """No frames, a label of probability 0 everywhere, more labels than frames if modified."""
    logits = np.zeros((4, 2, 4, 3), dtype)
    logits[1, :, 0, 1] = -np.inf
    lengths, counts = np.array([0, 2, 2, 2]), np.array([1, 1, 3, 1])
    batch = oracles.Batch(logits, np.ones((4, 3), int), lengths, counts)
    losses, gradient = solve(batch, topology=topology)
    infeasible = np.array([True, True, topology == "modified", False])
    np.testing.assert_array_equal(np.isposinf(losses), infeasible)
    uses = posterior(batch, topology=topology)
    np.testing.assert_array_equal(np.isneginf(uses["log_likelihood"]), infeasible)
    for part in [gradient, uses["blank"], uses["label"]]:
        used = part.reshape(4, -1).any(1)
        np.testing.assert_array_equal(used, ~infeasible)


def test_an_infinite_loss_becomes_0_if_asked_for() -> None:
    batch = random_batch(4, FLOAT32)
    losses, gradient = solve(batch, topology="regular")
    assert np.isposinf(losses).any()
    nothing, same = solve(batch, topology="regular", zero_infinity=True)
    np.testing.assert_array_equal(nothing, np.where(np.isposinf(losses), 0, losses))
    np.testing.assert_array_equal(same, gradient)


@pytest.mark.parametrize(
    ("dtype", "topology"), [("float32", "regular"), ("float64", "modified")], indirect=["dtype"]
)
def test_what_padding_holds_has_no_influence(dtype: Any, topology: str) -> None:
    batch = oracles.random_batch(9, (B, T, U + 1, V), U, blank=0, zeros=0.0, spread=2.0)
    clean, garbage = cast(batch, dtype), cast(batch, dtype).with_garbage()
    assert np.isnan(garbage.logits).any()
    both = [solve(part, topology=topology) for part in (clean, garbage)]
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)
    both = [posterior(part, topology=topology) for part in (clean, garbage)]
    for name in ["log_likelihood", "blank", "label"]:
        np.testing.assert_array_equal(*(uses[name] for uses in both))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_row_of_nan_stays_alone(topology: str) -> None:
    batch = oracles.random_batch(4, (B, T, U + 1, V), U, blank=0, zeros=0.1, spread=1.0)
    batch = cast(batch, np.float32)
    row = int(np.flatnonzero((batch.logit_lengths > 2) & (batch.label_lengths > 0))[0])
    others = np.arange(B) != row
    logits = np.where(others[:, None, None, None], batch.logits, np.float32(np.nan))
    ill = solve(oracles.Batch(logits, *batch.arguments[1:]), topology=topology)
    for got, wanted in zip(ill, solve(batch, topology=topology), strict=True):
        np.testing.assert_array_equal(got[others], wanted[others])
    assert np.isnan(ill[0][row])


def test_a_row_of_nan_stays_alone_in_the_factored_loss() -> None:
    am, lm, batch = random_factors(FLOAT32)
    row = int(np.flatnonzero((batch.logit_lengths > 2) & (batch.label_lengths > 0))[0])
    others = np.arange(B) != row
    broken = np.where(others[:, None, None], am, np.float32(np.nan))
    clean, ill = (
        factored(part, lm, batch, topology="regular", fast_emit=0.0) for part in (am, broken)
    )
    for got, wanted in zip(ill, clean, strict=True):
        np.testing.assert_allclose(got[others], wanted[others], rtol=1e-5, atol=1e-6)
    assert np.isnan(ill[0][row])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_nothing_to_say_and_no_time_to_say_it(topology: str) -> None:
    """Arrays without labels, without frames, without rows; lengths of 0 and 1."""
    logits = np.random.default_rng(0).standard_normal((3, 4, 1, 3)).astype(np.float32)
    none, lengths = np.zeros((3, 0), int), np.array([4, 1, 0])
    blanks = -oracles.log_softmax(logits)[:, :, 0, 0]
    losses, gradient = LOSS(logits, none, lengths, topology=topology)
    np.testing.assert_allclose(losses, [blanks[0].sum(), blanks[1, 0], 0], rtol=1e-6)
    assert not np.any(np.asarray(gradient)[2])
    am, lm = logits[:, :, 0], np.zeros((3, 1, 3), np.float32)
    losses, _ = FACTORED(am, lm, none, lengths, topology=topology)
    np.testing.assert_allclose(losses, [blanks[0].sum(), blanks[1, 0], 0], rtol=1e-6)
    no_frames = np.zeros((2, 0, 2, 3), np.float32)
    losses, _ = LOSS(no_frames, np.ones((2, 1), int), None, np.array([0, 1]), topology=topology)
    np.testing.assert_array_equal(losses, [0, np.inf])
    if topology == "regular":
        known = POSTERIOR(logits, none, lengths)
        assert known.label.shape == (3, 4, 0)
        np.testing.assert_array_equal(known.blank[:, :, 0], np.arange(4) < lengths[:, None])
        no_rows = np.zeros((0, 4, 3, 3), np.float32)
        losses, gradient = LOSS(no_rows, np.ones((0, 2), int))
        assert losses.shape == (0,) and gradient.shape == (0, 4, 3, 3)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision_is_computed_in_single(kind: Any) -> None:
    batch = oracles.random_batch(8, (B, T, U + 1, V), U, blank=0, zeros=0.1, spread=3.0)
    rest = batch.arguments[1:]
    logits = jnp.asarray(batch.logits, kind)
    am, lm = logits[:, :, 0], logits[:, 0]
    single, am32, lm32 = (np.asarray(part, np.float32) for part in (logits, am, lm))
    cases = [
        (LOSS(logits, *rest), solve(oracles.Batch(single, *rest), topology="regular")),
    ]
    if kind == jnp.bfloat16:
        losses, gradients = FACTORED(am, lm, *rest)
        wanted = factored(am32, lm32, batch, topology="regular", fast_emit=0.0)
        cases.append(((losses, *gradients), wanted))
    for (losses, *gradients), (wanted, *wanted_gradients) in cases:
        assert losses.dtype == jnp.float32
        np.testing.assert_allclose(losses, wanted, rtol=1e-5, atol=1e-6)
        for got, exact in zip(gradients, wanted_gradients, strict=True):
            assert got.dtype == kind
            got = np.asarray(got, np.float32)
            np.testing.assert_allclose(got, exact, rtol=float(jnp.finfo(kind).eps), atol=2e-6)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_all_but_dies_may_be_all_that_survives(dtype: Any, topology: str) -> None:
    """Logits of thousands: probabilities that no floating-point number holds, and the only ones."""
    frames, width, size = 12, 3, 3000.0
    rng = np.random.default_rng(1)
    logits = np.zeros((3, frames, width + 1, 3))
    logits[0, :6, :, 1] = -size  # labels must come early, because later they cannot
    logits[0, 6:, :, 1] = -np.inf
    logits[1, :, 1, 0] = -size  # after the first label blanks are dear
    logits[2] = size * rng.standard_normal(logits.shape[1:])
    batch = full_batch(logits, [[1, 1, 1], [1, 2, 1], [2, 2, 1]], dtype)
    exact = oracles.transducer(batch, topology=topology, row=oracles.transducer_row_by_recursion)
    assert np.sum(exact.log_likelihood < -1000) >= 2
    room = {"rtol": 1e-5, "atol": rounding(batch)["atol"]}
    got = solve(batch, topology=topology)
    assert_exact(got, batch, exact.log_likelihood, exact.gradient, **room)


def test_a_mask_may_be_any_very_negative_number() -> None:
    """Instead of -inf; a row that needs what is masked has an enormous loss, and no NaN."""
    masks = np.repeat([-1e7, -1e9, -1e30, np.finfo(np.float32).min], 2)
    rng = np.random.default_rng(0)
    am, lm = rng.standard_normal((8, 4, 4)), np.zeros((8, 3, 4), np.float32)
    labels = np.array([[1, 2], [1, 3]] * 4)
    answers = []
    for mask in [masks[:, None, None], -np.inf]:
        masked = np.where(np.arange(4) == 3, mask, am).astype(np.float32)
        batch = full_batch(masked[:, :, None] + lm[:, None], labels)
        whole = solve(batch, topology="regular")
        answers.append([whole, factored(masked, lm, batch, topology="regular", fast_emit=0.0)])
    for got, wanted in zip(*answers, strict=True):
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one[::2], other[::2], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(got[0][1], 1e7, rtol=1e-6)
        assert np.all(got[0][3::2] > 9e8)  # infinity will do
        assert all(np.all(np.isfinite(part)) for part in got[1:])


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    strategies.integers(0, 10**6),
    strategies.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    strategies.sampled_from([0.0, 0.3]),
    strategies.sampled_from(["float32", "float64"]),
    strategies.sampled_from(TOPOLOGIES),
    strategies.lists(strategies.integers(0, 12), min_size=5, max_size=5),
    strategies.lists(strategies.integers(0, 6), min_size=5, max_size=5),
)
def test_any_lengths_any_labels_any_logits(
    seed: int,
    spread: float,
    zeros: float,
    kind: str,
    topology: str,
    lengths: list[int],
    counts: list[int],
) -> None:
    batch = oracles.random_batch(seed, (5, 12, 7, 4), 6, blank=1, zeros=zeros, spread=spread)
    logits = batch.logits.astype(kind)
    batch = oracles.Batch(logits, batch.labels, np.array(lengths), np.array(counts))
    row = oracles.transducer_row_by_recursion
    exact = oracles.transducer(batch, blank=1, topology=topology, row=row)
    with enable_x64():
        got = solve(batch, blank=1, topology=topology)
    assert_exact(got, batch, exact.log_likelihood, exact.gradient, **rounding(batch))


# Accuracy


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    ("frames", "width", "room"),
    [(100, 20, 1e-5), pytest.param(1000, 100, 1e-5, marks=pytest.mark.slow)],
)
def test_single_precision_is_close_to_double(
    topology: str, frames: int, width: int, room: float
) -> None:
    rng = np.random.default_rng(frames)
    logits = rng.standard_normal((1, frames, width + 1, 8))
    batch = full_batch(logits, oracles.random_labels(rng, (1, width), 8, 0))
    row = oracles.transducer_row_by_recursion
    exact = oracles.transducer(batch, topology=topology, row=row)

    @jax.jit
    def ask(at: Any) -> Any:
        losses, pullback = jax.vjp(
            lambda at: transducer.loss(at, batch.labels, topology=topology), at
        )
        return losses, pullback(jnp.ones_like(losses))[0]

    losses, gradient = ask(batch.logits)
    np.testing.assert_allclose(losses, -exact.log_likelihood, rtol=1e-6)
    assert np.abs(np.asarray(gradient) - exact.gradient).max() <= room


@pytest.mark.slow
def test_jit_is_eager_at_production_size() -> None:
    rows, frames, width, vocabulary = 4, 200, 40, 64
    rng = np.random.default_rng(0)
    am = rng.standard_normal((rows, frames, vocabulary)).astype(np.float32)
    lm = rng.standard_normal((rows, width + 1, vocabulary)).astype(np.float32)
    labels = oracles.random_labels(rng, (rows, width), vocabulary, 0)
    lengths, counts = rng.integers(100, frames + 1, rows), rng.integers(0, width + 1, rows)
    rest = (labels, lengths, counts)
    batch = oracles.Batch(am[:, :, None] + lm[:, None], *rest)
    for topology in TOPOLOGIES:
        row = oracles.transducer_row_by_recursion
        exact = oracles.transducer(batch, topology=topology, row=row)

        def whole(at: Any, topology: str = topology) -> Any:
            losses, pullback = jax.vjp(lambda at: transducer.loss(at, *rest, topology=topology), at)
            return losses, pullback(jnp.ones_like(losses))[0]

        def factored(am: Any, lm: Any, topology: str = topology) -> Any:
            losses, pullback = jax.vjp(
                lambda *at: transducer.factored_loss(*at, *rest, topology=topology), am, lm
            )
            return losses, pullback(jnp.ones_like(losses))

        for losses, gradient in [jax.jit(whole)(batch.logits), whole(batch.logits)]:
            np.testing.assert_allclose(losses, -exact.log_likelihood, rtol=1e-6)
            np.testing.assert_allclose(gradient, exact.gradient, rtol=0, atol=2e-5)
        for losses, gradients in [jax.jit(factored)(am, lm), factored(am, lm)]:
            np.testing.assert_allclose(losses, -exact.log_likelihood, rtol=1e-6)
            np.testing.assert_allclose(gradients[0], exact.gradient.sum(2), rtol=0, atol=1e-4)
            np.testing.assert_allclose(gradients[1], exact.gradient.sum(1), rtol=0, atol=1e-4)


# Programs


def test_vmap_over_rows_is_a_batch() -> None:
    batch, topology = random_batch(6, FLOAT32), "modified"
    weight = np.linspace(-1, 2, B, dtype=np.float32)

    def one(logits: Any, weight: Any, *rest: Any) -> Any:
        rest = tuple(part[None] for part in rest)
        options = {"topology": topology, "zero_infinity": True}
        return weight * transducer.loss(logits[None], *rest, **options)[0]

    ask = quick(jax.vmap(jax.value_and_grad(one)))
    losses, gradient = ask(batch.logits, weight, *batch.arguments[1:])
    exact = oracles.transducer(batch, topology=topology)
    wanted = np.where(np.isneginf(exact.log_likelihood), 0, -weight * exact.log_likelihood)
    np.testing.assert_allclose(losses, wanted, **rounding(batch))
    wanted = weight[:, None, None, None] * exact.gradient
    np.testing.assert_allclose(gradient, wanted, **rounding(batch))


@pytest.mark.parametrize("topology", ["regular", pytest.param("modified", marks=pytest.mark.slow)])
def test_no_copy_of_the_logits_besides_the_gradient(topology: str) -> None:
    rows, frames, width, vocabulary = 2, 30, 15, 200
    whole = (rows, frames, width + 1, vocabulary)
    room = 4 * int(np.prod(whole)) // 2
    labels = ((rows, width), jnp.int32)

    def gradient(logits: Any, labels: Any) -> Any:
        ask = partial(transducer.loss, topology=topology)
        return jax.value_and_grad(lambda at: ask(at, labels).sum())(logits)

    def careless(logits: Any, labels: Any) -> Any:
        def loss(at: Any) -> Any:
            normalised = jax.nn.log_softmax(at)
            return transducer.loss(normalised, labels, topology=topology).sum()

        return jax.value_and_grad(loss)(logits)

    assert scratch_bytes(gradient, (whole, jnp.float32), labels) < room
    assert scratch_bytes(careless, (whole, jnp.float32), labels) > room

    factors = [((rows, n, vocabulary), jnp.float32) for n in (frames, width + 1)]

    def factored(am: Any, lm: Any, labels: Any) -> Any:
        ask = partial(transducer.factored_loss, topology=topology)
        return jax.value_and_grad(lambda *at: ask(*at, labels).sum(), (0, 1))(am, lm)

    def added(am: Any, lm: Any, labels: Any) -> Any:
        return jax.value_and_grad(
            lambda am, lm: transducer.loss(am[:, :, None] + lm[:, None], labels).sum(), (0, 1)
        )(am, lm)

    assert scratch_bytes(factored, *factors, labels) < room
    assert scratch_bytes(added, *factors, labels) > room


def test_one_program_serves_all_batches_of_a_shape() -> None:
    chex.clear_trace_counter()
    ask = jax.jit(chex.assert_max_traces(transducer.loss, n=1))
    for seed in range(3):
        ask(*random_batch(seed, FLOAT32).arguments)
    small = [
        cast(oracles.random_batch(seed, (2, 3, 3, 3), 2, blank=0, zeros=0, spread=1.0), np.float32)
        for seed in range(3)
    ]
    compiled = [compilations(transducer.loss, *batch.arguments) for batch in small]
    assert compiled[0] > 0 and compiled[1:] == [0, 0], compiled


# What does not fit


def test_inside_jit_labels_and_lengths_that_do_not_fit_make_their_row_nan() -> None:
    logits = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    labels = np.tile([1, 2], (8, 1))
    lengths, counts = np.full(8, 4), np.full(8, 2)
    labels[1, 0], labels[2, 1], labels[3, 1] = 0, 3, -1
    lengths[4], counts[5], lengths[6], counts[7] = 5, 3, -1, -1
    rest = (labels, lengths, counts)
    wrong = np.arange(8) > 0
    for options in [{"topology": "regular"}, {"topology": "modified", "zero_infinity": True}]:
        losses, gradient = LOSS(logits, *rest, **options)
        np.testing.assert_array_equal(np.isnan(losses), wrong)
        assert np.all(np.isfinite(gradient[:1]))
        losses, gradients = FACTORED(logits[:, :, 0], logits[:, 0, :], *rest, **options)
        np.testing.assert_array_equal(np.isnan(losses), wrong)
        assert np.all(np.isfinite(gradients[0][:1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logits": np.zeros((4, 5, 3))}, ["logits"]),
        ({"logits": np.zeros((7, 5, 3, 3))}, ["7", "4"]),
        ({"logits": np.zeros((4, 5, 2, 3))}, ["2", "3"]),  # U+1 nodes for U labels
        ({"logits": np.zeros((4, 5, 3, 3), int)}, ["logits"]),
        ({"labels": np.ones(2, int)}, ["labels"]),
        ({"labels": np.ones((4, 2))}, ["labels"]),
        ({"labels": [[1, 1], [1, 1], [1, 0], [1, 1]]}, ["labels", "2", "1", "blank"]),
        ({"labels": [[1, 1], [1, 1], [1, 1], [99, 1]]}, ["labels", "3", "0", "99"]),
        ({"logit_lengths": [5, 5, 6, 5]}, ["logit_lengths", "2", "6", "5"]),
        ({"logit_lengths": [5, -2, 5, 5]}, ["logit_lengths", "1", "-2"]),
        ({"label_lengths": [2, 2, 2, 3]}, ["label_lengths", "3", "2"]),
        ({"label_lengths": [2, 2]}, ["label_lengths"]),
        ({"blank": 3}, ["blank", "3"]),
        ({"topology": "monotone"}, ["topology", "monotone", "regular", "modified"]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_and_named(change: dict[str, Any], words: list[str]) -> None:
    good = {
        "logits": np.zeros((4, 5, 3, 3)),
        "labels": np.ones((4, 2), int),
        "logit_lengths": np.full(4, 5),
        "label_lengths": np.full(4, 2),
    }
    options = {"topology": change.get("topology", "regular"), "blank": change.get("blank", 0)}
    arrays = {name: np.asarray(value) for name, value in change.items() if name not in options}
    changed = good | arrays | options
    for function in [transducer.loss, transducer.posterior, transducer.align]:
        with pytest.raises(ValueError) as caught:
            function(**changed)
        assert_names(caught, *words)
    if "logits" not in change:
        changed["am"], changed["lm"] = np.zeros((4, 5, 3)), np.zeros((4, 3, 3))
        del changed["logits"]
        with pytest.raises(ValueError) as caught:
            transducer.factored_loss(**changed)
        assert_names(caught, *words)


@pytest.mark.parametrize(
    ("am", "lm", "words"),
    [
        ((4, 5, 3), (4, 3), ["lm"]),
        ((5, 3), (4, 3, 3), ["am"]),
        ((4, 5, 3), (4, 2, 3), ["lm", "2", "3"]),
        ((4, 5, 3), (4, 3, 7), ["am", "lm", "3", "7"]),
        ((4, 5, 3), (6, 3, 3), ["lm", "4", "6"]),
    ],
)
def test_factors_that_do_not_fit_are_refused(
    am: tuple[int, ...], lm: tuple[int, ...], words: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:
        transducer.factored_loss(np.zeros(am), np.zeros(lm), np.ones((4, 2), int))
    assert_names(caught, *words)


def test_the_value_alone_holds_no_copy_of_the_logits() -> None:
    logits = jax.ShapeDtypeStruct((2, 30, 11, 400), jnp.float32)
    labels = np.ones((2, 10), int)
    program = jax.jit(lambda x: transducer.loss(x, labels)).lower(logits).compile()
    scratch = program.memory_analysis().temp_size_in_bytes
    assert scratch < logits.size * 4 / 8
