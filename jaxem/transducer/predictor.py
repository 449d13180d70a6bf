"""The two networks that decoding calls, of one hypothesis each, over batches of hypotheses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem.targets import LogScale, check_blank
from jaxem.transducer.grid import check_topology

Predict = Callable[[Any, Int[Array, ""]], tuple[Any, Any]]  # (state, token) -> (prediction, state)
Join = Callable[[Any, Any], Float[Array, " V"]]  # (frame, prediction) -> logits


def begin(predict: Predict, start: Any, blank: int) -> tuple[Any, Any]:
    """The prediction of the empty prefix, and the state after it.

    Raises:
        ValueError: `predict` does not hand on states of one structure, shape and dtype.
    """
    prediction, state = predict(jax.tree.map(jnp.asarray, start), jnp.int32(blank))
    prediction, state = jax.tree.map(jnp.asarray, (prediction, state))
    again = jax.eval_shape(predict, state, jnp.int32(blank))
    for what, one, other in zip(("prediction", "state"), (prediction, state), again, strict=True):
        if _form(one) != _form(other):
            raise ValueError(
                f"predict must return a {what} of the same structure, shapes and dtypes at every "
                f"token; got first {_form(one)}, then {_form(other)}."
            )
    return prediction, state


def _form(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, str(leaf.dtype)) for leaf in leaves]


def log_probs(
    join: Join, blank: int, frame: Float[Array, " F"], prediction: Any
) -> Float[Array, " V"]:
    """Log-probabilities of the symbols after a prefix, at a frame; in float32 at least."""
    logits = jnp.asarray(join(frame, prediction))
    if logits.ndim != 1 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(
            f"join must return floating logits [V] for one frame and one prediction, got "
            f"{logits.dtype} {list(logits.shape)}."
        )
    check_blank(blank, len(logits))
    return LogScale.of(logits).log_prob(logits)


def check_options(max_symbols: int, max_length: int | None, topology: str) -> None:
    """Raise a ValueError unless the options of decoding are what they must be."""
    check_topology(topology)
    if max_symbols < 1:
        raise ValueError(f"max_symbols must be 1 or more labels a frame, got {max_symbols}.")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length must be 1 or more labels, got {max_length}.")
