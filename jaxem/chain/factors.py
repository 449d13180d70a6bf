"""The potentials of a chain as factors of at most 1, and the logs that were taken out of them."""

from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxem.chain.potentials import Potentials
from jaxem.lockstep import in_lockstep
from jaxem.platform import is_cpu
from jaxem.semiring import PRECISION, log

# States from which XLA's CPU kernels change places for one message: it is moved as a row, and a
# second output of the loop would cost two thirds of its time.
WIDE = 24
FEW = 16  # states up to which many small products, in lockstep, are better written out


@dataclass(frozen=True)
class Factors:
    """Rescaled potentials: the largest factor of each kind is 1 (per step).

    The first emission includes the initial potentials: their product is formed in logs.
    """

    emissions: Float[Array, "T K *B"]
    moves: Float[Array, "..."]  # [K, K], or [T-1, K, K] or [T-1, K, K, B] per step
    logs: Float[Array, "T *B"]  # taken out at each step, its move and emission together
    chain: Potentials

    @classmethod
    def of(cls, p: Potentials) -> Self:
        """The factors of a chain.  A state that no move enters does not set the scale of a step."""
        axes = (0, 1) if p.is_shared else (1, 2)
        move_peak = _peak(p.transition, axes)
        closed = jnp.all(jnp.isneginf(p.transition), 0 if p.is_shared else 1)
        if not p.is_shared:  # no move enters the first step
            closed = jnp.pad(closed, [(1, 0)] + [(0, 0)] * (closed.ndim - 1))
        if p.emission.ndim == 3 and p.transition.ndim < 4:
            closed = closed[..., None]
        is_first = p.is_first.reshape(-1, *[1] * (p.emission.ndim - 1))
        rest = jnp.where(closed, -jnp.inf, p.emission)
        # Not put before the others, which would copy them all.
        joint = jnp.where(is_first, p.initial + p.emission, rest)
        peak = _peak(joint, 1)
        logs, move_logs = jnp.squeeze(peak, 1), jnp.squeeze(move_peak, axes)
        if move_logs.ndim:  # [T-1] or [T-1, B] against [T-1, *B]
            move_logs = move_logs.reshape(*move_logs.shape, *[1] * (logs.ndim - move_logs.ndim))
        logs = logs.at[1:].add(jnp.broadcast_to(move_logs, logs[1:].shape))
        return cls(jnp.exp(joint - peak), jnp.exp(p.transition - move_peak), logs, p)

    @property
    def is_shared(self) -> bool:
        """Whether one transition matrix serves all steps."""
        return self.moves.ndim == 2

    @property
    def inside(self) -> Bool[Array, "T *B"] | None:
        """Whether a step lies inside its sequence; None: all do."""
        return self.chain.inside

    @property
    def is_wide(self) -> bool:
        """Whether there is one chain, of many states and one matrix."""
        return self.is_shared and self.emissions.ndim == 2 and self.emissions.shape[1] >= WIDE

    @property
    def is_nan(self) -> Bool[Array, ""]:
        """Whether the log-normaliser is NaN, by what was taken out already."""
        return jnp.any(jnp.isnan(self.logs))

    def log_normalizer(self, totals: Float[Array, "T *B"]) -> Float[Array, "T *B"]:
        """The share of each step in the log-normaliser, from the sums of normalised messages."""
        logs = log(totals) + self.logs
        return logs if self.inside is None else jnp.where(self.inside, logs, 0)


def reciprocal(total: Array) -> Array:
    """1 / total, and 0 for 0."""
    none = total == 0  # only an exact zero: NaN must stay NaN
    return jnp.where(none, 0, 1 / jnp.where(none, 1, total))


def onward(moves: Array, message: Float[Array, "K *B"]) -> Float[Array, "K *B"]:
    """Σ_i message[i] moves[i, j]: one step forward in time."""
    if moves.ndim > 2:
        return jnp.sum(moves * message[:, None], 0)
    if _by_sums(moves):
        return jnp.sum(_beside(moves, message) * message[:, None], 0)
    if message.ndim == 1 and len(message) >= WIDE:
        return jnp.dot(message[None], moves, precision=PRECISION)[0]
    return jnp.dot(moves.T, message, precision=PRECISION)


def back(moves: Array, message: Float[Array, "K *B"]) -> Float[Array, "K *B"]:
    """Σ_j moves[i, j] message[j]: one step back in time."""
    if moves.ndim > 2:
        return jnp.sum(moves * message[None], 1)
    if _by_sums(moves):
        return jnp.sum(_beside(moves, message) * message[None], 1)
    return jnp.dot(moves, message, precision=PRECISION)


def _by_sums(moves: Array) -> bool:
    """Whether products are written out: XLA's CPU compiler starts a kernel for each small one."""
    return in_lockstep() and len(moves) <= FEW and is_cpu()


def _beside(moves: Array, message: Array) -> Array:
    return moves.reshape(*moves.shape, *[1] * (message.ndim - 1))


def _peak(potential: Array, axes: Any) -> Array:
    peak = lax.stop_gradient(jnp.max(potential, axes, keepdims=True))
    return jnp.where(jnp.isneginf(peak), 0, peak)
