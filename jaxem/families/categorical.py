"""Tables of probabilities: mixture weights, transition matrices, and symbols as observations."""

from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

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
    table; as a family it is [K, V]: K members over V symbols, whose observations are integers [N]
    in 0..V-1, or [K, D, V] for rows [N, D] of D symbols, independent given the member.  A logit of
    -inf is a structural zero: it stays zero, also under a prior; so columns may have fewer symbols.

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
        """An observation is one integer, or (D,) of them."""
        return self.logits.shape[1:-1]

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
        """Symbols [N] or [N, D] as integers, or a ValueError naming the first not in 0..V-1."""
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        if self.logits.ndim not in (2, 3):
            raise ValueError(
                f"a categorical family needs logits [K, V] or [K, D, V], got {self.logits.shape}."
            )
        if x.ndim != leading + len(self.event_shape) or x.shape[leading:] != self.event_shape:
            axes = [*("N" if leading == 1 else "BT"), *map(str, self.event_shape)]
            raise ValueError(f"symbols must have shape [{', '.join(axes)}], got {list(x.shape)}.")
        num_symbols = self.logits.shape[-1]
        remedy = f"symbols are integers from 0 to {num_symbols - 1} here."
        if not jnp.issubdtype(x.dtype, jnp.integer):
            if x.dtype.kind not in "fb":
                raise ValueError(f"symbols must be integers, got an array of dtype {x.dtype}.")
            refuse(x != x.round(), x, "not a symbol", remedy, leading)  # NaN equals nothing
        refuse((x < 0) | (x >= num_symbols), x, "symbol out of range", remedy, leading)
        return x.astype(np.int32)

    def log_prob(self, x: Int[Array, "N ..."]) -> Float[Array, "N K"]:
        """Log-probability of each row under each member; NaN for a symbol outside 0..V-1."""
        return _log_prob(self.log_probs, x)

    def stats(
        self, x: Int[Array, "N ..."], responsibilities: Float[Array, "N K"]
    ) -> Float[Array, "K ... V"]:
        """Expected count of every symbol from every member.  Bishop (2006) 13.23."""
        return _counts(self.logits, x, responsibilities)

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

    def sample(self, key: Array, member: Int[Array, " N"]) -> Int[Array, "N ..."]:
        """One symbol, or a row of them, from each of the members named."""
        return jax.random.categorical(key, self.log_probs[member])

    @classmethod
    def pooled(cls, x: Int[Array, "N ..."], num_members: int) -> Self:
        """Every member at the frequencies of the symbols 0..max(x) in each column of `x`.

        A symbol that a column lacks gets a logit of -inf, and every later fit leaves it there.
        """
        rows = np.asarray(x)
        num_symbols = int(rows.max()) + 1
        columns = rows.reshape(len(rows), -1).T
        counts = np.stack([np.bincount(column, minlength=num_symbols) for column in columns])
        seen = np.full(counts.shape, -np.inf)
        logits = np.log(counts, where=counts > 0, out=seen) - np.log(len(rows))
        shape = (num_members, *rows.shape[1:], num_symbols)
        return cls(jnp.broadcast_to(jnp.asarray(logits.reshape(shape[1:])), shape))

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
        """Log-probability under each member of the symbols observed, 0 where none is."""
        return _log_prob(self.family.log_probs, x.values, x.observed)

    def stats(self, x: Partial, responsibilities: Float[Array, "N K"]) -> Any:
        """Expected counts of the observed symbols [K, ..., V], and of missing ones [K, D]."""
        seen = _counts(self.family.logits, x.values, responsibilities, x.observed)
        return seen, jnp.dot(responsibilities.T, _missing(x, seen.dtype), precision=PRECISION)

    def finish_given(self, form: "PartialCategorical", total: Any) -> Float[Array, "K ... V"]:
        """Of what is missing, symbols are expected as `form` has them."""
        seen, missing = total
        return seen + (missing[..., None] * form._probs).reshape(seen.shape)

    @property
    def _log_probs(self) -> Float[Array, "K D V"]:
        return _by_column(self.family.log_probs)

    @property
    def _probs(self) -> Float[Array, "K D V"]:
        return jnp.exp(self._log_probs)

    def missing_entropy(self, x: Partial) -> Float[Array, "N K"]:
        """Entropy of what is missing given the member."""
        return _where_missing(x, -jnp.sum(times(self._probs, self._log_probs), -1))

    def missing_divergence(self, other: "PartialCategorical", x: Partial) -> Float[Array, "N K"]:
        """Divergence of what is missing, given the member, from that of `other`."""
        return _where_missing(x, jnp.sum(relative_entropy(self._log_probs, other._log_probs), -1))

    def expected(self, x: Partial, responsibilities: Float[Array, "N K"]) -> Int[Array, "N ..."]:
        """The most probable symbol of the members, mixed; of equal ones the first."""
        mixed = jnp.einsum("nk,kdv->ndv", responsibilities, self._probs, precision=PRECISION)
        return jnp.argmax(mixed, -1).reshape(x.values.shape).astype(x.values.dtype)

    def draw(self, key: Array, x: Partial, member: Int[Array, " N"]) -> Int[Array, "N ..."]:
        """One symbol, or a row of them, from each of the members named."""
        return self.family.sample(key, member).astype(x.values.dtype)


