"""Starts: where components begin, and that a start is one from which EM can go on."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
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


# Traced starts

FAMILIES = {
    "gaussian": jaxem.Gaussian,
    "tied": jaxem.TiedGaussian,
    "diagonal": jaxem.DiagonalGaussian,
    "spherical": jaxem.SphericalGaussian,
    "poisson": jaxem.Poisson,
    "bernoulli": jaxem.Bernoulli,
    "categorical": jaxem.Categorical.of(4),
    "mixture": jaxem.MixtureFamily.of(jaxem.DiagonalGaussian, 2),
    "mixed symbols": jaxem.MixtureFamily.of(jaxem.Categorical.of(4), 2),
}
RNG = np.random.default_rng(7)
X = np.round(RNG.normal(size=(24, 2)) + 3 * RNG.integers(2, size=(24, 1)), 3)
COUNTS, SYMBOLS = RNG.poisson(6, 24), RNG.integers(4, size=24)
WEIGHT = RNG.integers(4, size=24) * 0.5
LABELS = np.where(RNG.random(24) < 0.3, RNG.integers(2, size=24), -1)
OBSERVED = RNG.random((24, 2)) < 0.8
LENGTHS = np.array([6, 2, 4])


def rows(name, **parts):
    """Rows that this family can have produced."""
    symbolic = name in ("categorical", "mixed symbols")
    values = SYMBOLS if symbolic else COUNTS[:, None] if name == "poisson" else X
    values = (X > 1).astype(float) if name == "bernoulli" else values
    return jaxem.Samples(values, **parts)


def seen(name):
    """Which of their entries are observed."""
    return OBSERVED if rows(name).values.ndim == 2 and name != "poisson" else OBSERVED[:, 0]


def everything(name):
    """Rows with weights, labels and missing entries."""
    data = rows(name, sample_weight=WEIGHT, labels=LABELS)
    return replace(data, observed=seen(name).reshape(data.values.shape))


def sequences(values, **parts):
    """Three of them, padded to eight steps."""
    return jaxem.Sequences(values.reshape(3, 8, *values.shape[1:]), LENGTHS, **parts)


def close(found, wanted, rtol=2e-5):
    """Whether two models are equal to rounding."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


def flat(model):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(model)])


PINNED = {  # of version 0.1.0 before starts were traced: the same key gives the same start
    "gaussian": [
        -0.62861,
        -0.76214,
        2.0526,
        2.4425,
        -0.052848,
        -0.084054,
        0.22089,
        0.81572,
        -0.30933,
        0.33718,
        0.60872,
        0.047006,
    ],
    "gaussian_weights": [
        -1.1815,
        -0.36646,
        -0.53038,
        0.11477,
        1.5247,
        1.3848,
        0.52133,
        1.1678,
        -0.27045,
        0.34975,
        1.4145,
        -0.11053,
    ],
    "gaussian_soft": [
        -0.94159,
        -0.49431,
        1.1329,
        1.3889,
        0.74151,
        0.74341,
        0.6279,
        0.49752,
        0.52929,
        0.52085,
    ],
    "gaussian_labels_missing": [
        -1.11,
        -0.3998,
        2.2747,
        2.4678,
        0.67153,
        0.97077,
        0.54464,
        0.69828,
        0.42273,
    ],
    "poisson": [-0.6214, -0.77044, 2.1282, 1.6059],
    "categorical": [
        -1.006,
        -0.4552,
        -0.96474,
        -1.1045,
        -3.1768,
        -1.4032,
        -1.0185,
        -1.6288,
        -1.1782,
        -2.0034,
    ],
    "mixture": [
        -0.64004,
        -0.74924,
        -0.69315,
        -0.69315,
        -0.58395,
        -0.81575,
        0.54406,
        0.056644,
        -0.49718,
        0.11464,
        1.6732,
        1.8289,
        2.1076,
        2.2374,
        0.15738,
        0.27702,
        0.48841,
        0.29718,
        0.30039,
        0.22499,
        0.53625,
        0.51892,
    ],
    "hmm_poisson": [-0.20067, -1.7047, -0.35667, -1.204, -0.51083, -0.91629, 1.7857, 1.2737],
    "hmm_categorical": [
        -0.91629,
        -0.51083,
        -0.28768,
        -1.3863,
        -0.51083,
        -0.91629,
        -2.5521,
        -0.69406,
        -3.3176,
        -0.95115,
        -1.2494,
        -2.2202,
        -1.0699,
        -1.3405,
    ],
    "hmm_gaussian": [
        -1.6094,
        -0.22314,
        -1.0986,
        -0.40547,
        -1.204,
        -0.35667,
        2.3609,
        0.34005,
        2.1651,
        1.8447,
        0.44231,
        0.31336,
    ],
}


