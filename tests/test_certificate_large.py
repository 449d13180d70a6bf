"""A certificate of more parameters than whole Hessians are formed for, against one of fewer."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import jaxem
from jaxem import parameters
from jaxem.comparison import curvature, fixed_point, softmax
from jaxem.comparison.certificate import Check
from jaxem.comparison.curvature import check_curvature, curvature_of
from jaxem.comparison.fixed_point import check_fixed_point
from jaxem.comparison.step import take_step
from jaxem.comparison.survey import survey

pytestmark = pytest.mark.usefixtures("x64")

NAMES = ("second_order.softmax", "second_order.null", *fixed_point.NAMES)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every model has more parameters than this."""
    monkeypatch.setattr(curvature, "DENSE", 0)
    yield


def checks(model: Any, data: Any) -> dict[str, Check]:
    """Those of the curvature, by name."""
    step = take_step(model, data, None, ())
    shape = curvature_of(step)
    return {
        check.name: check
        for check in (*check_curvature(step, shape), *check_fixed_point(step, survey(step), shape))
    }


@cache
def counts() -> np.ndarray:
    """Rows of counts from two members that overlap."""
    rng = np.random.default_rng(0)
    means = np.array([[1.0, 6.0, 3.0], [5.0, 2.0, 3.5]])
    return rng.poisson(means[(rng.random(400) < 0.4).astype(int)])


@cache
def rates() -> Any:
    """A mixture at its maximum."""
    start = jaxem.Poisson.from_rate(np.array([[1.0, 5.0, 3.0], [5.0, 1.0, 3.0]]))
    mixture = jaxem.Mixture(jaxem.Categorical.from_probs(np.array([0.5, 0.5])), start)
    return jaxem.fit(mixture, counts(), tol=0.0).model


@cache
def gaussians() -> Any:
    """A mixture of full covariances at its maximum."""
    x = jaxem.datasets.old_faithful()
    covariance = np.array([np.diag([0.1, 36.0])] * 2)
    start = jaxem.Gaussian.from_moments([[2.0, 55.0], [4.3, 80.0]], covariance)
    mixture = jaxem.Mixture(jaxem.Categorical.from_probs(np.array([0.5, 0.5])), start)
    return jaxem.fit(mixture, x, tol=0.0).model


