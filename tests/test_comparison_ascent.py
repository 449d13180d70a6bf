"""Gradient ascents against known maximisers, and Lanczos against dense eigenvalues."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import solve_triangular

from jaxem.comparison.ascent import Ascent, adam, lbfgs, newton
from jaxem.comparison.lanczos import Ritz, lanczos
from jaxem.families import covariance

METHODS = {"newton": newton, "lbfgs": lbfgs, "adam": adam}
TOL = {"newton": 1e-10, "lbfgs": 1e-8, "adam": 1e-9}  # of the gradient, in double precision
ENOUGH = {"newton": 100, "lbfgs": 200, "adam": 2000}  # steps

MEAN = np.array([0.3, -0.5, 1.0])
COVARIANCE = np.array([[1.0, 0.5, 0.3], [0.5, 1.2, -0.4], [0.3, -0.4, 0.9]])
COUNTS = np.array([10.0, 3.0, 25.0, 1.0, 7.0])
EVENTS, EXPOSURE = np.array([12.0, 3.0, 40.0]), np.array([10.0, 6.0, 20.0])
SIZES = (9, 5, 3)  # coordinates of the three problems; the rest of the nine are masked


def gaussian(vector: jax.Array) -> jax.Array:
    """Mean log-density as a function of the mean and the packed log-Cholesky factor."""
    factor = covariance.unpack(vector[3:])
    spread = jnp.asarray(np.linalg.cholesky(COVARIANCE), vector.dtype)
    shift = jnp.asarray(MEAN, vector.dtype) - vector[:3]
    squares = solve_triangular(factor, jnp.column_stack([spread, shift]), lower=True) ** 2
    return -(jnp.sum(squares) + covariance.log_determinant(vector[3:])) / 2


def categorical(vector: jax.Array) -> jax.Array:
    """Σ counts · log-probability / N as a function of logits."""
    shares = jnp.asarray(COUNTS / COUNTS.sum(), vector.dtype)
    return jnp.sum(shares * jax.nn.log_softmax(vector))


def poisson(vector: jax.Array) -> jax.Array:
    """(Σ events · log-rate − exposure · rate) / N."""
    events, exposure = (jnp.asarray(a / EXPOSURE.sum(), vector.dtype) for a in (EVENTS, EXPOSURE))
    return jnp.sum(events * vector - exposure * jnp.exp(vector))


def problem(which: jax.Array, vector: jax.Array) -> jax.Array:
    """One of the three, of the first coordinates."""
    functions = (gaussian, categorical, poisson)
    values = [f(vector[:size]) for f, size in zip(functions, SIZES, strict=True)]
    return jnp.stack(values)[which]


def error(which: int, point: np.ndarray) -> float:
    """Largest deviation of the natural parameters from the closed form."""
    point = np.asarray(point, float)[: SIZES[which]]
    if which == 0:
        factor = np.asarray(covariance.unpack(jnp.asarray(point[3:])), float)
        return max(np.abs(point[:3] - MEAN).max(), np.abs(factor.dot(factor.T) - COVARIANCE).max())
    natural = np.exp(point)
    if which == 1:
        return np.abs(natural / natural.sum() - COUNTS / COUNTS.sum()).max()
    return np.abs(natural - EVENTS / EXPOSURE).max()


def two_hills(vector: jax.Array) -> jax.Array:
    """Convex at 0, which is no maximum; the higher hills are near (1, 1) and (-1, -1)."""
    return -jnp.sum((vector**2 - 1) ** 2) / 4 + vector[0] * vector[1] / 10


def curvature(point: np.ndarray) -> np.ndarray:
    """The Hessian of `two_hills`."""
    return np.diag(1 - 3 * np.asarray(point) ** 2) + (1 - np.eye(2)) / 10


def rosenbrock(vector: jax.Array) -> jax.Array:
    """Rosenbrock's valley upside down, in values of O(1)."""
    return -((1 - vector[0]) ** 2 / 100 + (vector[1] - vector[0] ** 2) ** 2)


