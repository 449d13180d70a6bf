"""Missing entries in every family: the E-step is that of all completions, by pattern and by row."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest

import jaxem
from jaxem import data as data_module, em
from jaxem.data import chunk_partial
from jaxem.missing import MAX_PATTERNS, group

ABOUT = jax.jit(lambda model, data, about: model.e_step(data, about=about))
POSTERIOR = jax.jit(
    lambda model, data, other: (
        model.posterior_entropy(data),
        model.posterior_divergence(data, other),
    )
)
ROWS = 16
ALL = sorted(laws.FAMILIES)


def slow(*others: str) -> list[Any]:
    """All families, the others marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in others else name for name in ALL]


ONE_OF_A_KIND = slow("Bernoulli", "Poisson", "mixture of Gaussian", "TiedGaussian")
GROUPED = ("Gaussian", "TiedGaussian", "mixture of Gaussian")


def partly(name: str, dtype: Any, share: float = 0.6) -> tuple[laws.Question, jaxem.Samples]:
    """A mixture and rows of which some entries are missing, in the first all and in the next none.

    What lies under the mask is an observation, and another one than was there.
    """
    about = laws.question(f"Mixture over {name}", dtype)
    values = about.data.values[:ROWS]
    rng = np.random.default_rng(5)
    observed = rng.random(values.shape) < share
    observed[0], observed[1] = False, True
    return about, jaxem.Samples(np.where(observed, values, np.roll(values, 1, 0)), None, observed)


def completions(about: laws.Question, data: jaxem.Samples) -> tuple[jaxem.Samples, np.ndarray]:
    """Every row with all that its missing entries can be, weighted by what is probable given the
    rest; and log p of the rest."""
    axis, log_step = np.unique(laws.FAMILIES[about.kind.family].support()[0]), 0.0
    if data.values.dtype.kind == "f":  # a wider one
        axis, log_step = np.arange(-15, 15, 0.3), np.log(0.3)
    rows, number_missing = [], []
    flat = data.values.reshape(len(data.values), -1), data.observed.reshape(len(data.values), -1)
    for row, observed in zip(*flat, strict=True):
        axes = [[value] if there else axis for value, there in zip(row, observed, strict=True)]
        rows.append(np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], 1))
        number_missing.append(np.sum(~observed))
    together = np.concatenate(rows).reshape(-1, *data.values.shape[1:])
    log_prob = np.asarray(about.model.log_prob(together), float)
    each = np.split(log_prob, np.cumsum([len(row) for row in rows])[:-1])
    total = [np.logaddexp.reduce(part) for part in each]
    weight = np.concatenate([np.exp(part - sum_) for part, sum_ in zip(each, total, strict=True)])
    return jaxem.Samples(together, weight), np.array(total) + log_step * np.array(number_missing)


def comparable(stats: Any) -> Any:
    """Statistics without Σ r log x!, of which the expectation for a missing count is left out."""
    is_count = lambda part: hasattr(part, "log_base")  # noqa: E731
    strip = lambda part: replace(part, log_base=0.0) if is_count(part) else part  # noqa: E731
    return jax.tree.map(strip, stats, is_leaf=is_count)


def ways(about: laws.Question, data: jaxem.Samples) -> list[jaxem.Samples]:
    """The data by pattern, where that is a way of its own, and by row."""
    by_pattern = about.model.validate(data)
    return [data] if by_pattern.groups is None else [by_pattern, data]


