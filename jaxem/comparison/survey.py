"""Everything that the checks ask of Q, in one compiled program: each further one takes as long."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxem import parameters
from jaxem.comparison import exponential, objective, preconditioner
from jaxem.comparison.coordinates import Arrays, coordinates_of, is_known
from jaxem.comparison.parts import at, split
from jaxem.comparison.step import Step


@dataclass(frozen=True)
class PartSurvey:
    """What Q, ℓ and the prior say of one part; NumPy arrays, a tuple of them one a leaf."""

    here: Arrays  # the quantities in θ
    there: Arrays  # in θ′
    slopes: Arrays  # ∇(ℓ + log-prior) at θ
    slopes_there: Arrays  # ∇(Q + log-prior) at θ′
    whitened: Arrays  # ∇ℓ at θ, in units in which that of N observations is at most about N
    whitened_q: Arrays  # ∇Q at θ
    whitened_there: Arrays  # ∇(Q + log-prior) at θ′
    whitened_prior: Arrays  # ∇ log-prior at θ
    whitened_pretend: Arrays  # what the pretend data add to ∇Q at θ
    gradient: Any  # ∇(ℓ + log-prior) at θ in leaves, shaped like the part
    natural: Any  # (∂η/∂leaf)ᵀ Σ N (τ(θ′) − τ(θ)), likewise; None where there is no η
    preconditioned: Arrays | None  # P(θ) ∇(ℓ + log-prior); None where there is no P


@dataclass(frozen=True)
class Survey:
    """What Q says at θ and θ′."""

    q_here: float  # Q(θ | θ), of the data alone
    q_there: float  # Q(θ′ | θ)
    objective_here: float  # the same with pretend data
    objective_there: float
    gradient_there: np.ndarray  # [P] of Q + log-prior at θ′ in leaves
    parts: tuple[PartSurvey, ...]


def survey(step: Step) -> Survey:
    """The survey of a step."""
    slopes = objective.slopes_of_log_likelihood(step.model, step.data)
    found = _survey(
        step.model, step.proposal, step.anchor, step.stats, step.total, step.prior, slopes
    )
    values, gradient, parts = jax.device_get(found)
    q_here, q_there, objective_here, objective_there = map(float, values)
    return Survey(
        q_here,
        q_there,
        objective_here,
        objective_there,
        np.asarray(gradient, float),
        tuple(PartSurvey(*part) for part in parts),
    )


@jax.jit
def _survey(
    model: Any, proposal: Any, anchor: Any, stats: Any, total: Any, prior: Any, slopes: Any
) -> Any:
    here, there = objective.quantities(model), objective.quantities(proposal)
    q_here = objective.slopes_of_q(anchor, stats, model)
    q_there = objective.slopes_of_q(anchor, total, proposal)
    prior_slopes = objective.slopes_of_prior(model, prior)
    pretend = jax.tree.map(jnp.subtract, objective.slopes_of_q(anchor, total, model), q_here)
    parts = []
    for i, (name, part) in enumerate(split(model)):
        after, own = at(proposal, name), at(total, name)
        whiten = coordinates_of(part).whiten
        pushed = jax.tree.map(jnp.add, slopes[i], prior_slopes[i])
        gradient = jax.vjp(coordinates_of(part).read, part)[1](pushed)[0]
        natural = preconditioned = None
        if exponential.is_exponential(part):
            natural = _pulled_back(part, own, after)
        if is_known(part):
            moves = jax.tree.map(jnp.subtract, there[i], here[i])
            preconditioned = preconditioner.predicted_step(part, own, moves, pushed)
        parts.append(
            (
                here[i],
                there[i],
                pushed,
                q_there[i],
                whiten(part, slopes[i]),
                whiten(part, q_here[i]),
                whiten(after, q_there[i]),
                whiten(part, prior_slopes[i]),
                whiten(part, pretend[i]),
                gradient,
                natural,
                preconditioned,
            )
        )
    values = [
        anchor.expected_log_prob(of, candidate)
        for of in (stats, total)
        for candidate in (model, proposal)
    ]
    return values, _in_leaves(objective.quantities, proposal, q_there), parts


def _in_leaves(quantities: Callable[[Any], Any], model: Any, slopes: Any) -> Array:
    """A gradient in the quantities pulled back to the leaves."""
    return parameters.ravel(jax.vjp(quantities, model)[1](slopes)[0])


def _pulled_back(here: Any, stats: Any, there: Any) -> Any:
    pull = jax.vjp(lambda candidate: exponential.natural_parameters(here, candidate), here)[1]
    return pull(exponential.mean_step(here, stats, there))[0]
