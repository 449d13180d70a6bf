"""Batches of random chains that the chain tests share, and the questions one can ask of a chain."""

from typing import Any

import jax
import numpy as np
import oracles

from jaxem import chain
from jaxem.chain import Chain

B, T, K = 2000, 5, 3
ANY_LENGTH = np.random.default_rng(7).integers(0, T + 1, B)
ALL_STEPS = np.full(B, T)
SHARING = ["shared", "per step", "per chain"]  # transition [K, K], [T-1, K, K] or [B, T-1, K, K]
Parts = tuple[np.ndarray, np.ndarray, np.ndarray]  # initial, transition, emission


def quick(function: Any) -> Any:
    """Compiled once a shape and dtype, and hastily: compiling takes longer than all the chains."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


QUESTIONS = {
    "posterior": quick(chain.posterior),
    "filter": quick(chain.filter),
    "entropy": quick(chain.entropy),
    "viterbi": quick(chain.viterbi),
    "k_best": quick(lambda batch, lengths: chain.k_best(batch, 5, lengths)),
    "sample": quick(lambda batch, lengths: chain.sample(jax.random.key(3), batch, lengths)),
}


def tolerance(dtype: Any) -> dict[str, float]:
    """Room for rounding in sums of a few dozen terms of moderate size."""
    return {"rtol": 200 * np.finfo(dtype).eps, "atol": 200 * np.finfo(dtype).eps}


def random_batch(dtype: Any, sharing: str, *, zeros: float) -> tuple[Chain, Parts]:
    """A batch as the library takes it, and its parts as the oracles do; initial [K] if shared."""
    rng = np.random.default_rng(SHARING.index(sharing))
    parts = oracles.random_chains(rng, B, T, K, zeros=zeros, spread=2.0)
    initial, transition, emission = (part.astype(dtype) for part in parts)
    if sharing == "shared":
        initial, transition = initial[0], transition[0, 0]
    if sharing == "per step":
        transition = transition[0]
    wide = (
        np.broadcast_to(initial, (B, K)),
        np.broadcast_to(transition, (B, T - 1, K, K)),
        emission,
    )
    return Chain(initial, transition, emission), wide


def with_garbage(batch: Chain, lengths: np.ndarray) -> Chain:
    """The batch with NaN and infinities wherever a sequence has ended."""
    garbage = np.array([np.nan, np.inf, -np.inf], batch.emission.dtype)
    outside = np.arange(T) >= lengths[:, None]
    emission = np.where(outside[:, :, None], garbage, batch.emission)
    transition = batch.transition
    if transition.ndim == 4:
        transition = np.where(outside[:, 1:, None, None], garbage, transition)
    return Chain(batch.initial, transition, emission)
