"""CTC's loss, its derivatives and its posterior, against enumeration and published numbers."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import lattice_oracles as oracles
import numpy as np
import pytest
from chains import quick, tolerance
from conftest import enable_x64
from hypothesis import given, settings, strategies
from lattices import (
    FLOAT32,
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

from jaxem import ctc

pytestmark = pytest.mark.numerics

B, T, V, L = 60, 5, 4, 3
LOSS = value_and_gradient(ctc.loss)
LOSS_FROM_LOG_PROBS = value_and_gradient(ctc.loss_from_log_probs)
POSTERIOR = hastily(ctc.posterior, "blank")


def solve(batch: oracles.Batch, *, blank: int = 0, ask: Any = LOSS, **options: Any) -> Any:
    """Losses and gradient of a small batch, by the programs that all small batches share."""
    wide = Widened(batch, blank)
    losses, gradient = ask(*wide.batch.arguments, blank=wide.blank, **options)
    return np.asarray(losses)[: wide.rows], wide.gradient(gradient)


def posterior(batch: oracles.Batch, *, blank: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods and states of a small batch, likewise."""
    wide = Widened(batch, blank)
    known = POSTERIOR(*wide.batch.arguments, blank=wide.blank)
    states = np.asarray(known.states)
    np.testing.assert_array_equal(known.labels, states[:, :, 1::2])
    np.testing.assert_array_equal(known.blanks, states[:, :, ::2])
    inside = (slice(wide.rows), slice(wide.frames), slice(2 * wide.labels + 1))
    return np.asarray(known.log_likelihood)[: wide.rows], only(states, inside)


def random_batch(dtype: Any, *, blank: int = 0, shift: float = 0.0) -> oracles.Batch:
    """A batch of all lengths, with impossible symbols and garbage for padding."""
    batch = oracles.random_batch(blank, (B, T, V), L, blank=blank, zeros=0.15, spread=2.0)
    logits = (batch.logits + shift).astype(dtype)
    rest = (batch.labels, batch.logit_lengths, batch.label_lengths)
    return oracles.Batch(logits, *rest).with_garbage()


# Against enumeration


@pytest.mark.parametrize("blank", [0, 2])
def test_loss_and_gradient_are_those_of_enumeration(dtype: Any, blank: int) -> None:
    """The gradient with respect to logits is the softmax minus the posterior."""
    batch = random_batch(dtype, blank=blank)
    exact = oracles.ctc(batch, blank=blank)
    assert 0.1 < np.isneginf(exact.log_likelihood).mean() < 0.6
    got = solve(batch, blank=blank)
    assert_exact(got, batch, exact.log_likelihood, exact.gradient, **rounding(batch))
    # Negative control: another blank is another loss.
    wrong = oracles.ctc(batch, blank=blank + 1)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong.log_likelihood, exact.log_likelihood, rtol=0.1)


def test_gradient_with_respect_to_log_probabilities_is_minus_the_posterior(dtype: Any) -> None:
    """Whether or not they are normalised: all of a distribution need not be among the symbols."""
    batch = random_batch(dtype, shift=-6.0)
    exact = oracles.ctc(batch, normalise=False)
    got = solve(batch, ask=LOSS_FROM_LOG_PROBS)
    assert_exact(got, batch, exact.log_likelihood, -exact.symbols, **rounding(batch))
    assert not np.any(got[1][exact.symbols == 0])


@pytest.mark.parametrize("blank", [0, 2])
def test_posterior_is_that_of_enumeration(dtype: Any, blank: int) -> None:
    batch = random_batch(dtype, blank=blank)
    exact = oracles.ctc(batch, blank=blank)
    log_likelihood, states = posterior(batch, blank=blank)
    assert log_likelihood.dtype == states.dtype == dtype
    np.testing.assert_allclose(log_likelihood, exact.log_likelihood, **rounding(batch))
    np.testing.assert_allclose(states, exact.states, **rounding(batch))
    assert not np.any(states[exact.states == 0])
    assert np.all(states >= 0)


