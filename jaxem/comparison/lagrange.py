"""The Lagrangian of Q at θ′: stationarity, multipliers, feasibility, complementarity.

L = Q + Σ_i λ_i (Σ_j p_ij − 1) + tr Ψ(Σ − εI), in the coordinates of the textbooks.  At a maximum
∂Q/∂p_ij = −λ_i wherever p_ij > 0 and at most that where p_ij = 0; the gradient of every mean and
rate is 0; that of a covariance is −Ψ, Ψ ⪰ 0 with support on the floor alone.
Bishop (2006) appendix E, 9.20-9.22; Karush (1939), Kuhn & Tucker (1951).
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxem import chain
from jaxem.comparison.certificate import Check, largest
from jaxem.comparison.coordinates import (
    bounded,
    coordinates_of,
    floor_margin,
    floor_slack,
    is_known,
)
from jaxem.comparison.curvature import Curvature
from jaxem.comparison.parts import at
from jaxem.comparison.step import Part, Step
from jaxem.comparison.survey import PartSurvey, Survey
from jaxem.data import Chunks
from jaxem.families.categorical import Categorical
from jaxem.families.mixture_family import MixtureFamily
from jaxem.hmm import HMM
from jaxem.mixture import Mixture
from jaxem.stationary import Stationary

GENERALISED = (
    "the start is the stationary distribution of this table, so the M-step has no closed form and "
    "promises only that Q does not fall (see ascent.q)"
)


def check_lagrange(step: Step, survey: Survey, curvature: Curvature) -> Iterator[Check]:
    """The checks of every part that is not frozen."""
    for part, own in zip(step.parts, survey.parts, strict=True):
        name = f"lagrange.{part.name}" if part.name else "lagrange"
        if len(part.frozen) == len(part.quantities):
            yield Check.not_applicable(name, "it is frozen, so there is nothing to maximise")
        elif is_generalised(step, part):
            yield Check.not_applicable(name, GENERALISED)
        elif isinstance(part.there, Categorical):
            expected = theory(step, part)
            yield from _check_table(step, part, name, own, expected)
        elif is_known(part.there):
            yield from _check_family(step, part, name, own.whitened_there)
        else:
            yield _check_leaves(step, part, name, survey.gradient_there, curvature)


def is_generalised(step: Step, part: Part) -> bool:
    """Whether this part has no closed-form M-step."""
    model = step.model
    return (
        isinstance(model, HMM)
        and isinstance(model.initial, Stationary)
        and part.name == "transition"
        and not part.frozen
    )


def _check_table(
    step: Step, part: Part, name: str, own: PartSurvey, theory: np.ndarray
) -> Iterator[Check]:
    """One multiplier a row."""
    gradient = np.asarray(own.slopes_there[0], float)
    tolerance = step.tolerance.stationarity * step.size
    probs = np.asarray(own.there[0], float)
    counts = np.asarray(part.stats, float)
    speaks = counts.sum(-1) != 0  # a row without counts keeps its probabilities: no condition on it
    held = probs > 0
    recovered = -(probs * gradient).sum(-1)  # Σ_j p_j (∂Q/∂p_j + λ) = 0
    residual = np.where(held & speaks[..., None], gradient + recovered[..., None], 0)
    expected = np.where(speaks, theory, 0)
    yield Check.of(
        name,
        largest(np.abs(residual)),
        tolerance,
        "∂Q/∂p = -λ wherever p > 0, one λ a row",
        multipliers=recovered,
    )
    yield Check.of(
        name + ".multiplier",
        largest(np.abs(recovered - expected)),
        tolerance,
        "λ recovered from the gradient is minus the expected count of its row",
        recovered=recovered,
        theory=expected,
    )
    excess = largest(np.abs(probs.sum(-1) - 1), -probs)
    yield Check.of(
        name + ".feasible", excess, probs.shape[-1] * 8 * step.eps, "p ≥ 0 and Σ p = 1 in every row"
    )
    zeros = ~held & speaks[..., None]
    if not zeros.any():
        yield Check.not_applicable(name + ".zeros", "no probability is 0")
        return
    # At a zero the multiplier of p >= 0 is -λ - ∂Q/∂p; without a count ∂Q/∂p is 0 there.
    inequality = np.where(zeros, -recovered[..., None] - gradient, 0)
    violation = largest(-inequality, np.where(zeros, counts, 0))
    yield Check.of(
        name + ".zeros",
        violation,
        tolerance,
        "nothing was counted where p = 0, and the multiplier of p ≥ 0 is not negative",
        multipliers=inequality[zeros],
    )


def theory(step: Step, part: Part) -> np.ndarray:
    """What λ ought to be: minus how often the row's choice was made, not by the row's own counts.

    -N for a mixture's weights, -E for an HMM's start, minus the expected exits from each state for
    its transitions, minus the observations of each state for tables inside the emissions.
    """
    model, data = step.model, step.data
    if isinstance(model, Mixture) and part.name == "weights":
        choices = _total_weight(data)
    elif isinstance(model, HMM) and part.name == "initial":
        there = jnp.ones(data.num_sequences)
        there = there if data.lengths is None else there * (data.lengths > 0)
        choices = np.sum(np.asarray(data.weighted(there)))
    elif isinstance(model, HMM) and part.name == "transition":
        choices = _exits(step)
    else:
        parent, _, last = part.name.rpartition(".")
        inside = last == "weights" and isinstance(at(model, parent), MixtureFamily)
        choices = _observations(step, parent if inside else part.name)
    pretended = np.asarray(part.stats, float) - np.asarray(at(step.stats, part.name), float)
    rows = pretended.sum(-1)
    choices = np.asarray(choices)
    # A member makes as many in every column of its rows.
    columns = tuple(range(choices.ndim, rows.ndim))
    return -(np.expand_dims(choices, columns) + rows)


def _observations(step: Step, name: str) -> np.ndarray:
    """How many observations each member of a family explains."""
    parent, _, last = name.rpartition(".")
    if last == "components" and isinstance(at(step.model, parent), MixtureFamily):
        return np.asarray(at(step.stats, parent).weights, float).ravel()
    return step.counts


def _total_weight(rows: Chunks) -> float:
    return rows.num_rows if rows.weight is None else float(np.sum(np.asarray(rows.weight, float)))


def _exits(step: Step) -> np.ndarray:
    """Expected moves away from each state: the visits to it less those that end a sequence.

    Visits are first states and arrivals, the columns of the expected moves where λ is their rows.
    """
    model, data = step.model, step.data
    initial, moves = (
        np.asarray(part, float) for part in (step.stats.initial, step.stats.transition)
    )
    ends = np.asarray(_last_states(model, data), float)
    if model.is_homogeneous:
        return initial + moves.sum(0) - ends.sum(0)
    visits = np.concatenate([initial[None], moves.sum(1)])[:-1]
    last = np.full(len(ends), data.num_steps) if data.lengths is None else np.asarray(data.lengths)
    for end, length in zip(ends, last, strict=True):
        if 0 < length < data.num_steps:
            visits[length - 1] -= end
    return visits


@jax.jit
def _last_states(model: HMM, data: Any) -> Array:
    """p(z_T | x) of every sequence, times its weight, 0 for one of length 0; [B, K]."""
    filtered = data.weighted(chain.filter(model.potentials(data), data.lengths).filtered)
    if data.lengths is None:
        return filtered[:, -1]
    last = jnp.take_along_axis(filtered, jnp.maximum(data.lengths - 1, 0)[:, None, None], 1)[:, 0]
    return jnp.where((data.lengths > 0)[:, None], last, 0)


def _check_family(step: Step, part: Part, name: str, whitened: Any) -> Iterator[Check]:
    """Means, covariances, probabilities and rates: no equality constraint, perhaps a floor."""
    tolerance = step.tolerance.stationarity * step.size
    facts, floored = {}, None
    names = coordinates_of(part.there).names
    for leaf, quantity, own in zip(part.quantities, names, whitened, strict=True):
        if leaf in part.frozen:
            continue
        multiplier = -np.asarray(own, float)
        if leaf in bounded(part.there):
            value = part.quantities[leaf]
            slack = floor_slack(quantity, value, step.floor)
            matrix = quantity == "covariance"
            residual = np.matmul(multiplier, slack) if matrix else multiplier * slack
            margin = np.asarray(floor_margin(quantity, value, step.floor))
            floored = multiplier, np.linalg.eigvalsh(multiplier) if matrix else multiplier, margin
        else:
            residual = multiplier
        facts[quantity] = largest(np.abs(residual))
    yield Check.of(
        name,
        largest(*facts.values()),
        tolerance,
        f"∂Q/∂({', '.join(facts)}) = 0, but for what a floor holds up",
        **facts,
    )
    if floored is None:
        return
    multiplier, eigenvalues, margin = floored
    held = margin <= step.eps**0.5
    if not held.any():
        yield Check.not_applicable(name + ".floor", "no covariance is at the floor")
        return
    yield Check.of(
        name + ".floor",
        largest(-eigenvalues, -step.size * margin),
        tolerance,
        f"Σ ⪰ {step.floor:.3g}·I, and its multiplier Ψ is positive semidefinite",
        held=np.flatnonzero(held),
        multiplier=multiplier[held] if np.ndim(held) else multiplier,
    )


def _check_leaves(
    step: Step, part: Part, name: str, slope: np.ndarray, curvature: Curvature
) -> Check:
    """A family that is not in the table of coordinates: the gradient in its own leaves."""
    own = curvature.layout.part == step.parts.index(part)
    gradient = np.where(curvature.layout.interior, slope, 0)[own]
    return Check.of(
        name,
        largest(np.abs(gradient * curvature.unit[own])),
        step.tolerance.stationarity * step.size,
        "∂Q = 0 in every leaf, in standard deviations of one observation",
        gradient=gradient,
    )
