"""Members of a batch that advance in lockstep, and choices made once for all of them.

Under `vmap` a `lax.cond` with a condition of each member's own runs both sides.  A condition that
holds everywhere in the batch is one bool, and a branch on it stays a branch.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Bool

AXIS = "jaxem members in lockstep"


def lockstep(function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
    """`vmap`, under which `everywhere` looks at all members."""
    return jax.vmap(function, in_axes=in_axes, axis_name=AXIS)


def everywhere(condition: Bool[Array, ""], void: Any = False) -> Bool[Array, ""]:
    """Whether the condition holds for all members in lockstep; by itself the condition.

    A member that is `void`, whose numbers are NaN whatever is chosen, has no say among others.
    """
    try:
        return lax.pmin(condition | void, AXIS)
    except NameError:  # no such axis: no lockstep
        return condition


def in_lockstep() -> bool:
    """Whether members advance in lockstep here; looked up while tracing."""
    try:
        lax.axis_size(AXIS)
    except NameError:
        return False
    return True
