"""SQUAREM and L-BFGS inside the loop: they end where EM ends, sooner, and never fall."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from test_user_family import LogNormal

import jaxem
from jaxem.acceleration import STRATEGIES, lbfgs, squarem
from jaxem.comparison.examples import LINKAGE, Linkage
from jaxem.em import cast
from jaxem.iteration import OUT_OF_STEPS
from jaxem.many.lanes import Queue, drain
from jaxem.pytree import pytree

ACCELERATED = tuple(name for name in STRATEGIES if name is not None)
C = jaxem.Categorical.from_probs

accelerated = pytest.mark.parametrize("accelerate", ACCELERATED)


def normal_mixture(mean: Any, dtype: Any = np.float64) -> jaxem.Mixture:
    mean = np.asarray(mean, float)
    family = jaxem.Gaussian.from_moments(mean, np.eye(mean.shape[1]))
    return cast(jaxem.Mixture(jaxem.Categorical(np.zeros(len(mean))), family), dtype)


def overlapping(dtype: Any = np.float64, rows: int = 200) -> tuple[jaxem.Mixture, np.ndarray]:
    """Two normals a little more than a standard deviation apart: EM has a rate of .99."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (rows, 2)), rng.normal(1.2, 1, (rows, 2))])
    return normal_mixture([[-0.5, 0.0], [1.5, 1.0]], dtype), x.astype(dtype)


def earthquakes(initial: Any = None) -> tuple[jaxem.HMM, np.ndarray]:
    start = C([0.5, 0.5]) if initial is None else initial
    rates = jaxem.Poisson.from_rate(np.array([10.0, 30.0]))
    return jaxem.HMM(start, C([[0.9, 0.1], [0.1, 0.9]]), rates), jaxem.datasets.earthquakes()


def left_to_right() -> tuple[jaxem.HMM, jaxem.Sequences]:
    """Symbols of a chain that never goes back, with symbols that a state never shows."""
    moves = C([[0.8, 0.2, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 1.0]])
    shown = C([[0.6, 0.3, 0.1, 0.0], [0.0, 0.3, 0.4, 0.3], [0.2, 0.0, 0.3, 0.5]])
    truth = jaxem.HMM(C([1.0, 0.0, 0.0]), moves, shown)
    keys = jax.random.split(jax.random.key(0), 30)
    symbols = np.asarray(jax.vmap(lambda key: truth.sample(key, 15)[0])(keys))
    start = replace(
        truth,
        transition=C([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]),
        emission=C([[0.4, 0.3, 0.3, 0.0], [0.0, 0.3, 0.3, 0.4], [0.3, 0.0, 0.4, 0.3]]),
    )
    return start, jaxem.Sequences(symbols)


def faithful(components: int) -> tuple[jaxem.Mixture, np.ndarray]:
    x = jaxem.datasets.old_faithful()
    key = jax.random.key(0)
    return jaxem.initialize.kmeans_plus_plus(key, jaxem.Gaussian, x, components), x


PROBLEMS = {
    "overlapping": (overlapping, {}),
    "overlapping, a prior": (
        overlapping,
        {"prior": jaxem.Prior(weights=2.0, scatter=np.eye(2), scatter_weight=3.0)},
    ),
    "overlapping, means frozen": (overlapping, {"frozen": "components.mean"}),
    "overlapping, an active floor": (overlapping, {"prior": jaxem.Prior(floor=1.05)}),
    "Old Faithful": (lambda: faithful(2), {}),
    "earthquakes": (earthquakes, {}),
    "earthquakes, stationary": (lambda: earthquakes(jaxem.Stationary()), {}),
    "left to right": (left_to_right, {}),
}


def trace_of(result: jaxem.EMResult) -> np.ndarray:
    return np.asarray(result.trace)[: int(result.num_steps) + 1]


def rate(result: jaxem.EMResult) -> float:
    """The largest eigenvalue that EM has here: gains shrink by its square."""
    gains = np.diff(trace_of(result))
    return float((gains[-1] / gains[-11]) ** (1 / 20))


def assert_monotone(result: jaxem.EMResult) -> None:
    trace = trace_of(result)
    assert np.all(np.isfinite(trace)) and np.all(np.isnan(result.trace[len(trace) :]))
    epsilon = np.finfo(trace.dtype).eps
    assert np.min(np.diff(trace), initial=0.0) >= -64 * epsilon * np.max(abs(trace))


