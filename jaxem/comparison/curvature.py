"""Second derivatives of Q at θ′: negative definite, but for what changes no probability.

In probability coordinates on the tangent of the constraints; and in softmax coordinates, where one
direction a row of logits is null.  Up to `DENSE` parameters by the whole Hessian, above by Lanczos.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from jaxem import parameters
from jaxem.comparison import objective
from jaxem.comparison.certificate import Check, largest
from jaxem.comparison.coordinates import coordinates_of, is_known
from jaxem.comparison.lanczos import lanczos
from jaxem.comparison.layout import Layout, lay_out
from jaxem.comparison.step import Step
from jaxem.families.categorical import Categorical

DENSE = 1000  # parameters, up to which whole Hessians are formed
PROBES = 32  # random vectors in an estimate of a diagonal too long to compute
LANCZOS_STEPS = 40


@dataclass(frozen=True)
class Curvature:
    """The Hessian of Q in the leaves of θ′, and the unit of each leaf entry."""

    layout: Layout
    hessian: np.ndarray | None  # [P, P]; None when there are too many parameters
    product: Callable[[np.ndarray], np.ndarray]  # the Hessian times a vector [P]
    unit: np.ndarray  # [P] a standard deviation of one observation; 1 for logits and log-rates

    @property
    def standard_error(self) -> np.ndarray:
        """What complete data would leave uncertain of each entry, were it the only one; [P]."""
        layout = self.layout
        counts = np.where(layout.dimensionless, layout.spread, layout.counts)
        return np.where(counts > 0, self.unit / np.sqrt(np.where(counts > 0, counts, 1)), 0)

    def distance(self, step: np.ndarray) -> float:
        """√(-sᵀHs): the length of a change of leaves in complete-data standard errors."""
        return float(np.sqrt(np.maximum(0, -np.dot(step, self.product(step)))))


def curvature_of(step: Step) -> Curvature:
    """The curvature of Q at θ′."""
    layout = lay_out(step)
    free = jnp.asarray(layout.free)
    args = (step.anchor, step.total, step.proposal, free)
    few = len(layout.free) <= DENSE
    hessian = np.asarray(_hessian(*args), float) if few else None

    def product(vector: np.ndarray) -> np.ndarray:
        if hessian is not None:
            return np.dot(hessian, vector)
        return np.asarray(_product(*args, jnp.asarray(vector, step.dtype)), float)

    if hessian is not None:
        diagonal = -np.diag(hessian)
    else:
        diagonal = -_estimated_diagonal(product, len(layout.free))
    diagonal = np.where(layout.free, diagonal, 0)
    known = (diagonal > 0) & ~layout.dimensionless
    unit = np.sqrt(np.where(known, layout.counts / np.where(known, diagonal, 1), 1))
    return Curvature(layout, hessian, product, unit)


def without_null(layout: Layout, move: np.ndarray) -> np.ndarray:
    """A change of leaves less what adds a constant to a row of logits; 0 where not interior."""
    in_row = layout.reference >= 0
    shift = np.where(in_row, move[np.where(in_row, layout.reference, 0)], 0)
    return np.where(layout.interior, move - shift, 0)


def q_of_leaves(anchor: Any, total: Any, candidate: Any, free: Array, vector: Array) -> Array:
    """Q as a function of the free leaf entries; the others stay as the candidate has them."""
    return anchor.expected_log_prob(total, objective.at_leaves(candidate, free, vector))


def _start(candidate: Any, free: Array) -> Array:
    return jnp.where(free, parameters.ravel(candidate), 0)


@jax.jit
def _hessian(anchor: Any, total: Any, candidate: Any, free: Array) -> Array:
    function = partial(q_of_leaves, anchor, total, candidate, free)
    return jax.hessian(function)(_start(candidate, free))


@jax.jit
def _product(anchor: Any, total: Any, candidate: Any, free: Array, vector: Array) -> Array:
    function = partial(q_of_leaves, anchor, total, candidate, free)
    start = _start(candidate, free)
    return jax.jvp(jax.grad(function), (start,), (vector,))[1]


@jax.jit
def _hessian_in_quantities(anchor: Any, total: Any, candidate: Any) -> Array:
    """Of Q in the quantities of the textbooks, raveled part by part."""
    start, back = ravel_pytree(objective.quantities(candidate))

    def function(vector: Array) -> Array:
        return anchor.expected_log_prob(total, objective.at_quantities(candidate, back(vector)))

    return jax.hessian(function)(start)


def _estimated_diagonal(product: Callable[[np.ndarray], np.ndarray], size: int) -> np.ndarray:
    """By random signs (Bekas, Kokiopoulou & Saad 2007): only ever used as a unit of length."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (PROBES, size))
    return np.mean([sign * product(sign) for sign in signs], 0)


