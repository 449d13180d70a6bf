"""EM as it is: the next model is the M-step's, and nothing is remembered."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxem.acceleration.judged import Judged
from jaxem.pytree import pytree


@pytree
class Memory:
    """Nothing."""

    @property
    def trial(self) -> Bool[Array, ""]:
        """False."""
        return jnp.asarray(False)


def begin(_: Any) -> Memory:
    """The memory before the first E-step."""
    return Memory()


def passes(_: Memory, __: Judged) -> Bool[Array, ""]:
    """True: there are no trials."""
    return jnp.asarray(True)


def follow(memory: Memory, judged: Judged, _: Array) -> tuple[Any, Bool[Array, ""], Memory]:
    """The M-step's model."""
    return judged.proposal, jnp.asarray(False), memory
