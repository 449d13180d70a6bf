"""Sequences as an HMM's E-step reads them: rows in order of time, then sequence."""

from collections.abc import Callable
from dataclasses import field, replace
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem.data import Chunks, Sequences, mask_from_lengths
from jaxem.labels import as_labels, silenced
from jaxem.missing import Groups, Missing
from jaxem.mixture import chunks_of, groups_of, in_dtype
from jaxem.pytree import pytree
from jaxem.semiring import times


@pytree
class PreparedSequences:
    """Sequences laid out for the E-step: rows in order of time, then sequence."""

    rows: Chunks  # T·B rows, what lies outside a sequence replaced by its center
    lengths: Int[Array, " B"] | None
    sample_weight: Float[Array, " B"] | None
    num_steps: int = field(metadata={"static": True})  # T
    num_sequences: int = field(metadata={"static": True})  # B
    labels: Array | None = None  # int [B, T] or soft [B, T, K], anything outside a sequence

    @classmethod
    def of(cls, data: Sequences, emission: Any, dtype: Any) -> Self:
        """The sequences in chunks, centred if the emission family has a location."""
        values = in_dtype(emission, data.values, dtype)
        batch, steps = values.shape[:2]
        lengths = None if data.lengths is None else jnp.asarray(data.lengths)
        values = jnp.swapaxes(values, 0, 1)
        weight = None
        if lengths is not None:
            inside = mask_from_lengths(lengths, steps).T
            if values.size:  # what lies outside may hold anything: an observation in its place
                inside_rows = inside.reshape(steps, batch, *[1] * (values.ndim - 2))
                values = jnp.where(inside_rows, values, values[0, jnp.argmax(lengths > 0)])
            weight = inside.reshape(-1).astype(dtype)
        each = None if data.sample_weight is None else jnp.asarray(data.sample_weight, dtype)
        if each is not None:
            each_step = jnp.tile(each, steps)
            weight = each_step if weight is None else weight * each_step
        values = values.reshape(steps * batch, *values.shape[2:])
        observed = None if data.observed is None else by_time(jnp.asarray(data.observed))
        rows = chunks_of(emission, values, weight, observed, data.groups, multiple=batch)
        labels = as_labels(data.labels, dtype)
        if labels is not None and each is not None:
            labels = silenced(labels, each > 0)
        return cls(rows, lengths, each, steps, batch, labels)

    @property
    def spread(self) -> Array | None:
        """The smallest positive variance of a feature."""
        return self.rows.spread

    @property
    def center(self) -> Array | None:
        """What was subtracted from every row."""
        return self.rows.center

    @property
    def missing(self) -> Missing | None:
        """That entries are missing, and in which patterns; None if nothing is."""
        return self.rows.missing

    @property
    def chunk_size(self) -> int:
        """Rows a chunk."""
        return self.rows.values.shape[-1]

    def weighted(self, per_sequence: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """What belongs to each sequence, as often as the sequence counts; a weight of 0 gives 0."""
        if self.sample_weight is None:
            return per_sequence
        weight = self.sample_weight.reshape(-1, *[1] * (per_sequence.ndim - 1))
        return times(weight, per_sequence)

    def map(self, function: Callable[[Any], Array]) -> Float[Array, "B T K"]:
        """`function` of the rows of each chunk, [n] to [n, K], as steps of sequences.

        What it says of a step outside its sequence is anything.
        """
        if self.missing is None:
            return self.gather(self.rows.map(lambda x: self.by_step(function(x).T)))
        found = self.rows.rows(self.rows.map(function))
        return found.reshape(self.num_steps, self.num_sequences, -1).transpose(1, 0, 2)

    def accumulate(
        self, function: Callable[[Any, Array], Any], states: Float[Array, "B T K"]
    ) -> Any:
        """The sum over chunks of `function(x [n, ...], states [n, K])`, as `Chunks` has it."""
        return self._walk(lambda x, states: (function(x, states), jnp.zeros(())), states)[0]

    def total(
        self, terms: Callable[[Any], Array], states: Float[Array, "B T K"]
    ) -> Float[Array, ""]:
        """Σ_t Σ_k γ_t(k) · terms(x_t)_k, of terms [K, n] of the rows [n, ...] of a chunk."""
        return self._walk(lambda x, states: ((), jnp.sum(times(states.T, terms(x)))), states)[1]

    def _walk(self, function: Callable[[Any, Array], Any], states: Float[Array, "B T K"]) -> Any:
        if self.missing is None:
            return self.rows.accumulate(
                lambda x, _, chunk: function(x, self.by_row(chunk).T), self.scatter(states)
            )
        rows = self.rows.slots(by_time(states))
        return self.rows.accumulate(lambda x, _, chunk: function(x, chunk), rows)

    def by_step(self, columns: Float[Array, "K n"]) -> Float[Array, "steps K B"]:
        """Columns of one chunk as steps of all sequences."""
        return columns.reshape(len(columns), -1, self.num_sequences).transpose(1, 0, 2)

    def by_row(self, states: Float[Array, "steps K B"]) -> Float[Array, "K n"]:
        """Steps of all sequences as the columns of one chunk; the inverse of `by_step`."""
        return states.transpose(1, 0, 2).reshape(-1, self.chunk_size)

    def gather(self, chunks: Float[Array, "C steps K B"]) -> Float[Array, "B T K"]:
        """What every chunk says of its steps as one array, padding removed."""
        return chunks.reshape(-1, *chunks.shape[2:])[: self.num_steps].transpose(2, 0, 1)

    def scatter(self, states: Float[Array, "B T K"]) -> Float[Array, "C steps K B"]:
        """The inverse of `gather`, padded with zeros."""
        num_chunks, per_chunk = len(self.rows.values), self.chunk_size // self.num_sequences
        padding = num_chunks * per_chunk - self.num_steps
        states = jnp.pad(states.transpose(1, 2, 0), ((0, padding), (0, 0), (0, 0)))
        return states.reshape(num_chunks, per_chunk, *states.shape[1:])


def grouped(data: Sequences, emission: Any, given: Groups | None) -> Sequences:
    """The sequences, their steps grouped by what is missing where that pays."""
    if data.observed is None:
        return data
    return replace(data, groups=groups_of(by_time(data.observed), emission, given))


def by_time(steps: Any) -> Any:
    """Steps of sequences [B, T, ...] as rows [T·B, ...] in order of time, then sequence."""
    return steps.swapaxes(0, 1).reshape(-1, *steps.shape[2:])
