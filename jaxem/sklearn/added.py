"""An M-step after what scikit-learn and hmmlearn add to the expected statistics."""

from dataclasses import field, replace
from functools import partial
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxem import em, parameters
from jaxem.families.moments import GaussianStats, shift
from jaxem.hmm import HMM, HMMStats
from jaxem.mixture import MixtureStats
from jaxem.pytree import pytree

ADDED = ("prior", "reg_covar")  # parts that no M-step moves


@pytree
class Added:
    """A mixture or an HMM whose M-step comes after additions to its statistics.

    The counts of `prior` may be negative here, as a Dirichlet parameter below 1 has them: no sum of
    counts falls below 0.  `reg_covar` is added to every variance, which is the M-step of no
    objective: under it the log-likelihood may fall.
    """

    model: Any
    prior: em.Prior
    reg_covar: Float[Array, ""]
    tied: int = field(default=0, metadata={"static": True})  # so many members share a covariance

    def validate(self, data: Any) -> Any:
        """As the model has it."""
        return self.model.validate(data)

    def prepare(self, data: Any) -> Any:
        """As the model has it."""
        return self.model.prepare(data)

    def e_step(self, data: Any, about: Any = None) -> tuple[Any, Float[Array, ""]]:
        """As the model has it."""
        return self.model.e_step(data, None if about is None else about.model)

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """As the model has it."""
        return self.model.near(proposal.model)

    def log_prior(self, prior: em.Prior) -> Float[Array, ""]:
        """Expected log-probability of the additions, so far as they count something."""
        tables = ("weights", "initial", "transition", "inner_weights", "symbols")
        held = {name: jnp.maximum(getattr(self.prior, name), 0) for name in tables}
        return self.model.log_prior(replace(self.prior, **held)) + self.model.log_prior(prior)

    def m_step(self, stats: Any, prior: em.Prior, frozen: parameters.Names = ()) -> Self:
        """The model's, of the statistics and the additions."""
        inside = parameters.within(frozen, "model")
        if inside is None:
            return self
        name = "emission" if isinstance(self.model, HMM) else "components"
        within = parameters.within(inside, name)
        stats = _clipped(self.model.with_pretend(stats, self.prior))
        members = partial(self._members, frozen=within or ())
        if isinstance(stats, (HMMStats, MixtureStats)):
            stats = replace(stats, **{name: members(getattr(stats, name))})
        return replace(self, model=self.model.m_step(stats, prior, inside))

    def _members(self, stats: Any, frozen: parameters.Names) -> Any:
        """Statistics of the family with `reg_covar` and with what its members share."""
        if hasattr(stats, "components"):
            inner = parameters.within(frozen, "components") or ()
            return replace(stats, components=self._members(stats.components, inner))
        if not isinstance(stats, GaussianStats):
            return stats
        stats = _regularised(stats, self.reg_covar)
        return _shared(stats, self.tied, "mean" in frozen) if self.tied else stats


def _clipped(stats: Any) -> Any:
    """Counts of tables, none of them negative."""
    if isinstance(stats, MixtureStats):
        return replace(stats, weights=jnp.maximum(stats.weights, 0))
    emission = stats.emission
    if hasattr(emission, "components"):
        emission = replace(emission, weights=jnp.maximum(emission.weights, 0))
    elif isinstance(emission, jnp.ndarray):  # counts of symbols
        emission = jnp.maximum(emission, 0)
    initial, transition = (jnp.maximum(part, 0) for part in (stats.initial, stats.transition))
    return HMMStats(initial, transition, emission)


def _regularised(stats: GaussianStats, amount: Float[Array, ""]) -> GaussianStats:
    """Moments with `amount` on the diagonal of every covariance to be made of them."""
    weight = amount * stats.covariance_weight
    members, size = stats.first.shape
    if stats.second.ndim == jnp.ndim(weight) + 2:  # full or tied
        added = weight[..., None, None] * jnp.eye(size, dtype=stats.second.dtype)
    elif stats.second.ndim == 2:
        added = weight[:, None]
    else:
        added = weight * size
    return replace(stats, second=stats.second + added)


def _shared(stats: GaussianStats, number: int, mean_frozen: bool) -> GaussianStats:
    """Moments of which full covariances come out equal for every `number` members in a row."""
    members, size = stats.first.shape
    move = jnp.zeros_like(stats.first) if mean_frozen else shift(stats)
    outer = stats.weight[:, None, None] * move[:, :, None] * move[:, None, :]
    cross = stats.first[:, :, None] * move[:, None, :]
    about_new = stats.second - cross - jnp.swapaxes(cross, 1, 2) + outer

    def pooled(each: Array) -> Array:
        groups = each.reshape(members // number, number, *each.shape[1:])
        return jnp.repeat(jnp.sum(groups, 1), number, 0)

    return replace(
        stats,
        covariance_weight=pooled(stats.covariance_weight),
        second=pooled(about_new) + cross + jnp.swapaxes(cross, 1, 2) - outer,
    )
