"""Binary observations."""

from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxem import em, parameters
from jaxem.data import is_traced, refuse
from jaxem.families.optional import finite_rows
from jaxem.missing import Partial
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION, expected_log, log, relative_entropy, times


@pytree
class BernoulliStats:
    """Expected counts of ones and of zeros."""

    successes: Float[Array, "K ..."]
    failures: Float[Array, "K ..."]


@pytree
class Bernoulli:
    """Independent binary features, 0 or 1, with log-odds as parameters.

    Logits [K] for observations [N], or [K, D] for observations [N, D].  Infinite logits are legal
    (probabilities 0 and 1).  Bishop (2006) §9.3.3.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> coins = jaxem.Bernoulli.from_probs(jnp.array([0.5, 1.0]))
        >>> print(jnp.exp(coins.log_prob(jnp.array([1, 0]))).round(3))
        [[0.5 1. ]
         [0.5 0. ]]
    """

    logits: Float[Array, "K ..."]  # log-odds of a one

    @classmethod
    def from_probs(cls, probs: Any) -> Self:
        """The members with these probabilities of a one.

        Raises:
            ValueError: a probability outside [0, 1].
        """
        probs = jnp.asarray(probs)
        if not is_traced(probs) and not np.all((probs >= 0) & (probs <= 1)):
            raise ValueError(f"probs must lie in [0, 1], got {probs}.")
        return cls(jnp.log(probs) - jnp.log1p(-probs))

    @property
    def probs(self) -> Float[Array, "K ..."]:
        """Probability of a one."""
        return jax.nn.sigmoid(jnp.asarray(self.logits))

    @property
    def num_members(self) -> int:
        """K."""
        return self.logits.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """() or (D,)."""
        return self.logits.shape[1:]

    @property
    def num_parameters(self) -> int:
        """Number of finite logits."""
        return int(parameters.count(self))

    def check(self) -> None:
        """Raise a ValueError unless the logits are [K] or [K, D]."""
        if np.ndim(self.logits) not in (1, 2):
            raise ValueError(
                f"Bernoulli.logits must be [K] or [K, D], got {np.shape(self.logits)}."
            )

    def validate(self, x: Any, leading: int = 1) -> Array:
        """Rows of zeros and ones, or a ValueError naming the first other value."""
        x = finite_rows(x, self.event_shape, leading)
        refuse((x != 0) & (x != 1), x, "data must be 0 or 1", "recode it.", leading)
        return x

    def log_prob(self, x: Array) -> Float[Array, "N K"]:
        """Log-probability of each row under each member.  Bishop (2006) 9.44."""
        logits = self.logits.reshape(self.num_members, -1)
        ones = x.reshape(len(x), -1).astype(logits.dtype)
        return expected_log(ones, jax.nn.log_sigmoid(logits)) + expected_log(
            1 - ones, jax.nn.log_sigmoid(-logits)
        )

    def stats(self, x: Array, responsibilities: Float[Array, "N K"]) -> BernoulliStats:
        """Expected numbers of ones and zeros of every member."""
        ones = x.reshape(len(x), -1).astype(responsibilities.dtype)
        successes = jnp.dot(responsibilities.T, ones, precision=PRECISION)
        failures = jnp.dot(responsibilities.T, 1 - ones, precision=PRECISION)
        shape = self.logits.shape
        return BernoulliStats(successes.reshape(shape), failures.reshape(shape))

    def partial_form(self, _: Any = None) -> "PartialBernoulli":
        """The members on rows with missing entries, whose patterns do not matter here."""
        return PartialBernoulli(self)

    def maximize(self, stats: BernoulliStats, frozen: parameters.Names = ()) -> Self:
        """Share of ones; a member without counts keeps its parameters.  Bishop (2006) 9.59."""
        none = (stats.successes == 0) & (stats.failures == 0)
        ones, zeros = jnp.where(none, 1, stats.successes), jnp.where(none, 1, stats.failures)
        return type(self)(jnp.where(none, self.logits, log(ones) - log(zeros)))

    def expected_log_prob(self, stats: BernoulliStats, candidate: Self) -> Float[Array, ""]:
        """Q: Σ ones · log p + zeros · log(1 − p)."""
        return jnp.sum(
            times(stats.successes, jax.nn.log_sigmoid(candidate.logits))
            + times(stats.failures, jax.nn.log_sigmoid(-candidate.logits))
        )

    def pretend(self, prior: em.Prior) -> BernoulliStats:
        """The prior's `successes` and `failures`, a Beta(successes + 1, failures + 1) prior."""
        logits = jnp.asarray(self.logits)
        shape = logits.shape
        successes = jnp.broadcast_to(jnp.asarray(prior.successes, logits.dtype), shape)
        failures = jnp.broadcast_to(jnp.asarray(prior.failures, logits.dtype), shape)
        return BernoulliStats(
            jnp.where(jnp.isneginf(logits), 0, successes),
            jnp.where(jnp.isposinf(logits), 0, failures),
        )

    def sample(self, key: Array, member: Int[Array, " N"]) -> Int[Array, "N ..."]:
        """One row of zeros and ones from each of the members named."""
        return jax.random.bernoulli(key, self.probs[member]).astype(int)

    @classmethod
    def pooled(cls, x: Any, num_members: int) -> Self:
        """Every member at the overall share of ones."""
        share = jnp.mean(jnp.asarray(x).astype(jnp.zeros(()).dtype), 0)
        return cls.from_probs(jnp.broadcast_to(share, (num_members, *share.shape)))


