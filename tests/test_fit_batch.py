"""Every member of a batch is what its own fit makes of it, whatever the others are."""

from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest

import jaxem
from jaxem.many import chunks
from jaxem.many.batch import stacked

STEPS = 12  # of every fit here: the length of the trace is part of the program
TOL = 1e-3
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson([1.0, 8.0], (40, 2)).ravel()
ROWS = RNG.normal([-3.0, 3.0], 1.0, (40, 2)).reshape(-1, 1)


def stack(models: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)


def at(result: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], result)


def counts_mixture(low: float, high: float) -> jaxem.Mixture:
    rates = np.log(np.array([low, high]))
    return jaxem.Mixture(jaxem.Categorical(np.zeros(2)), jaxem.Poisson(rates))


STARTS = [(1.0, 6.0), (3.0, 4.0), (2.0, 2.5), (0.1, 30.0), (5.0, 5.1), (7.0, 1.0), (2.0, 3.0)]


def counts_mixtures() -> Any:
    return stack([counts_mixture(*rates) for rates in STARTS])


def fit(model: Any, data: Any, **options: Any) -> jaxem.EMResult:
    return jaxem.fit(model, data, **{"max_steps": STEPS, "tol": TOL, **options})


def fit_batch(models: Any, data: Any, **options: Any) -> jaxem.EMResult:
    return jaxem.fit_batch(models, data, **{"max_steps": STEPS, "tol": TOL, **options})


def assert_members(result: Any, singles: list[Any], rtol: float) -> None:
    for index, single in enumerate(singles):
        own = at(result, index)
        assert int(own.end) == int(single.end), f"member {index}: {own.outcome}, {single.outcome}"
        for field in ("model", "log_likelihood", "log_prior", "trace", "num_parameters"):
            for a, b in zip(
                jax.tree.leaves(getattr(own, field)),
                jax.tree.leaves(getattr(single, field)),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=f"{index} {field}")
        assert int(own.num_steps) == int(single.num_steps)


# Every member equals its own fit

QUICK = ["Mixture over Gaussian", "Mixture over mixture of Poisson", "HMM over Categorical"]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in laws.MODELS],
)
def test_every_member_equals_its_own_fit(name, x64):
    """With a prior, from starts of different quality, of which some end before others."""
    asked = laws.question(name, np.dtype("f8"))
    models = [asked.model, *asked.others]
    options = {"prior": laws.PRIOR, "tol": 0.3}
    result = fit_batch(stack(models), asked.data, **options)
    assert_members(result, [fit(one, asked.data, **options) for one in models], 1e-9)
    assert len(set(np.asarray(result.num_steps).tolist())) > 1


def test_more_members_than_lanes_take_turns(x64, monkeypatch):
    """Seven members in two lanes; some converge, some run out of steps."""
    models = counts_mixtures()
    monkeypatch.setattr(chunks, "LANES", 2)
    monkeypatch.setattr(chunks, "num_workers", lambda: 1)
    result = fit_batch(models, COUNTS, max_steps=9)
    singles = [fit(at(models, i), COUNTS, max_steps=9) for i in range(len(STARTS))]
    assert_members(result, singles, 1e-10)
    assert set(result.outcome) == {"converged", "out of steps"}


def test_float32_stays_float32_and_close():
    models = stack([laws.cast(counts_mixture(*rates), np.float32) for rates in STARTS])
    result = fit_batch(models, COUNTS)
    assert {leaf.dtype for leaf in jax.tree.leaves(result.model)} == {np.dtype("f4")}
    singles = [fit(at(models, i), COUNTS) for i in range(len(STARTS))]
    for index, single in enumerate(singles):
        np.testing.assert_allclose(result.log_likelihood[index], single.log_likelihood, rtol=1e-5)


def test_frozen_parts_stay_and_are_not_counted(x64):
    models = counts_mixtures()
    result = fit_batch(models, COUNTS, frozen="weights")
    np.testing.assert_array_equal(result.model.weights.logits, models.weights.logits)
    assert set(np.asarray(result.num_parameters).tolist()) == {2}


