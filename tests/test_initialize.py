"""Starts: where components begin, and that a start is one from which EM can go on."""

import jax
import numpy as np
import pytest

import jaxem
from jaxem import initialize

KEY = jax.random.key(0)
STARTS = [
    initialize.kmeans_plus_plus,
    initialize.random_rows,
    initialize.random_responsibilities,
]


@pytest.mark.parametrize("start", STARTS)
def test_a_start_is_deterministic_in_the_key_and_differs_between_keys(start):
    x = jaxem.datasets.old_faithful()
    one, again = (start(KEY, jaxem.Gaussian, x, 3) for _ in range(2))
    other = start(jax.random.key(1), jaxem.Gaussian, x, 3)
    np.testing.assert_array_equal(one.components.mean, again.components.mean)
    assert not np.allclose(one.components.mean, other.components.mean)
    assert np.all(np.isfinite(one.components.log_cholesky))
    np.testing.assert_allclose(one.weights.probs.sum(), 1, rtol=1e-6)


def test_kmeans_plus_plus_finds_clusters_that_lie_far_apart():
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]])
    x = (centers[:, None] + rng.normal(size=(4, 100, 2))).reshape(-1, 2)
    for seed in range(5):
        mean = initialize.kmeans_plus_plus(
            jax.random.key(seed), jaxem.Gaussian, x, 4
        ).components.mean
        nearest = np.abs(np.asarray(mean)[:, None] - centers).max(-1).min(0)
        assert np.all(nearest < 2)  # the pretend rows pull a little towards the middle


@pytest.mark.parametrize("family", [jaxem.Gaussian, jaxem.TiedGaussian, jaxem.DiagonalGaussian])
@pytest.mark.parametrize("kind", ["constant", "collinear"])
def test_rows_in_a_plane_give_a_start_with_a_floor(family, kind):
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:, 1] = 3 if kind == "constant" else x[:, 0]
    start = initialize.kmeans_plus_plus(KEY, family, x, 2)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(start))
    assert np.isfinite(jaxem.fit(start, x, max_steps=3).log_likelihood)


def test_components_inside_a_member_begin_apart():
    """EM keeps equal components equal, and a mixture of them is no mixture."""
    x = jaxem.datasets.old_faithful()
    family = jaxem.MixtureFamily.of(jaxem.DiagonalGaussian, 2)
    for start in STARTS:
        mean = np.asarray(start(KEY, family, x, 2).components.components.mean).reshape(2, 2, 2)
        assert np.all(np.abs(mean[:, 0] - mean[:, 1]).max(-1) > 1e-3)


def test_rows_of_weight_0_are_no_seeds():
    x = np.array([[0.0], [1.0], [100.0]] * 5)
    weight = np.array([1.0, 1.0, 0.0] * 5)
    for seed in range(5):
        data = jaxem.Samples(x, weight)
        mean = initialize.kmeans_plus_plus(
            jax.random.key(seed), jaxem.DiagonalGaussian, data, 2
        ).components.mean
        assert np.max(mean) <= 1


@pytest.mark.parametrize("start", STARTS)
def test_an_hmm_begins_at_any_mixture_start_of_ragged_sequences(start):
    counts = jaxem.datasets.earthquakes()
    model = initialize.hmm(
        KEY, jaxem.Poisson, [counts[:40], counts[40:41], counts[41:]], 2, start=start
    )
    np.testing.assert_allclose(model.transition.probs.sum(1), 1, rtol=1e-6)
    assert np.all(np.asarray(model.transition.probs) > 0)
    assert np.all(np.asarray(model.initial.probs) > 0)


def test_symbols_begin_with_every_symbol_possible_in_every_state():
    rolls, _, _ = jaxem.datasets.dishonest_casino(KEY, 200)
    model = initialize.hmm(KEY, jaxem.Categorical, np.asarray(rolls), 2)
    probs = np.asarray(model.emission.probs)
    assert probs.shape == (2, 6) and np.all(probs > 0)
    assert np.abs(probs[0] - probs[1]).max() > 0.05


@pytest.mark.parametrize("num_components", [0, 4])
def test_a_number_of_components_out_of_range_is_refused(num_components):
    with pytest.raises(ValueError, match="from 1 to the number of rows that count, 3"):
        initialize.kmeans_plus_plus(KEY, jaxem.Gaussian, np.eye(3), num_components)


def test_data_that_no_member_can_have_produced_are_refused():
    with pytest.raises(ValueError, match="row 1, column 0"):
        initialize.kmeans_plus_plus(KEY, jaxem.Gaussian, np.array([[1.0], [np.nan]]), 1)
    with pytest.raises(ValueError, match="symbol out of range: -1 at row 2"):
        initialize.kmeans_plus_plus(KEY, jaxem.Categorical, np.array([0, 1, -1]), 2)
    with pytest.raises(ValueError, match="too large: .* at row 0"):
        initialize.kmeans_plus_plus(KEY, jaxem.Gaussian, np.array([[1e200], [1.0]]), 1)


@pytest.mark.parametrize("start", ["kmeans_plus_plus", "random_rows"])
def test_rows_of_weight_zero_change_no_start(start):
    x = np.random.default_rng(0).normal(size=(30, 2)) + 4 * (np.arange(30) % 2)[:, None]
    weight = np.ones(32)
    weight[[3, 20]] = 0
    make = getattr(jaxem.initialize, start)

    def begin(absent):
        rows = np.insert(x, [3, 19], absent, axis=0)
        return make(jax.random.key(0), jaxem.Gaussian, jaxem.Samples(rows, weight), 2)

    assert jax.tree.all(jax.tree.map(np.array_equal, begin([[0, 0]]), begin([[1e4, -1e4]])))
    with pytest.raises(ValueError, match="rows that count, 1; got 2"):
        make(jax.random.key(0), jaxem.Gaussian, jaxem.Samples(x[:3], np.array([0, 1, 0])), 2)
