"""Missing entries in Gaussians: published steps, a saddle, EM written out in NumPy, recovery."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem import parameters

NAN = np.nan
# Johnson & Wichern (2007) example 5.13
JOHNSON_WICHERN = np.array([[NAN, 0, 3], [7, 2, 6], [5, 1, 2], [NAN, NAN, 5]])
MEAN = np.array([6.0, 1.0, 4.0])
COVARIANCE = np.array([[0.5, 0.25, 1.0], [0.25, 0.5, 0.75], [1.0, 0.75, 2.5]])
# Murray (1977): mean zero, known
MURRAY = np.array(
    [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    + [[2, NAN], [2, NAN], [-2, NAN], [-2, NAN]]
    + [[NAN, 2], [NAN, 2], [NAN, -2], [NAN, -2]]
)


def single(mean: Any, covariance: Any, family: Any = jaxem.Gaussian) -> jaxem.Mixture:
    """One component."""
    if family is jaxem.Gaussian:
        covariance = np.asarray(covariance)[None]
    members = family.from_moments(np.asarray(mean)[None], covariance)
    return jaxem.Mixture(jaxem.Categorical(jnp.zeros(1)), members)


def moments(model: jaxem.Mixture) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the only component."""
    covariance = np.asarray(model.components.covariance)
    return np.asarray(model.components.mean[0]), covariance.reshape(covariance.shape[-2:])