@pytest.mark.parametrize("name", slow("Bernoulli", "Poisson"))
def test_the_e_step_is_that_of_all_completions(name, x64):
    """About its own means, and as in a second pass about others."""
    about, data = partly(name, np.float64)
    complete, evidence = completions(about, data)
    assert len(ways(about, data)) == 1 + (name in GROUPED)
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    for anchor in (about.model, about.others[0]):
        wanted, _ = ABOUT(about.model, complete, anchor)
        for given in ways(about, data):
            stats, log_likelihood = ABOUT(about.model, given, anchor)
            jax.tree.map(close, comparable(stats), comparable(wanted))
            close(log_likelihood, evidence.sum())
    close(about.model.log_prob(data), evidence)
    assert evidence[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_the_likelihood_and_its_gain_are_made_up_of_q_entropy_and_divergence(name, x64):
    """What is missing is latent: ℓ = Q + entropy, and Δℓ = ΔQ + KL for any other parameters."""
    about, data = partly(name, np.float64)
    model, other = about.model, about.others[0]
    for given in ways(about, data):
        stats, here = ABOUT(model, given, model)
        there = ABOUT(other, given, other)[1]
        q_here, q_there = (laws.Q(model, stats, theta) for theta in (model, other))
        entropy, divergence = POSTERIOR(model, given, other)
        assert float(here) == pytest.approx(float(q_here + entropy), abs=1e-9)
        assert float(there - here) == pytest.approx(float(q_there - q_here + divergence), abs=1e-9)
        assert 0 <= float(POSTERIOR(model, given, model)[1]) < 1e-20


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("Gaussian", "features"),
        ("Gaussian", "centred"),
        ("TiedGaussian", "features"),
        pytest.param("TiedGaussian", "centred", marks=pytest.mark.slow),
        pytest.param("mixture of Gaussian", "features", marks=pytest.mark.slow),
    ],
)
def test_both_forms_and_both_ways_agree_in_float32(name, method):
    about, data = partly(name, np.float32)
    family = about.model.components
    inner = getattr(family, "components", family)
    chosen = replace(inner, method=method)
    family = replace(family, components=chosen) if inner is not family else chosen
    model = replace(about.model, components=family)
    exact, log_likelihood = laws.E_STEP(about.model, data)
    found, found_log_likelihood = laws.E_STEP(model, model.validate(data))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found_log_likelihood, log_likelihood, rtol=1e-5)


@pytest.mark.parametrize("name", ["Gaussian", "SphericalGaussian", "rows of Poisson"])
def test_with_nothing_missing_the_path_is_the_plain_one(name):
    about, data = partly(name, np.float32)
    whole = replace(data, observed=np.ones_like(data.observed))
    assert about.model.validate(whole).observed is None
    np.testing.assert_array_equal(about.model.log_prob(whole), about.model.log_prob(data.values))


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_what_is_hidden_altogether_keeps_the_parameters(name, x64):
    about, data = partly(name, np.float64)
    hidden = replace(data, observed=np.zeros_like(data.observed))
    for given in ways(about, hidden):
        stats, log_likelihood = ABOUT(about.model, given, about.model)
        assert float(log_likelihood) == pytest.approx(0, abs=1e-12)
        after = laws.M_STEP(about.model, stats, laws.NO_PRIOR)
        for new, old in zip(*map(parts, (after, about.model)), strict=True):
            np.testing.assert_allclose(new, old, rtol=1e-10, atol=1e-12)


def parts(model: Any) -> list[Any]:
    """Leaves, logits as probabilities: they are the same up to a constant."""
    tables = lambda part: isinstance(part, jaxem.Categorical)  # noqa: E731
    natural = lambda part: part.probs if tables(part) else part  # noqa: E731
    return jax.tree.leaves(jax.tree.map(natural, model, is_leaf=tables))


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_what_lies_under_the_mask_has_no_influence(name, x64):
    about, data = partly(name, np.float64)
    garbage = np.nan if data.values.dtype.kind == "f" else -7
    other = replace(data, values=np.where(data.observed, data.values, garbage))
    for one, same in zip(ways(about, data), ways(about, other), strict=True):
        wanted, found = (ABOUT(about.model, given, about.model) for given in (one, same))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
    "name",
    ["Gaussian", "DiagonalGaussian", pytest.param("TiedGaussian", marks=pytest.mark.slow)],
)
def test_gradients_are_zero_where_nothing_was_observed_and_finite_elsewhere(name):
    about, data = partly(name, np.float32)
    values = np.where(data.observed, data.values, np.nan)

    def slopes(observed: Any) -> Any:
        def log_likelihood(model: Any, values: Any) -> Any:
            return model.log_likelihood(jaxem.Samples(values, None, observed))

        return jax.grad(log_likelihood, (0, 1))(about.model, values)

    found = [slopes(data.observed), jax.jit(slopes)(data.observed)]  # by pattern, by row
    for slope, (of_model, of_values) in zip(found, found[::-1], strict=True):
        np.testing.assert_array_equal(of_values[~data.observed], 0)
        assert np.all(of_values[1] != 0)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((of_model, of_values)))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), slope[0], of_model)


