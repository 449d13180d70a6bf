"""What is missing is filled in by the conditional mean, or drawn, given all that is observed."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem import em
from jaxem.pytree import pytree

K, D, N = 3, 3, 12
WEIGHTS = np.array([0.2, 0.5, 0.3])
FAMILIES = {
    "full": jaxem.Gaussian,
    "tied": jaxem.TiedGaussian,
    "diagonal": jaxem.DiagonalGaussian,
    "spherical": jaxem.SphericalGaussian,
}
IMPUTE = jax.jit(jaxem.impute)  # the mask is traced: no row shares a pattern with others


def slow(*others: str) -> list[Any]:
    """All kinds, the others marked slow."""
    return [pytest.param(k, marks=pytest.mark.slow) if k in others else k for k in FAMILIES]


def gaussians(kind: str, spread: float = 1.5) -> jaxem.Mixture:
    """Three overlapping, correlated clusters in three features."""
    rng = np.random.default_rng(0)
    mean = spread * rng.normal(size=(K, D))
    root = np.tril(rng.normal(size=(K, D, D)), -1) + np.eye(D)
    full = np.einsum("kij,klj->kil", root, root)
    shape = {"full": full, "tied": full[0], "diagonal": full.diagonal(axis1=1, axis2=2)}
    members = FAMILIES[kind].from_moments(mean, shape.get(kind, np.array([0.5, 1.0, 2.0])))
    return jaxem.Mixture(jaxem.Categorical.from_probs(WEIGHTS), members)


def incomplete(dtype: Any = np.float64, offset: float = 0.0) -> jaxem.Samples:
    """Rows of which the first lacks everything, the second nothing; NaN lies under the mask."""
    rng = np.random.default_rng(1)
    values, observed = 2 * rng.normal(size=(N, D)) + offset, rng.random((N, D)) < 0.6
    observed[0], observed[1] = False, True
    values = values.astype(dtype)
    return jaxem.Samples(np.where(observed, values, dtype(np.nan)), None, observed)


def normal_given(
    x: np.ndarray, there: np.ndarray, mean: np.ndarray, covariance: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """log p(x_o), and mean and covariance of the whole row given x_o.  Little & Rubin §11.2."""
    o, m = np.flatnonzero(there), np.flatnonzero(~there)
    away, seen = x[o] - mean[o], covariance[np.ix_(o, o)]
    log_prob = -0.5 * (away @ np.linalg.solve(seen, away) + np.linalg.slogdet(2 * np.pi * seen)[1])
    slope = np.linalg.solve(seen, covariance[np.ix_(o, m)]).T
    expected, spread = np.where(there, x, 0.0), np.zeros_like(covariance)
    expected[m] = mean[m] + slope @ away
    spread[np.ix_(m, m)] = covariance[np.ix_(m, m)] - slope @ covariance[np.ix_(o, m)]
    return float(log_prob), expected, spread


def of_members(members: Any, x: np.ndarray, there: np.ndarray) -> list[Any]:
    """Log-densities [K], conditional means [K, D] and covariances [K, D, D] of one row."""
    mean = np.asarray(members.mean, float)
    covariance = np.broadcast_to(np.asarray(members.covariance, float), (len(mean), D, D))
    found = [normal_given(x, there, *one) for one in zip(mean, covariance, strict=True)]
    return [np.array(part) for part in zip(*found, strict=True)]


def row_given(
    model: jaxem.Mixture, x: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of one row of a mixture of normals given what is observed of it."""
    log_prob, expected, spread = of_members(model.components, x, there)
    share = np.asarray(model.weights.probs, float) * np.exp(log_prob)
    share /= share.sum()
    mean = share @ expected
    outer = np.einsum("ki,kj->kij", expected - mean, expected - mean)
    return mean, np.tensordot(share, spread + outer, 1)


def wanted(model: jaxem.Mixture, data: jaxem.Samples) -> np.ndarray:
    """The rows with conditional means, by the textbook's formula."""
    rows = zip(data.values.astype(float), data.observed, strict=True)
    return np.array([row_given(model, x, there)[0] for x, there in rows])


