"""Q maximised by gradients under the softmax reparameterisation, beside the closed form's one step.

A `Categorical` is stored as logits, a covariance as a log-Cholesky factor, a rate as its log: every
real vector of leaves is a model, so an optimiser needs no constraint.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxem import parameters
from jaxem.comparison import ascent
from jaxem.comparison.certificate import Check, largest
from jaxem.comparison.curvature import Curvature, q_of_leaves, without_null
from jaxem.comparison.lagrange import is_generalised
from jaxem.comparison.step import Part, Step, m_step
from jaxem.comparison.survey import PartSurvey, Survey
from jaxem.families.categorical import Categorical
from jaxem.semiring import PRECISION

METHODS: dict[str, tuple[Callable[..., ascent.Ascent], int]] = {  # and the most steps of each
    "adam": (ascent.adam, 4000),
    "lbfgs": (ascent.lbfgs, 2000),
    "newton": (ascent.newton, 200),
}
TOLERANCE = 0.75  # ε to this power is a gradient as good as 0, per observation
TIMES = 5  # an M-step is timed as the median of so many


def random_leaves(
    step: Step, curvature: Curvature, key: Array, num_starts: int
) -> Float[Array, "S P"]:
    """Leaves at random about θ, a standard deviation of one observation away."""
    unit = jnp.asarray(np.where(curvature.layout.interior, curvature.unit, 0), step.dtype)
    return jax.block_until_ready(_scatter(step.model, unit, key, num_starts))


@partial(jax.jit, static_argnames="num_starts")
def _scatter(model: Any, unit: Array, key: Array, num_starts: int) -> Array:
    noise = jax.random.normal(key, (num_starts, len(unit)), unit.dtype)
    return parameters.ravel(model) + unit * noise


def check_softmax(
    step: Step, survey: Survey, curvature: Curvature, starts: Float[Array, "S P"]
) -> Iterator[Check]:
    """Each optimiser from all starts at once."""
    layout = curvature.layout
    why = _why_not(step, layout.interior)
    if why:
        for name in METHODS:
            yield Check.not_applicable(f"softmax.{name}", why)
        return
    seconds = _time(lambda: m_step(step.anchor, step.stats, step.prior, step.frozen))
    there = np.where(layout.interior, np.asarray(parameters.ravel(step.proposal), float), 0)
    best = survey.objective_there
    for name, (method, most) in METHODS.items():
        units, flattest = _units(step, curvature, name)
        run = partial(_ascend, method, step, curvature, units, starts)
        jax.block_until_ready(run(0))  # compiles
        began = time.perf_counter()
        ends = jax.block_until_ready(run(most))
        gradient = np.asarray(ends.gradient, float)
        facts = {
            "steps": np.asarray(ends.num_steps),
            "gradient": gradient,
            # From its end an ascent could go so far yet: √(gᵀ(−H)⁻¹g) at most.
            "to_go": gradient * np.sqrt(len(layout.identified) / flattest),
            "seconds": time.perf_counter() - began,
            "closed_form_seconds": seconds,
        }
        yield from _judge(step, curvature, name, ends, there, best, facts)


def _units(step: Step, curvature: Curvature, name: str) -> tuple[np.ndarray, float]:
    """What a step of 1 is along each coordinate of an ascent, and the smallest curvature there.

    A standard deviation of one observation; for Newton, which is the same method in any linear
    coordinates but solves for its steps by conjugate gradients, those in which −∇²Q/N is 1 at θ′.
    """
    identified, size = curvature.layout.identified, step.size
    plain = np.where(curvature.layout.interior, curvature.unit, 0)
    if curvature.hessian is None:
        return plain, np.nan
    complete = -curvature.hessian[np.ix_(identified, identified)] / size
    scaled = plain[identified, None] * complete * plain[identified]
    smallest = float(np.linalg.eigvalsh(scaled).min()) if np.all(np.isfinite(scaled)) else np.nan
    if name != "newton" or not smallest > 0:
        return plain, smallest if smallest > 0 else np.nan
    whitened = np.zeros((len(plain), len(plain)))
    whitened[np.ix_(identified, identified)] = np.linalg.inv(np.linalg.cholesky(complete)).T
    return whitened, 1.0


def _why_not(step: Step, interior: np.ndarray) -> str:
    if any(is_generalised(step, part) for part in step.parts):
        return "the M-step is a generalised one: no maximiser in closed form to compare with"
    if not interior.any():
        return "no parameter is free"
    return ""


def _ascend(
    method: Any,
    step: Step,
    curvature: Curvature,
    units: np.ndarray,
    starts: Array,
    max_steps: int,
) -> ascent.Ascent:
    return _ascend_compiled(
        method,
        step.anchor,
        step.total,
        step.proposal,
        jnp.asarray(curvature.layout.interior),
        jnp.asarray(units, step.dtype),
        starts,
        jnp.asarray(step.size, step.dtype),
        jnp.asarray(step.eps**TOLERANCE, step.dtype),
        jnp.asarray(max_steps),
    )


@partial(jax.jit, static_argnums=0)
def _ascend_compiled(
    method: Any,
    anchor: Any,
    total: Any,
    candidate: Any,
    free: Array,
    units: Float[Array, "P *P"],
    starts: Array,
    size: Array,
    tol: Array,
    max_steps: Array,
) -> ascent.Ascent:
    """Ascents of Q / N in these units."""

    def leaves(moved: Array) -> Array:
        return units * moved if units.ndim == 1 else jnp.dot(units, moved, precision=PRECISION)

    def one(start: Array) -> ascent.Ascent:
        def function(moved: Array) -> Array:
            vector = jnp.where(free, start, 0) + leaves(moved)
            return q_of_leaves(anchor, total, candidate, free, vector) / size

        end = method(function, jnp.zeros_like(start), tol=tol, max_steps=max_steps)
        point = jnp.where(free, start + leaves(end.point), parameters.ravel(candidate))
        return ascent.Ascent(point, end.value * size, end.num_steps, end.gradient)

    return jax.vmap(one)(starts)


def _judge(
    step: Step,
    curvature: Curvature,
    name: str,
    ends: ascent.Ascent,
    there: np.ndarray,
    best: float,
    facts: dict[str, Any],
) -> Iterator[Check]:
    """Where the ascents came to their end, against θ′."""
    tolerance = step.tolerance
    allowed = tolerance.slow_ascent if name == "adam" else tolerance.ascent
    arrived = facts["to_go"] <= allowed
    if curvature.hessian is None:  # how flat Q is nobody knows: only a full stop counts
        arrived = facts["gradient"] <= 10 * step.eps**TOLERANCE
    values = np.asarray(ends.value, float)
    higher = largest(values[np.isfinite(values)] - best, np.where(np.isnan(best), np.nan, 0))
    scale = step.size + abs(best)
    if arrived.any():
        moves = [
            without_null(curvature.layout, np.where(curvature.layout.interior, point, 0) - there)
            for point in np.asarray(ends.point, float)
        ]
        lengths = np.array([curvature.distance(move) for move in moves]) / np.sqrt(step.size)
        yield Check.of(
            f"softmax.{name}",
            float(np.max(lengths[arrived])),
            allowed,
            f"{name} from {len(lengths)} random starts ends at θ′, in standard deviations of one "
            f"observation; {_effort(facts)}",
            distance=lengths,
            arrived=int(arrived.sum()),
            **facts,
        )
    else:
        yield Check.not_applicable(
            f"softmax.{name}",
            f"none of {len(arrived)} ascents came to its end; {_effort(facts)}",
            **facts,
        )
    yield Check.of(
        f"softmax.{name}.q",
        higher / scale,
        tolerance.identity,
        f"{name} finds no higher Q than the closed form, relative to |Q| + N",
        q=values,
        closed_form=best,
    )


def _effort(facts: dict[str, Any]) -> str:
    """Steps of the ascents beside the closed form's one; their times are among the facts."""
    return f"{np.max(facts['steps'])} steps beside one"


