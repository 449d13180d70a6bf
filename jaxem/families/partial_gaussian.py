"""Full and tied Gaussians on rows with missing entries, which the observed ones say something of.

Statistics are conditional expectations of the complete ones: conditional means *and* conditional
covariances.  Little & Rubin (2019) §11.2.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.families import moments
from jaxem.families.conditional import Conditional
from jaxem.families.moments import GaussianStats
from jaxem.missing import Partial, PerPattern
from jaxem.semiring import PRECISION


@dataclass(frozen=True)
class ByPattern:
    """Members on chunks whose rows all lack the same entries: the cost is that of complete rows.

    A chunk goes through the complete-data form of the marginal of its pattern, and its raw
    statistics are summed for the pattern.  What they hold of missing entries is never used.
    """

    family: Any
    base: Any  # the form that makes and finishes the statistics of complete rows
    conditional: Conditional  # [P, J, ...]: J is K, or 1 where the members share a covariance
    marginal: Callable[[Any], Any]  # a pattern's part of the tables -> the form of its marginal
    tables: Any  # leaves [P, ...]

    @property
    def accurate(self) -> Any:
        """Whether the base is."""
        return self.base.accurate

    def log_prob(self, x: Partial) -> Float[Array, "n K"]:
        """Marginal log-density of what is observed of every row under every member."""
        of_pattern = jax.tree.map(lambda table: table[x.pattern], self.tables)
        return self.marginal(of_pattern).log_prob(x.values)

    def stats(self, x: Partial, responsibilities: Float[Array, "n K"]) -> PerPattern:
        """Raw statistics of the values as they are."""
        return PerPattern(self.base.stats(x.values, responsibilities))

    def finish_given(self, form: "ByPattern", total: PerPattern) -> GaussianStats:
        """Expected complete moments about this form's means, what is missing inferred by `form`."""
        seen: GaussianStats = jax.vmap(self.base.finish)(total.sums)  # leaves [P, ...]
        patterns, members, size = seen.first.shape
        slope = form.conditional.regression.reshape(patterns, -1, size, size)
        covariance = form.conditional.covariance.reshape(patterns, -1, size, size)
        # E[x − μ'] = A (x − μ')_o + c, where c is 0 for what is observed.
        away = form.family.mean - self.family.mean
        constant = away - _product(slope, jnp.broadcast_to(away, seen.first.shape))
        moved = _product(slope, seen.first)
        cross = moved[..., None] * constant[..., None, :]
        outer = constant[..., None] * constant[..., None, :]
        weight = seen.weight[..., None, None]
        added = cross + jnp.swapaxes(cross, -1, -2) + weight * (outer + covariance)
        second = seen.second.reshape(patterns, -1, size, size)
        second = jnp.matmul(slope, second, precision=PRECISION)
        second = jnp.matmul(second, jnp.swapaxes(slope, -1, -2), precision=PRECISION)
        tied = seen.covariance_weight.ndim == 1
        return GaussianStats(
            jnp.sum(seen.weight, 0),
            jnp.sum(seen.covariance_weight, 0),
            jnp.sum(moved + seen.weight[..., None] * constant, 0),
            jnp.sum(second, (0, 1) if tied else 0) + jnp.sum(added, (0, 1) if tied else 0),
            jnp.zeros((), away.dtype),
        )

    def missing_entropy(self, x: Partial) -> Float[Array, "n K"]:
        """Entropy of what is missing of every row given the member."""
        shape = (len(x.values), self.family.num_members)
        return jnp.broadcast_to(self.conditional.entropy[x.pattern], shape)

    def missing_divergence(self, other: "ByPattern", x: Partial) -> Float[Array, "n K"]:
        """Divergence of what is missing of every row, given the member, from that of `other`."""
        here, there = (
            jax.tree.map(lambda leaf: leaf[x.pattern], form.conditional) for form in (self, other)
        )
        turn, rest = here.divergence(there)
        moved = jnp.matmul(turn, here.regression, precision=PRECISION)
        away = self.family.mean - other.family.mean
        shift = jnp.sum(turn * away[:, None], -1)
        members, size = away.shape
        moved = jnp.broadcast_to(moved, (members, size, size))
        columns = jnp.asarray(x.values, away.dtype).T

        def member(parts: Any) -> Array:
            mean, moved, shift = parts
            z = jnp.dot(moved, columns - mean[:, None], precision=PRECISION) + shift[:, None]
            return 0.5 * jnp.sum(z**2, 0)

        return lax.map(member, (self.family.mean, moved, shift)).T + rest

    def expected(self, x: Partial, responsibilities: Float[Array, "n K"]) -> Float[Array, "n D"]:
        """Conditional means of the members, mixed."""
        return self._colored(x, responsibilities, jnp.zeros_like(self.family.mean[:1]))

    def draw(self, key: Array, x: Partial, member: Int[Array, " n"]) -> Float[Array, "n D"]:
        """The conditional mean of the member of each row, and noise of its conditional
        covariance."""
        mean = self.family.mean
        noise = jax.random.normal(key, x.values.shape, mean.dtype)
        return self._colored(x, jax.nn.one_hot(member, len(mean), dtype=mean.dtype), noise)

    def _colored(
        self, x: Partial, share: Float[Array, "n K"], unknown: Float[Array, "n D"]
    ) -> Float[Array, "n D"]:
        """Σ_k share · (μ_k + what z colors), member by member; z is known, or `unknown`."""
        here = jax.tree.map(lambda leaf: leaf[x.pattern], self.conditional)
        if len(here.color) == 1:  # one matrix for all members: it colors their mixture
            means = jnp.dot(share, self.family.mean, precision=PRECISION).T[None]  # [1, D, n]
            share = jnp.ones_like(share[:, :1])
        else:
            means = self.family.mean[..., None]  # [K, D, 1]
        columns = jnp.asarray(x.values, means.dtype).T
        rest = jnp.where(here.known[0][:, None], 0, unknown.T)  # all members lack the same of z

        def member(total: Array, parts: Any) -> tuple[Array, None]:
            mean, share, whiten, color = parts
            z = jnp.dot(whiten, columns - mean, precision=PRECISION) + rest
            return total + share * (mean + jnp.dot(color, z, precision=PRECISION)), None

        parts = means, share.T, here.whiten, here.color
        return lax.scan(member, jnp.zeros_like(columns), parts)[0].T