def draws(model: Any, data: Any, number: int, seed: int = 0) -> np.ndarray:
    """Many draws of the data."""
    keys = jax.random.split(jax.random.key(seed), number)
    return np.asarray(jax.vmap(lambda key: jaxem.sample_missing(key, model, data))(keys))


def assert_frequencies(found: np.ndarray, probability: np.ndarray) -> None:
    """Frequencies [M] of so many draws, within five of their standard errors."""
    number = found.sum()
    error = np.sqrt(probability * (1 - probability) / number)
    np.testing.assert_array_less(np.abs(found / number - probability), 5 * error + 1e-12)


@pytest.mark.parametrize("kind", slow("spherical"))
def test_missing_entries_become_their_conditional_means(kind, x64):
    """In the order of the rows, by pattern and by row; the rest is what it was, bit by bit."""
    model, data = gaussians(kind), incomplete()
    exact = wanted(model, data)
    for impute in (jaxem.impute, IMPUTE):
        found = np.asarray(impute(model, data))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found[data.observed], data.values[data.observed])
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(exact[0], WEIGHTS @ np.asarray(model.components.mean), rtol=1e-9)


@pytest.mark.parametrize("kind", slow("tied", "diagonal", "spherical"))
def test_draws_have_the_conditional_means_and_covariances(kind, x64):
    """A row that lacks all, one whose cluster is open, one that lacks nothing."""
    model = gaussians(kind, spread=6.0)
    values, observed = np.zeros((3, D)), np.array([[False] * D, [False, True, False], [True] * D])
    mean = np.asarray(model.components.mean)
    values[1:, 1] = mean[:2, 1].mean()
    data = jaxem.Samples(values, None, observed)
    number = 20_000
    keys = jax.random.split(jax.random.key(1), number)
    by_row = jax.jit(
        lambda data: jax.vmap(lambda key: jaxem.sample_missing(key, model, data))(keys)
    )
    for found in (draws(model, data, number), np.asarray(by_row(data))):
        np.testing.assert_array_equal(found[:, observed], np.tile(values[observed], (number, 1)))
        for row in range(2):
            expected, covariance = row_given(model, values[row], observed[row])
            away = found[:, row] - expected
            error = np.sqrt(covariance.diagonal() / number)
            np.testing.assert_array_less(np.abs(away.mean(0)), 5 * error + 1e-12)
            products = np.einsum("ni,nj->nij", away, away)
            error = 5 * products.std(0) / np.sqrt(number)
            np.testing.assert_array_less(np.abs(products.mean(0) - covariance), error + 1e-9)


@pytest.mark.parametrize("kind", slow("tied", "diagonal", "spherical"))
def test_far_from_the_origin_nothing_but_the_offset_is_rounded(kind):
    offset = 2.0**17
    model, data = em.cast(gaussians(kind), np.float32), incomplete(np.float32, offset)
    model = replace(model, components=model.components.translate(np.full(D, offset, np.float32)))
    exact = wanted(model, data)
    for impute in (jaxem.impute, IMPUTE):
        found = np.asarray(impute(model, data))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[data.observed], data.values[data.observed])
        np.testing.assert_allclose(found, exact, rtol=0, atol=offset * 2.0**-23)


def test_one_component_one_feature_one_row_and_whole_numbers():
    normal = jaxem.Gaussian.from_moments([[2.0]], [[[1.0]]])
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(1)), normal)
    data = jaxem.Samples(np.array([5, 7]), None, np.array([True, False]))
    found = jaxem.impute(model, data)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [5, 2])
    single = jaxem.Samples.from_nan(np.array([[np.nan]]), np.zeros(1) + 1)
    np.testing.assert_array_equal(jaxem.impute(model, single), [[2]])


def test_weights_have_no_influence_not_even_0():
    model, data = em.cast(gaussians("full"), np.float32), incomplete(np.float32)
    weighted = replace(data, sample_weight=np.arange(N) % 2.0)
    np.testing.assert_array_equal(jaxem.impute(model, weighted), jaxem.impute(model, data))
    key = jax.random.key(0)
    np.testing.assert_array_equal(
        jaxem.sample_missing(key, model, weighted), jaxem.sample_missing(key, model, data)
    )


