"""What an HMM is asked of padded sequences; each is compiled with what it is asked of."""

from functools import cache, partial
from typing import Any

from jaxtyping import Array, Float

from jaxem import chain
from jaxem.data import Sequences
from jaxem.families import Categorical
from jaxem.forecast import states_ahead
from jaxem.hmm import HMM
from jaxem.stationary import Stationary


@cache  # the same object each time: a program is compiled for the object
def ahead(num_steps: int) -> Any:
    """The question for probabilities [B, H, K] of the states after each sequence."""
    return partial(states_ahead, steps=num_steps)


def stationary(moves: Categorical, _: None) -> Float[Array, " K"]:
    """Log-probabilities that these transitions keep."""
    return Stationary().log_probs(moves)


def filtered(model: HMM, data: Sequences) -> Float[Array, "B T K"]:
    """Probabilities of the states given what came up to each step."""
    return model.filter(data).filtered


def smoothed(model: HMM, data: Sequences) -> Any:
    """Log-likelihoods [B] and posteriors [B, T, K]."""
    prepared = model.prepare(data)
    log_z, counts = chain.posterior(
        model.potentials(prepared), prepared.lengths, method=model.method
    )
    return log_z, counts.emission


def pointwise(model: HMM, data: Sequences) -> Any:
    """Posteriors and log-densities [B, T, K] of the states."""
    prepared = model.prepare(data)
    potentials = model.potentials(prepared)
    _, counts = chain.posterior(potentials, prepared.lengths, method=model.method)
    return counts.emission, potentials.emission