def starts(shape: tuple[int, ...], dtype: np.dtype, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def over_starts(name: str, function: Callable) -> Callable[..., Ascent]:
    """The method over a batch of problems and starts, `tol` and `max_steps` traced."""

    def one(which, start, tol, max_steps):
        return METHODS[name](partial(function, which), start, tol=tol, max_steps=max_steps)

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, None)))


@pytest.mark.parametrize("name", METHODS)
def test_an_ascent_ends_at_the_closed_form_maximiser(name, dtype):
    which = [0] * 4 + [1] * 4 + [2] * 4
    start = starts((12, 9), dtype)

    compiled = []

    def one(which, start, tol, max_steps):
        compiled.append(1)

        def function(vector):
            return problem(which, vector)

        ascent = METHODS[name](function, start, tol=tol, max_steps=max_steps)
        return ascent, jnp.max(jnp.abs(jax.grad(function)(ascent.point)))

    run = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None)))
    double = dtype == np.float64
    tol = TOL[name] if double else 0.0
    ascent, gradient = run(np.array(which), start, tol, 10_000)
    assert ascent.point.dtype == ascent.value.dtype == ascent.gradient.dtype == dtype
    assert np.all(ascent.num_steps <= ENOUGH[name])  # single precision: rounding ends it
    assert np.all(ascent.gradient <= (tol if double else 2e-6))
    np.testing.assert_allclose(gradient, ascent.gradient, rtol=0, atol=1e-15 if double else 5e-7)
    errors = [error(k, point) for k, point in zip(which, ascent.point, strict=True)]
    assert max(errors) < (100 * tol if double else 2e-5)
    for k, before, after in zip(which, start, ascent.point, strict=True):
        np.testing.assert_array_equal(after[SIZES[k] :], before[SIZES[k] :])
    if name != "adam":  # Adam scales coordinates one by one, so it leaves the gradient's span
        shift = ascent.point[4:8, :5].mean(-1) - start[4:8, :5].mean(-1)
        np.testing.assert_allclose(shift, 0, atol=1e-9 if double else 1e-5)

    # A member that has ended is frozen, and one cut short is not there.
    cap = int(np.median(ascent.num_steps))
    short, _ = run(np.array(which), start, tol, cap)
    ended = np.asarray(ascent.num_steps <= cap)
    assert 0 < ended.sum() < 12
    np.testing.assert_array_equal(short.point[ended], ascent.point[ended])
    np.testing.assert_array_equal(short.num_steps, np.minimum(ascent.num_steps, cap))
    early, _ = run(np.array(which), start, tol, 3)
    assert min(error(k, point) for k, point in zip(which, early.point, strict=True)) > 1e-4
    none, gradient = run(np.array(which), start, tol, 0)
    np.testing.assert_array_equal(none.point, start)
    np.testing.assert_array_equal(none.num_steps, 0)
    np.testing.assert_allclose(none.gradient, gradient, rtol=1e-5)
    assert compiled == [1]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["newton", "lbfgs"])
def test_an_ascent_leaves_a_valley_floor_and_a_region_of_positive_curvature(name):
    def function(is_valley, vector):
        return jnp.where(is_valley, rosenbrock(vector), two_hills(vector))

    saddle = np.zeros((1, 2))
    convex = np.concatenate([0.1 * starts((4, 2), np.dtype(float)), saddle])
    assert np.all([np.linalg.eigvalsh(curvature(point)).max() > 0 for point in convex])
    start = np.concatenate([[[-1.2, 1.0], [2.0, -1.0]], convex])
    ascent = over_starts(name, function)(np.arange(7) < 2, start, 1e-10, 100)
    assert np.all(ascent.gradient <= 1e-10)
    np.testing.assert_allclose(ascent.point[:2], 1, atol=1e-7)
    assert np.all([np.linalg.eigvalsh(curvature(hill)).max() < -1 for hill in ascent.point[2:6]])
    np.testing.assert_array_equal(ascent.point[6], saddle[0])  # stationary, hence left alone
    assert ascent.num_steps[6] == 0 < np.min(ascent.num_steps[:6])


