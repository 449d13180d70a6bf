"""The log-normaliser under jax's transformations, and what its gradient costs."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from chains import quick, tolerance
from jax.flatten_util import ravel_pytree

from jaxem import chain
from jaxem.chain import Chain

STEPS, STATES = 4, 2
TRANSITIONS = {"shared": (STATES, STATES), "per step": (STEPS - 1, STATES, STATES)}


def small_chain(sharing: str, *, zeros: bool) -> Chain:
    """Potentials of a chain with several possible paths, some of them zeros if wanted."""
    rng = np.random.default_rng(0)
    initial = rng.standard_normal(STATES)
    transition = rng.standard_normal(TRANSITIONS[sharing])
    emission = rng.standard_normal((STEPS, STATES))
    if zeros:
        transition[..., 1, 0] = -np.inf
        emission[0, 1] = -np.inf
    return Chain(initial, transition, emission)


def underflowing_chain(sharing: str) -> Chain:
    """Two lanes of equal weight, each lost to rescaled float64 before it comes into its own."""
    lanes = np.zeros((STEPS, STATES))
    lanes[0, 1] = lanes[2, 0] = -900
    moves = np.broadcast_to([[0.0, -2000.0], [-2000.0, 0.0]], TRANSITIONS[sharing])
    return Chain(np.zeros(STATES), moves, lanes)


def with_nan_padding(one: Chain, length: int) -> Chain:
    """The chain with NaN wherever a sequence of that length has ended."""
    transition, emission = np.array(one.transition), np.array(one.emission)
    if transition.ndim == 3:
        transition[max(length - 1, 0) :] = np.nan
    emission[length:] = np.nan
    return Chain(one.initial, transition, emission)


def flat_log_normalizer(sharing: str) -> Callable[..., Any]:
    """The log-normaliser as a function of a vector of potentials, and a length."""
    _, unravel = ravel_pytree(small_chain(sharing, zeros=False))

    def log_z(flat: Any, length: Any) -> Any:
        return chain.log_normalizer(jax.tree.map(jnp.asarray, unravel(flat)), length)

    return log_z


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("sharing", "order"), [("shared", "reverse twice"), ("per step", "hessian under vmap")]
)
def test_second_derivatives_are_the_differences_of_the_gradient(sharing: str, order: str) -> None:
    log_z = flat_log_normalizer(sharing)
    cases = [(small_chain(sharing, zeros=zeros), n) for zeros in [False, True] for n in range(5)]
    cases.append((underflowing_chain(sharing), STEPS))
    lengths = np.array([length for _, length in cases])
    flat = np.stack([ravel_pytree(with_nan_padding(*case))[0] for case in cases])
    if order == "hessian under vmap":
        answers = np.asarray(quick(jax.vmap(jax.hessian(log_z)))(flat, lengths))
    else:
        twice = quick(jax.jacrev(jax.jacrev(log_z)))
        answers = [np.asarray(twice(*case)) for case in zip(flat, lengths, strict=True)]
    gradients = quick(jax.vmap(jax.grad(log_z), (0, None)))
    for at, length, got in zip(flat, lengths, answers, strict=True):
        wanted = oracles.central_differences(lambda x, n=length: gradients(x, n), at, 1e-5)
        finite = np.isfinite(at)
        np.testing.assert_allclose(got[finite], wanted[finite], rtol=0, atol=1e-8)
        assert not np.any(got[~finite]) and not np.any(got[:, ~finite])
        if length == STEPS:  # a covariance, and no trivial one
            assert np.abs(got).max() > 0.1
            assert np.linalg.eigvalsh(got).min() > -1e-8


def batch_of_chains() -> tuple[Chain, np.ndarray]:
    rng = np.random.default_rng(1)
    parts = oracles.random_chains(rng, 64, STEPS, STATES, zeros=0.15, spread=1.0)
    return Chain(*(part.astype(np.float32) for part in parts)), rng.integers(0, STEPS + 1, 64)


def test_vmap_over_chains_is_a_batch_and_weights_weigh_the_counts() -> None:
    batch, lengths = batch_of_chains()
    log_z, counts = quick(jax.vmap(chain.posterior))(batch, lengths)

    @quick
    @functools.partial(jax.grad, has_aux=True)
    def weighted(batch: Chain, weight: Any) -> Any:
        log_z = chain.log_normalizer(batch, lengths)
        return jnp.sum(jnp.where(jnp.isfinite(log_z), weight * log_z, 0)), log_z

    room = tolerance(np.float32)
    for weight in [np.ones(64, np.float32), np.linspace(-1, 1, 64, dtype=np.float32)]:
        gradient, together = weighted(batch, weight)
        np.testing.assert_allclose(together, log_z, **room)
        for name in ["initial", "transition", "emission"]:
            once = getattr(counts, name)
            each = weight.reshape(-1, *[1] * (once.ndim - 1))
            np.testing.assert_allclose(getattr(gradient, name), each * once, **room)


def arrays_of(jaxpr: Any) -> Iterator[Any]:
    """Shapes of everything that a program computes, inner programs included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from arrays_of(inner)


def largest_array(function: Callable[..., Any], *arguments: Any) -> int:
    """Elements of the largest array anywhere in the program of a function."""
    program = jax.make_jaxpr(function)(*arguments)
    return max(math.prod(aval.shape) for aval in arrays_of(program.jaxpr))


@pytest.mark.parametrize("batch", [(), (3,)], ids=["one chain", "batch"])
def test_no_array_of_steps_by_states_by_states_for_shared_transitions(batch: Any) -> None:
    steps, states = 1000, 7
    emission = jnp.zeros((*batch, steps, states))
    shared = Chain(jnp.zeros(states), jnp.zeros((states, states)), emission)
    lengths = jnp.full(batch, steps)
    for function in [chain.posterior, chain.filter, chain.entropy, chain.viterbi]:
        assert largest_array(function, shared, lengths) == emission.size
    # Negative control: counts per step are such an array.
    per_step = jnp.zeros((steps - 1, states, states))
    wide = Chain(shared.initial, per_step, emission)
    assert largest_array(chain.posterior, wide, lengths) >= per_step.size


def test_one_program_serves_all_chains_of_a_shape() -> None:
    batch, lengths = batch_of_chains()
    chex.clear_trace_counter()
    ask = jax.jit(chex.assert_max_traces(chain.log_normalizer, n=1))
    for length in range(3):
        ask(Chain(batch.initial - length, batch.transition, batch.emission), lengths // 2 + length)
    with pytest.raises(AssertionError):  # negative control: another shape is another program
        ask(jax.tree.map(lambda part: part[:5], batch), lengths[:5])