@pytest.mark.parametrize("accelerate", ["squarem", pytest.param("lbfgs", marks=pytest.mark.slow)])
def test_accelerated_members_equal_their_own_accelerated_fit(x64, accelerate):
    models = counts_mixtures()
    options = {"accelerate": accelerate, "max_steps": 3 * STEPS, "tol": 1e-6}
    result = fit_batch(models, COUNTS, **options)
    singles = [fit(at(models, i), COUNTS, **options) for i in range(len(STARTS))]
    assert_members(result, singles, 1e-7)


def test_a_structural_zero_of_one_member_is_its_own(x64):
    weights = np.array([[0.0, 0.0], [0.0, -np.inf]])
    models = stack(
        [
            jaxem.Mixture(jaxem.Categorical(row), jaxem.Poisson(np.log([1.0, 6.0])))
            for row in weights
        ]
    )
    result = fit_batch(models, COUNTS)
    assert result.model.weights.probs[1].tolist() == [1.0, 0.0]
    assert result.num_parameters.tolist() == [3, 2]


# Data sets


def test_members_with_a_data_set_each(x64):
    data = RNG.poisson(4.0, (len(STARTS), 30))
    models = counts_mixtures()
    result = fit_batch(models, jaxem.Batch(data))
    singles = [fit(at(models, i), data[i]) for i in range(len(STARTS))]
    assert_members(result, singles, 1e-10)


def test_data_sets_of_different_sizes(x64):
    """Padding changes nothing, nor does it matter which data sets share a chunk."""
    sizes = (30, 11, 24, 30, 7, 19, 28)
    data = [RNG.normal(size=(size, 2)) for size in sizes]
    family = [jaxem.DiagonalGaussian(x[:2], np.zeros((2, 2))) for x in data]
    models = stack([jaxem.Mixture(jaxem.Categorical(np.zeros(2)), one) for one in family])
    result = fit_batch(models, jaxem.Batch(data), memory=40_000)
    singles = [fit(at(models, i), x) for i, x in enumerate(data)]
    assert_members(result, singles, 1e-9)


def test_data_sets_of_sequences(x64):
    """A list of lists: of one, two and three sequences of different lengths."""
    rng = np.random.default_rng(3)
    data = [
        [rng.integers(0, 3, 9)],
        [rng.integers(0, 3, 4), rng.integers(0, 3, 12)],
        [rng.integers(0, 3, size) for size in (1, 6, 2)],
    ]
    models = stack(
        [
            jaxem.HMM(
                jaxem.Categorical(rng.normal(size=2)),
                jaxem.Categorical(rng.normal(size=(2, 2))),
                jaxem.Categorical(rng.normal(size=(2, 3))),
            )
            for _ in data
        ]
    )
    result = fit_batch(models, jaxem.Batch(data))
    assert_members(result, [fit(at(models, i), one) for i, one in enumerate(data)], 1e-9)


@pytest.mark.slow
def test_weights_labels_and_missing_entries_belong_to_their_data_set(x64):
    rng = np.random.default_rng(4)
    x = rng.normal([[-2.0, 0.0], [2.0, 1.0]], 1.0, (12, 2, 2)).reshape(-1, 2)
    there = rng.random(x.shape) > 0.2
    data = [
        jaxem.Samples(x, rng.uniform(0, 2, len(x))),
        jaxem.Samples(x[:9], labels=np.where(rng.random(9) < 0.5, -1, np.arange(9) % 2)),
        jaxem.Samples(x, observed=there),
        x[:20],
    ]
    member = jaxem.Mixture(jaxem.Categorical(np.zeros(2)), jaxem.Gaussian(x[:2], np.zeros((2, 3))))
    result = fit_batch(stack([member] * 4), jaxem.Batch(data))
    assert_members(result, [fit(member, one) for one in data], 1e-8)


