"""Small problems are compiled hastily: it takes longer than all their steps."""

from typing import Any

import jax

from jaxem.platform import hastily, is_cpu

SMALL = 2**16  # products of features and members in a step


def is_small(num_rows: int, num_members: int, num_features: int) -> bool:
    """Whether it takes longer to compile a step well than it gains: on a CPU, for few rows."""
    products = num_rows * num_members * max(num_features**2, num_members)
    return products <= SMALL and is_cpu()


def answer(question: Any, small: bool, model: Any, data: Any) -> Any:
    """`question(model, data)`, compiled; a question is a function of some module, not made anew."""
    return (_hastily if small else _well)(question, model, data)


def _ask(question: Any, model: Any, data: Any) -> Any:
    return question(model, data)


_well = jax.jit(_ask, static_argnums=0)
_hastily = hastily(_ask, static_argnums=0)
