"""gmmx: `EMFitter` with its regularisation and tolerance off, compiled, data on the device."""

from importlib.metadata import version as installed
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gmmx import EMFitter, GaussianMixtureModelJax

from bench.inputs import Inputs
from bench.peers import Run
from bench.workloads import MIXTURE_GROUP, Workload


def version() -> str:
    """Of gmmx."""
    return installed("gmmx")


def supports(workload: Workload, dtype: str) -> str | None:
    """Mixtures in float32."""
    if workload.group != MIXTURE_GROUP:
        return "has no hidden Markov models"
    return "refuses float64" if dtype == "float64" else None


def computes_in(dtype: str) -> str:
    """The dtype of the data."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """`EMFitter.fit`, which is compiled as a whole."""
    x = jax.block_until_ready(jnp.asarray(inputs.x))
    start = GaussianMixtureModelJax.from_squeezed(
        means=jnp.asarray(inputs.start["means"]),
        covariances=jnp.asarray(inputs.start["covariances"]),
        weights=jnp.asarray(inputs.start["weights"]),
        covariance_type="full" if workload.kind == "full" else "diag",
    )
    fitter = EMFitter(max_iter=workload.steps, tol=0.0, reg_covar=0.0)

    def answer(result: Any) -> dict[str, Any]:
        model = result.gmm
        return {
            "steps": int(result.n_iter),
            "weights": np.asarray(model.weights_numpy),
            "means": np.asarray(model.means_numpy),
            "covariances": np.asarray(model.covariances.values_numpy),
        }

    return Run(lambda: jax.block_until_ready(fitter.fit(x, start)), answer)
