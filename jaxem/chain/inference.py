"""The log-normaliser of a chain, and what its gradient says: expected counts, filters, entropy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxem.chain import log_domain, scaled
from jaxem.chain.potentials import Chain, Potentials, lay_out, restore_batch, widen
from jaxem.pytree import pytree
from jaxem.semiring import logsumexp, pairwise_sum, times


@jax.custom_vjp
def _log_normalizer(p: Potentials) -> Float[Array, "*B"]:
    return _forward(p)[0]


def _forward(p: Potentials) -> tuple[Array, tuple[Potentials, Array, Array]]:
    alpha, _, log_z = scaled.forward(p)
    exact = scaled.is_exact(p)
    log_z = lax.cond(exact, lambda: log_z, lambda: pairwise_sum(log_domain.forward(p)[1]))
    return log_z, (p, alpha, exact)


def _backward(residuals: tuple[Potentials, Array, Array], weight: Array) -> tuple[Potentials]:
    p, alpha, exact = residuals
    moves, states = lax.cond(
        exact, lambda: scaled.counts(p, alpha, weight), lambda: log_domain.counts(p, weight)
    )
    inside: Any = None if p.inside is None else np.zeros(p.inside.shape, jax.dtypes.float0)
    return (Potentials(states[0], moves, states, inside),)


_log_normalizer.defvjp(_forward, _backward)


def log_normalizer(chain: Chain, lengths: Int[Array, "..."] | None = None) -> Float[Array, "..."]:
    """Log of the summed weight of all paths; a scalar, or [B].

    Its gradient is the expected count of every potential.  An impossible chain has -inf and
    gradient 0; a chain of length 0 has 0.  Steps at or past `lengths` have no influence, whatever
    they hold.  O(T K²) time and O(T K) memory, also for the gradient, whose backward pass is the
    β-recursion.  `jacrev(jacrev)` and `hessian` are right; a first derivative by `jvp` alone is not
    supported.

    Rescaled probabilities where underflow provably cannot matter, logarithms elsewhere: the choice
    is made from the potentials, for the whole batch.

    Bishop (2006) 13.63.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> chain = jaxem.chain.Chain(jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros((5, 2)))
        >>> round(float(jnp.exp(jaxem.chain.log_normalizer(chain))))  # 2^5 paths of weight 1
        32
    """
    p = lay_out(chain, lengths)
    if p.num_steps == 0:
        return restore_batch(jnp.zeros(p.emission.shape[2:], p.emission.dtype), chain)
    return restore_batch(_log_normalizer(p), chain)


def posterior(
    chain: Chain, lengths: Int[Array, "..."] | None = None
) -> tuple[Float[Array, "..."], Chain]:
    """Log-normaliser of a chain (or [B] of them) and the expected count of every potential.

    The counts come back in a `Chain` shaped like the input: `initial[k]` is p(z_1 = k | x),
    `emission[t, k]` is p(z_t = k | x), and `transition[i, j]` is the expected number of i -> j
    moves: per step if `chain.transition` is [T-1, K, K], summed over steps if it is [K, K], and
    summed over the batch where potentials are shared by it.

    Steps at or past `lengths` count nothing.  An impossible chain (every path -inf) has
    log-normaliser -inf and zero counts.  O(T K²) time, O(T K) memory.

    Bishop (2006) 13.33, 13.42-13.43.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> umbrella = jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]]))
        >>> moves = jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> log_z, counts = jaxem.chain.posterior(
        ...     jaxem.chain.Chain(jnp.log(jnp.array([0.5, 0.5])), moves, umbrella))
        >>> print(counts.emission[2].round(3), counts.transition.sum().round(3))
        [0.191 0.809] 2.0
    """

    def total(chain: Chain) -> tuple[Array, Array]:
        log_z = log_normalizer(chain, lengths)
        return jnp.sum(log_z), log_z

    chain = jax.tree.map(jnp.asarray, chain)
    counts, log_z = jax.grad(total, has_aux=True)(chain)
    return log_z, counts


@pytree
class Filtered:
    """What is known of each state from the observations so far; leading axis B for a batch."""

    log_normalizer: Float[Array, "..."]  # of the whole chain
    filtered: Float[Array, "... T K"]  # p(z_t | x_1..t)
    predicted: Float[Array, "... T K"]  # p(z_t | x_1..t-1)


def filter(chain: Chain, lengths: Int[Array, "..."] | None = None) -> Filtered:
    """Filtered and one-step-predicted state probabilities.

    Past the end of a sequence both are 0.  An impossible chain has probabilities 0 from its first
    impossible step on.  Bishop (2006) 13.55-13.59.
    """
    p = lay_out(chain, lengths)
    if p.num_steps == 0:
        nothing = jnp.zeros_like(jnp.asarray(chain.emission))
        return Filtered(log_normalizer(chain, lengths), nothing, nothing)
    alpha, increments, log_predicted = log_domain.forward(p)
    filtered, predicted = jnp.exp(alpha), jnp.exp(log_predicted)
    if p.inside is not None:
        inside = jnp.expand_dims(p.inside, 1)
        filtered, predicted = jnp.where(inside, filtered, 0), jnp.where(inside, predicted, 0)

    def back(probs: Array) -> Array:
        return restore_batch(probs.transpose(2, 0, 1) if probs.ndim == 3 else probs, chain)

    return Filtered(restore_batch(pairwise_sum(increments), chain), back(filtered), back(predicted))


def entropy(chain: Chain, lengths: Int[Array, "..."] | None = None) -> Float[Array, "..."]:
    """Entropy in nats of the posterior over paths; a scalar, or [B].

    A sum of non-negative terms along the forward pass (Hernando, Crespi & Cybenko 2005): no large
    numbers are subtracted, as log Z − ⟨counts, potentials⟩ would.  0 for a chain of length 0 and
    for an impossible one.
    """
    p = lay_out(chain, lengths)
    if p.num_steps == 0:
        return log_normalizer(chain, lengths)
    alpha, _, _ = log_domain.forward(p)

    def step(so_far: Array, inputs: Any) -> tuple[Array, None]:
        alpha, transition, inside = inputs
        transition = widen(p.transition if p.is_shared else transition, alpha)
        log_joint = alpha[:, None] + transition
        total = logsumexp(log_joint, 0)
        log_origin = log_joint - jnp.where(jnp.isneginf(total), 0, total)
        origin = jnp.exp(log_origin)
        new = jnp.sum(origin * so_far[:, None] - times(origin, log_origin), 0)
        return new if inside is None else jnp.where(inside, new, so_far), None

    inputs = (alpha[:-1], p.per_step, p.inside_rest)
    so_far, _ = lax.scan(step, jnp.zeros_like(alpha[0]), inputs)
    last = jnp.exp(alpha[-1])
    entropy = jnp.sum(last * so_far - times(last, alpha[-1]), 0)
    if p.inside is not None:
        entropy = jnp.where(p.inside[0], entropy, 0)
    return restore_batch(entropy, chain)
