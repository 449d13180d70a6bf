"""Gaussians with a full covariance each."""

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
class Gaussian:
    """Multivariate normals N(μ_k, Σ_k) with Σ_k = L_k L_kᵀ, stored as packed log-Cholesky factors.

    Observations are [N, D] ([N] is taken as [N, 1] when D = 1).

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> covariance = jnp.stack([jnp.eye(3), 4 * jnp.eye(3)])
        >>> pair = jaxem.Gaussian.from_moments(jnp.zeros((2, 3)), covariance)
        >>> print(pair.log_prob(jnp.zeros((1, 3))).round(3))
        [[-2.757 -4.836]]
    """

    mean: Float[Array, "K D"]
    log_cholesky: Float[Array, "K P"]  # lower triangle by rows, diagonal in logs; P = D(D+1)/2
    method: str | None = field(default=None, metadata={"static": True})  # see `choose_form`

    @classmethod
    def from_moments(cls, mean: Any, covariance: Any) -> Self:
        """The members with means [K, D] and covariances [K, D, D] (or one [D, D] for all).

        Raises:
            ValueError: wrong shapes, or a covariance that is not symmetric positive definite.
        """
        mean = moments.validate_moments(mean, cls.__name__)
        factor = cov.cholesky_of(covariance, "covariance").astype(mean.dtype)
        members, size = mean.shape
        if factor.shape not in ((size, size), (members, size, size)):
            raise ValueError(
                f"covariance must have shape {[members, size, size]} for a mean of shape "
                f"{[members, size]}, got {list(factor.shape)}."
            )
        return cls(mean, cov.pack(jnp.broadcast_to(factor, (members, size, size))))

    @property
    def scale_tril(self) -> Float[Array, "K D D"]:
        """Cholesky factors of the covariances."""
        return cov.unpack(jnp.asarray(self.log_cholesky))

    @property
    def covariance(self) -> Float[Array, "K D D"]:
        """Covariance matrices."""
        factor = self.scale_tril
        return jnp.einsum("kij,klj->kil", factor, factor, precision=PRECISION)

    @property
    def num_members(self) -> int:
        """K."""
        return self.mean.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(D,)."""
        return self.mean.shape[1:]

    @property
    def num_features(self) -> int:
        """Numbers in a row's [1; x; x xᵀ]."""
        return (self.mean.shape[1] + 1) * (self.mean.shape[1] + 2) // 2

    @property
    def num_parameters(self) -> int:
        """K·D means and K·D(D+1)/2 covariances."""
        return int(parameters.count(self))

    def check(self) -> None:
        """Raise a ValueError unless the leaves are [K, D] and [K, D(D+1)/2]."""
        moments.check_method(self.method)
        members, size = moments.mean_shape(self.mean, "Gaussian")
        moments.check_leaf(
            self.log_cholesky, (members, size * (size + 1) // 2), "Gaussian.log_cholesky"
        )

    def validate(self, x: Any, leading: int = 1) -> Array:
        """Finite rows [N, D] (sequences [B, T, D]), or a ValueError naming the first bad entry."""
        return finite_rows(x, self.event_shape, leading)

    def translate(self, offset: Float[Array, " D"]) -> Self:
        """The members for data moved by `offset`."""
        return replace(self, mean=self.mean + offset)

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """Whether the proposal's means are close in its own standard deviations."""
        return moments.accurate(proposal.mean - self.mean, proposal.precision_diagonal)

    @property
    def precision_diagonal(self) -> Float[Array, "K D"]:
        """Diagonal of the precision matrices."""
        return jnp.sum(cov.inverse(self.scale_tril) ** 2, -2)

    @property
    def _constant(self) -> Float[Array, " K"]:
        size = self.event_shape[0]
        return moments.gaussian_constant(size) - 0.5 * cov.log_determinant(self.log_cholesky)

    def log_prob(self, x: Float[Array, "N D"]) -> Float[Array, "N K"]:
        """Log-density of every row under every member.  Bishop (2006) 2.43.

        One member at a time, whitened about its own mean: right for the tightest clusters.
        """
        columns = jnp.asarray(x, self.mean.dtype).T
        members = self.mean, cov.inverse(self.scale_tril), self._constant
        return lax.map(lambda member: moments.whitened(columns, *member), members).T

    def stats(self, x: Float[Array, "N D"], responsibilities: Float[Array, "N K"]) -> GaussianStats:
        """Expected moments of every member about its mean, one member at a time."""
        columns = jnp.asarray(x, self.mean.dtype).T

        def member(parts: Any) -> tuple[Array, Array, Array]:
            mean, weight = parts
            centred = columns - mean[:, None]
            weighted = centred * weight
            second = jnp.dot(weighted, centred.T, precision=PRECISION)
            return jnp.sum(weight), jnp.sum(weighted, 1), second

        weight, first, second = lax.map(member, (self.mean, responsibilities.T))
        return GaussianStats(weight, weight, first, second, jnp.zeros((), weight.dtype))

    def form(self) -> Any:
        """The members as products with quadratic features, unless `method` says otherwise."""
        return moments.choose_form(self, GaussianFeatures.of)

    @property
    def num_factors(self) -> int:
        """How many covariances are factored anew for each pattern of missing entries."""
        return self.num_members

    def partial_form(self, patterns: Bool[Array, "P D"] | None) -> Any:
        """The members on rows with missing entries, in these patterns or each in its own."""
        if patterns is None or self.method == "centred":
            return self.plain_partial_form(patterns)
        conditional = Conditional.of(self.scale_tril, patterns[:, None])
        coefficients = GaussianFeatures.coefficients_of(
            self.mean, conditional.precision, conditional.constant
        )
        # A marginal precision is at most that of all features: accurate for these is for those.
        base = moments.choose_form(self, GaussianFeatures.of)

        def marginal(coefficients: Array) -> GaussianFeatures:
            return replace(base, coefficients=coefficients)

        return ByPattern(self, base, conditional, marginal, coefficients)

    def plain_partial_form(self, patterns: Bool[Array, "P D"] | None) -> Any:
        """The same about each member's own mean."""
        return centred_partial_form(self, self.scale_tril, patterns)

    def maximize(self, stats: GaussianStats, frozen: parameters.Names = ()) -> Self:
        """Weighted means and scatters, the eigenvalues of the covariances raised to the floor.

        A member without weight keeps its parameters.  With `mean` frozen the covariance is the
        second moment about that mean.  Bishop (2006) 9.17, 9.19.
        """
        move = jnp.zeros_like(self.mean) if "mean" in frozen else moments.shift(stats)
        mean = self.mean + move
        if "log_cholesky" in frozen:
            return replace(self, mean=mean)
        none = (stats.covariance_weight == 0)[:, None, None]
        weight = jnp.where(none, 1, stats.covariance_weight[:, None, None])
        covariance = _scatter(stats, move) / weight
        covariance = jnp.where(none, jnp.eye(mean.shape[1], dtype=mean.dtype), covariance)
        packed = cov.pack(cov.floored_cholesky(covariance, stats.floor))
        return replace(
            self, mean=mean, log_cholesky=jnp.where(none[..., 0], self.log_cholesky, packed)
        )

    def expected_log_prob(self, stats: GaussianStats, candidate: Self) -> Float[Array, ""]:
        """Q: Σ r log N(x | candidate), from moments about self's means."""
        scatter = _scatter(stats, candidate.mean - self.mean)
        whiten = cov.inverse(candidate.scale_tril)
        distance = jnp.einsum("kij,kjl,kil->k", whiten, scatter, whiten, precision=PRECISION)
        return jnp.sum(stats.covariance_weight * candidate._constant - 0.5 * distance)

    def pretend(self, prior: em.Prior) -> GaussianStats:
        """The prior's rows at `mean` and scatter, about self's means."""
        weight, away = moments.pretend_mean(prior, self.mean)
        members, size = self.mean.shape
        scatter = moments.pretend_scatter(prior, size, self.mean.dtype)
        second = scatter + weight[:, None, None] * away[:, :, None] * away[:, None, :]
        covariance_weight = jnp.asarray(prior.scatter_weight, self.mean.dtype)
        return GaussianStats(
            weight,
            jnp.broadcast_to(covariance_weight, (members,)),
            weight[:, None] * away,
            jnp.broadcast_to(second, (members, size, size)),
            moments.pretend_floor(prior, self.mean.dtype),
        )

    def sample(self, key: Array, member: Int[Array, " N"]) -> Float[Array, "N D"]:
        """One row from each of the members named."""
        noise = jax.random.normal(key, (len(member), *self.event_shape), self.mean.dtype)
        factor = self.scale_tril[member]
        return self.mean[member] + jnp.einsum("nij,nj->ni", factor, noise, precision=PRECISION)

    def marginal(self, dims: Any) -> Self:
        """The members of these features alone, in this order.  Bishop (2006) 2.98."""
        named, others = features.split(dims, self.mean.shape[1])
        factor = features.first(self.scale_tril, named, others)
        kept = factor[..., : len(named), : len(named)]
        return replace(self, mean=jnp.asarray(self.mean)[:, named], log_cholesky=cov.pack(kept))

    def condition(self, dims: Any, values: Any) -> tuple[Self, Float[Array, " K"]]:
        """The members of the other features given values [d] of these, and log p(values).

        Bishop (2006) 2.81-2.82, 2.98.
        """
        named, others, values = features.split_known(dims, values, self.mean.shape[1])
        mean, size = jnp.asarray(self.mean), len(named)
        factor = features.first(self.scale_tril, named, others)
        noise, moved = features.regress(factor, values.astype(mean.dtype) - mean[:, named])
        scale = jnp.diagonal(factor[:, :size, :size], axis1=-2, axis2=-1)
        log_prob = moments.gaussian_constant(size) - jnp.sum(0.5 * noise**2 + jnp.log(scale), -1)
        kept = cov.pack(factor[:, size:, size:])
        return replace(self, mean=mean[:, others] + moved, log_cholesky=kept), log_prob

    @classmethod
    def pooled(cls, x: Float[Array, "N D"], num_members: int) -> Self:
        """Every member at the mean and covariance of all rows."""
        mean, covariance = moments.pooled_moments(x, num_members)
        return cls.from_moments(mean, covariance)


def _scatter(stats: GaussianStats, move: Float[Array, "K D"]) -> Float[Array, "K D D"]:
    """Σ r (x − μ − move)(x − μ − move)ᵀ from moments about μ."""
    cross = stats.first[:, :, None] * move[:, None, :]
    outer = move[:, :, None] * move[:, None, :]
    return stats.second - cross - jnp.swapaxes(cross, 1, 2) + stats.weight[:, None, None] * outer


@dataclass(frozen=True)
class GaussianFeatures:
    """Log-densities θ φ(x) and statistics φ(x)ᵀ r with φ = [1; x; x_i x_j]: two products a chunk.

    Exact algebra, but the expansion about the origin costs digits where a member is tight and far
    from it; `accurate` says where that is harmless.
    """

    family: Gaussian
    accurate: Bool[Array, ""]
    coefficients: Float[Array, "K F"]

    @classmethod
    def of(cls, family: Gaussian) -> Self:
        """The features' coefficients of each member."""
        whiten = cov.inverse(family.scale_tril)
        precision = jnp.einsum("kji,kjl->kil", whiten, whiten, precision=PRECISION)
        coefficients = cls.coefficients_of(family.mean, precision, family._constant)
        # Rows lie a standard deviation about the mean: correlation alone can cancel as much.
        size = jnp.sqrt(family.mean**2 + jnp.sum(family.scale_tril**2, -1))
        accurate = moments.accurate(size, jnp.diagonal(precision, axis1=-2, axis2=-1))
        return cls(family, accurate, coefficients)

    @staticmethod
    def coefficients_of(
        mean: Float[Array, "K D"],
        precision: Float[Array, "... K D D"],
        constant: Float[Array, "... K"],
    ) -> Float[Array, "... K F"]:
        """Coefficients of `constant` − ½ (x − mean)ᵀ `precision` (x − mean)."""
        linear = jnp.einsum("...ij,...j->...i", precision, mean, precision=PRECISION)
        constant = constant - 0.5 * jnp.sum(linear * mean, -1)
        quadratic = moments.outer_coefficients(-0.5 * precision)
        return jnp.concatenate([constant[..., None], linear, quadratic], -1)

    def _features(self, x: Float[Array, "n D"]) -> Float[Array, "F n"]:
        return moments.quadratic_features(jnp.asarray(x, self.coefficients.dtype).T)

    def log_prob(self, x: Float[Array, "n D"]) -> Float[Array, "n K"]:
        """Log-density of every row under every member."""
        return jnp.dot(self.coefficients, self._features(x), precision=PRECISION).T

    def stats(self, x: Float[Array, "n D"], responsibilities: Array) -> Float[Array, "F K"]:
        """Sums of the features."""
        return moments.weighted_sums(self._features(x), responsibilities)

    def finish(self, total: Float[Array, "F K"]) -> GaussianStats:
        """Moments about the means from the sums of the features."""
        mean = self.family.mean
        size = mean.shape[1]
        weight, raw, first = moments.stats_about(total, mean)
        second = moments.outer_matrix(total[size + 1 :], size)
        second = second - raw[:, :, None] * mean[:, None, :] - mean[:, :, None] * first[:, None, :]
        return GaussianStats(weight, weight, first, second, jnp.zeros((), weight.dtype))
