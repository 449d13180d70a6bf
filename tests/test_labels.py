"""Known and partly known components and states: what labels say, and what they do not."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.flatten_util import ravel_pytree

import jaxem
from jaxem import em, initialize

KEY = jax.random.key(0)
E_STEP = jax.jit(lambda model, data, about: model.e_step(data, about=about))
POSTERIOR = jax.jit(
    lambda model, data, other: (
        model.posterior_entropy(data),
        model.posterior_divergence(data, other),
    )
)
GAUSSIAN = jaxem.Gaussian.from_moments(
    [[0.0, 0.0], [3.0, 1.0], [-2.0, 4.0]], [[[1.0, 0.3], [0.3, 2.0]]] * 3
)
NO_FLOOR = jaxem.Prior(floor=0.0)


def mixture(family: Any, dtype: Any) -> jaxem.Mixture:
    """Three components, none of them as frequent as another."""
    return em.cast(jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.3, 0.2]), family), dtype)


def hmm(family: Any, dtype: Any = np.float64) -> jaxem.HMM:
    """As many states as the family has members."""
    rng = np.random.default_rng(1)
    make = jaxem.Categorical.from_probs
    initial, moves = rng.dirichlet(np.ones(family.num_members), (2, family.num_members))
    return em.cast(jaxem.HMM(make(initial[0]), make(moves), family), dtype)


def close(dtype: Any, ulps: float = 1e4) -> Any:
    """Comparison of trees to some roundings."""
    tolerance = ulps * np.finfo(dtype).eps
    each = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    return lambda found, wanted: jax.tree.map(each, found, wanted)


def rows(dtype: Any = np.float64, number: int = 40) -> np.ndarray:
    """Rows in two features."""
    return (2 * np.random.default_rng(2).normal(size=(number, 2)) + 1).astype(dtype)


def soft_labels(number: int, dtype: Any = np.float64) -> np.ndarray:
    """Evidence of every kind: some members ruled out, some rows that say nothing, some one-hot."""
    rng = np.random.default_rng(3)
    labels = rng.random((number, 3)) * (rng.random((number, 3)) < 0.7)
    labels[0], labels[1] = 0.25, [0, 1, 0]
    labels[labels.sum(1) == 0] = 1
    return labels.astype(dtype)


def path_of(rng: Any, batch: int, steps: int) -> np.ndarray:
    """Steps with the label -1, 0, 1 or 2."""
    return rng.integers(-1, 3, (batch, steps))


# What is known altogether


FAMILIES = {
    "Gaussian": (GAUSSIAN, rows()),
    "Poisson": (
        jaxem.Poisson.from_rate([1.0, 4.0, 9.0]),
        np.random.default_rng(4).integers(0, 12, 40),
    ),
    "Categorical": (
        jaxem.Categorical.from_probs(np.random.default_rng(5).dirichlet(np.ones(4), 3)),
        np.random.default_rng(6).integers(0, 4, 40),
    ),
}


def assert_fitted_by_class(family: Any, x: np.ndarray, labels: np.ndarray, dtype: Any) -> None:
    """That the members are the maximum-likelihood fits of their classes."""
    parts = [x[labels == k] for k in range(3)]
    check = close(dtype)
    if isinstance(family, jaxem.Categorical):
        counts = [np.bincount(part, minlength=4) / len(part) for part in parts]
        return check(family.probs, np.array(counts))
    means = np.array([part.mean(0) for part in parts])
    if isinstance(family, jaxem.Poisson):
        return check(family.rate, means)
    check(family.mean, means)
    return check(family.covariance, np.array([np.cov(part.T, bias=True) for part in parts]))


@pytest.mark.parametrize("name", FAMILIES)
def test_with_all_labels_known_one_step_is_the_fit_of_each_class(name, x64):
    family, x = FAMILIES[name]
    labels = np.random.default_rng(7).integers(0, 3, 40)
    data = jaxem.Samples(x, labels=labels)
    result = jaxem.fit(mixture(family, np.float64), data, max_steps=2, prior=NO_FLOOR)
    shares = np.bincount(labels, minlength=3) / 40
    close(np.float64)(result.model.weights.probs, shares)
    assert_fitted_by_class(result.model.components, x, labels, np.float64)
    close(np.float64)(result.trace[1], result.trace[2])
    assert result.model.predict(data).tolist() == labels.tolist()

    path = labels.reshape(4, 10)
    data = jaxem.Sequences(x.reshape(4, 10, *x.shape[1:]), labels=path)
    result = jaxem.fit(hmm(family), data, max_steps=1, prior=NO_FLOOR)
    moves = np.zeros((3, 3))
    np.add.at(moves, (path[:, :-1].ravel(), path[:, 1:].ravel()), 1)
    close(np.float64)(result.model.transition.probs, moves / moves.sum(1, keepdims=True))
    close(np.float64)(result.model.initial.probs, np.bincount(path[:, 0], minlength=3) / 4)
    assert_fitted_by_class(result.model.emission, x, labels, np.float64)
    assert result.model.viterbi(data)[1].tolist() == path.tolist()


def test_a_known_row_counts_with_its_component_alone(x64):
    model, x = mixture(GAUSSIAN, np.float64), rows()
    labels = np.arange(40) % 3
    data = jaxem.Samples(x, labels=labels)
    each = np.asarray(model.weights.log_probs + model.components.log_prob(x))
    close(np.float64)(model.log_prob(data), each[np.arange(40), labels])
    np.testing.assert_array_equal(model.responsibilities(data), np.eye(3)[labels])


@pytest.mark.parametrize("kind", ["mixture", "hmm"])
def test_members_that_no_label_names_keep_their_parameters(kind):
    if kind == "mixture":
        model: Any = mixture(GAUSSIAN, np.float32)
        data: Any = jaxem.Samples(rows(np.float32), labels=np.ones(40, int))
    else:
        model = hmm(GAUSSIAN, np.float32)
        data = jaxem.Sequences(rows(np.float32)[None], labels=np.ones((1, 40), int))
    result = jaxem.fit(model, data, max_steps=3)
    assert np.isfinite(result.log_likelihood)
    part = "components" if kind == "mixture" else "emission"
    fitted, given = getattr(result.model, part), getattr(model, part)
    for k in (0, 2):
        close(np.float32)(fitted.mean[k], given.mean[k])
        close(np.float32)(fitted.log_cholesky[k], given.log_cholesky[k])
    assert all(not np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(result.model))


# What is known in part: enumeration


def rows_by_enumeration(model: Any, x: np.ndarray, evidence: np.ndarray) -> Any:
    """log p of every row, and the posterior, from the joint of components by definition."""
    each = np.asarray(model.weights.log_probs + model.components.log_prob(x))
    with np.errstate(divide="ignore"):
        joint = each + np.log(evidence)
    total = oracles.logsumexp(joint, 1)
    return total, np.exp(joint - total[:, None])


@pytest.mark.parametrize("kind", ["hard", pytest.param("soft", marks=pytest.mark.slow)])
def test_a_partly_labelled_mixture_is_that_of_the_enumeration(kind, dtype):
    model, x = mixture(GAUSSIAN, dtype), rows(dtype)
    labels = path_of(np.random.default_rng(8), 1, 40)[0]
    evidence = np.where(labels[:, None] == -1, 1.0, np.eye(3)[labels])
    if kind == "soft":
        evidence = labels = soft_labels(40)  # float64, whatever the data are
    data = jaxem.Samples(x, labels=labels)
    log_prob, share = rows_by_enumeration(model, x, evidence)
    check = close(dtype)
    check(model.log_prob(data), log_prob.astype(dtype))
    check(model.responsibilities(data), share.astype(dtype))
    check(model.log_likelihood(data), log_prob.sum())
    assert model.log_likelihood(data).dtype == dtype
    stats, log_likelihood = E_STEP(model, model.validate(data), None)
    check(stats.weights, share.sum(0).astype(dtype))
    check(stats.components, model.components.stats(jnp.asarray(x), jnp.asarray(share, dtype)))
    check(log_likelihood, log_prob.sum())


def enumeration(model: jaxem.HMM, data: jaxem.Sequences, evidence: np.ndarray) -> Any:
    """All paths, each step counting as much as its label says."""
    batch, steps = data.values.shape[:2]
    flat = jnp.asarray(data.values.reshape(batch * steps, *data.values.shape[2:]))
    with np.errstate(divide="ignore"):
        emission = np.asarray(model.emission.log_prob(flat)).reshape(batch, steps, -1)
        emission = emission + np.log(evidence)
    return oracles.enumerate_paths(
        np.broadcast_to(model.log_initial, (batch, 3)),
        np.broadcast_to(model.transition.log_probs, (batch, steps - 1, 3, 3)),
        emission,
        data.lengths,
    )


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_partly_labelled_chain_is_that_of_all_paths(kind, dtype):
    model = hmm(GAUSSIAN, dtype)
    labels = path_of(np.random.default_rng(9), 3, 5)
    evidence = np.where(labels[..., None] == -1, 1.0, np.eye(3)[labels])
    if kind == "soft":
        evidence = labels = soft_labels(15).reshape(3, 5, 3)
    lengths = np.array([5, 3, 1])
    data = jaxem.Sequences(rows(dtype, 15).reshape(3, 5, 2), lengths, labels=labels)
    outside = np.arange(5) >= lengths[:, None]
    garbage = labels.copy()
    garbage[outside] = np.nan if kind == "soft" else 99
    wanted = enumeration(model, data, evidence)
    check = close(dtype)
    for given in (data, replace(data, labels=garbage)):
        check(model.log_likelihoods(given), wanted.log_normalizer.astype(dtype))
        check(model.smooth(given), wanted.emission.astype(dtype))
    check(model.transition_counts(data), wanted.transition.sum((0, 1)).astype(dtype))
    best = wanted.log_weights.argmax(1)
    check(model.viterbi(data)[0], wanted.log_weights.max(1).astype(dtype))
    found = np.where(outside, -1, wanted.paths[best])
    assert model.viterbi(data)[1].tolist() == found.tolist()
    drawn = np.asarray(model.sample_posterior(KEY, data))[~outside]
    assert np.all(evidence[~outside][np.arange(9), drawn] > 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_the_likelihood_and_its_gain_are_made_up_of_q_entropy_and_divergence(kind, x64):
    """Soft labels are the measure that the entropy is relative to."""
    labels = soft_labels(20) if kind == "soft" else path_of(np.random.default_rng(10), 1, 20)[0]
    x = rows(number=20)
    samples = jaxem.Samples(x, np.arange(20) % 3, labels=labels)
    chains = jaxem.Sequences(
        x.reshape(2, 10, 2), np.array([10, 7]), labels=labels.reshape(2, 10, *labels.shape[1:])
    )
    family = jaxem.MixtureFamily(
        jaxem.Categorical.from_probs([[0.4, 0.6]] * 3),
        jaxem.DiagonalGaussian.from_moments(np.random.default_rng(11).normal(size=(6, 2)), 1.0),
    )
    pairs: Any = (mixture(family, np.float64), samples), (hmm(family), chains)
    for model, data in pairs:
        nudge = lambda leaf: leaf + 0.1 * jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape)  # noqa: E731
        other = jax.tree.map(nudge, model)
        given = model.validate(data)
        stats, here = E_STEP(model, given, model)
        there = E_STEP(other, given, other)[1]
        q_here, q_there = (model.expected_log_prob(stats, theta) for theta in (model, other))
        entropy, divergence = POSTERIOR(model, given, other)
        assert float(here) == pytest.approx(float(q_here + entropy), abs=1e-9)
        assert float(there - here) == pytest.approx(float(q_there - q_here + divergence), abs=1e-9)
        assert divergence > 0


# What says the same


def both(labels: Any, dtype: Any = np.float64) -> list[tuple[Any, Any]]:
    """A mixture and an HMM with data whose rows have these labels."""
    x = rows(dtype)
    chains = jaxem.Sequences(x.reshape(4, 10, 2), np.array([10, 7, 0, 1]))
    if labels is not None:
        chains = replace(chains, labels=labels.reshape(4, 10, *labels.shape[1:]))
    return [
        (mixture(GAUSSIAN, dtype), jaxem.Samples(x, labels=labels)),
        (hmm(GAUSSIAN, dtype), chains),
    ]


def test_one_hot_soft_labels_are_hard_ones_and_constants_are_unknown(x64):
    labels = path_of(np.random.default_rng(12), 1, 40)[0]
    one_hot = np.where(labels[:, None] == -1, 1.0, np.eye(3)[labels])
    constant = np.where(labels[:, None] == -1, 0.25, np.eye(3)[labels])
    for (model, hard), (_, soft), (_, scaled) in zip(
        both(labels), both(one_hot), both(constant), strict=True
    ):
        wanted, log_likelihood = E_STEP(model, model.validate(hard), None)
        stats, found = E_STEP(model, model.validate(soft), None)
        close(np.float64)((stats, found), (wanted, log_likelihood))
        stats, found = E_STEP(model, model.validate(scaled), None)
        close(np.float64)(stats, wanted)
        inside = np.ones(40, bool)
        if isinstance(model, jaxem.HMM):
            inside = (np.arange(10) < hard.lengths[:, None]).ravel()
        number = np.sum((labels == -1) & inside)
        close(np.float64)(found, log_likelihood + number * np.log(0.25))


def test_labels_that_know_nothing_are_none():
    """Not only the same numbers: the same program, and no array of labels anywhere."""
    for (model, unknown), (_, without) in zip(
        both(np.full(40, -1), np.float32), both(None, np.float32), strict=True
    ):
        assert model.validate(unknown).labels is None
        chunks = em.prepare(model, model.validate(unknown))
        assert chunks.labels is None
        one, other = (jaxem.fit(model, data, max_steps=2) for data in (unknown, without))
        jax.tree.map(np.testing.assert_array_equal, one, other)
        traced = E_STEP(model, unknown, None)  # not looked at, and no less true
        close(np.float32)(traced, E_STEP(model, without, None))


def test_labels_stay_with_their_rows_in_any_layout(x64):
    """By pattern, by row, weighted, and in more than one chunk."""
    rng = np.random.default_rng(13)
    x, labels = rows(number=600), path_of(rng, 1, 600)[0]
    observed = rng.random(x.shape) < 0.7
    model = mixture(GAUSSIAN, np.float64)
    known, check = labels >= 0, close(np.float64)
    weight = rng.integers(0, 3, 600)
    for kind in (labels, np.where(known[:, None], np.eye(3)[labels], 1.0)):
        data = jaxem.Samples(x, weight, observed, kind)
        grouped = model.validate(data)
        assert grouped.groups is not None
        one = E_STEP(model, grouped, None)
        check(one, E_STEP(model, replace(grouped, groups=None), None))
        index = np.repeat(np.arange(600), weight)
        repeated = jaxem.Samples(x[index], None, observed[index], kind[index])
        check(one, E_STEP(model, model.validate(repeated), None))
        share = np.asarray(model.responsibilities(data))
        np.testing.assert_array_equal(share[known].argmax(1), labels[known])
        complete = np.asarray(model.responsibilities(jaxem.Samples(x, weight, labels=kind)))
        np.testing.assert_array_equal(complete[known].argmax(1), labels[known])


def test_sequences_with_labels_missing_entries_and_weights(x64):
    rng = np.random.default_rng(14)
    labels, observed = path_of(rng, 3, 6), rng.random((3, 6, 2)) < 0.7
    lengths, weight = np.array([6, 4, 0]), np.array([2.0, 1.0, 3.0])
    data = jaxem.Sequences(rows(number=18).reshape(3, 6, 2), lengths, weight, observed, labels)
    model, check = hmm(GAUSSIAN), close(np.float64)
    index = [0, 0, 1]
    repeated = jax.tree.map(lambda leaf: leaf[index], replace(data, sample_weight=None))
    check(E_STEP(model, model.validate(data), None), E_STEP(model, model.validate(repeated), None))
    check(model.log_likelihood(data), model.log_likelihood(repeated))
    known = (labels >= 0) & (np.arange(6) < lengths[:, None])
    assert np.asarray(model.smooth(data)).argmax(-1)[known].tolist() == labels[known].tolist()


# The edges


def test_what_counts_nothing_has_no_label():
    """Nor has a row of weight 0 one that matters, were it impossible or none at all."""
    soft = np.full((40, 3), 1 / 3, np.float32)
    soft[5] = [0, 0, 1]
    bad = soft.copy()
    bad[7] = np.nan
    weight = np.ones(40, np.float32)
    weight[7] = 0
    model = mixture(GAUSSIAN, np.float32)
    data = jaxem.Samples(rows(np.float32), weight, labels=soft)
    wanted = E_STEP(model, data, None)
    found = E_STEP(model, replace(data, labels=bad), None)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    chains = jaxem.Sequences(data.values.reshape(4, 10, 2), None, np.array([0.0, 1, 1, 1]))
    model = hmm(GAUSSIAN, np.float32)
    pair = (replace(chains, labels=part.reshape(4, 10, 3)) for part in (soft, bad))
    jax.tree.map(np.testing.assert_array_equal, *(E_STEP(model, one, None) for one in pair))


@pytest.mark.parametrize("kind", ["mixture", "hmm"])
def test_an_impossible_label_is_impossible_data(kind):
    make = jaxem.Categorical.from_probs
    poisson = jaxem.Poisson.from_rate(np.array([1.0, 5.0], np.float32))
    counts = np.array([1, 4, 2])
    if kind == "mixture":
        model: Any = jaxem.Mixture(make([1.0, 0.0]), poisson)
        data: Any = jaxem.Samples(counts, labels=np.array([0, 1, -1]))
        assert np.isneginf(model.log_prob(data)).tolist() == [False, True, False]
        np.testing.assert_array_equal(model.responsibilities(data)[1], [0, 0])
    else:
        model = jaxem.HMM(make([0.5, 0.5]), make([[1.0, 0.0], [0.0, 1.0]]), poisson)
        data = jaxem.Sequences(counts[None], labels=np.array([[0, -1, 1]]))
        np.testing.assert_array_equal(model.smooth(data), np.zeros((1, 3, 2)))
    assert np.isneginf(model.log_likelihood(data))
    result = jaxem.fit(model, data, max_steps=2)
    assert "non-finite" in result.outcome or not result.converged
    slope = jax.grad(lambda model: model.log_likelihood(data))(model)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def log_likelihood_at(unravel: Any, data: Any, vector: Any) -> Any:
    """ℓ of the model with these leaves."""
    return unravel(vector).log_likelihood(data)


@pytest.mark.parametrize("num_members", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_slopes_are_those_of_finite_differences(num_members, x64):
    """At one step, one sequence, one member too; -inf is no NaN on the way back."""
    family = jaxem.Poisson.from_rate(np.array([2.0, 6.0])[:num_members])
    rng = np.random.default_rng(15)
    labels = [rng.integers(-1, num_members, 4), rng.random((4, num_members))]
    labels[1][0, 1:] = 0
    weights = jaxem.Categorical.from_probs(np.full(num_members, 1 / num_members))
    counts = rng.integers(0, 9, 4)
    for kind in labels:
        single = kind[:1].reshape(1, 1, *kind.shape[1:])
        pairs = [
            (jaxem.Mixture(weights, family), jaxem.Samples(counts, labels=kind)),
            (hmm(family), jaxem.Sequences(counts[None], labels=kind[None])),
            (hmm(family), jaxem.Sequences(counts[None, :1], labels=single)),
        ]
        for model, data in pairs:
            flat, unravel = ravel_pytree(model)
            function = jax.jit(lambda v, u=unravel, d=data: u(v).log_likelihood(d))
            slope = jax.grad(function)(flat)
            wanted = oracles.central_differences(jax.vmap(function), np.asarray(flat), 1e-5)
            np.testing.assert_allclose(slope, wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("known", ["sparse", "dense"])
def test_float32_recursions_agree_with_logarithms_where_labels_rule_paths_out(known):
    """Also where moves are so rare that the rescaled recursion has to prove itself exact."""
    rng = np.random.default_rng(16)
    number = 400
    labels = np.repeat(rng.integers(0, 3, number // 8), 8)
    labels[rng.random(number) < (0.95 if known == "sparse" else 0.3)] = -1
    moves = np.full((3, 3), 1e-30)
    np.fill_diagonal(moves, 1.0)
    make = jaxem.Categorical.from_probs
    data = jaxem.Sequences(rows(np.float32, number)[None], labels=labels[None])
    answers = []
    for method in (None, "log", "sequential", "blocked"):
        model = jaxem.HMM(make(np.full(3, 1 / 3)), make(moves), GAUSSIAN, method)
        model = em.cast(model, np.float32)
        answers.append((model.log_likelihood(data), model.smooth(data)))
    for found in answers:
        assert np.isfinite(found[0])
        np.testing.assert_allclose(found[0], answers[1][0], rtol=1e-6)
        np.testing.assert_allclose(found[1], answers[1][1], atol=2e-5)


def test_fit_with_labels_goes_through_jit_and_vmap():
    model, x = mixture(GAUSSIAN, np.float32), rows(np.float32)
    labels = np.stack([path_of(np.random.default_rng(seed), 1, 40)[0] for seed in (17, 18)])

    def fit(labels: Any) -> Any:
        return jaxem.fit(model, jaxem.Samples(x, labels=labels), max_steps=5).log_likelihood

    wanted = [fit(own) for own in labels]
    close(np.float32)(jax.jit(jax.vmap(fit))(labels), np.array(wanted))


@pytest.mark.parametrize("kind", ["soft", pytest.param("hard", marks=pytest.mark.slow)])
def test_the_likelihood_of_partly_labelled_data_never_falls(kind, x64):
    x = np.concatenate([rows(), rows() + 3])
    labels: Any = np.where(np.random.default_rng(19).random(80) < 0.3, np.arange(80) // 40, -1)
    if kind == "soft":
        labels = np.where(labels[:, None] == -1, 1.0, 0.1 + 0.8 * np.eye(3)[labels])
    for model, data in (
        (mixture(GAUSSIAN, np.float64), jaxem.Samples(x, labels=labels)),
        (hmm(GAUSSIAN), jaxem.Sequences(x[None], labels=labels[None])),
    ):
        result = jaxem.fit(model, data, max_steps=30)
        trace = np.asarray(result.trace)[: int(result.num_steps) + 1]
        assert len(trace) > 5 and np.all(np.diff(trace) > -1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("which", ["mixture", "hmm"])
def test_certificates_and_standard_errors_of_labelled_data(which, kind, x64):
    model: Any = jaxem.HMM(
        jaxem.Categorical.from_probs([0.5, 0.5]),
        jaxem.Categorical.from_probs([[0.9, 0.1], [0.2, 0.8]]),
        jaxem.Poisson.from_rate([3.0, 8.0]),
    )
    counts, path = (np.asarray(part) for part in model.sample(KEY, 300))
    rng = np.random.default_rng(20)
    labels: Any = np.where(rng.random(300) < 0.3, path, -1)
    if kind == "soft":
        labels = np.where(labels[:, None] == -1, 1.0, 0.2 + 0.6 * np.eye(2)[labels])
    data: Any = jaxem.Sequences(
        counts.reshape(3, 100), labels=labels.reshape(3, 100, *labels.shape[1:])
    )
    if which == "mixture":
        model = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), model.emission)
        data = jaxem.Samples(counts, labels=labels)
    fitted = jaxem.fit(model, data, tol=1e-12, max_steps=5000)
    assert bool(fitted.converged)
    certificate = jaxem.certify(fitted.model, data)
    assert certificate.passed, certificate
    assert float(jaxem.information(fitted.model, data).discrepancy) < 1e-6


# What is refused


X = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3, -1], r"label out of range: 3 at row 1 .*0 to 2, or -1"),
        ([0, 1, -2], "label out of range: -2 at row 2"),
        (
            np.array([0, 2**64 - 1, 1], np.uint64),
            "label out of range: 18446744073709551615 at row 1",
        ),
        ([0, 1], r"integers \[3\], -1 where unknown, or soft .*\[3, 3\]: got shape \[2\]"),
        ([0.0, 1.0, np.nan], r"got shape \[3\] and dtype float64"),
        ([True, False, True], "dtype bool"),
        ([None, 0, 1], "dtype object"),
        (np.eye(3, dtype=int), r"got shape \[3, 3\] and dtype int64"),
        (np.ones((3, 2)), r"got shape \[3, 2\]"),
        ([[1, 1, 1], [0.5, -0.5, 0], [1, 1, 1]], "not negative: -0.5 at row 1, column 1"),
        ([[1, 1, np.nan], [1.0, 1, 0], [1, 1, 1]], "finite.*: nan at row 0, column 2"),
        ([[1, 1, 1], [1.0, 1, 1], [0, 0, 0]], "rules out every member .*at row 2"),
        ([[1, 1, 1], [1e200, 1, 1], [1, 1, 1]], "finite, in float32 too.*row 1, column 0"),
        ([[1, 1, 1], [1.0, 1, 1], [1e-200, 0, 0]], "all its entries are 0, in float32.*row 2"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, message):
    data = jaxem.Samples(X.astype(np.float32), labels=labels)
    with pytest.raises(ValueError, match=message):
        jaxem.fit(mixture(GAUSSIAN, np.float32), data)
    with pytest.raises(ValueError, match=message):
        initialize.kmeans_plus_plus(KEY, jaxem.Gaussian, data, 3)


def test_labels_of_steps_are_refused_by_sequence_and_step():
    model = hmm(GAUSSIAN, np.float32)
    labels = np.zeros((2, 3), int)
    labels[1, 2] = 5
    values, lengths = np.zeros((2, 3, 2), np.float32), np.array([3, 2])
    with pytest.raises(ValueError, match="5 at sequence 1, step 2"):
        model.log_likelihood(jaxem.Sequences(values, labels=labels))
    model.validate(jaxem.Sequences(values, lengths, labels=labels))  # past the end
    with pytest.raises(ValueError, match="at sequence 1, step 2"):
        initialize.hmm(KEY, jaxem.Gaussian, jaxem.Sequences(values, labels=labels), 3)
    with pytest.raises(ValueError, match=r"integers \[2, 3\].*soft.*\[2, 3, 3\]: got shape \[3\]"):
        model.validate(jaxem.Sequences(values, labels=labels[0]))


# Packing


def test_labels_are_packed_with_their_sequences():
    sequences = [np.arange(3.0), np.arange(1.0), np.arange(2.0)]
    packed = jaxem.Sequences.pack(sequences, [np.array([2, 0, 1], np.uint8), None, [1, -1]])
    assert packed.labels.tolist() == [[2, 0, 1], [-1, -1, -1], [1, -1, -1]]
    soft = jaxem.Sequences.from_nan(sequences, labels=[None, [[0.5, 0.25]], np.eye(2)])
    assert soft.labels.dtype == np.float64
    assert soft.labels[1].tolist() == [[0.5, 0.25], [1, 1], [1, 1]]
    assert soft.labels[0].tolist() == [[1, 1]] * 3
    assert jaxem.Sequences.pack(sequences, [None] * 3).labels.tolist() == [[-1] * 3] * 3
    for labels, message in (
        ([None], "must be 3 arrays .* got 1"),
        ([None, [0, 1], None], r"labels of sequence 1 must be \[1\], got \[2\]"),
        ([[0, 0, 0], np.eye(1), None], r"labels of sequence 1 must be \[1\], got \[1, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            jaxem.Sequences.pack(sequences, labels)


def test_unpacked_sequences_say_what_is_missing():
    values = [np.array([1, 2, 3]), np.array([4])]
    packed = jaxem.Sequences.pack(values)
    hidden = replace(packed, observed=np.array([[True, False, True], [True, True, True]]))
    unpacked = hidden.unpack()
    np.testing.assert_array_equal(unpacked[0], [1, np.nan, 3])
    again = jaxem.Sequences.from_nan(unpacked)
    assert again.observed.tolist() == hidden.observed.tolist()
    assert all(one.dtype == values[0].dtype for one in packed.unpack())


# Starts


@pytest.mark.parametrize(
    "start",
    [initialize.kmeans_plus_plus, initialize.random_rows, initialize.random_responsibilities],
)
def test_starts_keep_labelled_rows_with_their_component(start):
    """Two far clusters, the label of each on the other's number in turn; a third has none."""
    rng = np.random.default_rng(21)
    centers = np.repeat([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0]], 30, 0)
    x = (centers + rng.normal(size=centers.shape)).astype(np.float32)
    for first, second in ((0, 1), (2, 0), (1, 2)):
        labels = np.full(90, -1)
        labels[:5], labels[30:35] = first, second
        model = start(KEY, jaxem.Gaussian, jaxem.Samples(x, labels=labels), 3)
        mean = np.asarray(model.components.mean)
        if start is initialize.random_responsibilities:
            assert mean[second, 0] > mean[first, 0]
            continue
        third = 3 - first - second
        wanted = {first: [0, 0], second: [40, 0]}
        if start is initialize.kmeans_plus_plus:
            wanted[third] = [0, 40]
            for k, center in wanted.items():
                assert np.abs(mean[k] - center).max() < 6  # the pretend rows pull a little
        one_hot = np.where(labels[:, None] == -1, 0.5, np.eye(3)[labels]).astype(np.float32)
        same = start(KEY, jaxem.Gaussian, jaxem.Samples(x, labels=one_hot), 3)
        close(np.float32)(same, model)


