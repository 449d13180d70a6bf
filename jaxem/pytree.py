"""Frozen dataclasses as pytrees."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform

from jax.tree_util import GetAttrKey, register_pytree_with_keys

Class = TypeVar("Class", bound=type)


def child_names(part: Any) -> tuple[str, ...]:
    """The fields of a class or an object made by `pytree` that are not structure."""
    return tuple(field.name for field in fields(part) if not field.metadata.get("static"))


@dataclass_transform(frozen_default=True)
def pytree(cls: Class) -> Class:
    """A frozen dataclass whose fields are children; those with metadata `static` are structure.

    Not `jax.tree_util.register_dataclass`: structures made by it compare equal across classes (seen
    in jaxlib 0.10 to 0.12), so that `jit`, where two hashes collide, runs the program of another
    class with leaves of the same shapes.  Structures of custom nodes compare their class.
    """
    cls = dataclass(frozen=True)(cls)
    children = child_names(cls)
    static = tuple(field.name for field in fields(cls) if field.name not in children)

    def flatten(tree: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return (
            tuple(getattr(tree, name) for name in children),
            tuple(getattr(tree, name) for name in static),
        )

    def flatten_with_keys(tree: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        leaves, structure = flatten(tree)
        keys = [GetAttrKey(name) for name in children]
        return list(zip(keys, leaves, strict=True)), structure

    def unflatten(structure: tuple[Any, ...], leaves: Iterable[Any]) -> Any:
        return cls(
            **dict(zip(children, leaves, strict=True)), **dict(zip(static, structure, strict=True))
        )

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
