"""What an E-step and its M-step tell a strategy."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float, Int

from jaxem import parameters


@dataclass(frozen=True)
class Judged:
    """A model that an E-step has judged, beside the last one that was accepted."""

    model: Any  # where the E-step was taken
    stats: Any  # what it found, about the means of ...
    anchor: Any  # ... this
    proposal: Any  # the M-step from there
    prior: Any
    objective: Float[Array, ""]  # ℓ + log-prior of `model`
    accepted: Any
    previous: Float[Array, ""]  # ℓ + log-prior of `accepted`
    negligible: Float[Array, ""]  # a gain no larger counts as none: the tolerance, or resolution
    rounding: Float[Array, ""]  # a fall no larger counts as none
    room: Int[Array, ""]  # how many steps are left
    frozen: parameters.Names
