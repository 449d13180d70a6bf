"""The plain recursion in log space: what every derivative beyond the first is taken of."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxem.lattice.band import Paths, Potentials, Topology, shifted, steps_of
from jaxem.semiring import logsumexp, pairwise_sum


def log_normalizer(topology: Topology, potentials: Potentials, paths: Paths) -> Float[Array, " B"]:
    """Log of the sum over all paths, by a scan of sums in log space.

    Messages are kept relative to the largest, which is taken to be constant.
    """
    num_steps, dtype = steps_of(potentials)
    inside = jnp.arange(num_steps)[:, None, None] < paths.num_steps
    # What lies past the end may be NaN: chosen away before anything is computed of it.
    potentials = jax.tree.map(lambda part: jnp.where(inside, part, 0), potentials)

    @jax.checkpoint
    def step(carry: list[Array], inputs: Any) -> tuple[list[Array], Array]:
        inside, here = inputs
        new = []
        for track, old in zip(topology.tracks, carry, strict=True):
            terms = []
            for number in topology.into(track):
                arc, allowed = topology.arcs[number], paths.allowed[number]
                term = shifted(carry[arc.source], arc.shift, len(old), -jnp.inf)
                term = term if allowed is None else jnp.where(allowed, term, -jnp.inf)
                terms.append(term if here.arcs[number] is None else term + here.arcs[number])
            total = logsumexp(jnp.stack(terms), 0)
            emission = here.emissions[track]
            new.append(total if emission is None else total + emission)
        peak = lax.stop_gradient(jnp.max(jnp.concatenate(new), 0))
        peak = jnp.where(jnp.isneginf(peak) | ~inside[0], 0, peak)
        kept = [jnp.where(inside, a - peak, b) for a, b in zip(new, carry, strict=True)]
        return kept, peak

    start = [jnp.where(at, 0, -jnp.inf).astype(dtype) for at in paths.starts()]
    last, peaks = lax.scan(step, start, (inside, potentials))
    ends = [jnp.where(final, end, -jnp.inf) for final, end in zip(paths.final, last, strict=True)]
    return logsumexp(jnp.concatenate(ends), 0) + pairwise_sum(peaks)


def counts(topology: Topology, potentials: Potentials, paths: Paths) -> Potentials:
    """The gradient of `log_normalizer`: the expected count of each potential."""
    return jax.grad(lambda p: jnp.sum(log_normalizer(topology, p, paths)))(potentials)