MAXIMA = {"rates": (rates, counts), "Gaussians": (gaussians, jaxem.datasets.old_faithful)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rates", "Gaussians"])
def test_products_with_vectors_say_what_whole_hessians_say(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = (of() for of in MAXIMA[name])
    whole = checks(model, data)
    monkeypatch.setattr(fixed_point, "DENSE_WORK", 0)
    half = checks(model, data)  # the Hessian whole, the Jacobian by its products
    monkeypatch.setattr(curvature, "DENSE", 0)
    none = checks(model, data)
    assert whole["second_order.constrained"].outcome == "passed"
    assert none["second_order.constrained"].outcome == "not applicable"
    for name in NAMES:
        assert whole[name].outcome == half[name].outcome == none[name].outcome == "passed", name
    rates = [found["fixed_point.maximum"].facts["rate"] for found in (whole, half, none)]
    np.testing.assert_allclose(rates, rates[0], rtol=1e-9)
    smallest = [
        found["fixed_point.maximum"].facts["eigenvalues"][0] for found in (whole, half, none)
    ]
    np.testing.assert_allclose(smallest, smallest[0], rtol=0, atol=1e-9)
    assert none["fixed_point.maximum"].facts["kind"] == "maximum"
    assert none["second_order.null"].facts["nullity"] == 1


@pytest.mark.slow
def test_products_with_vectors_give_the_same_curvature_and_like_units(few: None) -> None:
    step = take_step(gaussians(), jaxem.datasets.old_faithful(), None, ())
    by_products = curvature_of(step)
    assert by_products.hessian is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curvature, "DENSE", 1000)
        whole = curvature_of(step)
    assert whole.hessian is not None
    vector = np.random.default_rng(0).normal(size=len(whole.unit))
    np.testing.assert_allclose(by_products.product(vector), whole.product(vector), rtol=1e-9)
    np.testing.assert_allclose(by_products.distance(vector), whole.distance(vector), rtol=1e-9)
    ratio = by_products.unit / whole.unit
    assert np.all((ratio > 1 / 3) & (ratio < 3)), ratio


@pytest.mark.parametrize("dense", [1000, 0])
def test_a_saddle_is_found(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two equal members at the mean of all rows: EM drives them apart by the factor of the largest
    # eigenvalue of the rows' covariance, in units of the Poisson one.
    monkeypatch.setattr(curvature, "DENSE", dense)
    mean = counts().mean(0)
    equal = jaxem.Poisson.from_rate(np.stack([mean, mean]))
    model = jaxem.Mixture(jaxem.Categorical.from_probs(np.array([0.3, 0.7])), equal)
    found = checks(model, counts())
    spread = np.cov(counts().T, bias=True) / np.sqrt(mean * mean[:, None])
    expected = np.linalg.eigvalsh(spread).max()
    assert expected > 1.5
    point = found["fixed_point.maximum"]
    assert point.outcome == "FAILED" and point.facts["kind"] == "saddle"
    np.testing.assert_allclose(point.facts["rate"], expected, rtol=1e-9)
    # Q is strictly concave there all the same.
    assert found["second_order.softmax"].outcome == "passed"
    assert found["fixed_point.jacobian"].outcome == "passed"


def test_what_is_not_identified_is_not_called_a_maximum(few: None) -> None:
    # Members of a mixture of single symbols are arbitrary.
    rng = np.random.default_rng(1)
    tables = rng.dirichlet(np.ones(6), 2)
    symbols = np.arange(6)
    model = jaxem.Mixture(
        jaxem.Categorical.from_probs(np.array([0.4, 0.6])), jaxem.Categorical.from_probs(tables)
    )
    weight = 1000 * np.dot([0.4, 0.6], tables)  # such that it is at a maximum
    found = checks(model, jaxem.Samples(symbols, weight))
    point = found["fixed_point.maximum"]
    assert point.outcome == "not applicable" and point.facts["kind"] == "not identified"
    np.testing.assert_allclose(point.facts["rate"], 1, rtol=1e-9)


def test_rare_symbols_do_not_look_like_flat_directions(few: None) -> None:
    # In single precision, one occurrence among 40,000 rows: each is determined all the same.
    share = 1 / np.arange(1, 61) ** 3.0
    tables = np.stack([share, np.roll(share, 30)]) / share.sum()
    weight = np.dot([0.4, 0.6], tables)
    model = jaxem.Mixture(
        jaxem.Categorical.from_probs(np.array([0.4, 0.6], np.float32)),
        jaxem.Categorical.from_probs(tables.astype(np.float32)),
    )
    data = jaxem.Samples(np.arange(60), (weight / weight.min()).astype(np.float32))
    step = take_step(model, data, None, ())
    found = {check.name: check for check in check_curvature(step, curvature_of(step))}
    assert found["second_order.softmax"].outcome == "passed"
    assert found["second_order.null"].outcome == "passed"


@pytest.mark.slow
def test_a_certificate_of_a_thousand_parameters_is_the_one_of_whole_matrices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(softmax, "METHODS", {"newton": softmax.METHODS["newton"]})
    rng = np.random.default_rng(2)
    rates = 3 * np.exp(0.12 * rng.normal(size=(4, 255)))
    x = rng.poisson(rates[rng.integers(0, 4, 500)])
    start = jaxem.Mixture(
        jaxem.Categorical.from_probs(np.full(4, 0.25)), jaxem.Poisson.from_rate(rates)
    )
    model = jaxem.fit(start, x, tol=0.0, max_steps=3000).model
    assert len(parameters.ravel(model)) > curvature.DENSE
    certificate = jaxem.certify(model, x)
    assert certificate.passed, str(certificate)
    products = {check.name: check for check in certificate}
    monkeypatch.setattr(curvature, "DENSE", 2000)
    monkeypatch.setattr(fixed_point, "DENSE_WORK", np.inf)
    whole = checks(model, x)
    assert len(whole["fixed_point.maximum"].facts["eigenvalues"]) == 4 * 255 + 3
    for name in NAMES:
        assert products[name].outcome == whole[name].outcome == "passed"
    found, exact = (each["fixed_point.maximum"].facts["rate"] for each in (products, whole))
    assert exact > 0.05
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_a_probability_on_its_way_to_nothing_spoils_no_second_derivative() -> None:
    # 1/p² overflows: it belongs to no direction that is looked at, and must not be multiplied by 0.
    tables = np.random.default_rng(1).dirichlet(np.ones(6), 2)
    tables[0, 0] = 1e-170
    model = jaxem.Mixture(
        jaxem.Categorical.from_probs(np.array([0.4, 0.6])),
        jaxem.Categorical.from_probs(tables / tables.sum(1, keepdims=True)),
    )
    data = jaxem.Samples(np.arange(6), np.arange(10.0, 16))
    step = take_step(model, data, None, ())
    for check in check_curvature(step, curvature_of(step)):
        assert check.outcome == "passed", check
