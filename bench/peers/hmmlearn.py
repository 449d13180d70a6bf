"""hmmlearn: its HMMs with every prior off, and the compiled functions under them.

It has float64 only.  Fits use `implementation="scaling"`, the faster of its two.  For emissions
that are given it has no public function: the recursions of `hmmlearn._hmmc`, which its models call,
are the fastest way to them and are called here.
"""

import logging
from importlib.metadata import version as installed
from typing import Any

import numpy as np
from hmmlearn import _hmmc  # pyright: ignore[reportAttributeAccessIssue]
from hmmlearn.hmm import CategoricalHMM, GaussianHMM

from bench.inputs import Inputs, widened
from bench.peers import Run
from bench.workloads import MIXTURE_GROUP, SMOOTHING, VITERBI, Workload


def version() -> str:
    """Of hmmlearn."""
    return installed("hmmlearn")


def supports(workload: Workload, dtype: str) -> str | None:
    """Hidden Markov models."""
    return "has no mixtures of rows" if workload.group == MIXTURE_GROUP else None


def computes_in(dtype: str) -> str:
    """Always float64."""
    return "float64"


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """A fit from the start, or the compiled recursions sequence by sequence."""
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    inputs = widened(inputs)
    if workload.group == SMOOTHING:
        return Run(lambda: _smooth(inputs), lambda gamma: {"gamma": gamma})
    if workload.group == VITERBI:
        return Run(lambda: _viterbi(inputs), lambda path: {"path": path})
    return _fit(workload, inputs)


def _smooth(inputs: Inputs) -> Any:
    initial, transition = inputs.start["initial"], inputs.start["transition"]
    gamma = np.empty_like(inputs.x)
    for log_emission, out in zip(inputs.x, gamma, strict=True):
        emission = np.exp(log_emission)
        _, forward, scaling = _hmmc.forward_scaling(initial, transition, emission)
        backward = _hmmc.backward_scaling(initial, transition, emission, scaling)
        np.multiply(forward, backward, out=out)
        out /= out.sum(1, keepdims=True)
    return gamma


def _viterbi(inputs: Inputs) -> Any:
    initial, transition = inputs.start["initial"], inputs.start["transition"]
    return np.stack([_hmmc.viterbi(initial, transition, emission)[1] for emission in inputs.x])


def _fit(workload: Workload, inputs: Inputs) -> Run:
    start, steps = inputs.start, workload.steps
    rows = np.ascontiguousarray(inputs.x.reshape(workload.num_observations, -1))
    lengths = np.full(workload.sequences, workload.rows)
    options: dict[str, Any] = {
        "n_iter": steps,
        "tol": -np.inf,
        "init_params": "",
        "implementation": "scaling",
        "startprob_prior": 1.0,
        "transmat_prior": 1.0,
    }

    def call() -> Any:
        if workload.kind == "categorical":
            model: Any = CategoricalHMM(
                workload.states,
                n_features=workload.features,
                emissionprob_prior=1.0,
                **options,
            )
            model.emissionprob_ = start["table"]
        else:
            model = GaussianHMM(
                workload.states,
                covariance_type="full",
                means_weight=0,
                covars_prior=0.0,
                covars_weight=0,
                min_covar=0.0,
                **options,
            )
            model.means_, model.covars_ = start["means"], start["covariances"]
        model.startprob_, model.transmat_ = start["initial"], start["transition"]
        return model.fit(rows, lengths)

    def answer(model: Any) -> dict[str, Any]:
        parts = {
            "steps": model.monitor_.iter,
            "initial": model.startprob_,
            "transition": model.transmat_,
        }
        if workload.kind == "categorical":
            return parts | {"table": model.emissionprob_}
        return parts | {"means": model.means_, "covariances": model.covars_}

    return Run(call, answer)