# The same end, sooner


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_ends_where_em_ends(name, x64):
    make, options = PROBLEMS[name]
    model, data = make()
    plain = jaxem.fit(model, data, tol=1e-9, max_steps=5000, **options)
    assert plain.converged
    for accelerate in ACCELERATED:
        result = jaxem.fit(model, data, tol=1e-9, max_steps=5000, accelerate=accelerate, **options)
        assert result.converged, (accelerate, result.outcome)
        best = plain.log_likelihood + plain.log_prior
        reached = result.log_likelihood + result.log_prior
        np.testing.assert_allclose(reached, best, rtol=0, atol=1e-6, err_msg=accelerate)
        assert_monotone(result)
        np.testing.assert_allclose(
            result.log_likelihood, result.model.log_likelihood(data), rtol=1e-12
        )
        np.testing.assert_allclose(reached, trace_of(result)[-1], rtol=1e-12)
        frozen = options.get("frozen")
        if frozen:
            np.testing.assert_array_equal(
                result.model.components.mean, model.components.mean, err_msg=accelerate
            )
        if name == "left to right":
            for before, after in zip(
                jax.tree.leaves(model), jax.tree.leaves(result.model), strict=True
            ):
                assert np.all(np.isneginf(after)[np.isneginf(before)])
                assert not np.any(np.isnan(after))
        if "floor" in name:
            smallest = np.linalg.eigvalsh(np.asarray(result.model.components.covariance)).min()
            np.testing.assert_allclose(smallest, 1.05, rtol=1e-9)  # active, and kept
        if name == "earthquakes":
            np.testing.assert_allclose(result.log_likelihood, -341.87870, rtol=0, atol=5e-6)
            np.testing.assert_allclose(result.model.initial.probs, [1, 0], atol=1e-12)


def test_a_slow_problem_takes_a_fraction_of_the_steps(x64):
    model, x = overlapping()
    plain = jaxem.fit(model, x, max_steps=5000)
    assert rate(plain) > 0.95
    steps = {}
    for accelerate in ACCELERATED:
        result = jaxem.fit(model, x, max_steps=5000, accelerate=accelerate)
        assert result.log_likelihood >= plain.log_likelihood
        steps[accelerate] = int(result.num_steps)
    assert steps["squarem"] < int(plain.num_steps) / 2
    assert steps["lbfgs"] < int(plain.num_steps) / 5


@accelerated
def test_a_fast_problem_costs_hardly_more_steps(accelerate, x64):
    model, x = faithful(2)
    plain = jaxem.fit(model, x)
    result = jaxem.fit(model, x, accelerate=accelerate)
    assert int(result.num_steps) <= int(plain.num_steps) + 3


@accelerated
def test_the_scale_of_the_columns_hardly_matters_to_lbfgs(accelerate, x64):
    model, x = overlapping()
    scale = np.array([1e-4, 1e4])
    family = jaxem.Gaussian.from_moments(
        model.components.mean * scale, model.components.covariance * scale * scale[:, None]
    )
    options = {"tol": 1e-6, "max_steps": 5000, "accelerate": accelerate}
    one = jaxem.fit(model, x, prior=jaxem.Prior(floor=0.0), **options)
    other = jaxem.fit(
        jaxem.Mixture(model.weights, family), x * scale, prior=jaxem.Prior(floor=0.0), **options
    )
    assert one.converged and other.converged
    shift = len(x) * np.sum(np.log(scale))
    np.testing.assert_allclose(other.log_likelihood + shift, one.log_likelihood, atol=1e-3)
    if accelerate == "lbfgs":
        assert int(other.num_steps) <= 2 * int(one.num_steps)


@accelerated
def test_float32_ends_no_lower_than_em(accelerate):
    model, x = overlapping(np.float32)
    plain = jaxem.fit(model, x, max_steps=2000)
    result = jaxem.fit(model, x, max_steps=2000, accelerate=accelerate)
    assert result.converged and result.log_likelihood.dtype == np.float32
    epsilon = np.finfo(np.float32).eps * abs(float(plain.log_likelihood))
    assert result.log_likelihood >= plain.log_likelihood - 8 * epsilon
    np.testing.assert_allclose(result.log_likelihood, result.model.log_likelihood(x), rtol=1e-6)
    assert_monotone(result)


