"""Banded lattices: where their paths may go, and the log-potentials along them."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.pytree import pytree


@dataclass(frozen=True)
class Arc:
    """From each place of one track to the place `shift` (0 or 1) further on of another."""

    source: int
    target: int
    shift: int


@dataclass(frozen=True)
class Topology:
    """Tracks of places and the arcs between them.

    The first arc into a track stays where it is, and there is a second one.  A path takes one arc a
    step and starts at place 0 of track 0.
    """

    arcs: tuple[Arc, ...]

    @property
    def tracks(self) -> range:
        """The tracks, by their numbers."""
        return range(1 + max(arc.target for arc in self.arcs))

    def into(self, track: int) -> list[int]:
        """The arcs into a track, by their numbers."""
        return [number for number, arc in enumerate(self.arcs) if arc.target == track]


@pytree
class Potentials:
    """Log-potentials, or their expected counts.  None: 0 everywhere, and not counted.

    The batch comes last: a shift along a leading axis costs nothing.
    """

    # of the states of each track after a step; [T, 1, B]: of all of them alike
    emissions: tuple[Float[Array, "T S B"] | None, ...]
    arcs: tuple[Float[Array, "T S B"] | None, ...]  # of each arc, by the state it leads into


@pytree
class Paths:
    """Which paths count: those that take allowed arcs, `num_steps` of them, to a final state."""

    allowed: tuple[Bool[Array, "S B"] | None, ...]  # of each arc, into which states; None: all
    final: tuple[Bool[Array, "S B"], ...]  # of each track
    num_steps: Int[Array, " B"]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Places on each track."""
        return tuple(len(final) for final in self.final)

    def starts(self) -> tuple[Bool[Array, "S B"], ...]:
        """Of each track, where a path begins."""
        first = jnp.zeros_like(self.final[0]).at[0].set(True)
        return (first, *(jnp.zeros_like(final) for final in self.final[1:]))


def steps_of(potentials: Potentials) -> tuple[int, jnp.dtype]:
    """The number of steps and the dtype."""
    some = jax.tree.leaves(potentials)[0]
    return len(some), some.dtype


def choose(which: Bool[Array, "... B"], one: Any, other: Any) -> Any:
    """Place by place the one where true, else the other, of every array of a pytree [..., B]."""
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), one, other)


def shifted(number: Array, shift: int, size: int, fill: float) -> Float[Array, "S B"]:
    """Seen from each of `size` places, what is `shift` places before it."""
    after = max(size - shift - len(number), 0)
    padding = [(shift, after, 0), (0, 0, 0)]
    return lax.pad(number, jnp.asarray(fill, number.dtype), padding)[:size]


def shifted_back(number: Array, shift: int, size: int) -> Float[Array, "S B"]:
    """Seen from each of `size` places, what is `shift` places after it; 0 past the end."""
    number = number[shift : shift + size]
    return jnp.pad(number, [(0, size - len(number)), (0, 0)])
