"""Gaussians that share one covariance."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem import em, parameters
from jaxem.families import covariance as cov, features, moments
from jaxem.families.conditional import Conditional
from jaxem.families.moments import GaussianStats
from jaxem.families.optional import finite_rows
from jaxem.families.partial_gaussian import ByPattern, centred_partial_form
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION


@pytree
class TiedGaussian:
    """Multivariate normals N(μ_k, Σ) with one Σ = L Lᵀ, stored as a packed log-Cholesky factor.

    Observations are [N, D] ([N] is taken as [N, 1] when D = 1).

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> pair = jaxem.TiedGaussian.from_moments(jnp.array([[0.0], [1.0]]), jnp.array([[4.0]]))
        >>> pair.covariance.tolist(), pair.num_parameters
        ([[4.0]], 3)
    """

    mean: Float[Array, "K D"]
    log_cholesky: Float[Array, " P"]  # lower triangle by rows, diagonal in logs; P = D(D+1)/2
    method: str | None = field(default=None, metadata={"static": True})  # see `choose_form`

    @classmethod
    def from_moments(cls, mean: Any, covariance: Any) -> Self:
        """The members with means [K, D] and covariance [D, D].

        Raises:
            ValueError: wrong shapes, or a covariance that is not symmetric positive definite.
        """
        mean = moments.validate_moments(mean, cls.__name__)
        factor = cov.cholesky_of(covariance, "covariance").astype(mean.dtype)
        size = mean.shape[1]
        if factor.shape != (size, size):
            raise ValueError(
                f"covariance must have shape {[size, size]}, got {list(factor.shape)}."
            )
        return cls(mean, cov.pack(factor))

    @property
    def scale_tril(self) -> Float[Array, "D D"]:
        """Cholesky factor of the covariance."""
        return cov.unpack(jnp.asarray(self.log_cholesky))

    @property
    def covariance(self) -> Float[Array, "D D"]:
        """The covariance matrix of every member."""
        return jnp.dot(self.scale_tril, self.scale_tril.T, precision=PRECISION)

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
        """K·D means and D(D+1)/2 covariances."""
        return int(parameters.count(self))

    def check(self) -> None:
        """Raise a ValueError unless the leaves are [K, D] and [D(D+1)/2]."""
        moments.check_method(self.method)
        size = moments.mean_shape(self.mean, "TiedGaussian")[1]
        moments.check_leaf(
            self.log_cholesky, (size * (size + 1) // 2,), "TiedGaussian.log_cholesky"
        )

    def validate(self, x: Any, leading: int = 1) -> Array:
        """Finite rows [N, D] (sequences [B, T, D]), or a ValueError naming the first bad entry."""
        return finite_rows(x, self.event_shape, leading)

    def translate(self, offset: Float[Array, " D"]) -> Self:
        """The members for data moved by `offset`."""
        return replace(self, mean=self.mean + offset)

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """Whether the proposal's means are close in its own standard deviations."""
        precision = jnp.sum(cov.inverse(proposal.scale_tril) ** 2, -2)
        return moments.accurate(proposal.mean - self.mean, precision)

    @property
    def _constant(self) -> Float[Array, ""]:
        size = self.event_shape[0]
        return moments.gaussian_constant(size) - 0.5 * cov.log_determinant(self.log_cholesky)

    def log_prob(self, x: Float[Array, "N D"]) -> Float[Array, "N K"]:
        """Log-density of every row under every member, one member at a time about its own mean."""
        columns = jnp.asarray(x, self.mean.dtype).T
        whiten = cov.inverse(self.scale_tril)

        def member(mean: Array) -> Array:
            return moments.whitened(columns, mean, whiten, self._constant)

        return lax.map(member, self.mean).T

    def stats(self, x: Float[Array, "N D"], responsibilities: Float[Array, "N K"]) -> GaussianStats:
        """Expected moments about the members' means, the second ones summed over members."""
        columns = jnp.asarray(x, self.mean.dtype).T
        size = self.mean.shape[1]

        def member(second: Array, parts: Any) -> tuple[Array, tuple[Array, Array]]:
            mean, weight = parts
            centred = columns - mean[:, None]
            weighted = centred * weight
            second = second + jnp.dot(weighted, centred.T, precision=PRECISION)
            return second, (jnp.sum(weight), jnp.sum(weighted, 1))

        none = jnp.zeros((size, size), self.mean.dtype)
        second, (weight, first) = lax.scan(member, none, (self.mean, responsibilities.T))
        return GaussianStats(weight, jnp.sum(weight), first, second, jnp.zeros((), weight.dtype))

    def form(self) -> Any:
        """The members as products with whitened rows, unless `method` says otherwise."""
        return moments.choose_form(self, TiedFeatures.of)

    @property
    def num_factors(self) -> int:
        """How many covariances are factored anew for each pattern of missing entries."""
        return 1

    def partial_form(self, patterns: Bool[Array, "P D"] | None) -> Any:
        """The members on rows with missing entries, in these patterns or each in its own."""
        if patterns is None or self.method == "centred":
            return self.plain_partial_form(patterns)
        conditional = Conditional.of(self.scale_tril[None], patterns[:, None])
        base = moments.choose_form(self, TiedFeatures.of)

        def marginal(parts: tuple[Array, Array]) -> TiedFeatures:
            return replace(base, whiten=parts[0], constant=parts[1])

        parts = conditional.whiten[:, 0], conditional.constant[:, 0]
        return ByPattern(self, base, conditional, marginal, parts)

    def plain_partial_form(self, patterns: Bool[Array, "P D"] | None) -> Any:
        """The same about each member's own mean."""
        return centred_partial_form(self, self.scale_tril[None], patterns)

    def maximize(self, stats: GaussianStats, frozen: parameters.Names = ()) -> Self:
        """Weighted means and the pooled scatter, its eigenvalues raised to the floor.

        A member without weight keeps its mean.  With `mean` frozen the covariance is the second
        moment about those means.
        """
        move = jnp.zeros_like(self.mean) if "mean" in frozen else moments.shift(stats)
        mean = self.mean + move
        if "log_cholesky" in frozen:
            return replace(self, mean=mean)
        none = stats.covariance_weight == 0
        covariance = _scatter(stats, move) / jnp.where(none, 1, stats.covariance_weight)
        covariance = jnp.where(none, jnp.eye(mean.shape[1], dtype=mean.dtype), covariance)
        packed = cov.pack(cov.floored_cholesky(covariance, stats.floor))
        return replace(self, mean=mean, log_cholesky=jnp.where(none, self.log_cholesky, packed))

    def expected_log_prob(self, stats: GaussianStats, candidate: Self) -> Float[Array, ""]:
        """Q: Σ r log N(x | candidate), from moments about self's means."""
        scatter = _scatter(stats, candidate.mean - self.mean)
        whiten = cov.inverse(candidate.scale_tril)
        distance = jnp.einsum("ij,jl,il->", whiten, scatter, whiten, precision=PRECISION)
        return stats.covariance_weight * candidate._constant - 0.5 * distance

    def pretend(self, prior: em.Prior) -> GaussianStats:
        """The prior's rows at `mean` and its scatter (once, not per member), about self's means."""
        weight, away = moments.pretend_mean(prior, self.mean)
        scatter = moments.pretend_scatter(prior, self.mean.shape[1], self.mean.dtype)
        outer = jnp.einsum("k,ki,kj->ij", weight, away, away, precision=PRECISION)
        return GaussianStats(
            weight,
            jnp.asarray(prior.scatter_weight, self.mean.dtype),
            weight[:, None] * away,
            scatter + outer,
            moments.pretend_floor(prior, self.mean.dtype),
        )

    def sample(self, key: Array, member: Int[Array, " N"]) -> Float[Array, "N D"]:
        """One row from each of the members named."""
        noise = jax.random.normal(key, (len(member), *self.event_shape), self.mean.dtype)
        return self.mean[member] + jnp.dot(noise, self.scale_tril.T, precision=PRECISION)

    def marginal(self, dims: Any) -> Self:
        """The members of these features alone, in this order.  Bishop (2006) 2.98."""
        named, others = features.split(dims, self.mean.shape[1])
        factor = features.first(self.scale_tril, named, others)
        kept = factor[: len(named), : len(named)]
        return replace(self, mean=jnp.asarray(self.mean)[:, named], log_cholesky=cov.pack(kept))

    def condition(self, dims: Any, values: Any) -> tuple[Self, Float[Array, " K"]]:
        """The members of the other features given values [d] of these, and log p(values).

        Their covariance is shared as well.  Bishop (2006) 2.81-2.82, 2.98.
        """
        named, others, values = features.split_known(dims, values, self.mean.shape[1])
        mean, size = jnp.asarray(self.mean), len(named)
        factor = features.first(self.scale_tril, named, others)
        noise, moved = features.regress(factor, values.astype(mean.dtype) - mean[:, named])
        log_scale = jnp.sum(jnp.log(jnp.diagonal(factor[:size, :size])))
        log_prob = moments.gaussian_constant(size) - 0.5 * jnp.sum(noise**2, -1) - log_scale
        kept = cov.pack(factor[size:, size:])
        return replace(self, mean=mean[:, others] + moved, log_cholesky=kept), log_prob

    @classmethod
    def pooled(cls, x: Float[Array, "N D"], num_members: int) -> Self:
        """Every member at the mean of all rows, with their covariance."""
        return cls.from_moments(*moments.pooled_moments(x, num_members))


