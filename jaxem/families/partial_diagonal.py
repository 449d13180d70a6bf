"""Diagonal and spherical Gaussians on rows with missing entries.

Features are independent given the member, so that a missing one adds its own variance and nothing
else: the masks enter as products, without a factorisation.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxem.families import moments
from jaxem.families.moments import GaussianStats
from jaxem.missing import Partial
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION, relative_entropy


@pytree
class SeenStats:
    """Moments of what is observed of every feature, and how much of it is not."""

    weight: Float[Array, " K"]
    missing: Float[Array, "K D"]  # Σ r over the rows that lack the feature
    first: Float[Array, "K D"]  # Σ r (x − μ) over those that have it
    second: Float[Array, "K D"]


@dataclass(frozen=True)
class PartialDiagonal:
    """Members about their own means, feature by feature."""

    mean: Float[Array, "K D"]
    log_scale: Float[Array, "K D"]
    one_variance: bool = False  # whether the features of a member share theirs

    @property
    def accurate(self) -> Any:
        """True: nothing is expanded."""
        return True

    def log_prob(self, x: Partial) -> Float[Array, "n K"]:
        """Marginal log-density of what is observed of every row under every member."""
        observed = x.observed.T
        distance = moments.squared_distance(
            x.values.T, self.mean, jnp.exp(-self.log_scale), observed
        )
        there = observed.astype(self.mean.dtype)
        constant = jnp.dot(self.constants, there, precision=PRECISION)
        return (constant - 0.5 * distance).T

    def stats(self, x: Partial, responsibilities: Float[Array, "n K"]) -> SeenStats:
        """Moments of what is observed about the members' means."""
        first, second = moments.moments_by_feature(
            x.values, self.mean, responsibilities, x.observed.T
        )
        lacking = (~x.observed.T).astype(self.mean.dtype)
        missing = moments.weighted_sums(lacking, responsibilities).T
        return SeenStats(jnp.sum(responsibilities.T, 1), missing, first, second)

    def finish_given(self, form: "PartialDiagonal", total: SeenStats) -> GaussianStats:
        """Expected complete moments about this form's means, what is missing inferred by `form`."""
        away = form.mean - self.mean
        first = total.first + total.missing * away
        second = total.second + total.missing * (jnp.exp(2 * form.log_scale) + away**2)
        second = jnp.sum(second, 1) if self.one_variance else second
        zero = jnp.zeros((), away.dtype)
        return GaussianStats(total.weight, total.weight, first, second, zero)

    def missing_entropy(self, x: Partial) -> Float[Array, "n K"]:
        """Entropy of what is missing of every row given the member."""
        return _over_missing(x, 0.5 - self.constants)

    def missing_divergence(self, other: "PartialDiagonal", x: Partial) -> Float[Array, "n K"]:
        """Divergence of what is missing of every row, given the member, from that of `other`."""
        ratio = 2 * (self.log_scale - other.log_scale)
        away = (self.mean - other.mean) * jnp.exp(-other.log_scale)
        each = 0.5 * (relative_entropy(jnp.zeros_like(ratio), ratio) + away**2)
        return _over_missing(x, each)

    def expected(self, _: Partial, responsibilities: Float[Array, "n K"]) -> Float[Array, "n D"]:
        """The means of the members, mixed: what is observed says nothing else of the rest."""
        return jnp.dot(responsibilities, self.mean, precision=PRECISION)

    def draw(self, key: Array, _: Partial, member: Int[Array, " n"]) -> Float[Array, "n D"]:
        """One row from each of the members named."""
        noise = jax.random.normal(key, (len(member), self.mean.shape[1]), self.mean.dtype)
        return self.mean[member] + jnp.exp(self.log_scale)[member] * noise

    @property
    def constants(self) -> Float[Array, "K D"]:
        """The log-density of each feature at the mean."""
        return moments.gaussian_constant(1) - self.log_scale


@dataclass(frozen=True)
class PartialDiagonalFeatures:
    """The same as products with φ = [observed; x; x²], x being 0 where a centred row lacks it."""

    members: PartialDiagonal
    accurate: Bool[Array, ""]  # as for complete rows
    coefficients: Float[Array, "K F"]

    @classmethod
    def of(cls, members: PartialDiagonal, accurate: Any) -> "PartialDiagonalFeatures":
        """The features' coefficients of each member."""
        precision = jnp.exp(-2 * members.log_scale)
        constant = members.constants - 0.5 * members.mean**2 * precision
        linear = precision * members.mean
        coefficients = jnp.concatenate([constant, linear, -0.5 * precision], 1)
        return cls(members, accurate, coefficients)

    def _features(self, x: Partial) -> Float[Array, "F n"]:
        columns = x.values.T
        there = x.observed.T.astype(columns.dtype)
        return jnp.concatenate([there, columns, columns**2])

    def log_prob(self, x: Partial) -> Float[Array, "n K"]:
        """Marginal log-density of what is observed of every row under every member."""
        return jnp.dot(self.coefficients, self._features(x), precision=PRECISION).T

    def stats(self, x: Partial, responsibilities: Float[Array, "n K"]) -> Float[Array, "F K"]:
        """Sums of the features, and of [1; missing]."""
        columns = x.values.T
        lacking = (~x.observed.T).astype(columns.dtype)
        ones = jnp.ones((1, columns.shape[1]), columns.dtype)
        features = jnp.concatenate([ones, lacking, self._features(x)])
        return moments.weighted_sums(features, responsibilities)

    def finish_given(
        self, form: "PartialDiagonalFeatures", total: Float[Array, "F K"]
    ) -> GaussianStats:
        """Expected complete moments about this form's means, what is missing inferred by `form`."""
        mean = self.members.mean
        missing, seen, raw, square = (part.T for part in jnp.split(total[1:], 4))
        first = raw - seen * mean
        second = square - mean * (raw + first)
        stats = SeenStats(total[0], missing, first, second)
        return self.members.finish_given(form.members, stats)

    def missing_entropy(self, x: Partial) -> Float[Array, "n K"]:
        """Entropy of what is missing of every row given the member."""
        return self.members.missing_entropy(x)

    def missing_divergence(
        self, other: "PartialDiagonalFeatures", x: Partial
    ) -> Float[Array, "n K"]:
        """Divergence of what is missing of every row, given the member, from that of `other`."""
        return self.members.missing_divergence(other.members, x)

    def expected(self, x: Partial, responsibilities: Float[Array, "n K"]) -> Float[Array, "n D"]:
        """The means of the members, mixed."""
        return self.members.expected(x, responsibilities)

    def draw(self, key: Array, x: Partial, member: Int[Array, " n"]) -> Float[Array, "n D"]:
        """One row from each of the members named."""
        return self.members.draw(key, x, member)


def _over_missing(x: Partial, each: Float[Array, "K D"]) -> Float[Array, "n K"]:
    lacking = (~x.observed).astype(each.dtype)
    return jnp.dot(lacking, each.T, precision=PRECISION)


def partial_diagonal(family: Any, *, one_variance: bool) -> PartialDiagonal:
    """A diagonal or spherical family about each member's own mean."""
    log_scale = family.log_scale[:, None] if one_variance else family.log_scale
    return PartialDiagonal(
        family.mean, jnp.broadcast_to(log_scale, family.mean.shape), one_variance
    )