@dataclass(frozen=True)
class ByRow:
    """Members on rows of which each lacks entries of its own: a factorisation a row and member."""

    family: Any
    scale_tril: Float[Array, "J D D"]  # J is K, or 1 where the members share a covariance

    @property
    def accurate(self) -> bool:
        """True: every row is taken about each member's own mean."""
        return True

    def infer(self, x: Partial) -> Partial:
        """The rows with their conditionals [n, J, ...] and what is known of z, [n, K, D]."""
        conditional = Conditional.of(self.scale_tril, x.observed[:, None])
        away = jnp.where(x.observed[:, None], x.values[:, None] - self.family.mean, 0)
        return replace(x, inferred=(conditional, _product(conditional.whiten, away)))

    def log_prob(self, x: Partial) -> Float[Array, "n K"]:
        """Marginal log-density of what is observed of every row under every member."""
        conditional, noise = (self.infer(x) if x.inferred is None else x).inferred
        return conditional.constant - 0.5 * jnp.sum(noise**2, -1)

    def stats_given(
        self, form: "ByRow", x: Partial, responsibilities: Float[Array, "n K"]
    ) -> GaussianStats:
        """Expected complete moments about this form's means, what is missing inferred by `form`."""
        conditional, noise = (form.infer(x) if x.inferred is None else x).inferred
        mean = self.family.mean
        inferred = form.family.mean - mean + _product(conditional.color, noise)
        expected = jnp.where(x.observed[:, None], x.values[:, None] - mean, inferred)
        weighted = expected * responsibilities[..., None]
        free = jnp.where(conditional.known[..., None, :], 0, conditional.color)
        tied = jnp.ndim(self.family.log_cholesky) == 1
        share = jnp.sum(responsibilities, 1, keepdims=True) if tied else responsibilities
        scatter = jnp.einsum("nki,nkj->kij", weighted, expected, precision=PRECISION)
        spread = jnp.einsum(
            "nkij,nklj->kil", free * share[..., None, None], free, precision=PRECISION
        )
        weight = jnp.sum(responsibilities.T, 1)
        return GaussianStats(
            weight,
            jnp.sum(weight) if tied else weight,
            jnp.sum(weighted, 0),
            jnp.sum(scatter, 0) + spread[0] if tied else scatter + spread,
            jnp.zeros((), weight.dtype),
        )

    def finish_given(self, _: "ByRow", total: GaussianStats) -> GaussianStats:
        """The statistics as they are."""
        return total

    def missing_entropy(self, x: Partial) -> Float[Array, "n K"]:
        """Entropy of what is missing of every row given the member."""
        conditional, noise = self.infer(x).inferred
        return jnp.broadcast_to(conditional.entropy, noise.shape[:-1])

    def missing_divergence(self, other: "ByRow", x: Partial) -> Float[Array, "n K"]:
        """Divergence of what is missing of every row, given the member, from that of `other`."""
        conditional, noise = self.infer(x).inferred
        turn, rest = conditional.divergence(other.infer(x).inferred[0])
        away = self.family.mean - other.family.mean + _product(conditional.color, noise)
        return 0.5 * jnp.sum(_product(turn, away) ** 2, -1) + rest

    def expected(self, x: Partial, responsibilities: Float[Array, "n K"]) -> Float[Array, "n D"]:
        """Conditional means of the members, mixed."""
        each = self._colored(x, jnp.zeros_like(self.family.mean[:1]))
        return jnp.einsum("nk,nki->ni", responsibilities, each, precision=PRECISION)

    def draw(self, key: Array, x: Partial, member: Int[Array, " n"]) -> Float[Array, "n D"]:
        """The conditional mean of the member of each row, and noise of its conditional
        covariance."""
        each = self._colored(x, jax.random.normal(key, x.values.shape, self.family.mean.dtype))
        return jnp.take_along_axis(each, member[:, None, None], 1)[:, 0]

    def _colored(self, x: Partial, unknown: Float[Array, "n D"]) -> Float[Array, "n K D"]:
        """μ + what z colors, of every row and member; z is known, or `unknown`."""
        conditional, noise = (self.infer(x) if x.inferred is None else x).inferred
        z = jnp.where(conditional.known, noise, unknown[:, None])
        return self.family.mean + _product(conditional.color, z)


