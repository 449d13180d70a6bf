"""A CTC labelling as a banded lattice: a track of blanks, before and after each label, and one of
labels.

A path may stay, go from a blank to the next label or from a label to the next blank, and from a
label to the next one if they differ.  Graves et al. (2006) §4.1.
"""

from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxem.data import mask_from_lengths
from jaxem.lattice import Arc, Paths, Potentials, Topology
from jaxem.pytree import pytree
from jaxem.targets import (
    LogScale,
    are_valid,
    check_blank,
    check_labels,
    check_logits,
    lengths_or_all,
)

BLANKS, LABELS = 0, 1  # the tracks
# By origin from the last on: of equally good paths the one further on is taken.
TOPOLOGY = Topology(
    (
        Arc(BLANKS, BLANKS, 0),
        Arc(LABELS, BLANKS, 1),
        Arc(LABELS, LABELS, 0),
        Arc(BLANKS, LABELS, 0),
        Arc(LABELS, LABELS, 1),
    )
)
NO_ARC_POTENTIALS = (None,) * len(TOPOLOGY.arcs)


@pytree
class Labelling:
    """Label sequences for frames of logits, checked."""

    labels: Int[Array, "B L"]  # clipped to the vocabulary
    num_frames: Int[Array, " B"]
    num_labels: Int[Array, " B"]
    is_valid: Bool[Array, " B"]  # false where traced values should have been refused

    @classmethod
    def check(
        cls,
        logits: Float[Array, "B T V"],
        labels: Int[Array, "B L"],
        logit_lengths: Int[Array, " B"] | None,
        label_lengths: Int[Array, " B"] | None,
        blank: int,
        name: str = "logits",
    ) -> tuple[Float[Array, "B T V"], Self]:
        """The logits as an array, and the labelling; ValueError where they do not fit."""
        logits = check_logits(name, logits, "B T V")
        batch, num_frames, num_symbols = logits.shape
        check_blank(blank, num_symbols)
        frames = lengths_or_all("logit_lengths", logit_lengths, batch, num_frames)
        labels, lengths = check_labels(labels, batch, label_lengths, num_symbols, blank)
        return logits, cls(
            jnp.clip(labels, 0, num_symbols - 1),
            frames,
            lengths,
            are_valid(labels, lengths, frames, num_frames, num_symbols, blank),
        )

    def inside(self, num_frames: int) -> Bool[Array, "B T"]:
        """Whether a frame lies inside its sequence."""
        return mask_from_lengths(self.num_frames, num_frames)

    def within(self, logits: Float[Array, "B T V"]) -> Float[Array, "B T V"]:
        """The logits, 0 past the end, where NaN must not come into any derivative."""
        return jnp.where(self.inside(logits.shape[1])[..., None], logits, 0)

    @property
    def paths(self) -> Paths:
        """The paths that collapse to the labels."""
        place = jnp.arange(self.labels.shape[1] + 1)[:, None]
        other = self.labels[:, 1:] != self.labels[:, :-1]
        other = jnp.pad(other, [(0, 0), (1, 0)])[:, : self.labels.shape[1]]
        final = (place == self.num_labels, place[1:] == self.num_labels)
        return Paths((None, None, None, None, other.T), final, self.num_frames)

    def potentials(
        self, logits: Float[Array, "B T V"], log_scale: LogScale, blank: int
    ) -> Potentials:
        """Log-probabilities of the blanks, [T, 1, B], and of the labels, [T, L, B].

        Labels past the end are impossible.
        """
        blanks = log_scale.log_prob(logits[:, :, blank])
        hits = log_scale.log_prob(jnp.take_along_axis(logits, self.labels[:, None], 2))
        place = jnp.arange(self.labels.shape[1])
        hits = jnp.where((place < self.num_labels[:, None])[:, None], hits, -jnp.inf)
        return Potentials((blanks.T[:, None], jnp.transpose(hits, (1, 2, 0))), NO_ARC_POTENTIALS)

    def apart(self, potentials: Potentials) -> Potentials:
        """The same potentials, those of the blanks for each of them: [T, L+1, B]."""
        blanks, hits = jax.tree.leaves(potentials)
        shape = (len(hits), hits.shape[1] + 1, hits.shape[2])
        return Potentials((jnp.broadcast_to(blanks, shape), hits), potentials.arcs)

    def interleaved(self, counts: Potentials) -> Float[Array, "B T S"]:
        """Counts of all 2L + 1 states in the order of the labelling: blank, label, blank, ..."""
        blanks, hits = jax.tree.leaves(counts)
        num_frames, places, batch = blanks.shape
        states = jnp.zeros((num_frames, 2 * places - 1, batch), blanks.dtype)
        states = states.at[:, 0::2].set(blanks).at[:, 1::2].set(hits)
        return jnp.transpose(states, (2, 0, 1))

    def extended(self, blank: int) -> Int[Array, "B S"]:
        """The symbols of all 2L + 1 states."""
        batch, most = self.labels.shape
        return jnp.full((batch, 2 * most + 1), blank, jnp.int32).at[:, 1::2].set(self.labels)