def check_curvature(step: Step, curvature: Curvature) -> Iterator[Check]:
    """Both Hessians."""
    layout, tolerance = curvature.layout, step.tolerance.curvature
    identified = layout.identified
    if not len(identified):
        why = "no parameter is free"
        yield Check.not_applicable("second_order.constrained", why)
        yield Check.not_applicable("second_order.softmax", why)
        return
    if curvature.hessian is None:
        yield Check.not_applicable(
            "second_order.constrained", f"more than {DENSE} parameters; see second_order.softmax"
        )
    else:
        # Waited for at once: two programs with factorisations at a time have been seen to block
        # each other for ever on a CPU with few cores (jaxlib 0.10).
        whole = np.asarray(_hessian_in_quantities(step.anchor, step.total, step.proposal), float)
        basis = _tangent(step, layout)
        used = basis.any(0)  # a probability near 0 is not, and its 1/p² may be infinite
        whole, basis = whole[np.ix_(used, used)], basis[:, used]
        yield _check_concave(
            step,
            "second_order.constrained",
            largest_eigenvalue(np.linalg.multi_dot([basis, whole, basis.T])),
            "largest eigenvalue of the Hessian of Q on the tangent of the constraints, each "
            "diagonal entry scaled to -1: Q is strictly concave there",
            dimension=len(basis),
        )
    flattest = (
        _largest_ritz_value(curvature, identified)
        if curvature.hessian is None
        else largest_eigenvalue(curvature.hessian[np.ix_(identified, identified)])
    )
    yield _check_concave(
        step,
        "second_order.softmax",
        flattest,
        "the same in logits and other leaves, with one logit a row held fixed",
        dimension=len(identified),
    )
    yield _check_null_space(step, curvature, tolerance)


def _check_concave(step: Step, name: str, eigenvalue: float, meaning: str, dimension: int) -> Check:
    """A negative largest eigenvalue; a family of one's own may have leaves that change nothing."""
    tolerance = step.tolerance.curvature
    own = [type(part.here).__name__ for part in step.parts if not is_known(part.here)]
    if own and abs(eigenvalue) <= tolerance:
        return Check.not_applicable(
            name,
            f"Q is flat in some direction: leaves of {own[0]} may be redundant",
            dimension=dimension,
        )
    return Check.of(name, eigenvalue, -tolerance, meaning, dimension=dimension)


def _check_null_space(step: Step, curvature: Curvature, tolerance: float) -> Check:
    name = "second_order.null"
    rows = [row for row in curvature.layout.rows if len(row)]
    if not rows:
        return Check.not_applicable(name, "there are no logits, and so no null direction")
    images = []
    for row in rows:
        ones = np.zeros(len(curvature.unit))
        ones[row] = 1
        images.append(np.abs(curvature.product(ones)))
    return Check.of(
        name,
        largest(*images) / step.size,
        tolerance,
        f"adding a constant to a row of logits changes nothing: with the line above, exactly "
        f"{len(rows)} null directions",
        nullity=len(rows),
    )


def largest_eigenvalue(matrix: np.ndarray) -> float:
    """Of a symmetric matrix whose diagonal has been scaled to ±1; NaN stays."""
    if not np.all(np.isfinite(matrix)):
        return np.nan
    diagonal = np.abs(np.diag(matrix))
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    return float(np.linalg.eigvalsh(scale[:, None] * matrix * scale).max())


def _largest_ritz_value(curvature: Curvature, identified: np.ndarray) -> float:
    """By Lanczos on the identified entries, in their complete-data standard errors."""
    scale = curvature.standard_error[identified]

    def product(vector: np.ndarray) -> np.ndarray:
        whole = np.zeros(len(curvature.unit))
        whole[identified] = scale * vector
        return scale * curvature.product(whole)[identified]

    start = np.random.default_rng(0).normal(size=len(identified))
    return float(lanczos(product, start, num_steps=LANCZOS_STEPS).values[-1])


def _tangent(step: Step, layout: Layout) -> np.ndarray:
    """Rows that span the directions the constraints leave free; [directions, quantities].

    Of a row of probabilities δ_j − δ_largest, of a covariance the symmetric directions.
    """
    rows: list[np.ndarray] = []
    pieces = step.quantities
    total = sum(np.size(piece) for own in pieces for piece in own)
    start, leaf_start = 0, 0
    for part, own in zip(step.parts, pieces, strict=True):
        leaves = jax.tree.leaves(part.there)
        covariance = part.quantities.get("log_cholesky")
        factor = None if covariance is None else np.linalg.cholesky(np.asarray(covariance, float))
        for name, quantity, leaf in zip(coordinates_of(part.there).names, own, leaves, strict=True):
            inside = layout.interior[leaf_start : leaf_start + leaf.size]
            reference = layout.reference[leaf_start : leaf_start + leaf.size] - leaf_start
            for entry in np.flatnonzero(inside):
                direction = np.zeros(np.shape(quantity))
                if isinstance(part.there, Categorical):
                    if reference[entry] == entry:
                        continue
                    direction.flat[[entry, reference[entry]]] = 1, -1
                elif factor is None:
                    direction.flat[entry] = 1
                else:
                    _place(direction, factor, name, int(entry))
                row = np.zeros(total)
                row[start : start + quantity.size] = direction.ravel()
                rows.append(row)
            start += quantity.size
            leaf_start += leaf.size
    return np.array(rows).reshape(-1, total)


def _place(direction: np.ndarray, factor: np.ndarray, name: str, entry: int) -> None:
    """L e for a mean, L (e_i e_jᵀ + e_j e_iᵀ) Lᵀ for a covariance: in these Q is nearly round."""
    size = factor.shape[-1]
    if name == "mean":
        member, i = divmod(entry, size)
        own = factor[member] if factor.ndim == 3 else factor
        direction[member] = own[:, i]
        return
    i, j = np.tril_indices(size)
    member, place = divmod(entry, len(i))
    own = factor[member] if factor.ndim == 3 else factor
    outer = np.outer(own[:, i[place]], own[:, j[place]])
    target = direction[member] if factor.ndim == 3 else direction
    target += outer + outer.T