def test_many_members_share_each_data_set(x64):
    data = [COUNTS[:30], COUNTS]
    which = np.array([1, 0, 1, 1, 0, 0, 1])
    models = counts_mixtures()
    result = fit_batch(models, jaxem.Batch(data), data_set=which)
    singles = [fit(at(models, i), data[which[i]]) for i in range(len(STARTS))]
    assert_members(result, singles, 1e-10)


def test_a_stack_is_what_its_data_sets_are(x64):
    model = jaxem.Mixture(
        jaxem.Categorical(np.zeros(2)), jaxem.Gaussian(np.zeros((2, 3)), np.zeros((2, 6)))
    )
    x = RNG.normal(size=(4, 5, 3))
    whole = stacked(model, jaxem.Batch(x))
    np.testing.assert_array_equal(whole.values, x)
    ragged = stacked(model, jaxem.Batch([x[0], x[1][:2]]))
    assert ragged.values.shape == (2, 5, 3)
    np.testing.assert_array_equal(ragged.sample_weight, [[1] * 5, [1, 1, 0, 0, 0]])


# What the others are does not matter


def test_a_member_of_nan_changes_none_of_the_others(x64):
    dtype = np.float64
    family = jaxem.Gaussian(np.array([[-3.0], [3.0]]), np.zeros((2, 1)))
    sound = jaxem.Mixture(jaxem.Categorical(np.zeros(2)), family)
    models = stack([sound, jax.tree.map(lambda leaf: leaf + 0.3, sound), sound])
    models = laws.cast(models, dtype)
    poisoned = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), models)
    expected = fit_batch(models, ROWS.astype(dtype))
    result = fit_batch(poisoned, ROWS.astype(dtype))
    assert "non-finite" in result.outcome[1] and not result.converged[1]
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a[jnp.array([0, 2])], b[jnp.array([0, 2])])


def test_a_data_set_of_nan_changes_none_of_the_others():
    """Un-jitted it is refused by name; traced data are not looked at."""
    dtype = np.float32
    rng = np.random.default_rng(5)
    data = rng.integers(0, 3, (3, 2, 15)).astype(dtype)
    family = jaxem.Gaussian(np.array([[0.0], [2.0]]), np.zeros((2, 1)))
    tables = jaxem.Categorical(np.zeros(2)), jaxem.Categorical(np.array([[2.0, 0], [0, 2.0]]))
    models = laws.cast(stack([jaxem.HMM(*tables, family)] * 3), dtype)
    poisoned = data.copy()
    poisoned[1, 0, 4] = np.nan
    run = jax.jit(lambda data: fit_batch(models, jaxem.Batch(data[..., None])))
    result, expected = run(poisoned), run(data)
    assert "non-finite" in result.outcome[1] and np.isnan(result.log_likelihood[1])
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a[jnp.array([0, 2])], b[jnp.array([0, 2])])
    with pytest.raises(ValueError, match="data set 1 .*finite.*sequence 0, step 4"):
        fit_batch(models, jaxem.Batch(poisoned[..., None]))


def test_a_collapse_is_reported_and_the_others_go_on(x64):
    """Without a floor a component on a single row shrinks until its variance is 0."""
    x = np.concatenate([ROWS, [[40.0]]])
    means = [[[0.0], [40.0]], [[-3.0], [3.0]]]
    family = [jaxem.SphericalGaussian.from_moments(np.array(mean), [9.0, 1.0]) for mean in means]
    models = stack([jaxem.Mixture(jaxem.Categorical(np.zeros(2)), one) for one in family])
    result = fit_batch(models, x, prior=jaxem.Prior(floor=0.0), max_steps=40)
    assert "non-finite" in result.outcome[0] and np.isfinite(result.log_likelihood[0])
    single = fit(at(models, 1), x, prior=jaxem.Prior(floor=0.0), max_steps=40)
    np.testing.assert_allclose(result.trace[1], single.trace, rtol=1e-10)


