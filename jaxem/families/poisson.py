"""Counts."""

from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Int

from jaxem import em, parameters
from jaxem.data import is_traced, refuse
from jaxem.families.optional import finite_rows
from jaxem.missing import Partial
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION, expected_log, log, relative_entropy, times


@pytree
class PoissonStats:
    """Expected counts per member, and the base measure that makes Q a log-probability."""

    exposure: Float[Array, " K"]  # Σ r: how many observations each member explains
    events: Float[Array, "K ..."]  # Σ r x
    log_base: Float[Array, ""]  # Σ r log x! over what is observed


@pytree
class Poisson:
    """Poisson counts, with log-rates [K] for observations [N] or [K, D] for independent [N, D].

    A log-rate of -inf is rate 0: it explains zeros and nothing else.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> calm_and_busy = jaxem.Poisson.from_rate(jnp.array([0.0, 2.0]))
        >>> jnp.exp(calm_and_busy.log_prob(jnp.array([0, 2]))).round(4).tolist()
        [[1.0, 0.13529999554157257], [0.0, 0.27070000767707825]]
    """

    log_rate: Float[Array, "K ..."]

    @classmethod
    def from_rate(cls, rate: Any) -> Self:
        """The members with these rates.

        Raises:
            ValueError: a negative or NaN rate.
        """
        rate = jnp.asarray(rate)
        if not is_traced(rate) and not np.all(rate >= 0):
            raise ValueError(f"rate must not be negative, got {rate}.")
        return cls(jnp.log(rate))

    @property
    def rate(self) -> Float[Array, "K ..."]:
        """Expected count."""
        return jnp.exp(jnp.asarray(self.log_rate))

    @property
    def num_members(self) -> int:
        """K."""
        return self.log_rate.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """() or (D,)."""
        return self.log_rate.shape[1:]

    @property
    def num_parameters(self) -> int:
        """Number of positive rates."""
        return int(parameters.count(self))

    def check(self) -> None:
        """Raise a ValueError unless the log-rates are [K] or [K, D]."""
        if np.ndim(self.log_rate) not in (1, 2):
            raise ValueError(
                f"Poisson.log_rate must be [K] or [K, D], got {np.shape(self.log_rate)}."
            )

    def validate(self, x: Any, leading: int = 1) -> Array:
        """Rows of counts, or a ValueError naming the first that is negative or not whole."""
        x = finite_rows(x, self.event_shape, leading)
        bad = (x < 0) | (x != x.round())
        refuse(bad, x, "counts must be whole numbers >= 0", "recode it.", leading)
        return x

    def log_prob(self, x: Array) -> Float[Array, "N K"]:
        """Σ_d x log λ − λ − log x!, with 0 · log 0 = 0."""
        log_rate = self.log_rate.reshape(self.num_members, -1)
        counts = x.reshape(len(x), -1).astype(log_rate.dtype)
        log_base = jnp.sum(gammaln(counts + 1), 1)
        return expected_log(counts, log_rate) - jnp.sum(jnp.exp(log_rate), 1) - log_base[:, None]

    def stats(self, x: Array, responsibilities: Float[Array, "N K"]) -> PoissonStats:
        """Expected number of observations and of events of every member."""
        counts = x.reshape(len(x), -1).astype(responsibilities.dtype)
        events = jnp.dot(responsibilities.T, counts, precision=PRECISION)
        log_base = jnp.sum(jnp.sum(gammaln(counts + 1), 1) * jnp.sum(responsibilities, 1))
        exposure = jnp.sum(responsibilities.T, 1)
        return PoissonStats(exposure, events.reshape(self.log_rate.shape), log_base)

    def partial_form(self, _: Any = None) -> "PartialPoisson":
        """The members on rows with missing entries, whose patterns do not matter here."""
        return PartialPoisson(self)

    def maximize(self, stats: PoissonStats, frozen: parameters.Names = ()) -> Self:
        """Events over exposure; a member without exposure keeps its rate."""
        exposure = stats.exposure.reshape(-1, *[1] * len(self.event_shape))
        none = exposure == 0
        log_rate = log(stats.events) - jnp.log(jnp.where(none, 1, exposure))
        return type(self)(jnp.where(none, self.log_rate, log_rate))

    def expected_log_prob(self, stats: PoissonStats, candidate: Self) -> Float[Array, ""]:
        """Q: Σ events · log λ − exposure · λ − Σ r log x!."""
        exposure = stats.exposure.reshape(-1, *[1] * len(self.event_shape))
        terms = times(stats.events, candidate.log_rate) - exposure * jnp.exp(candidate.log_rate)
        return jnp.sum(terms) - stats.log_base

    def pretend(self, prior: em.Prior) -> PoissonStats:
        """The prior's `events` in `exposure` observations, a Gamma(events + 1, exposure) prior."""
        log_rate = jnp.asarray(self.log_rate)
        events = jnp.broadcast_to(jnp.asarray(prior.events, log_rate.dtype), log_rate.shape)
        exposure = jnp.asarray(prior.exposure, log_rate.dtype)
        return PoissonStats(
            jnp.broadcast_to(exposure, log_rate.shape[:1]),
            jnp.where(jnp.isneginf(log_rate), 0, events),
            jnp.zeros((), log_rate.dtype),
        )

    def sample(self, key: Array, member: Int[Array, " N"]) -> Int[Array, "N ..."]:
        """One count (or row of counts) from each of the members named."""
        return jax.random.poisson(key, self.rate[member])

    @classmethod
    def pooled(cls, x: Any, num_members: int) -> Self:
        """Every member at the overall mean."""
        mean = jnp.mean(jnp.asarray(x).astype(jnp.zeros(()).dtype), 0)
        return cls(jnp.log(jnp.broadcast_to(mean, (num_members, *mean.shape))))


