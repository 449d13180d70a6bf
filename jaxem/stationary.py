"""The stationary distribution of a transition matrix as an HMM's start."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from jaxem.families.categorical import Categorical
from jaxem.semiring import times

ASCENT_STEPS = 30  # of L-BFGS in one M-step; any number keeps the promise that Q does not fall


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stationary:
    """An initial distribution equal to the stationary one of the transition matrix.

    It has no parameters of its own.  The chain must have one recurrent class (its stationary
    distribution is then unique); where it has several, the log-likelihood is NaN and `fit` says so.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> moves = jaxem.Categorical.from_probs(jnp.array([[0.9, 0.1], [0.3, 0.7]]))
        >>> jnp.exp(jaxem.Stationary().log_probs(moves)).round(3).tolist()
        [0.75, 0.25]
    """

    def log_probs(self, transition: Categorical) -> Float[Array, " K"]:
        """log δ with δ A = δ, by the linear system δ (I − A + U) = 1 where U is all ones.

        Zucchini & MacDonald (2009) §1.3.2.
        """
        moves = transition.probs
        size = len(moves)
        system = jnp.eye(size, dtype=moves.dtype) - moves + jnp.ones_like(moves)
        probs = jnp.linalg.solve(system.T, jnp.ones(size, moves.dtype))
        # A transient state solves to 0 up to rounding, which may lie below it.
        positive = probs > jnp.finfo(probs.dtype).eps
        log_probs = jnp.log(jnp.where(positive, probs, 1))
        return jnp.where(positive, log_probs, jnp.where(jnp.isnan(probs), jnp.nan, -jnp.inf))

    def check(self) -> None:
        """Nothing can be wrong with it."""


def maximize_stationary(
    transition: Categorical, moves: Float[Array, "K K"], starts: Float[Array, " K"]
) -> Categorical:
    """A transition matrix with a Q no lower than the old one's, the start being stationary.

    Q = Σ starts · log δ(A) + Σ moves · log A has no maximiser in closed form.  L-BFGS on the free
    logits begins at the better of the old matrix and the maximiser of the second term.
    """
    possible = jnp.isfinite(transition.logits)

    def table(logits: Array) -> Categorical:
        return Categorical(jnp.where(possible, logits, -jnp.inf))

    def fall(logits: Array) -> Array:
        candidate = table(logits)
        log_start = Stationary().log_probs(candidate)
        total = jnp.sum(times(starts, log_start)) + jnp.sum(times(moves, candidate.log_probs))
        return -total / jnp.maximum(jnp.sum(moves), 1)

    def finite(logits: Array) -> Array:
        return jnp.where(possible & jnp.isfinite(logits), logits, 0)

    old = finite(transition.log_probs)
    closed = transition.maximize(moves).logits
    # The closed form may put a move at exactly 0, from where no gradient leads back.
    reachable = jnp.all(jnp.isfinite(closed) | ~possible)
    start = jnp.where(reachable & (fall(finite(closed)) < fall(old)), finite(closed), old)
    solver = optax.lbfgs()

    def step(carry: tuple, _: None) -> tuple:
        logits, state = carry
        value, gradient = optax.value_and_grad_from_state(fall)(logits, state=state)
        updates, state = solver.update(
            gradient, state, logits, value=value, grad=gradient, value_fn=fall
        )
        return (optax.apply_updates(logits, updates), state), None

    (ascended, _), _ = lax.scan(step, (start, solver.init(start)), length=ASCENT_STEPS)
    better = fall(ascended) <= fall(start)
    return table(jnp.where(better, ascended, start))
