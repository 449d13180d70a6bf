"""optax: `ctc_loss` of logits, compiled with its gradient; paddings stand for lengths."""

from importlib.metadata import version as installed

import jax.numpy as jnp
import optax

from bench.inputs import Inputs
from bench.peers import Run
from bench.peers.gradients import gradient_run
from bench.workloads import CTC, Workload


def version() -> str:
    """Of optax."""
    return installed("optax")


def supports(workload: Workload, dtype: str) -> str | None:
    """CTC."""
    return None if workload.group == CTC else "has CTC only"


def computes_in(dtype: str) -> str:
    """The dtype of the logits."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """Paddings are made beforehand."""
    told = inputs.targets
    padding = (
        jnp.asarray(jnp.arange(size) >= told[name][:, None], dtype)
        for name, size in (("logit_lengths", workload.rows), ("label_lengths", workload.states))
    )
    logit_padding, label_padding = padding

    def losses(logits, labels, logit_padding, label_padding):
        return optax.ctc_loss(logits, logit_padding, labels, label_padding)

    return gradient_run(losses, inputs.x, told["labels"], logit_padding, label_padding)
