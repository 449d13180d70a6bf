"""Extreme eigenvalues of an operator that is known only by its products with vectors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxem.pytree import pytree

Product = Callable[[Float[np.ndarray, " P"]], Any]

RESOLUTION = 100  # a new direction shorter than so many ε of the operator's scale is rounding


@pytree
class Ritz:
    """What m steps of Lanczos tell about the eigenvalues of an operator."""

    values: Float[np.ndarray, " m"]  # ascending; the outermost approach eigenvalues first
    residuals: Float[np.ndarray, " m"]  # within so much of each of them there is an eigenvalue
    exhausted: Bool[np.ndarray, ""]  # whether the Krylov space was: the values are then eigenvalues


def lanczos(
    product: Product,
    start: Float[np.ndarray, " P"],
    *,
    inner: Product | None = None,
    num_steps: int,
) -> Ritz:
    """Ritz values of a self-adjoint operator in the Krylov space of `start`.

    `product` takes a vector [P] to its image; it must be self-adjoint in the inner product
    ⟨a, b⟩ = inner(a) · b, the ordinary one by default.  `inner` must be symmetric and positive
    semi-definite: what it sends to 0 counts as nothing.  There are at most `num_steps` values, and
    fewer where the Krylov space is exhausted: an invariant subspace is found.  An eigenvalue is
    seen once, whatever its multiplicity, and only if `start` has a component along it; a null
    space is kept out by a `product` whose images have no component in it and a `start` that has
    none either.  Nothing is random: the same start gives the same values.

    The vectors live on the host and are orthogonalised against all before them, O(P m) memory and
    O(P m²) time; their length is judged by the dtype of what `product` returns.

    Lanczos (1950); Parlett (1998), The Symmetric Eigenvalue Problem, chapter 13.

    Raises:
        ValueError: `start` has length 0 in that inner product, `num_steps` is not positive, or a
            product is not finite.

    Examples:
        >>> import numpy as np
        >>> matrix = np.diag([1.0, 2.0, 5.0])
        >>> ritz = lanczos(lambda vector: matrix.dot(vector), np.ones(3), num_steps=10)
        >>> print(ritz.values.round(6), bool(ritz.exhausted))
        [1. 2. 5.] True
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    vector = np.asarray(start, float)
    image, _ = _apply(inner, vector)
    length = _length(vector, image)
    if length == 0:
        raise ValueError("start has length 0 in the inner product; pass another one.")
    basis, duals = [], []  # q and M q
    diagonal, beside = np.zeros(0), np.zeros(0)  # of the tridiagonal matrix
    exhausted = False
    while not exhausted and len(basis) < num_steps:
        basis.append(vector / length)
        duals.append(image / length)
        vector, rounding = _apply(product, basis[-1])
        diagonal = np.append(diagonal, np.dot(duals[-1], vector))
        for _ in range(2):  # the second time removes what rounding left the first time
            for one, dual in zip(basis, duals, strict=True):
                vector = vector - np.dot(dual, vector) * one
        image, _ = _apply(inner, vector)
        length = _length(vector, image)
        beside = np.append(beside, length)
        scale = max(np.abs(diagonal).max(), beside.max())
        exhausted = len(basis) == len(vector) or length <= RESOLUTION * rounding * scale
    inside = beside[:-1]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(inside, 1) + np.diag(inside, -1))
    return Ritz(values, beside[-1] * np.abs(vectors[-1]), np.asarray(exhausted))


def _apply(function: Product | None, vector: np.ndarray) -> tuple[np.ndarray, float]:
    """The image of a vector (None is the identity), and the ε of the dtype it was computed in."""
    image = vector if function is None else np.asarray(function(vector))
    if not np.all(np.isfinite(image)):
        raise ValueError("a product is not finite; the operator is not defined at this point.")
    kind = image.dtype if image.dtype.kind == "f" else vector.dtype
    return np.asarray(image, float), float(np.finfo(kind).eps)


def _length(vector: np.ndarray, image: np.ndarray) -> float:
    # In a null direction of a semi-definite inner product the square is rounding, of any sign.
    return float(np.sqrt(max(np.dot(image, vector), 0.0)))
