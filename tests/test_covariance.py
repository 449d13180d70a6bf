"""Factorisations of our own against NumPy, their derivatives, and that they come to an end."""

import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import solve_triangular

from jaxem.families import covariance as cov
from jaxem.semiring import log

pytestmark = pytest.mark.numerics

SIZES = [1, 2, 5, cov.BLOCK, 2 * cov.BLOCK + 1]
BATCH = (2, 3)
CONDITION = 1e4


def factors(size: int, *, batch: tuple[int, ...] = BATCH, seed: int = 0) -> np.ndarray:
    """Lower triangular, a positive diagonal of order 1."""
    rng = np.random.default_rng(seed)
    below = np.tril(0.3 * rng.normal(size=(*batch, size, size)), -1)
    return below + np.eye(size) * rng.uniform(0.5, 2, (*batch, 1, size))


def covariances(size: int, *, batch: tuple[int, ...] = BATCH) -> np.ndarray:
    factor = factors(size, batch=batch)
    return np.einsum("...ij,...kj->...ik", factor, factor)


def with_condition(number: int, size: int, condition: float) -> np.ndarray:
    """Covariances in random axes with eigenvalues from 1 down to 1/condition; [number, D, D]."""
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(number, size, size)))[0]
    return np.einsum("nij,j,nkj->nik", axes, np.geomspace(1, 1 / condition, size), axes)


def symmetric(size: int, seed: int) -> np.ndarray:
    half = np.random.default_rng(seed).normal(size=(size, size))
    return half + half.T


@pytest.mark.parametrize("size", SIZES)
def test_a_factor_and_its_inverse_are_those_of_numpy(size: int, dtype: np.dtype) -> None:
    factor = factors(size)
    close = {"rtol": 0, "atol": 200 * np.finfo(dtype).eps}
    found = jax.jit(cov.cholesky)(covariances(size).astype(dtype))
    assert found.dtype == dtype and found.shape == factor.shape
    np.testing.assert_allclose(found, factor, **close)
    assert np.all(found == np.tril(found))
    whiten = jax.jit(cov.inverse)(factor.astype(dtype))
    assert whiten.dtype == dtype and whiten.shape == factor.shape
    exact = np.linalg.inv(factor)
    np.testing.assert_allclose(whiten / np.abs(exact).max(), exact / np.abs(exact).max(), **close)
    assert np.all(whiten == np.tril(whiten))


@pytest.mark.parametrize("size", [2, 5, 2 * cov.BLOCK + 1])
@pytest.mark.parametrize("how", ["indefinite", "singular", "negative", "NaN"])
def test_what_is_not_positive_definite_gives_nan_and_spoils_no_neighbour(
    size: int, how: str, dtype: np.dtype
) -> None:
    batch = covariances(size).astype(dtype)
    batch[0, 1] = {
        "indefinite": np.diag([*[1.0] * (size - 1), -1.0]),
        "singular": np.ones((size, size)),
        "negative": -batch[0, 1],
        "NaN": np.full((size, size), np.nan),
    }[how]
    found = np.asarray(cov.cholesky(batch))
    # The floor, and who types a covariance in, look for it on the diagonal.
    bad = np.isnan(np.diagonal(found, axis1=-2, axis2=-1).sum(-1))
    np.testing.assert_array_equal(bad, np.arange(6).reshape(BATCH) == 1)


