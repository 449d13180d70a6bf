"""Missing entries in sequences: an HMM sums over what they could have been."""

import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem import em

E_STEP = jax.jit(lambda model, data, about: model.e_step(data, about=about))
ENTROPY = jax.jit(lambda model, data: model.posterior_entropy(data))


def tables(states: int) -> tuple[jaxem.Categorical, jaxem.Categorical]:
    """A start and a transition matrix that favour some paths."""
    rng = np.random.default_rng(1)
    make = jaxem.Categorical.from_probs
    return make(rng.dirichlet(np.ones(states))), make(rng.dirichlet(np.ones(states), states))


def gaussian_hmm(dtype: Any, method: str | None = None) -> jaxem.HMM:
    """Two correlated states in three features."""
    rng = np.random.default_rng(2)
    root = np.tril(rng.normal(size=(2, 3, 3)), -1) + np.eye(3)
    covariance = np.einsum("kij,klj->kil", root, root)
    family = jaxem.Gaussian.from_moments(3 * rng.normal(size=(2, 3)), covariance)
    model = jaxem.HMM(*tables(2), replace(family, method=method))
    return em.cast(model, dtype)


def sequences(dtype: Any = np.float64, share: float = 0.7, offset: float = 0.0) -> jaxem.Sequences:
    """Three sequences of 9, 5 and 1 steps; anything lies where they are missing, or have ended."""
    rng = np.random.default_rng(3)
    values = 2 * rng.normal(size=(3, 9, 3)) + offset
    lengths = np.array([9, 5, 1])
    observed = rng.random(values.shape) < share
    observed[0, 2], observed[1, 1] = False, True  # a frame that is missing altogether, one that not
    return jaxem.Sequences(values.astype(dtype), lengths, None, observed)


def marginals(model: jaxem.HMM, data: jaxem.Sequences) -> np.ndarray:
    """log p(x_o | z) of every step, from the entries that are there, by NumPy."""
    mean, covariance = np.asarray(model.emission.mean), np.asarray(model.emission.covariance)
    found = np.zeros((*data.values.shape[:2], len(mean)))
    for place in itertools.product(*map(range, found.shape)):
        there, k = data.observed[place[:2]], place[2]
        if there.any():
            away = (data.values[place[:2]] - mean[k])[there]
            part = covariance[k][np.ix_(there, there)]
            quadratic = away @ np.linalg.solve(part, away)
            found[place] = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * part)[1])
    return found


@pytest.mark.parametrize("method", [None, "centred"])
def test_each_step_counts_with_the_marginal_of_what_is_there(method, x64):
    model, data = gaussian_hmm(np.float64, method), sequences()
    chain = jaxem.chain.Chain(model.log_initial, model.transition.log_probs, marginals(model, data))
    wanted, counts = jaxem.chain.posterior(chain, data.lengths)
    np.testing.assert_allclose(model.log_likelihoods(data), wanted, rtol=1e-10)
    np.testing.assert_allclose(model.smooth(data), counts.emission, atol=1e-10)
    assert model.viterbi(data)[1].tolist() == jaxem.chain.viterbi(chain, data.lengths)[1].tolist()


def test_by_pattern_by_row_and_traced_are_the_same(x64):
    model, data = gaussian_hmm(np.float64), sequences()
    grouped = model.validate(data)
    assert grouped.groups is not None
    about = replace(model, emission=model.emission.translate(jnp.array([0.5, -1.0, 2.0])))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)  # noqa: E731
    for anchor in (model, about):
        one = E_STEP(model, grouped, anchor)
        jax.tree.map(close, one, E_STEP(model, replace(grouped, groups=None), anchor))


