"""The log-normaliser of a chain, and what its gradient says: expected counts, filters, entropy."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxem.chain import blocked, log_domain, scaled, stacked
from jaxem.chain.factors import Factors
from jaxem.chain.method import check_method, choose
from jaxem.chain.potentials import Chain, Potentials, as_chain, lay_out, restore_batch, widen
from jaxem.lockstep import everywhere
from jaxem.pytree import pytree
from jaxem.semiring import logsumexp, pairwise_sum, times


def _expected(p: Potentials, weight: Float[Array, "*B"], method: str) -> tuple[Array, Potentials]:
    """The log-normaliser, and the expected counts of each chain times its weight."""

    def rescaled() -> tuple[Array, tuple[Array, Array]]:
        f = Factors.of(p)  # here: a branch that is handed large arrays copies them
        if method == "stacked":
            messages = stacked.messages(f)
            log_z = pairwise_sum(f.log_normalizer(messages.alpha_sum))
            return log_z, scaled.products(f, messages, weight)
        alpha, alpha_sum = scaled.forward(f)
        log_z = pairwise_sum(f.log_normalizer(alpha_sum))
        return log_z, scaled.counts(f, alpha, alpha_sum, weight)

    def in_logs() -> tuple[Array, tuple[Array, Array]]:
        return pairwise_sum(log_domain.forward(p)[1]), log_domain.counts(p, weight)

    if method == "blocked":
        log_z, (moves, states) = blocked.expected(p, weight)
    elif method == "log":
        log_z, (moves, states) = in_logs()
    else:
        log_z, (moves, states) = lax.cond(_is_exact(p, method), rescaled, in_logs)
    return log_z, Potentials(states[0], moves, states, p.inside)


def _log_z(p: Potentials, method: str) -> Float[Array, "*B"]:
    def rescaled() -> Array:
        f = Factors.of(p)
        return pairwise_sum(f.log_normalizer(scaled.forward(f)[1]))

    def in_logs() -> Array:
        return pairwise_sum(log_domain.forward(p)[1])

    if method == "blocked":
        return blocked.log_normalizer(p)
    return in_logs() if method == "log" else lax.cond(_is_exact(p, method), rescaled, in_logs)


def _is_exact(p: Potentials, method: str) -> Array:
    messages = stacked.messages if method == "stacked" else scaled.sequential
    f = Factors.of(p)
    return everywhere(scaled.is_exact(f, messages), f.is_nan)


def _backward(method: str, p: Potentials, weight: Array) -> tuple[Potentials]:
    _, counts = _expected(p, weight, method)
    inside: Any = None if p.inside is None else np.zeros(p.inside.shape, jax.dtypes.float0)
    return (replace(counts, inside=inside),)


_log_normalizer = jax.custom_vjp(_log_z, nondiff_argnums=(1,))
_log_normalizer.defvjp(lambda p, method: (_log_z(p, method), p), _backward)


def log_normalizer(
    chain: Chain, lengths: Int[Array, "..."] | None = None, *, method: str | None = None
) -> Float[Array, "..."]:
    """Log of the summed weight of all paths; a scalar, or [B].

    Its gradient is the expected count of every potential.  An impossible chain has -inf and
    gradient 0; a chain of length 0 has 0.  Steps at or past `lengths` have no influence, whatever
    they hold.  O(T K²) time and O(T K) memory, also for the gradient, whose backward pass is the
    β-recursion.  `jacrev(jacrev)` and `hessian` are right; a first derivative by `jvp` alone is not
    supported.

    Rescaled probabilities where underflow provably cannot matter, logarithms elsewhere: the choice
    is made from the potentials, for the whole batch.  `method` is one of `chain.METHODS`, which
    give the same numbers; None chooses by platform and shape (see `chain.method.choose`).  "log"
    takes logarithms anyway, and "blocked" K times the work.

    Bishop (2006) 13.63.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> chain = jaxem.chain.Chain(jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros((5, 2)))
        >>> round(float(jnp.exp(jaxem.chain.log_normalizer(chain))))  # 2^5 paths of weight 1
        32
    """
    check_method(method)
    p = lay_out(chain, lengths)
    if p.num_steps == 0:
        return restore_batch(jnp.zeros(p.emission.shape[2:], p.emission.dtype), chain)
    return restore_batch(_log_normalizer(p, choose(p, method)), chain)


def posterior(
    chain: Chain,
    lengths: Int[Array, "..."] | None = None,
    *,
    weight: Float[Array, "..."] | None = None,
    method: str | None = None,
) -> tuple[Float[Array, "..."], Chain]:
    """Log-normaliser of a chain (or [B] of them) and the expected count of every potential.

    The counts come back in a `Chain` shaped like the input: `initial[k]` is p(z_1 = k | x),
    `emission[t, k]` is p(z_t = k | x), and `transition[i, j]` is the expected number of i -> j
    moves: per step if `chain.transition` is [T-1, K, K], summed over steps if it is [K, K], and
    summed over the batch where potentials are shared by it.

    Steps at or past `lengths` count nothing.  An impossible chain (every path -inf) has
    log-normaliser -inf and zero counts.  O(T K²) time, O(T K) memory.  The counts are the gradient
    of `log_normalizer`, and `method` is as there.  Each chain's counts are
    multiplied by its `weight`.

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

    check_method(method)
    p = lay_out(chain, lengths)
    if p.num_steps == 0:
        return log_normalizer(chain, lengths), jax.tree.map(jnp.zeros_like, chain)
    shape, dtype = p.emission.shape[2:], p.emission.dtype
    weight = jnp.ones(shape, dtype) if weight is None else jnp.asarray(weight, dtype).reshape(shape)
    log_z, counts = _expected(p, weight, choose(p, method))
    return restore_batch(log_z, chain), as_chain(counts, chain)


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
