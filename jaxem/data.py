"""Independent rows, sequences of different lengths, and the chunks an E-step walks them in."""

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxem.missing import (
    Groups,
    Missing,
    Partial,
    PerPattern,
    agree,
    check_unmasked,
    fill,
    without_nan,
)
from jaxem.padding import padded_labels, padded_sequences
from jaxem.platform import is_cpu
from jaxem.pytree import pytree
from jaxem.semiring import pairwise_sum

CHUNK_ELEMENTS = 2**20  # features of one chunk: a few megabytes, which stay in a CPU's caches
ACCELERATOR_ELEMENTS = 2**27  # enough work for thousands of cores, half a gigabyte in float32


@pytree
class Samples:
    """Independent rows, of which any entry may be missing.

    What lies where an entry is missing has no influence, whatever it is.  A label names the
    component that a row came from; a soft one is p(label | component), which multiplies the
    density.

    Examples:
        >>> import jax, numpy as np, jaxem
        >>> jaxem.Samples(np.zeros((3, 2)), sample_weight=np.array([1.0, 2.0, 0.0])).values.shape
        (3, 2)
        >>> jaxem.Samples.from_nan(np.array([[1.0, np.nan], [3.0, 4.0]])).observed.tolist()
        [[True, False], [True, True]]
        >>> x = np.array([[8.0], [9.0], [1.0], [2.0]])
        >>> data = jaxem.Samples(x, labels=np.array([0, -1, -1, 1]))  # two of them are known
        >>> start = jaxem.initialize.random_rows(
        ...     jax.random.key(0), jaxem.DiagonalGaussian, data, 2)
        >>> jaxem.fit(start, data).model.predict(data).tolist()
        [0, 0, 1, 1]
    """

    values: Any  # [N] or [N, D]
    sample_weight: Any = None  # [N], how often each row counts; None: once
    observed: Any = None  # bool, shaped like the values: False is missing; None: nothing is
    labels: Any = None  # integers [N], -1 is unknown; or soft ones, floating [N, K]
    groups: Any = None  # rows that lack the same entries, by `validate`; None with another mask

    @classmethod
    def from_nan(cls, values: Any, sample_weight: Any = None, labels: Any = None) -> Self:
        """Rows in which NaN stands for what is missing."""
        values, observed = without_nan(values)
        return cls(values, sample_weight, observed, labels)


@pytree
class Sequences:
    """Sequences of different lengths, padded to the longest, of which any entry may be missing.

    Steps at or past a sequence's length have no influence, whatever they hold; nor has what lies
    where an entry is missing.  A label names the state of a step; a soft one is p(label | state).

    Examples:
        >>> import numpy as np, jaxem
        >>> y = jaxem.Sequences.pack([np.array([1, 4, 2]), np.array([0])])
        >>> y.values.shape, y.lengths.tolist()
        ((2, 3), [3, 1])
        >>> known = [np.array([0, -1, 1]), None]  # the states at both ends of the first
        >>> jaxem.Sequences.pack(y.unpack(), known).labels.tolist()
        [[0, -1, 1], [-1, -1, -1]]
    """

    values: Any  # [B, T] or [B, T, D]
    lengths: Any = None  # [B], 0 to T; None: all T
    sample_weight: Any = None  # [B], how often each sequence counts; None: once
    observed: Any = None  # bool, shaped like the values: False is missing; None: nothing is
    labels: Any = None  # integers [B, T], -1 is unknown; or soft ones, floating [B, T, K]
    groups: Any = None  # steps that lack the same entries, by `validate`; None with another mask

    @classmethod
    def from_nan(
        cls, values: Any, lengths: Any = None, sample_weight: Any = None, labels: Any = None
    ) -> Self:
        """Sequences in which NaN stands for what is missing: padded, or a list of arrays."""
        if isinstance(values, (list, tuple)):
            if lengths is not None:
                raise ValueError("a list of sequences has lengths of its own; give no others.")
            seen = [without_nan(one) for one in values]
            packed = Sequences.pack([one for one, _ in seen], labels)
            hidden, lengths = padded_sequences([~there for _, there in seen])
            return cls(packed.values, lengths, sample_weight, ~hidden, packed.labels)
        values, observed = without_nan(values)
        return cls(values, lengths, sample_weight, observed, labels)

    @classmethod
    def pack(cls, sequences: Sequence[Any], labels: Sequence[Any] | None = None) -> "Sequences":
        """Sequences [T_i] or [T_i, D] in one padded array, with their lengths.

        `labels` are those of each sequence, [T_i] or soft [T_i, K]; None for one that has none.

        Raises:
            ValueError: no sequence at all, or sequences whose steps, or labels, differ in shape.
        """
        for one in (*sequences, *([] if labels is None else labels)):
            check_unmasked(one)
        values, lengths = padded_sequences(sequences)
        return cls(
            values, lengths, labels=None if labels is None else padded_labels(labels, lengths)
        )

    def unpack(self) -> list[Any]:
        """The values as a list of arrays [T_i, ...], padding removed; weights and labels stay here.

        As `from_nan` takes them: with NaN, in floating point, where entries may be missing.
        """
        values = self.values
        if self.observed is not None:
            xp: Any = jnp if isinstance(values, jax.Array) else np
            values = xp.where(self.observed, values, xp.nan)
        if self.lengths is None:
            return list(values)
        return [one[:length] for one, length in zip(values, self.lengths, strict=True)]


