"""Independent rows, sequences of different lengths, and the chunks an E-step walks them in."""

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxem.platform import is_cpu
from jaxem.pytree import pytree
from jaxem.semiring import pairwise_sum

CHUNK_ELEMENTS = 2**20  # features of one chunk: a few megabytes, which stay in a CPU's caches
ACCELERATOR_ELEMENTS = 2**27  # enough work for thousands of cores, half a gigabyte in float32


@pytree
class Samples:
    """Independent rows.

    Examples:
        >>> import numpy as np, jaxem
        >>> jaxem.Samples(np.zeros((3, 2)), sample_weight=np.array([1.0, 2.0, 0.0])).values.shape
        (3, 2)
    """

    values: Any  # [N] or [N, D]
    sample_weight: Any = None  # [N], how often each row counts; None: once


@pytree
class Sequences:
    """Sequences of different lengths, padded to the longest.

    Steps at or past a sequence's length have no influence, whatever they hold.

    Examples:
        >>> import numpy as np, jaxem
        >>> y = jaxem.Sequences.pack([np.array([1, 4, 2]), np.array([0])])
        >>> y.values.shape, y.lengths.tolist()
        ((2, 3), [3, 1])
    """

    values: Any  # [B, T] or [B, T, D]
    lengths: Any = None  # [B], 0 to T; None: all T

    @classmethod
    def pack(cls, sequences: Sequence[Any]) -> "Sequences":
        """Sequences [T_i] or [T_i, D] in one padded array, with their lengths.

        Raises:
            ValueError: no sequence at all, or sequences whose steps differ in shape.
        """
        arrays = [np.asarray(sequence) for sequence in sequences]
        if not arrays:
            raise ValueError("Sequences.pack needs at least one sequence, got an empty list.")
        for i, array in enumerate(arrays):
            if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
                raise ValueError(
                    f"every sequence must be [T, ...] with the same step shape; sequence 0 has "
                    f"shape {arrays[0].shape}, sequence {i} has shape {array.shape}."
                )
        longest = max(len(array) for array in arrays)
        dtype = np.result_type(*arrays)
        values = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype)
        for row, array in zip(values, arrays, strict=True):
            row[: len(array)] = array
        return cls(values, np.array([len(array) for array in arrays]))

    def unpack(self) -> list[Any]:
        """The sequences as a list of arrays [T_i, ...], padding removed."""
        if self.lengths is None:
            return list(self.values)
        return [values[:length] for values, length in zip(self.values, self.lengths, strict=True)]


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

    def accumulate(self, function: Callable[..., Any], *extra: Array) -> Any:
        """The sum over chunks of `function(x [n, ...], weight [n] | None, *extra chunks)`.

        The result is a pair (statistics, terms): statistics are summed as the walk goes on, terms
        (a scalar a chunk) pairwise at its end.  O(n) memory beyond the data.
        """

        @jax.checkpoint
        def one(inputs: Any) -> Any:
            values, weight, chunks = inputs
            return function(jnp.moveaxis(values, -1, 0), weight, *chunks)

        inputs = (self.values, self.weight, extra)
        shapes, _ = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], inputs))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def step(total: Any, chunk: Any) -> Any:
            stats, term = one(chunk)
            return jax.tree.map(jnp.add, total, stats), term

        total, terms = lax.scan(step, zeros, inputs)
        return total, pairwise_sum(terms)

    def map(self, function: Callable[[Array], Any]) -> Any:
        """`function` of the rows of each chunk, stacked: leaves [C, n, ...], padding included."""
        return lax.map(lambda values: function(jnp.moveaxis(values, -1, 0)), self.values)

    def rows(self, stacked: Float[Array, "C n ..."]) -> Float[Array, "N ..."]:
        """What `map` returned as rows, padding removed."""
        return stacked.reshape(-1, *stacked.shape[2:])[: self.num_rows]


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
    num_chunks = max(-(-blocks // max(_chunk_size(num_features) // multiple, 1)), 1)
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
    # What varies by less than its own resolution is constant: its variance is a rounding error.
    resolution = jnp.finfo(center.dtype).eps * jnp.abs(center)
    spread = jnp.min(jnp.where(variance > resolution**2, variance, jnp.inf))
    moved = lax.map(lambda index: rows(index) - center[:, None], chunks)
    return Chunks(moved, weight, center, spread, n)


def _chunk_size(num_features: int) -> int:
    """Rows of a chunk: few enough for a CPU's cache, enough to keep an accelerator busy."""
    if is_cpu():
        return int(np.clip(CHUNK_ELEMENTS // num_features, 256, 4096))
    return int(np.clip(ACCELERATOR_ELEMENTS // num_features, 256, 2**20))


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
