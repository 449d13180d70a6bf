"""The worked examples: genetic linkage against its published numbers, a Gaussian three ways."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem.comparison.ascent import adam, lbfgs, newton
from jaxem.comparison.examples import LINKAGE, Gaussian, Linkage, gaussian_mle, gaussian_mle_by
from jaxem.em import cast

FIXED_POINT = (15 + np.sqrt(53809)) / 394


def em_step(model: Linkage, data: Any = LINKAGE) -> Linkage:
    return model.m_step(model.e_step(data)[0])


def second_derivative(function: Callable[[Linkage], Any]) -> float:
    """With respect to θ, at the fixed point."""
    hessian = jax.jit(jax.hessian(lambda theta: function(Linkage.from_theta(theta))))
    return float(hessian(FIXED_POINT))


# Linkage: the published numbers


def test_linkage_follows_the_published_path(x64):
    path = [0.608247423, 0.624321050, 0.626488879, 0.626777322]
    path += [0.626815632, 0.626820719, 0.626821394, 0.626821484]
    model, found = Linkage.from_theta(0.5), []
    for _ in path:
        model = em_step(model)
        found.append(float(model.theta))
    np.testing.assert_allclose(found, path, rtol=0, atol=6e-10)


def test_linkage_has_the_published_fixed_point_and_maximum(x64):
    result = jaxem.fit(Linkage.from_theta(0.5), LINKAGE, tol=0.0, max_steps=30)
    assert result.converged and result.largest_fall == 0 and result.num_parameters == 1
    np.testing.assert_allclose(result.model.theta, FIXED_POINT, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.log_likelihood, 67.384102095, rtol=0, atol=6e-10)
    still = Linkage.from_theta(FIXED_POINT)
    np.testing.assert_allclose(em_step(still).theta, FIXED_POINT, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        jax.grad(lambda m: m.log_likelihood(LINKAGE))(still).logit, 0, atol=1e-13
    )


def test_linkage_has_the_published_information_rate_and_standard_error(x64):
    still = Linkage.from_theta(FIXED_POINT)
    stats, _ = still.e_step(LINKAGE)
    observed = -second_derivative(lambda model: model.log_likelihood(LINKAGE))
    complete = -second_derivative(lambda model: still.expected_log_prob(stats, model))
    missing = second_derivative(lambda model: still.posterior_divergence(LINKAGE, model))
    np.testing.assert_allclose(observed, 377.516900, rtol=0, atol=6e-7)
    np.testing.assert_allclose(complete, 435.317854, rtol=0, atol=6e-7)
    np.testing.assert_allclose(missing, 57.800953, rtol=0, atol=6e-7)
    em_map = jax.grad(lambda theta: em_step(Linkage.from_theta(theta)).theta)
    rate = jax.jit(em_map)(FIXED_POINT)
    np.testing.assert_allclose(rate, 0.132778734, rtol=0, atol=6e-10)
    np.testing.assert_allclose(rate, missing / complete, rtol=1e-12)
    np.testing.assert_allclose(observed**-0.5, 0.0514673, rtol=0, atol=6e-8)


# Linkage: the identities


@jax.jit
def identities(counts: Any, theta: Any, other: Any) -> tuple[Any, Any, Any]:
    """By how much ℓ misses Q + entropy, by how much its gain that of Q + KL, and the KL."""
    here, there = Linkage.from_theta(theta), Linkage.from_theta(other)
    stats, log_likelihood = here.e_step(counts)
    q = here.expected_log_prob(stats, here)
    divergence = here.posterior_divergence(counts, there)
    gain = there.log_likelihood(counts) - log_likelihood
    rise = here.expected_log_prob(stats, there) - q
    return log_likelihood - q - here.posterior_entropy(counts), gain - rise - divergence, divergence


@pytest.mark.parametrize("counts", [LINKAGE, (0, 18, 20, 34), (125, 0, 0, 34), (125, 18, 20, 0)])
def test_the_log_likelihood_of_linkage_is_q_and_entropy_and_its_gain_q_and_divergence(x64, counts):
    for theta in (1e-9, 0.3, 0.9999):
        for other in (0.001, 0.31, 0.8):
            level, gain, divergence = identities(np.array(counts), theta, other)
            np.testing.assert_allclose([level, gain], 0, rtol=0, atol=1e-12)
            assert divergence > 1e-3 or counts[0] == 0  # else its absence would go unnoticed


def test_the_divergence_of_linkage_is_right_where_two_posteriors_hardly_differ(dtype):
    logits = np.array([0.5, 0.503], dtype)
    near = 1 / (1 + np.exp(-logits.astype(float)))
    q, p = near / (2 + near)
    exact = 125 * (q * np.log1p((q - p) / p) + (1 - q) * np.log1p((p - q) / (1 - p)))
    here, there = (Linkage(jnp.asarray(logit)) for logit in logits)
    np.testing.assert_allclose(here.posterior_divergence(LINKAGE, there), exact, rtol=1e-3)
    assert here.posterior_divergence(LINKAGE, here) == 0
    if dtype == np.float32:  # the sum as it is written in books
        q, p = dtype.type(q), dtype.type(p)
        plain = 125 * (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)))
        assert plain.dtype == dtype and abs(plain / exact - 1) > 1e-2


# Linkage: edges


@pytest.mark.parametrize("logit", [-60.0, 60.0])
def test_linkage_is_right_next_to_0_and_1(dtype, logit):
    model = Linkage(jnp.asarray(logit, dtype))
    log_theta, log_other = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
    expected = 125 * np.log(2 + np.exp(log_theta)) + 38 * log_other + 34 * log_theta
    np.testing.assert_allclose(model.log_likelihood(LINKAGE), expected, rtol=4e-7)
    share = np.exp(log_theta) / (2 + np.exp(log_theta))
    entropy = -125 * (share * np.log(share) + (1 - share) * np.log1p(-share))
    np.testing.assert_allclose(model.posterior_entropy(LINKAGE), entropy, rtol=1e-5)


def test_a_theta_of_0_or_1_is_a_value():
    zero, one, half = (Linkage.from_theta(theta) for theta in (0, 1, 0.5))
    assert zero.log_likelihood(LINKAGE) == one.log_likelihood(LINKAGE) == -np.inf
    assert zero.num_parameters == one.num_parameters == 0
    without = (125, 18, 20, 0)
    np.testing.assert_allclose(zero.log_likelihood(without), 125 * np.log(2), rtol=1e-6)
    assert em_step(zero, without).theta == 0 and zero.posterior_entropy(without) == 0
    np.testing.assert_allclose(
        zero.posterior_divergence(without, half), -125 * np.log(0.8), rtol=1e-6
    )
    assert half.posterior_divergence(without, zero) == np.inf
    assert em_step(half, (125, 0, 0, 34)).theta == 1
    assert em_step(half, (0, 0, 0, 0)).theta == 0.5


def test_linkage_refuses_what_are_not_four_counts():
    start = Linkage.from_theta(0.5)
    with pytest.raises(ValueError, match="four counts"):
        jaxem.fit(start, (125, 38, 34))
    with pytest.raises(ValueError, match="four counts.*bool"):
        jaxem.fit(start, [True] * 4)
    for bad in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="not negative.* at row 2"):
            jaxem.fit(start, (125, 18, bad, 34))
    with pytest.raises(ValueError, match="scalar"):
        jaxem.fit(Linkage(np.zeros(2)), LINKAGE)
    for bad in (-0.1, 1.1, np.nan, [0.5]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            Linkage.from_theta(bad)
    with pytest.raises(ValueError, match="its parts are logit"):
        jaxem.fit(start, LINKAGE, frozen="theta")


def test_a_frozen_linkage_stays_where_it_is():
    result = jaxem.fit(Linkage.from_theta(0.25), LINKAGE, frozen="logit", max_steps=30)
    assert result.converged and result.num_parameters == 0
    np.testing.assert_allclose(result.model.theta, 0.25, rtol=1e-6)


def test_linkage_keeps_to_the_dtype_of_its_data(dtype):
    start, counts = Linkage.from_theta(0.5), np.asarray(LINKAGE, dtype)
    result = jaxem.fit(start, counts, max_steps=30)
    assert result.model.logit.dtype == result.log_likelihood.dtype == dtype
    np.testing.assert_allclose(result.model.theta, FIXED_POINT, rtol=0, atol=1e-3)
    result = jaxem.fit(cast(start, dtype), np.asarray(LINKAGE), max_steps=30)  # integers
    assert result.model.logit.dtype == result.log_likelihood.dtype == dtype
    stats, log_likelihood = result.model.e_step(LINKAGE)
    values = [log_likelihood, result.model.expected_log_prob(stats, result.model)]
    values += [result.model.posterior_entropy(LINKAGE)]
    values += [result.model.posterior_divergence(LINKAGE, cast(start, dtype))]
    assert all(value.dtype == dtype for value in values)


def test_many_linkages_are_fitted_at_once():
    thetas = jnp.array([0.01, 0.5, 0.99])
    counts = jnp.array([LINKAGE, (0, 1, 1, 2), (12, 0, 0, 0)], float)

    @jax.jit
    @jax.vmap
    def thetas_of(theta: Any, counts: Any) -> Any:
        return jaxem.fit(Linkage.from_theta(theta), counts, max_steps=30).model.theta

    np.testing.assert_allclose(thetas_of(thetas, counts), [FIXED_POINT, 0.5, 1.0], atol=1e-3)


# A Gaussian three ways


def faithful(columns: slice, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, and their mean and covariance in float64."""
    x = np.asarray(jaxem.datasets.old_faithful(), dtype)[:, columns]
    exact = x.astype(float)
    return x, exact.mean(0), np.cov(exact.T, bias=True).reshape(x.shape[1], -1)


