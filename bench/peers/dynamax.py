"""dynamax: `fit_em` compiled as a whole, and its inference functions, with every prior flat."""

from importlib.metadata import version as installed
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dynamax.hidden_markov_model import (
    CategoricalHMM,
    GaussianHMM,
    hmm_posterior_mode,
    hmm_two_filter_smoother,
)

from bench.inputs import Inputs
from bench.peers import Run
from bench.workloads import MIXTURE_GROUP, SMOOTHING, VITERBI, Workload


def version() -> str:
    """Of dynamax."""
    return installed("dynamax")


def supports(workload: Workload, dtype: str) -> str | None:
    """Hidden Markov models."""
    return "has no mixtures of rows" if workload.group == MIXTURE_GROUP else None


def computes_in(dtype: str) -> str:
    """The dtype of the data."""
    return dtype


def prepare(workload: Workload, inputs: Inputs, dtype: str) -> Run:
    """One compiled program, over a batch where there is one."""
    x = jax.block_until_ready(jnp.asarray(inputs.x))
    start = {name: jnp.asarray(part) for name, part in inputs.start.items()}
    if workload.group in (SMOOTHING, VITERBI):
        return _on_chain(workload, x, start)
    return _fit(workload, x, start, dtype)


def _on_chain(workload: Workload, x: Any, start: dict[str, Any]) -> Run:
    def gamma(emission: Any) -> Any:
        # The transitions' counts are not returned, so that the compiler leaves them out.
        return hmm_two_filter_smoother(
            start["initial"], start["transition"], emission
        ).smoothed_probs

    def path(emission: Any) -> Any:
        return hmm_posterior_mode(start["initial"], start["transition"], emission)

    name, function = ("gamma", gamma) if workload.group == SMOOTHING else ("path", path)
    single = workload.sequences == 1
    compiled = jax.jit(function if single else jax.vmap(function))
    emissions = jax.block_until_ready(x[0] if single else x)

    def answer(result: Any) -> dict[str, Any]:
        return {name: np.asarray(result)[None] if single else np.asarray(result)}

    return Run(lambda: jax.block_until_ready(compiled(emissions)), answer)


def _fit(workload: Workload, x: Any, start: dict[str, Any], dtype: str) -> Run:
    # A flat Dirichlet prior has concentration 1, but then the mode of a count that rounds to 0 is
    # NaN; the next numbers above 1 keep it finite.
    flat = 1 + 4 * float(np.finfo(dtype).eps)
    shared = {"initial_probs_concentration": flat, "transition_matrix_concentration": flat}
    chain = {"initial_probs": start["initial"], "transition_matrix": start["transition"]}
    states, size = workload.states, workload.features
    # The mode of the normal-inverse-Wishart divides by N + D + extra + D + 2.  A constant that
    # makes this N is refused, being no proper prior; a traced one cannot be looked at.
    improper = jnp.asarray(-2.0 * size - 2.0, dtype)
    if workload.kind == "categorical":
        plain: Any = CategoricalHMM(states, 1, size)
        params, props = plain.initialize(emission_probs=start["table"][:, None], **chain)
        emissions = x[..., None]
    else:
        plain = GaussianHMM(states, size)
        params, props = plain.initialize(
            emission_means=start["means"], emission_covariances=start["covariances"], **chain
        )
        emissions = x
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)

    @jax.jit
    def fit(params: Any, emissions: Any, improper: Any) -> Any:
        if workload.kind == "categorical":
            model: Any = CategoricalHMM(
                states, 1, size, emission_prior_concentration=flat, **shared
            )
        else:
            model = GaussianHMM(
                states,
                size,
                emission_prior_concentration=0.0,
                emission_prior_scale=0.0,
                emission_prior_extra_df=improper,
                **shared,
            )
        return model.fit_em(params, props, emissions, num_iters=workload.steps, verbose=False)[0]

    def answer(fitted: Any) -> dict[str, Any]:
        parts = {
            "initial": fitted.initial.probs,
            "transition": fitted.transitions.transition_matrix,
        }
        if workload.kind == "categorical":
            parts["table"] = fitted.emissions.probs[:, 0]
        else:
            parts |= {"means": fitted.emissions.means, "covariances": fitted.emissions.covs}
        return {name: np.asarray(part) for name, part in parts.items()}

    return Run(lambda: jax.block_until_ready(fit(params, emissions, improper)), answer)