def test_a_label_outweighs_the_nearest_seed_and_weights_make_the_mean():
    x = np.array([[0.0], [0.0], [10.0], [10.0], [10.0]], np.float32)
    labels = np.array([0, -1, 1, -1, 0])
    data = jaxem.Samples(x, np.array([1, 1, 1, 1, 0.0]), labels=labels)
    model = initialize.kmeans_plus_plus(KEY, jaxem.DiagonalGaussian, data, 2)
    assert model.components.mean[0] < 4 < 6 < model.components.mean[1]
    heavy = initialize.kmeans_plus_plus(
        KEY, jaxem.DiagonalGaussian, jaxem.Samples(x, np.array([1, 1, 1, 1, 9.0]), labels=labels), 2
    )
    assert heavy.components.mean[0] > 6  # eleven rows of it, nine of them at 10


@pytest.mark.slow
def test_starts_with_nothing_to_go_by_are_starts():
    """One class alone, members that are ruled out, more components than rows to seed them."""
    x = rows(np.float32, 12)
    ruled_out = np.tile(np.array([0, 1, 1], np.float32), (12, 1))
    for labels in (np.ones(12, int), ruled_out, np.arange(12) % 3):
        for start in (initialize.kmeans_plus_plus, initialize.random_responsibilities):
            data = jaxem.Samples(x, labels=labels)
            model = start(KEY, jaxem.Gaussian, data, 3)
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(model))
            assert np.isfinite(jaxem.fit(model, data, max_steps=2).log_likelihood)


