"""How a fit ends, what it returns, and that it is the maximiser others find."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import optax
import pytest

import jaxem
from jaxem import em, parameters
from jaxem.em import cast
from jaxem.pytree import pytree

STEPS = 40  # of every fit here: the length of the trace is part of the program


def counts_mixture(dtype: Any = np.float32, rates: Any = (1.0, 6.0)) -> jaxem.Mixture:
    weights = jaxem.Categorical(np.zeros(2))
    return cast(jaxem.Mixture(weights, jaxem.Poisson(np.log(rates))), dtype)


def normal_mixture(mean: Any, variance: Any = 1.0, dtype: Any = np.float32) -> jaxem.Mixture:
    family = jaxem.SphericalGaussian.from_moments(np.asarray(mean, float), variance)
    return cast(jaxem.Mixture(jaxem.Categorical(np.zeros(len(mean))), family), dtype)


COUNTS = np.random.default_rng(0).poisson([1.0, 8.0], (50, 2)).ravel()
ROWS = np.random.default_rng(1).normal([-3.0, 3.0], 1.0, (50, 2)).reshape(-1, 1)


def fit(model: Any, data: Any, **options: Any) -> jaxem.EMResult:
    return jaxem.fit(model, data, **{"max_steps": STEPS, **options})


# How it ends


def test_a_fit_converges_when_a_step_gains_no_more_than_the_tolerance():
    result = fit(counts_mixture(), COUNTS, tol=0.01)
    assert result.converged and result.outcome == "converged"
    steps = int(result.num_steps)
    gains = np.diff(result.trace[: steps + 1])
    assert 0 < steps < STEPS
    assert gains[-1] <= 0.01 and np.all(gains[:-1] > 0.01)


def test_a_fit_without_tolerance_ends_at_the_resolution_of_the_dtype(dtype):
    result = fit(normal_mixture([[-3.0], [3.0]], dtype=dtype), ROWS.astype(dtype), tol=0.0)
    assert result.converged and result.outcome == "converged to the resolution of the dtype"
    assert result.largest_fall <= 64 * np.finfo(dtype).eps * abs(float(result.log_likelihood))


@pytest.mark.parametrize("max_steps", [0, 3])
def test_a_fit_out_of_steps_says_so(max_steps):
    start = counts_mixture()
    result = fit(start, COUNTS, tol=0.0, max_steps=max_steps)
    assert not result.converged and result.outcome == "out of steps"
    assert int(result.num_steps) == max_steps
    assert result.trace.shape == (max_steps + 1,) and np.all(np.isfinite(result.trace))
    if max_steps == 0:
        assert_same(result.model, start)
        np.testing.assert_allclose(result.log_likelihood, start.log_likelihood(COUNTS), rtol=1e-6)


def assert_same(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_collapse_is_reported_and_the_last_finite_model_returned(dtype):
    """Without a floor a component on a single row shrinks until its variance is 0."""
    x = np.concatenate([ROWS, [[40.0]]]).astype(dtype)
    model = normal_mixture([[0.0], [40.0]], [9.0, 1.0], dtype)
    result = fit(model, x, prior=jaxem.Prior(floor=0.0))
    assert not result.converged and "non-finite" in result.outcome
    steps = int(result.num_steps)
    assert np.isfinite(result.log_likelihood)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result.model))
    np.testing.assert_allclose(
        result.log_likelihood, result.model.log_likelihood(x), rtol=1e4 * np.finfo(dtype).eps
    )
    assert result.trace[steps] == result.log_likelihood
    assert np.all(np.isnan(result.trace[steps + 1 :]))
    floored = fit(model, x)  # the default floor prevents it
    assert floored.converged
    variance = np.asarray(floored.model.components.variance)
    np.testing.assert_allclose(variance[1], 1e-6 * np.var(x), rtol=1e-2)


def test_impossible_data_end_the_fit_at_minus_infinity():
    table = np.array([[0.0, 0.0, -np.inf], [0.0, 1.0, -np.inf]])
    model = cast(
        jaxem.Mixture(jaxem.Categorical(np.zeros(2)), jaxem.Categorical(table)), np.float32
    )
    result = fit(model, np.array([0, 1, 2]))
    assert not result.converged and "non-finite" in result.outcome
    assert result.log_likelihood == -np.inf and result.num_steps == 0
    assert_same(result.model, model)


def test_a_start_with_an_impossible_row_may_still_lead_somewhere():
    """One member rules the row out, and pretend counts do not change that; the other may."""
    table = np.array([[0.0, -np.inf, -np.inf], [0.0, 0.0, 0.0]])
    model = jaxem.Mixture(jaxem.Categorical(np.array([0.0, -5.0])), jaxem.Categorical(table))
    result = fit(cast(model, np.float32), np.array([0, 0, 1, 2]))
    assert result.converged and np.isfinite(result.log_likelihood)


@pytree
class Ridge(jaxem.Mixture):
    """Adds to the variances after every M-step."""

    def m_step(self, stats, prior, frozen=()):
        best = super().m_step(stats, prior, frozen)
        wider = best.components.log_scale + 0.2
        return replace(best, components=replace(best.components, log_scale=wider))


def test_a_wrong_m_step_is_found_out_and_never_called_converged():
    model = normal_mixture([[-3.0], [3.0]])
    result = fit(Ridge(model.weights, model.components), ROWS, tol=0.0)
    assert "fell" in result.outcome and not result.converged
    assert result.largest_fall > 0.1
    trace = np.asarray(result.trace)[: int(result.num_steps) + 1]
    np.testing.assert_allclose(result.largest_fall, np.max(-np.diff(trace)), rtol=1e-5)
    with pytest.raises(AssertionError):
        laws.law_monotone(
            replace(
                laws.question("Mixture over SphericalGaussian", np.float32),
                model=Ridge(model.weights, model.components),
                others=[],
                data=ROWS,
            )
        )


def test_every_outcome_is_told_apart():
    assert len(set(em.OUTCOMES)) == len(em.OUTCOMES) == 6


def test_a_saddle_is_a_stationary_point_and_stays():
    """Two equal components share every row alike: ℓ has no slope there, and no step leaves it."""
    model = normal_mixture([[0.5], [0.5]])
    result = fit(model, ROWS, tol=0.0)
    assert result.converged
    mean = np.asarray(result.model.components.mean)
    np.testing.assert_array_equal(mean[0], mean[1])
    np.testing.assert_allclose(mean[0], ROWS.mean(), rtol=1e-4, atol=1e-6)
    better = fit(normal_mixture([[0.5], [0.6]]), ROWS, tol=0.0, max_steps=200)
    assert better.log_likelihood > result.log_likelihood + 10


# What it returns


def test_aic_and_bic_count_the_free_parameters():
    result = fit(counts_mixture(), COUNTS)
    assert int(result.num_parameters) == 3
    np.testing.assert_allclose(result.aic, 2 * 3 - 2 * result.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(
        result.bic(100), 3 * np.log(100) - 2 * result.log_likelihood, rtol=1e-6
    )


def test_frozen_parts_leave_the_count_of_parameters():
    for frozen, free in ((("weights",), 2), ("components", 1), (("weights.logits",), 2)):
        result = fit(counts_mixture(), COUNTS, frozen=frozen)
        assert int(result.num_parameters) == free
    whole = fit(counts_mixture(), COUNTS, frozen=("weights", "components"))
    assert int(whole.num_parameters) == 0 and whole.converged
    assert_same(whole.model, counts_mixture())


def test_integer_data_keep_the_dtype_of_the_model(dtype):
    result = fit(counts_mixture(dtype), COUNTS)
    assert {leaf.dtype for leaf in jax.tree.leaves(result.model)} == {dtype}
    assert result.log_likelihood.dtype == result.trace.dtype == dtype


def test_the_model_takes_the_dtype_of_floating_data(x64):
    for ours, theirs in ((np.float32, np.float64), (np.float64, np.float32)):
        model = normal_mixture([[-3.0], [3.0]], dtype=ours)
        result = fit(model, ROWS.astype(theirs))
        assert {leaf.dtype for leaf in jax.tree.leaves(result.model)} == {np.dtype(theirs)}
        assert model.log_likelihood(ROWS.astype(theirs)).dtype == theirs


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_scale_of_the_data_does_not_matter(scale, dtype):
    mean, sign = np.array([[-2.0], [1.0]]), np.array([1.0, 2.0])
    one = fit(normal_mixture(mean, sign, dtype), ROWS.astype(dtype), tol=1e-3)
    x = (scale * ROWS).astype(dtype)
    other = fit(normal_mixture(scale * mean, scale**2 * sign, dtype), x, tol=1e-3)
    assert one.converged and other.converged
    close = {"rtol": 1e4 * np.finfo(dtype).eps}
    np.testing.assert_allclose(other.model.weights.probs, one.model.weights.probs, **close)
    np.testing.assert_allclose(
        other.model.components.mean, scale * one.model.components.mean, **close
    )
    np.testing.assert_allclose(
        other.log_likelihood, one.log_likelihood - len(ROWS) * np.log(scale), **close
    )


# Progress, compilation, transformations


def test_progress_is_told_and_changes_nothing():
    told: list[tuple[int, float]] = []
    quiet = fit(counts_mixture(), COUNTS, tol=0.0)
    loud = fit(counts_mixture(), COUNTS, tol=0.0, progress=lambda *said: told.append(said))
    assert_same(loud, quiet)
    steps, objectives = zip(*told, strict=True)
    assert len(told) == int(np.ceil((int(quiet.num_steps) + 1) / 11)) or len(told) > 1
    assert list(steps) == sorted(set(steps)) and steps[-1] == int(quiet.num_steps)
    np.testing.assert_allclose(objectives, np.asarray(quiet.trace)[list(steps)], rtol=1e-6)
    told.clear()
    jax.jit(lambda model: fit(model, COUNTS, progress=lambda *said: told.append(said)))(
        counts_mixture()
    )
    assert not told  # not from inside a program


@pytree
class Traced(jaxem.Mixture):
    """Counts how often its E-step is traced."""

    def e_step(self, data, about=None):
        TRACES.append(jnp.shape(data.values))
        return super().e_step(data, about)


TRACES: list[Any] = []


def test_a_fit_compiles_once_per_shape():
    def run(data, **options):
        model = counts_mixture()
        before = len(TRACES)
        fit(Traced(model.weights, model.components), data, **options)
        return len(TRACES) - before

    assert run(COUNTS, tol=1e-6) == 1
    for tol in (1, 0.5, np.float32(0.1), np.float64(0.1), np.int64(0), jnp.asarray(0.2)):
        assert run(COUNTS[::-1].copy(), tol=tol) == 0, tol
    assert run(jnp.asarray(COUNTS)) == 0
    assert run(jaxem.Samples(COUNTS.tolist())) == 0
    assert run(COUNTS.astype(np.int32)) == 0
    assert run(COUNTS, prior=jaxem.Prior(weights=1)) == 0
    assert run(COUNTS, prior=jaxem.Prior(weights=1.5, events=np.float32(1))) == 0
    assert run(COUNTS, progress=lambda *_: None) == 0
    assert run(COUNTS[:-1]) == 1  # another shape


@pytest.mark.parametrize(
    "name",
    ["Mixture over SphericalGaussian", pytest.param("HMM over Poisson", marks=pytest.mark.slow)],
)
def test_many_fits_at_once_are_the_separate_ones(name, x64):
    about = laws.question(name, np.float64)
    starts = [about.model, *about.others[:2]]
    separate = [laws.run_fit(about, start) for start in starts]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    many = jax.vmap(lambda start: laws.run_fit(about, start))(together)
    assert many.converged.shape == (3,)
    for i, one in enumerate(separate):
        assert int(many.num_steps[i]) == int(one.num_steps)
        found = jax.tree.map(lambda leaf, i=i: leaf[i], many)
        laws.assert_close(found.model, one.model, ulps=1e5, dtype=np.float64)
        np.testing.assert_allclose(found.trace, one.trace, rtol=1e-12)


def test_a_fit_inside_a_program_is_the_fit_outside():
    inside = jax.jit(lambda model, x, tol: fit(model, x, tol=tol))
    model, x = normal_mixture([[-3.0], [3.0]]), ROWS.astype(np.float32)
    result, wanted = inside(model, x, 0.01), fit(model, x, tol=0.01)
    assert bool(result.converged)
    assert int(result.num_steps) == int(wanted.num_steps)
    laws.assert_close(result.model, wanted.model, ulps=1e3, dtype=np.float32)


# Bad options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": -1.0}, "tol must be a number, 0 or more, got -1.0"),
        ({"tol": np.nan}, "tol must be a number, 0 or more, got nan"),
        ({"max_steps": -1}, "max_steps must be a whole number, 0 or more, got -1"),
        ({"frozen": "weight"}, "names no part .* its parts are .*weights"),
        ({"frozen": ("weights", "components.mean")}, "'components.mean' names no part"),
        ({"prior": jaxem.Prior(weights=-0.5)}, "Prior.weights must not be negative"),
        ({"prior": jaxem.Prior(events=np.array([1.0, -1.0]))}, "Prior.events must not be negative"),
        ({"prior": jaxem.Prior(floor=-1.0)}, "Prior.floor must not be negative"),
        ({"prior": jaxem.Prior(exposure=np.nan)}, "Prior.exposure must be finite"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit(counts_mixture(), COUNTS, **options)


# Against gradients


@pytest.mark.slow
def test_em_ends_where_quasi_newton_ends(x64):
    """L-BFGS on the same leaves, from the same start."""
    rng = np.random.default_rng(12)
    data = np.concatenate([rng.normal(m, 1, (60, 2)) for m in (-4.0, 0.0, 4.0)])
    mean = np.array([[-3.0, -3.0], [0.0, 0.5], [3.0, 4.0]])
    family = jaxem.Gaussian.from_moments(mean, np.eye(2))
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(3)), family)
    result = jaxem.fit(model, data, tol=0.0, prior=jaxem.Prior(floor=0.0))
    assert result.converged
    ours = np.asarray(result.log_likelihood)
    prepared = model.prepare(data)

    def objective(vector):
        candidate = parameters.unravel_free(model, vector)
        return -candidate.e_step(prepared)[1] / len(data)

    solver = optax.lbfgs()

    @jax.jit
    def ascend(vector):
        def step(carry, _):
            vector, state = carry
            value, slope = optax.value_and_grad_from_state(objective)(vector, state=state)
            updates, state = solver.update(
                slope, state, vector, value=value, grad=slope, value_fn=objective
            )
            return (optax.apply_updates(vector, updates), state), None

        (vector, _), _ = jax.lax.scan(step, (vector, solver.init(vector)), length=150)
        return vector

    theirs = parameters.unravel_free(model, ascend(parameters.ravel_free(model)))
    np.testing.assert_allclose(theirs.log_likelihood(data), ours, rtol=1e-10)
    np.testing.assert_allclose(theirs.weights.probs, result.model.weights.probs, atol=1e-6)
    for a, b in zip(
        jax.tree.leaves(theirs.components), jax.tree.leaves(result.model.components), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
