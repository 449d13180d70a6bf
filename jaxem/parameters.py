"""Which leaves of a model are free: dotted names, frozen parts, and the vector of free coordinates.

A leaf is named by its path of fields, `components.mean`.  Entries that are -inf (structural zeros)
or +inf (a Bernoulli probability of 1) are the active set: no gradient step can move them, and
arithmetic on them makes NaN, so they are left out of the free coordinates.
"""

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxem.pytree import child_names

Names = tuple[str, ...]


def named_leaves(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every leaf, in the order of `jax.tree.leaves`."""
    for field in child_names(model):
        value, name = getattr(model, field), prefix + field
        if is_dataclass(value):
            yield from named_leaves(value, name + ".")
        elif value is not None:
            yield name, value


def leaf_names(part: Any) -> Names:
    """The dotted names of the leaves."""
    return tuple(name for name, _ in named_leaves(part))


def check_frozen(model: Any, frozen: str | Names) -> Names:
    """The frozen names, sorted; a part all of whose leaves are frozen is named itself.

    Raises:
        ValueError: a name is neither a leaf of the model nor a part that holds leaves.
    """
    names = (frozen,) if isinstance(frozen, str) else tuple(frozen)
    leaves = [name for name, _ in named_leaves(model)]
    parts = {name.rsplit(".", depth)[0] for name in leaves for depth in range(name.count(".") + 1)}
    for name in names:
        if name not in parts:
            raise ValueError(
                f"frozen={name!r} names no part of this {type(model).__name__}; "
                f"its parts are {', '.join(sorted(parts))}."
            )
    moving = [leaf for leaf in leaves if not is_frozen(leaf, names)]
    whole = {part for part in parts if not any(is_frozen(leaf, (part,)) for leaf in moving)}
    return tuple(sorted({*names, *whole}))


def within(frozen: Names, part: str) -> Names | None:
    """The frozen names inside `part`, without its prefix; None when the whole part is frozen."""
    if part in frozen:
        return None
    return tuple(name[len(part) + 1 :] for name in frozen if name.startswith(part + "."))


def is_frozen(name: str, frozen: Names) -> bool:
    """Whether the leaf `name` is frozen, by itself or with a part that holds it."""
    return any(name == other or name.startswith(other + ".") for other in frozen)


def count(model: Any, frozen: Names = ()) -> Int[Array, ""] | int:
    """Number of free parameters: finite leaf entries less the directions that change nothing.

    Zeros (structural, -inf in the leaves) and frozen parts are not counted.  A simplex of V
    possible entries counts V - 1.
    """
    return _count(model, "", frozen)


def _count(model: Any, prefix: str, frozen: Names) -> Any:
    total = 0
    free = False
    for field in child_names(model):
        value, name = getattr(model, field), prefix + field
        if is_frozen(name, frozen) or value is None:
            continue
        if is_dataclass(value):
            total = total + _count(value, name + ".", frozen)
        else:
            xp = np if isinstance(value, np.ndarray) else jnp
            total, free = total + xp.sum(xp.isfinite(value)), True
    return total - (getattr(model, "null_directions", 0) if free else 0)


def ravel(model: Any) -> Float[Array, " P"]:
    """Every leaf entry of a model as one vector, in the order of its leaves."""
    leaves = jax.tree.leaves(model)
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]) if leaves else jnp.zeros(0)


def unravel(model: Any, vector: Float[Array, " P"]) -> Any:
    """`model` with its leaf entries replaced by `vector`; the inverse of `ravel`."""
    leaves, structure = jax.tree.flatten(model)
    stops = np.cumsum([np.size(leaf) for leaf in leaves])
    parts = jnp.split(vector, stops[:-1]) if leaves else []
    shaped = [
        part.reshape(np.shape(leaf)).astype(jnp.result_type(leaf))
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, shaped)


def free_mask(model: Any, frozen: str | Names = ()) -> np.ndarray:
    """Which entries of `ravel(model)` are free: finite and not frozen; [P], on the host."""
    masks = [mask.ravel() for mask in _free(model, frozen)]
    return np.concatenate(masks) if masks else np.zeros(0, bool)


def is_free(model: Any, frozen: Names = ()) -> Bool[Array, " P"]:
    """The same mask of a model that may be traced."""
    masks = [
        jnp.ravel(jnp.isfinite(leaf) & (not is_frozen(name, frozen)))
        for name, leaf in named_leaves(model)
    ]
    return jnp.concatenate(masks) if masks else jnp.zeros(0, bool)


def _free(model: Any, frozen: str | Names) -> list[np.ndarray]:
    """A mask for each leaf."""
    frozen = check_frozen(model, frozen)
    return [np.isfinite(leaf) & (not is_frozen(name, frozen)) for name, leaf in named_leaves(model)]


def ravel_free(model: Any, frozen: str | Names = ()) -> Float[Array, " P"]:
    """The free coordinates of a model as one vector, in the order of its leaves.

    Not for use under `jit`: how many there are depends on the values.
    """
    return ravel(model)[free_mask(model, frozen)]


def unravel_free(model: Any, vector: Float[Array, " P"], frozen: str | Names = ()) -> Any:
    """`model` with its free coordinates replaced by `vector`; the inverse of `ravel_free`.

    `model` must be concrete (it says which coordinates are free); `vector` may be traced, so this
    is the function to differentiate through.
    """
    masks = _free(model, frozen)
    total = sum(int(mask.sum()) for mask in masks)
    if total != len(vector):
        raise ValueError(f"the model has {total} free coordinates, the vector has {len(vector)}.")
    leaves, structure = jax.tree.flatten(model)
    start, changed = 0, []
    for leaf, mask in zip(leaves, masks, strict=True):
        stop = start + int(mask.sum())
        moved = jnp.asarray(leaf).at[mask].set(vector[start:stop]) if mask.any() else leaf
        changed.append(moved)
        start = stop
    return jax.tree.unflatten(structure, changed)
