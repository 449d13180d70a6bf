"""The stationary distribution of a transition matrix as an HMM's start."""

import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from jaxem.families.categorical import Categorical
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION, log, times

ASCENT_STEPS = 30  # of L-BFGS in one M-step; any number keeps the promise that Q does not fall


@pytree
class Stationary:
    """An initial distribution equal to the stationary one of the transition matrix.

    It has no parameters of its own.  The chain must have one recurrent class (its stationary
    distribution is then unique); where it has several, the log-likelihood is NaN and `fit` says so.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> moves = jaxem.Categorical.from_probs(jnp.array([[0.9, 0.1], [0.3, 0.7]]))
        >>> print(jnp.exp(jaxem.Stationary().log_probs(moves)).round(3))
        [0.75 0.25]
    """

    def log_probs(self, transition: Categorical) -> Float[Array, " K"]:
        """log δ with δ A = δ; -inf for a transient state, NaN where δ is not unique.

        By eliminating states one after the other without a subtraction, so that the rarest state
        keeps its digits (Grassmann, Taksar & Heyman 1985).
        """
        moves = transition.probs
        index = jnp.arange(len(moves))

        def eliminate(moves: Array, state: Array) -> tuple[Array, tuple[Array, Array]]:
            before = index < state
            back = jnp.where(before, moves[state], 0)
            total = jnp.sum(back)
            closed = total == 0  # it never returns to the states before it
            inflow = jnp.where(before, moves[:, state], 0) / jnp.where(closed, 1, total)
            through = jnp.where(closed, 0, inflow)[:, None] * back
            return moves + through, (inflow, closed)

        def extend(probs: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, None]:
            state, inflow, closed = inputs
            arrived = jnp.sum(probs * inflow)
            alone = (index == state).astype(probs.dtype)
            probs = jnp.where(closed, alone, jnp.where(index == state, arrived, probs))
            return probs / jnp.sum(probs), None

        later = index[:0:-1]
        _, (inflow, closed) = lax.scan(eliminate, moves, later)
        first = (index == 0).astype(moves.dtype)
        probs, _ = lax.scan(extend, first, (later, inflow, closed), reverse=True)
        # It is unique where some state can be reached from every state.
        reach = ((moves > 0) | (index[:, None] == index)).astype(moves.dtype)
        for _ in range((len(moves) - 1).bit_length()):
            reach = (jnp.dot(reach, reach, precision=PRECISION) > 0).astype(moves.dtype)
        probs = jnp.where(jnp.any(jnp.all(reach > 0, 0)), probs, jnp.nan)
        return log(probs)

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