@pytree
class Chunks:
    """Rows as an E-step reads them: rows innermost, in C chunks of n, centred, padded with weight
    0.

    Reading rows innermost makes every reduction over features a few long vector operations, and a
    chunk's features stay in cache between the density and the statistics.
    """

    values: Float[Array, "C ... n"]
    weight: Float[Array, "C n"] | None  # None: every row counts once
    center: Float[Array, " D"] | None  # subtracted from every row; None: nothing was
    spread: Float[Array, ""] | None  # the smallest positive variance of a feature
    num_rows: int = field(metadata={"static": True})  # without padding
    observed: Bool[Array, "C ... n"] | None = None  # what is there, if rows lack entries one by one
    patterns: Bool[Array, "P D"] | None = None  # what is there, if all rows of a chunk lack ...
    pattern: Int[Array, " C"] | None = None  # ... the same: which of the patterns each chunk has
    slot: Int[Array, " N"] | None = None  # where each row is; None: they are in order
    labels: Array | None = None  # int [C, n] or soft [C, K, n]; padding says nothing: -1, or 1

    @property
    def missing(self) -> Missing | None:
        """That entries are missing, and in which patterns; None if nothing is."""
        complete = self.observed is None and self.patterns is None
        return None if complete else Missing(self.patterns)

    def accumulate(self, function: Callable[..., Any], *extra: Any) -> Any:
        """The sum over chunks of `function(x [n, ...], weight [n] | None, *extra chunks)`.

        The result is a pair (statistics, terms): statistics are summed as the walk goes on, terms
        (a scalar a chunk) pairwise at its end.  O(n) memory beyond the data.  Where entries are
        missing x is a `Partial`, and `PerPattern` statistics are summed for each pattern apart.
        """

        @jax.checkpoint
        def one(inputs: Any) -> Any:
            chunk, weight, extra = inputs
            return function(_rows(chunk), weight, *extra)

        inputs = (self._chunks, self.weight, extra)
        shapes, _ = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], inputs))
        apart = () if self.patterns is None else (len(self.patterns),)

        def zeros(part: Any) -> Any:
            each = apart if _is_apart(part) else ()
            return jax.tree.map(lambda leaf: jnp.zeros((*each, *leaf.shape), leaf.dtype), part)

        def step(total: Any, inputs: Any) -> Any:
            stats, term = one(inputs)
            (_, _, pattern), _, _ = inputs

            def add(total: Any, part: Any) -> Any:
                if not _is_apart(part):
                    return total + part
                return jax.tree.map(lambda all, one: all.at[pattern].add(one), total, part)

            return jax.tree.map(add, total, stats, is_leaf=_is_apart), term

        start = jax.tree.map(zeros, shapes, is_leaf=_is_apart)
        total, terms = lax.scan(step, start, inputs)
        return total, pairwise_sum(terms)

    def map(self, function: Callable[..., Any], *extra: Any) -> Any:
        """`function(x [n, ...], *extra chunks)` of each chunk, stacked, padding included."""

        def one(inputs: Any) -> Any:
            chunk, extra = inputs
            return function(_rows(chunk), *extra)

        return lax.map(one, (self._chunks, extra))

    def rows(self, stacked: Float[Array, "C n ..."]) -> Float[Array, "N ..."]:
        """What `map` returned as rows in the order they came, padding removed."""
        flat = stacked.reshape(-1, *stacked.shape[2:])
        return flat[: self.num_rows] if self.slot is None else flat[self.slot]

    def slots(self, rows: Float[Array, "N ..."]) -> Float[Array, "C n ..."]:
        """Rows where those of the data lie, zeros in empty slots: the inverse of `rows`."""
        shape = self.values.shape[0], self.values.shape[-1]
        if self.slot is None:
            empty = shape[0] * shape[1] - self.num_rows
            flat = jnp.pad(rows, [(0, empty)] + [(0, 0)] * (rows.ndim - 1))
        else:
            flat = jnp.zeros((shape[0] * shape[1], *rows.shape[1:]), rows.dtype)
            flat = flat.at[self.slot].set(rows)
        return flat.reshape(*shape, *rows.shape[1:])

    @property
    def _chunks(self) -> tuple[Array, Array | None, Array | None]:
        return self.values, self.observed, self.pattern