@pytest.mark.parametrize("size", [1, 5, 2 * cov.BLOCK + 1])
def test_first_derivatives_are_those_of_lapack_and_of_differences(size: int, x64: None) -> None:
    matrix = jnp.asarray(covariances(size, batch=()))
    weight, tangent = jnp.asarray(symmetric(size, 2)), jnp.asarray(symmetric(size, 3))

    def of(factorise, invert):
        def function(matrix):
            factor = factorise(0.5 * (matrix + matrix.T))
            return jnp.sum(weight * factor) + jnp.sum(weight * invert(factor) ** 2)

        return function

    own, other = of(cov.cholesky, cov.inverse), of(jnp.linalg.cholesky, jnp.linalg.inv)

    @jax.jit
    def derivatives(matrix):
        change = jax.jvp(own, (matrix,), (tangent,))[1]
        return jax.grad(own)(matrix), change, jax.grad(other)(matrix), own(matrix)

    gradient, change, desired, _ = derivatives(matrix)
    np.testing.assert_allclose(gradient, desired, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(change, jnp.sum(gradient * tangent), rtol=1e-10)
    step = 1e-6
    above, below = (derivatives(matrix + sign * step * tangent)[-1] for sign in (1, -1))
    np.testing.assert_allclose(change, (above - below) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 5, 2 * cov.BLOCK + 1])
def test_second_derivatives_are_those_of_closed_forms_however_they_are_taken(
    size: int, x64: None
) -> None:
    # log |Σ| has the Hessian -tr(Σ⁻¹ A Σ⁻¹ B), and aᵀΣ⁻¹a has 2 aᵀΣ⁻¹ A Σ⁻¹ B Σ⁻¹ a.
    matrix = jnp.asarray(covariances(size, batch=()))
    a = np.random.default_rng(4).normal(size=size)
    ways = [np.eye(size), symmetric(size, 5), symmetric(size, 6)]
    inverse = np.linalg.inv(matrix)

    def function(at):
        factor = cov.cholesky(matrix + sum(x * way for x, way in zip(at, ways, strict=True)))
        whitened = jnp.dot(cov.inverse(factor), a, precision="highest")
        return 2 * jnp.sum(jnp.log(jnp.diagonal(factor))) + jnp.sum(whitened**2)

    def exact(one, other):
        both = np.linalg.multi_dot([inverse, one, inverse, other])
        back = np.linalg.multi_dot([inverse, other, inverse, one])
        return -np.trace(both) + (both + back).dot(inverse).dot(a).dot(a)

    desired = [[exact(one, other) for other in ways] for one in ways]
    origin = jnp.zeros(3)
    both = jax.jit(lambda at: (jax.hessian(function)(at), jax.jacrev(jax.jacrev(function))(at)))
    for found in both(origin):
        np.testing.assert_allclose(found, desired, rtol=1e-9, atol=1e-9)


def test_the_upper_triangle_of_a_factor_has_no_derivative(x64: None) -> None:
    gradient = jax.jit(jax.grad(lambda factor: jnp.sum(cov.inverse(factor) ** 3)))(factors(4))
    below = np.tri(4, dtype=bool)
    np.testing.assert_array_equal(gradient != 0, np.broadcast_to(below, gradient.shape))


@pytest.mark.parametrize("size", [5, 2 * cov.BLOCK + 1])
def test_a_batch_by_vmap_is_a_batch(size: int, x64: None) -> None:
    batch, factor = covariances(size), factors(size)
    for function, argument in ((cov.cholesky, batch), (cov.inverse, factor)):
        mapped = jax.jit(jax.vmap(function, in_axes=1, out_axes=1))(argument)
        np.testing.assert_allclose(mapped, function(argument), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [2, 8, cov.BLOCK, 3 * cov.BLOCK + 5])
def test_an_ill_conditioned_matrix_costs_no_more_digits_than_lapack(size: int) -> None:
    matrices = with_condition(50, size, CONDITION)
    single = matrices.astype(np.float32)

    # Not NumPy, which computes float32 factorisations in float64.
    exact = np.linalg.cholesky(single.astype(float))
    own, lapack = (np.asarray(f(single), float) for f in (cov.cholesky, jnp.linalg.cholesky))
    assert np.mean((own - exact) ** 2) <= 4 * np.mean((lapack - exact) ** 2)
    backward = np.einsum("nij,nkj->nik", own, own) - single
    assert np.abs(backward).max() <= 8 * np.finfo(np.float32).eps

    factor = exact.astype(np.float32)
    exact = np.linalg.inv(factor.astype(float))
    lapack = solve_triangular(factor, np.broadcast_to(np.eye(size), factor.shape), lower=True)
    errors = [
        np.mean(((np.asarray(found, float) - exact) / np.abs(exact).max()) ** 2)
        for found in (cov.inverse(factor), lapack)
    ]
    assert errors[0] <= 4 * errors[1]