def _missing(x: Partial, dtype: Any) -> Float[Array, "N D"]:
    """1 where an entry is missing."""
    return 1 - x.observed.reshape(len(x.values), -1).astype(dtype)


def _where_missing(x: Partial, each: Float[Array, "K D"]) -> Float[Array, "N K"]:
    """Σ_d over what is missing of each row; a value may be infinite where nothing is missing."""
    missing = _missing(x, each.dtype)[:, None]
    return jnp.sum(times(missing, each), -1)


def _by_column(table: Float[Array, "K ... V"]) -> Float[Array, "K D V"]:
    """A table with an axis of columns, of which there may be one."""
    return table.reshape(len(table), -1, table.shape[-1])


def _columns(rows: Array) -> Array:
    """Rows [N] or [N, D] as columns [D, N]."""
    return rows.reshape(len(rows), -1).T


def _log_prob(
    log_probs: Float[Array, "K ... V"], x: Array, observed: Bool[Array, "N ..."] | None = None
) -> Float[Array, "N K"]:
    """Σ_d log p(x_d) over what is observed, one column at a time: O(N K) memory."""

    def column(total: Array, parts: Any) -> tuple[Array, None]:
        table, x, there = parts
        legal = (x >= 0) & (x < len(table))
        each = jnp.where(legal[:, None], table[jnp.where(legal, x, 0)], jnp.nan)
        return total + (each if there is None else jnp.where(there[:, None], each, 0)), None

    tables = jnp.moveaxis(_by_column(log_probs), 0, -1)  # [D, V, K]
    parts = tables, _columns(x), None if observed is None else _columns(observed)
    if len(tables) == 1:
        return column(jnp.zeros((), tables.dtype), jax.tree.map(lambda part: part[0], parts))[0]
    start = jnp.zeros((len(x), len(log_probs)), tables.dtype)
    return lax.scan(column, start, parts)[0]


def _counts(
    logits: Float[Array, "K ... V"],
    x: Array,
    responsibilities: Float[Array, "N K"],
    observed: Bool[Array, "N ..."] | None = None,
) -> Float[Array, "K ... V"]:
    """Expected counts of the symbols observed, shaped like the logits."""
    num_symbols = logits.shape[-1]

    def column(parts: Any) -> Float[Array, "K V"]:
        x, there = parts
        weight = responsibilities
        weight = weight if there is None else jnp.where(there[:, None], weight, 0)
        if is_cpu() or num_symbols > SCATTER_FROM:
            counts = jnp.zeros((num_symbols, weight.shape[1]), weight.dtype)
            return counts.at[x].add(weight).T
        shown = (x[:, None] == jnp.arange(num_symbols)).astype(weight.dtype)
        return jnp.dot(weight.T, shown, precision=PRECISION)

    parts = _columns(x), None if observed is None else _columns(observed)
    if len(parts[0]) == 1:
        counts = column(jax.tree.map(lambda part: part[0], parts))[:, None]
    else:
        counts = jnp.swapaxes(lax.map(column, parts), 0, 1)
    return counts.reshape(logits.shape)
