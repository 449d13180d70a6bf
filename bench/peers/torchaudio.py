"""torchaudio: `rnnt_loss` of logits, which does the log-softmax itself, with its gradient."""

import os
from typing import Any

import torch
import torchaudio

from bench.inputs import Inputs
from bench.peers import Run
from bench.workloads import TRANSDUCER, Workload


def version() -> str:
    """Of torchaudio and of torch."""
    return f"{torchaudio.__version__} (torch {torch.__version__})"


def supports(workload: Workload, dtype: str) -> str | None:
    """The transducer in float32."""
    if workload.group != TRANSDUCER:
        return "has the transducer only; CTC is torch's"
    return None if dtype == "float32" else "has float32 and float16 only"


def computes_in(dtype: str) -> str:
    """The dtype of the logits."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """`rnnt_loss` on all cores."""
    torch.set_num_threads(os.cpu_count() or 1)
    logits = torch.from_numpy(inputs.x).requires_grad_()
    targets = [torch.from_numpy(part) for part in inputs.targets.values()]

    def call() -> tuple[Any, Any]:
        losses = torchaudio.functional.rnnt_loss(logits, *targets, blank=0, reduction="none")
        return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]

    return Run(call, lambda result: {"losses": result[0].numpy(), "gradient": result[1].numpy()})