def em_step(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[Any, Any, float]:
    """One step of EM for a multivariate normal, and ℓ before it.  Little & Rubin §11.2."""
    total, scatter, log_likelihood = np.zeros_like(mean), np.zeros_like(covariance), 0.0
    for row in x:
        o, m = ~np.isnan(row), np.isnan(row)
        inverse = np.linalg.inv(covariance[np.ix_(o, o)])
        away = row[o] - mean[o]
        log_det = np.linalg.slogdet(2 * np.pi * covariance[np.ix_(o, o)])[1] if o.any() else 0.0
        log_likelihood -= 0.5 * (away @ inverse @ away + log_det)
        expected, slope = row.copy(), covariance[np.ix_(m, o)] @ inverse
        expected[m] = mean[m] + slope @ away
        total += expected
        scatter += np.outer(expected, expected)
        scatter[np.ix_(m, m)] += covariance[np.ix_(m, m)] - slope @ covariance[np.ix_(o, m)]
    mean = total / len(x)
    return mean, scatter / len(x) - np.outer(mean, mean), log_likelihood


@pytest.mark.parametrize(
    "family", [jaxem.Gaussian, pytest.param(jaxem.TiedGaussian, marks=pytest.mark.slow)]
)
def test_one_step_on_the_rows_of_johnson_and_wichern(family, x64):
    start = single(MEAN, COVARIANCE, family)
    result = jaxem.fit(
        start, jaxem.Samples.from_nan(JOHNSON_WICHERN), max_steps=1, prior=jaxem.Prior(floor=0.0)
    )
    mean, covariance = moments(result.model)
    np.testing.assert_allclose(result.trace[0], -10.059565809, rtol=0, atol=1e-8)
    np.testing.assert_allclose(mean, [6.0318182, 1.075, 4], rtol=0, atol=1e-7)
    wanted = [
        [0.60530992, 0.33329545, 1.16818182],
        [0.33329545, 0.585625, 0.825],
        [1.16818182, 0.825, 2.5],
    ]
    np.testing.assert_allclose(covariance, wanted, rtol=0, atol=1e-7)


def fit_murray(rho: float) -> jaxem.EMResult:
    covariance = np.array([[1, rho], [rho, 1]])
    data = jaxem.Samples.from_nan(MURRAY)
    start = single(np.zeros(2), covariance)
    return jaxem.fit(start, data, frozen="components.mean", tol=0, max_steps=2000)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_data_of_murray_have_two_maxima(sign, x64):
    result = fit_murray(0.1 * sign)
    covariance = moments(result.model)[1]
    np.testing.assert_allclose(covariance, np.array([[2, sign], [sign, 2]]) * 4 / 3, rtol=1e-6)
    assert float(result.log_likelihood) == pytest.approx(-29.97428641, abs=1e-8)


def test_em_stays_on_the_saddle_between_them(x64):
    result = fit_murray(0.0)
    covariance = moments(result.model)[1]
    np.testing.assert_allclose(covariance, 2.5 * np.eye(2), rtol=1e-6, atol=1e-12)
    assert float(result.log_likelihood) == pytest.approx(-30.03334239, abs=1e-8)


@pytest.mark.parametrize("by_row", [False, True])
def test_one_component_is_the_em_of_the_multivariate_normal(by_row, dtype):
    rng = np.random.default_rng(3)
    x = rng.multivariate_normal(np.zeros(4), 0.5 * np.eye(4) + 0.5, size=80).astype(dtype)
    x[rng.random(x.shape) < 0.3] = NAN
    data = jaxem.Samples.from_nan(x)
    model = single(np.zeros(4, dtype), np.eye(4, dtype=dtype))
    mean, covariance = np.zeros(4), np.eye(4)
    steps = 12
    trace = []
    for _ in range(steps):
        mean, covariance, log_likelihood = em_step(x.astype(float), mean, covariance)
        trace.append(log_likelihood)

    def fit(model: Any, data: Any) -> jaxem.EMResult:
        return jaxem.fit(model, data, tol=0, max_steps=steps)

    result = (jax.jit(fit) if by_row else fit)(model, data)
    tolerance = {"rtol": 0, "atol": 2000 * np.finfo(dtype).eps}
    for found, wanted in zip(moments(result.model), (mean, covariance), strict=True):
        np.testing.assert_allclose(found, wanted, **tolerance)
    np.testing.assert_allclose(result.trace[:-1], trace, rtol=200 * np.finfo(dtype).eps)
    assert np.all(np.diff(trace) > 0)


LOW_AND_HIGH = np.array([[1.0] * 3, [5.0] * 3])


@pytest.mark.parametrize(
    "members",
    [
        jaxem.Gaussian.from_moments(LOW_AND_HIGH, np.array([np.eye(3)] * 2)),
        jaxem.DiagonalGaussian.from_moments(LOW_AND_HIGH, 1.0),
        jaxem.Poisson.from_rate(LOW_AND_HIGH),
    ],
    ids=lambda members: type(members).__name__,
)
def test_the_observed_likelihood_never_falls_and_is_flat_where_it_converged(members, x64):
    rng = np.random.default_rng(1)
    where = rng.integers(2, size=300)
    x = rng.multivariate_normal(np.zeros(3), 0.3 * np.eye(3) + 0.7, size=300) + 5 * where[:, None]
    x = np.round(np.abs(x)) if isinstance(members, jaxem.Poisson) else x
    x[rng.random(x.shape) < 0.3] = NAN
    data = jaxem.Samples.from_nan(x)
    start = jaxem.Mixture(jaxem.Categorical(jnp.zeros(2)), members)
    result = jaxem.fit(start, data, tol=1e-12, max_steps=3000)
    trace = np.asarray(result.trace)[: int(result.num_steps) + 1]
    assert result.converged and np.all(np.diff(trace) >= -1e-9)
    slope = jax.grad(lambda model: model.log_likelihood(data))(result.model)
    np.testing.assert_allclose(parameters.ravel(slope), 0, atol=1e-3)


@pytest.mark.parametrize("forms", ["by pattern", "by row"])
def test_a_conditional_variance_is_no_difference_of_covariances(forms):
    """In float32 1 − ρ² would have no digit left where the two entries are nearly the same."""
    rho = np.float32(1 - 1e-6)
    covariance = np.array([[1, rho], [rho, 1]], np.float32)
    model = single(np.zeros(2, np.float32), covariance)
    factor = np.asarray(model.components.scale_tril[0], float)
    data = jaxem.Samples(np.zeros((1, 2), np.float32), None, np.array([[False, True]]))
    data = model.validate(data) if forms == "by pattern" else data
    second = model.e_step(data)[0].components.second[0]
    exact = np.linalg.det(factor) ** 2 / (factor[1] @ factor[1])
    np.testing.assert_allclose(second[0, 0], exact, rtol=1e-3)


def test_float32_keeps_the_covariance_far_from_the_origin_and_from_a_distant_start():
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal(np.zeros(3), 0.2 * np.eye(3) + 0.8, size=4000)
    x[rng.random(x.shape) < 0.2] = NAN
    near = jaxem.fit(single(np.zeros(3), np.eye(3)), jaxem.Samples.from_nan(x))
    far = jaxem.Samples.from_nan((x + 1e4).astype(np.float32))
    start = single(np.full(3, 1.1e4, np.float32), np.eye(3, dtype=np.float32))
    mean, covariance = moments(jaxem.fit(start, far).model)
    np.testing.assert_allclose(covariance, moments(near.model)[1], rtol=2e-3)
    np.testing.assert_allclose(mean - 1e4, moments(near.model)[0], atol=2e-3)
