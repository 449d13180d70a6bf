"""Standard errors against published numbers, finite differences and closed forms."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem import parameters
from jaxem.comparison import curvature
from jaxem.comparison.certify import curvature_of, take_step
from jaxem.comparison.examples import LINKAGE, Linkage
from jaxem.comparison.fixed_point import convergence
from jaxem.comparison.information import _interval
from jaxem.em import cast

pytestmark = [pytest.mark.numerics, pytest.mark.usefixtures("x64")]

WAITING_ERRORS = [0.03116475, 0.03116475, 0.69967498, 0.50459471, 6.3094752, 4.70547124]
WAITING_RATE = 0.65805169
EARTHQUAKE_ERRORS = [0.03762343, 0.03762343, 0.06360939, 0.06360939, 0.71718405, 1.38245563]
NO_PRIOR = jaxem.Prior(
    weights=0.0, mean=0.0, mean_weight=0.0, scatter=np.zeros((2, 2)), scatter_weight=0.0, floor=0.0
)
PRIOR = replace(
    NO_PRIOR, weights=2.0, mean=0.5, mean_weight=1.5, scatter=np.eye(2), scatter_weight=3.0
)
Model = Any


def converged(model: Model, data: Any, **options: Any) -> Model:
    """As near to the fixed point as rounding lets it come."""
    return jaxem.fit(model, data, tol=0.0, max_steps=3000, **options).model


def waiting(dtype: Any = float) -> np.ndarray:
    return jaxem.datasets.old_faithful()[:, 1].astype(dtype)


def pair(components: Any) -> Model:
    return jaxem.Mixture(jaxem.Categorical.from_probs(np.array([0.5, 0.5])), components)


@cache
def by_variance() -> Model:
    """The published optimum, as Gaussians in one dimension."""
    components = jaxem.DiagonalGaussian.from_moments([[55.0], [80.0]], [[25.0], [25.0]])
    return converged(pair(components), waiting())


def by_covariance() -> Model:
    """The same model with covariance matrices."""
    fitted = by_variance()
    components = jaxem.Gaussian.from_moments(
        fitted.components.mean, fitted.components.variance[:, :, None]
    )
    return replace(fitted, components=components)


def two_states(emission: Any, data: Any, **options: Any) -> Model:
    tables = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.1, 0.9]])
    start = jaxem.HMM(*map(jaxem.Categorical.from_probs, tables), emission)
    return converged(start, data, **options)


def rate_of_certificate(model: Model, data: Any) -> float:
    """The spectral radius of the Jacobian of the EM map, as `certify` has it."""
    step = take_step(model, data, None, ())
    return convergence(step, curvature_of(step)).rate


# What was published


def test_the_linkage_example_has_its_published_information() -> None:
    model = converged(Linkage.from_theta(0.5), LINKAGE)
    found = jaxem.information(model, LINKAGE)
    theta, error = found["theta"]
    np.testing.assert_allclose(theta, 0.626821497871, rtol=0, atol=1e-8)
    np.testing.assert_allclose(error, 0.0514673, rtol=0, atol=5e-8)
    np.testing.assert_allclose(found.rate, 0.132778734, rtol=0, atol=1e-8)
    slope = theta * (1 - theta)  # of θ by its log-odds
    matrices = found.observed, found.complete, found.missing
    published = (377.516900, 435.317854, 57.800953)
    for matrix, value in zip(matrices, published, strict=True):
        np.testing.assert_allclose(matrix[0, 0] / slope**2, value, rtol=1e-7)
    # θ has no scale of its own: the interval is symmetric.
    half = NormalDist().inv_cdf(0.975) * error
    np.testing.assert_allclose([found.lower[0], found.upper[0]], [theta - half, theta + half])
    np.testing.assert_allclose(rate_of_certificate(model, LINKAGE), found.rate, rtol=1e-9)


@pytest.mark.parametrize(
    "fitted", [by_variance, pytest.param(by_covariance, marks=pytest.mark.slow)]
)
def test_waiting_times_have_the_published_errors_and_rate(fitted: Callable[[], Model]) -> None:
    found = jaxem.information(fitted(), waiting())
    np.testing.assert_allclose(found.standard_error, WAITING_ERRORS, rtol=2e-7)
    np.testing.assert_allclose(found.rate, WAITING_RATE, rtol=0, atol=1e-7)
    assert found.kind == "maximum" and found.discrepancy < 1e-7
    np.testing.assert_array_equal(found.observed, found.complete - found.missing)
    for matrix in (found.observed, found.complete, found.missing):
        np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-9 * np.abs(matrix).max())
        assert np.linalg.eigvalsh(matrix).min() > -1e-9
    assert found.coordinates[0] == "weights.logits[0]" and len(found.coordinates) == 5
    shares = np.linalg.eigvals(np.linalg.solve(found.complete, found.missing)).real
    np.testing.assert_allclose(np.sort(shares), found.eigenvalues, atol=1e-9)
    if fitted is by_variance:
        np.testing.assert_allclose(rate_of_certificate(fitted(), waiting()), found.rate, rtol=1e-6)
    assert np.all((found.missing_fraction > 0) & (found.missing_fraction < found.rate))


@pytest.mark.slow
def test_earthquakes_have_the_published_errors_but_for_the_start_that_is_at_its_edge() -> None:
    counts = jaxem.datasets.earthquakes()
    model = two_states(jaxem.Poisson.from_rate([10.0, 30.0]), counts)
    found = jaxem.information(model, counts)
    assert found.names[:3] == ("initial.probs[0]", "initial.probs[1]", "transition.probs[0,0]")
    assert np.all(np.isnan(found.standard_error[:2]) & np.isnan(found.lower[:2]))
    np.testing.assert_allclose(found.standard_error[2:], EARTHQUAKE_ERRORS, rtol=5e-7)
    assert found.kind == "maximum" and found.discrepancy < 1e-6
    assert not any(name.startswith("initial") for name in found.coordinates)


def test_what_is_held_fixed_has_no_error_and_leaves_the_rest_better_known() -> None:
    found = jaxem.information(by_variance(), waiting())
    fixed = jaxem.information(by_variance(), waiting(), frozen="weights")
    assert np.all(np.isnan(fixed.standard_error[:2]))
    assert np.all(fixed.standard_error[2:] < found.standard_error[2:])
    np.testing.assert_allclose(fixed.observed, found.observed[1:, 1:], rtol=1e-9)
    np.testing.assert_array_equal(fixed.estimate, found.estimate)


# Against finite differences of ℓ


@jax.jit
def _objective(like: Model, data: Any, prior: Any, moved: Any) -> jax.Array:
    def one(vector: jax.Array) -> jax.Array:
        there = parameters.unravel(like, vector)
        return there.log_likelihood(data) + there.log_prior(prior)

    return jax.lax.map(one, moved)


def information_by_differences(
    model: Model, data: Any, coordinates: tuple[str, ...], prior: jaxem.Prior = NO_PRIOR
) -> np.ndarray:
    """−∇²(ℓ + log-prior) in the named leaf entries, from values of ℓ alone."""
    vector = np.asarray(parameters.ravel(model))
    names = [
        name + f"[{','.join(map(str, place))}]"
        for name, leaf in parameters.named_leaves(model)
        for place in np.ndindex(np.shape(leaf))
    ]
    step = 1e-3
    moves = step * np.eye(len(vector))[[names.index(name) for name in coordinates]]
    signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    corners = [[a * one + b * two for a, b in signs] for one in moves for two in moves]
    points = vector + np.array(corners).reshape(-1, len(vector))
    values = np.asarray(_objective(model, data, prior, points))
    values = values.reshape(len(moves), len(moves), 4)
    return -np.einsum("ijc,c->ij", values, [1, -1, -1, 1]) / (4 * step**2)


def errors_by_differences(
    model: Model, data: Any, found: Any, prior: jaxem.Prior = NO_PRIOR
) -> np.ndarray:
    """Standard errors of the free leaf entries."""
    observed = information_by_differences(model, data, found.coordinates, prior)
    scale = np.sqrt(np.diag(found.complete))
    np.testing.assert_allclose(
        found.observed / scale / scale[:, None], observed / scale / scale[:, None], atol=1e-5
    )
    return np.sqrt(np.diag(np.linalg.inv(observed)))


@pytest.mark.slow
def test_a_mixture_with_weights_and_a_prior_has_the_curvature_of_its_posterior() -> None:
    rng = np.random.default_rng(2)
    rows = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal([2.5, 1], 0.7, (60, 2))])
    data = jaxem.Samples(rows, rng.integers(0, 3, 120).astype(float))
    components = jaxem.Gaussian.from_moments([[0.0, 0.0], [2.5, 1.0]], np.eye(2))
    model = converged(pair(components), data, prior=PRIOR)
    found = jaxem.information(model, data, prior=PRIOR)
    errors = errors_by_differences(model, data, found, PRIOR)
    by_name = dict(zip(found.coordinates, errors, strict=True))
    for place in ("[0,0]", "[1,1]"):
        expected = by_name[f"components.mean{place}"]
        np.testing.assert_allclose(found[f"components.mean{place}"][1], expected, rtol=1e-5)
    assert found.discrepancy < 1e-6
    # A covariance is symmetric: it is reported once.
    assert sum(name.startswith("components.covariance") for name in found.names) == 6
    assert "components.covariance[0,0,1]" not in found.names
    # Twice the weight is twice the data, and half a variance.
    free = converged(pair(components), data, prior=NO_PRIOR)
    doubled = replace(data, sample_weight=2 * data.sample_weight)
    once, twice = (jaxem.information(free, each, prior=NO_PRIOR) for each in (data, doubled))
    ratio = once.standard_error / twice.standard_error
    np.testing.assert_allclose(ratio, np.sqrt(2), rtol=1e-6)


def ragged(rng: np.random.Generator, emit: Callable[[np.ndarray], np.ndarray]) -> Any:
    states = np.cumsum(rng.random((6, 50)) < 0.15, 1) % 2
    return jaxem.Sequences(emit(states), np.array([50, 50, 50, 37, 1, 0]))


@pytest.mark.slow
def test_a_hidden_markov_model_of_mixtures_has_the_curvature_of_its_likelihood() -> None:
    rng = np.random.default_rng(5)
    choice = rng.random((6, 50)) < 0.5
    rates = np.array([[1.0, 12.0], [30.0, 60.0]])
    data = ragged(rng, lambda states: rng.poisson(rates[states, choice.astype(int)]))
    inner = jaxem.Poisson.from_rate(rates.ravel())
    table = jaxem.Categorical.from_probs(np.full((2, 2), 0.5))
    model = two_states(jaxem.MixtureFamily(table, inner), data)
    found = jaxem.information(model, data)
    assert found.kind == "maximum" and len(found.coordinates) == 9
    errors = errors_by_differences(model, data, found)
    by_name = dict(zip(found.coordinates, errors, strict=True))
    for member in range(4):
        rate, error = found[f"emission.components.rate[{member}]"]
        leaf = by_name[f"emission.components.log_rate[{member}]"]
        np.testing.assert_allclose(error / rate, leaf, rtol=1e-5)
    assert found.discrepancy < 1e-6
    # Of two equal components inside the first state the shares are unknown, and no more.
    inner = jaxem.Poisson.from_rate(np.array([6.0, 6.0, 30.0, 60.0]))
    equal = two_states(jaxem.MixtureFamily(table, inner), data)
    found = jaxem.information(equal, data)
    unknown = {name for name, e in zip(found.names, found.standard_error, strict=True) if e != e}
    assert {"emission.weights.probs[0,0]", "emission.weights.probs[0,1]"} <= unknown
    known = ["transition.probs[0,1]", "emission.weights.probs[1,0]", "emission.components.rate[3]"]
    assert not unknown & set(known)


# What the data do not determine


@pytest.mark.slow
def test_of_two_equal_components_the_shares_are_unknown_and_the_rest_is_not() -> None:
    rng = np.random.default_rng(0)
    counts = np.concatenate([rng.poisson(2.0, 150), rng.poisson(15.0, 100)])
    two = converged(pair(jaxem.Poisson.from_rate(np.array([1.0, 20.0]))), counts)
    share, rate = two.weights.probs, two.components.rate
    three = jaxem.Mixture(
        jaxem.Categorical.from_probs(jnp.stack([0.4 * share[0], 0.6 * share[0], share[1]])),
        jaxem.Poisson.from_rate(rate[np.array([0, 0, 1])]),
    )
    known, found = jaxem.information(two, counts), jaxem.information(three, counts)
    assert found.kind == "not identified" and known.kind == "maximum"
    np.testing.assert_allclose(found.rate, 1, rtol=1e-6)
    for name in ("weights.probs[0]", "weights.probs[1]"):
        assert np.isnan(found[name][1])
    for name in ("weights.probs", "components.rate"):
        np.testing.assert_allclose(found[f"{name}[2]"], known[f"{name}[1]"], rtol=1e-9)
    missing = dict(zip(found.names, found.missing_fraction, strict=True))
    assert np.isnan(missing["weights.probs[0]"]) and missing["components.rate[2]"] < 0.2
    assert "not identified" in str(found)
    # A share at its edge moves only as the others of its row do, which says nothing of it.
    edge = replace(
        three,
        weights=jaxem.Categorical.from_probs(jnp.stack([share[0], 1e-30, share[1]])),
        components=jaxem.Poisson.from_rate(jnp.stack([rate[0], rate[1], rate[1]])),
    )
    found = jaxem.information(edge, counts)
    assert found.kind == "maximum" and np.isnan(found["weights.probs[1]"][1])
    np.testing.assert_allclose(found["weights.probs[2]"], known["weights.probs[1]"], rtol=1e-9)


@pytest.mark.slow
def test_coins_inside_coins_are_unknown_but_the_transitions_between_them_are_not() -> None:
    rng = np.random.default_rng(1)
    data = ragged(rng, lambda s: (rng.random(s.shape) < np.where(s, 0.9, 0.15)).astype(int))
    inner = jaxem.Bernoulli.from_probs(np.array([0.1, 0.3, 0.7, 0.9]))
    table = jaxem.Categorical.from_probs(np.array([[0.6, 0.4], [0.3, 0.7]]))
    mixed = two_states(jaxem.MixtureFamily(table, inner), data)
    found = jaxem.information(mixed, data)
    assert found.kind == "not identified"
    assert np.all(np.isnan(found.standard_error[6:]))
    # One coin a state says the same of the transitions.
    shares, heads = mixed.emission.weights.probs, mixed.emission.components.probs.reshape(2, 2)
    plain = replace(mixed, emission=jaxem.Bernoulli.from_probs(jnp.sum(shares * heads, 1)))
    known = jaxem.information(plain, data)
    np.testing.assert_allclose(found.standard_error[:6], known.standard_error[:6], rtol=1e-6)
    assert np.all(np.isfinite(known.standard_error[2:]))


# What is printed, asked and refused


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_an_interval_has_its_level_on_the_scale_that_keeps_it_in_range(level: float) -> None:
    found = jaxem.information(by_variance(), waiting(), level=level)
    quantile = NormalDist().inv_cdf(0.5 + level / 2)
    names = [name.split("[")[0] for name in found.names]
    estimate, error = found.estimate, found.standard_error
    for index, name in enumerate(names):
        ends = np.array([found.lower[index], found.upper[index]])
        value, wide = estimate[index], quantile * error[index]
        if name == "weights.probs":
            there, here = (np.log(p / (1 - p)) for p in (ends, value))
            wide = wide / (value * (1 - value))
        elif name == "components.variance":
            there, here, wide = np.log(ends), np.log(value), wide / value
        else:
            there, here = ends, value
        np.testing.assert_allclose(there, [here - wide, here + wide], rtol=1e-9)
    assert found.level == level and f"{level:.1%}".replace(".0%", "%") in str(found)


def test_intervals_stay_in_range_whatever_the_error() -> None:
    names = ("weights.probs[0]", "components.rate[1]", "components.covariance[0,1,1]")
    names += ("components.covariance[0,1,0]", "components.mean[0]", "other.probs")
    values = np.array([1e-6, 3.0, 2.0, -1.0, 0.2, 0.0])
    lower, upper = _interval(names, values, np.full(6, 5.0), 2.0)
    assert np.all(lower[:3] >= 0) and np.all(upper >= lower)
    assert upper[0] <= 1
    np.testing.assert_allclose([lower[3], upper[3]], [-11, 9])


def test_a_table_has_a_line_a_quantity() -> None:
    found = jaxem.information(by_variance(), waiting())
    lines = str(found).splitlines()
    assert lines[0].startswith("a strict local maximum, rate of convergence 0.658052")
    assert [line.split()[0] for line in lines[2:]] == list(found.names)
    assert len({len(line) for line in lines[1:]}) == 1
    with pytest.raises(KeyError, match="no quantity is named 'weights'"):
        found["weights"]


def test_single_precision_agrees_to_a_few_digits() -> None:
    double = jaxem.information(by_variance(), waiting())
    model = converged(cast(by_variance(), np.float32), waiting(np.float32))
    single = jaxem.information(model, waiting(np.float32))
    np.testing.assert_allclose(single.standard_error, double.standard_error, rtol=2e-3)
    np.testing.assert_allclose(single.rate, double.rate, rtol=2e-3)
    assert single.kind == "maximum" and single.discrepancy < 1e-3


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, 95, np.nan])
def test_a_level_that_is_none_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        jaxem.information(by_variance(), waiting(), level=level)


def test_there_are_no_errors_to_be_had_of_a_model_that_is_not_fitted() -> None:
    fitted = by_variance()
    moved = replace(fitted, weights=jaxem.Categorical.from_probs(np.array([0.5, 0.5])))
    with pytest.raises(ValueError, match="not at a fixed point.*Fit the model first"):
        jaxem.information(moved, waiting())
    with pytest.raises(ValueError, match="no parameter is free"):
        jaxem.information(fitted, waiting(), frozen=("weights", "components"))


def test_a_model_of_too_many_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvature, "DENSE", 5)
    with pytest.raises(ValueError, match="6 parameters"):
        jaxem.information(by_variance(), waiting())


@pytest.mark.slow
def test_a_stationary_start_has_no_closed_form_and_no_errors() -> None:
    counts = jaxem.datasets.earthquakes()
    moves = jaxem.Categorical.from_probs(np.array([[0.93, 0.07], [0.12, 0.88]]))
    emission = jaxem.Poisson.from_rate(np.array([15.4, 26.0]))
    with pytest.raises(ValueError, match="generalised"):
        jaxem.information(jaxem.HMM(jaxem.Stationary(), moves, emission), counts)
