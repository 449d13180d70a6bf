"""jaxem: `fit_batch`, once for each number of components."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxem
from bench.inputs import Inputs
from bench.peers import Run
from bench.workloads import Workload


def prepare(workload: Workload, inputs: Inputs) -> Run:
    """All fits, from models and data that are on the device."""
    x = jax.block_until_ready(jnp.asarray(inputs.x))
    data = jaxem.Batch(x) if workload.kind == "data-sets" else x
    models = [models_of(inputs.start, order) for order in workload.orders]
    fit = partial(
        jaxem.fit_batch,
        data=data,
        prior=jaxem.Prior(floor=workload.floor),
        tol=workload.tol,
        max_steps=workload.max_steps,
    )

    def call() -> list[jaxem.EMResult]:
        return jax.block_until_ready([fit(model) for model in models])

    return Run(call, lambda results: {"orders": [_fitted(result) for result in results]})


def models_of(start: dict[str, Any], order: int) -> Any:
    """The starts of one number of components, [M, ...]."""
    table = jaxem.Categorical.from_probs

    def one(means: Any) -> Any:
        family = jaxem.Gaussian.from_moments(means, start["covariance"])
        if "transition" in start:
            return jaxem.HMM(table(start["initial"]), table(start["transition"]), family)
        return jaxem.Mixture(table(jnp.full(order, 1 / order, means.dtype)), family)

    return jax.block_until_ready(jax.jit(jax.vmap(one))(jnp.asarray(start["means"][:, :order])))


def _fitted(result: jaxem.EMResult) -> dict[str, Any]:
    model: Any = result.model
    chain = hasattr(model, "transition")
    family = model.emission if chain else model.components
    parts = {"steps": result.num_steps, "means": family.mean}
    parts["covariances"] = jax.vmap(lambda family: family.covariance)(family)
    if chain:
        parts |= {"initial": model.initial.probs, "transition": model.transition.probs}
    else:
        parts["weights"] = model.weights.probs
    return {name: np.asarray(part) for name, part in parts.items()}
