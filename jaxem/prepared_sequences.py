"""Sequences as an HMM's E-step reads them: rows in order of time, then sequence."""

from dataclasses import field
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem.data import Chunks, Sequences, chunk, mask_from_lengths
from jaxem.families import optional
from jaxem.mixture import num_features
from jaxem.pytree import pytree


@pytree
class PreparedSequences:
    """Sequences laid out for the E-step: rows in order of time, then sequence."""

    rows: Chunks  # T·B rows, what lies outside a sequence replaced by its center
    lengths: Int[Array, " B"] | None
    num_steps: int = field(metadata={"static": True})  # T
    num_sequences: int = field(metadata={"static": True})  # B

    @classmethod
    def of(cls, data: Sequences, emission: Any, dtype: Any) -> Self:
        """The sequences in chunks, centred if the emission family has a location."""
        located = optional.is_located(emission)
        values = jnp.asarray(data.values)
        if located or jnp.issubdtype(values.dtype, jnp.floating):
            values = values.astype(dtype)
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
        rows = chunk(
            values.reshape(steps * batch, *values.shape[2:]),
            weight,
            num_features=num_features(emission),
            centred=located,
            multiple=batch,
        )
        return cls(rows, lengths, steps, batch)

    @property
    def spread(self) -> Array | None:
        """The smallest positive variance of a feature."""
        return self.rows.spread

    @property
    def center(self) -> Array | None:
        """What was subtracted from every row."""
        return self.rows.center

    @property
    def chunk_size(self) -> int:
        """Rows a chunk."""
        return self.rows.values.shape[-1]

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