def test_a_matrix_far_from_symmetric_units_keeps_its_digits(dtype: np.dtype) -> None:
    # Scaling by powers of 2 changes no digit of a factor, however different the units.
    size = 6
    scale = 2.0 ** np.arange(-20, 28, 8)
    plain = covariances(size, batch=()).astype(dtype)
    scaled = (scale[:, None] * plain * scale).astype(dtype)
    expected = scale[:, None] * np.asarray(cov.cholesky(plain), float)
    np.testing.assert_array_equal(np.asarray(cov.cholesky(scaled), float), expected)


@pytest.mark.parametrize("size", [2, 64])
def test_no_factorisation_is_left_to_lapack_where_two_at_a_time_never_end(size: int) -> None:
    matrices = jnp.zeros((64, size, size))
    for function in (cov.cholesky, cov.inverse):
        assert "custom_call" not in jax.jit(function).lower(matrices).as_text()
    assert "custom_call" in jax.jit(jnp.linalg.cholesky).lower(matrices).as_text()


# Several large batched factorisations in one program: with LAPACK's kernels they waited for each
# other for ever on two cores.
HESSIANS = """
import jax, jax.numpy as jnp, numpy as np
from jaxem import Gaussian
rng = np.random.default_rng(0)
K = D = 8
family = Gaussian(rng.normal(size=(K, D)), 0.1 * rng.normal(size=(K, D * (D + 1) // 2)))
x = rng.normal(size=(200, D)).astype("float32")
stats = family.stats(x, rng.dirichlet(np.ones(K), 200).astype("float32"))
sizes = [K * D, K * D * (D + 1) // 2]

def q(vector):
    mean, packed = jnp.split(vector, sizes[:1])
    there = Gaussian(mean.reshape(K, D), packed.reshape(K, -1))
    covariance = there.covariance
    again = Gaussian.from_moments(there.mean, 0.5 * (covariance + covariance.swapaxes(1, 2)))
    return family.expected_log_prob(stats, again)

starts = 0.1 * rng.normal(size=(4, sum(sizes))).astype("float32")
hessians = jax.jit(jax.vmap(jax.hessian(q)))(starts)
assert hessians.shape == (4, sum(sizes), sum(sizes)) and np.all(np.isfinite(hessians))
"""


def test_hessians_of_many_large_gaussians_in_one_program_come_to_an_end() -> None:
    subprocess.run([sys.executable, "-c", HESSIANS], check=True, timeout=120)


def test_the_logarithm_of_nothing_is_minus_infinity_with_a_gradient_of_nothing(
    dtype: np.dtype,
) -> None:
    at = jnp.asarray([0.0, -0.0, 1e-30, 0.5, 1.0, np.inf, -1.0, np.nan], dtype)
    expected = [-np.inf, -np.inf, np.log(1e-30), np.log(0.5), 0, np.inf, np.nan, np.nan]
    np.testing.assert_allclose(log(at), expected, rtol=1e-6)
    slope = jax.vmap(jax.grad(log))(at)
    np.testing.assert_allclose(slope[:6], [0, 0, 1e30, 2, 1, 0], rtol=1e-6)
    assert np.isnan(slope[7])
    # The logarithm itself would make NaN of 0 times its slope at 0; so second derivatives.
    entropy = jax.hessian(lambda p: jnp.sum(jnp.where(p > 0, p * log(p), 0)))
    np.testing.assert_allclose(entropy(at[np.array([0, 3])]), [[0, 0], [0, 2]], rtol=1e-6)
    chex.assert_tree_all_finite(jax.grad(lambda p: jnp.sum(jnp.exp(log(p))))(at[:5]))
    assert np.isnan(jax.grad(lambda p: jnp.sum(jnp.where(p > 0, p * jnp.log(p), 0)))(at[:1]))[0]