@pytest.mark.parametrize("name", ["Gaussian", "rows of Bernoulli"])
def test_results_come_in_the_order_of_the_rows_given(name):
    about, data = partly(name, np.float32)
    order = np.random.default_rng(0).permutation(ROWS)
    shuffled = jaxem.Samples(data.values[order], None, data.observed[order])
    for ask in ("log_prob", "responsibilities", "predict"):
        straight, mixed = (getattr(about.model, ask)(rows) for rows in (data, shuffled))
        np.testing.assert_allclose(mixed, straight[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        about.model.predict(data), np.argmax(about.model.responsibilities(data), 1)
    )


@pytest.mark.parametrize("name", ["Gaussian", "SphericalGaussian", "rows of Poisson"])
def test_weights_are_repetitions_and_0_is_absence(name, x64):
    about, data = partly(name, np.float64)
    twice = 2 * (np.arange(ROWS) % 2)
    index = np.repeat(np.arange(ROWS), twice)
    repeated = jaxem.Samples(data.values[index], np.ones(ROWS), data.observed[index])
    weighted = replace(data, sample_weight=twice.astype(float))
    for one, other in zip(ways(about, weighted), ways(about, repeated), strict=True):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10),
            *(ABOUT(about.model, given, about.model) for given in (one, other)),
        )


@pytest.mark.slow
def test_many_chunks_are_one(monkeypatch, x64):
    about, data = partly("Gaussian", np.float64)
    wanted = ABOUT(about.model, data, about.model)
    times = 200
    tiled = (np.tile(part, (times, 1)) for part in (data.values, data.observed))
    many = replace(data, **dict(zip(("values", "observed"), tiled, strict=True)))
    monkeypatch.setattr(data_module, "CHUNK_ELEMENTS", 1)
    for given in ways(about, many):
        assert len(about.model.prepare(given).values) > 10
        jax.tree.map(
            lambda many, one: np.testing.assert_allclose(many, times * one, rtol=1e-11, atol=1e-9),
            ABOUT(about.model, given, about.model),
            wanted,
        )


@pytest.mark.parametrize("number", [1, 300])
def test_groups_hold_every_row_once_and_their_chunks_one_pattern(number):
    rng = np.random.default_rng(0)
    observed = rng.random((number, 70)) > np.where(rng.random((number, 1)) < 0.5, 0, 0.01)
    groups = group(observed, num_factors=1, largest=64)
    assert groups is not None
    flat = groups.row.ravel()
    assert sorted(flat[flat < number]) == list(range(number))
    np.testing.assert_array_equal(flat[groups.slot], np.arange(number))
    for rows, pattern in zip(groups.row, groups.pattern, strict=True):
        there = observed[rows[rows < number]]
        np.testing.assert_array_equal(there, np.broadcast_to(groups.patterns[pattern], there.shape))


def test_too_many_patterns_are_not_grouped():
    observed = np.unpackbits(np.arange(200, dtype=np.uint8)[:, None], axis=1).astype(bool)
    assert group(observed, num_factors=1, largest=64) is None
    assert group(np.repeat(observed, 8, 0), num_factors=1, largest=64) is not None
    assert group(observed[:MAX_PATTERNS], num_factors=1, largest=64) is not None