@dataclass(frozen=True)
class PartialBernoulli:
    """Members on rows with missing entries, of which ones and zeros are expected as they are."""

    family: Bernoulli

    @property
    def accurate(self) -> bool:
        """True: it is the definition."""
        return True

    def _counts(self, x: Partial) -> tuple[Array, Array, Array]:
        """Ones, zeros and missing entries, [n, D] each."""
        dtype = self.family.logits.dtype
        observed = x.observed.reshape(len(x.observed), -1)
        ones = jnp.where(observed, x.values.reshape(observed.shape), 0).astype(dtype)
        return ones, observed.astype(dtype) - ones, (~observed).astype(dtype)

    def log_prob(self, x: Partial) -> Float[Array, "N K"]:
        """Marginal log-probability of what is observed of each row."""
        ones, zeros, _ = self._counts(x)
        log_one, log_zero = self._log_probs
        return expected_log(ones, log_one) + expected_log(zeros, log_zero)

    def stats(self, x: Partial, responsibilities: Float[Array, "N K"]) -> Any:
        """Expected numbers of ones, zeros and missing entries of every member."""
        return tuple(
            jnp.dot(responsibilities.T, counts, precision=PRECISION).reshape(
                self.family.logits.shape
            )
            for counts in self._counts(x)
        )

    def finish_given(self, form: "PartialBernoulli", total: Any) -> BernoulliStats:
        """Of what is missing, ones and zeros are expected as `form` has them."""
        ones, zeros, missing = total
        logits = form.family.logits
        return BernoulliStats(
            ones + missing * jax.nn.sigmoid(logits), zeros + missing * jax.nn.sigmoid(-logits)
        )

    def missing_entropy(self, x: Partial) -> Float[Array, "N K"]:
        """Entropy of what is missing of every row given the member."""
        one, zero = (times(jnp.exp(log_prob), log_prob) for log_prob in self._log_probs)
        return -jnp.dot(self._counts(x)[2], (one + zero).T, precision=PRECISION)

    def missing_divergence(self, other: "PartialBernoulli", x: Partial) -> Float[Array, "N K"]:
        """Divergence of what is missing of every row, given the member, from that of `other`."""
        one, zero = map(relative_entropy, self._log_probs, other._log_probs)
        return -expected_log(self._counts(x)[2], -one - zero)

    @property
    def _log_probs(self) -> tuple[Float[Array, "K D"], Float[Array, "K D"]]:
        logits = self.family.logits.reshape(self.family.num_members, -1)
        return jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)

    def expected(self, _: Partial, responsibilities: Float[Array, "N K"]) -> Float[Array, "N ..."]:
        """Probabilities of a one, mixed: what is observed says nothing else of the rest."""
        probs = jax.nn.sigmoid(self.family.logits)
        return jnp.tensordot(responsibilities, probs, 1, precision=PRECISION)

    def draw(self, key: Array, _: Partial, member: Int[Array, " N"]) -> Int[Array, "N ..."]:
        """One row of zeros and ones from each of the members named."""
        return self.family.sample(key, member)
