"""The numeric contract on chains: impossible and undeclared data, padding, and very long chains."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from chains import QUESTIONS

from jaxem import chain
from jaxem.chain import NO_STATE, Chain

pytestmark = pytest.mark.numerics

STEPS, STATES = 6, 3
ALL = np.full(4, STEPS)


def ordinary(dtype: Any, batch: int = 4) -> Chain:
    """A batch of possible chains with transitions of their own."""
    rng = np.random.default_rng(0)
    parts = oracles.random_chains(rng, batch, STEPS, STATES, zeros=0.0, spread=1.0)
    return Chain(*(jnp.asarray(part, dtype) for part in parts))


def assert_untouched(answer: Any, clean: Any, spoilt: int) -> None:
    """Chains other than `spoilt` have the answers they have without it."""
    others = [row for row in range(4) if row != spoilt]
    for leaf, wanted in zip(jax.tree.leaves(answer), jax.tree.leaves(clean), strict=True):
        np.testing.assert_allclose(leaf[np.array(others)], wanted[np.array(others)], rtol=1e-5)


def impossible(dtype: Any) -> dict[str, Chain]:
    """The second chain of the batch made impossible in one way or another."""
    c = ordinary(dtype)
    no_way = c.transition.at[1, 2].set(-jnp.inf)
    # States 0 and 1 lead nowhere, 2 cannot be where the chain begins.
    dead_end = c.transition.at[1, :, :2].set(-jnp.inf)
    return {
        "no start": Chain(c.initial.at[1].set(-jnp.inf), c.transition, c.emission),
        "no first sight": Chain(c.initial, c.transition, c.emission.at[1, 0].set(-jnp.inf)),
        "no later sight": Chain(c.initial, c.transition, c.emission.at[1, 4].set(-jnp.inf)),
        "no last sight": Chain(c.initial, c.transition, c.emission.at[1, -1].set(-jnp.inf)),
        "no way": Chain(c.initial, no_way, c.emission),
        "dead end": Chain(
            c.initial.at[1, 2].set(-jnp.inf), dead_end, c.emission.at[1, 3, 2].set(-jnp.inf)
        ),
    }


def test_impossible_chains_have_log_normalizer_minus_infinity_and_counts_of_zero(
    dtype: Any,
) -> None:
    clean = QUESTIONS["posterior"](ordinary(dtype), ALL)
    for batch in impossible(dtype).values():
        log_z, counts = QUESTIONS["posterior"](batch, ALL)
        assert log_z[1] == -jnp.inf
        for part in jax.tree.leaves(counts):
            assert jnp.all(part[1] == 0)
        assert_untouched((log_z, counts), clean, 1)


def test_impossible_chains_have_no_path_no_entropy_and_no_state(dtype: Any) -> None:
    for batch in impossible(dtype).values():
        for name in ["viterbi", "k_best"]:
            score, path = QUESTIONS[name](batch, ALL)
            assert jnp.all(score[1] == -jnp.inf)
            assert jnp.all(path[1] == NO_STATE)
            assert jnp.all(path[0] != NO_STATE)
        assert jnp.all(QUESTIONS["sample"](batch, ALL)[1] == NO_STATE)
        assert QUESTIONS["entropy"](batch, ALL)[1] == 0
        known = QUESTIONS["filter"](batch, ALL)
        assert known.log_normalizer[1] == -jnp.inf
        assert jnp.all(known.filtered[1, -1] == 0)
        assert not jnp.any(jnp.isnan(known.filtered) | jnp.isnan(known.predicted))


@pytest.mark.parametrize("part", ["initial", "transition", "emission"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_undeclared_nan_stays_nan_and_in_its_own_chain(dtype: Any, part: str, sparse: bool) -> None:
    batch = ordinary(dtype)
    if sparse:  # a zero in every chain, which takes away the certainty of a dense matrix
        batch = Chain(batch.initial, batch.transition.at[:, :, 0, 2].set(-jnp.inf), batch.emission)
    place = {"initial": (2, 1), "transition": (2, 3, 1, 0), "emission": (2, 3, 1)}[part]
    parts = {"initial": batch.initial, "transition": batch.transition, "emission": batch.emission}
    parts[part] = parts[part].at[place].set(jnp.nan)
    spoilt = Chain(**parts)
    for name, ask in QUESTIONS.items():
        if name == "sample":
            continue  # integers hold no NaN
        answer, clean = ask(spoilt, ALL), ask(batch, ALL)
        assert_untouched(answer, clean, 2)
        value = answer if name == "entropy" else jax.tree.leaves(answer)[0]
        if name == "filter":
            value = answer.log_normalizer
        assert jnp.all(jnp.isnan(value[2])), name
    counts = QUESTIONS["posterior"](spoilt, ALL)[1]
    assert jnp.all(jnp.isnan(counts.emission[2]))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_padding_has_no_influence_and_a_gradient_of_exactly_zero(
    dtype: Any, garbage: float
) -> None:
    clean = ordinary(dtype)
    lengths = jnp.array([0, 1, 4, STEPS])
    outside = jnp.arange(STEPS) >= lengths[:, None]
    padded = Chain(
        clean.initial,
        jnp.where(outside[:, 1:, None, None], garbage, clean.transition),
        jnp.where(outside[:, :, None], garbage, clean.emission),
    )
    for ask in QUESTIONS.values():
        answer, wanted = ask(padded, lengths), ask(clean, lengths)
        for leaf, other in zip(jax.tree.leaves(answer), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=100 * np.finfo(dtype).eps)
    log_z, gradient = QUESTIONS["posterior"](padded, lengths)
    assert log_z[0] == 0
    assert jnp.all(gradient.initial[0] == 0)
    assert jnp.all(jnp.where(outside[:, :, None], gradient.emission, 0) == 0)
    assert jnp.all(jnp.where(outside[:, 1:, None, None], gradient.transition, 0) == 0)


def long_chain(seed: int, steps: int, states: int, *batch: int) -> Chain:
    """Float32 numbers, so that either dtype is asked about the same chain."""
    rng = np.random.default_rng(seed)
    moves = np.log(rng.dirichlet(np.ones(states), states)).astype(np.float32)
    emission = (3 * rng.standard_normal((*batch, steps, states)) - 2).astype(np.float32)
    return Chain(np.log(np.full(states, 1 / states, np.float32)), moves, emission)


def test_a_million_steps_in_float32_keep_six_digits_of_the_log_normalizer() -> None:
    long = long_chain(0, 1_000_000, 5)
    exact = oracles.blocked_log_normalizer(long.initial, long.transition, long.emission, 1000)
    log_z = jax.jit(chain.log_normalizer)(long)
    assert log_z.dtype == np.float32
    np.testing.assert_allclose(log_z, exact, rtol=1e-6)


@functools.cache
def long_answer(batch: tuple[int, ...], steps: int, states: int) -> tuple[Chain, Any, Chain]:
    """A long chain, or a batch; its log-normaliser and expected counts in NumPy."""
    long = long_chain(1, steps, states, *batch)
    emission = long.emission.reshape(-1, steps, states)
    initial = np.broadcast_to(long.initial, (len(emission), states))
    log_z, seen, moves = oracles.scaled_forward_backward(initial, long.transition, emission)
    counts = Chain(seen[:, 0].sum(0), moves.sum(0), seen.reshape(*batch, steps, states))
    return long, log_z.reshape(batch), counts


@pytest.mark.parametrize(
    ("batch", "steps", "states", "dtype"),
    [
        ((), 100_000, 5, "float32"),
        ((), 100_000, 5, "float64"),
        ((), 10_000, 32, "float32"),
        ((64,), 1000, 8, "float32"),
    ],
    indirect=["dtype"],
)
def test_long_chains_are_the_same_with_and_without_jit_and_in_numpy(
    dtype: Any, batch: tuple[int, ...], steps: int, states: int
) -> None:
    long, wanted_log_z, wanted = long_answer(batch, steps, states)
    long = jax.tree.map(lambda part: part.astype(dtype), long)
    asks = [jax.jit(chain.posterior)]
    if steps == 100_000:
        asks.append(chain.posterior)
    eps = np.finfo(dtype).eps
    for ask in asks:
        log_z, counts = ask(long)
        np.testing.assert_allclose(log_z, wanted_log_z, rtol=10 * eps)
        for name in ["initial", "transition", "emission"]:
            got = getattr(counts, name)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, getattr(wanted, name), rtol=500 * eps, atol=500 * eps)


@pytest.mark.parametrize("name", ["filter", "viterbi"])
def test_other_answers_about_long_chains_are_the_same_with_and_without_jit(name: str) -> None:
    long = long_chain(2, 100_000, 5)
    ask = getattr(chain, name)
    for leaf, other in zip(
        jax.tree.leaves(ask(long)), jax.tree.leaves(jax.jit(ask)(long)), strict=True
    ):
        assert np.mean(~np.isclose(leaf, other, rtol=1e-4, atol=1e-6)) <= 1e-4
