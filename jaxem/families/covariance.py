"""Cholesky factors as free parameters, and the covariance floor."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxem.data import is_traced
from jaxem.lockstep import everywhere
from jaxem.semiring import PRECISION

BLOCK = 16  # features up to which a matrix is factored column by column


def pack(scale_tril: Float[Array, "... D D"]) -> Float[Array, "... P"]:
    """Lower triangle by rows with the diagonal in logs, P = D(D+1)/2: any real vector is one."""
    diagonal = jnp.diagonal(scale_tril, axis1=-2, axis2=-1)
    logs = jnp.log(diagonal)[..., None] * jnp.eye(scale_tril.shape[-1], dtype=scale_tril.dtype)
    rows, columns = np.tril_indices(scale_tril.shape[-1])
    return jnp.where(rows == columns, logs[..., rows, columns], scale_tril[..., rows, columns])


def unpack(log_cholesky: Float[Array, "... P"]) -> Float[Array, "... D D"]:
    """The lower triangular factor with a positive diagonal; the inverse of `pack`."""
    size = dimension(log_cholesky.shape[-1])
    rows, columns = np.tril_indices(size)
    place = np.zeros((size, size), int)
    place[rows, columns] = np.arange(len(rows))
    square = log_cholesky[..., place]
    on, below = np.eye(size, dtype=bool), np.tri(size, k=-1, dtype=bool)
    return jnp.where(on, jnp.exp(jnp.where(on, square, 0)), jnp.where(below, square, 0))


def dimension(packed: int) -> int:
    """D from the length D(D+1)/2 of a packed factor.

    Raises:
        ValueError: no D has a factor of that length.
    """
    size = int((np.sqrt(8 * packed + 1) - 1) // 2)
    if size * (size + 1) // 2 != packed:
        raise ValueError(
            f"a packed Cholesky factor has length D(D+1)/2; {packed} is no such number."
        )
    return size


def log_determinant(log_cholesky: Float[Array, "... P"]) -> Float[Array, "..."]:
    """Log-determinant of the covariance."""
    size = dimension(log_cholesky.shape[-1])
    return 2 * jnp.sum(log_cholesky[..., np.cumsum(np.arange(1, size + 1)) - 1], -1)


@jax.custom_jvp
def inverse(scale_tril: Float[Array, "... D D"]) -> Float[Array, "... D D"]:
    """Inverse of a lower triangular factor, by rows; above `BLOCK` features by blocks of rows."""
    size = scale_tril.shape[-1]
    if size <= BLOCK:
        return _inverse_by_rows(scale_tril)
    padded = _pad(scale_tril)
    total = padded.shape[-1]

    def step(found: Array, start: Array) -> tuple[Array, None]:
        rows = lax.dynamic_slice_in_dim(padded, start, BLOCK, -2)
        corner = lax.dynamic_slice_in_dim(rows, start, BLOCK, -1)
        unit = (jnp.arange(total) == start + jnp.arange(BLOCK)[:, None]).astype(padded.dtype)
        rest = unit - _product(rows, found)  # rows of `found` from here on are still 0
        new = _product(_inverse_by_rows(corner), rest)
        return lax.dynamic_update_slice_in_dim(found, new, start, -2), None

    found, _ = lax.scan(step, jnp.zeros_like(padded), jnp.arange(0, total, BLOCK))
    return found[..., :size, :size]


def _inverse_by_rows(scale_tril: Array) -> Array:
    identity = jnp.eye(scale_tril.shape[-1], dtype=scale_tril.dtype)

    def step(rows: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        factor, unit = inputs  # one row of each
        here = unit == 1
        rest = unit - jnp.sum(factor[..., :, None] * rows, -2)
        row = rest / jnp.sum(jnp.where(here, factor, 0), -1)[..., None]
        return jnp.where(here[:, None], row[..., None, :], rows), None

    rows = jnp.moveaxis(scale_tril, -2, 0)
    return lax.scan(step, jnp.zeros_like(scale_tril), (rows, identity))[0]


@inverse.defjvp
def _inverse_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    whiten = inverse(*primals)
    return whiten, -_product(_product(whiten, jnp.tril(tangents[0])), whiten)


@jax.custom_jvp
def cholesky(covariance: Float[Array, "... D D"]) -> Float[Array, "... D D"]:
    """Lower triangular factor of a symmetric matrix; NaN in it where that is not positive definite.

    Column by column for the whole batch at once; above `BLOCK` features by blocks of columns, so
    that most of the work is products.  LAPACK's batched kernels are no faster and, two at a time on
    a CPU of few cores, wait for each other for ever (jaxlib 0.10); and derivatives are products, so
    that no batch of directions is factored.
    """
    size = covariance.shape[-1]
    symmetric = 0.5 * (covariance + jnp.swapaxes(covariance, -1, -2))  # as LAPACK's wrapper does
    if size <= BLOCK:
        return _cholesky_by_columns(symmetric)
    padded = _pad(symmetric)
    index = jnp.arange(padded.shape[-1])

    def step(rest: Array, start: Array) -> tuple[Array, Array]:
        columns = lax.dynamic_slice_in_dim(rest, start, BLOCK, -1)
        corner = _cholesky_by_columns(lax.dynamic_slice_in_dim(columns, start, BLOCK, -2))
        columns = _product(columns, jnp.swapaxes(_inverse_by_rows(corner), -1, -2))
        columns = lax.dynamic_update_slice_in_dim(columns, corner, start, -2)
        columns = jnp.where(index[:, None] < start, 0, columns)
        return rest - _product(columns, jnp.swapaxes(columns, -1, -2)), columns

    _, blocks = lax.scan(step, padded, jnp.arange(0, len(index), BLOCK))
    factor = jnp.moveaxis(blocks, 0, -2).reshape(padded.shape)
    return factor[..., :size, :size]


def _cholesky_by_columns(symmetric: Array) -> Array:
    index = jnp.arange(symmetric.shape[-1])

    def step(rest: Array, j: Array) -> tuple[Array, Array]:
        column = jnp.take(rest, j, -1)
        pivot = jnp.sqrt(jnp.take(column, j, -1))[..., None]
        column = jnp.where(index < j, 0, column / pivot)
        return rest - column[..., :, None] * column[..., None, :], column

    return jnp.moveaxis(lax.scan(step, symmetric, index)[1], 0, -1)


def _pad(matrix: Array) -> Array:
    """The matrix with an identity appended, so that its size is a multiple of `BLOCK`."""
    extra = -matrix.shape[-1] % BLOCK
    padded = jnp.pad(matrix, [(0, 0)] * (matrix.ndim - 2) + [(0, extra), (0, extra)])
    index = np.arange(padded.shape[-1])
    added = (index[:, None] == index) & (index >= matrix.shape[-1])
    return jnp.where(added, 1, padded)


@cholesky.defjvp
def _cholesky_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    factor = cholesky(*primals)
    whiten = inverse(factor)
    change = 0.5 * (tangents[0] + jnp.swapaxes(tangents[0], -1, -2))
    inside = _product(_product(whiten, change), jnp.swapaxes(whiten, -1, -2))
    half = 0.5 * jnp.eye(factor.shape[-1], dtype=factor.dtype)
    return factor, _product(factor, jnp.tril(inside, -1) + half * inside)


@jax.custom_jvp
def triangular(root: Float[Array, "... D D"]) -> Float[Array, "... D D"]:
    """The lower triangular factor of R Rᵀ for a square root R of any shape, such as L reordered.

    By Gram-Schmidt on the rows, for the whole batch at once: R Rᵀ, whose condition is the square of
    R's, is never formed.
    """
    index = jnp.arange(root.shape[-1])

    def step(rest: Array, j: Array) -> tuple[Array, Array]:
        row = jnp.take(rest, j, -2)
        unit = row / jnp.sqrt(jnp.sum(row**2, -1, keepdims=True))
        column = jnp.where(index < j, 0, jnp.sum(rest * unit[..., None, :], -1))
        return rest - column[..., :, None] * unit[..., None, :], column

    return jnp.moveaxis(lax.scan(step, root, index)[1], 0, -1)


@triangular.defjvp
def _triangular_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    factor = triangular(*primals)
    whiten = inverse(factor)
    rotation = jnp.swapaxes(_product(whiten, primals[0]), -1, -2)
    half = _product(_product(whiten, tangents[0]), rotation)
    # Lower triangle of half + halfᵀ, with half of its diagonal.
    inside = jnp.tril(half) + jnp.tril(jnp.swapaxes(half, -1, -2), -1)
    return factor, _product(factor, inside)


def _product(a: Array, b: Array) -> Array:
    return jnp.einsum("...ij,...jk->...ik", a, b, precision=PRECISION)


def floored_cholesky(
    covariance: Float[Array, "... D D"], floor: Float[Array, ""]
) -> Float[Array, "... D D"]:
    """Factor of the covariance whose eigenvalues below `floor` are raised to it.

    That is the maximiser of a Gaussian's Q under Σ ⪰ floor·I.  It costs one more Cholesky
    factorisation when no eigenvalue is below: only then is there an eigen-decomposition.  NaN, and
    a singular covariance with floor 0, give NaN.
    """
    margin = floor * jnp.eye(covariance.shape[-1], dtype=covariance.dtype)
    lowered, factor = cholesky(jnp.stack([covariance - margin, covariance]))
    above = jnp.isfinite(_diagonal_sum(lowered))

    def raised() -> Array:
        values, vectors = jnp.linalg.eigh(covariance)
        values = jnp.where(values < floor, floor, values)
        # R of QR(√s Vᵀ) is the factor itself: a Cholesky of V s Vᵀ could fail at the floor.
        upper = jnp.linalg.qr(jnp.sqrt(values)[..., None] * jnp.swapaxes(vectors, -1, -2), mode="r")
        sign = jnp.where(jnp.diagonal(upper, axis1=-2, axis2=-1) < 0, -1, 1)
        lower = jnp.swapaxes(upper, -1, -2) * sign[..., None, :]
        return jnp.where(above[..., None, None], factor, lower)

    sound = jnp.all(above) | (floor == 0)
    void = jnp.any(jnp.isnan(covariance))
    return lax.cond(everywhere(sound, void), lambda: factor, raised)


def _diagonal_sum(factor: Array) -> Array:
    return jnp.sum(jnp.diagonal(factor, axis1=-2, axis2=-1), -1)


def cholesky_of(covariance: Any, what: str) -> Float[Array, "... D D"]:
    """Factor of a covariance that somebody typed in.

    Raises:
        ValueError: not symmetric, or not positive definite.
    """
    covariance = jnp.asarray(covariance)
    if covariance.ndim < 2 or covariance.shape[-1] != covariance.shape[-2]:
        raise ValueError(f"{what} must have shape [..., D, D], got {list(covariance.shape)}.")
    factor = cholesky(covariance)
    if not is_traced(factor):
        matrix = np.asarray(covariance)
        if not np.all(np.isfinite(matrix)):
            raise ValueError(f"{what} must be finite, got {matrix.tolist()}.")
        scale = np.abs(matrix).max() if matrix.size else 1.0
        transposed = np.swapaxes(matrix, -1, -2)
        close = partial(np.allclose, rtol=0, atol=1e-4 * scale)
        if not close(matrix, transposed):
            raise ValueError(f"{what} must be symmetric; it differs from its transpose.")
        if not np.all(np.isfinite(factor)):
            raise ValueError(f"{what} must be positive definite; a Cholesky factorisation failed.")
    return factor