@dataclass(frozen=True)
class PartialPoisson:
    """Members on rows with missing entries, of which as many events are expected as the rate.

    The expectation of log x! of a missing count has no closed form, and no step needs it: Q leaves
    it out.
    """

    family: Poisson

    @property
    def accurate(self) -> bool:
        """True: it is the definition."""
        return True

    def _counts(self, x: Partial) -> tuple[Array, Array, Array]:
        """Counts, 0 where missing, and what is observed, [n, D] each; Σ log x! [n]."""
        dtype = self.family.log_rate.dtype
        observed = x.observed.reshape(len(x.observed), -1)
        counts = jnp.where(observed, x.values.reshape(observed.shape), 0).astype(dtype)
        return counts, observed.astype(dtype), jnp.sum(gammaln(counts + 1), 1)

    def log_prob(self, x: Partial) -> Float[Array, "N K"]:
        """Marginal log-probability of what is observed of each row."""
        counts, observed, log_base = self._counts(x)
        log_rate = self.family.log_rate.reshape(self.family.num_members, -1)
        rate = jnp.dot(observed, jnp.exp(log_rate).T, precision=PRECISION)
        return expected_log(counts, log_rate) - rate - log_base[:, None]

    def stats(self, x: Partial, responsibilities: Float[Array, "N K"]) -> Any:
        """Exposure, events, missing entries of every member, and the base measure."""
        counts, observed, log_base = self._counts(x)
        events, missing = (
            jnp.dot(responsibilities.T, part, precision=PRECISION).reshape(
                self.family.log_rate.shape
            )
            for part in (counts, 1 - observed)
        )
        log_base = jnp.sum(log_base * jnp.sum(responsibilities, 1))
        return jnp.sum(responsibilities.T, 1), events, missing, log_base

    def finish_given(self, form: "PartialPoisson", total: Any) -> PoissonStats:
        """Of what is missing, events are expected as `form` has them."""
        exposure, events, missing, log_base = total
        return PoissonStats(exposure, events + missing * jnp.exp(form.family.log_rate), log_base)

    def missing_entropy(self, x: Partial) -> Float[Array, "N K"]:
        """Entropy of what is missing of every row given the member, relative to the measure 1/x!.

        So it leaves out the expectation of log x!, as Q does.
        """
        log_rate = self.family.log_rate.reshape(self.family.num_members, -1)
        each = jnp.exp(log_rate) - times(jnp.exp(log_rate), log_rate)
        return jnp.dot(1 - self._counts(x)[1], each.T, precision=PRECISION)

    def missing_divergence(self, other: "PartialPoisson", x: Partial) -> Float[Array, "N K"]:
        """Divergence of what is missing of every row, given the member, from that of `other`."""
        each = relative_entropy(self.family.log_rate, other.family.log_rate)
        return -expected_log(1 - self._counts(x)[1], -each.reshape(self.family.num_members, -1))

    def expected(self, _: Partial, responsibilities: Float[Array, "N K"]) -> Float[Array, "N ..."]:
        """The rates of the members, mixed: what is observed says nothing else of the rest."""
        rate = jnp.exp(self.family.log_rate)
        return jnp.tensordot(responsibilities, rate, 1, precision=PRECISION)

    def draw(self, key: Array, _: Partial, member: Int[Array, " N"]) -> Int[Array, "N ..."]:
        """One row from each of the members named."""
        return self.family.sample(key, member)
