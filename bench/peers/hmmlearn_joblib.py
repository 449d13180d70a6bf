"""hmmlearn: a loop over `GaussianHMM.fit` with every prior off, on every core by joblib."""

import logging
from importlib.metadata import version as installed
from typing import Any

import joblib
import numpy as np
from hmmlearn.hmm import GaussianHMM

from bench.inputs import Inputs, widened
from bench.peers import Run, loops
from bench.workloads import Workload


def version() -> str:
    """Of hmmlearn and joblib."""
    return f"{installed('hmmlearn')} (joblib {joblib.__version__})"


def supports(workload: Workload, dtype: str) -> str | None:
    """Hidden Markov models."""
    return None if workload.kind == "hmm" else "has no mixtures of rows"


def computes_in(dtype: str) -> str:
    """Always float64."""
    return "float64"


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """`fit` of a fresh model for each."""
    return loops.prepare(fit_one, workload, widened(inputs))


def fit_one(workload: Workload, start: dict[str, Any], x: Any) -> dict[str, Any]:
    """One fit, by the faster of its two implementations."""
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    model: Any = GaussianHMM(
        workload.states,
        covariance_type="full",
        n_iter=workload.max_steps,
        tol=workload.tol,
        init_params="",
        implementation="scaling",
        startprob_prior=1.0,
        transmat_prior=1.0,
        means_weight=0,
        covars_prior=0.0,
        covars_weight=0,
        min_covar=workload.floor,
    )
    model.startprob_, model.transmat_ = start["initial"], start["transition"]
    model.means_, model.covars_ = start["means"], np.stack([start["covariance"]] * workload.states)
    try:
        model.fit(x.reshape(-1, workload.features), np.full(workload.sequences, workload.rows))
    except ValueError:  # a covariance that is none
        return {}
    return {
        "steps": model.monitor_.iter,
        "initial": model.startprob_,
        "transition": model.transmat_,
        "means": model.means_,
        "covariances": model.covars_,
    }
