"""Published numbers that a right implementation reproduces, in float64 to the digits shown."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem

pytestmark = [pytest.mark.numerics, pytest.mark.usefixtures("x64")]


def equal_weights(components: object, num_components: int) -> jaxem.Mixture:
    probs = np.full(num_components, 1 / num_components)
    return jaxem.Mixture(jaxem.Categorical.from_probs(probs), components)


def best_of(starts: int, family: type, x: np.ndarray, num_components: int) -> jaxem.EMResult:
    """The best of several starts, to convergence."""

    def one(key: jax.Array) -> jaxem.EMResult:
        start = jaxem.initialize.kmeans_plus_plus(key, family, x, num_components)
        return jaxem.fit(start, x, tol=1e-9, max_steps=3000)

    results = [one(key) for key in jax.random.split(jax.random.key(0), starts)]
    return max(results, key=lambda result: float(result.log_likelihood))


def test_waiting_times_of_old_faithful_follow_the_published_path_to_the_published_optimum() -> None:
    waiting = jaxem.datasets.old_faithful()[:, 1]
    components = jaxem.Gaussian.from_moments([[55.0], [80.0]], np.full((2, 1, 1), 25.0))
    result = jaxem.fit(equal_weights(components, 2), waiting, tol=1e-11)
    path = [-1051.08964142, -1034.17863952, -1034.05412852, -1034.02387275]
    np.testing.assert_allclose(result.trace[:4], path, rtol=0, atol=5e-9)
    np.testing.assert_allclose(result.log_likelihood, -1034.0017498316, rtol=0, atol=1e-9)
    fitted = result.model.components
    np.testing.assert_allclose(result.model.weights.probs[0], 0.3608860738, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.mean[:, 0], [54.6148561406, 80.0910694027], rtol=0, atol=2e-5)
    scale = np.sqrt(fitted.covariance[:, 0, 0])
    np.testing.assert_allclose(scale, [5.8712194122, 5.8677344237], rtol=0, atol=2e-5)


def test_the_rate_of_convergence_on_waiting_times_is_the_published_one() -> None:
    waiting = jaxem.datasets.old_faithful()[:, 1]
    components = jaxem.Gaussian.from_moments([[55.0], [80.0]], np.full((2, 1, 1), 25.0))
    trace = np.asarray(jaxem.fit(equal_weights(components, 2), waiting, tol=0.0).trace)
    gains = np.diff(trace[:24])
    # Far along, errors shrink by the rate and gains of the log-likelihood by its square.
    np.testing.assert_allclose(np.sqrt(gains[20] / gains[19]), 0.65805169, rtol=0, atol=1e-3)


def test_old_faithful_in_two_dimensions_follows_the_published_path_to_the_published_optimum() -> (
    None
):
    x = jaxem.datasets.old_faithful()
    covariance = np.array([np.diag([0.1, 36.0])] * 2)
    components = jaxem.Gaussian.from_moments([[2.0, 55.0], [4.3, 80.0]], covariance)
    result = jaxem.fit(equal_weights(components, 2), x, tol=1e-11)
    path = [-1175.8362888943, -1130.8128151822, -1130.2823164428, -1130.2648883261]
    np.testing.assert_allclose(result.trace[:4], path, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.log_likelihood, -1130.2639601847, rtol=0, atol=1e-9)
    model = result.model
    np.testing.assert_allclose(model.weights.probs[0], 0.3558728571, rtol=0, atol=1e-7)
    mean = [[2.0363884546, 54.478516377], [4.2896619731, 79.9681151739]]
    np.testing.assert_allclose(model.components.mean, mean, rtol=1e-6)
    first = [[0.0691676726, 0.4351676244], [0.4351676244, 33.6972820723]]
    second = [[0.1699684357, 0.9406093193], [0.9406093193, 36.0462113176]]
    np.testing.assert_allclose(model.components.covariance, [first, second], rtol=1e-5)
    assert model.num_parameters == result.num_parameters == 11
    np.testing.assert_allclose(result.bic(272), 2322.192, rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    ("family", "num_components", "log_likelihood"),
    [
        (jaxem.TiedGaussian, 2, -1140.187),
        (jaxem.DiagonalGaussian, 2, -1147.806353),
        (jaxem.SphericalGaussian, 2, -1709.529282),
    ],
)
def test_other_covariances_of_old_faithful_reach_the_published_optimum(
    family: type, num_components: int, log_likelihood: float
) -> None:
    result = best_of(2, family, jaxem.datasets.old_faithful(), num_components)
    np.testing.assert_allclose(result.log_likelihood, log_likelihood, rtol=0, atol=5e-4)


def test_bic_prefers_three_tied_components_of_old_faithful() -> None:
    x = jaxem.datasets.old_faithful()
    tied = best_of(12, jaxem.TiedGaussian, x, 3)
    np.testing.assert_allclose(tied.log_likelihood, -1126.3159, rtol=0, atol=5e-5)
    full = best_of(2, jaxem.Gaussian, x, 2)
    assert float(tied.bic(272)) < float(full.bic(272))


@pytest.mark.parametrize(
    ("num_components", "starts", "log_likelihood"), [(2, 2, -214.354705), (3, 8, -180.185477)]
)
def test_iris_reaches_the_published_optimum(
    num_components: int, starts: int, log_likelihood: float
) -> None:
    result = best_of(starts, jaxem.Gaussian, jaxem.datasets.iris(), num_components)
    np.testing.assert_allclose(result.log_likelihood, log_likelihood, rtol=0, atol=1e-6)


def earthquake_start(num_states: int, initial: object = None) -> jaxem.HMM:
    rate = {2: [10.0, 30.0], 3: [10.0, 20.0, 30.0]}[num_states]
    others = 0.1 / (num_states - 1)
    moves = np.full((num_states, num_states), others) + (0.9 - others) * np.eye(num_states)
    start = jaxem.Categorical.from_probs(np.full(num_states, 1 / num_states))
    return jaxem.HMM(
        start if initial is None else initial,
        jaxem.Categorical.from_probs(moves),
        jaxem.Poisson.from_rate(np.array(rate)),
    )


def test_earthquakes_with_two_states_follow_the_published_path_to_the_published_optimum() -> None:
    result = jaxem.fit(earthquake_start(2), jaxem.datasets.earthquakes(), tol=0.0, max_steps=200)
    steps = np.array([0, 1, 2, 30, 50])
    published = [-413.27542, -343.76023, -343.13618, -341.87871, -341.87870]
    np.testing.assert_allclose(result.trace[steps], published, rtol=0, atol=5e-6)
    model = result.model
    np.testing.assert_allclose(model.emission.rate, [15.4207619, 26.01823567], rtol=0, atol=1e-6)
    moves = np.asarray(model.transition.probs)
    np.testing.assert_allclose(
        [moves[0, 1], moves[1, 0]], [0.07162606, 0.11903439], rtol=0, atol=1e-7
    )
    np.testing.assert_allclose(model.initial.probs, [1, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.bic(107), 707.12, rtol=0, atol=5e-3)  # the start counted


def test_earthquakes_with_three_states_reach_the_published_optimum() -> None:
    result = jaxem.fit(earthquake_start(3), jaxem.datasets.earthquakes(), max_steps=2000)
    np.testing.assert_allclose(result.log_likelihood, -328.5275, rtol=0, atol=5e-5)
    np.testing.assert_allclose(result.bic(107), 708.46, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("num_states", "log_likelihood", "bic"), [(2, -342.3183, 703.33), (3, -329.4603, 700.98)]
)
def test_earthquakes_with_a_stationary_start_reach_the_published_optimum(
    num_states: int, log_likelihood: float, bic: float
) -> None:
    start = earthquake_start(num_states, jaxem.Stationary())
    result = jaxem.fit(start, jaxem.datasets.earthquakes(), max_steps=2000)
    np.testing.assert_allclose(result.log_likelihood, log_likelihood, rtol=0, atol=5e-5)
    np.testing.assert_allclose(result.bic(107), bic, rtol=0, atol=1e-2)
    assert result.converged and result.largest_fall < 1e-9
    model = result.model
    start_probs = np.exp(model.log_initial)
    np.testing.assert_allclose(start_probs @ np.asarray(model.transition.probs), start_probs)


@pytest.mark.slow
def test_four_states_fit_the_earthquakes_better_than_the_value_in_print() -> None:
    counts = jaxem.datasets.earthquakes()
    start = jax.jit(jax.vmap(lambda m: jaxem.fit(m, counts, max_steps=400).log_likelihood))
    keys = jax.random.split(jax.random.key(0), 250)
    rates = jax.vmap(lambda key: jnp.sort(jax.random.uniform(key, (4,), minval=5, maxval=40)))(keys)
    moves = np.full((4, 4), 0.1 / 3) + (0.9 - 0.1 / 3) * np.eye(4)
    model = jaxem.HMM(
        jaxem.Categorical(jnp.zeros((250, 4))),
        jaxem.Categorical(jnp.broadcast_to(jnp.log(moves), (250, 4, 4))),
        jaxem.Poisson(jnp.log(rates)),
    )
    best = float(jnp.max(start(model)))
    np.testing.assert_allclose(best, -326.2850, rtol=0, atol=5e-3)
    assert best > -326.675


def test_umbrella_world_and_its_forecast() -> None:
    sensor = jaxem.Categorical.from_probs([[0.9, 0.1], [0.2, 0.8]])
    half = jaxem.Categorical.from_probs([0.5, 0.5])
    world = jaxem.HMM(half, jaxem.Categorical.from_probs([[0.7, 0.3], [0.3, 0.7]]), sensor)
    seen = np.array([0, 0, 1, 0, 0])
    np.testing.assert_allclose(world.log_likelihood(seen), -3.3725020443, rtol=0, atol=1e-10)
    rain = [0.86733889, 0.82041905, 0.30748358, 0.82041905, 0.86733889]
    np.testing.assert_allclose(world.smooth(seen)[:, 0], rain, rtol=0, atol=5e-9)
    score, path = world.viterbi(seen)
    np.testing.assert_allclose(score, -4.4590, rtol=0, atol=5e-5)
    assert path.tolist() == [0, 0, 1, 0, 0]
    # two days on from a filtered day: A², by hand
    last = np.asarray(world.filter(seen).filtered[-1])
    two_days = last @ np.linalg.matrix_power([[0.7, 0.3], [0.3, 0.7]], 2)
    np.testing.assert_allclose(world.forecast(seen, 2).states[1], two_days, rtol=1e-12)


def test_the_dishonest_casino_is_found_again_from_its_rolls() -> None:
    rolls, loaded, casino = jaxem.datasets.dishonest_casino(jax.random.key(5), 20_000)
    perturbed = replace(casino, transition=jaxem.Categorical.from_probs([[0.8, 0.2], [0.2, 0.8]]))
    result = jaxem.fit(perturbed, rolls, max_steps=300)
    assert float(result.log_likelihood) > float(casino.log_likelihood(rolls))
    # Within the sampling error of 20,000 rolls, of which a third are the loaded die's.
    model = result.model
    np.testing.assert_allclose(model.transition.probs, casino.transition.probs, rtol=0, atol=0.05)
    np.testing.assert_allclose(model.emission.probs, casino.emission.probs, rtol=0, atol=0.05)
    agreement = np.mean(np.asarray(casino.viterbi(rolls)[1]) == np.asarray(loaded))
    assert agreement > 0.75


def test_johnson_and_wicherns_start_is_refused_until_entries_may_be_missing() -> None:
    x = np.array([[np.nan, 0, 3], [7, 2, 6], [5, 1, 2], [np.nan, np.nan, 5]])
    model = equal_weights(jaxem.Gaussian.from_moments([[6.0, 1.0, 4.0]], np.eye(3)), 1)
    with pytest.raises(ValueError, match="nan at row 0, column 0"):
        jaxem.fit(model, x)