def _time(function: Callable[[], Any]) -> float:
    jax.block_until_ready(function())
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def check_growth(step: Step, survey: Survey) -> Iterator[Check]:
    """The M-step of every table from ∇ℓ alone: p_j ∂ℓ/∂p_j over its sum.

    Baum & Eagon's growth transform (Baum, Petrie, Soules & Weiss 1970): ℓ is the logarithm of a
    polynomial with non-negative coefficients in the entries of its tables.
    """
    for part, own in zip(step.parts, survey.parts, strict=True):
        if not isinstance(part.here, Categorical):
            continue
        name = f"growth.{part.name}"
        if part.frozen:
            yield Check.not_applicable(name, "it is frozen")
        elif is_generalised(step, part):
            yield Check.not_applicable(
                name, "its M-step is a generalised one, not Baum and Welch's"
            )
        else:
            yield _check_growth(step, part, name, own)


def _check_growth(step: Step, part: Part, name: str, own: PartSurvey) -> Check:
    probs = np.asarray(own.here[0], float)
    counts = probs * np.asarray(own.slopes[0], float)
    total = counts.sum(-1, keepdims=True)
    grown = np.where(total > 0, counts / np.where(total > 0, total, 1), probs)
    # What few counts say is known to fewer digits: weigh a row by its share of the observations.
    error = np.abs(grown - np.asarray(own.there[0], float)) * (total / step.size).clip(max=1)
    return Check.of(
        name,
        float(np.max(error)),
        step.tolerance.identity,
        "p ∂ℓ/∂p over its sum, by autodiff of ℓ alone, is the closed-form M-step",
        grown=grown,
    )
