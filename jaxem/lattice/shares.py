"""There and back: all paths into each state, and how what is in a state is shared by its origins.

The way there runs in extended numbers.  Of each sum it leaves the share of each term, and the way
back hands on what passes through a state by these shares: it needs no second set of sums, no
exponentials, and nothing that could underflow.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxem.lattice import extended
from jaxem.lattice.band import Paths, Potentials, Topology, choose, shifted_back, steps_of
from jaxem.lattice.extended import Extended
from jaxem.pytree import pytree


@pytree
class Shares:
    """What the way there leaves behind."""

    log_normalizer: Float[Array, " B"]
    final: tuple[Float[Array, "S B"], ...]  # of each final state in all paths, by track
    # of each arc in what is in its target, negative if the first arc has none; None: the rest, of
    # the first arc into a track
    arcs: tuple[Float[Array, "T S B"] | None, ...]


def there(topology: Topology, potentials: Potentials, paths: Paths) -> Shares:
    """The sum over all paths and its shares.  Nothing here may be differentiated."""
    num_steps, dtype = steps_of(potentials)
    padding = _padding(topology)

    def step(carry: list[Extended], inputs: Any) -> tuple[list[Extended], tuple[Any, ...]]:
        t, here = inputs
        # Within the loop no array of all steps is written; the barrier keeps it from being done for
        # each of the loop's results again.
        here = lax.optimization_barrier(jax.tree.map(extended.from_log, here))
        inside = t < paths.num_steps
        new: list[Extended] = []
        shares: dict[int, Array] = {}
        for track, size in zip(topology.tracks, paths.sizes, strict=True):
            terms = []
            for number in topology.into(track):
                arc = topology.arcs[number]
                term = _part(carry[arc.source], padding[arc.source] - arc.shift, size)
                terms.append(_times(_only(paths.allowed[number], term), here.arcs[number]))
            parts, exponent = extended.align(terms)
            total = sum(parts[1:], parts[0])
            # Past the end all stays where it is.  0 has no shares, and NaN keeps its own.
            share = jnp.where(inside & (total != 0), 1 / jnp.where(total == 0, 1, total), 0)
            # A sign says that nothing stayed: what rounding leaves over must not pass there.
            share = jnp.where(inside & (parts[0] == 0), -share, share)
            shares |= {n: part * share for n, part in zip(topology.into(track), parts, strict=True)}
            message = _times(Extended(total, exponent), here.emissions[track])
            old = _part(carry[track], padding[track], size)
            message = choose(inside, extended.normalise(message), old)
            new.append(_updated(carry[track], message, padding[track]))
        firsts = {topology.into(track)[0] for track in topology.tracks}
        return new, tuple(None if n in firsts else shares[n] for n in range(len(topology.arcs)))

    start = [
        _padded(extended.indicator(at, dtype), places)
        for at, places in zip(paths.starts(), padding, strict=True)
    ]
    inputs = (jnp.arange(num_steps), potentials)
    last, arcs = lax.scan(step, start, inputs)
    ends = [
        _only(final, _part(end, places, size))
        for final, end, places, size in zip(paths.final, last, padding, paths.sizes, strict=True)
    ]
    exponent = jnp.max(jnp.concatenate([end.exponent for end in ends]), 0)
    parts = [end.mantissa * extended.power(end.exponent - exponent, dtype) for end in ends]
    total = jnp.sum(jnp.concatenate(parts), 0)
    share = jnp.where(total == 0, 0, 1 / jnp.where(total == 0, 1, total))
    log_normalizer = extended.log(Extended(total, exponent))
    return Shares(log_normalizer, tuple(part * share for part in parts), arcs)


def back(topology: Topology, potentials: Potentials, paths: Paths, shares: Shares) -> Potentials:
    """The expected count of each potential.  Nothing here may be differentiated."""
    num_steps, _ = steps_of(potentials)

    def step(states: tuple[Array, ...], inputs: Any) -> tuple[tuple[Array, ...], Potentials]:
        t, share = inputs
        inside = t < paths.num_steps
        before = [jnp.zeros_like(state) for state in states]
        arcs: list[Array | None] = []
        for track, state in zip(topology.tracks, states, strict=True):
            stay, *others = topology.into(track)
            parts = {number: state * jnp.abs(share[number]) for number in others}
            rest = jnp.maximum(state - sum(parts.values()), 0)
            rest = jnp.where(jnp.signbit(share[others[0]]), 0, rest)
            for number, part in {stay: rest, **parts}.items():
                arc = topology.arcs[number]
                before[arc.source] += shifted_back(part, arc.shift, paths.sizes[arc.source])
                counted = potentials.arcs[number] is not None
                arcs.append(jnp.where(inside, part, 0) if counted else None)
        emissions = (
            None if potential is None else jnp.where(inside, _shaped(state, potential), 0)
            for state, potential in zip(states, potentials.emissions, strict=True)
        )
        return tuple(before), Potentials(tuple(emissions), tuple(arcs))

    inputs = (jnp.arange(num_steps), shares.arcs)
    return lax.scan(step, shares.final, inputs, reverse=True)[1]


def _shaped(state: Array, potential: Array) -> Array:
    """Counts of a potential that all states share are those of all states."""
    return state if potential.shape[1] == len(state) else jnp.sum(state, 0, keepdims=True)


def _padding(topology: Topology) -> list[int]:
    """Places kept before each track for the shifts out of it; as part of the loop's carry they
    cost nothing, made anew in each step they double its time."""
    return [
        max((arc.shift for arc in topology.arcs if arc.source == track), default=0)
        for track in topology.tracks
    ]


def _padded(number: Extended, places: int) -> Extended:
    widths = [(places, 0), (0, 0)]
    mantissa = jnp.pad(number.mantissa, widths)
    return Extended(mantissa, jnp.pad(number.exponent, widths, constant_values=extended.LEAST))


def _part(number: Extended, first: int, size: int) -> Extended:
    return jax.tree.map(lambda part: part[first : first + size], number)


def _updated(number: Extended, part: Extended, first: int) -> Extended:
    return jax.tree.map(lambda a, b: lax.dynamic_update_slice(a, b, (first, 0)), number, part)


def _only(allowed: Array | None, number: Extended) -> Extended:
    return number if allowed is None else choose(allowed, number, extended.zero_like(number))


def _times(number: Extended, factor: Extended | None) -> Extended:
    return number if factor is None else extended.product(number, factor)
