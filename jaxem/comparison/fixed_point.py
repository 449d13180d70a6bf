"""At a fixed point of EM: how fast it converges there, and what kind of stationary point it is.

The Jacobian of the EM map is DM = I − I_c⁻¹ I_obs, the fraction of information that is missing: its
spectral radius is the rate of convergence.  Below 1 the point is a strict local maximum, above 1 a
saddle that EM leaves as soon as rounding lets it.
Dempster, Laird & Rubin (1977) 3.15-3.16; Meng & Rubin (1991).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxem import parameters
from jaxem.comparison import derivatives
from jaxem.comparison.certificate import Check
from jaxem.comparison.curvature import LANCZOS_STEPS, Curvature, largest_eigenvalue, without_null
from jaxem.comparison.lagrange import is_generalised
from jaxem.comparison.lanczos import lanczos
from jaxem.comparison.step import Step
from jaxem.comparison.survey import Survey
from jaxem.families.categorical import Categorical

NAMES = ("fixed_point.jacobian", "fixed_point.maximum")
DRIFT = 0.01  # a move of a logit, or of a mean in standard deviations, that counts as none
DENSE_WORK = 2e7  # parameters times observations up to which whole Jacobians are formed
MAXIMUM, SADDLE, UNIDENTIFIED = "maximum", "saddle", "not identified"


@dataclass(frozen=True)
class Convergence:
    """What the derivative of the EM map says."""

    rate: float  # the spectral radius of DM
    discrepancy: float  # between DM and I − I_c⁻¹ I_obs, in an orthonormal basis of the I_c metric
    slack: float  # by how much standing a little beside the fixed point may change them
    eigenvalues: np.ndarray  # of DM, ascending; all of them, or Ritz values


def check_fixed_point(step: Step, survey: Survey, curvature: Curvature) -> Iterator[Check]:
    """The Jacobian, and the kind of the point."""
    why = why_not(step, survey, curvature)
    if why:
        for name in NAMES:
            yield Check.not_applicable(name, why)
        return
    found = convergence(step, curvature)
    tolerance = step.tolerance.jacobian + found.slack
    facts = {"rate": found.rate, "eigenvalues": found.eigenvalues}
    yield Check.of(
        NAMES[0],
        found.discrepancy,
        tolerance,
        "the Jacobian of the EM map = I − I_c⁻¹ I_obs, each by autodiff",
        **facts,
    )
    kind = kind_of(found.rate, tolerance)
    if kind == UNIDENTIFIED:
        number = int(np.sum(np.abs(found.eigenvalues - 1) <= tolerance))
        yield Check.not_applicable(
            NAMES[1],
            f"not identified: the rate of convergence is 1 in {number} directions, where second "
            "derivatives cannot tell a maximum",
            kind=kind,
            **facts,
        )
        return
    yield Check.of(
        NAMES[1],
        found.rate,
        1 - tolerance,
        f"rate of convergence {found.rate:.6g}: a strict local {MAXIMUM}"
        if kind == MAXIMUM
        else f"rate of convergence {found.rate:.6g}: a {SADDLE}, or worse",
        kind=kind,
        **facts,
    )


def kind_of(rate: float, tolerance: float) -> str:
    """Maximum, saddle or not identified, from the rate of convergence."""
    if abs(rate - 1) <= tolerance:
        return UNIDENTIFIED
    return MAXIMUM if rate < 1 else SADDLE


def _smallest_curvature(step: Step, curvature: Curvature) -> float:
    """The smallest eigenvalue of −∇²Q, its diagonal scaled to 1; infinite where nobody knows."""
    identified = curvature.layout.identified
    if curvature.hessian is None:
        return np.inf
    return -largest_eigenvalue(curvature.hessian[np.ix_(identified, identified)])


def slack_of(step: Step, curvature: Curvature) -> float:
    """By how much second derivatives may differ between θ and θ′, relative to themselves."""
    return 4 * float(np.max(np.abs(next_move(step, curvature)) / curvature.unit, initial=0))


def next_move(step: Step, curvature: Curvature) -> np.ndarray:
    """How far the step went, in leaves."""
    move = np.asarray(parameters.ravel(step.proposal), float)
    move = np.where(curvature.layout.interior, move, 0)
    here = np.where(curvature.layout.interior, np.asarray(parameters.ravel(step.model), float), 0)
    return without_null(curvature.layout, move - here)


def why_not(step: Step, survey: Survey, curvature: Curvature) -> str:
    """Why nothing can be said of a fixed point here; nothing if something can."""
    if any(is_generalised(step, part) for part in step.parts):
        return "the M-step is a generalised one, whose map has no derivative of this form"
    if not len(curvature.layout.identified):
        return "no parameter is free"
    if not _smallest_curvature(step, curvature) > step.tolerance.curvature:
        return "not even complete data identify all leaves (see second_order)"
    move = next_move(step, curvature)
    distance, allowed = curvature.distance(move), step.tolerance.fixed
    if not distance <= allowed:
        return (
            f"not at a fixed point: the step is {distance:.3g} complete-data standard errors long "
            f"(at most {allowed:g})"
        )
    # Few observations can leave a parameter free to drift: towards a probability of 0, say.
    units = np.abs(move) / curvature.unit
    if not np.max(units) <= DRIFT:
        name = curvature.layout.names[int(np.argmax(units))]
        return f"not at a fixed point: {name} still moves, by {move[np.argmax(units)]:.3g} a step"
    return _growing(step, survey, curvature)


def _growing(step: Step, survey: Survey, curvature: Curvature) -> str:
    """A probability near 0 that is on its way up: p_j ← p_j (∂ℓ/∂p_j) / N, a factor above 1."""
    for index, (part, own) in enumerate(zip(step.parts, survey.parts, strict=True)):
        if not isinstance(part.here, Categorical) or part.frozen:
            continue
        probs, slopes = (np.asarray(value[0], float) for value in (own.here, own.slopes))
        total = np.sum(probs * slopes, -1, keepdims=True)
        factor = np.where(total > 0, slopes / np.where(total > 0, total, 1), 0)
        inside = curvature.layout.interior[curvature.layout.part == index].reshape(probs.shape)
        grows = ~inside & (probs > 0) & (factor > 1 + DRIFT)
        if grows.any():
            place = ",".join(str(i) for i in np.argwhere(grows)[0])
            return (
                f"not at a fixed point: {part.name}.probs[{place}] is nearly 0 but grows by a "
                f"factor of {factor[tuple(np.argwhere(grows)[0])]:.4g} a step"
            )
    return ""


def convergence(step: Step, curvature: Curvature) -> Convergence:
    """The eigenvalues of DM, and DM against I − I_c⁻¹ I_obs."""
    identified = curvature.layout.identified
    slack = slack_of(step, curvature)
    if curvature.hessian is None or len(identified) * step.size > DENSE_WORK:
        return _by_lanczos(step, curvature, slack)
    complete = -curvature.hessian[np.ix_(identified, identified)]
    factor = np.linalg.cholesky(complete)
    free = jnp.asarray(curvature.layout.interior)
    rows = jnp.asarray(directions(curvature, against_reference=True), step.dtype)
    args = step.model, free, step.data, step.prior
    jacobian = np.asarray(derivatives.em_jacobian(*args, step.frozen, rows), float)[:, identified]
    plain = jnp.asarray(directions(curvature), step.dtype)
    observed = -np.asarray(derivatives.log_likelihood_hessian(*args, plain), float)[:, identified]
    whole = np.linalg.solve(factor, np.dot(complete, jacobian)).T
    whole = np.linalg.solve(factor, whole).T  # L⁻¹ I_c DM L⁻ᵀ, symmetric at a fixed point
    share = np.linalg.solve(factor, np.linalg.solve(factor, 0.5 * (observed + observed.T)).T)
    values = np.linalg.eigvalsh(0.5 * (whole + whole.T))
    discrepancy = np.max(np.abs(whole - (np.eye(len(share)) - share)))
    return Convergence(float(np.abs(values).max()), float(discrepancy), slack, values)


def directions(curvature: Curvature, against_reference: bool = False) -> np.ndarray:
    """A unit vector for each identified entry; less that of the logit it is measured against."""
    identified = curvature.layout.identified
    rows = np.zeros((len(identified), len(curvature.unit)))
    rows[np.arange(len(identified)), identified] = 1
    if against_reference:
        reference = curvature.layout.reference[identified]
        held = reference >= 0
        rows[np.flatnonzero(held), reference[held]] = -1
    return rows


def _by_lanczos(step: Step, curvature: Curvature, slack: float) -> Convergence:
    """In the metric of the complete-data information, where DM is self-adjoint."""
    layout = curvature.layout
    identified = layout.identified
    args = step.model, jnp.asarray(layout.interior), step.data, step.prior

    def spread_out(vector: np.ndarray) -> jnp.ndarray:
        whole = np.zeros(len(curvature.unit))
        whole[identified] = vector
        return jnp.asarray(whole, step.dtype)

    def complete(vector: np.ndarray) -> np.ndarray:
        return -curvature.product(np.asarray(spread_out(vector), float))[identified]

    def product(vector: np.ndarray) -> np.ndarray:
        image = derivatives.em_tangent(*args, step.frozen, spread_out(vector))
        return without_null(layout, np.asarray(image, float))[identified]

    def observed(vector: np.ndarray) -> np.ndarray:
        rows = derivatives.log_likelihood_hessian(*args, spread_out(vector)[None])
        return -np.asarray(rows, float)[0, identified]

    rng = np.random.default_rng(0)
    scale = curvature.standard_error[identified]
    start = scale * rng.normal(size=len(identified))
    ritz = lanczos(product, start, inner=complete, num_steps=LANCZOS_STEPS)
    length = np.sqrt(np.dot(start, complete(start)))
    image = product(start / length)
    difference = complete(image) - (complete(start) - observed(start)) / length
    discrepancy = np.max(np.abs(difference * scale))
    rate = float(np.abs(ritz.values).max())
    return Convergence(rate, float(discrepancy), slack, ritz.values)
