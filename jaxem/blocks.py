"""A batch in blocks of rows: on a CPU what a block holds on the way stays in the cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxem.platform import is_cpu

BLOCK = 8  # rows at most, a vector register of float32: with 16 CTC takes half as long again
CACHE = 2**24  # bytes of a block's arrays; larger ones would only be copied


def by_blocks(function: Callable[..., Any], *arrays: Any) -> Any:
    """function(*arrays), of arrays whose leading axis is the batch, and so is that of the results.

    On a CPU block after block in one compiled loop, if the arrays of a block are small enough; rows
    must not depend on one another.  Where blocks do not divide the batch the last two share rows,
    which are computed twice.
    """
    leaves = jax.tree.leaves(arrays)
    batch = len(leaves[0])
    num_blocks = -(-batch // BLOCK)
    if num_blocks <= 1 or not is_cpu():
        return function(*arrays)
    size = -(-batch // num_blocks)
    row_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / batch
    if size * row_bytes > CACHE:
        return function(*arrays)

    def rows(start: Any) -> Any:
        return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size), arrays)

    def step(whole: Any, start: Any) -> tuple[Any, None]:
        part = function(*rows(start))
        update = lax.dynamic_update_slice_in_dim
        return jax.tree.map(lambda a, b: update(a, b, start, 0), whole, part), None

    shapes = jax.eval_shape(lambda: function(*rows(0)))
    whole = jax.tree.map(lambda a: jnp.zeros((batch, *a.shape[1:]), a.dtype), shapes)
    starts = jnp.minimum(jnp.arange(0, batch, size), batch - size)
    return lax.scan(step, whole, starts)[0]