# Derivatives


def small_batch() -> oracles.Batch:
    """Rows of every kind, infeasible ones and ones without frames or labels included."""
    batch = oracles.random_batch(3, (9, 4, 3), 2, blank=0, zeros=0.15, spread=1.0)
    lengths, counts = np.array([4, 4, 4, 3, 1, 0, 0, 4, 3]), np.array([2, 1, 0, 2, 2, 0, 1, 2, 1])
    labels = np.array([[1, 2], [2, 1], [1, 1], [1, 1], [1, 2], [1, 2], [1, 2], [2, 2], [2, 2]])
    return oracles.Batch(batch.logits - 4, labels, lengths, counts).with_garbage()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("normalise", [True, False], ids=["loss", "loss_from_log_probs"])
def test_gradient_is_the_difference_of_the_loss(normalise: bool) -> None:
    batch = small_batch()

    def feasible_losses(flat: np.ndarray) -> np.ndarray:
        exact = oracles.ctc(copies(batch, flat), normalise=normalise)
        losses = -exact.log_likelihood.reshape(len(flat), -1)
        return np.where(np.isposinf(losses), 0, losses).sum(1, keepdims=True)

    wanted = central_differences(feasible_losses, batch.logits.ravel(), 1e-5)[:, 0]
    _, gradient = solve(batch, ask=LOSS if normalise else LOSS_FROM_LOG_PROBS)
    np.testing.assert_allclose(gradient.ravel(), wanted, rtol=0, atol=1e-8)
    assert np.abs(wanted).max() > 0.3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "outer", "objective"),
    [
        (ctc.loss, jax.jacrev, "squares"),
        (ctc.loss_from_log_probs, jax.jacfwd, "sum"),
        pytest.param(ctc.loss, jax.jacfwd, "sum", marks=pytest.mark.slow),
        pytest.param(ctc.loss_from_log_probs, jax.jacrev, "squares", marks=pytest.mark.slow),
    ],
    ids=["loss twice reverse", "log-probs forward", "loss forward", "log-probs twice reverse"],
)
def test_second_derivatives_are_the_differences_of_the_gradient(
    loss: Any, outer: Any, objective: str
) -> None:
    """Of the sum of the losses, infinite as it is; of one in which the cotangents have a slope."""
    batch = small_batch()

    def value(flat: Any) -> Any:
        logits = flat.reshape(batch.logits.shape)
        if objective == "sum":
            return jnp.sum(loss(logits, *batch.arguments[1:]))
        return 0.5 * jnp.sum(loss(logits, *batch.arguments[1:], zero_infinity=True) ** 2)

    def exact_gradient(flat: np.ndarray) -> np.ndarray:
        normalise = loss is ctc.loss
        exact = oracles.ctc(copies(batch, flat), normalise=normalise)
        losses = np.where(np.isneginf(exact.log_likelihood), 0, -exact.log_likelihood)
        slope = exact.gradient if normalise else -exact.symbols
        weight = 1 if objective == "sum" else losses[:, None, None]
        return (weight * slope).reshape(len(flat), -1)

    at = batch.logits.ravel()
    got = np.asarray(quick(outer(jax.jacrev(value)))(at))
    wanted = central_differences(exact_gradient, at, 1e-5)
    assert np.all(np.isfinite(got))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8)
    assert np.abs(wanted).max() > 0.2
    assert not np.any(got[~np.isfinite(at)]) and not np.any(got[:, ~np.isfinite(at)])


# Published and closed-form numbers


