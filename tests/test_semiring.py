"""Reductions in log space: values, gradients, and minus infinity as a value."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxem import semiring

pytestmark = pytest.mark.numerics

INF, NAN = np.inf, np.nan


def table(dtype: Any) -> np.ndarray:
    """Rows [5, 4] of ordinary, half-impossible, wholly impossible, huge and tiny terms."""
    rows = [[0.5, -1, 2, 0], [-INF, 1, -INF, 3], [-INF] * 4, [3e4, 3e4, -3e4, 0], [-2e4] * 4]
    return np.array(rows, dtype)


def room(dtype: Any) -> dict[str, float]:
    return {"rtol": 8 * np.finfo(dtype).eps, "atol": 8 * np.finfo(dtype).eps}


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_logsumexp_is_the_log_of_the_sum_of_exponentials(dtype: Any, axis: int) -> None:
    a = table(dtype)
    got = semiring.logsumexp(a, axis)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, oracles.logsumexp(a.astype(float), axis), **room(dtype))
    assert axis == 0 or got[2] == -INF


def test_gradient_of_logsumexp_is_softmax_and_zero_where_all_is_impossible(dtype: Any) -> None:
    a = jnp.asarray(table(dtype))
    gradient = jax.grad(lambda a: jnp.sum(semiring.logsumexp(a, 1)[jnp.array([0, 1, 3, 4])]))(a)
    probs, log_total = semiring.softmax(a, 1)
    assert probs.dtype == log_total.dtype == dtype
    exact = np.exp(a - np.where(np.isinf(log_total), 0, log_total)[:, None].astype(float))
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(probs, exact, rtol=0, atol=1e4 * np.finfo(dtype).eps)
    whole = jax.grad(lambda a: jnp.sum(semiring.logsumexp(a, 1)))(a)
    assert jnp.all(whole[2] == 0) and jnp.all(probs[2] == 0)
    # Negative control: the formula without a guard has NaN there.
    naive = jax.grad(lambda a: jnp.sum(jnp.log(jnp.sum(jnp.exp(a), 1))))(a)
    assert jnp.all(jnp.isnan(naive[2]))


@pytest.mark.usefixtures("x64")
def test_second_derivative_of_logsumexp_is_a_covariance_and_finite() -> None:
    for row in [[0.5, -1.0, -INF], [-INF] * 3]:
        got = jax.hessian(lambda a: semiring.logsumexp(a, 0))(jnp.array(row))
        probs = np.exp(row - np.where(np.isneginf(row).all(), 0, np.logaddexp.reduce(row)))
        np.testing.assert_allclose(got, np.diag(probs) - np.outer(probs, probs), atol=1e-15)


def test_nan_stays_nan_in_every_reduction(dtype: Any) -> None:
    a = jnp.array([[0.0, NAN], [-INF, NAN], [1.0, 2.0]], dtype)
    for reduction in [
        lambda a: semiring.logsumexp(a, 1),
        lambda a: semiring.softmax(a, 1)[0][:, 0],
        lambda a: semiring.maximum(a, 1),
        lambda a: semiring.log_normalize(a)[:, 1],
    ]:
        np.testing.assert_array_equal(jnp.isnan(reduction(a)), [True, True, False])
    assert jnp.isnan(semiring.times(jnp.asarray(NAN, dtype), jnp.asarray(1.0, dtype)))
    assert jnp.isnan(semiring.times(jnp.asarray(1.0, dtype), jnp.asarray(NAN, dtype)))
    assert jnp.isnan(semiring.pairwise_sum(jnp.array([1, NAN, 2], dtype)))


def test_maximum_has_a_one_hot_gradient_even_on_ties(dtype: Any) -> None:
    a = jnp.array([[1, 3, 3], [2, 2, 2], [-INF, 0, -INF], [-INF, -INF, -INF]], dtype)
    np.testing.assert_array_equal(semiring.maximum(a, 1), [3, 2, 0, -INF])
    np.testing.assert_array_equal(semiring.maximum(a.T, 0), [3, 2, 0, -INF])
    gradient = jax.grad(lambda a: jnp.sum(semiring.maximum(a, 1)))(a)
    np.testing.assert_array_equal(gradient, [[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_log_normalize_gives_rows_that_sum_to_one_and_leaves_impossible_ones(dtype: Any) -> None:
    got = semiring.log_normalize(jnp.asarray(table(dtype)))
    sums = jnp.sum(jnp.exp(got), 1)
    np.testing.assert_allclose(sums, [1, 1, 0, 1, 1], rtol=1e4 * np.finfo(dtype).eps)
    assert jnp.all(got[2] == -INF)
    np.testing.assert_array_equal(jnp.isneginf(got[1]), [True, False, True, False])
    gradient = jax.grad(lambda a: jnp.sum(semiring.log_normalize(a)[jnp.array([0, 3, 4])]))(
        jnp.asarray(table(dtype))
    )
    assert not jnp.any(jnp.isnan(gradient))


def test_nothing_times_an_infinity_is_nothing(dtype: Any) -> None:
    count = jnp.array([0, 0, 0, 2, 2, 0.5], dtype)
    log_value = jnp.array([-INF, INF, 3, -INF, 3, INF], dtype)
    got = semiring.times(count, log_value)
    np.testing.assert_array_equal(got, [0, 0, 0, -INF, 6, INF])
    gradient = jax.grad(lambda value: jnp.sum(semiring.times(count, value)[:3]))(log_value)
    np.testing.assert_array_equal(gradient, np.zeros(6))


def test_expected_log_is_the_sum_of_counts_times_logs(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (200, 4)).astype(dtype)
    log_value = np.log(rng.dirichlet(np.ones(4), 3))
    log_value[0, 1] = log_value[1, :2] = -INF
    with np.errstate(invalid="ignore"):
        terms = counts[:, None] * log_value
    exact = np.where(counts[:, None] == 0, 0, terms).sum(-1)
    assert np.isneginf(exact).any() and np.isfinite(exact).any()
    got = semiring.expected_log(jnp.asarray(counts), jnp.asarray(log_value, dtype))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, exact, rtol=20 * np.finfo(dtype).eps)


def test_pairwise_sum_adds_any_number_of_terms_along_the_leading_axis(dtype: Any) -> None:
    for n in [0, 1, 2, 3, 7, 100]:
        terms = np.arange(2.0 * n).reshape(n, 2).astype(dtype)
        got = semiring.pairwise_sum(jnp.asarray(terms))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, terms.sum(0))
    assert semiring.pairwise_sum(jnp.array([1, -INF, 2], dtype)) == -INF


def test_pairwise_sum_keeps_digits_that_a_running_sum_loses() -> None:
    terms = np.full(1_000_000, 0.1, np.float32)
    exact = terms.astype(float).sum()
    got = float(jax.jit(semiring.pairwise_sum)(terms))
    running = float(np.cumsum(terms)[-1])
    assert abs(got / exact - 1) < 1e-6
    assert abs(running / exact - 1) > 1e-4  # negative control