def errors(fitted: Gaussian, mean: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    """Of a mean and a covariance, in standard deviations."""
    scale = np.sqrt(np.diag(covariance))
    away = np.asarray(fitted.mean[0]) - mean
    wrong = np.asarray(fitted.covariance[0]) - covariance
    return np.abs(away / scale).max(), np.abs(wrong / np.outer(scale, scale)).max()


def rounding(dtype: np.dtype) -> float:
    """What closed form and ascent may differ by: the gradient ends at ε^¾."""
    return 4 * float(np.finfo(dtype).eps) ** 0.75


@pytest.mark.parametrize("ascent", [None, adam, lbfgs, newton])
def test_three_ways_to_a_gaussian_agree_with_numpy(ascent, dtype):
    x, mean, covariance = faithful(slice(2), dtype)
    fitted = gaussian_mle(x) if ascent is None else gaussian_mle_by(ascent, x)[0]
    assert fitted.mean.dtype == fitted.log_cholesky.dtype == dtype
    assert max(errors(fitted, mean, covariance)) < rounding(dtype)
    # Dividing by N − 1 is another estimator, and that is noticed.
    assert errors(fitted, mean, covariance * len(x) / (len(x) - 1))[1] > 100 * rounding(dtype)


def test_three_ways_to_a_gaussian_of_one_column_agree_with_numpy(x64):
    x, mean, covariance = faithful(slice(1, 2), float)
    fits = {ascent: gaussian_mle_by(ascent, x[:, 0]) for ascent in (adam, newton)}
    for fitted in (gaussian_mle(x[:, 0]), *(fitted for fitted, _ in fits.values())):
        assert fitted.mean.shape == fitted.log_cholesky.shape == (1, 1)
        assert max(errors(fitted, mean, covariance)) < rounding(x.dtype)
    assert fits[newton][1].num_steps <= 10
    assert fits[adam][1].num_steps > 10 * fits[newton][1].num_steps


def test_an_ascent_that_is_cut_short_is_not_taken_for_the_maximum(x64):
    x, mean, covariance = faithful(slice(1, 2), float)
    fitted, ended = gaussian_mle_by(newton, x, max_steps=2)
    assert ended.num_steps == 2 and ended.gradient > 1e-3
    assert max(errors(fitted, mean, covariance)) > 1e-3


def test_an_ascent_of_no_steps_returns_its_start_in_the_units_of_the_data(x64):
    x, mean, covariance = faithful(slice(1, 2), float)
    fitted, _ = gaussian_mle_by(newton, x, max_steps=0)
    np.testing.assert_allclose(fitted.mean[0], mean + 0.5 * covariance[0] ** 0.5, rtol=1e-12)
    np.testing.assert_allclose(fitted.covariance[0], np.e * covariance, rtol=1e-12)


def test_the_closed_form_keeps_its_digits_far_from_the_origin():
    far = faithful(slice(2), np.float32)[0] + np.float32(1e4)
    mean, covariance = far.astype(float).mean(0), np.cov(far.astype(float).T, bias=True)
    fitted = gaussian_mle(far)
    assert errors(fitted, mean, covariance)[1] < 1e-5
    np.testing.assert_allclose(fitted.mean[0], mean, rtol=1e-7)
    naive = far.T @ far / len(far) - np.outer(fitted.mean, fitted.mean)
    assert np.abs(naive - covariance).max() > 1  # the textbook's E[xxᵀ] − E[x] E[x]ᵀ
    outlier_first = np.r_[1e3, np.random.default_rng(0).normal(size=5000)].astype(np.float32)
    variance = outlier_first.astype(float).var()
    np.testing.assert_allclose(gaussian_mle(outlier_first).covariance[0, 0, 0], variance, rtol=4e-6)


@pytest.mark.parametrize("fit", [gaussian_mle, lambda x: gaussian_mle_by(newton, x)[0]])
def test_rows_without_a_gaussian_of_largest_likelihood_are_refused(fit):
    x = jaxem.datasets.old_faithful()
    for flat in (x[:2], np.full(9, 0.1), np.c_[x, x[:, 0] + 1], np.c_[x[:, 0], np.full(272, 0.1)]):
        with pytest.raises(ValueError, match="no maximum"):
            fit(flat)
    with pytest.raises(ValueError, match="no row"):
        fit(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="finite.* row 1"):
        fit(np.array([0.0, np.nan, 1.0]))