def test_loss_is_what_others_have_published(dtype: Any) -> None:
    # warp-ctc's first test
    logits = [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1]]
    loss, gradient = solve(full_batch([logits], [[1, 2]], dtype))
    np.testing.assert_allclose(loss, 2.462858391547, rtol=max(1e-12, tolerance(dtype)["rtol"]))
    wanted = np.full((1, 2, 5), 0.1770312168)
    wanted[0, 0, 1] = wanted[0, 1, 2] = -0.7081248673
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6)
    # the library of graph transformer networks
    with np.errstate(divide="ignore"):
        certain = np.log([[[1, 0], [0, 1], [1, 0]]])
    loss, gradient = solve(full_batch(certain, [[0, 0]], dtype), blank=1)
    assert loss[0] == 0 and not np.any(gradient)
    loss, _ = solve(full_batch(np.zeros((1, 3, 4)), [[1, 2]], dtype), blank=3)
    np.testing.assert_allclose(loss, 2.5494451709, rtol=max(1e-10, tolerance(dtype)["rtol"]))


GRAVES = [
    (
        [0, 1, 2, 1, 0],
        3.34211,
        [
            [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
            [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
            [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
            [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
            [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
        ],
    ),
    (
        [0, 1, 1, 0],
        5.42262,
        [
            [0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
            [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
            [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
            [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
            [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
        ],
    ),
]


def test_graves_own_examples_padded_with_frames_of_nan() -> None:
    log_probs = np.full((2, 7, 6), np.nan, np.float32)
    labels = np.full((2, 5), -1)
    for row, (label, _, probs) in enumerate(GRAVES):
        log_probs[row, :5] = np.log(probs)
        labels[row, : len(label)] = label
    counts = np.array([len(label) for label, _, _ in GRAVES])
    batch = oracles.Batch(log_probs, labels, np.full(2, 5), counts)
    for ask in [LOSS, LOSS_FROM_LOG_PROBS]:
        losses, gradient = solve(batch, blank=5, ask=ask)
        np.testing.assert_allclose(losses, [loss for _, loss, _ in GRAVES], rtol=3e-6)
        assert np.all(np.isfinite(gradient))
        assert not np.any(gradient[:, 5:])


def test_equally_likely_symbols_only_count_the_alignments() -> None:
    """T ln V minus the log of C(T+L-r, T-L-r), r adjacent equal labels."""
    rng = np.random.default_rng(5)
    frames, width, vocabulary = 12, 6, 5
    labels = oracles.random_labels(rng, (40, width), vocabulary, 0)
    lengths, counts = rng.integers(0, frames + 1, 40), rng.integers(0, width + 1, 40)
    logits = np.zeros((40, frames, vocabulary), np.float32)
    losses, _ = solve(oracles.Batch(logits, labels, lengths, counts))
    same = [np.sum(y[1:n] == y[: max(n - 1, 0)]) for y, n in zip(labels, counts, strict=True)]
    for loss, t, n, r in zip(losses, lengths, counts, same, strict=True):
        ways = math.comb(t + n - r, t - n - r) if t >= n + r else 0
        wanted = t * np.log(vocabulary) - np.log(ways) if ways else np.inf
        np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-5)


def test_a_long_sum_keeps_its_digits_in_float32() -> None:
    logits, labels = np.zeros((1, 20_000, 5), np.float32), np.array([[1, 2, 3, 4]])
    known = POSTERIOR(logits, labels)
    np.testing.assert_allclose(known.log_likelihood, -32120.134751, rtol=1e-6)
    states = np.asarray(known.states)[0]
    np.testing.assert_allclose(states.sum(1), 1, rtol=0, atol=1e-4)
    np.testing.assert_allclose(states, states[::-1, ::-1], rtol=0, atol=1e-4)  # nothing is special
    assert np.all(states >= 0)


def test_a_confident_loss_is_never_negative(dtype: Any) -> None:
    loss, _ = solve(full_batch([[[0, 17], [0, 17]]], [[1]], dtype))
    assert loss[0] >= 0
    np.testing.assert_allclose(loss, 1.713908e-15, rtol=0, atol=20 * np.finfo(dtype).eps)
    rng = np.random.default_rng(2)
    path = np.array([1, 0, 2, 2, 0, 2, 3, 3, 0, 4, 0, 0])
    logits = rng.standard_normal((60, len(path), 5))
    logits[:, np.arange(len(path)), path] += rng.choice([12, 20, 50, 1000], (60, 1))
    losses, gradient = solve(full_batch(logits, np.tile([1, 2, 2, 3, 4], (60, 1)), dtype))
    assert np.all(losses >= 0)
    assert losses.max() < 0.1
    assert np.abs(gradient).max() < 0.1
    # The label is certain in the middle and as good as the blank elsewhere: all paths are its.
    logits = rng.standard_normal((60, 3, 2))
    logits[:, 1, 0] = -np.inf
    losses, _ = solve(full_batch(logits, np.ones((60, 1)), dtype))
    assert np.all(losses >= 0)
    assert losses.max() < 20 * np.finfo(dtype).eps


# Edges


def test_infeasible_labels_have_an_infinite_loss_and_no_gradient(dtype: Any) -> None:
    """Too few frames, or a label of probability 0 everywhere."""
    logits = np.zeros((4, 2, 3), dtype)
    logits[2, :, 1] = -np.inf
    labels = np.array([[1, 1], [1, 2], [1, -1], [2, -1]])
    batch = oracles.Batch(logits, labels, np.array([2, 1, 2, 2]), np.array([2, 2, 1, 1]))
    losses, gradient = solve(batch)
    assert np.all(np.isposinf(losses[:3])) and np.isfinite(losses[3])
    assert not np.any(gradient[:3]) and np.any(gradient[3])
    log_likelihood, states = posterior(batch)
    assert np.all(np.isneginf(log_likelihood[:3]))
    assert not np.any(states[:3]) and np.any(states[3])


def test_an_infinite_loss_becomes_0_if_asked_for() -> None:
    batch = random_batch(FLOAT32)
    for ask in [LOSS, LOSS_FROM_LOG_PROBS]:
        losses, gradient = solve(batch, ask=ask)
        assert np.isposinf(losses).any()
        nothing, same = solve(batch, ask=ask, zero_infinity=True)
        np.testing.assert_array_equal(nothing, np.where(np.isposinf(losses), 0, losses))
        np.testing.assert_array_equal(same, gradient)


def test_what_padding_holds_has_no_influence(dtype: Any) -> None:
    clean = cast(oracles.random_batch(9, (B, T, V), L, blank=0, zeros=0.0, spread=2.0), dtype)
    garbage = clean.with_garbage()
    assert np.isnan(garbage.logits).any()
    for one, other in zip(solve(clean), solve(garbage), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(posterior(clean), posterior(garbage), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_row_of_nan_stays_alone(dtype: Any) -> None:
    batch = cast(oracles.random_batch(4, (B, T, V), L, blank=0, zeros=0.1, spread=1.0), dtype)
    row = int(np.flatnonzero(batch.logit_lengths > 2)[0])
    others = np.arange(B) != row
    logits = np.where((np.arange(B) == row)[:, None, None], np.nan, batch.logits).astype(dtype)
    broken = oracles.Batch(logits, *batch.arguments[1:])
    for ask in [solve, posterior]:
        clean, ill = ask(batch), ask(broken)
        for got, wanted in zip(ill, clean, strict=True):
            np.testing.assert_array_equal(got[others], wanted[others])
        assert np.isnan(ill[0][row])


def test_nothing_to_say_and_no_time_to_say_it() -> None:
    """Arrays without labels, without frames, without rows; lengths of 0 and 1."""
    logits = np.random.default_rng(0).standard_normal((3, 4, 3)).astype(np.float32)
    none, lengths = np.zeros((3, 0), int), np.array([4, 1, 0])
    blanks = -oracles.log_softmax(logits)[:, :, 0]
    losses, gradient = LOSS(logits, none, lengths)
    np.testing.assert_allclose(losses, [blanks[0].sum(), blanks[1, 0], 0], rtol=1e-6)
    assert not np.any(np.asarray(gradient)[2])
    known = POSTERIOR(logits, none, lengths)
    assert known.states.shape == (3, 4, 1) and known.labels.shape == (3, 4, 0)
    np.testing.assert_array_equal(known.states[:, :, 0], np.arange(4) < lengths[:, None])
    empty = np.zeros((2, 0, 3), np.float32)
    losses, _ = LOSS(empty, np.ones((2, 1), int), None, np.array([0, 1]))
    np.testing.assert_array_equal(losses, [0, np.inf])
    losses, gradient = LOSS(logits[:0], np.ones((0, 2), int))
    assert losses.shape == (0,) and gradient.shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("kind", "ask"),
    [(jnp.bfloat16, LOSS), (jnp.float16, LOSS), (jnp.bfloat16, LOSS_FROM_LOG_PROBS)],
    ids=["bfloat16", "float16", "bfloat16 log-probs"],
)
def test_half_precision_is_computed_in_single(kind: Any, ask: Any) -> None:
    batch = oracles.random_batch(8, (B, T, V), L, blank=0, zeros=0.1, spread=3.0)
    logits = jnp.asarray(batch.logits - 8, kind)
    losses, gradient = ask(logits, *batch.arguments[1:])
    assert losses.dtype == jnp.float32 and gradient.dtype == kind
    single = oracles.Batch(np.asarray(logits, np.float32), *batch.arguments[1:])
    wanted, wanted_gradient = solve(single, ask=ask)
    np.testing.assert_allclose(losses, wanted, rtol=1e-6)
    gradient = np.asarray(gradient, np.float32)
    room = float(jnp.finfo(kind).eps)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=room, atol=1e-6)


def test_what_all_but_dies_may_be_all_that_survives(dtype: Any) -> None:
    """Logits of thousands: probabilities that no floating-point number holds, and the only ones."""
    frames, size = 12, 3000.0
    logits = np.zeros((4, frames, 3))
    logits[0, :6, 1] = -size  # the label must come early, because later it cannot
    logits[0, 6:, 1] = -np.inf
    logits[1, :, 0] = -size  # blanks are dear, but two equal labels need one between them
    logits[2, :8, 2] = size  # the second label shouts while the first must whisper
    logits[3] = size * np.random.default_rng(1).standard_normal((frames, 3))
    batch = full_batch(logits, [[1, 2], [1, 1], [1, 2], [1, 2]], dtype)
    exact = oracles.ctc(batch, row=oracles.ctc_row_by_recursion)
    assert exact.log_likelihood.max() < -1000
    room = {"rtol": 1e-5, "atol": rounding(batch)["atol"]}
    assert_exact(solve(batch), batch, exact.log_likelihood, exact.gradient, **room)
    np.testing.assert_allclose(posterior(batch)[1], exact.states, **room)


def test_a_mask_may_be_any_very_negative_number(dtype: Any) -> None:
    """Instead of -inf; a row that needs what is masked has an enormous loss, and no NaN."""
    masks = np.repeat([-1e7, -1e9, -1e30, np.finfo(dtype).min], 2)
    logits = np.random.default_rng(0).standard_normal((8, 5, 4))
    labels = np.array([[1, 2], [1, 3]] * 4)
    (losses, gradient), (wanted, wanted_gradient) = (
        solve(full_batch(np.where(np.arange(4) == 3, mask, logits), labels, dtype))
        for mask in (masks[:, None, None], -np.inf)
    )
    np.testing.assert_allclose(losses[::2], wanted[::2], **tolerance(dtype))
    np.testing.assert_allclose(gradient[::2], wanted_gradient[::2], **tolerance(dtype))
    np.testing.assert_allclose(losses[1], 1e7, rtol=1e-6)
    assert np.all(losses[3::2] > 9e8)  # infinity will do
    assert np.all(np.isfinite(gradient))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    strategies.integers(0, 10**6),
    strategies.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    strategies.sampled_from([0.0, 0.3]),
    strategies.sampled_from(["float32", "float64"]),
    strategies.lists(strategies.integers(0, 12), min_size=6, max_size=6),
    strategies.lists(strategies.integers(0, 6), min_size=6, max_size=6),
)
def test_any_lengths_any_labels_any_logits(
    seed: int, spread: float, zeros: float, kind: str, lengths: list[int], counts: list[int]
) -> None:
    batch = oracles.random_batch(seed, (6, 12, 5), 6, blank=1, zeros=zeros, spread=spread)
    logits = batch.logits.astype(kind)
    batch = oracles.Batch(logits, batch.labels, np.array(lengths), np.array(counts))
    exact = oracles.ctc(batch, blank=1, row=oracles.ctc_row_by_recursion)
    with enable_x64():
        got = solve(batch, blank=1)
    assert_exact(got, batch, exact.log_likelihood, exact.gradient, **rounding(batch))


# Accuracy


def long_batch(frames: int, width: int, vocabulary: int) -> oracles.Batch:
    """A row of random logits, and one that a trained network might have made."""
    rng = np.random.default_rng(frames)
    logits = rng.standard_normal((2, frames, vocabulary))
    labels = oracles.random_labels(rng, (2, width), vocabulary, 0)
    said = np.sort(rng.choice(frames // 2, width, replace=False)) * 2
    logits[1, :, 0] += 6
    logits[1, said, labels[1]] += rng.uniform(4, 14, width)
    return full_batch(logits, labels)


@pytest.mark.parametrize(
    ("frames", "width", "room"),
    [
        (400, 60, 1e-5),
        pytest.param(1500, 150, 1e-5, marks=pytest.mark.slow),
        pytest.param(10_000, 1000, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_single_precision_is_close_to_double(frames: int, width: int, room: float) -> None:
    batch = long_batch(frames, width, 32)
    exact = oracles.ctc(batch, row=oracles.ctc_row_by_recursion)
    losses, gradient = value_and_gradient(ctc.loss)(batch.logits, batch.labels)
    np.testing.assert_allclose(losses, -exact.log_likelihood, rtol=1e-6)
    error = np.abs(np.asarray(gradient) - exact.gradient).max((1, 2))
    assert np.all(error <= room), error


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 100, 64, 30), (16, 1000, 100, 100)])
def test_jit_is_eager_at_production_size(size: tuple[int, int, int, int]) -> None:
    """Programs are compiled with all their optimisations here, unlike elsewhere."""
    rows, frames, vocabulary, width = size
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((rows, frames, vocabulary)).astype(np.float32)
    labels = oracles.random_labels(rng, (rows, width), vocabulary, 0)
    lengths, counts = rng.integers(frames // 2, frames + 1, rows), rng.integers(0, width + 1, rows)
    batch = oracles.Batch(logits, labels, lengths, counts).with_garbage()
    exact = oracles.ctc(batch, row=oracles.ctc_row_by_recursion)

    def ask(at: Any) -> Any:
        losses, pullback = jax.vjp(lambda at: ctc.loss(at, *batch.arguments[1:]), at)
        return losses, pullback(jnp.ones_like(losses))[0]

    for losses, gradient in [jax.jit(ask)(batch.logits), ask(batch.logits)]:
        np.testing.assert_allclose(losses, -exact.log_likelihood, rtol=1e-6)
        np.testing.assert_allclose(gradient, exact.gradient, rtol=0, atol=2e-5)
    if frames <= 100:  # one operation at a time takes minutes beyond
        with jax.disable_jit():
            losses = ctc.loss(*batch.arguments)
        np.testing.assert_allclose(losses, -exact.log_likelihood, rtol=1e-6)


# Programs


def test_vmap_over_rows_is_a_batch() -> None:
    batch = random_batch(FLOAT32)
    weight = np.linspace(-1, 2, B, dtype=np.float32)

    def one(logits: Any, weight: Any, *rest: Any) -> Any:
        rest = tuple(part[None] for part in rest)
        return weight * ctc.loss(logits[None], *rest, zero_infinity=True)[0]

    ask = quick(jax.vmap(jax.value_and_grad(one)))
    losses, gradient = ask(batch.logits, weight, *batch.arguments[1:])
    exact = oracles.ctc(batch)
    wanted = np.where(np.isneginf(exact.log_likelihood), 0, -weight * exact.log_likelihood)
    np.testing.assert_allclose(losses, wanted, **rounding(batch))
    wanted = weight[:, None, None] * exact.gradient
    np.testing.assert_allclose(gradient, wanted, **rounding(batch))


def test_no_array_of_frames_by_labels_by_vocabulary() -> None:
    rows, frames, vocabulary, width = 2, 100, 200, 40
    shapes = [((rows, frames, vocabulary), jnp.float32), ((rows, width), jnp.int32)]
    states = rows * frames * (2 * width + 1)
    room = 4 * (8 * states + 3 * rows * frames * vocabulary)
    assert room < 4 * rows * frames * width * vocabulary / 2

    def gradient(logits: Any, labels: Any) -> Any:
        return jax.value_and_grad(lambda at: ctc.loss(at, labels).sum())(logits)

    def careless(logits: Any, labels: Any) -> Any:
        said = jax.nn.one_hot(labels, vocabulary)
        return jnp.sort(said[:, :, None] * logits[:, None], -1)[..., 0]

    assert scratch_bytes(gradient, *shapes) < room
    assert scratch_bytes(careless, *shapes) > room


def test_one_program_serves_all_batches_of_a_shape() -> None:
    chex.clear_trace_counter()
    ask = jax.jit(chex.assert_max_traces(ctc.loss, n=1))
    batches = [
        cast(oracles.random_batch(seed, (2, 4, 3), 2, blank=0, zeros=0, spread=1.0), np.float32)
        for seed in range(3)
    ]
    for batch in batches:
        ask(*batch.arguments)
    # Nor does a call outside jit compile anew.
    compiled = [compilations(ctc.loss, *batch.arguments) for batch in batches]
    assert compiled[0] > 0 and compiled[1:] == [0, 0], compiled


# What does not fit


def test_inside_jit_labels_and_lengths_that_do_not_fit_make_their_row_nan() -> None:
    logits = np.random.default_rng(0).standard_normal((8, 4, 3)).astype(np.float32)
    labels = np.tile([1, 2], (8, 1))
    lengths, counts = np.full(8, 4), np.full(8, 2)
    labels[1, 0], labels[2, 1], labels[3, 1] = 0, 3, -1
    lengths[4], counts[5], lengths[6], counts[7] = 5, 3, -1, -1
    exact = oracles.ctc(oracles.Batch(logits, labels, lengths.clip(0, 4), np.array([2] + [0] * 7)))
    for zero_infinity in [False, True]:
        losses, gradient = LOSS(logits, labels, lengths, counts, zero_infinity=zero_infinity)
        np.testing.assert_array_equal(np.isnan(losses), np.arange(8) > 0)
        np.testing.assert_allclose(losses[0], -exact.log_likelihood[0], rtol=1e-6)
        np.testing.assert_allclose(gradient[0], exact.gradient[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logits": np.zeros((5, 3))}, ["logits"]),
        ({"logits": np.zeros((7, 5, 3))}, ["7", "4"]),
        ({"logits": np.zeros((4, 5, 3), int)}, ["logits"]),
        ({"labels": np.ones(2, int)}, ["labels"]),
        ({"labels": np.ones((4, 2))}, ["labels"]),
        ({"labels": [[1, 1], [1, 1], [1, 0], [1, 1]]}, ["labels", "2", "1", "blank"]),
        ({"labels": [[1, 1], [1, 1], [1, 1], [99, 1]]}, ["labels", "3", "0", "99"]),
        ({"labels": [[1, 1], [1, -7], [1, 1], [1, 1]]}, ["labels", "1", "-7"]),
        ({"logit_lengths": [5, 5, 6, 5]}, ["logit_lengths", "2", "6", "5"]),
        ({"logit_lengths": [5, -2, 5, 5]}, ["logit_lengths", "1", "-2"]),
        ({"logit_lengths": [5, 5]}, ["logit_lengths"]),
        ({"logit_lengths": [5.0, 5.0, 5.0, 5.0]}, ["logit_lengths"]),
        ({"label_lengths": [2, 2, 2, 3]}, ["label_lengths", "3", "2"]),
        ({"label_lengths": [[2, 2, 2, 2]]}, ["label_lengths"]),
        ({"blank": 3}, ["blank", "3"]),
        ({"blank": -1}, ["blank", "-1"]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_and_named(change: dict[str, Any], words: list[str]) -> None:
    good = {
        "logits": np.zeros((4, 5, 3)),
        "labels": np.ones((4, 2), int),
        "logit_lengths": np.full(4, 5),
        "label_lengths": np.full(4, 2),
    }
    changed = good | {name: np.asarray(value) for name, value in change.items()}
    changed["blank"] = change.get("blank", 0)
    for function in [ctc.loss, ctc.posterior, ctc.align]:
        with pytest.raises(ValueError) as caught:
            function(**changed)
        assert_names(caught, *words)
    changed["log_probs"] = changed.pop("logits")
    with pytest.raises(ValueError) as caught:
        ctc.loss_from_log_probs(**changed)
    assert_names(caught, *("log_probs" if word == "logits" else word for word in words))


def test_labels_that_do_not_fit_beyond_their_length_are_welcome() -> None:
    labels = np.array([[1, 0, 99], [2, -3, 10**6]])
    losses = ctc.loss(np.zeros((2, 4, 3), np.float32), labels, None, np.array([1, 1]))
    np.testing.assert_allclose(losses, 4 * np.log(3) - np.log(10), rtol=1e-6)


@pytest.mark.parametrize("rows", [8, 9, 17])
def test_rows_are_the_same_in_any_batch(rows: int) -> None:
    """Around the number of rows that a CPU takes at a time."""
    rng = np.random.default_rng(rows)
    logits = rng.normal(size=(rows, 7, 4)).astype(np.float32)
    labels, lengths = rng.integers(1, 4, (rows, 3)), rng.integers(0, 8, rows)
    ask = jax.jit(lambda x: jax.vjp(lambda x: ctc.loss(x, labels, lengths), x)[1](weight)[0])
    weight = jnp.arange(1.0, rows + 1)
    one = jax.jit(jax.grad(lambda *row: ctc.loss(*row)[0]))
    alone = [
        one(logits[i : i + 1], labels[i : i + 1], lengths[i : i + 1]) * weight[i]
        for i in range(rows)
    ]
    np.testing.assert_allclose(ask(logits), np.concatenate(alone), rtol=1e-5, atol=1e-5)
    expected = ctc.posterior(logits, labels, lengths)
    best = ctc.align(logits, labels, lengths)
    for i in (0, rows // 2, rows - 1):
        row = slice(i, i + 1)
        one = ctc.posterior(logits[row], labels[row], lengths[row])
        np.testing.assert_allclose(expected.states[row], one.states, atol=1e-6)
        np.testing.assert_array_equal(
            best.path[row], ctc.align(logits[row], labels[row], lengths[row]).path
        )


def test_nan_past_the_end_is_in_no_derivative_of_the_posterior_and_no_cotangent_gets_there() -> (
    None
):
    logits = np.zeros((1, 4, 3), np.float32)
    logits[:, 3:] = np.nan
    labels, lengths = np.array([[1, 2]]), np.array([3])

    def likelihood(logits: Any) -> Any:
        return ctc.posterior(logits, labels, lengths).log_likelihood.sum()

    slope = jax.grad(likelihood)(logits)
    loss_slope = jax.grad(lambda x: ctc.loss(x, labels, lengths).sum())(logits)
    np.testing.assert_allclose(slope, -loss_slope, atol=1e-6)
    _, pullback = jax.vjp(lambda x: ctc.loss(x, labels, lengths), logits)
    for cotangent in (np.inf, np.nan):
        there = pullback(jnp.full(1, cotangent, jnp.float32))[0]
        assert not np.any(there[:, 3:]) and not np.all(np.isfinite(there[:, :3]))
