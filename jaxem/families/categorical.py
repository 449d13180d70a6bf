"""Tables of probabilities: mixture weights, transition matrices, and symbols as observations."""

from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxem import em, parameters
from jaxem.data import is_traced, refuse
from jaxem.missing import Partial
from jaxem.platform import is_cpu
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION, log, log_normalize, relative_entropy, times

# Symbols from which an accelerator adds row by row; with fewer, a product with a chunk's one-hot
# table is faster there.  A CPU always adds.
SCATTER_FROM = 1024


@pytree
class Categorical:
    """Probabilities over V alternatives on any leading axes, stored as logits.

    As mixture weights [K], initial [K] and transition [K, K] or [T-1, K, K] probabilities it is a
    table; as a family it is [K, V]: K members over V symbols, whose observations are integers in
    0..V-1.  A logit of -inf is a structural zero: it stays zero, also under a prior.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> loaded = jaxem.Categorical.from_probs(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(jnp.exp(loaded.log_prob(jnp.array([1, 0]))).round(2))
        [[0.5 0.1]
         [0.5 0.9]]
    """

    logits: Float[Array, "... V"]  # any real numbers, and -inf

    @classmethod
    def from_probs(cls, probs: Any) -> Self:
        """The table with these probabilities, which must be >= 0 and sum to 1 along the last axis.

        Raises:
            ValueError: a negative or NaN entry, or a row whose sum is not 1 to about 1e-3.
        """
        table = probs if isinstance(probs, jax.Array) else np.asarray(probs)
        table = table if jnp.issubdtype(table.dtype, jnp.floating) else table.astype(float)
        if not is_traced(table):
            host = np.asarray(table)
            if host.ndim == 0 or not np.all(host >= 0):
                raise ValueError(f"probs must be an array of numbers >= 0, got {probs}.")
            sums = host.sum(-1)
            if not np.allclose(sums, 1, rtol=0, atol=1e-3):
                raise ValueError(
                    f"probs must sum to 1 along the last axis, got sums {sums.tolist()}."
                )
        return cls(jnp.log(table))

    @property
    def log_probs(self) -> Float[Array, "... V"]:
        """Normalised logits."""
        return log_normalize(jnp.asarray(self.logits))

    @property
    def probs(self) -> Float[Array, "... V"]:
        """Probabilities along the last axis."""
        return jnp.exp(self.log_probs)

    @property
    def num_members(self) -> int:
        """K, the first axis."""
        return self.logits.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """An observation is one integer."""
        return ()

    @property
    def null_directions(self) -> Any:
        """How many directions of the logits change no probability: one a row."""
        xp = np if isinstance(self.logits, np.ndarray) else jnp
        return xp.sum(xp.any(xp.isfinite(self.logits), -1))

    @property
    def num_parameters(self) -> int:
        """Possible entries less one a row; structural zeros are not counted."""
        return int(parameters.count(self))

    def check(self) -> None:
        """Raise a ValueError when there is no axis of alternatives."""
        if np.ndim(self.logits) == 0:
            raise ValueError("Categorical.logits needs at least one axis, got a scalar.")

    def validate(self, x: Any, leading: int = 1) -> Array:
        """Symbols [N] as integers, or a ValueError naming the first that is not in 0..V-1."""
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        if x.ndim != leading:
            expected = "[N]" if leading == 1 else "[B, T]"
            raise ValueError(f"symbols must have shape {expected}, got {list(x.shape)}.")
        if self.logits.ndim != 2:
            raise ValueError(f"a categorical family needs logits [K, V], got {self.logits.shape}.")
        num_symbols = self.logits.shape[1]
        remedy = f"symbols are integers from 0 to {num_symbols - 1} here."
        if not jnp.issubdtype(x.dtype, jnp.integer):
            if x.dtype.kind not in "fb":
                raise ValueError(f"symbols must be integers, got an array of dtype {x.dtype}.")
            refuse(x != x.round(), x, "not a symbol", remedy, leading)  # NaN equals nothing
        refuse((x < 0) | (x >= num_symbols), x, "symbol out of range", remedy, leading)
        return x.astype(np.int32)

    def log_prob(self, x: Int[Array, " N"]) -> Float[Array, "N K"]:
        """Log-probability of each symbol under each member; NaN for a symbol outside 0..V-1."""
        table = self.log_probs.T
        legal = (x >= 0) & (x < len(table))
        return jnp.where(legal[:, None], table[jnp.where(legal, x, 0)], jnp.nan)

    def stats(
        self, x: Int[Array, " N"], responsibilities: Float[Array, "N K"]
    ) -> Float[Array, "K V"]:
        """Expected count of every symbol from every member.  Bishop (2006) 13.23."""
        num_symbols = self.logits.shape[-1]
        if is_cpu() or num_symbols > SCATTER_FROM:
            counts = jnp.zeros((num_symbols, responsibilities.shape[1]), responsibilities.dtype)
            return counts.at[x].add(responsibilities).T
        shown = (x[:, None] == jnp.arange(num_symbols)).astype(responsibilities.dtype)
        return jnp.dot(responsibilities.T, shown, precision=PRECISION)

    def partial_form(self, _: Any = None) -> "PartialCategorical":
        """The members on symbols of which some are missing."""
        return PartialCategorical(self)

    def maximize(self, stats: Float[Array, "... V"], frozen: parameters.Names = ()) -> Self:
        """Counts over their sum; a row without counts keeps its probabilities.

        The multiplier of each row is minus its sum of counts.  Bishop (2006) 9.22, 13.18-13.19,
        13.23.
        """
        total = jnp.sum(stats, -1, keepdims=True)
        none = total == 0
        logits = log(stats) - jnp.log(jnp.where(none, 1, total))
        return type(self)(jnp.where(none, self.logits, logits))

    def expected_log_prob(self, stats: Float[Array, "... V"], candidate: Self) -> Float[Array, ""]:
        """Q: Σ counts · log-probabilities of the candidate, with 0 · log 0 = 0."""
        return jnp.sum(times(stats, candidate.log_probs))

    def pretend_counts(self, counts: Any) -> Float[Array, "... V"]:
        """Pretend counts on every entry that is possible."""
        counts = jnp.broadcast_to(jnp.asarray(counts, self.logits.dtype), self.logits.shape)
        return jnp.where(jnp.isneginf(self.logits), 0, counts)

    def pretend(self, prior: em.Prior) -> Float[Array, "K V"]:
        """The prior's `symbols`, where they are possible."""
        return self.pretend_counts(prior.symbols)

    def sample(self, key: Array, member: Int[Array, " N"]) -> Int[Array, " N"]:
        """One symbol from each of the members named."""
        return jax.random.categorical(key, self.log_probs[member])

    @classmethod
    def pooled(cls, x: Int[Array, " N"], num_members: int) -> Self:
        """Every member at the frequencies of the symbols 0..max(x) in `x`.

        A symbol that `x` lacks gets a logit of -inf, and every later fit leaves it there.
        """
        counts = np.bincount(np.asarray(x))
        logits = np.log(counts, where=counts > 0, out=np.full(len(counts), -np.inf)) - np.log(
            len(x)
        )
        return cls(jnp.broadcast_to(jnp.asarray(logits), (num_members, len(counts))))

    @classmethod
    def of(cls, num_symbols: int) -> "CategoricalOf":
        """The kind of family over the symbols 0..V-1, whether data have all of them or not.

        For `initialize`: tables of one size from any data, also traced ones.  No symbol is ruled
        out: each member takes one pretend row more, which has all of them alike.  A fit without
        pretend `symbols` in its prior rules out what its data lack.
        """
        return CategoricalOf(num_symbols)