def test_a_point_is_never_found_better_than_itself():
    """Newton went on for ever: XLA rounds a trial differently where it compares it."""
    start = 0.1 * jax.random.normal(jax.random.key(0), (4, 2), np.float32)
    run = over_starts("newton", lambda _, vector: two_hills(vector))
    ascent = run(np.zeros(4), start, 0.0, 10_000)
    assert np.all(ascent.num_steps < ENOUGH["newton"])
    assert np.all(ascent.gradient < 1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_trial_that_is_not_finite_is_a_refused_step(name):
    def cliff(beyond, vector):
        inside = jnp.all(vector < 1)
        smooth = jnp.sum(vector) - jnp.sum((vector - 0.95) ** 2) / 2
        steep = jnp.sum(jnp.exp(40 * (jnp.minimum(vector, 1) - 0.9))) / 40
        return jnp.where(inside, smooth - steep, beyond)

    beyond = np.repeat([np.nan, np.inf, -np.inf], 4).astype(np.float32)
    start = starts((12, 2), np.dtype(np.float32)).clip(-2, 0.5)
    start[3::4] = [2.0, 0.0]
    ascent = over_starts(name, cliff)(beyond, start, 1e-4, 2000)
    good = np.arange(12) % 4 != 3
    assert np.all(ascent.gradient[good] <= 1e-4)
    np.testing.assert_allclose(ascent.point[good], ascent.point[0, 0], atol=1e-4)
    np.testing.assert_array_equal(ascent.num_steps[~good], 0)  # nothing to be done from there
    np.testing.assert_array_equal(ascent.point[~good], start[~good])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", METHODS)
def test_single_precision_stays_so_where_double_is_the_default(name):
    def function(vector):
        return -jnp.sum(jnp.zeros(3, np.float32).at[np.arange(3)].set(vector) ** 2)

    ascent = METHODS[name](function, jnp.ones(3, np.float32), tol=1e-3, max_steps=500)
    assert ascent.point.dtype == ascent.value.dtype == ascent.gradient.dtype == np.float32
    assert ascent.gradient <= 1e-3


def symmetric(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix and a positive definite one."""
    draws = np.random.default_rng(seed).normal(size=(2, size, size))
    return draws[0] + draws[0].T, draws[1].dot(draws[1].T) + np.eye(size)


def generalised(matrix: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Eigenvalues of mass⁻¹ · matrix by reduction with the Cholesky factor of the mass."""
    factor = np.linalg.inv(np.linalg.cholesky(mass))
    return np.linalg.eigvalsh(factor.dot(matrix).dot(factor.T))


def bounds_hold(ritz: Ritz, eigenvalues: np.ndarray, slack: float) -> bool:
    """Whether an eigenvalue lies within the residual of every Ritz value."""
    distance = np.abs(ritz.values[:, None] - eigenvalues).min(1)
    return bool(np.all(distance <= ritz.residuals + slack))


def test_all_steps_of_lanczos_give_all_eigenvalues():
    matrix, mass = symmetric(30, 0)
    start = starts((30,), np.dtype(float))
    ritz = lanczos(matrix.dot, start, num_steps=100)
    assert ritz.exhausted and len(ritz.values) == 30
    np.testing.assert_allclose(ritz.values, np.linalg.eigvalsh(matrix), atol=1e-11)
    whitened = np.linalg.solve(mass, matrix)
    ritz = lanczos(whitened.dot, start, inner=mass.dot, num_steps=30)
    np.testing.assert_allclose(ritz.values, generalised(matrix, mass), atol=1e-10)
    wrong = lanczos(whitened.dot, start, num_steps=30)  # self-adjoint in the other inner product
    assert np.abs(wrong.values - generalised(matrix, mass)).max() > 1e-2


def test_few_steps_of_lanczos_give_the_outermost_eigenvalues_and_say_how_well():
    size = 200
    matrix, mass = symmetric(size, 1)
    matrix += 100 * np.diag(np.linspace(-1, 1, size) ** 9)  # isolated ends
    start = starts((size,), np.dtype(float))
    for operator, inner, truth in (
        (matrix, None, np.linalg.eigvalsh(matrix)),
        (np.linalg.solve(mass, matrix), mass.dot, generalised(matrix, mass)),
    ):
        ritz = lanczos(operator.dot, start, inner=inner, num_steps=60)
        again = lanczos(operator.dot, start, inner=inner, num_steps=60)
        np.testing.assert_array_equal(ritz.values, again.values)
        assert not ritz.exhausted and ritz.values.shape == ritz.residuals.shape == (60,)
        assert bounds_hold(ritz, truth, 1e-10)
        np.testing.assert_allclose(ritz.values[-1], truth[-1], atol=1e-6)
        assert ritz.residuals[-1] < 1e-3 < ritz.residuals.max()
        few = lanczos(operator.dot, start, inner=inner, num_steps=5)
        assert few.residuals[-1] > 1e-1 and abs(few.values[-1] - truth[-1]) > 1e-3
        assert bounds_hold(few, truth, 1e-10)


def test_lanczos_stops_where_the_krylov_space_is_exhausted(dtype):
    size = 40
    vectors = np.linalg.qr(symmetric(size, 2)[0])[0]
    spectrum = np.repeat([0.5, 1.0, 3.0, 4.0], 10)
    matrix = jnp.asarray((vectors * spectrum).dot(vectors.T), dtype)
    product = jax.jit(lambda vector: jnp.dot(matrix, vector, precision="highest"))
    small = np.finfo(dtype).eps * 100

    def multiply(vector):
        return product(vector.astype(dtype))

    ritz = lanczos(multiply, starts((size,), np.dtype(float)), num_steps=size)
    assert ritz.exhausted
    np.testing.assert_allclose(ritz.values, [0.5, 1, 3, 4], atol=small)
    np.testing.assert_allclose(ritz.residuals, 0, atol=10 * small)
    alone = lanczos(multiply, vectors[:, 15], num_steps=size)
    np.testing.assert_allclose(alone.values, [1.0], atol=small)
    cut = lanczos(multiply, starts((size,), np.dtype(float)), num_steps=3)
    assert not cut.exhausted and cut.residuals.max() > 1e-2


def test_a_null_space_that_is_projected_out_gives_no_eigenvalue():
    """As for the logits of one simplex, whose shift changes nothing."""
    size = 12
    weights = np.random.default_rng(3).dirichlet(np.ones(size))
    hessian = np.diag(weights) - np.outer(weights, weights)
    truth = np.linalg.eigvalsh(hessian)
    assert abs(truth[0]) < 1e-15 < truth[1]

    def product(vector):
        image = hessian.dot(vector)
        return image - image.mean()

    start = starts((size,), np.dtype(float))
    inside = lanczos(product, start - start.mean(), num_steps=size - 1)
    np.testing.assert_allclose(inside.values, truth[1:], atol=1e-12)
    full = lanczos(hessian.dot, start, num_steps=size)
    np.testing.assert_allclose(full.values, truth, atol=1e-12)

    # The same matrix as a semi-definite inner product: what it does not see counts as nothing.
    ritz = lanczos(lambda vector: 2 * vector, start, inner=hessian.dot, num_steps=size)
    np.testing.assert_allclose(ritz.values, [2.0])
    with pytest.raises(ValueError, match="length 0"):
        lanczos(product, np.zeros(size), num_steps=2)


def test_lanczos_refuses_what_it_cannot_use():
    start = np.ones(3)
    with pytest.raises(ValueError, match="num_steps"):
        lanczos(np.copy, start, num_steps=0)
    with pytest.raises(ValueError, match="not finite"):
        lanczos(lambda vector: vector * np.nan, start, num_steps=2)
    with pytest.raises(ValueError, match="not finite"):
        lanczos(np.copy, start, inner=lambda vector: vector * np.nan, num_steps=2)
