"""The best path of a banded lattice."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxem.lattice.band import Paths, Potentials, Topology, choose, shifted, steps_of
from jaxem.lattice.shares import Shares, back
from jaxem.pytree import pytree


@pytree
class _Score:
    """A sum and what rounding took from it: paths of thousands of steps differ by little."""

    high: Float[Array, "..."]
    low: Float[Array, "..."]


def best_path(
    topology: Topology, potentials: Potentials, paths: Paths
) -> tuple[Float[Array, " B"], Potentials]:
    """The largest weight of a path, and which potentials it takes: counts of 0 and 1.

    Of equally good paths it is the one that, going back from the end, takes the arc named first by
    the topology.  Where there is no path the weight is -inf and nothing is taken.
    """
    num_steps, dtype = steps_of(potentials)

    def step(carry: list[_Score], inputs: Any) -> tuple[list[_Score], tuple[Any, ...]]:
        t, here = inputs
        inside = t < paths.num_steps
        new, taken = [], {}
        for track, old in zip(topology.tracks, carry, strict=True):
            stay, *others = topology.into(track)
            best = _arriving(topology, here, paths, carry, stay)
            choice = jnp.full(old.high.shape, stay)
            for number in others:
                term = _arriving(topology, here, paths, carry, number)
                better = _excess(term, best) > 0
                best = choose(better, term, best)
                choice = jnp.where(better, number, choice)
            best = _plus(best, here.emissions[track])
            new.append(choose(inside, best, old))
            for number in others:
                taken[number] = (inside & (choice == number)).astype(dtype)
        return new, tuple(taken.get(number) for number in range(len(topology.arcs)))

    start = [
        _Score(jnp.where(at, 0, -jnp.inf).astype(dtype), jnp.zeros(at.shape, dtype))
        for at in paths.starts()
    ]
    last, arcs = lax.scan(step, start, (jnp.arange(num_steps), potentials))
    final = jnp.concatenate(paths.final)
    high = jnp.where(final, jnp.concatenate([end.high for end in last]), -jnp.inf)
    low = jnp.concatenate([end.low for end in last])
    peak = jnp.max(high, 0)
    excess = jnp.where(jnp.isneginf(high), -jnp.inf, high - peak + low)
    end = jnp.argmax(excess, 0)
    score = jnp.take_along_axis(high + low, end[None], 0)[0]
    score = jnp.where(jnp.isneginf(peak), -jnp.inf, score)
    hit = (jnp.arange(len(final))[:, None] == end) & ~jnp.isneginf(peak)
    ends = jnp.split(hit.astype(dtype), _borders(paths))
    return score, back(topology, potentials, paths, Shares(score, tuple(ends), arcs))


def _borders(paths: Paths) -> list[int]:
    """Where each track but the first begins among the places of all."""
    borders = []
    for size in paths.sizes[:-1]:
        borders.append(size + (borders[-1] if borders else 0))
    return borders


def _arriving(
    topology: Topology, here: Potentials, paths: Paths, carry: list[_Score], number: int
) -> _Score:
    """Scores by one arc."""
    arc, allowed = topology.arcs[number], paths.allowed[number]
    size = paths.sizes[arc.target]
    high = shifted(carry[arc.source].high, arc.shift, size, -jnp.inf)
    high = high if allowed is None else jnp.where(allowed, high, -jnp.inf)
    return _plus(
        _Score(high, shifted(carry[arc.source].low, arc.shift, size, 0)), here.arcs[number]
    )


def _excess(one: _Score, other: _Score) -> Array:
    """By how much one score is better; NaN, which is not more than 0, if both are -inf."""
    return (one.high - other.high) + (one.low - other.low)


def _plus(score: _Score, term: Array | None) -> _Score:
    """The sum without loss: Knuth (1997), The Art of Computer Programming 2, 4.2.2, theorem B."""
    if term is None:
        return score
    total = score.high + term
    part = total - score.high
    lost = (score.high - (total - part)) + (term - part)
    return _Score(total, score.low + jnp.where(jnp.isfinite(total), lost, 0))