@dataclass(frozen=True)
class Centred:
    """Complete rows, whitened about each member's own mean."""

    family: Any
    whiten: Float[Array, "K D D"]
    constant: Float[Array, " K"]

    @property
    def accurate(self) -> bool:
        """True: nothing is expanded."""
        return True

    def log_prob(self, x: Float[Array, "n D"]) -> Float[Array, "n K"]:
        """Log-density of every row under every member."""
        columns = jnp.asarray(x, self.family.mean.dtype).T
        members = self.family.mean, self.whiten, self.constant
        return lax.map(lambda member: moments.whitened(columns, *member), members).T

    def stats(self, x: Float[Array, "n D"], responsibilities: Float[Array, "n K"]) -> GaussianStats:
        """The family's statistics."""
        return self.family.stats(x, responsibilities)

    def finish(self, total: GaussianStats) -> GaussianStats:
        """The family's statistics, which need no finishing."""
        return total


def centred_partial_form(
    family: Any, scale_tril: Float[Array, "J D D"], patterns: Bool[Array, "P D"] | None
) -> Any:
    """A full or tied family about each member's own mean, by pattern or by row."""
    if patterns is None:
        return ByRow(family, scale_tril)
    conditional = Conditional.of(scale_tril, patterns[:, None])
    members = (len(patterns), family.num_members)
    size = family.mean.shape[1]
    whiten = jnp.broadcast_to(conditional.whiten, (*members, size, size))
    constant = jnp.broadcast_to(conditional.constant, members)

    def marginal(parts: tuple[Array, Array]) -> Centred:
        return Centred(family, *parts)

    base = Centred(family, whiten[0], constant[0])
    return ByPattern(family, base, conditional, marginal, (whiten, constant))


def _product(matrix: Float[Array, "N J D D"], vector: Float[Array, "N K D"]) -> Array:
    """Each matrix times its vector; one matrix a row serves all of them."""
    if matrix.shape[1] == 1:
        return jnp.matmul(vector, jnp.swapaxes(matrix[:, 0], -1, -2), precision=PRECISION)
    return jnp.sum(matrix * vector[..., None, :], -1)