def test_the_e_step_is_that_of_all_completions(x64):
    rng = np.random.default_rng(4)
    emission = jaxem.Categorical.from_probs(rng.dirichlet(np.ones(3), 2))
    model = jaxem.HMM(*tables(2), emission)
    values = np.array([[0, 2, 1, 1], [1, 0, 0, 2]])
    observed = np.array([[True, False, True, False], [False, True, True, True]])
    lengths = np.array([4, 3])
    data = jaxem.Sequences(values, lengths, observed=observed)
    stats, log_likelihood = E_STEP(model, model.validate(data), None)
    evidence, expected = 0.0, []
    for row, there, length in zip(values, observed, lengths, strict=True):
        axes = [[x] if seen else range(3) for x, seen in zip(row[:length], there, strict=False)]
        complete = [np.array(filled) for filled in itertools.product(*axes)]
        logs = np.array([float(model.log_likelihood(filled)) for filled in complete])
        total = np.logaddexp.reduce(logs)
        evidence += total
        for filled, log_prob in zip(complete, logs, strict=True):
            share = np.exp(log_prob - total)
            expected.append(
                jax.tree.map(
                    lambda leaf, share=share: leaf * share,
                    E_STEP(model, model.validate(filled), None)[0],
                )
            )
    assert float(log_likelihood) == pytest.approx(evidence, abs=1e-10)
    wanted = jax.tree.map(lambda *leaves: sum(leaves), *expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), stats, wanted)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_what_lies_under_the_mask_or_past_the_end_has_no_influence(garbage):
    model, data = gaussian_hmm(np.float32), sequences(np.float32)
    inside = (np.arange(9) < data.lengths[:, None])[..., None]
    spoiled = np.where(data.observed & inside, data.values, np.float32(garbage))
    wanted = E_STEP(model, model.validate(data), None)
    found = E_STEP(model, model.validate(replace(data, values=spoiled)), None)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_masks_that_hide_nothing_take_the_plain_path():
    model, data = gaussian_hmm(np.float32), sequences(np.float32)
    hidden = np.broadcast_to((np.arange(9) < data.lengths[:, None])[..., None], data.values.shape)
    assert model.validate(replace(data, observed=hidden)).observed is None
    assert model.validate(jaxem.Sequences.from_nan(data.values)).observed is None


def test_sequences_that_hide_everything_keep_the_emission_and_cost_nothing():
    model, data = gaussian_hmm(np.float32), sequences(np.float32)
    result = jaxem.fit(model, replace(data, observed=np.zeros_like(data.observed)), max_steps=2)
    assert float(result.log_likelihood) == pytest.approx(0, abs=1e-5)
    for fitted, given in zip(
        jax.tree.leaves(result.model.emission), jax.tree.leaves(model.emission), strict=True
    ):
        np.testing.assert_allclose(fitted, given, rtol=1e-5, atol=1e-5)


def test_fits_rise_from_starts_on_incomplete_sequences(dtype):
    data = sequences(dtype, 0.8, offset=1000.0)
    key = jax.random.key(0)
    start = jaxem.initialize.hmm(key, jaxem.Gaussian, data, 2)
    spoiled = np.where(data.observed, data.values, dtype.type(np.nan))
    again = jaxem.initialize.hmm(key, jaxem.Gaussian, replace(data, values=spoiled), 2)
    jax.tree.map(np.testing.assert_array_equal, start, again)
    result = jaxem.fit(start, data, max_steps=8, prior=jaxem.Prior(scatter=1.0, scatter_weight=5.0))
    trace = np.asarray(result.trace)[: int(result.num_steps) + 1]
    assert np.isfinite(trace).all()
    assert trace[-1] > trace[0]
    assert float(result.largest_fall) <= np.finfo(dtype).eps ** (2 / 3) * abs(trace[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixture", "hmm"])
def test_certificates_and_standard_errors_of_incomplete_data(kind, x64):
    rng = np.random.default_rng(5)
    truth = gaussian_hmm(np.float64)
    values = np.asarray(truth.sample(jax.random.key(1), 400)[0])
    observed = rng.random(values.shape) < 0.8
    data: Any = jaxem.Sequences(values[None], observed=observed[None])
    model: Any = truth
    if kind == "mixture":
        model = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), truth.emission)
        data = jaxem.Samples(values, None, observed)
    fitted = jaxem.fit(model, data, tol=1e-10, max_steps=3000)
    assert bool(fitted.converged)
    certificate = jaxem.certify(fitted.model, data)
    assert certificate.passed, certificate
    information = jaxem.information(fitted.model, data)
    assert float(information.discrepancy) < 1e-6


