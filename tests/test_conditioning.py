"""Marginals and conditionals of mixtures: against matrices inverted outright, and by Bayes."""

from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest

import jaxem
from jaxem.em import cast

FAMILIES = {
    "Gaussian": lambda rng: jaxem.Gaussian(rng.normal(size=(3, 4)), rng.normal(0, 0.4, (3, 10))),
    "TiedGaussian": lambda rng: jaxem.TiedGaussian(rng.normal(size=(3, 4)), rng.normal(0, 0.4, 10)),
    "DiagonalGaussian": lambda rng: jaxem.DiagonalGaussian(
        rng.normal(size=(3, 4)), rng.normal(0, 0.4, (3, 4))
    ),
    "SphericalGaussian": lambda rng: jaxem.SphericalGaussian(
        rng.normal(size=(3, 4)), rng.normal(0, 0.4, 3)
    ),
    "mixture of Gaussian": lambda rng: jaxem.MixtureFamily(
        jaxem.Categorical(rng.normal(size=(3, 2))),
        jaxem.Gaussian(rng.normal(size=(6, 4)), rng.normal(0, 0.4, (6, 10))),
    ),
}
DIMS, OTHERS = [3, 1], [0, 2]


def mixture(name: str, dtype: Any = np.float64) -> jaxem.Mixture:
    rng = np.random.default_rng(5)
    model = jaxem.Mixture(jaxem.Categorical(rng.normal(size=3)), FAMILIES[name](rng))
    return cast(model, dtype)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_joint_density_is_the_marginal_times_the_conditional(name: str, dtype: Any) -> None:
    model = mixture(name, dtype)
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(dtype)
    joint = model.log_prob(x)
    marginal = model.marginal(DIMS).log_prob(x[:, DIMS])
    given = [model.condition(DIMS, row[DIMS]).log_prob(row[None, OTHERS])[0] for row in x]
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    np.testing.assert_allclose(marginal + np.array(given), joint, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_marginal_density_is_that_of_the_other_features_missing(name: str, x64: None) -> None:
    model = mixture(name)
    x = np.random.default_rng(0).normal(size=(7, 4))
    hidden = x.copy()
    hidden[:, OTHERS] = np.nan
    expected = model.log_prob(jaxem.Samples.from_nan(hidden))
    found = model.marginal(DIMS).log_prob(x[:, DIMS])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_conditional_moments_are_those_of_the_inverted_matrices(x64: None) -> None:
    model = mixture("Gaussian")
    values = np.array([0.3, -1.2])
    given = model.condition(DIMS, values)
    for k, (mean, covariance) in enumerate(
        zip(np.asarray(model.components.mean), np.asarray(model.components.covariance), strict=True)
    ):
        precision = np.linalg.inv(covariance)
        inner = np.linalg.inv(precision[np.ix_(OTHERS, OTHERS)])
        moved = mean[OTHERS] - inner @ precision[np.ix_(OTHERS, DIMS)] @ (values - mean[DIMS])
        np.testing.assert_allclose(given.components.mean[k], moved, rtol=1e-12)
        np.testing.assert_allclose(given.components.covariance[k], inner, rtol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_given_values_is_what_imputation_says(name: str, x64: None) -> None:
    model = mixture(name)
    rows = np.random.default_rng(1).normal(size=(5, 2))

    def mean(values: jax.Array) -> jax.Array:
        given = model.condition(DIMS, values)
        family = given.components
        if isinstance(family, jaxem.MixtureFamily):
            inner = family.components.mean.reshape(*family.weights.logits.shape, -1)
            means = jnp.einsum("km,kmd->kd", family.weights.probs, inner)
        else:
            means = family.mean
        return given.weights.probs @ means

    holes = np.full((5, 4), np.nan)
    holes[:, DIMS] = rows
    imputed = jaxem.impute(model, jaxem.Samples.from_nan(holes))
    np.testing.assert_allclose(jax.vmap(mean)(rows), np.asarray(imputed)[:, OTHERS], rtol=1e-10)


def test_weights_of_zero_stay_zero_and_float32_stays_float32() -> None:
    model = mixture("Gaussian", np.float32)
    model = jaxem.Mixture(
        jaxem.Categorical.from_probs(np.float32([0.0, 0.4, 0.6])), model.components
    )
    given = model.condition(0, 1.5)
    assert given.weights.probs[0] == 0
    assert given.components.mean.dtype == given.weights.logits.dtype == jnp.float32
    assert model.marginal(-1).components.mean.shape == (3, 1)


def test_one_feature_in_the_place_of_another_is_noticed(x64: None) -> None:
    model, x = mixture("Gaussian"), np.random.default_rng(0).normal(size=(7, 4))
    wrong = model.marginal(DIMS[::-1]).log_prob(x[:, DIMS])
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(model.marginal(DIMS).log_prob(x[:, DIMS]), wrong, rtol=1e-3)


@pytest.mark.parametrize(
    ("dims", "values", "message"),
    [
        ([], [], "at least one"),
        ([0, 0], [1.0, 1.0], "each feature once"),
        ([4], [1.0], "features from 0 to 3"),
        ([0.5], [1.0], "numbers of features"),
        ([0, 1, 2, 3], [1.0] * 4, "leave at least one"),
        ([0, 1], [1.0], r"values must be \[2\]"),
        ([0], [np.nan], "finite"),
    ],
)
def test_what_cannot_be_conditioned_on_is_refused(dims: Any, values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixture("Gaussian", np.float32).condition(dims, values)


def test_components_that_are_not_gaussian_are_refused_by_name() -> None:
    model = laws.question("Mixture over rows of Poisson", np.float32).model
    with pytest.raises(ValueError, match="Poisson"):
        model.condition([0], [1])
    with pytest.raises(ValueError, match="Poisson"):
        model.marginal([0])
