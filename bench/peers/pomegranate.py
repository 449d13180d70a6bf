"""pomegranate: `GeneralMixtureModel` over `Normal`s, and `DenseHMM` where emissions are given.

Its hidden Markov models estimate the probability of ending in each state as well, and share it with
the transitions: another model, so their fits are not compared.  Given emissions, ends of
probability one everywhere leave smoothing and best paths what they are elsewhere.
"""

import os
from typing import Any

import numpy as np
import pomegranate
import torch
from pomegranate.distributions import Normal
from pomegranate.gmm import GeneralMixtureModel
from pomegranate.hmm import DenseHMM

from bench.inputs import Inputs
from bench.peers import Run
from bench.workloads import HMM_GROUP, MIXTURE_GROUP, SMOOTHING, Workload


def version() -> str:
    """Of pomegranate and of torch."""
    return f"{pomegranate.__version__} (torch {torch.__version__})"


def supports(workload: Workload, dtype: str) -> str | None:
    """Mixtures, and inference on chains."""
    if workload.group == HMM_GROUP:
        return "its HMMs estimate end probabilities too: another model"
    return None


def computes_in(dtype: str) -> str:
    """The dtype of the data."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """`fit` of a fresh model, or `forward_backward` or `viterbi` of emissions."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_default_dtype(getattr(torch, dtype))
    torch.set_grad_enabled(False)
    if workload.group == MIXTURE_GROUP:
        return _mixture(workload, inputs)
    return _on_chain(workload, inputs)


def _mixture(workload: Workload, inputs: Inputs) -> Run:
    x = torch.from_numpy(inputs.x)
    start = {name: torch.from_numpy(part) for name, part in inputs.start.items()}
    kind = "full" if workload.kind == "full" else "diag"

    def call() -> GeneralMixtureModel:
        members = [
            Normal(mean.clone(), covariance.clone(), covariance_type=kind, check_data=False)
            for mean, covariance in zip(start["means"], start["covariances"], strict=True)
        ]
        model = GeneralMixtureModel(
            members,
            priors=start["weights"].clone(),
            max_iter=workload.steps,
            tol=-np.inf,
            check_data=False,
        )
        return model.fit(x)

    def answer(model: Any) -> dict[str, Any]:
        return {
            "weights": model.priors.numpy(),
            "means": np.stack([member.means.numpy() for member in model.distributions]),
            "covariances": np.stack([member.covs.numpy() for member in model.distributions]),
        }

    return Run(call, answer)


def _on_chain(workload: Workload, inputs: Inputs) -> Run:
    emissions = torch.from_numpy(inputs.x)
    unit = [Normal([0.0], [1.0], covariance_type="diag") for _ in range(workload.states)]
    model = DenseHMM(
        unit,
        edges=torch.from_numpy(inputs.start["transition"]),
        starts=torch.from_numpy(inputs.start["initial"]),
        ends=torch.ones(workload.states),
        check_data=False,
    )
    if workload.group == SMOOTHING:
        return Run(
            lambda: model.forward_backward(emissions=emissions)[1],
            lambda log_gamma: {"gamma": np.exp(log_gamma.numpy())},
        )
    return Run(
        lambda: model.viterbi(emissions=emissions), lambda path: {"path": np.asarray(path.numpy())}
    )
