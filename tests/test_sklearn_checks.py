"""scikit-learn's common checks of estimators."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import check_estimator

from jaxem import sklearn as estimators

# A row of a sequence depends on its neighbours, and `score_samples` is not one number a row.
OF_SEQUENCES = {
    "check_methods_sample_order_invariance": "sequences have an order",
    "check_methods_subset_invariance": "steps are not independent",
}


class GaussianHMM(estimators.GaussianHMM):
    """With a second argument that is ignored, where there it is lengths."""

    def fit(self, X: Any, y: Any = None) -> Any:
        return super().fit(X)

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(X)


class PoissonHMM(estimators.PoissonHMM):
    def fit(self, X: Any, y: Any = None) -> Any:
        return super().fit(X)

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(X)


class CategoricalHMM(estimators.CategoricalHMM):
    def fit(self, X: Any, y: Any = None) -> Any:
        return super().fit(X)

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(X)


class GMMHMM(estimators.GMMHMM):
    def fit(self, X: Any, y: Any = None) -> Any:
        return super().fit(X)

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(X)


MIXTURES = [
    estimators.GaussianMixture(),
    estimators.BernoulliMixture(),
    estimators.PoissonMixture(),
    estimators.CategoricalMixture(),
]
HMMS = [GaussianHMM(), PoissonHMM(), CategoricalHMM(), GMMHMM()]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The checks fit the same estimator twice, which is logged."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("estimator", MIXTURES, ids=lambda one: type(one).__name__)
@pytest.mark.filterwarnings("ignore")
def test_a_mixture_passes_all_checks(estimator: Any) -> None:
    results = check_estimator(estimator, on_skip=None)
    assert {one["status"] for one in results} <= {"passed", "skipped"}
    assert len(results) > 40


@pytest.mark.slow
@pytest.mark.parametrize("estimator", HMMS, ids=lambda one: type(one).__name__)
@pytest.mark.filterwarnings("ignore")
def test_an_hmm_passes_all_checks_that_sequences_can(estimator: Any) -> None:
    results = check_estimator(estimator, on_skip=None, expected_failed_checks=OF_SEQUENCES)
    failed = {one["check_name"] for one in results if one["status"] == "xfail"}
    assert failed == set(OF_SEQUENCES)
    assert {one["status"] for one in results} <= {"passed", "skipped", "xfail"}
    assert len(results) > 35