def _scatter(stats: GaussianStats, move: Float[Array, "K D"]) -> Float[Array, "D D"]:
    """Σ_k Σ r (x − μ_k − move_k)(x − μ_k − move_k)ᵀ from moments about μ_k."""
    cross = jnp.dot(stats.first.T, move, precision=PRECISION)
    outer = jnp.einsum("k,ki,kj->ij", stats.weight, move, move, precision=PRECISION)
    return stats.second - cross - cross.T + outer


@dataclass(frozen=True)
class TiedFeatures:
    """Log-densities from whitened rows, statistics from [1; x] and one pooled Σ x xᵀ."""

    family: TiedGaussian
    accurate: Bool[Array, ""]
    whiten: Float[Array, "D D"]
    constant: Float[Array, ""]  # the log-density of a row at the mean

    @classmethod
    def of(cls, family: TiedGaussian) -> Self:
        """The features of the members."""
        whiten = cov.inverse(family.scale_tril)
        accurate = moments.accurate(family.mean, jnp.sum(whiten**2, -2))
        return cls(family, accurate, whiten, family._constant)

    def log_prob(self, x: Float[Array, "n D"]) -> Float[Array, "n K"]:
        """Log-density of every row under every member."""
        columns = jnp.asarray(x, self.whiten.dtype).T
        rows = jnp.dot(self.whiten, columns, precision=PRECISION)
        means = jnp.dot(self.family.mean, self.whiten.T, precision=PRECISION)
        constant = self.constant - 0.5 * jnp.sum(means**2, 1)
        product = jnp.dot(means, rows, precision=PRECISION)
        return (product + constant[:, None] - 0.5 * jnp.sum(rows**2, 0)).T

    def stats(self, x: Float[Array, "n D"], responsibilities: Array) -> tuple[Array, Array]:
        """Sums of [1; x] per member, and of x xᵀ over members."""
        columns = jnp.asarray(x, self.whiten.dtype).T
        ones = jnp.ones((1, columns.shape[1]), columns.dtype)
        sums = moments.weighted_sums(jnp.concatenate([ones, columns]), responsibilities)
        weighted = columns * jnp.sum(responsibilities.T, 0)
        return sums, jnp.dot(weighted, columns.T, precision=PRECISION)

    def finish(self, total: tuple[Array, Array]) -> GaussianStats:
        """Moments about the means from the sums."""
        sums, second = total
        mean = self.family.mean
        weight, raw, first = moments.stats_about(sums, mean)
        cross = jnp.dot(raw.T, mean, precision=PRECISION)
        second = second - cross - jnp.dot(mean.T, first, precision=PRECISION)
        return GaussianStats(weight, jnp.sum(weight), first, second, jnp.zeros((), weight.dtype))
