"""Both directions in one scan: α and β do not depend on each other.

On an accelerator a step costs its launches, whatever it computes, so one scan of twice the work
takes half the time of two.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxem.chain.factors import Factors, reciprocal
from jaxem.chain.scaled import Messages, raised
from jaxem.semiring import PRECISION


def messages(
    f: Factors, floor: float | None = None, end: Float[Array, "K *B"] | None = None
) -> Messages:
    """Messages both ways of chains that share one matrix; β starts from `end`, by default ones.

    Step t of α beside step T − 1 − t of β, each message divided by its sum in the next step.
    """
    both = jnp.stack([f.moves.T, f.moves])
    end = jnp.ones_like(f.emissions[0]) if end is None else end

    def step(carry: tuple[Array, Array], inputs: Any) -> tuple[Any, Any]:
        messages, totals = carry
        first, emission, inside, late_emission, goes_on = inputs
        scale = jnp.expand_dims(reciprocal(totals), 1)
        moved = _apply(both, messages) * scale
        alpha = moved[0] * emission
        alpha = alpha if inside is None else jnp.where(inside, alpha, messages[0])
        beta = jnp.where(goes_on, moved[1], end)
        new = jnp.stack([jnp.where(first, emission, alpha), late_emission * beta])
        new = raised(new, floor)
        totals = jnp.sum(new, 1)
        return (new, totals), (new[0], beta, totals)

    def late(steps: Array) -> Array:
        return jnp.flip(steps, 0)

    start = jnp.ones_like(jnp.stack([end, end]))
    early = f.chain.is_first, f.emissions, f.inside
    inputs = (*early, late(f.emissions), late(f.chain.goes_on))
    _, (alpha, beta, totals) = lax.scan(step, (start, jnp.sum(start, 1)), inputs)
    return Messages(alpha, totals[:, 0], late(beta), late(totals[:, 1]))


def _apply(matrices: Float[Array, "2 K K"], messages: Float[Array, "2 K *B"]) -> Array:
    return lax.dot_general(matrices, messages, (((2,), (1,)), ((0,), (0,))), precision=PRECISION)