def test_neither_order_nor_chunks_change_anything(x64):
    models = counts_mixtures()
    expected = fit_batch(models, COUNTS)
    order = np.array([3, 6, 0, 2, 5, 1, 4])
    seen = []
    result = fit_batch(at(models, order), COUNTS, memory=24_000, progress=lambda *a: seen.append(a))
    assert len(seen) > 2  # chunks
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(at(expected, order)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_a_chunk_keeps_to_its_memory(monkeypatch):
    used = []

    def record(compiled: Any) -> int:
        used.append(found(compiled))
        return used[-1]

    found = chunks._bytes
    monkeypatch.setattr(chunks, "_bytes", record)
    models, limit = counts_mixtures(), 20_000
    fit_batch(models, COUNTS, memory=limit)
    assert used[0] * chunks.num_workers() > limit >= used[-1] * chunks.num_workers()
    with pytest.raises(ValueError, match="one member on each of .* more than memory=100"):
        fit_batch(models, COUNTS, memory=100)


def test_progress_counts_members_and_keeps_the_best():
    seen: list[tuple[int, int, float]] = []
    result = fit_batch(counts_mixtures(), COUNTS, progress=lambda *seen_now: seen.append(seen_now))
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1][:2] == (len(STARTS), len(STARTS))
    np.testing.assert_allclose(seen[-1][2], np.max(result.log_likelihood), rtol=1e-6)


def test_a_second_batch_of_the_same_shape_compiles_nothing(caplog):
    models = counts_mixtures()
    fit_batch(models, COUNTS)
    with jax.log_compiles():
        fit_batch(at(models, np.arange(len(STARTS))[::-1]), COUNTS + 1, tol=0.5)
        assert not [one for one in caplog.records if "jit(_fit_chunk)" in one.message]
        fit_batch(models, COUNTS[:-1])
    assert any("jit(_fit_chunk)" in one.message for one in caplog.records)


def test_jit_goes_through(x64):
    models = counts_mixtures()
    run = jax.jit(lambda models, data: fit_batch(models, data))
    result, expected = run(models, COUNTS), fit_batch(models, COUNTS)
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


# What is wrong is named


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 0}, "memory is a number of bytes"),
        ({"max_steps": -1}, "max_steps"),
        ({"tol": -1.0}, "tol"),
        ({"frozen": "nothing"}, "names no part"),
        ({"data_set": [0, 1]}, "data is none"),
        ({"data": jaxem.Batch([COUNTS])}, "7 members and 1 data sets"),
        ({"data": jaxem.Batch([COUNTS]), "data_set": np.arange(7)}, "no such data set: 1 at row 1"),
        ({"data": jaxem.Batch([COUNTS]), "data_set": np.zeros(7)}, "7 integers"),
        ({"data": jaxem.Batch([])}, "no data set"),
        ({"data": jaxem.Batch(iter([COUNTS]))}, "not an iterator"),
        ({"max_steps": 2.5}, "whole number"),
        ({"tol": np.ones(7)}, "tol must be a number"),
        ({"data": jaxem.Batch(COUNTS)}, "axis of data sets"),
        ({"data": jaxem.Batch([COUNTS] * 6 + [COUNTS - 3.0])}, "data set 6 .*row"),
        ({"models": counts_mixture(1.0, 2.0)}, None),
        ({"models": jax.tree.map(lambda leaf: leaf[:0], counts_mixtures())}, "leading axis"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    arguments = {"models": counts_mixtures(), "data": COUNTS} | change
    with pytest.raises(ValueError, match=message):
        fit_batch(arguments.pop("models"), arguments.pop("data"), **arguments)


def test_labels_of_two_kinds_do_not_mix():
    soft = jaxem.Samples(COUNTS, labels=np.full((len(COUNTS), 2), 0.5))
    hard = jaxem.Samples(COUNTS, labels=np.zeros(len(COUNTS), int))
    models = at(counts_mixtures(), np.arange(2))
    with pytest.raises(ValueError, match="integers in every data set, or soft"):
        fit_batch(models, jaxem.Batch([soft, hard]))