@dataclass(frozen=True)
class CategoricalOf:
    """A kind of family: tables over V symbols."""

    num_symbols: int  # V
    ruled_out: bool = False  # whether starts rule out symbols that are never seen

    def pooled(self, x: Int[Array, " N"], num_members: int) -> Categorical:
        """Every member at the frequencies of the symbols in `x` with one more of each."""
        counts = jnp.zeros(self.num_symbols, jnp.zeros(()).dtype).at[x].add(1) + 1
        logits = jnp.log(counts / jnp.sum(counts))
        return Categorical(jnp.broadcast_to(logits, (num_members, self.num_symbols)))


@dataclass(frozen=True)
class PartialCategorical:
    """Members on symbols of which some are missing: expected as a member's probabilities."""

    family: Categorical

    @property
    def accurate(self) -> bool:
        """True: it is the definition."""
        return True

    def log_prob(self, x: Partial) -> Float[Array, "N K"]:
        """Log-probability of each symbol under each member, 0 where it is missing."""
        return jnp.where(x.observed[:, None], self.family.log_prob(x.values), 0)

    def stats(self, x: Partial, responsibilities: Float[Array, "N K"]) -> Any:
        """Expected counts of the observed symbols [K, V], and of missing ones [K]."""
        there = x.observed[:, None]
        seen = self.family.stats(x.values, jnp.where(there, responsibilities, 0))
        return seen, jnp.sum(jnp.where(there, 0, responsibilities).T, 1)

    def finish_given(self, form: "PartialCategorical", total: Any) -> Float[Array, "K V"]:
        """Of what is missing, symbols are expected as `form` has them."""
        seen, missing = total
        return seen + missing[:, None] * form.family.probs

    def missing_entropy(self, x: Partial) -> Float[Array, "N K"]:
        """Entropy of what is missing given the member."""
        log_probs = self.family.log_probs
        return _where_missing(x, -jnp.sum(times(jnp.exp(log_probs), log_probs), 1))

    def missing_divergence(self, other: "PartialCategorical", x: Partial) -> Float[Array, "N K"]:
        """Divergence of what is missing, given the member, from that of `other`."""
        each = relative_entropy(self.family.log_probs, other.family.log_probs)
        return _where_missing(x, jnp.sum(each, 1))

    def expected(self, x: Partial, responsibilities: Float[Array, "N K"]) -> Int[Array, " N"]:
        """The most probable symbol of the members, mixed; of equal ones the first."""
        mixed = jnp.dot(responsibilities, self.family.probs, precision=PRECISION)
        return jnp.argmax(mixed, 1).astype(x.values.dtype)

    def draw(self, key: Array, x: Partial, member: Int[Array, " N"]) -> Int[Array, " N"]:
        """One symbol from each of the members named."""
        return self.family.sample(key, member).astype(x.values.dtype)


def _where_missing(x: Partial, each: Float[Array, " K"]) -> Float[Array, "N K"]:
    return jnp.where(x.observed[:, None], 0, each)
