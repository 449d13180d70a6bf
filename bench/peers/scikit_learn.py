"""scikit-learn: `GaussianMixture` from a given start, its regularisation and tolerance off."""

import warnings
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from bench.inputs import Inputs
from bench.peers import Run
from bench.workloads import MIXTURE_GROUP, Workload


def version() -> str:
    """Of scikit-learn."""
    return sklearn.__version__


def supports(workload: Workload, dtype: str) -> str | None:
    """Mixtures."""
    return None if workload.group == MIXTURE_GROUP else "has no hidden Markov models"


def computes_in(dtype: str) -> str:
    """The dtype of the data."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """`fit` of a fresh estimator; like jaxem's it ends with one more E-step than M-steps."""
    # The negative tolerance that would switch the test off is refused; one step never gains 0.
    start = inputs.start
    full = workload.kind == "full"
    precisions = np.linalg.inv(start["covariances"]) if full else 1 / start["covariances"]

    def call() -> GaussianMixture:
        mixture = GaussianMixture(
            workload.states,
            covariance_type="full" if full else "diag",
            tol=0.0,
            reg_covar=0.0,
            max_iter=workload.steps,
            weights_init=start["weights"],
            means_init=start["means"],
            precisions_init=precisions,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return mixture.fit(inputs.x)

    def answer(mixture: Any) -> dict[str, Any]:
        return {
            "steps": mixture.n_iter_,
            "weights": mixture.weights_,
            "means": mixture.means_,
            "covariances": mixture.covariances_,
        }

    return Run(call, answer)
