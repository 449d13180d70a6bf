"""torch: `ctc_loss` of log-softmaxed logits, with its gradient, on all cores."""

import os
from typing import Any

import torch

from bench.inputs import Inputs
from bench.peers import Run
from bench.workloads import CTC, Workload


def version() -> str:
    """Of torch."""
    return str(torch.__version__)


def supports(workload: Workload, dtype: str) -> str | None:
    """CTC."""
    return None if workload.group == CTC else "has CTC only; the transducer is torchaudio's"


def computes_in(dtype: str) -> str:
    """The dtype of the logits."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """Logits lie in memory as it wants them, [T, B, V]."""
    torch.set_num_threads(os.cpu_count() or 1)
    logits = torch.from_numpy(inputs.x).transpose(0, 1).contiguous().requires_grad_()
    labels, *lengths = (torch.from_numpy(part.astype(int)) for part in inputs.targets.values())

    def call() -> tuple[Any, Any]:
        log_probs = torch.log_softmax(logits, -1)
        losses = torch.nn.functional.ctc_loss(log_probs, labels, *lengths, reduction="none")
        return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]

    return Run(
        call,
        lambda result: {
            "losses": result[0].numpy(),
            "gradient": result[1].transpose(0, 1).numpy(),
        },
    )