def test_complete_data_come_back():
    model, key = gaussians("tied"), jax.random.key(0)
    x = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)
    for data in (x, jaxem.Samples(x), jaxem.Samples.from_nan(x)):
        for found in (jaxem.impute(model, data), jaxem.sample_missing(key, model, data)):
            np.testing.assert_array_equal(found, x)
    switch = jaxem.Categorical.from_probs(np.full((K, K), 1 / K))
    hmm = jaxem.HMM(model.weights, switch, model.components)
    np.testing.assert_array_equal(jaxem.impute(hmm, x), x)
    padded = np.asarray(jaxem.impute(hmm, [x, x[:1]]))
    np.testing.assert_array_equal(padded, jaxem.Sequences.pack([x, x[:1]]).values)


# Counts, coins and symbols


def test_counts_and_coins_are_filled_with_means_and_drawn_whole():
    pi = np.array([0.25, 0.75])
    weights = jaxem.Categorical.from_probs(pi)
    rates, odds = np.array([[1.0, 4.0], [9.0, 0.0]]), np.array([[0.1, 0.9], [0.8, 0.0]])
    observed = np.array([[True, False], [False, False], [True, True]])
    rows = np.array([[1, -7], [-7, -7], [1, 0]])
    cases = (
        (jaxem.Poisson.from_rate, rates, rates[:, 0] * np.exp(-rates[:, 0])),
        (jaxem.Bernoulli.from_probs, odds, odds[:, 0]),
    )
    for make, mean, chance in cases:
        model = jaxem.Mixture(weights, make(jnp.asarray(mean, jnp.float32)))
        data = jaxem.Samples(rows, None, observed)
        found = np.asarray(jaxem.impute(model, data))
        share = pi * chance / (pi @ chance)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[observed], rows[observed])
        np.testing.assert_allclose(found[0, 1], share @ mean[:, 1], rtol=1e-5)
        np.testing.assert_allclose(found[1], pi @ mean, rtol=1e-5)
        drawn = draws(model, data, 4000)
        assert drawn.dtype == jnp.zeros((), int).dtype
        np.testing.assert_array_equal(drawn[:, observed], np.tile(rows[observed], (4000, 1)))
        error = 5 * drawn.std(0) / np.sqrt(4000)
        np.testing.assert_array_less(np.abs(drawn.mean(0) - found), error + 1e-6)


def test_numbers_without_a_feature_axis():
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(2)), jaxem.Poisson.from_rate([1.0, 3.0]))
    data = jaxem.Samples.from_nan(np.array([2.0, np.nan, 0.0]))
    np.testing.assert_allclose(jaxem.impute(model, data), [2, 2, 0], rtol=1e-6)
    drawn = draws(model, data, 50)
    assert drawn.shape == (50, 3)
    np.testing.assert_array_equal(drawn[:, [0, 2]], np.tile([2, 0], (50, 1)))


def test_a_missing_symbol_is_the_most_probable_of_the_mixture():
    """Which need not be that of any component."""
    table = jaxem.Categorical.from_probs([[0.6, 0.0, 0.4], [0.0, 0.55, 0.45]])
    half = jaxem.Categorical.from_probs([0.5, 0.5])
    data = jaxem.Samples(np.array([0, 1, 9]), None, np.array([True, True, False]))
    nested = jaxem.MixtureFamily(jaxem.Categorical.from_probs([[0.5, 0.5]]), table)
    alone = jaxem.Categorical.from_probs([1.0])
    for model in (jaxem.Mixture(half, table), jaxem.Mixture(alone, nested)):
        found = jaxem.impute(model, data)
        assert jnp.issubdtype(found.dtype, jnp.integer)
        assert found.tolist() == [0, 1, 2]
        drawn = draws(model, data, 2000)
        assert_frequencies(np.bincount(drawn[:, 2]), np.array([0.3, 0.275, 0.425]))


# Components inside components


