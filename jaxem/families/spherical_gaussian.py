"""Gaussians with one variance each."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxem import em, parameters
from jaxem.families import features, moments
from jaxem.families.moments import GaussianStats
from jaxem.families.optional import finite_rows
from jaxem.families.partial_diagonal import (
    PartialDiagonal,
    PartialDiagonalFeatures,
    partial_diagonal,
)
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION


@pytree
class SphericalGaussian:
    """Normals N(μ_k, σ_k² I), stored as means and log standard deviations.

    Observations are [N, D] ([N] is taken as [N, 1] when D = 1).

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> ball = jaxem.SphericalGaussian.from_moments(jnp.zeros((1, 2)), jnp.array([4.0]))
        >>> ball.covariance.tolist()
        [[[4.0, 0.0], [0.0, 4.0]]]
    """

    mean: Float[Array, "K D"]
    log_scale: Float[Array, " K"]
    method: str | None = field(default=None, metadata={"static": True})  # see `choose_form`

    @classmethod
    def from_moments(cls, mean: Any, variance: Any) -> Self:
        """The members with means [K, D] and variances [K] (or one for all).

        Raises:
            ValueError: wrong shapes, or a variance that is not positive.
        """
        mean = moments.validate_moments(mean, cls.__name__)
        return cls(mean, moments.log_scale_of(variance, mean.shape[:1], mean.dtype))

    @property
    def variance(self) -> Float[Array, " K"]:
        """Variance of every feature."""
        return jnp.exp(2 * jnp.asarray(self.log_scale))

    @property
    def covariance(self) -> Float[Array, "K D D"]:
        """Covariance matrices."""
        return self.variance[:, None, None] * jnp.eye(self.mean.shape[1], dtype=self.mean.dtype)

    @property
    def num_members(self) -> int:
        """K."""
        return self.mean.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(D,)."""
        return self.mean.shape[1:]

    @property
    def num_parameters(self) -> int:
        """K·D means and K variances."""
        return int(parameters.count(self))

    def check(self) -> None:
        """Raise a ValueError unless the leaves are [K, D] and [K]."""
        moments.check_method(self.method)
        shape = moments.mean_shape(self.mean, "SphericalGaussian")
        moments.check_leaf(self.log_scale, shape[:1], "SphericalGaussian.log_scale")

    def validate(self, x: Any, leading: int = 1) -> Array:
        """Finite rows [N, D] (sequences [B, T, D]), or a ValueError naming the first bad entry."""
        return finite_rows(x, self.event_shape, leading)

    def translate(self, offset: Float[Array, " D"]) -> Self:
        """The members for data moved by `offset`."""
        return replace(self, mean=self.mean + offset)

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """Whether the proposal's means are close in its own standard deviations."""
        return moments.accurate(
            proposal.mean - self.mean, jnp.exp(-2 * proposal.log_scale[:, None])
        )

    @property
    def _constant(self) -> Float[Array, " K"]:
        size = self.mean.shape[1]
        return moments.gaussian_constant(size) - size * self.log_scale

    def log_prob(self, x: Float[Array, "N D"]) -> Float[Array, "N K"]:
        """Log-density of every row under every member, one feature at a time."""
        columns = jnp.asarray(x, self.mean.dtype).T
        inverse_scale = jnp.broadcast_to(jnp.exp(-self.log_scale)[:, None], self.mean.shape)
        distance = moments.squared_distance(columns, self.mean, inverse_scale)
        return (self._constant[:, None] - 0.5 * distance).T

    def stats(self, x: Float[Array, "N D"], responsibilities: Float[Array, "N K"]) -> GaussianStats:
        """Expected moments of every member about its mean, one feature at a time."""
        first, second = moments.moments_by_feature(x, self.mean, responsibilities)
        weight = jnp.sum(responsibilities.T, 1)
        return GaussianStats(weight, weight, first, jnp.sum(second, 1), jnp.zeros((), weight.dtype))

    def form(self) -> Any:
        """The members as products with x and |x|², unless `method` says otherwise."""
        return moments.choose_form(self, SphericalGaussian._features)

    def _features(self) -> "SphericalFeatures":
        precision = jnp.exp(-2 * self.log_scale)[:, None]
        constant = self._constant[:, None] - 0.5 * jnp.sum(
            self.mean**2 * precision, 1, keepdims=True
        )
        coefficients = jnp.concatenate([constant, precision * self.mean, -0.5 * precision], 1)
        return SphericalFeatures(self, moments.accurate(self.mean, precision), coefficients)

    def partial_form(self, _: Any = None) -> Any:
        """The members on rows with missing entries, whose patterns do not matter here."""
        if self.method == "centred":
            return self.plain_partial_form()
        accurate = moments.choose_form(self, SphericalGaussian._features).accurate
        return PartialDiagonalFeatures.of(self.plain_partial_form(), accurate)

    def plain_partial_form(self, _: Any = None) -> PartialDiagonal:
        """The same about each member's own mean."""
        return partial_diagonal(self, one_variance=True)

    def maximize(self, stats: GaussianStats, frozen: parameters.Names = ()) -> Self:
        """Weighted means and mean squared distances per feature, raised to the floor.

        A member without weight keeps its parameters.  With `mean` frozen the variance is the
        second moment about that mean.
        """
        move = jnp.zeros_like(self.mean) if "mean" in frozen else moments.shift(stats)
        mean = self.mean + move
        if "log_scale" in frozen:
            return replace(self, mean=mean)
        none = stats.covariance_weight == 0
        weight = jnp.where(none, 1, stats.covariance_weight) * self.mean.shape[1]
        variance = _scatter(stats, move) / weight
        log_scale = 0.5 * jnp.log(jnp.where(variance < stats.floor, stats.floor, variance))
        return replace(self, mean=mean, log_scale=jnp.where(none, self.log_scale, log_scale))

    def expected_log_prob(self, stats: GaussianStats, candidate: Self) -> Float[Array, ""]:
        """Q: Σ r log N(x | candidate), from moments about self's means."""
        distance = _scatter(stats, candidate.mean - self.mean) * jnp.exp(-2 * candidate.log_scale)
        return jnp.sum(stats.covariance_weight * candidate._constant - 0.5 * distance)

    def pretend(self, prior: em.Prior) -> GaussianStats:
        """The prior's rows at `mean` and the trace of its scatter, about self's means."""
        weight, away = moments.pretend_mean(prior, self.mean)
        members, size = self.mean.shape
        scatter = moments.pretend_scatter(prior, size, self.mean.dtype)
        trace = jnp.trace(scatter, axis1=-2, axis2=-1)
        covariance_weight = jnp.asarray(prior.scatter_weight, self.mean.dtype)
        return GaussianStats(
            weight,
            jnp.broadcast_to(covariance_weight, (members,)),
            weight[:, None] * away,
            trace + weight * jnp.sum(away**2, 1),
            moments.pretend_floor(prior, self.mean.dtype),
        )

    def sample(self, key: Array, member: Int[Array, " N"]) -> Float[Array, "N D"]:
        """One row from each of the members named."""
        noise = jax.random.normal(key, (len(member), *self.event_shape), self.mean.dtype)
        return self.mean[member] + jnp.exp(self.log_scale)[member, None] * noise

    def marginal(self, dims: Any) -> Self:
        """The members of these features alone, in this order."""
        named, _ = features.split(dims, self.mean.shape[1])
        return replace(self, mean=jnp.asarray(self.mean)[:, named])

    def condition(self, dims: Any, values: Any) -> tuple[Self, Float[Array, " K"]]:
        """The members of the other features, and log p(values [d]) of these."""
        named, others, values = features.split_known(dims, values, self.mean.shape[1])
        given = self.marginal(named).log_prob(values[None])[0]
        return replace(self, mean=jnp.asarray(self.mean)[:, others]), given

    @classmethod
    def pooled(cls, x: Float[Array, "N D"], num_members: int) -> Self:
        """Every member at the mean of all rows and their mean variance per feature."""
        mean, covariance = moments.pooled_moments(x, num_members)
        variance = jnp.mean(jnp.diagonal(covariance))
        return cls.from_moments(mean, jnp.broadcast_to(variance, (num_members,)))