def pinned_start(name):
    key, kmeans, Samples = jax.random.key(3), initialize.kmeans_plus_plus, jaxem.Samples
    weight, labels = WEIGHT, LABELS
    if name == "gaussian":
        return kmeans(key, jaxem.Gaussian, X, 2)
    if name == "gaussian_weights":
        return initialize.random_rows(key, jaxem.Gaussian, Samples(X, weight), 2)
    if name == "gaussian_soft":
        data = Samples(X, weight, None, labels)
        return initialize.random_responsibilities(key, jaxem.DiagonalGaussian, data, 2)
    if name == "gaussian_labels_missing":
        return kmeans(key, jaxem.TiedGaussian, Samples(X, weight, OBSERVED, labels), 2)
    if name == "poisson":
        return kmeans(key, jaxem.Poisson, Samples(COUNTS, weight), 2)
    if name == "categorical":
        data = Samples(SYMBOLS, weight + 0.5, OBSERVED[:, 0], labels)
        return kmeans(key, jaxem.Categorical, data, 2)
    if name == "mixture":
        return kmeans(key, FAMILIES["mixture"], Samples(X, weight), 2)
    if name == "hmm_poisson":
        data = sequences(COUNTS, sample_weight=np.array([1.0, 2.0, 0.5]))
        return initialize.hmm(key, jaxem.Poisson, data, 2)
    if name == "hmm_categorical":
        data = sequences(SYMBOLS, labels=labels.reshape(3, 8))
        return initialize.hmm(key, jaxem.Categorical, data, 2)
    data = sequences(X, observed=OBSERVED.reshape(3, 8, 2))
    return initialize.hmm(key, jaxem.SphericalGaussian, data, 2, start=initialize.random_rows)


@pytest.mark.parametrize("name", PINNED)
def test_the_same_key_gives_the_start_that_it_always_gave(name):
    np.testing.assert_allclose(flat(pinned_start(name)), PINNED[name], rtol=1e-4, atol=1e-5)


def test_draws_over_more_rows_begin_with_the_same_numbers():
    """What padding invariance stands on."""
    for draw in (
        lambda n: jax.random.gumbel(KEY, (n,)),
        lambda n: jax.random.dirichlet(KEY, jnp.ones(3), (n,)),
        lambda n: jax.random.randint(KEY, (n, 3), 0, jnp.array([2, 5, 9])),
    ):
        np.testing.assert_array_equal(draw(40)[:24], draw(24))


