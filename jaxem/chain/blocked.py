"""A long chain in blocks of steps that are worked on side by side: a parallel scan of two levels.

Every block is first multiplied out: what it carries from each state to each other one, [K, K].
These serve both directions, and carry α and β from block to block (blocks of blocks, where there
are many).  Between two boundaries a block is then a chain of its own, and all blocks are a batch.
About 5·T^⅓ steps follow one another instead of T, for K times the work: worth it where a step costs
its launches and not its work.

Where every move is likely enough (`scaled.is_dense`) probabilities are rescaled; elsewhere all of
it is done in logarithms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxem.chain import log_domain, scaled, stacked
from jaxem.chain.factors import Factors, reciprocal
from jaxem.chain.potentials import Potentials
from jaxem.lockstep import everywhere
from jaxem.semiring import PRECISION, log, logsumexp, pairwise_sum


@dataclass(frozen=True)
class _Algebra:
    """Sums of products, of probabilities or of logarithms."""

    one: float
    zero: float
    times: Callable[[Array, Array], Array]
    contract: Callable[[Array, Array], Array]  # [I, J, *X], [I, R, X] -> [J, R, X]
    normalize: Callable[[Array, Any], tuple[Array, Array]]  # to sum 1, and the log of the sum

    def identity(self, states: int, dtype: Any) -> Float[Array, "K K"]:
        return jnp.where(jnp.eye(states, dtype=bool), self.one, self.zero).astype(dtype)


def _contract(matrix: Array, rows: Array) -> Array:
    if matrix.ndim == 2:
        return jnp.einsum("ij,irx->jrx", matrix, rows, precision=PRECISION)
    return jnp.sum(matrix[:, :, None] * rows[:, None], 0)


def _contract_logs(matrix: Array, rows: Array) -> Array:
    matrix = matrix[:, :, None, None] if matrix.ndim == 2 else matrix[:, :, None]
    return logsumexp(matrix + rows[:, None], 0)


def _normalize(rows: Array, axes: Any) -> tuple[Array, Array]:
    total = jnp.sum(rows, axes)
    return rows * jnp.expand_dims(reciprocal(total), axes), log(total)


def _normalize_logs(rows: Array, axes: Any) -> tuple[Array, Array]:
    total = logsumexp(rows, axes)
    return rows - jnp.expand_dims(jnp.where(jnp.isneginf(total), 0, total), axes), total


_PROBABILITIES = _Algebra(1.0, 0.0, jnp.multiply, _contract, _normalize)
_LOGS = _Algebra(0.0, -jnp.inf, jnp.add, _contract_logs, _normalize_logs)


@dataclass(frozen=True)
class _Blocks:
    """The steps after the first, L of each of M blocks side by side."""

    emission: Float[Array, "L K MB"]
    inside: Array  # [L, MB]

    @classmethod
    def of(cls, emission: Float[Array, "T K B"], inside: Array | None) -> "_Blocks":
        steps, _, batch = emission.shape
        inside = jnp.ones((steps, batch), bool) if inside is None else inside
        length = block_length(steps)
        return cls(_cut(emission[1:], length, 0), _cut(inside[1:], length, False))


def block_length(num_steps: int) -> int:
    """Steps in a block: the cube root of T."""
    return max(round(num_steps ** (1 / 3)), 1)


def _cut(steps: Float[Array, "n ..."], length: int, filling: Any) -> Float[Array, "L ... MX"]:
    """Steps [n, ..., X] as L steps of M blocks, the blocks beside X, the last one filled up."""
    n, *inner, last = steps.shape
    blocks = max(-(-n // length), 1)
    padding = jnp.broadcast_to(
        jnp.asarray(filling, steps.dtype), (blocks * length - n, *inner, last)
    )
    steps = jnp.concatenate([steps, padding]).reshape(blocks, length, *inner, last)
    return jnp.moveaxis(steps, 0, -2).reshape(length, *inner, blocks * last)


def _join(steps: Float[Array, "L ... MX"], last: int) -> Float[Array, "ML ... X"]:
    """The inverse of `_cut`, what was filled up included."""
    length, *inner, wide = steps.shape
    steps = jnp.moveaxis(steps.reshape(length, *inner, wide // last, last), -2, 0)
    return steps.reshape(-1, *inner, last)


def _transfers(
    algebra: _Algebra, moves: Array, blocks: _Blocks
) -> tuple[Float[Array, "K K MB"], Float[Array, "L MB"]]:
    """What each block carries to state j from state i, [j, i], with sum 1; the logs of the sums."""
    states, wide = moves.shape[0], blocks.emission.shape[-1]

    def step(rows: Array, inputs: Any) -> tuple[Array, Array]:
        emission, inside = inputs
        new = algebra.times(algebra.contract(moves, rows), emission[:, None])
        return algebra.normalize(jnp.where(inside, new, rows), (0, 1))

    start = algebra.identity(states, moves.dtype)[:, :, None]
    start = jnp.broadcast_to(start, (states, states, wide))
    return lax.scan(step, start, (blocks.emission, blocks.inside))


def _walk(
    algebra: _Algebra, transfers: Float[Array, "M K K X"], start: Array, end: Array
) -> tuple[Float[Array, "M K X"], Float[Array, "M K X"], Float[Array, "M X"]]:
    """α after each transfer, β before each, both with sum 1; the logs of the sums of α."""

    def step(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[Any, Any]:
        alpha, beta = carry
        early, late = inputs
        alpha = algebra.contract(jnp.swapaxes(early, 0, 1), alpha[:, None])[:, 0]
        beta = algebra.contract(late, beta[:, None])[:, 0]
        (alpha, log), (beta, _) = algebra.normalize(alpha, 0), algebra.normalize(beta, 0)
        return (alpha, beta), (alpha, beta, log)

    inputs = (transfers, jnp.flip(transfers, 0))
    _, (alpha, beta, logs) = lax.scan(step, (start, end), inputs)
    return alpha, jnp.flip(beta, 0), logs


def _walk_in_blocks(
    algebra: _Algebra, transfers: Float[Array, "M K K X"], start: Array, end: Array
) -> tuple[Float[Array, "M K X"], Float[Array, "M K X"], Float[Array, "M X"]]:
    """What `_walk` returns, in blocks again where there are many transfers."""
    number, states, _, wide = transfers.shape
    length = max(round(number**0.5), 1)
    if length < 4:
        return _walk(algebra, transfers, start, end)
    identity = algebra.identity(states, transfers.dtype)[:, :, None]
    fine = _cut(transfers, length, identity)

    def step(rows: Array, transfer: Array) -> tuple[Array, None]:
        new = algebra.contract(jnp.swapaxes(transfer, 0, 1), rows)
        return algebra.normalize(new, (0, 1))[0], None

    unit = jnp.broadcast_to(identity, fine.shape[1:])
    coarse = _join(lax.scan(step, unit, fine)[0][None], wide)
    alpha, beta, _ = _walk(algebra, coarse, start, end)
    sides = _sides(start, alpha, beta, end)
    alpha, beta, logs = (_join(part, wide) for part in _walk(algebra, fine, *sides))
    return alpha[:number], beta[:number], logs[:number]


def _sides(start: Array, alpha: Array, beta: Array, end: Array) -> tuple[Array, Array]:
    """α before and β after each of M transfers, [K, MX]."""
    starts, ends = (
        jnp.concatenate([start[None], alpha[:-1]]),
        jnp.concatenate([beta[1:], end[None]]),
    )
    return _cut(starts, 1, 0)[0], _cut(ends, 1, 0)[0]


@dataclass(frozen=True)
class _Boundaries:
    """A chain cut into blocks: what arrives at each block from either side, and log Z."""

    starts: Float[Array, "K MB"]  # α before each block
    ends: Float[Array, "K MB"]  # β after it
    log_normalizer: Float[Array, " B"]


def _boundaries(
    algebra: _Algebra, first: Array, moves: Array, blocks: _Blocks, logs: Array
) -> _Boundaries:
    """`first` [K, B] is the first message, `logs` [T, B] what was taken out of the steps."""
    batch = first.shape[-1]
    start, first_log = algebra.normalize(first, 0)
    end = jnp.full_like(start, algebra.one)
    transfers, block_logs = _transfers(algebra, moves, blocks)
    alpha, beta, walk_logs = _walk_in_blocks(algebra, _join(transfers[None], batch), start, end)
    starts, ends = _sides(start, alpha, beta, end)
    terms = jnp.concatenate([first_log[None], walk_logs, _join(block_logs, batch), logs])
    return _Boundaries(starts, ends, pairwise_sum(terms))


def _in_probabilities(p: Potentials) -> _Boundaries:
    f = Factors.of(p)
    logs = f.logs if p.inside is None else jnp.where(p.inside, f.logs, 0)
    blocks = _Blocks.of(f.emissions, p.inside)
    cut = _boundaries(
        _PROBABILITIES, _first(p, f.emissions[0], 1 / p.num_states), f.moves, blocks, logs
    )
    return _Boundaries(log(cut.starts), cut.ends, cut.log_normalizer)


def _in_logs(p: Potentials) -> _Boundaries:
    first = _first(p, p.initial + p.emission[0], -jnp.log(1.0 * p.num_states))
    blocks = _Blocks.of(p.emission, p.inside)
    return _boundaries(_LOGS, first, p.transition, blocks, jnp.zeros_like(p.emission[:1, 0]))


def _first(p: Potentials, message: Array, share: Any) -> Array:
    """The first message; that of a chain of no steps has sum 1."""
    return message if p.inside is None else jnp.where(p.inside[0], message, share)


def log_normalizer(p: Potentials) -> Float[Array, "*B"]:
    """Log of the summed weight of all paths."""
    wide = _with_batch(p)
    log_z = lax.cond(
        _is_dense(wide),
        lambda: _in_probabilities(wide).log_normalizer,
        lambda: _in_logs(wide).log_normalizer,
    )
    return log_z.reshape(p.emission.shape[2:])


def expected(
    p: Potentials, weight: Float[Array, "*B"]
) -> tuple[Float[Array, "*B"], tuple[Float[Array, "K K"], Float[Array, "T K *B"]]]:
    """Log-normaliser and expected transitions and states, each chain times its weight."""
    wide, weights = _with_batch(p), jnp.reshape(weight, -1)

    def rescaled() -> Any:
        cut = _in_probabilities(wide)
        f = Factors.of(_chains(wide, cut.starts))
        m = stacked.messages(f, end=cut.ends)
        return cut.log_normalizer, scaled.products(f, m, _repeat(weights, cut))

    def in_logs() -> Any:
        cut = _in_logs(wide)
        chains = _chains(wide, cut.starts)
        return cut.log_normalizer, log_domain.counts(chains, _repeat(weights, cut), cut.ends)

    log_z, (moves, states) = lax.cond(_is_dense(wide), rescaled, in_logs)
    # A block's first step is the last one of the block before.
    later = _join(states[1:], len(weights))[: p.num_steps - 1]
    states = jnp.concatenate([states[:1, :, : len(weights)], later]).reshape(p.emission.shape)
    if p.inside is not None:
        states = jnp.where(jnp.expand_dims(p.inside, 1), states, 0)
    return log_z.reshape(jnp.shape(weight)), (moves, states)


def _is_dense(p: Potentials) -> Array:
    f = Factors.of(p)
    return everywhere(scaled.is_dense(f, p.num_states), f.is_nan)


def _with_batch(p: Potentials) -> Potentials:
    if p.emission.ndim == 3:
        return p
    inside = None if p.inside is None else p.inside[:, None]
    return Potentials(p.initial[:, None], p.transition, p.emission[:, :, None], inside)


def _chains(p: Potentials, starts: Float[Array, "K MB"]) -> Potentials:
    """The blocks as chains of their own, each with the step before it as its first."""
    blocks = _Blocks.of(p.emission, p.inside)
    zeros = jnp.zeros_like(blocks.emission[:1])
    emission = jnp.concatenate([zeros, blocks.emission])
    first = jnp.ones_like(blocks.inside[:1])
    return Potentials(starts, p.transition, emission, jnp.concatenate([first, blocks.inside]))


def _repeat(weights: Array, cut: _Boundaries) -> Array:
    return jnp.tile(weights, cut.starts.shape[-1] // len(weights))
