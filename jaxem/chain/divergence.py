"""How far the posterior of one chain is from that of another."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxem.chain import log_domain
from jaxem.chain.potentials import Chain, Potentials, lay_out, restore_batch, widen
from jaxem.semiring import logsumexp, relative_entropy


def divergence(q: Chain, p: Chain, lengths: Int[Array, "..."] | None = None) -> Float[Array, "..."]:
    """Kullback-Leibler divergence in nats, Σ q(z)·log(q(z)/p(z)), of two posteriors over paths.

    A scalar, or [B]; never negative, and 0 for a chain and itself.  `q` and `p` have emissions of
    the same shape; transitions may be shared in one and per step in the other.  Steps at or past
    `lengths` have no influence, whatever they hold.  O(T K²) time, O(T K) memory.

    A path that q can take and p cannot makes it +inf, however improbable; so does a p that is
    impossible altogether.  0 for a chain of length 0 and, whatever p is, for an impossible q.

    Computed from the posteriors alone.  Backwards in time each is a Markov chain, with
    p(z_t | z_t+1, x) ∝ p(z_t | x_1..t)·p(z_t+1 | z_t), and the divergence is that of the last
    states and of the moves back from them, added up along the forward pass as `entropy` is
    (Hernando, Crespi & Cybenko 2005).  No log-normalisers are subtracted and every term is
    non-negative: potentials that differ by δ, where the divergence is of order δ², still have it
    with a relative error of the order of their rounding over δ.  Where it is finite, so are its
    derivatives.

    Raises:
        ValueError: emissions of different shapes, or shapes that are none of those of `Chain`.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> fair = jaxem.chain.Chain(jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros((3, 2)))
        >>> one = jnp.array([[0.0, -jnp.inf]] * 3)
        >>> certain = jaxem.chain.Chain(jnp.zeros(2), jnp.zeros((2, 2)), one)
        >>> print(jaxem.chain.divergence(certain, fair).round(3))  # 3 log 2: it rules out 7 of 8
        2.079
        >>> print(jaxem.chain.divergence(fair, certain))
        inf
    """
    if jnp.shape(q.emission) != jnp.shape(p.emission):
        raise ValueError(
            f"q and p must be over the same states and steps: q.emission is "
            f"{list(jnp.shape(q.emission))}, p.emission is {list(jnp.shape(p.emission))}."
        )
    chains = lay_out(q, lengths), lay_out(p, lengths)
    first = chains[0]
    dtype = jnp.result_type(*(chain.emission for chain in chains))
    so_far = jnp.zeros(first.initial.shape, dtype)
    if first.num_steps == 0:
        return restore_batch(jnp.sum(so_far, 0), q)
    alphas = [log_domain.forward(chain)[0] for chain in chains]

    def step(so_far: Array, inputs: Any) -> tuple[Array, None]:
        inside, *ends = inputs
        log_q, log_p = (_origins(chain, *end) for chain, end in zip(chains, ends, strict=True))
        new = _extend(log_q, log_p, so_far[:, None])
        return new if inside is None else jnp.where(inside, new, so_far), None

    ends = [(alpha[:-1], chain.per_step) for alpha, chain in zip(alphas, chains, strict=True)]
    so_far, _ = lax.scan(step, so_far, (first.inside_rest, *ends))
    nats = _extend(alphas[0][-1], alphas[1][-1], so_far)
    return restore_batch(nats if first.inside is None else jnp.where(first.inside[0], nats, 0), q)


def _origins(p: Potentials, alpha: Array, transition: Array | None) -> Float[Array, "K K *B"]:
    """log p(z_t = i | z_t+1 = j, x_1..t); -inf throughout for a j that cannot be reached."""
    log_joint = alpha[:, None] + widen(p.transition if transition is None else transition, alpha)
    total = logsumexp(log_joint, 0)
    return log_joint - jnp.where(jnp.isneginf(total), 0, total)


def _extend(log_q: Array, log_p: Array, so_far: Array) -> Array:
    """The divergence of z_t and what came before, from that of what came before z_t = i.

    Both distributions are over axis 0.  0 where q can do nothing at all.
    """
    never, beyond = jnp.isneginf(log_q), jnp.isposinf(so_far)
    before = jnp.exp(log_q) * jnp.where(beyond, 0, so_far)
    before = jnp.where(beyond & ~never, jnp.inf, before)  # also where q underflows
    total = jnp.sum(relative_entropy(log_q, log_p) + before, 0)
    return jnp.where(jnp.all(never, 0), 0, total)
