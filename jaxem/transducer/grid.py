"""The transducer's grid of frames and label positions as a banded lattice of one track.

A state is the number of labels so far.  In the regular topology a label leaves the frame as it is:
the steps of the lattice are the anti-diagonals of the grid, and a path ends with the blank of its
last frame.  In the modified one a label takes a frame, as a blank does, and the steps are frames.
Graves (2012) §2.3-2.4; Kuang et al. (2022), "Pruned RNN-T for fast, memory-efficient ASR training".
"""

from typing import Any, Literal, Self, get_args

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.data import is_traced, mask_from_lengths
from jaxem.lattice import Arc, Paths, Potentials, Topology
from jaxem.pytree import pytree
from jaxem.targets import LogScale, are_valid, check_blank, check_labels, lengths_or_all

GridTopology = Literal["regular", "modified"]
# Of equally good paths the one whose blanks come last is taken.
TOPOLOGY = Topology((Arc(0, 0, 0), Arc(0, 0, 1)))  # a blank, a label


def check_topology(topology: str) -> None:
    """The name is one of a topology."""
    if topology not in get_args(GridTopology):
        raise ValueError(f'topology must be "regular" or "modified", but is {topology!r}.')


def check_fast_emit(fast_emit: Any) -> Float[Array, ""]:
    """The weight is a number of at least 0."""
    if jnp.ndim(fast_emit) or not (is_traced(fast_emit) or fast_emit >= 0):
        raise ValueError(f"fast_emit must be one number, 0 or more, but is {fast_emit!r}.")
    return jnp.asarray(fast_emit)


@pytree
class Grid:
    """Label sequences for frames, checked."""

    labels: Int[Array, "B U"]  # clipped to the vocabulary
    num_frames: Int[Array, " B"]
    num_labels: Int[Array, " B"]
    is_valid: Bool[Array, " B"]  # false where traced values should have been refused

    @classmethod
    def check(
        cls,
        shape: tuple[int, ...],
        labels: Int[Array, "B U"],
        logit_lengths: Int[Array, " B"] | None,
        label_lengths: Int[Array, " B"] | None,
        blank: int,
    ) -> Self:
        """The grid of logits of shape [B, T, U+1, V]; ValueError where they do not fit."""
        batch, num_frames, num_positions, num_symbols = shape
        check_blank(blank, num_symbols)
        frames = lengths_or_all("logit_lengths", logit_lengths, batch, num_frames)
        labels, lengths = check_labels(labels, batch, label_lengths, num_symbols, blank)
        most = labels.shape[1]
        if num_positions != most + 1:
            raise ValueError(
                f"labels of width {most} need logits (or lm) of {most + 1} label positions, "
                f"before each label and after the last, but got {num_positions}."
            )
        return cls(
            jnp.clip(labels, 0, num_symbols - 1),
            frames,
            lengths,
            are_valid(labels, lengths, frames, num_frames, num_symbols, blank),
        )

    @property
    def positions(self) -> Bool[Array, "B U1"]:
        """Whether a label position is one of its sequence's."""
        return mask_from_lengths(self.num_labels + 1, self.labels.shape[1] + 1)

    def frames(self, num_frames: int) -> Bool[Array, "B T"]:
        """Whether a frame lies inside its sequence."""
        return mask_from_lengths(self.num_frames, num_frames)

    def inside(self, num_frames: int) -> Bool[Array, "B T U1 1"]:
        """Whether a place of the grid is one of its sequence's."""
        return (self.frames(num_frames)[:, :, None] & self.positions[:, None])[..., None]

    def within(self, logits: Float[Array, "B T U1 V"]) -> Float[Array, "B T U1 V"]:
        """The logits, 0 outside, where NaN must not come into any derivative."""
        return jnp.where(self.inside(logits.shape[1]), logits, 0)

    def paths(self, topology: GridTopology) -> Paths:
        """The paths that emit the labels."""
        place = jnp.arange(self.labels.shape[1] + 1)[:, None]
        steps = self.num_frames + (self.num_labels if topology == "regular" else 0)
        return Paths((None, None), (place == self.num_labels,), steps)

    def potentials(
        self,
        blank: Float[Array, "B T U1"],
        label: Float[Array, "B T U"],
        topology: GridTopology,
    ) -> Potentials:
        """From the log-probabilities of the blank and of the next label in each place of the grid.

        What is outside is impossible.
        """
        frames, positions = self.frames(blank.shape[1])[:, :, None], self.positions[:, None]
        blank = jnp.where(frames & positions, blank, -jnp.inf)
        label = jnp.where(frames & positions[:, :, 1:], label, -jnp.inf)
        stay, advance = _places_first(blank), _places_first(label)
        if topology == "regular":
            stay, advance = _skewed(stay, len(stay) - 1), _skewed(advance, len(stay) - 1)
        nothing = jnp.full_like(stay[:1], -jnp.inf)
        advance = jnp.concatenate([nothing, advance])
        return Potentials((None,), (jnp.swapaxes(stay, 0, 1), jnp.swapaxes(advance, 0, 1)))

    def counts(
        self, counts: Potentials, num_frames: int, topology: GridTopology
    ) -> tuple[Float[Array, "B T U1"], Float[Array, "B T U"]]:
        """Of the blank and of the next label in each place, from those of the potentials."""
        stay, advance = (jnp.swapaxes(jnp.asarray(arc), 0, 1) for arc in counts.arcs)
        advance = advance[1:]
        if topology == "regular":
            stay, advance = _upright(stay, num_frames), _upright(advance, num_frames)
        return jnp.transpose(stay, (2, 1, 0)), jnp.transpose(advance, (2, 1, 0))


def grid_potentials(
    logits: Float[Array, "B T U1 V"],
    grid: Grid,
    log_scale: LogScale,
    blank: int,
    topology: GridTopology,
) -> Potentials:
    """The lattice's potentials: only the blank's and the next label's entries of the logits."""
    label = label_log_probs(logits, grid, log_scale)
    return grid.potentials(log_scale.log_prob(logits[..., blank]), label, topology)


def label_log_probs(
    logits: Float[Array, "B T U1 V"], grid: Grid, log_scale: LogScale
) -> Float[Array, "B T U"]:
    """Log-probabilities of the next label in each place of the grid."""
    before = LogScale(log_scale.peak[:, :, :-1], log_scale.log_total[:, :, :-1])
    label = jnp.take_along_axis(logits[:, :, :-1], grid.labels[:, None, :, None], 3)[..., 0]
    return before.log_prob(label)


def _places_first(table: Float[Array, "B T S"]) -> Float[Array, "S T B"]:
    return jnp.transpose(table, (2, 1, 0))


def _skewed(table: Float[Array, "S T B"], num_labels: int) -> Float[Array, "S D B"]:
    """table[s, t] at step t + s: each row is read one entry earlier than the row before it."""
    places, num_frames, batch = table.shape
    steps = num_frames + num_labels
    nothing = jnp.asarray(-jnp.inf, table.dtype)
    padded = lax.pad(table, nothing, [(0, 0, 0), (0, num_labels + 1, 0), (0, 0, 0)])
    flat = padded.reshape(places * (steps + 1), batch)
    return flat[: places * steps].reshape(places, steps, batch)


def _upright(table: Float[Array, "S D B"], num_frames: int) -> Float[Array, "S T B"]:
    """What `_skewed` has moved, in its place again."""
    places, steps, batch = table.shape
    flat = jnp.pad(table.reshape(places * steps, batch), [(0, places), (0, 0)])
    return flat.reshape(places, steps + 1, batch)[:, :num_frames]
