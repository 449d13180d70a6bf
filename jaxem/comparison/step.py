"""One EM step and all that the checks ask of it, in coordinates centred on the data."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxem import em, parameters
from jaxem.comparison.coordinates import bounded, condition, coordinates_of
from jaxem.comparison.objective import quantities as quantities_of
from jaxem.comparison.parts import at, split
from jaxem.comparison.tolerance import Tolerance, tolerance_of
from jaxem.data import Chunks
from jaxem.families import optional
from jaxem.families.categorical import Categorical
from jaxem.families.mixture_family import MixtureFamily
from jaxem.pytree import child_names

# Fewer expected observations than ε to this power and a parameter is at the edge of its range: a
# probability on its way to 0 goes there by ever smaller steps, and no curvature holds it.
EDGE = 1 / 3
MAGNIFIED = 10.0  # ε times the condition number of a covariance times this may be lost
COLLAPSED = "; a component may have collapsed onto a point: pass a prior with a floor"
HOPELESS = 0.01  # a tolerance above which nothing is certified
MODEL_METHODS = (
    "validate",
    "prepare",
    "e_step",
    "m_step",
    "expected_log_prob",
    "member_counts",
    "posterior_entropy",
    "posterior_divergence",
)


@dataclass(frozen=True)
class Part:
    """A table or a family inside a model, before and after the step."""

    name: str  # dotted; "" for the whole model
    here: Any  # in θ
    there: Any  # in θ′
    anchor: Any  # where the means are that the statistics are about
    stats: Any  # expected statistics, those of pretend data among them
    counts: np.ndarray  # how many observations each row of a table, or each member, explains
    quantities: dict[str, np.ndarray]  # what the leaves of `there` mean, by leaf
    frozen: parameters.Names  # which of its leaves are held fixed


@dataclass(frozen=True)
class Step:
    """θ, θ′ = M(θ), and what led from one to the other."""

    model: Any  # θ
    proposal: Any  # θ′
    anchor: Any  # whose means the statistics are about: θ, or θ′ where that is far away
    data: Any  # prepared
    stats: Any  # of the data alone
    total: Any  # with those of the pretend data: what the M-step maximises over
    log_likelihood: float  # ℓ(θ)
    prior: em.Prior
    frozen: parameters.Names
    counts: np.ndarray  # how many observations each member explains; [K]
    quantities: tuple[tuple[np.ndarray, ...], ...]  # of θ′, part by part
    condition: float  # how much the covariances of θ and θ′ magnify rounding

    @property
    def dtype(self) -> np.dtype:
        """The floating dtype of every number here."""
        return np.dtype(jax.tree.leaves(self.model)[0].dtype)

    @property
    def eps(self) -> float:
        """The resolution of the dtype."""
        return float(jnp.finfo(self.dtype).eps)

    @cached_property
    def tolerance(self) -> Tolerance:
        """What rounding may cost here: the dtype's own, or what ill conditioning makes of it."""
        own, magnified = tolerance_of(self.dtype), MAGNIFIED * self.eps * self.condition
        return replace(
            own,
            stationarity=max(own.stationarity, magnified),
            identity=max(own.identity, magnified),
        )

    @property
    def edge(self) -> float:
        """The expected count below which a parameter is at the edge of its range."""
        return self.eps**EDGE

    @property
    def size(self) -> float:
        """N: how many observations there are, the pretended ones among them."""
        return max(1.0, *(float(np.sum(part.counts)) for part in self.parts))

    @property
    def floor(self) -> float:
        """The covariance floor."""
        return float(self.prior.floor)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The tables and families, in the order of the leaves."""
        names = [name for name, _ in split(self.model)]
        return tuple(map(self._part, names, self.quantities))

    def _part(self, name: str, quantities: tuple[np.ndarray, ...]) -> Part:
        sides = [at(side, name) for side in (self.model, self.proposal, self.anchor, self.total)]
        held = (name + "." if name else "") + "{}"
        inner = parameters.leaf_names(sides[0])
        frozen = tuple(
            leaf for leaf in inner if parameters.is_frozen(held.format(leaf), self.frozen)
        )
        by_leaf = dict(zip(inner, quantities, strict=True))
        here, there, anchor, stats = sides
        return Part(name, here, there, anchor, stats, self._counts(name), by_leaf, frozen)

    def _counts(self, name: str) -> np.ndarray:
        parent, _, last = name.rpartition(".")
        if isinstance(at(self.model, name), Categorical):
            return np.asarray(at(self.total, name), float).sum(-1)
        if last == "components" and isinstance(at(self.model, parent), MixtureFamily):
            return np.asarray(at(self.total, parent).weights, float).ravel()
        return self.counts


def take_step(model: Any, data: Any, prior: em.Prior | None, frozen: str | Any) -> Step:
    """One EM step from `model`.

    Raises:
        ValueError: data that the model cannot have produced, or that it gives probability 0; a name
            of no part of the model.
    """
    _refuse_incomplete(model)
    data = model.validate(data)
    frozen = parameters.check_frozen(model, frozen)
    dtype = em.floating_dtype(data, model)
    model = em.cast(model, dtype)
    _refuse_nan(model)
    data = em.prepare(model, data)
    prior = em.resolve(em.Prior() if prior is None else prior, data, dtype)
    model, data, prior = _centred(model, data, prior)
    stats, log_likelihood = e_step(model, model, data)
    if not np.isfinite(log_likelihood):
        raise ValueError(
            f"the model gives these data a log-likelihood of {log_likelihood}; there is nothing to "
            "certify. Start from a model under which every row is possible."
        )
    anchor = model
    proposal, total, near, quantities = m_step(anchor, stats, prior, frozen)
    if not near:  # as `fit` does: the same expectation about where the means went
        anchor = proposal
        stats, _ = e_step(model, anchor, data)
        proposal, total, _, quantities = m_step(anchor, stats, prior, frozen)
    quantities = jax.device_get(quantities)
    _refuse_nan(proposal, COLLAPSED)
    _refuse_collapsed(proposal, quantities)
    magnified = max(
        condition(part, own)
        for side, values in ((model, jax.device_get(_quantities(model))), (proposal, quantities))
        for (_, part), own in zip(split(side), values, strict=True)
    )
    if MAGNIFIED * float(jnp.finfo(dtype).eps) * magnified > HOPELESS:
        raise ValueError(
            f"a covariance is singular to the resolution of {np.dtype(dtype).name} (condition "
            f"number {magnified:.1e}): nothing can be told from rounding. Use float64, drop a "
            "column that follows from the others, or pass a prior with a larger floor."
        )
    counts = np.asarray(model.member_counts(stats), float)
    return Step(
        model,
        proposal,
        anchor,
        data,
        stats,
        total,
        float(log_likelihood),
        prior,
        frozen,
        counts,
        quantities,
        magnified,
    )


_quantities = jax.jit(quantities_of)


@jax.jit
def e_step(model: Any, anchor: Any, data: Any) -> tuple[Any, Array]:
    """Expected statistics about the means of `anchor`, and ℓ(model)."""
    return model.e_step(data, about=anchor)


@partial(jax.jit, static_argnames="frozen")
def m_step(anchor: Any, stats: Any, prior: Any, frozen: Any) -> tuple[Any, Any, Array, Any]:
    """θ′, the statistics with the pretend data, whether θ′ is near enough to θ, its quantities."""
    proposal = anchor.m_step(stats, prior, frozen)
    total = anchor.with_pretend(stats, prior) if hasattr(anchor, "with_pretend") else stats
    return proposal, total, anchor.near(proposal), quantities_of(proposal)


def _refuse_nan(model: Any, after: str = "") -> None:
    for name, leaf in parameters.named_leaves(model):
        if np.any(np.isnan(leaf)):
            which = f"the M-step's {name}" if after else f"{type(model).__name__}.{name}"
            raise ValueError(f"{which} holds NaN: {np.asarray(leaf).tolist()}{after}.")


def _refuse_collapsed(proposal: Any, quantities: Any) -> None:
    for (name, part), values in zip(split(proposal), quantities, strict=True):
        for quantity, value in zip(coordinates_of(part).names, values, strict=True):
            if quantity not in bounded(part).values():
                continue
            diagonal = np.diagonal(value, 0, -2, -1) if quantity == "covariance" else value
            if not np.all(diagonal > 0):
                raise ValueError(f"the M-step's {name}.{quantity} is 0 somewhere{COLLAPSED}.")


def _refuse_incomplete(model: Any) -> None:
    """Name the first method that a model or a family lacks."""
    for name in MODEL_METHODS:
        if not hasattr(model, name):
            raise ValueError(
                f"certify needs a model, such as a Mixture or an HMM: {type(model).__name__} has "
                f"no {name}."
            )
    for name, part in split(model):
        if not hasattr(part, "expected_log_prob"):
            raise ValueError(
                f"certify needs {type(part).__name__}.expected_log_prob (of {name}): it is Q."
            )


def _centred(model: Any, data: Any, prior: em.Prior) -> tuple[Any, Any, em.Prior]:
    """Model, data and prior in coordinates whose origin is the center of the data.

    The identities are the same there, and a large offset costs none of them any digits.
    """
    center = getattr(data, "center", None)
    if center is None:
        return model, data, prior
    moved = {
        name: getattr(model, name).translate(-center)
        for name in child_names(model)
        if optional.is_located(getattr(model, name))
    }
    return replace(model, **moved), _without_center(data), replace(prior, mean=prior.mean - center)


def _without_center(data: Any) -> Any:
    if isinstance(data, Chunks):
        return replace(data, center=jax.tree.map(jnp.zeros_like, data.center))
    return replace(data, rows=_without_center(data.rows))
