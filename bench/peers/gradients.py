"""Losses and the gradient of their sum as one compiled program of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.peers import Run


def gradient_run(losses: Callable[..., Any], logits: Any, *others: Any) -> Run:
    """A call of `losses(logits, *others)` [B] and of their sum's gradient in the logits."""

    def total(logits: Any, *others: Any) -> tuple[Any, Any]:
        each = losses(logits, *others)
        return jnp.sum(each), each

    function = jax.jit(jax.value_and_grad(total, has_aux=True))
    arrays = jax.block_until_ready([jnp.asarray(one) for one in (logits, *others)])
    return Run(
        lambda: jax.block_until_ready(function(*arrays)),
        lambda result: {"losses": np.asarray(result[0][1]), "gradient": np.asarray(result[1])},
    )
