"""EM as a step along the natural gradient, and as a preconditioned gradient step.

In natural parameters η with mean parameters τ, ∇_η ℓ = Σ_k N_k (τ_k(θ′) − τ_k(θ)): the M-step moves
every block to where its expected statistics are (Sato 2001).  In the quantities of the textbooks,
Δθ = P(θ) ∇ℓ with a positive definite P (Xu & Jordan 1996, theorem 1).
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxem.comparison.certificate import Check, largest
from jaxem.comparison.coordinates import Arrays, bounded, floor_margin, is_known
from jaxem.comparison.lagrange import is_generalised
from jaxem.comparison.step import Part, Step
from jaxem.comparison.survey import PartSurvey, Survey
from jaxem.families.bernoulli import Bernoulli
from jaxem.families.categorical import Categorical
from jaxem.families.diagonal_gaussian import DiagonalGaussian
from jaxem.families.gaussian import Gaussian
from jaxem.families.poisson import Poisson
from jaxem.families.spherical_gaussian import SphericalGaussian
from jaxem.families.tied_gaussian import TiedGaussian


def check_natural_gradient(step: Step, survey: Survey) -> Iterator[Check]:
    """Both forms for every part."""
    for part, own in zip(step.parts, survey.parts, strict=True):
        natural, preconditioned = (
            f"{form}.{part.name}" if part.name else form for form in ("natural", "preconditioned")
        )
        kind = type(part.here).__name__
        why = _why_not(step, part)
        if why or own.natural is None:
            yield Check.not_applicable(
                natural, why or f"{kind} names no natural parameters: see `Exponential`"
            )
        else:
            yield _check_natural(step, part, natural, own)
        if why or own.preconditioned is None:
            yield Check.not_applicable(
                preconditioned, why or f"no preconditioner is known for {kind}"
            )
        else:
            yield _check_preconditioned(step, part, preconditioned, own)


def _why_not(step: Step, part: Part) -> str:
    if len(part.frozen) == len(part.quantities):
        return "it is frozen"
    if is_generalised(step, part):
        return "its M-step is a generalised one"
    for leaf, name in bounded(part.there).items():
        if np.any(floor_margin(name, part.quantities[leaf], step.floor) <= step.eps**0.5):
            return "a covariance is at its floor, so the step is a projected one"
    return ""


def _check_natural(step: Step, part: Part, name: str, own: PartSurvey) -> Check:
    """Compared after both sides have been pulled back to the leaves that are free.

    ∂η/∂leaf is invertible, so that loses nothing; and a covariance that members share, or a mean
    that is frozen, comes out right.
    """
    errors = []
    for name_of_leaf, leaf, ours, theirs in zip(
        part.quantities,
        *map(jax.tree.leaves, (part.here, own.gradient, own.natural)),
        strict=True,
    ):
        if name_of_leaf in part.frozen:
            continue
        residual = np.where(np.isfinite(leaf), np.asarray(ours, float) - theirs, 0)
        if name_of_leaf == "mean":
            residual = residual * _deviation(part.here, own.here)
        elif name_of_leaf == "log_cholesky" and is_known(part.here):
            rows, columns = np.tril_indices(part.here.mean.shape[-1])
            deviation = _deviation(part.here, own.here)[..., rows]
            residual = residual * np.where(rows == columns, 1, deviation).reshape(
                residual.shape if residual.ndim == 2 else (-1,)
            )
        errors.append(np.abs(residual))
    return Check.of(
        name,
        largest(*errors) / step.size,
        step.tolerance.identity,
        "∇ℓ in natural parameters = Σ_k N_k (τ_k(θ′) − τ_k(θ)), per observation",
    )


def _deviation(part: Any, quantities: Arrays) -> np.ndarray:
    """Standard deviations beside the means, [K, D] or [1, D]; 1 for a family of one's own."""
    if isinstance(part, Gaussian | TiedGaussian):
        variance = np.diagonal(quantities[1], axis1=-2, axis2=-1)
    elif isinstance(part, DiagonalGaussian):
        variance = quantities[1]
    elif isinstance(part, SphericalGaussian):
        variance = quantities[1][:, None]
    else:
        return np.ones(())
    return np.atleast_2d(np.asarray(variance, float) ** 0.5)


def _check_preconditioned(step: Step, part: Part, name: str, own: PartSurvey) -> Check:
    assert own.preconditioned is not None
    errors = []
    for leaf, before, after, guess, scale in zip(
        part.quantities,
        own.here,
        own.there,
        own.preconditioned,
        _scales(part.here, own.here),
        strict=True,
    ):
        if leaf in part.frozen:
            continue
        move = np.asarray(after, float) - before
        # What few observations say is known to fewer digits.
        size = scale + np.abs(move)
        relative = np.abs(move - guess) / np.where(size > 0, size, 1)
        error = relative * _weight(part, move) / step.size
        errors.append(error)
    return Check.of(
        name,
        largest(*errors),
        step.tolerance.identity,
        "Δθ = P(θ) ∇ℓ with Xu and Jordan's P, relative to the parameters' own size",
    )


def _weight(part: Part, move: np.ndarray) -> np.ndarray:
    counts = np.asarray(part.counts, float)
    if move.shape[: counts.ndim] != counts.shape:
        return counts.sum()
    return counts.reshape(*counts.shape, *[1] * (move.ndim - counts.ndim))


def _scales(part: Any, quantities: Arrays) -> tuple[Any, ...]:
    """A natural size of every quantity."""
    if isinstance(part, Categorical | Bernoulli):
        return (1.0,)
    if isinstance(part, Poisson):
        rate = np.asarray(quantities[0], float)
        return (rate + rate**0.5,)
    deviation = _deviation(part, quantities)
    if isinstance(part, Gaussian | TiedGaussian):
        square = deviation[:, :, None] * deviation[:, None, :]
        return deviation, square if isinstance(part, Gaussian) else square[0]
    return deviation, np.asarray(quantities[1], float)
