"""The log-normaliser of a banded lattice and its gradient, the expected counts."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxem.lattice import log_recursion
from jaxem.lattice.band import Paths, Potentials, Topology
from jaxem.lattice.shares import Shares, back, there


def log_normalizer(topology: Topology, potentials: Potentials, paths: Paths) -> Float[Array, " B"]:
    """Log of the sum over all paths; -inf where there is none.

    Potentials past `num_steps` have no influence, whatever they hold.  Differentiable any number of
    times, forward and backward.  O(T S B) time and memory.
    """
    return _value(topology, potentials, paths, _shares(topology, potentials, paths))


def posterior(
    topology: Topology, potentials: Potentials, paths: Paths
) -> tuple[Float[Array, " B"], Potentials]:
    """The log-normaliser, and its gradient: the expected count of each potential.

    Where there is no path nothing is counted.  Differentiable as `log_normalizer` is.
    """
    shares = _shares(topology, potentials, paths)
    value = _value(topology, potentials, paths, shares)
    return value, _counts(topology, potentials, paths, shares)


def _shares(topology: Topology, potentials: Potentials, paths: Paths) -> Shares:
    return there(topology, jax.tree.map(lax.stop_gradient, potentials), paths)


# `shares` follow from the potentials: the derivatives with respect to these are the whole ones.
@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(topology: Topology, potentials: Potentials, paths: Paths, shares: Shares) -> Array:
    return shares.log_normalizer


@_value.defjvp
def _value_jvp(topology: Topology, primals: Any, tangents: Any) -> tuple[Array, Array]:
    counts = _counts(topology, *primals)
    value = _value(topology, *primals)
    weighted = jax.tree.map(lambda a, b: jnp.sum(a * b, (0, 1)), counts, tangents[0])
    return value, sum(jax.tree.leaves(weighted), jnp.zeros_like(value))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _counts(topology: Topology, potentials: Potentials, paths: Paths, shares: Shares) -> Potentials:
    return back(topology, potentials, paths, shares)


@_counts.defjvp
def _counts_jvp(topology: Topology, primals: Any, tangents: Any) -> tuple[Potentials, Potentials]:
    potentials, paths, _ = primals

    def plain(potentials: Potentials) -> Potentials:
        return log_recursion.counts(topology, potentials, paths)

    return _counts(topology, *primals), jax.jvp(plain, (potentials,), tangents[:1])[1]
