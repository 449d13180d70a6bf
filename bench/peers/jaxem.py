"""jaxem: its public functions, from data that are on the device already."""

from functools import partial
from importlib.metadata import version as installed
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxem
from bench.inputs import Inputs
from bench.peers import Run, jaxem_many
from bench.peers.gradients import gradient_run
from bench.workloads import CTC, LATTICES, MANY, MIXTURE_GROUP, SMOOTHING, VITERBI, Workload


def version() -> str:
    """Of jaxem and of what it stands on."""
    return f"{installed('jaxem')} (jax {jax.__version__})"


def supports(workload: Workload, dtype: str) -> str | None:
    """Everything."""
    return None


def computes_in(dtype: str) -> str:
    """The dtype of the data."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """`fit`, `fit_batch`, compiled `chain.posterior` or `chain.viterbi`, or a loss's gradient."""
    if workload.group == MANY:
        return jaxem_many.prepare(workload, inputs)
    if workload.group in LATTICES:
        losses = jaxem.ctc.loss if workload.group == CTC else jaxem.transducer.loss
        return gradient_run(losses, inputs.x, *inputs.targets.values())
    x = inputs.x[0] if workload.sequences == 1 and workload.group != MIXTURE_GROUP else inputs.x
    start = {name: jnp.asarray(part) for name, part in inputs.start.items()}
    x = jax.block_until_ready(jnp.asarray(x))
    if workload.group in (SMOOTHING, VITERBI):
        return _on_chain(workload, x, start)
    model = model_of(workload, start)
    fit = partial(jaxem.fit, model, x, tol=0.0, max_steps=workload.steps)
    return Run(lambda: jax.block_until_ready(fit()), partial(_fitted, workload))


def _on_chain(workload: Workload, x: Any, start: dict[str, Any]) -> Run:
    chain = chain_of(start, x)
    smooth = workload.group == SMOOTHING
    function = jax.jit(jaxem.chain.posterior if smooth else jaxem.chain.viterbi)

    def answer(result: Any) -> dict[str, Any]:
        whole = np.asarray(result[1].emission if smooth else result[1])
        return {"gamma" if smooth else "path": whole[None] if workload.sequences == 1 else whole}

    return Run(lambda: jax.block_until_ready(function(chain)), answer)


def chain_of(start: dict[str, Any], x: Any) -> jaxem.chain.Chain:
    """The chain whose log-likelihoods x [T, K] or [B, T, K] are given."""
    return jaxem.chain.Chain(jnp.log(start["initial"]), jnp.log(start["transition"]), x)


def model_of(workload: Workload, start: dict[str, Any]) -> Any:
    """The start as a model."""
    table = jaxem.Categorical.from_probs
    if workload.kind == "categorical":
        family = table(start["table"])
    elif workload.kind == "diagonal":
        family = jaxem.DiagonalGaussian.from_moments(start["means"], start["covariances"])
    else:
        family = jaxem.Gaussian.from_moments(start["means"], start["covariances"])
    if workload.group == MIXTURE_GROUP:
        return jaxem.Mixture(table(start["weights"]), family)
    return jaxem.HMM(table(start["initial"]), table(start["transition"]), family)


def _fitted(workload: Workload, result: Any) -> dict[str, Any]:
    model = result.model
    parts: dict[str, Any] = {"steps": int(result.num_steps), "ended": result.outcome}
    if workload.group == MIXTURE_GROUP:
        family = model.components
        parts["weights"] = model.weights.probs
    else:
        family = model.emission
        parts |= {"initial": model.initial.probs, "transition": model.transition.probs}
    if workload.kind == "categorical":
        parts["table"] = family.probs
    else:
        diagonal = workload.kind == "diagonal"
        parts["means"] = family.mean
        parts["covariances"] = family.variance if diagonal else family.covariance
    return {
        name: np.asarray(part) if isinstance(part, jax.Array) else part
        for name, part in parts.items()
    }
