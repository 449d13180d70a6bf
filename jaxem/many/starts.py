"""Starts of a candidate for many keys and data sets: in one compiled call if it can be traced."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxem.data import Samples, Sequences
from jaxem.many.lanes import in_blocks
from jaxem.platform import hastily, is_cpu

Candidate = Callable[[Array, Any], Any]  # (key, data) -> the model to start from
SIDE_BY_SIDE = 16  # starts, on a CPU


def starts(candidate: Candidate, keys: Array, data: Any, whole: Any, data_set: Any) -> Any:
    """Models with a leading axis M, one for each of the keys [M].

    `data` are as they came; `whole` are the same for a candidate that is traced, stacked if they
    are a `Batch` of which `data_set` [M] says which each start takes.  A candidate that JAX cannot
    trace (one that looks at values) is called start by start instead.

    Raises:
        ValueError: models of different shapes.
    """
    traced = traced_starts(candidate, keys, _plain(whole), data_set)
    if traced is not None:
        return traced
    number = len(keys)
    which = np.zeros(number, int) if data_set is None else data_set
    made = [
        candidate(keys[i], data if data_set is None else data[int(which[i])]) for i in range(number)
    ]
    check_one_shape(made, which)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *made)


def check_one_shape(models: Sequence[Any], data_sets: Any) -> None:
    """Models made of these data sets can be stacked.

    Raises:
        ValueError: they cannot.
    """
    for i, model in enumerate(models):
        if shapes(model) != shapes(models[0]):
            raise ValueError(
                "a candidate must make models of one shape, but they differ between data sets "
                f"{data_sets[0]} and {data_sets[i]}: {shapes(models[0])} and {shapes(model)}; "
                "state what it takes from the data, such as the number of symbols."
            )


def traced_starts(candidate: Candidate, keys: Array, data: Any, data_set: Any) -> Any:
    """The models in one compiled call; None if the candidate looks at values, or refuses."""
    try:
        return jax.device_get(_compiled(data, keys, data_set, candidate=candidate))
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, ValueError):
        return None  # called with values, it says what is wrong, if anything is


def shapes(model: Any) -> list[tuple[int, ...]]:
    """The shape of every leaf."""
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(model)]


def _plain(data: Any) -> Any:
    """Wrapped data that say nothing but their values, unwrapped."""
    alone = isinstance(data, Samples | Sequences) and len(jax.tree.leaves(data)) == 1
    return data.values if alone else data


# A start is one step of many: compiling it well would take longer than it runs.
@partial(hastily, static_argnames="candidate")
def _compiled(data: Any, keys: Array, data_set: Any, *, candidate: Candidate) -> Any:
    side_by_side = SIDE_BY_SIDE if is_cpu() else len(keys)
    if data_set is None:
        return in_blocks(lambda key: candidate(key, data), side_by_side, keys)

    def own(key: Array, which: Array) -> Any:
        return candidate(key, jax.tree.map(lambda leaf: jnp.asarray(leaf)[which], data))

    return in_blocks(own, side_by_side, keys, data_set)
