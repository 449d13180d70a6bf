"""A family that somebody else wrote, with nothing but what a model must have of it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem.data import Samples
from jaxem.pytree import pytree


@pytree
class LogNormal:
    """Positive numbers whose logarithm is N(location, 1): a density that 0 does not have."""

    location: Any  # [K]

    @property
    def num_members(self) -> int:
        return self.location.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return ()

    def log_prob(self, x: Any) -> Any:
        logs = jnp.log(x)[:, None]
        return -logs - 0.5 * (logs - self.location) ** 2 - 0.5 * np.log(2 * np.pi)

    def stats(self, x: Any, responsibilities: Any) -> Any:
        return responsibilities.sum(0), (responsibilities * jnp.log(x)[:, None]).sum(0)

    def maximize(self, stats: Any) -> "LogNormal":
        return LogNormal(jnp.where(stats[0] > 0, stats[1] / stats[0], self.location))


HALF = jaxem.Categorical.from_probs([0.5, 0.5])
MOVES = jaxem.Categorical.from_probs([[0.9, 0.1], [0.1, 0.9]])


def rows(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.exp(rng.normal(size=count) + 5 * rng.integers(2, size=count)).astype(np.float32)


def assert_fitted(result: jaxem.EMResult, location: Any) -> None:
    assert result.converged  # which it is not after a fall beyond rounding
    np.testing.assert_allclose(np.sort(np.asarray(location)), [0, 5], atol=0.2)


@pytest.mark.parametrize("count", [400, 5001])  # the second is padded to whole chunks
def test_it_serves_a_mixture(count):
    model = jaxem.Mixture(HALF, LogNormal(jnp.array([1.0, 4.0])))
    x = rows(count)
    result = jaxem.fit(model, x)
    assert_fitted(result, result.model.components.location)
    assert result.model.predict(x).shape == (count,)


def test_it_serves_an_hmm_with_ragged_sequences():
    model = jaxem.HMM(HALF, MOVES, LogNormal(jnp.array([1.0, 4.0])))
    x = rows(400)
    result = jaxem.fit(model, [x[:300], x[300:301], x[301:]])
    assert_fitted(result, result.model.emission.location)
    assert result.model.smooth(x).shape == (400, 2)


def test_rows_of_weight_0_do_not_ask_for_the_density_of_0():
    model = jaxem.Mixture(HALF, LogNormal(jnp.array([1.0, 4.0])))
    x, weight = rows(400), np.ones(400, np.float32)
    weight[7] = 0
    result = jaxem.fit(model, Samples(x, weight))
    assert_fitted(result, result.model.components.location)


def test_rows_with_missing_entries_are_refused_by_its_name():
    members = LogNormal(jnp.array([1.0, 4.0]))
    inner = jaxem.MixtureFamily(jaxem.Categorical.from_probs([[0.5, 0.5]]), members)
    data = Samples(rows(3), None, np.array([True, False, True]))
    for weights, family in ((HALF, members), (jaxem.Categorical.from_probs([1.0]), inner)):
        with pytest.raises(ValueError, match="LogNormal has no partial_form"):
            jaxem.Mixture(weights, family).log_likelihood(data)
    whole = Samples(rows(3), None, np.ones(3, bool))
    assert np.isfinite(jaxem.Mixture(HALF, members).log_likelihood(whole))


def test_it_serves_inside_a_mixture_family():
    inner = jaxem.MixtureFamily(
        jaxem.Categorical.from_probs([[0.5, 0.5]]), LogNormal(jnp.array([1.0, 4.0]))
    )
    result = jaxem.fit(jaxem.Mixture(jaxem.Categorical.from_probs([1.0]), inner), rows(400))
    assert_fitted(result, result.model.components.components.location)


def test_weights_that_do_not_fit_it_are_refused():
    model = jaxem.Mixture(jaxem.Categorical.from_probs([1.0]), LogNormal(jnp.array([1.0, 4.0])))
    with pytest.raises(ValueError, match=r"weights must be \[2\]"):
        model.log_likelihood(rows(5))


def test_a_second_pass_infers_inner_components_by_the_model_and_not_by_its_anchor():
    def model(first: float, second: float) -> jaxem.Mixture:
        inner = jaxem.SphericalGaussian.from_moments(np.array([[first], [second]]), 1.0)
        family = jaxem.MixtureFamily(jaxem.Categorical.from_probs([[0.5, 0.5]]), inner)
        return jaxem.Mixture(jaxem.Categorical.from_probs([1.0]), family)

    x = np.repeat([[0.0], [8.0]], 50, axis=0).astype(np.float32)
    stats, _ = model(0, 8).e_step(x, about=model(8, 100))
    np.testing.assert_allclose(stats.components.weights, [[50, 50]], rtol=1e-6)


def test_strong_correlation_leaves_the_feature_form():
    """Expanding a quadratic form of a nearly singular precision cancels even at the origin."""
    rng = np.random.default_rng(0)
    rho = 1 - 1e-6
    covariance = np.array([[1, rho], [rho, 1]])
    x = rng.multivariate_normal(np.zeros(2), covariance, size=2000)
    family = jaxem.Gaussian.from_moments(
        np.zeros((1, 2), np.float32), covariance[None].astype(np.float32)
    )
    assert not family.form().accurate
    model = jaxem.Mixture(jaxem.Categorical.from_probs([1.0]), family)
    factor = np.asarray(family.scale_tril[0], float)
    z = np.linalg.solve(factor, x.astype(np.float32).astype(float).T)
    exact = -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - np.log(2 * np.pi)
    np.testing.assert_allclose(model.log_prob(x.astype(np.float32)), exact, rtol=0, atol=5e-3)