# Sequences that count more than once, or not at all


def counted(dtype: Any, weight: list[float]) -> jaxem.Sequences:
    """The sequences, all there, each as often as its weight says."""
    data = sequences(dtype)
    return jaxem.Sequences(data.values, data.lengths, np.array(weight))


@pytest.mark.slow
def test_integer_weights_are_repetition_and_zero_is_absence(dtype):
    model = gaussian_hmm(dtype)
    data = counted(dtype, [2.0, 0.0, 1.0])
    spoiled = data.values.copy()
    spoiled[1] = 1e3
    repeated = jaxem.Sequences(data.values[[0, 0, 2]], data.lengths[[0, 0, 2]])
    wanted = E_STEP(model, model.validate(repeated), None)
    close = lambda a, b: np.testing.assert_allclose(  # noqa: E731
        a, b, rtol=2e3 * np.finfo(dtype).eps, atol=2e3 * np.finfo(dtype).eps
    )
    for values in (data.values, spoiled):
        weighted = replace(data, values=values)
        jax.tree.map(close, E_STEP(model, model.validate(weighted), None), wanted)
        close(model.log_likelihood(weighted), model.log_likelihood(repeated))
    close(ENTROPY(model, model.validate(data)), ENTROPY(model, model.validate(repeated)))


@pytest.mark.slow
def test_weights_meet_missing_entries(x64):
    model, data = gaussian_hmm(np.float64), sequences()
    weighted = replace(data, sample_weight=np.array([1.0, 2.0, 3.0]))
    part = lambda i: replace(  # noqa: E731
        data, values=data.values[i], lengths=data.lengths[i], observed=data.observed[i]
    )
    repeated = part([0, 1, 1, 2, 2, 2])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)  # noqa: E731
    wanted = E_STEP(model, model.validate(repeated), None)
    jax.tree.map(close, E_STEP(model, model.validate(weighted), None), wanted)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([0.0, 0.0, 0.0], "0 everywhere: there is no sequence"),
        ([1.0, -1.0, 1.0], "not negative: -1.0 at sequence 1"),
        ([1.0, np.nan, 1.0], "finite and not negative: nan at sequence 1"),
        ([1.0, 1.0], r"sample_weight must be \[3\], got \[2\]"),
    ],
)
def test_weights_that_cannot_be_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        gaussian_hmm(np.float32).validate(counted(np.float32, weight))


@pytest.mark.slow
def test_weighted_sequences_are_certified(x64):
    truth = gaussian_hmm(np.float64)
    keys = jax.random.split(jax.random.key(2), 20)
    values = np.stack([np.asarray(truth.sample(key, 25)[0]) for key in keys])
    data = jaxem.Sequences(values, np.arange(6, 26), np.linspace(0, 2, 20))
    fitted = jaxem.fit(truth, data, tol=1e-10, max_steps=3000)
    certificate = jaxem.certify(fitted.model, data)
    assert certificate.passed, certificate
    assert float(jaxem.information(fitted.model, data).discrepancy) < 1e-6


def test_starts_know_what_counts(x64):
    """Sequences and rows of weight 0 lend nothing, and a column nobody saw is named."""
    data = sequences(share=0.8)
    far = data.values.copy()
    far[1] = 1e3
    given = replace(data, values=far, sample_weight=np.array([1.0, 0.0, 1.0]))
    start = jaxem.initialize.hmm(jax.random.key(0), jaxem.Gaussian, given, 1)
    assert float(jnp.max(jnp.abs(start.emission.mean))) < 10
    hidden = data.observed & (np.arange(3) != 1)
    with pytest.raises(ValueError, match="column 1 is never observed"):
        jaxem.initialize.hmm(jax.random.key(0), jaxem.Gaussian, replace(data, observed=hidden), 2)


def test_groups_of_validated_data_survive_tracing(x64):
    model, grouped = gaussian_hmm(np.float64), gaussian_hmm(np.float64).validate(sequences())
    traced = []
    jax.jit(lambda data: traced.append(model.validate(data).groups is not None))(grouped)
    assert traced == [True]