def test_the_center_and_the_spread_are_those_of_what_is_observed():
    """A constant feature, and one never seen, set no floor."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 4)) * [2.0, 0.0, 0.5, 1.0] + 1e4).astype(np.float32)
    observed = rng.random(x.shape) < 0.7
    observed[:, 3] = False
    weight = rng.integers(0, 3, 500).astype(np.float32)
    hidden = np.where(observed & (weight > 0)[:, None], x, np.float32(np.nan))
    rows = chunk_partial(
        jnp.asarray(hidden),
        jnp.asarray(weight),
        jnp.asarray(observed),
        num_features=4,
        centred=True,
    )
    assert rows.center is not None and rows.spread is not None
    share = observed * weight[:, None]
    center = np.sum(share * x, 0, dtype=float)[:3] / share.sum(0)[:3]
    np.testing.assert_allclose(rows.center, [*center, 0], rtol=1e-7)
    variance = np.sum(share[:, 2] * (x[:, 2] - center[2]) ** 2) / share[:, 2].sum()
    np.testing.assert_allclose(rows.spread, variance, rtol=1e-3)
    assert np.all(np.isfinite(rows.values))


def test_a_feature_that_nobody_observed_stops_no_fit():
    about, data = partly("Gaussian", np.float32)
    observed = data.observed & np.array([True, False])
    result = jaxem.fit(about.model, replace(data, observed=observed), max_steps=20)
    assert result.end in (em.CONVERGED, em.AT_RESOLUTION, em.OUT_OF_STEPS)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result.model))


X = np.arange(6.0).reshape(3, 2)
SEEN = np.array([[True, True], [True, False], [False, True]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (jaxem.Samples(np.where(SEEN, np.nan, X), None, SEEN), "nan at row 0, column 0"),
        (jaxem.Samples(X, None, SEEN[:2]), r"observed must be True or False .* \[3, 2\], got"),
        (jaxem.Samples(X, None, SEEN.astype(float)), "dtype float64"),
        (jaxem.Samples(X, np.zeros(3), SEEN), "0 everywhere"),
        (jaxem.Samples(X, np.array([1.0, -1, 1]), SEEN), "negative: -1.0 at row 1"),
    ],
)
def test_data_that_make_no_sense_are_refused(data, message):
    model = jaxem.Mixture(
        jaxem.Categorical(jnp.zeros(1)), jaxem.Gaussian.from_moments(X[:1], np.eye(2))
    )
    with pytest.raises(ValueError, match=message):
        model.log_likelihood(data)


def test_nan_stands_for_what_is_missing_where_it_is_said_to():
    x = np.where(SEEN, X, np.nan)
    data = jaxem.Samples.from_nan(x, np.ones(3))
    np.testing.assert_array_equal(data.observed, SEEN)
    assert jaxem.Samples.from_nan(np.arange(3)).observed.all()
    assert jaxem.Samples.from_nan([[1.0, None]]).observed.tolist() == [[True, False]]
    symbols = jaxem.Categorical(jnp.zeros((1, 3)))
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(1)), symbols)
    log_prob = model.log_prob(jaxem.Samples.from_nan(np.array([0.0, np.nan, 2.0])))
    np.testing.assert_allclose(log_prob, [-np.log(3), 0, -np.log(3)], rtol=1e-6)


def test_a_numpy_mask_is_taken_by_from_nan_and_never_lost():
    rows = np.ma.array([[1, 2], [3, 4]], mask=[[False, True], [False, False]])
    data = jaxem.Samples.from_nan(rows)
    assert data.observed.tolist() == [[True, False], [True, True]]
    assert np.issubdtype(data.values.dtype, np.integer)
    sequences = jaxem.Sequences.from_nan([rows, np.array([[5, 6]])])
    assert sequences.observed[:, :, 1].tolist() == [[False, True], [True, True]]
    assert sequences.lengths.tolist() == [2, 1]
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(1)), jaxem.Poisson(jnp.zeros((1, 2))))
    for take in (model.log_likelihood, lambda rows: jaxem.Sequences.pack([rows])):
        with pytest.raises(ValueError, match="NumPy mask: Samples.from_nan"):
            take(rows)


def test_groups_of_another_mask_give_no_number():
    model = jaxem.Mixture(
        jaxem.Categorical(jnp.zeros(1)), jaxem.Gaussian.from_moments(np.zeros((1, 2)), np.eye(2))
    )
    data = model.validate(jaxem.Samples(np.ones((4, 2)), observed=np.eye(4, 2, dtype=bool)))
    log_prob = jax.jit(lambda seen: model.log_prob(replace(data, observed=seen)))
    assert np.isfinite(log_prob(data.observed)).all()
    assert np.isnan(log_prob(~data.observed)).any()


def test_sequences_take_a_mask():
    sequences = jaxem.Sequences.from_nan([np.array([1.0, np.nan, 2.0]), np.array([3.0])])
    assert sequences.observed.tolist() == [[True, False, True], [True, True, True]]
    assert [len(one) for one in sequences.unpack()] == [3, 1]
    padded = jaxem.Sequences.from_nan(np.array([[1.0, np.nan]]), np.array([2]))
    assert padded.observed.tolist() == [[True, False]]
    half = jaxem.Categorical(jnp.zeros(1))
    hmm = jaxem.HMM(half, jaxem.Categorical(jnp.zeros((1, 1))), jaxem.Poisson(jnp.zeros(1)))
    # At rate 1, log p is −1 for 0 and 1, −1 − log x! for more; nothing for what is missing.
    wanted = [-2 - np.log(2), -1 - np.log(6)]
    np.testing.assert_allclose(hmm.log_likelihoods(sequences), wanted, rtol=1e-6)
    with pytest.raises(ValueError, match="observed must be True or False"):
        hmm.log_likelihood(replace(sequences, observed=np.ones(2, bool)))
    with pytest.raises(ValueError, match="lengths of its own"):
        jaxem.Sequences.from_nan([np.ones(2)], lengths=[1])
    whole = replace(sequences, values=np.ones((2, 3)), observed=np.ones((2, 3), bool))
    assert np.isfinite(hmm.log_likelihood(whole))
