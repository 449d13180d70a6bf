"""Starts of a candidate for many keys and data sets: in one compiled call if it can be traced."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxem.data import Samples, Sequences
from jaxem.many.batch import Batch
from jaxem.many.lanes import in_blocks
from jaxem.platform import is_cpu

Candidate = Callable[[Array, Any], Any]  # (key, data) -> the model to start from
SIDE_BY_SIDE = 16  # starts, on a CPU


def starts(candidate: Candidate, keys: Array, data: Any, whole: Any, data_set: Any) -> Any:
    """Models with a leading axis M, one for each of the keys [M].

    `data` are as they came; `whole` are validated, stacked if they are a `Batch` of which
    `data_set` [M] says which each start takes.  A candidate that JAX cannot trace (one that looks
    at values) is called start by start instead.

    Raises:
        ValueError: models of different shapes.
    """
    traceable = _plain(whole) if isinstance(data, (Batch, list, tuple)) else data
    try:
        return _compiled(traceable, keys, data_set, candidate=candidate)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        pass
    number = len(keys)
    which = np.zeros(number, int) if data_set is None else data_set
    made = [
        candidate(keys[i], data if data_set is None else data[int(which[i])]) for i in range(number)
    ]
    for i, model in enumerate(made):
        if shapes(model) != shapes(made[0]):
            raise ValueError(
                f"a candidate must make models of one shape, but they differ between data sets "
                f"{which[0]} and {which[i]}: {shapes(made[0])} and {shapes(model)}; state what it "
                "takes from the data, such as the number of symbols."
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


def shapes(model: Any) -> list[tuple[int, ...]]:
    """The shape of every leaf."""
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(model)]


def _plain(data: Any) -> Any:
    """Wrapped data that say nothing but their values, unwrapped."""
    alone = isinstance(data, Samples | Sequences) and len(jax.tree.leaves(data)) == 1
    return data.values if alone else data


@partial(jax.jit, static_argnames="candidate")
def _compiled(data: Any, keys: Array, data_set: Any, *, candidate: Candidate) -> Any:
    side_by_side = SIDE_BY_SIDE if is_cpu() else len(keys)
    if data_set is None:
        return in_blocks(lambda key: candidate(key, data), side_by_side, keys)

    def own(key: Array, which: Array) -> Any:
        return candidate(key, jax.tree.map(lambda leaf: jnp.asarray(leaf)[which], data))

    return in_blocks(own, side_by_side, keys, data_set)
