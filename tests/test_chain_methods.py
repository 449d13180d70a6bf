"""The algorithms that answer for a chain give the same numbers, each on its own ground."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from chains import ANY_LENGTH, quick, random_batch, tolerance, with_garbage

import jaxem
from jaxem import chain
from jaxem.chain import METHODS, Chain, method as chain_method
from jaxem.chain.potentials import lay_out

OTHERS = [name for name in METHODS if name != "sequential"]
POSTERIOR = {name: quick(partial(chain.posterior, method=name)) for name in METHODS}


def sticky(states: int, steps: int, dtype: Any, *, zeros: bool = False, batch: Any = ()) -> Chain:
    """A chain long enough for blocks of blocks; with zeros no state is ever left downwards."""
    rng = np.random.default_rng(steps)
    moves = 0.9 * np.eye(states) + 0.1 / states
    moves = np.triu(moves) if zeros else moves
    with np.errstate(divide="ignore"):
        log_moves = np.log(moves / moves.sum(1, keepdims=True))
    emission = 2 * rng.standard_normal((*batch, steps, states))
    return Chain(
        np.full(states, -np.log(states), dtype), log_moves.astype(dtype), emission.astype(dtype)
    )


def assert_same(got: Any, wanted: Any, room: float) -> None:
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=room, atol=room)


@pytest.mark.parametrize("name", ["stacked", "blocked"])
def test_the_posterior_is_that_of_enumeration(dtype: Any, name: str) -> None:
    for zeros in [0.0, 0.1]:
        batch, wide = random_batch(dtype, "shared", zeros=zeros)
        exact = oracles.enumerate_paths(*wide, ANY_LENGTH)
        log_z, counts = POSTERIOR[name](with_garbage(batch, ANY_LENGTH), ANY_LENGTH)
        assert log_z.dtype == dtype
        np.testing.assert_allclose(log_z, exact.log_normalizer, **tolerance(dtype))
        np.testing.assert_allclose(counts.emission, exact.emission, **tolerance(dtype))
        moves = exact.transition.sum((0, 1))
        np.testing.assert_allclose(counts.transition, moves, rtol=1e3 * np.finfo(dtype).eps)
        np.testing.assert_allclose(
            counts.initial, exact.initial.sum(0), rtol=1e3 * np.finfo(dtype).eps
        )


@pytest.mark.parametrize(
    ("batch", "zeros"),
    [
        pytest.param((), False, id="one chain-dense"),
        pytest.param((3,), True, id="three-zeros"),
        pytest.param((3,), False, id="three-dense", marks=pytest.mark.slow),
        pytest.param((), True, id="one chain-zeros", marks=pytest.mark.slow),
    ],
)
def test_long_chains_in_blocks_of_blocks_are_those_of_two_scans(
    zeros: bool, batch: Any, x64: None
) -> None:
    long = sticky(3, 300, np.float64, zeros=zeros, batch=batch)
    lengths = np.array([300, 0, 171]) if batch else None
    wanted = POSTERIOR["sequential"](long, lengths)
    for name in OTHERS:
        got = POSTERIOR[name](long, lengths)
        assert_same(got, wanted, 1e-10)
        alone = quick(partial(chain.log_normalizer, method=name))(long, lengths)
        np.testing.assert_allclose(alone, wanted[0], rtol=1e-12)


@pytest.mark.parametrize("name", ["stacked", "blocked"])
def test_float32_keeps_its_digits_over_many_steps(name: str) -> None:
    long = sticky(3, 20_000, np.float32)
    log_z, states, moves = oracles.forward_backward(*long.__dict__.values())
    got, counts = POSTERIOR[name](long, None)
    np.testing.assert_allclose(got, log_z, rtol=1e-6)
    np.testing.assert_allclose(counts.emission, states, atol=1e-4)
    np.testing.assert_allclose(counts.transition, moves, rtol=1e-4)


@pytest.mark.parametrize("name", ["stacked", "blocked"])
def test_counts_are_the_gradient_and_their_derivative_the_hessian(name: str, x64: None) -> None:
    short = sticky(2, 20, np.float64)

    def log_z(emission: Any, method: str) -> Any:
        return chain.log_normalizer(replace(short, emission=emission), method=method)

    gradient = quick(jax.grad(partial(log_z, method=name)))(short.emission)
    np.testing.assert_allclose(gradient, POSTERIOR[name](short, None)[1].emission, atol=1e-12)
    hessian = {m: quick(jax.hessian(partial(log_z, method=m))) for m in (name, "log")}
    second = [one(short.emission) for one in hessian.values()]
    np.testing.assert_allclose(*second, atol=1e-10)
    assert np.abs(second[0]).max() > 0.05
    # Certain states: what arrives at a block is 0 for some, whose logarithm has no slope.
    zeros = np.arange(short.emission.size).reshape(short.emission.shape) % 5 == 2
    certain = np.where(zeros, -np.inf, short.emission)
    second = [one(certain) for one in hessian.values()]
    np.testing.assert_allclose(*second, atol=1e-10)


@pytest.mark.parametrize("name", list(METHODS))
def test_nothing_is_lost_that_matters_later(dtype: Any, name: str) -> None:
    # Two lanes of equal weight, each lost to rescaled numbers before it comes into its own.
    lanes = np.zeros((40, 2))
    lanes[3, 1] = lanes[30, 0] = -900
    moves = np.array([[0.0, -2000.0], [-2000.0, 0.0]])
    log_z, counts = POSTERIOR[name](
        Chain(np.zeros(2, dtype), moves.astype(dtype), lanes.astype(dtype)), None
    )
    np.testing.assert_allclose(log_z, np.log(2) - 900, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(counts.emission, 0.5, rtol=1e-3)


@pytest.mark.parametrize("name", list(METHODS))
def test_impossible_chains_count_nothing_and_nan_stays(dtype: Any, name: str) -> None:
    for zeros in (False, True):
        broken = sticky(3, 300, dtype, zeros=zeros, batch=(3,))
        broken.emission[0, 150] = -np.inf
        broken.emission[2, 150, 1] = np.nan
        log_z, counts = POSTERIOR[name](broken, None)
        assert np.isneginf(log_z[0]) and np.isfinite(log_z[1]) and np.isnan(log_z[2])
        assert not np.any(counts.emission[0])
        np.testing.assert_allclose(counts.emission[1].sum(1), 1, rtol=1e-4)


def test_the_platform_and_the_shape_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(steps: int, states: int, sequences: int = 1, *, per_step: bool = False) -> str:
        moves = (steps - 1, states, states) if per_step else (states, states)
        parts = Chain(
            np.zeros(states, np.float32),
            np.broadcast_to(np.float32(0), moves),
            np.zeros((sequences, steps, states), np.float32),
        )
        return chain_method.choose(lay_out(parts, None), None)

    assert chosen(10_000, 2) == "sequential"
    monkeypatch.setattr(chain_method, "is_cpu", lambda: False)
    assert chosen(10_000, 2) == "blocked"
    assert chosen(9_999, 2) == "stacked"
    assert chosen(10_000, 33) == "stacked"
    assert chosen(10_000, 2, 65) == "stacked"
    assert chosen(10_000, 2, per_step=True) == "sequential"


def test_a_method_that_is_none_is_refused() -> None:
    shared = sticky(2, 5, np.float32)
    with pytest.raises(ValueError, match="'sequential', 'stacked', 'blocked', 'log', got 'fast'"):
        chain.posterior(shared, method="fast")
    with pytest.raises(ValueError, match="got 'fast'"):
        chain.posterior(replace(shared, emission=np.zeros((0, 2))), method="fast")
    per_step = replace(shared, transition=np.broadcast_to(shared.transition, (4, 2, 2)))
    for name in ("stacked", "blocked"):
        with pytest.raises(ValueError, match="one transition matrix"):
            chain.log_normalizer(per_step, method=name)
    assert np.isfinite(chain.log_normalizer(per_step, method="log"))


def test_paths_are_the_same_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = random_batch(np.float32, "shared", zeros=0.1)
    wanted = jax.jit(lambda batch: chain.viterbi(batch, ANY_LENGTH))(batch)
    monkeypatch.setattr("jaxem.chain.paths.is_cpu", lambda: False)
    assert_same(jax.jit(lambda batch: chain.viterbi(batch, ANY_LENGTH))(batch), wanted, 1e-6)


def quakes() -> jaxem.HMM:
    return jaxem.HMM(
        jaxem.Categorical.from_probs([0.5, 0.5]),
        jaxem.Categorical.from_probs([[0.9, 0.1], [0.1, 0.9]]),
        jaxem.Poisson.from_rate([10.0, 30.0]),
    )


@pytest.mark.slow
def test_a_model_is_fitted_by_the_method_it_names() -> None:
    name = "blocked"
    data = jaxem.datasets.earthquakes()
    plain = jaxem.fit(quakes(), data, max_steps=5).model
    model = jaxem.fit(replace(quakes(), method=name), data, max_steps=5).model
    assert model.method == name and plain.method is None
    assert_same(model, plain, 1e-4)
    np.testing.assert_allclose(model.smooth(data), plain.smooth(data), atol=1e-4)
    assert model.num_parameters == plain.num_parameters


def test_a_model_with_no_such_method_is_refused() -> None:
    data = jaxem.datasets.earthquakes()
    wrong = replace(quakes(), method="fast")
    for ask in (partial(jaxem.fit, wrong), wrong.viterbi, wrong.filter):
        with pytest.raises(ValueError, match="method must be None or one of"):
            ask(data)


@pytest.mark.parametrize(
    "family",
    [
        jaxem.Gaussian,
        pytest.param(jaxem.TiedGaussian, marks=pytest.mark.slow),
        jaxem.DiagonalGaussian,
        pytest.param(jaxem.SphericalGaussian, marks=pytest.mark.slow),
    ],
)
def test_both_forms_of_a_gaussian_family_fit_the_same(family: Any, tmp_path: Any) -> None:
    faithful = jaxem.datasets.old_faithful()
    key = jax.random.key(0)
    start = jaxem.initialize.kmeans_plus_plus(key, family, faithful, 2)

    def fitted(method: str | None) -> Any:
        named = replace(start, components=replace(start.components, method=method))
        return jaxem.fit(named, faithful, max_steps=3).model

    by_itself, *named = (fitted(method) for method in (None, "features", "centred"))
    for model in named:
        assert_same(model, by_itself, 1e-3)
    assert named[1].components.method == "centred"
    jaxem.io.save(tmp_path / "model.npz", named[1])  # which keeps numbers, and no choices
    again = jaxem.io.load(tmp_path / "model.npz")
    assert again.components.method is None
    assert_same(again, named[1], 0)
    with pytest.raises(ValueError, match="method must be None or 'features', 'centred'"):
        fitted("fast")


def test_a_named_form_leaves_no_branch_under_vmap() -> None:
    family = jaxem.DiagonalGaussian(jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    rows = jnp.ones((5, 2))

    def branches(method: str | None) -> int:
        named = replace(family, method=method)
        model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(2)), named)
        return str(jax.make_jaxpr(lambda x: model.e_step(x)[1])(rows)).count("cond[")

    assert branches(None) == 1
    assert branches("features") == branches("centred") == 0
