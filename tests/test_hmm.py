"""HMMs obey the laws over every family; and what only HMMs do."""

from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import densities
import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest

import jaxem
from jaxem import data as data_module
from jaxem.em import cast
from jaxem.pytree import pytree

# A fit takes seconds to compile.  Families are an HMM's business as far as their six methods go, so
# most are asked only in the slow tests.
SOME = ["HMM over Gaussian"]
SOME += ["HMM per step over Poisson", "stationary HMM over Poisson"]
OTHERS = [name for name in laws.HMMS if name not in SOME]
LAWS = laws.MODEL_LAWS


def by_name(thing: Any) -> str:
    return getattr(thing, "__name__", str(thing))


@pytest.mark.parametrize("law", LAWS, ids=by_name)
@pytest.mark.parametrize("name", SOME)
def test_hmm_obeys(law, name, x64):
    law(laws.question(name, np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS, ids=by_name)
@pytest.mark.parametrize("name", OTHERS)
def test_every_hmm_obeys(law, name, x64):
    law(laws.question(name, np.float64))


@pytest.mark.parametrize(
    "law", [laws.law_log_likelihood, laws.law_additive_data, laws.law_m_step], ids=by_name
)
def test_hmm_obeys_in_float32(law):
    law(laws.question("HMM over Gaussian", np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS, ids=by_name)
@pytest.mark.parametrize("name", laws.HMMS)
def test_every_hmm_obeys_in_float32(law, name):
    law(laws.question(name, np.float32))


@pytest.mark.parametrize("name", ["stationary HMM over Poisson"])
def test_hmm_obeys_fisher(name, x64):
    laws.law_fisher(laws.question(name, np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HMM over Gaussian", "HMM per step over Poisson"])
def test_other_hmms_obey_fisher(name, x64):
    laws.law_fisher(laws.question(name, np.float64))


@pytest.mark.parametrize("law", [laws.law_m_step, laws.law_monotone, laws.law_consistent])
@pytest.mark.parametrize("name", SOME)
def test_hmm_with_a_prior_obeys(law, name, x64):
    law(replace(laws.question(name, np.float64), prior=laws.PRIOR))


FREEZABLE = [
    ("HMM over Gaussian", ("initial",)),
    ("HMM over Gaussian", ("transition",)),
    ("HMM over Gaussian", ("emission.mean", "initial")),
    ("HMM over Poisson", ("emission",)),
    ("HMM over Poisson", ("transition.logits",)),
    ("stationary HMM over Poisson", ("transition",)),
    ("stationary HMM over Poisson", ("emission",)),
]


@pytest.mark.parametrize(("name", "frozen"), FREEZABLE, ids=str)
def test_hmm_with_frozen_parts_obeys(name, frozen, x64):
    about = laws.question(name, np.float64)
    frozen = jaxem.parameters.check_frozen(about.model, frozen)
    laws.law_m_step(replace(about, frozen=frozen))
    if frozen == ("initial",):
        laws.law_monotone(replace(about, frozen=frozen))


@pytest.mark.slow
def test_fit_to_a_sampled_sequence_gains_what_as_many_parameters_should(x64):
    about = laws.question("HMM over Poisson", np.float64)
    emission = jaxem.Poisson(np.log([1.0, 6.0, 20.0]))  # states that can be told apart
    laws.law_sample_then_fit(replace(about, model=replace(about.model, emission=emission)))


# An HMM that breaks a law; the others are those of mixtures


@pytest.fixture
def poisson(x64) -> laws.Question:
    """A question about a short HMM over counts."""
    return laws.question("HMM over Poisson", np.float64)


@pytree
class OffByOne(jaxem.HMM):
    """Starts after a move, not before it."""

    @property
    def log_initial(self):
        return jnp.log(self.initial.probs @ self.transition.probs)


def test_law_notices_a_start_after_a_move(poisson):
    model = OffByOne(poisson.model.initial, poisson.model.transition, poisson.model.emission)
    with pytest.raises(AssertionError):
        laws.law_log_likelihood(replace(poisson, model=model))


# What callers see


def brute_force(model: jaxem.HMM, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All paths [P, T] of a categorical HMM and their log-probabilities with the data."""
    initial, transition = np.asarray(model.initial.probs), np.asarray(model.transition.probs)
    table = np.asarray(model.emission.probs)
    moves = transition if transition.ndim == 3 else np.tile(transition, (len(y) - 1, 1, 1))
    paths = np.array(list(product(range(len(initial)), repeat=len(y))))
    steps = np.arange(len(y))
    probs = initial[paths[:, 0]] * np.prod(table[paths, y], 1)
    probs = probs * np.prod(moves[steps[:-1], paths[:, :-1], paths[:, 1:]], 1)
    with np.errstate(divide="ignore"):
        return paths, np.log(probs)


@pytest.fixture
def symbols(x64) -> tuple[jaxem.HMM, np.ndarray]:
    """An HMM over symbols with a structural zero, and a sequence of 4."""
    about = laws.question("HMM over Categorical", np.float64)
    logits = about.model.transition.logits.at[0, 2].set(-np.inf)
    return replace(about.model, transition=jaxem.Categorical(logits)), np.array([0, 3, 1, 1])


def test_public_methods_agree_with_enumeration(symbols):
    model, y = symbols
    paths, log_probs = brute_force(model, y)
    order = np.argsort(-log_probs)
    probs = np.exp(log_probs)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(model.log_likelihood(y), np.log(probs.sum()), **close)
    posterior = probs / probs.sum()
    states = np.eye(3)[paths]  # [P, T, K]
    np.testing.assert_allclose(model.smooth(y), np.tensordot(posterior, states, 1), **close)
    moves = np.einsum("p,pti,ptj->ij", posterior, states[:, :-1], states[:, 1:])
    np.testing.assert_allclose(model.transition_counts(y), moves, **close)
    score, path = model.viterbi(y)
    np.testing.assert_allclose(score, log_probs[order[0]], **close)
    np.testing.assert_array_equal(path, paths[order[0]])
    scores, ranked = model.k_best(y, 5)
    np.testing.assert_allclose(scores, log_probs[order[:5]], **close)
    np.testing.assert_array_equal(ranked, paths[order[:5]])
    filtered = model.filter(y)
    np.testing.assert_allclose(filtered.log_normalizer, np.log(probs.sum()), **close)
    for t in range(4):
        short, log_short = brute_force(model, y[: t + 1])
        now = np.exp(log_short) @ np.eye(3)[short[:, t]]
        np.testing.assert_allclose(filtered.filtered[t], now / now.sum(), **close)
        if t < 3:
            onward = now / now.sum() @ np.asarray(model.transition.probs)
            np.testing.assert_allclose(filtered.predicted[t + 1], onward, **close)
    np.testing.assert_allclose(filtered.predicted[0], model.initial.probs, **close)


def test_forecast_is_the_conditional_distribution(symbols):
    model, y = symbols
    forecast = model.forecast(y, 2)
    assert forecast.states.shape == (2, 3)
    _, log_past = brute_force(model, y)
    past = np.exp(log_past).sum()
    first = np.array(
        [np.exp(brute_force(model, np.append(y, a))[1]).sum() / past for a in range(4)]
    )
    second = np.array(
        [
            sum(np.exp(brute_force(model, np.append(y, [a, b]))[1]).sum() for a in range(4)) / past
            for b in range(4)
        ]
    )
    for symbol in range(4):
        log_probs = forecast.log_prob(np.array([symbol, symbol]))
        np.testing.assert_allclose(np.exp(log_probs), [first[symbol], second[symbol]], rtol=1e-12)
    drawn = forecast.sample(jax.random.key(0))
    assert drawn.shape == (2,)
    np.testing.assert_array_equal(drawn, forecast.sample(jax.random.key(0)))


def test_forecast_of_several_starts_at_the_end_of_each(symbols):
    model, y = symbols
    data = jaxem.Sequences.pack([y, y[:1], y[:0]])
    forecast = model.forecast(data, 3)
    assert forecast.states.shape == (3, 3, 3)
    np.testing.assert_allclose(forecast.states[0], model.forecast(y, 3).states, rtol=1e-12)
    np.testing.assert_allclose(forecast.states[1], model.forecast(y[:1], 3).states, rtol=1e-12)
    np.testing.assert_allclose(forecast.states[2, 0], model.initial.probs, rtol=1e-12)
    moves = np.asarray(model.transition.probs)
    np.testing.assert_allclose(forecast.states[2, 1], model.initial.probs @ moves, rtol=1e-12)
    assert forecast.log_prob(np.zeros((3, 3), int)).shape == (3, 3)
    assert forecast.sample(jax.random.key(0)).shape == (3, 3)


def test_paths_are_drawn_from_the_posterior(symbols):
    model, y = symbols
    paths, log_probs = brute_force(model, y)
    draws = 20_000
    drawn = model.sample_posterior(jax.random.key(0), jaxem.Sequences(np.tile(y, (draws, 1))))
    assert drawn.shape == (draws, 4)
    shares = np.bincount(drawn @ 3 ** np.arange(4)[::-1], minlength=81) / draws
    desired = np.exp(log_probs) / np.exp(log_probs).sum()
    assert np.all(shares[desired == 0] == 0)
    np.testing.assert_allclose(shares, desired, rtol=0, atol=5 * np.sqrt(0.25 / draws))


@pytest.mark.parametrize("event", ["symbol", "row", "number"])
def test_results_have_a_batch_axis_where_the_data_have_one(event):
    name, size = {"symbol": ("Categorical", ()), "row": ("Gaussian", (2,)), "number": ("", (1,))}[
        event
    ]
    if event == "number":
        emission = jaxem.SphericalGaussian(np.zeros((3, 1)), np.zeros(3))
        about = laws.question("HMM over Poisson", np.float32)
        model = cast(replace(about.model, emission=emission), np.float32)
    else:
        model = laws.question(f"HMM over {name}", np.float32).model
    dtype = int if event == "symbol" else np.float32
    one, two = np.zeros((4, *size), dtype), np.zeros((2, 4, *size), dtype)
    shapes = {
        "smooth": ((4, 3), (2, 4, 3)),
        "viterbi": (((), (4,)), ((2,), (2, 4))),
        "filter": (((), (4, 3), (4, 3)), ((2,), (2, 4, 3), (2, 4, 3))),
        "log_likelihoods": ((1,), (2,)),
        "log_likelihood": ((), ()),
        "transition_counts": ((3, 3), (3, 3)),
    }
    forms = [(one, 0), (two, 1), (jaxem.Sequences(two), 1), ([one[:4], one[:2]], 1)]
    if event == "number":
        forms += [(one[:, 0], 0), ([one[:4, 0], one[:2, 0]], 1), (jaxem.Sequences(two[:, :, 0]), 1)]
    for method, wanted in shapes.items():
        for data, which in forms:
            found = jax.eval_shape(partial(getattr(model, method), data))  # nothing is compiled
            found = jax.tree.map(lambda array: array.shape, found)
            if method == "filter":
                found = (found.log_normalizer, found.filtered, found.predicted)
            assert found == wanted[which], (method, which)


RAGGED = [5, 0, 1, 3]


def test_ragged_sequences_are_the_sum_of_separate_ones(x64):
    about = laws.question("HMM over Gaussian", np.float64)
    model, x = about.model, about.data.values.reshape(laws.N, *about.data.values.shape[2:])
    starts = np.cumsum([0, *RAGGED[:-1]])
    sequences = [x[i : i + length] for i, length in zip(starts, RAGGED, strict=True)]
    together = jaxem.Sequences.pack(sequences)
    stats, log_likelihood = laws.E_STEP(model, together)
    parts = []
    for i in range(4):  # the others have length 0: one program for all
        lengths = np.where(np.arange(4) == i, together.lengths, 0)
        parts.append(laws.E_STEP(model, jaxem.Sequences(together.values, lengths)))
    total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    laws.assert_close((stats, log_likelihood), total, ulps=200, dtype=np.float64, scale=10)
    each = model.log_likelihoods(sequences)
    laws.assert_close(each, np.array([part[1] for part in parts]), ulps=200, dtype=np.float64)
    assert each[1] == 0
    np.testing.assert_array_equal(parts[1][0].initial, 0)
    np.testing.assert_array_equal(parts[2][0].transition, 0)
    assert not np.any(np.asarray(jax.tree.leaves(parts[1][0].emission)[0]))
    np.testing.assert_allclose(stats.initial.sum(), 3)  # a sequence of length 0 has no start
    states = model.smooth(together)
    inside = np.arange(5) < np.array(RAGGED)[:, None]
    np.testing.assert_allclose(states.sum(-1), inside, rtol=1e-12)
    _, path = model.viterbi(together)
    np.testing.assert_array_equal(path >= 0, inside)
    np.testing.assert_array_equal(model.sample_posterior(jax.random.key(0), together) >= 0, inside)
    assert [len(one) for one in together.unpack()] == RAGGED


@pytest.mark.parametrize("name", ["HMM over Gaussian", "HMM over Poisson"])
def test_what_padding_holds_does_not_matter(name):
    dtype = np.float32
    about = laws.question(name, dtype)
    values, lengths = about.data.values.astype(dtype), about.data.lengths
    outside = np.arange(values.shape[1]) >= lengths[:, None]
    outside = outside.reshape(*outside.shape, *[1] * (values.ndim - 2))
    wanted = laws.E_STEP(about.model, jaxem.Sequences(values, lengths))
    for garbage in (np.nan, np.inf, -3.0):
        data = jaxem.Sequences(np.where(outside, np.array(garbage, dtype), values), lengths)
        laws.assert_close(laws.E_STEP(about.model, data), wanted, ulps=1, dtype=dtype)
        about.model.validate(data)  # nor does any front door look at it


def test_padding_has_no_slope():
    about = laws.question("HMM over Gaussian", np.float32)
    values = np.where(
        (np.arange(12) >= about.data.lengths[:, None])[:, :, None],
        np.float32(np.nan),
        about.data.values,
    )

    def log_likelihood(values):
        return about.model.log_likelihood(jaxem.Sequences(values, about.data.lengths))

    slope = np.asarray(jax.jit(jax.grad(log_likelihood))(values))
    inside = np.arange(12) < about.data.lengths[:, None]
    assert np.all(np.isfinite(slope[inside])) and np.all(slope[inside] != 0)
    np.testing.assert_array_equal(slope[~inside], 0)


def test_traced_sequences_of_numbers_are_taken_as_rows():
    about = laws.question("HMM over Poisson", np.float32)
    emission = jaxem.SphericalGaussian(np.zeros((3, 1)), np.zeros(3))
    model = cast(replace(about.model, emission=emission), np.float32)
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    lengths = np.array([4, 2])
    traced = jax.jit(lambda v, n: model.log_likelihood(jaxem.Sequences(v, n)))(values, lengths)
    wanted = model.log_likelihood(jaxem.Sequences(values, lengths))
    np.testing.assert_allclose(traced, wanted, rtol=1e-6)


def test_chunks_do_not_matter(monkeypatch, x64):
    about = laws.question("HMM over Poisson", np.float64)
    x = np.random.default_rng(0).poisson(2.0, (3, 333))
    data = jaxem.Sequences(x, np.array([333, 200, 10]))
    whole = about.model.prepare(data)
    monkeypatch.setattr(data_module, "CHUNK_ELEMENTS", 1)
    several = about.model.prepare(data)
    assert whole.rows.values.shape[0] == 1 and several.rows.values.shape[0] > 3
    one, many = (laws.E_STEP(about.model, prepared) for prepared in (whole, several))
    laws.assert_close(many, one, ulps=1000, dtype=np.float64, scale=1000)


def test_moves_that_change_with_time_are_used_in_their_order(x64):
    """Moves that cycle through the states: only one path is possible."""
    cycle = np.array([np.roll(np.eye(3), shift, 1) for shift in (1, 2, 1)])
    table = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    of = jaxem.Categorical.from_probs
    model = jaxem.HMM(of([1.0, 0.0, 0.0]), of(cycle), of(table))
    y = np.array([0, 1, 0, 1])
    assert not model.is_homogeneous
    _, path = model.viterbi(y)
    np.testing.assert_array_equal(path, [0, 1, 0, 1])
    np.testing.assert_allclose(model.log_likelihood(y), 4 * np.log(0.8), rtol=1e-12)
    counts = model.transition_counts(y)
    np.testing.assert_allclose(counts, cycle * np.eye(3)[[0, 1, 0]][:, :, None], atol=1e-12)
    values, states = model.sample(jax.random.key(0), 4)
    np.testing.assert_array_equal(states, [0, 1, 0, 1])
    assert values.shape == (4,)
    with pytest.raises(ValueError, match="at most 4 steps, got 5"):
        model.sample(jax.random.key(0), 5)
    with pytest.raises(ValueError, match="3 moves need sequences padded to 4 steps, got 3"):
        model.log_likelihood(y[:3])
    with pytest.raises(ValueError, match="one transition matrix"):
        model.forecast(y, 1)


def test_structural_zeros_stay_zero_with_and_without_a_prior(x64):
    about = laws.question("HMM over Categorical", np.float64)
    initial = about.model.initial.logits.at[0].set(-np.inf)
    moves = about.model.transition.logits.at[0, 2].set(-np.inf).at[2, 0].set(-np.inf)
    table = about.model.emission.logits.at[1, 3].set(-np.inf)
    model = jaxem.HMM(*(jaxem.Categorical(one) for one in (initial, moves, table)))
    for prior in (laws.NO_PRIOR, laws.PRIOR):
        result = laws.run_fit(replace(about, prior=prior), model)
        for new, old in zip(jax.tree.leaves(result.model), jax.tree.leaves(model), strict=True):
            assert np.all(np.isneginf(new[np.isneginf(old)]))
        assert int(result.num_parameters) == about.model.num_parameters - 4 == model.num_parameters
        assert np.all(np.diff(result.trace[: int(result.num_steps) + 1]) >= -1e-9)
    laws.law_fisher(replace(about, model=model))
    slope = laws.SLOPE(model, about.data)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_a_state_that_is_never_visited_keeps_its_rows(x64):
    about = laws.question("HMM over Poisson", np.float64)
    initial = about.model.initial.logits.at[1].set(-np.inf)
    moves = about.model.transition.logits.at[:, 1].set(-np.inf)
    model = replace(
        about.model, initial=jaxem.Categorical(initial), transition=jaxem.Categorical(moves)
    )
    after = laws.M_STEP(model, laws.E_STEP(model, about.data)[0], laws.NO_PRIOR)
    np.testing.assert_array_equal(after.transition.logits[1], model.transition.logits[1])
    np.testing.assert_array_equal(after.emission.log_rate[1], model.emission.log_rate[1])
    assert after.emission.log_rate[0] != model.emission.log_rate[0]


def test_impossible_sequence_has_minus_infinite_log_likelihood_and_no_slope(symbols):
    model, _ = symbols
    table = model.emission.logits.at[:, 3].set(-np.inf)
    model = replace(model, emission=jaxem.Categorical(table))
    impossible = np.array([0, 3, 1, 1])
    assert model.log_likelihood(impossible) == -np.inf
    np.testing.assert_array_equal(model.smooth(impossible), 0)
    np.testing.assert_array_equal(model.transition_counts(impossible), 0)
    assert np.all(np.asarray(model.viterbi(impossible)[1]) == -1)
    for leaf in jax.tree.leaves(laws.SLOPE(model, impossible)):
        np.testing.assert_array_equal(leaf, 0)


# A stationary start


def test_start_is_the_stationary_distribution(x64):
    about = laws.question("stationary HMM over Poisson", np.float64)
    moves = np.asarray(about.model.transition.probs)
    delta = densities.stationary(moves)
    np.testing.assert_allclose(jnp.exp(about.model.log_initial), delta, rtol=1e-12)
    with_a_start = replace(about.model, initial=jaxem.Categorical(np.log(delta)))
    one, other = (laws.E_STEP(model, about.data)[1] for model in (about.model, with_a_start))
    np.testing.assert_allclose(one, other, rtol=1e-12)
    forecast = about.model.forecast(about.data, 2)
    np.testing.assert_allclose(forecast.states[3], [delta, delta], rtol=1e-12)


def test_a_transient_state_has_no_share_and_zeros_stay(x64):
    about = laws.question("stationary HMM over Poisson", np.float64)
    moves = about.model.transition.logits.at[0, 2].set(-np.inf).at[1, 2].set(-np.inf)
    model = replace(about.model, transition=jaxem.Categorical(moves))
    assert model.log_initial[2] == -np.inf
    result = laws.run_fit(about, model)
    trace = np.asarray(result.trace)[: int(result.num_steps) + 1]
    assert len(trace) > 2 and np.all(np.diff(trace) >= -1e-9)
    np.testing.assert_array_equal(result.model.transition.probs[:2, 2], 0)
    assert result.model.log_initial[2] == -np.inf
    slope = laws.SLOPE(model, about.data)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_a_stationary_start_that_is_not_unique_is_not_a_number(x64):
    about = laws.question("stationary HMM over Poisson", np.float64)
    model = replace(about.model, transition=jaxem.Categorical.from_probs(np.eye(3)))
    assert np.isnan(laws.E_STEP(model, about.data)[1])
    result = laws.run_fit(about, model)
    assert not result.converged and "non-finite" in result.outcome


def test_stationary_fit_is_a_stationary_point_of_the_likelihood(x64):
    """Generalised EM ends where the slope of ℓ is 0."""
    about = laws.question("stationary HMM over Poisson", np.float64)
    model = about.model
    for _ in range(100):
        model = jaxem.fit(
            model, about.data, prior=laws.NO_PRIOR, max_steps=about.max_steps, tol=0.0
        ).model
    for leaf in jax.tree.leaves(laws.SLOPE(model, about.data)):
        np.testing.assert_allclose(leaf, 0, rtol=0, atol=1e-4)


# float32 far from the origin


@pytest.mark.parametrize(
    "name",
    [
        "Gaussian",
        pytest.param("TiedGaussian", marks=pytest.mark.slow),
        pytest.param("DiagonalGaussian", marks=pytest.mark.slow),
        pytest.param("SphericalGaussian", marks=pytest.mark.slow),
    ],
)
def test_float32_covariance_is_right_far_from_the_origin(name):
    """Offset 1e4, unit spread, from a start at the origin: one step is right to 1e-3."""
    rng = np.random.default_rng(11)
    x = (1e4 + rng.normal(size=(400, 2))).astype(np.float32)
    kind = getattr(jaxem, name)
    unit = np.eye(2) if name in ("Gaussian", "TiedGaussian") else 1.0
    of = jaxem.Categorical.from_probs
    moves = np.array([[0.9, 0.1], [0.1, 0.9]])
    model = jaxem.HMM(of([0.5, 0.5]), of(moves), kind.from_moments([[0, 0], [10, 10]], unit))
    after = jaxem.fit(model, x, max_steps=1).model.emission
    exact = x.astype(float)
    wanted = np.cov(exact.T, bias=True)
    if name == "DiagonalGaussian":
        wanted = wanted * np.eye(2)
    if name == "SphericalGaussian":
        wanted = np.trace(wanted) / 2 * np.eye(2)
    np.testing.assert_allclose(after.mean, [[0, 0], exact.mean(0)], rtol=1e-6)
    found = np.asarray(after.covariance, float).reshape(-1, 2, 2)[-1]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


# Front doors

Y = np.array([0, 3, 1])
BAD_DATA = [
    (np.array([0, 4, 1]), "out of range: 4 at sequence 0, step 1"),
    ([Y, np.array([0, -1])], "out of range: -1 at sequence 1, step 1"),
    (np.array([[0, 1], [2, 9]]), "out of range: 9 at sequence 1, step 1"),
    (np.array([0.0, np.nan]), "not a symbol: nan at sequence 0, step 1"),
    (np.zeros((2, 2, 2), int), "shape"),
    ([], "at least one sequence"),
    (np.zeros((0, 3), int), "no sequence"),
    (jaxem.Sequences(np.zeros((2, 3), int), np.array([3])), "lengths must be 2 integers"),
    (jaxem.Sequences(np.zeros((2, 3), int), np.array([3.0, 1.0])), "lengths must be 2 integers"),
    (jaxem.Sequences(np.zeros((2, 3), int), np.array([3, 4])), "length out of range: 4 at .* 1"),
    (jaxem.Sequences(np.zeros((2, 3), int), np.array([-1, 3])), "length out of range: -1 at .* 0"),
    (np.array(3), "shape"),
    ("walk", "symbols|shape"),
    (None, "shape|symbols"),
]


@pytest.mark.parametrize(("y", "message"), BAD_DATA)
def test_bad_data_are_refused_at_every_front_door(y, message):
    model = laws.question("HMM over Categorical", np.float32).model
    for door in (
        model.log_likelihood,
        model.smooth,
        model.viterbi,
        lambda y: model.forecast(y, 1),
        lambda y: model.sample_posterior(jax.random.key(0), y),
        lambda y: jaxem.fit(model, y),
    ):
        with pytest.raises(ValueError, match=message):
            door(y)


def test_bad_rows_are_named_by_sequence_step_and_column():
    model = laws.question("HMM over Gaussian", np.float32).model
    y = np.zeros((2, 3, 2))
    y[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="finite: nan at sequence 1, step 2, column 0"):
        model.log_likelihood(y)
    with pytest.raises(ValueError, match="finite: nan at sequence 0, step 2, column 0"):
        model.log_likelihood(y[1])
    with pytest.raises(ValueError, match=r"\[.*, 2\].*got"):
        model.log_likelihood(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="same step shape"):
        model.log_likelihood([np.zeros((3, 2)), np.zeros((3, 3))])


def test_parts_that_do_not_fit_each_other_are_refused():
    of = lambda *shape: jaxem.Categorical(np.zeros(shape))  # noqa: E731
    emission = jaxem.Poisson(np.zeros(3))
    for model, message in (
        (jaxem.HMM(of(3), of(2, 2), emission), r"transition must be \[3, 3\].*got \[2, 2\]"),
        (jaxem.HMM(of(3), of(3), emission), r"transition must be \[3, 3\].*got \[3\]"),
        (jaxem.HMM(of(2), of(3, 3), emission), r"initial must be \[3\], got \[2\]"),
        (jaxem.HMM(jaxem.Stationary(), of(4, 3, 3), emission), "stationary start needs one"),
    ):
        with pytest.raises(ValueError, match=message):
            model.check()
        with pytest.raises(ValueError, match=message):
            jaxem.fit(model, Y)


def test_bad_options_are_refused():
    model = laws.question("HMM over Categorical", np.float32).model
    with pytest.raises(ValueError, match="steps must be 1 or more, got 0"):
        model.forecast(Y, 0)
    with pytest.raises(ValueError, match="k must be 1 or more, got 0"):
        model.k_best(Y, 0)