def often(*names):
    """These always, the other families among the slow tests."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name not in names]
    return pytest.mark.parametrize("name", [*names, *slow])


def padded(data, bad):
    """Nine rows more, of weight 0, that hold this."""

    def extend(part, value):
        return np.concatenate([part, np.full((9, *part.shape[1:]), value, part.dtype)])

    return jaxem.Samples(
        extend(data.values, bad),
        extend(data.sample_weight, 0),
        extend(data.observed, True),
        extend(data.labels, 1),
    )


def illegal(values):
    """What no family can have produced, in this dtype."""
    return -7 if values.dtype.kind == "i" else np.nan


@often("gaussian", "categorical", "mixture")
def test_a_start_from_traced_rows_padded_with_anything_is_the_eager_one_from_the_rows(name):
    family, data = FAMILIES[name], everything(name)
    wanted = initialize.kmeans_plus_plus(KEY, family, data, 2)
    traced = jax.jit(lambda key, data: initialize.kmeans_plus_plus(key, family, data, 2))
    close(traced(KEY, padded(data, illegal(data.values))), wanted)


@pytest.mark.parametrize("start", STARTS)
def test_rows_of_weight_0_at_the_end_change_no_start(start):
    data = everything("poisson")
    wanted = start(KEY, jaxem.Poisson, data, 2)
    close(start(KEY, jaxem.Poisson, padded(data, 1), 2), wanted)
    close(jax.jit(lambda key: start(key, jaxem.Poisson, data, 2))(KEY), wanted)


def test_symbols_are_counted_where_the_key_alone_is_traced():
    data = everything("categorical")
    wanted = initialize.kmeans_plus_plus(KEY, jaxem.Categorical, data, 2)

    def start(key):
        return initialize.kmeans_plus_plus(
            key, jaxem.Categorical, jax.tree.map(jnp.asarray, data), 2
        )

    on_device = jax.tree.map(jnp.asarray, data)
    close(
        jax.jit(lambda key: initialize.kmeans_plus_plus(key, jaxem.Categorical, on_device, 2))(KEY),
        wanted,
    )
    with pytest.raises(ValueError, match="state it"):  # moved under the trace, they are traced
        jax.jit(start)(KEY)


@often("gaussian")
def test_starts_under_vmap_are_those_one_by_one(name):
    keys = jax.random.split(KEY, 3)
    family, data = FAMILIES[name], everything(name)
    many = jax.jit(jax.vmap(lambda key: initialize.kmeans_plus_plus(key, family, data, 3)))(keys)
    for index, key in enumerate(keys):
        one = initialize.kmeans_plus_plus(key, family, data, 3)
        close(jax.tree.map(lambda leaf: leaf[index], many), one)  # noqa: B023


def test_starts_under_vmap_over_data_and_keys():
    """Folds are weights: the data are shared; and one set of data lies in a plane."""
    fold = (np.arange(24) % 3 != np.arange(3)[:, None]).astype(float)
    keys = jax.random.split(KEY, 2)
    shift = np.array([[1.0, 1.0], [2.0, 1.0], [0.0, 1.0]])

    def start(key, weight, scale):
        data = jaxem.Samples(X * scale, weight)
        return initialize.kmeans_plus_plus(key, jaxem.Gaussian, data, 2)

    inner = jax.vmap(start, (0, None, None))
    many = jax.jit(jax.vmap(inner, (None, 0, 0)))(keys, fold, shift)
    for i in range(3):
        for j in range(2):
            one = start(keys[j], fold[i], shift[i])
            close(jax.tree.map(lambda leaf: leaf[i, j], many), one, rtol=2e-4)  # noqa: B023


@often("poisson")
def test_an_hmm_begins_the_same_traced_padded_and_under_vmap(name):
    family, values = FAMILIES[name], rows(name).values
    parts = {"observed": seen(name).reshape(3, 8, *values.shape[1:])}
    if name == "poisson":
        parts |= {"sample_weight": np.array([1.0, 2.0, 0.5]), "labels": LABELS.reshape(3, 8)}
    data = sequences(values, **parts)
    keys = jax.random.split(KEY, 2)
    wanted = [initialize.hmm(key, family, data, 2) for key in keys]

    def longer(part, bad):
        more = np.full((5, 11, *part.shape[2:]), bad, part.dtype)
        more[:3, :8] = part
        return more

    more = {"observed": longer(data.observed, True)}
    if name == "poisson":
        weight = np.array([1.0, 2.0, 0.5, 3.0, 1.0])  # of sequences of length 0
        more |= {"sample_weight": weight, "labels": longer(data.labels, 1)}
    values = longer(data.values, illegal(values))
    more = jaxem.Sequences(values, np.array([*LENGTHS, 0, 0]), **more)
    start = jax.jit(
        jax.vmap(lambda key, data: initialize.hmm(key, family, data, 2), in_axes=(0, None))
    )
    many = start(keys, more)
    for index, one in enumerate(wanted):
        close(jax.tree.map(lambda leaf: leaf[index], many), one)  # noqa: B023


@often("poisson")
def test_padded_sequences_begin_as_they_are(name):
    family, values = FAMILIES[name], rows(name).values
    data = sequences(values)
    longer = np.full((5, 11, *values.shape[1:]), illegal(values), values.dtype)
    longer[:3, :8] = data.values
    more = jaxem.Sequences(longer, np.array([*LENGTHS, 0, 0]))
    close(initialize.hmm(KEY, family, more, 2), initialize.hmm(KEY, family, data, 2))


def test_whole_numbers_as_far_from_two_seeds_go_where_they_go_without_padding():
    """A tie that the rounding of a standard deviation decides would be another one with padding."""
    counts = np.asarray(jaxem.datasets.earthquakes())
    padded = jaxem.Samples(np.append(counts, np.zeros(21, int)), np.arange(128) < len(counts))
    padded = replace(padded, sample_weight=padded.sample_weight.astype(float))
    keys = jax.random.split(KEY, 50)
    one, other = (
        jax.vmap(lambda key: initialize.kmeans_plus_plus(key, jaxem.Poisson, data, 4))(keys)  # noqa: B023
        for data in (counts, padded)
    )
    close(one, other)


def test_traced_symbols_need_their_number_stated():
    def start(family):
        return jax.jit(lambda x: initialize.kmeans_plus_plus(KEY, family, x, 2))(SYMBOLS)

    with pytest.raises(ValueError, match=r"state it: Categorical.of\(V\)"):
        start(jaxem.Categorical)
    assert start(jaxem.Categorical.of(9)).components.probs.shape == (2, 9)
    with pytest.raises(ValueError, match="symbol out of range: 3 at row .*from 0 to 2"):
        initialize.kmeans_plus_plus(KEY, jaxem.Categorical.of(3), SYMBOLS, 2)
    outside = jax.jit(lambda x: initialize.kmeans_plus_plus(KEY, jaxem.Categorical.of(3), x, 2))
    assert np.all(np.isnan(outside(SYMBOLS).weights.probs))


def test_a_stated_symbol_that_is_never_seen_is_improbable_and_possible():
    start = initialize.kmeans_plus_plus(KEY, jaxem.Categorical.of(6), SYMBOLS, 2)
    unseen = np.asarray(start.components.probs)[:, 4:]
    assert np.all((unseen > 0) & (unseen < 0.05))
    prior = jaxem.Prior(symbols=0.5)
    fitted = jaxem.fit(start, SYMBOLS, prior=prior, max_steps=3).model
    assert np.all(np.asarray(fitted.components.probs) > 0)
    inferred = initialize.kmeans_plus_plus(KEY, jaxem.Categorical, 2 * SYMBOLS, 2)
    assert np.all(np.asarray(inferred.components.probs)[:, 1::2] == 0)


@often("poisson")
def test_one_component_is_a_start(name):
    for start in STARTS:
        model = start(KEY, FAMILIES[name], rows(name), 1)
        assert np.all(np.isfinite(flat(model))) and model.weights.probs.tolist() == [1.0]
    model = initialize.hmm(KEY, FAMILIES[name], sequences(rows(name).values), 1)
    assert np.all(np.isfinite(flat(model)))


def test_candidates_made_alike_are_equal_and_compile_once():
    def candidate(k, family: Any = jaxem.Gaussian):
        return initialize.Start(initialize.kmeans_plus_plus, family, k)

    traces = []

    def run(key, start):
        traces.append(start)
        return start(key, X)

    run = jax.jit(run, static_argnums=1)
    close(run(KEY, candidate(2)), initialize.kmeans_plus_plus(KEY, jaxem.Gaussian, X, 2))
    run(KEY, candidate(2))
    assert len(traces) == 1
    assert candidate(2) == candidate(2) != candidate(3)
    of = jaxem.MixtureFamily.of
    assert candidate(2, of(jaxem.Poisson, 3)) == candidate(2, of(jaxem.Poisson, 3))
    assert candidate(2, of(jaxem.Poisson, 3)).name == "MixtureFamily.of(Poisson, 3), K=2"
    chain = initialize.Start(initialize.hmm, jaxem.Poisson, 3)
    assert (chain.name, chain.num_components) == ("HMM of Poisson, K=3", 3)
    rows_first = initialize.Start(initialize.random_rows, jaxem.Gaussian, 2)
    assert rows_first.name == "Gaussian, K=2 (random_rows)"