@pytest.mark.slow
def test_components_inside_a_labelled_member_begin_apart():
    x, labels = rows(np.float32), np.arange(40) % 2
    family = jaxem.MixtureFamily.of(jaxem.DiagonalGaussian, 2)
    for start in (initialize.kmeans_plus_plus, initialize.random_responsibilities):
        mean = start(KEY, family, jaxem.Samples(x, labels=labels), 2).components.components.mean
        assert np.all(np.abs(mean[0::2] - mean[1::2]).max(-1) > 1e-3)
    symbols = jaxem.Samples(np.arange(40) % 4, labels=(np.arange(40) % 4) // 2)
    table = np.asarray(
        initialize.kmeans_plus_plus(KEY, jaxem.Categorical, symbols, 2).components.probs
    )
    assert table[0, :2].sum() > 0.8 and table[1, 2:].sum() > 0.8


def test_an_hmm_starts_from_known_states():
    rng = np.random.default_rng(22)
    path = np.cumsum(rng.random((2, 60)) < 0.2, 1) % 2
    x = (10 * path + rng.normal(size=path.shape)).astype(np.float32)[..., None]
    labels = np.where(rng.random(path.shape) < 0.3, 1 - path, -1)  # the low one is number 1
    data = jaxem.Sequences(x, np.array([60, 50]), labels=labels)
    model = initialize.hmm(KEY, jaxem.DiagonalGaussian, data, 2)
    assert model.emission.mean[0, 0] > 8 and model.emission.mean[1, 0] < 2
    inside = np.arange(60) < data.lengths[:, None]
    counts = np.ones((2, 2))
    state = 1 - path
    for own, length in zip(state, data.lengths, strict=True):
        np.add.at(counts, (own[: length - 1], own[1:length]), 1)
    close(np.float32)(model.transition.probs, counts / counts.sum(1, keepdims=True))
    assert np.asarray(model.viterbi(data)[1])[inside].tolist() == state[inside].tolist()


# What was wrong beside


def test_errors_name_where_a_value_came_and_not_where_it_was_copied_to():
    x = np.array([[0.0, 1.0], [2.0, np.inf], [1.0, 3.0]])
    observed = np.array([[True, False], [True, True], [True, True]])
    model = jaxem.Mixture(
        jaxem.Categorical(jnp.zeros(1)),
        jaxem.DiagonalGaussian(jnp.zeros((1, 2)), jnp.zeros((1, 2))),
    )
    data = jaxem.Samples(x, None, observed)
    for door in (
        model.log_likelihood,
        lambda data: initialize.kmeans_plus_plus(KEY, jaxem.DiagonalGaussian, data, 1),
    ):
        with pytest.raises(ValueError, match="inf at row 1, column 1"):
            door(data)
    chain = jaxem.HMM(
        jaxem.Categorical(jnp.zeros(1)), jaxem.Categorical(jnp.zeros((1, 1))), model.components
    )
    with pytest.raises(ValueError, match="inf at sequence 0, step 1, column 1"):
        chain.log_likelihood(jaxem.Sequences(x[None], observed=observed[None]))
    values = np.zeros((2, 3, 2))
    values[1, 0, 1] = np.nan  # copied into the steps of a sequence that is empty
    with pytest.raises(ValueError, match="nan at sequence 1, step 0, column 1"):
        chain.log_likelihood(jaxem.Sequences(values, np.array([0, 3])))


def test_masks_of_numbers_are_refused_with_the_remedy():
    data = jaxem.Samples(X, None, np.ones((3, 2), int))
    with pytest.raises(ValueError, match=r"`observed.astype\(bool\)`"):
        mixture(GAUSSIAN, np.float32).validate(data)


@pytest.mark.parametrize("weight", [np.zeros(3), np.array([1.0, -1.0, 1.0]), np.ones(2)])
def test_starts_refuse_the_weights_that_fit_refuses(weight):
    for data, start in (
        (jaxem.Samples(X, weight), initialize.kmeans_plus_plus),
        (jaxem.Sequences(np.zeros((3, 4, 2)), None, weight), initialize.hmm),
    ):
        with pytest.raises(ValueError, match="sample_weight"):
            start(KEY, jaxem.Gaussian, data, 1)
