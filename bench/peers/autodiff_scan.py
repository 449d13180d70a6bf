"""What one would write by hand: the transducer's recursion in log space by nested scans.

The outer scan is over frames, the inner over labels, and all sequences go side by side.  JAX
differentiates through them, the gathers and the log-softmax.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bench.inputs import Inputs
from bench.peers import Run
from bench.peers.gradients import gradient_run
from bench.workloads import TRANSDUCER, Workload


def version() -> str:
    """Of JAX."""
    return f"jax {jax.__version__}"


def supports(workload: Workload, dtype: str) -> str | None:
    """The transducer."""
    return None if workload.group == TRANSDUCER else "is written for the transducer only"


def computes_in(dtype: str) -> str:
    """The dtype of the logits."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """One compiled program."""
    return gradient_run(losses, inputs.x, *inputs.targets.values())


def losses(logits: Any, labels: Any, logit_lengths: Any, label_lengths: Any) -> Any:
    """-log p(labels | logits) [B] of logits [B, T, U + 1, V]; the blank is 0.  Graves (2012)."""
    log_probs = jax.nn.log_softmax(logits)
    blank = log_probs[..., 0]
    label = jnp.take_along_axis(log_probs[:, :, :-1], labels[:, None, :, None], 3)[..., 0]
    blank, label = jnp.transpose(blank, (1, 2, 0)), jnp.transpose(label, (1, 2, 0))  # [T, U, B]

    def emit(before: Any, arc: tuple[Any, Any]) -> tuple[Any, Any]:
        arriving, label = arc
        here = jnp.logaddexp(arriving, before + label)
        return here, here

    def frame(alpha: Any, arcs: tuple[Any, Any]) -> tuple[Any, Any]:
        blank, label = arcs
        _, rest = jax.lax.scan(emit, alpha[0], (alpha[1:], label))
        leaving = jnp.concatenate([alpha[:1], rest]) + blank
        return leaving, leaving

    first = jnp.pad(jnp.cumsum(label[0], 0), ((1, 0), (0, 0))) + blank[0]
    _, leaving = jax.lax.scan(frame, first, (blank[1:], label[1:]))
    leaving = jnp.concatenate([first[None], leaving])
    return -leaving[logit_lengths - 1, label_lengths, jnp.arange(labels.shape[0])]