def _scatter(stats: GaussianStats, move: Float[Array, "K D"]) -> Float[Array, " K"]:
    """Σ r |x − μ − move|² from moments about μ."""
    cross = jnp.sum(stats.first * move, 1)
    return stats.second - 2 * cross + stats.weight * jnp.sum(move**2, 1)


@dataclass(frozen=True)
class SphericalFeatures:
    """Log-densities and statistics as products with φ = [1; x; |x|²]."""

    family: SphericalGaussian
    accurate: Bool[Array, ""]
    coefficients: Float[Array, "K F"]

    def _features(self, x: Float[Array, "n D"]) -> Float[Array, "F n"]:
        columns = jnp.asarray(x, self.coefficients.dtype).T
        ones = jnp.ones((1, columns.shape[1]), columns.dtype)
        return jnp.concatenate([ones, columns, jnp.sum(columns**2, 0, keepdims=True)])

    def log_prob(self, x: Float[Array, "n D"]) -> Float[Array, "n K"]:
        """Log-density of every row under every member."""
        return jnp.dot(self.coefficients, self._features(x), precision=PRECISION).T

    def stats(self, x: Float[Array, "n D"], responsibilities: Array) -> Float[Array, "F K"]:
        """Sums of the features."""
        return moments.weighted_sums(self._features(x), responsibilities)

    def finish(self, total: Float[Array, "F K"]) -> GaussianStats:
        """Moments about the means from the sums of the features."""
        mean = self.family.mean
        weight, raw, first = moments.stats_about(total, mean)
        second = total[-1] - jnp.sum(mean * (raw + first), 1)
        return GaussianStats(weight, weight, first, second, jnp.zeros((), weight.dtype))