# Trials


def spoiled(memory: Any, judged: Any) -> Any:
    """An extrapolation to somewhere absurd."""
    beyond = jax.tree.map(lambda leaf: 30 * leaf - 7, judged.proposal)
    return beyond, jnp.asarray(True), jnp.asarray(True)


def lost(memory: Any, judged: Any) -> Any:
    nowhere = jax.tree.map(lambda leaf: leaf * jnp.nan, judged.proposal)
    return nowhere, jnp.asarray(True), jnp.asarray(False)


@pytest.mark.parametrize("extrapolate", [spoiled, lost])
def test_a_broken_extrapolation_is_rejected_and_the_end_is_right(extrapolate, monkeypatch, x64):
    model, x = overlapping()
    plain = jaxem.fit(model, x, max_steps=3000)
    jax.clear_caches()
    monkeypatch.setattr(squarem, "extrapolate", extrapolate)
    result = jaxem.fit(model, x, max_steps=3000, accelerate="squarem")
    jax.clear_caches()
    assert result.converged
    np.testing.assert_allclose(result.log_likelihood, plain.log_likelihood, rtol=1e-9)
    assert_monotone(result)
    trace = trace_of(result)
    # Two EM steps and a trial in vain: half as many steps again as EM takes.
    assert int(plain.num_steps) <= np.sum(np.diff(trace) != 0) <= int(plain.num_steps) + 3
    assert np.sum(np.diff(trace) == 0) >= int(plain.num_steps) // 2 - 2


def test_a_broken_direction_is_rejected_and_the_end_is_right(monkeypatch, x64):
    model, x = overlapping()
    plain = jaxem.fit(model, x, max_steps=3000)
    right = lbfgs._direction

    def wrong(*arguments: Any) -> Any:
        found = right(*arguments)
        return replace(found, step=-found.step)

    jax.clear_caches()
    monkeypatch.setattr(lbfgs, "_direction", wrong)
    result = jaxem.fit(model, x, max_steps=9000, accelerate="lbfgs")
    jax.clear_caches()
    assert result.converged
    np.testing.assert_allclose(result.log_likelihood, plain.log_likelihood, rtol=1e-9)
    assert_monotone(result)


def test_the_gradient_of_lbfgs_is_that_of_the_objective(x64):
    """Fisher's identity, a prior and zeros included."""
    model, data = left_to_right()
    prior = laws.PRIOR
    prior = replace(prior, transition=0.7, symbols=0.3, initial=0.4, floor=0.0)
    data = model.prepare(model.validate(data))
    stats, _ = model.e_step(data)
    proposal = model.m_step(stats, prior)
    judged = jaxem.acceleration.Judged(
        model, stats, model, proposal, prior, 0.0, model, 0.0, 0.0, 0.0, 9, ("initial",)
    )
    old = lbfgs.begin(model).direction
    direction = lbfgs._direction(old, judged, jnp.asarray(True))
    assert np.all(np.isfinite(direction.step))
    here = jaxem.parameters.ravel(model)
    free = np.asarray(jaxem.parameters.is_free(model, ("initial",)))
    np.testing.assert_array_equal(np.asarray(direction.step)[~free], 0)

    def objective(share: float) -> float:
        moved = jnp.where(free, here + share * direction.step, here)
        candidate = jaxem.parameters.unravel(model, moved)
        return float(candidate.e_step(data)[1] + candidate.log_prior(prior))

    numeric = (objective(1e-5) - objective(-1e-5)) / 2e-5
    np.testing.assert_allclose(direction.slope, numeric, rtol=1e-6)
    assert direction.slope > 0


@accelerated
@pytest.mark.parametrize("max_steps", [0, 1, 2, 7, 12])
def test_out_of_steps_it_returns_what_an_m_step_made(accelerate, max_steps, x64):
    """A model under the floor is never returned, however few steps there are."""
    model, x = overlapping()
    options = {"prior": jaxem.Prior(floor=1.05), "tol": 0.0, "max_steps": max_steps}
    result = jaxem.fit(model, x, accelerate=accelerate, **options)
    assert int(result.end) == OUT_OF_STEPS and int(result.num_steps) == max_steps
    np.testing.assert_allclose(result.log_likelihood, result.model.log_likelihood(x), rtol=1e-12)
    assert_monotone(result)
    if max_steps:
        smallest = np.linalg.eigvalsh(np.asarray(result.model.components.covariance)).min()
        assert smallest >= 1.05 * (1 - 1e-9)


