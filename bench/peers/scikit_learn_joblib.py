"""scikit-learn: a loop over `GaussianMixture.fit`, on every core by joblib."""

import warnings
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from bench.inputs import Inputs
from bench.peers import Run, loops
from bench.workloads import Workload


def version() -> str:
    """Of scikit-learn and joblib."""
    return f"{sklearn.__version__} (joblib {joblib.__version__})"


def supports(workload: Workload, dtype: str) -> str | None:
    """Mixtures."""
    return "has no hidden Markov models" if workload.kind == "hmm" else None


def computes_in(dtype: str) -> str:
    """The dtype of the data."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """`fit` of a fresh estimator for each."""
    return loops.prepare(fit_one, workload, inputs)


def fit_one(workload: Workload, start: dict[str, Any], x: Any) -> dict[str, Any]:
    """One fit; its tolerance is by row.  Nothing, if a component collapsed."""
    order = len(start["means"])
    mixture = GaussianMixture(
        order,
        tol=workload.tol / len(x),
        reg_covar=workload.floor,
        max_iter=workload.max_steps,
        weights_init=np.full(order, 1 / order, x.dtype),
        means_init=start["means"],
        precisions_init=np.stack([np.linalg.inv(start["covariance"])] * order),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            mixture.fit(x)
        except ValueError:  # a covariance that is none
            return {}
    return {
        "steps": mixture.n_iter_,
        "weights": mixture.weights_,
        "means": mixture.means_,
        "covariances": mixture.covariances_,
    }
