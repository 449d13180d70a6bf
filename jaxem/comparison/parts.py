"""The tables and families inside a model: where a name leads, and the model put together again."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import jax

from jaxem.families.mixture_family import MixtureFamily
from jaxem.hmm import HMM
from jaxem.mixture import Mixture
from jaxem.pytree import child_names


def split(model: Any) -> list[tuple[str, Any]]:
    """Dotted name and value of every part that holds leaves itself, in the order of the leaves.

    A model of another kind is one part, without a name.
    """
    return _split(model, "")


def _split(node: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(node, Mixture | HMM | MixtureFamily):
        return [(name, node)] if jax.tree.leaves(node) else []  # a stationary start has none
    prefix = name + "." if name else ""
    return [
        part for entry in child_names(node) for part in _split(getattr(node, entry), prefix + entry)
    ]


def join(model: Any, parts: Sequence[Any]) -> Any:
    """`model` with its parts replaced, in the order of `split`."""
    names = [name for name, _ in split(model)]
    for name, part in zip(names, parts, strict=True):
        model = _put(model, name.split(".") if name else [], part)
    return model


def _put(node: Any, path: list[str], part: Any) -> Any:
    if not path:
        return part
    return replace(node, **{path[0]: _put(getattr(node, path[0]), path[1:], part)})


def at(tree: Any, name: str) -> Any:
    """What lies under a dotted name; the whole for an empty one."""
    return reduce(getattr, name.split("."), tree) if name else tree