@accelerated
def test_a_collapse_is_still_told(accelerate, x64):
    x = np.concatenate([np.random.default_rng(1).normal(0, 1, (60, 1)), [[40.0]]])
    model = normal_mixture([[0.0], [40.0]])
    result = jaxem.fit(model, x, prior=jaxem.Prior(floor=0.0), accelerate=accelerate)
    assert not result.converged and "non-finite" in result.outcome
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result.model))


@accelerated
def test_everything_frozen_ends_at_once(accelerate, x64):
    model, x = overlapping()
    result = jaxem.fit(model, x, frozen=("weights", "components"), accelerate=accelerate)
    assert result.converged and int(result.num_steps) <= 2


# Programs


@pytree
class Traced(jaxem.Mixture):
    """Counts how often its E-step is traced."""

    def e_step(self, data, about=None):
        TRACES.append(0)
        return super().e_step(data, about)


TRACES: list[int] = []


@accelerated
def test_it_compiles_once(accelerate):
    model, x = overlapping(np.float32)
    traced = Traced(model.weights, model.components)
    TRACES.clear()
    jaxem.fit(traced, x, max_steps=60, accelerate=accelerate)
    assert len(TRACES) == 1
    jaxem.fit(traced, x[::-1].copy(), max_steps=60, accelerate=accelerate, tol=0.1)
    assert len(TRACES) == 1


@accelerated
def test_jit_vmap_and_lanes_give_the_separate_fits(accelerate, x64):
    model, x = overlapping()
    starts = [model, normal_mixture([[0.0, 2.0], [1.0, 0.0]]), normal_mixture([[9.0, 0], [0, 1.0]])]
    options = {"max_steps": 400, "accelerate": accelerate}
    separate = [jaxem.fit(start, x, **options) for start in starts]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    many = jax.jit(jax.vmap(lambda start: jaxem.fit(start, x, **options)))(together)
    data = model.prepare(model.validate(x))
    prior = jaxem.em.resolve(jaxem.Prior(), data, np.float64)
    queue = Queue(together, data, None, prior, jnp.asarray(3))
    states, traces = jax.jit(
        lambda queue: drain(
            queue,
            jnp.asarray(1e-6),
            num_lanes=2,
            max_steps=400,
            frozen=(),
            accelerate=accelerate,
        )
    )(queue)
    for i, one in enumerate(separate):
        for found, trace, log_likelihood in (
            (many.num_steps[i], many.trace[i], many.log_likelihood[i]),
            (states.num_steps[i], traces[i], states.log_likelihood[i]),
        ):
            assert abs(int(found) - int(one.num_steps)) <= 6  # roundings tip a judgement over
            np.testing.assert_allclose(log_likelihood, one.log_likelihood, rtol=0, atol=1e-4)
            np.testing.assert_allclose(trace[:10], one.trace[:10], rtol=1e-9)


# Options


def test_an_unknown_acceleration_is_refused():
    model, x = overlapping(np.float32)
    with pytest.raises(ValueError, match="None, 'squarem' or 'lbfgs', got 'quick'"):
        jaxem.fit(model, x, accelerate="quick")


def test_a_family_without_q_is_refused_by_lbfgs_and_served_by_squarem():
    model = jaxem.Mixture(C(np.array([0.5, 0.5])), LogNormal(jnp.array([1.0, 4.0])))
    x = np.exp(np.random.default_rng(0).normal([0.0, 5.0], 1, (50, 2))).ravel().astype(np.float32)
    with pytest.raises(ValueError, match="LogNormal has no expected_log_prob"):
        jaxem.fit(model, x, accelerate="lbfgs")
    assert jaxem.fit(model, x, accelerate="squarem").converged


def test_a_model_of_ones_own_is_accelerated(x64):
    plain = jaxem.fit(Linkage.from_theta(0.5), LINKAGE)
    for accelerate in ACCELERATED:
        result = jaxem.fit(Linkage.from_theta(0.5), LINKAGE, accelerate=accelerate)
        np.testing.assert_allclose(result.model.theta, plain.model.theta, atol=1e-4)