@pytest.mark.parametrize("kind", [pytest.param("full", marks=pytest.mark.slow), "spherical"])
def test_a_mixture_of_mixtures_is_a_mixture(kind, x64):
    plain, data = gaussians(kind), incomplete()
    outer, inner = np.array([0.4, 0.6]), np.array([[0.3, 0.7], [0.9, 0.1]])
    four = jax.tree.map(lambda leaf: leaf[jnp.array([0, 1, 2, 0])] + 0.1, plain.components)
    family = jaxem.MixtureFamily(jaxem.Categorical.from_probs(inner), four)
    nested = jaxem.Mixture(jaxem.Categorical.from_probs(outer), family)
    flat = jaxem.Mixture(jaxem.Categorical.from_probs((outer[:, None] * inner).ravel()), four)
    exact = wanted(flat, data)
    for impute in (jaxem.impute, IMPUTE):
        np.testing.assert_allclose(impute(nested, data), exact, rtol=1e-9, atol=1e-9)
    row = jax.tree.map(lambda leaf: leaf[2:3], data)
    mean, covariance = row_given(flat, row.values[0], row.observed[0])
    away = draws(nested, row, 20_000)[:, 0] - mean
    products = np.einsum("ni,nj->nij", away, away)
    error = 5 * products.std(0) / np.sqrt(len(away))
    np.testing.assert_array_less(np.abs(products.mean(0) - covariance), error + 1e-9)


# Sequences


def two_states(emission: Any) -> jaxem.HMM:
    make = jaxem.Categorical.from_probs
    return jaxem.HMM(make([0.7, 0.3]), make([[0.9, 0.1], [0.3, 0.7]]), emission)


