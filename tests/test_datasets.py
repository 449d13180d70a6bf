"""The bundled tables are the published ones: shapes, and numbers that others print."""

import doctest
import math

import numpy as np
import pytest

from jaxem import datasets
from jaxem.datasets import bundled

TABLES = {
    "old_faithful": ((272, 2), np.float64),
    "earthquakes": ((107,), np.int64),
    "iris": ((150, 4), np.float64),
}


def test_every_table_is_known_by_name():
    assert datasets.BUNDLED.keys() == TABLES.keys()
    for name, load in datasets.BUNDLED.items():
        assert load is getattr(datasets, name)


@pytest.mark.parametrize("name", TABLES)
def test_shape_and_dtype_are_as_documented(name):
    values = datasets.BUNDLED[name]()
    assert type(values) is np.ndarray
    assert (values.shape, values.dtype) == TABLES[name]


@pytest.mark.parametrize("name", TABLES)
def test_every_call_returns_an_array_of_its_own(name):
    load = datasets.BUNDLED[name]
    spoilt, untouched = load(), load()
    spoilt[:] = -1
    assert untouched.min() >= 0
    np.testing.assert_array_equal(load(), untouched)


def test_old_faithful_has_the_published_moments():
    # R: colMeans(faithful), cov(faithful)
    values = datasets.old_faithful()
    np.testing.assert_allclose(values.mean(axis=0), [3.4877831, 70.8970588], rtol=0, atol=5e-8)
    np.testing.assert_allclose(
        np.cov(values, rowvar=False),
        [[1.302728, 13.977808], [13.977808, 184.823312]],
        rtol=0,
        atol=5e-7,
    )


def test_earthquakes_are_the_published_counts():
    counts = datasets.earthquakes()
    assert counts.sum() == 2072
    assert (counts.argmax(), counts.max()) == (1943 - 1900, 41)
    assert (counts.argmin(), counts.min()) == (1986 - 1900, 6)


def test_earthquakes_have_the_published_log_likelihood():
    # The converged two-state Poisson HMM started in state 0. Unlike a moment it sees the order.
    rate = np.array([15.4207619, 26.01823567])
    transition = np.array([[1 - 0.07162606, 0.07162606], [0.11903439, 1 - 0.11903439]])
    predicted, log_likelihood = np.array([1.0, 0.0]), 0.0
    for count in datasets.earthquakes().tolist():
        joint = predicted * np.exp(count * np.log(rate) - rate - math.lgamma(count + 1))
        log_likelihood += np.log(joint.sum())
        predicted = joint / joint.sum() @ transition
    np.testing.assert_allclose(log_likelihood, -341.87870, rtol=0, atol=5e-6)


def test_iris_has_the_published_moments_of_each_species():
    # R: aggregate(iris[1:4], list(iris$Species), mean)
    values = datasets.iris()
    np.testing.assert_allclose(
        values.reshape(3, 50, 4).mean(axis=1),
        [[5.006, 3.428, 1.462, 0.246], [5.936, 2.770, 4.260, 1.326], [6.588, 2.974, 5.552, 2.026]],
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        values.mean(axis=0), [5.843333, 3.057333, 3.758000, 1.199333], rtol=0, atol=5e-7
    )


def test_iris_rows_that_the_uci_copy_gets_wrong_are_as_fisher_printed_them():
    np.testing.assert_array_equal(
        datasets.iris()[[34, 37]], [[4.9, 3.1, 1.5, 0.2], [4.9, 3.6, 1.4, 0.1]]
    )


def test_examples_in_the_docstrings_run():
    outcome = doctest.testmod(bundled)
    assert outcome.attempted >= len(TABLES)
    assert outcome.failed == 0