def _rows(chunk: tuple[Array, Array | None, Array | None]) -> Any:
    """One chunk as rows, a `Partial` where some of their entries are missing."""
    values, observed, pattern = chunk
    values = jnp.moveaxis(values, -1, 0)
    if observed is None and pattern is None:
        return values
    return Partial(values, None if observed is None else jnp.moveaxis(observed, -1, 0), pattern)


def _is_apart(part: Any) -> bool:
    return isinstance(part, PerPattern)


def chunk(
    values: Float[Array, "N ..."],
    weight: Float[Array, " N"] | None,
    *,
    num_features: int,
    centred: bool,
    multiple: int = 1,
) -> Chunks:
    """Rows in chunks of about `CHUNK_ELEMENTS / num_features`, a whole number of times `multiple`.

    `centred` subtracts the weighted mean of every feature; the densities then keep their digits
    however far from the origin the data lie.
    """
    n = len(values)
    blocks = max(n // multiple, 1)
    num_chunks = max(-(-blocks // max(chunk_size(num_features) // multiple, 1)), 1)
    size = -(-blocks // num_chunks) * multiple
    padding = num_chunks * size - n
    if n == 0:
        values = jnp.zeros((size, *values.shape[1:]), values.dtype)
    # What a row of weight 0 holds must not matter: it is replaced by one that counts.
    legal = None if weight is None or n == 0 else values[jnp.argmax(weight > 0)][..., None]
    if padding:
        weight = jnp.ones(n, _float_like(values)) if weight is None else weight
        weight = jnp.pad(weight, (0, padding))
    weight = None if weight is None else weight.reshape(num_chunks, size)

    def rows(index: Array) -> Array:
        """One chunk, rows innermost."""
        start = index * size
        there = jnp.minimum(start, len(values) - size)  # a slice past the end starts earlier
        chunk = jnp.moveaxis(lax.dynamic_slice_in_dim(values, there, size), 0, -1)
        chunk = jnp.roll(chunk, there - start, -1) if padding else chunk
        return (
            chunk if legal is None or weight is None else jnp.where(weight[index] > 0, chunk, legal)
        )

    # Chunk by chunk from the rows as they came: nothing else of their size is ever held.
    chunks = jnp.arange(num_chunks)
    if not centred:
        return Chunks(lax.map(rows, chunks), weight, None, None, n)
    center, variance = _center_and_variance(rows, weight, num_chunks * size)
    spread = _spread(center, variance)
    moved = lax.map(lambda index: rows(index) - center[:, None], chunks)
    return Chunks(moved, weight, center, spread, n)


def chunk_partial(
    values: Float[Array, "N ..."],
    weight: Float[Array, " N"] | None,
    observed: Bool[Array, "N ..."],
    *,
    num_features: int,
    centred: bool,
    groups: Groups | None = None,
) -> Chunks:
    """Rows of which some entries are missing, in chunks: in the order of `groups`, or as they came.

    As `chunk` else.  Center and spread are those of the observed entries, and a missing one lies at
    the center.
    """
    n = len(values)
    weight = jnp.ones(n, _float_like(values)) if weight is None else weight
    if groups is None:
        num_chunks = max(-(-n // chunk_size(num_features, 16)), 1)
        size = max(-(-n // num_chunks), 1)
        row = jnp.minimum(jnp.arange(num_chunks * size), n).reshape(-1, size)
    else:
        row = jnp.asarray(groups.row)
        # Those of another mask would be taken at their word: better no number than a wrong one.
        values = jnp.where(agree(groups, observed), values, jnp.nan)
    # What a row of weight 0 holds must not matter either: nothing of it is observed.
    observed = observed & (weight > 0).reshape(n, *[1] * (values.ndim - 1))

    def laid_out(rows: Array) -> Array:
        """Rows innermost; one row of zeros more stands in every empty slot."""
        padded = jnp.pad(rows, [(0, 1)] + [(0, 0)] * (rows.ndim - 1))
        return jnp.moveaxis(padded[row], 1, -1)

    x, there, weight = laid_out(fill(values, observed)), laid_out(observed), laid_out(weight)
    seen = {"observed": there}
    if groups is not None:
        places = (groups.patterns, groups.pattern, groups.slot)
        seen = dict(zip(("patterns", "pattern", "slot"), map(jnp.asarray, places), strict=True))
    if not centred:
        return Chunks(x, weight, None, None, n, **seen)

    def mean(about: Array, power: int) -> Array:
        away = jnp.where(there, x - about[:, None], 0) ** power * weight[:, None]
        return pairwise_sum(jnp.sum(away, -1)) / total

    total = pairwise_sum(jnp.sum(jnp.where(there, weight[:, None], 0), -1))
    total = jnp.where(total == 0, 1, total)  # of a feature never observed
    center = mean(jnp.zeros(x.shape[1], x.dtype), 1)
    center = center + mean(center, 1)  # as for complete rows
    moved = jnp.where(there, x - center[:, None], 0)
    return Chunks(moved, weight, center, _spread(center, mean(center, 2)), n, **seen)


def chunk_size(num_features: int, least: int = 256) -> int:
    """Rows of a chunk: few enough for a CPU's cache, enough to keep an accelerator busy."""
    if is_cpu():
        return int(np.clip(CHUNK_ELEMENTS // num_features, least, 4096))
    return int(np.clip(ACCELERATOR_ELEMENTS // num_features, least, 2**20))


def _spread(center: Float[Array, " D"], variance: Float[Array, " D"]) -> Float[Array, ""]:
    # What varies by less than its own resolution is constant: its variance is a rounding error.
    resolution = jnp.finfo(center.dtype).eps * jnp.abs(center)
    return jnp.min(jnp.where(variance > resolution**2, variance, jnp.inf))


def _float_like(values: Array) -> Any:
    return values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else jnp.zeros(()).dtype


def _center_and_variance(
    rows: Callable[[Array], Array], weight: Array | None, num_rows: int
) -> tuple[Float[Array, " D"], Float[Array, " D"]]:
    """Weighted mean and variance of every feature."""
    features = jax.eval_shape(rows, jnp.zeros((), int))
    num_chunks = num_rows // features.shape[-1]
    total = jnp.asarray(num_rows, features.dtype) if weight is None else jnp.sum(weight)
    total = jnp.maximum(total, jnp.finfo(features.dtype).tiny)

    def mean(about: Array, power: int) -> Array:
        def add(sums: Array, index: Array) -> tuple[Array, None]:
            away = (rows(index) - about[:, None]) ** power
            return sums + jnp.sum(away if weight is None else away * weight[index], 1), None

        return lax.scan(add, jnp.zeros_like(about), jnp.arange(num_chunks))[0] / total

    center = mean(jnp.zeros(features.shape[:1], features.dtype), 1)
    center = center + mean(center, 1)  # the first sum may have lost digits to a large offset
    return center, mean(center, 2)


def is_traced(tree: Any) -> bool:
    """Whether any leaf is a tracer: values cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def refuse(bad: Any, values: Any, what: str, remedy: str, leading: int = 1) -> None:
    """Raise a ValueError that names the first place where `bad` holds; nothing if there is none.

    The `leading` axes are rows (1) or sequences and steps (2).  Traced values are not looked at.
    """
    if is_traced((bad, values)) or not np.any(bad):
        return
    place = tuple(int(i) for i in np.argwhere(np.asarray(bad))[0])
    names = (("row",) if leading == 1 else ("sequence", "step")) + ("column",)
    where = ", ".join(f"{name} {i}" for name, i in zip(names, place, strict=False))
    raise ValueError(f"{what}: {np.asarray(values)[place]!s} at {where} (counted from 0); {remedy}")


def mask_from_lengths(lengths: Int[Array, " B"], num_steps: int) -> Array:
    """True where a step lies inside its sequence; [B, T]."""
    return jnp.arange(num_steps) < lengths[:, None]