def posterior_of_paths(model: jaxem.HMM, log_prob: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Every path through the steps of one sequence, and its posterior probability."""
    steps, states = log_prob.shape
    initial, moves = np.exp(model.log_initial), np.asarray(model.transition.probs)
    paths = list(itertools.product(range(states), repeat=steps))
    weight = np.array(
        [
            initial[path[0]]
            * np.prod([moves[pair] for pair in itertools.pairwise(path)])
            * np.exp(sum(log_prob[t, k] for t, k in enumerate(path)))
            for path in paths
        ]
    )
    return paths, weight / weight.sum()


def test_steps_know_of_the_whole_sequence(x64):
    """By enumeration of paths; past its end a sequence comes back as it came."""
    members = gaussians("full").components
    model = two_states(jax.tree.map(lambda leaf: leaf[:2], members))
    rng = np.random.default_rng(2)
    values, observed = rng.normal(size=(2, 4, D)), rng.random((2, 4, D)) < 0.5
    observed[0, 1] = False
    lengths = np.array([4, 2])
    values[1, 2:] = np.nan
    data = jaxem.Sequences(values, lengths, observed=observed)
    exact = values.copy()
    for b, length in enumerate(lengths):
        steps = [of_members(model.emission, values[b, t], observed[b, t]) for t in range(length)]
        paths, posterior = posterior_of_paths(model, np.array([step[0] for step in steps]))
        exact[b, :length] = 0
        for path, share in zip(paths, posterior, strict=True):
            exact[b, :length] += share * np.array([steps[t][1][k] for t, k in enumerate(path)])
    inside = (np.arange(4) < lengths[:, None])[..., None] & observed
    for impute in (jaxem.impute, IMPUTE):
        found = np.asarray(impute(model, data))
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(found[inside], values[inside])
    drawn = draws(model, data, 3)
    np.testing.assert_array_equal(drawn[:, inside], np.tile(values[inside], (3, 1)))
    assert np.isnan(drawn[:, 1, 2:]).all()
    assert np.isfinite(drawn[:, 0]).all()


def test_missing_steps_are_drawn_together(x64):
    """Two symbols of one sequence depend on each other through the path."""
    emission = jaxem.Categorical.from_probs([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    model = two_states(emission)
    data = jaxem.Sequences.from_nan(np.array([[0, np.nan, np.nan, 2], [1, 1, 1, 1]]))
    pairs = np.array(list(itertools.product(range(3), repeat=2)))
    filled = np.tile([0, 0, 0, 2], (9, 1))
    filled[:, 1:3] = pairs
    probability = np.exp(np.asarray(model.log_likelihoods(jaxem.Sequences(filled))))
    drawn = draws(model, data, 5000)
    assert np.issubdtype(drawn.dtype, np.integer)
    np.testing.assert_array_equal(drawn[:, 1], 1)
    code = drawn[:, 0, 1] * 3 + drawn[:, 0, 2]
    assert_frequencies(np.bincount(code, minlength=9), probability / probability.sum())
    joint = probability.reshape(3, 3)
    best = joint.sum(1).argmax(), joint.sum(0).argmax()
    assert jaxem.impute(model, data)[0].tolist() == [0, *best, 2]


# What cannot be, and what makes no sense


def test_an_impossible_row_has_nothing_to_be_filled_with():
    certain = jaxem.Bernoulli.from_probs([[1.0, 0.5], [1.0, 0.2]])
    model = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), certain)
    observed = np.array([[True, False], [True, False]])
    data = jaxem.Samples(np.array([[0, 1], [1, 1]]), None, observed)
    np.testing.assert_allclose(jaxem.impute(model, data), [[0, np.nan], [1, 0.35]], rtol=1e-6)
    assert jaxem.sample_missing(jax.random.key(0), model, data)[0].tolist() == [0, -1]
    sequences = jaxem.Sequences(data.values[None], observed=observed[None])
    hmm = two_states(certain)
    assert np.isnan(np.asarray(jaxem.impute(hmm, sequences))[0, :, 1]).all()
    drawn = jaxem.sample_missing(jax.random.key(0), hmm, sequences)
    assert drawn[0].tolist() == [[0, -1], [1, -1]]
    table = jaxem.Categorical.from_probs([[1.0, 0.0], [1.0, 0.0]])
    symbols = jaxem.Sequences.from_nan(np.array([[1, np.nan]]))
    assert jaxem.impute(two_states(table), symbols).tolist() == [[1, -1]]


@pytree
class Silent:
    """Unit normals that take incomplete rows, and say nothing of what they lack."""

    mean: Any  # [K]
    event_shape = ()

    @property
    def num_members(self) -> int:
        return len(self.mean)

    @property
    def accurate(self) -> bool:
        return True

    def partial_form(self, _: Any) -> "Silent":
        return self

    def log_prob(self, x: Any) -> Any:
        return jnp.where(x.observed, -0.5 * (x.values - self.mean[:, None]) ** 2, 0).T


def test_what_makes_no_sense_is_refused_by_name():
    model: Any = gaussians("full")
    data: Any = incomplete()
    sample = partial(jaxem.sample_missing, jax.random.key(0))
    silent = jaxem.Mixture(jaxem.Categorical(jnp.zeros(2)), Silent(jnp.arange(2.0)))
    holes = jaxem.Samples.from_nan(np.array([1.0, np.nan]))
    sequences = jaxem.Sequences(data.values[None], observed=data.observed[None])
    for ask, missing in ((jaxem.impute, "expected"), (sample, "draw")):
        with pytest.raises(ValueError, match="must be a Mixture or an HMM .* got Samples"):
            ask(data, model)
        with pytest.raises(ValueError, match="rows, plain or as Samples, not Sequences"):
            ask(model, sequences)
        with pytest.raises(ValueError, match="nan at row 0, column 0 .* `from_nan`"):
            ask(model, data.values)
        with pytest.raises(ValueError, match=rf"\[N, {D}\] for this family, got \[{N}, 2\]"):
            ask(model, jaxem.Samples(data.values[:, :2], None, data.observed[:, :2]))
        with pytest.raises(ValueError, match=f"Silent has no {missing}"):
            ask(silent, holes)
    counts = jaxem.Mixture(jaxem.Categorical(jnp.zeros(1)), jaxem.Poisson(jnp.zeros(1)))
    with pytest.raises(ValueError, match="count too large for int32: 3000000000.0 at row 0"):
        sample(counts, jaxem.Samples.from_nan(np.array([3e9, np.nan])))


def test_a_label_decides_between_the_components():
    model, data = em.cast(gaussians("full"), np.float32), incomplete(np.float32)
    known = replace(data, labels=np.full(N, 2))
    exact = [
        of_members(model.components, x, there)[1][2]
        for x, there in zip(data.values.astype(float), data.observed, strict=True)
    ]
    np.testing.assert_allclose(jaxem.impute(model, known), exact, rtol=1e-4, atol=1e-4)
