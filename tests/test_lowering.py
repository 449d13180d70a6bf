"""Programs for hardware that is not at hand: they lower, and no product is left to TF32.

A GPU multiplies float32 matrices in TF32, 10 bits of mantissa, unless told otherwise, and a TPU in
bfloat16.  The first half reads the programs that CUDA and TPU would get.  The second rounds the
operands of every product to TF32 and looks at what becomes of a log-density.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import densities
import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from chains import SHARING, quick, random_batch
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal
from oracles import logsumexp

import jaxem
from jaxem import chain
from jaxem.em import cast
from jaxem.families import optional
from jaxem.platform import is_cpu

PLATFORMS = ("cuda", "tpu")
PRODUCT = re.compile(r"stablehlo\.(dot_general|dot|convolution)\b")
FLOATS = re.compile(r"tensor<(\d+x)*(f32|f16|bf16)>")
FLOAT32 = np.dtype(np.float32)


# What the compiler of another platform would be given


def programs(function: Callable[..., Any], *args: Any) -> dict[str, str]:
    """StableHLO of the function for each platform; none of them need be at hand."""
    with on_an_accelerator():
        traced = jax.jit(function).trace(*args)
        return {name: traced.lower(lowering_platforms=(name,)).as_text() for name in PLATFORMS}


@contextmanager
def on_an_accelerator() -> Iterator[None]:
    """Tracing takes the branches that are not for a CPU; nothing traced elsewhere is reused."""
    jax.clear_caches()
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        assert not is_cpu()
        yield
    jax.clear_caches()


def products(program: str) -> list[str]:
    """The lines that multiply matrices of floating-point numbers."""
    lines = program.splitlines()
    return [line.strip() for line in lines if PRODUCT.search(line) and FLOATS.search(line)]


def careless(program: str) -> list[str]:
    """Those of them in which an operand's precision is not the highest."""
    return [line for line in products(program) if line.count("HIGHEST") != 2]


def assert_precise(function: Callable[..., Any], *args: Any) -> int:
    """That it lowers everywhere and leaves no precision open; how many products it has."""
    lowered = programs(function, *args)
    for platform, program in lowered.items():
        assert not careless(program), f"for {platform}: {careless(program)}"
    return min(len(products(program)) for program in lowered.values())


@pytest.mark.parametrize("precision", [None, "default", "high", "tensorfloat32"])
def test_a_product_without_the_highest_precision_is_noticed(precision):
    square, signal = jnp.eye(3), jnp.ones((1, 1, 8))
    plain = partial(jnp.dot, precision=precision)
    functions = (
        (plain, square, square),
        (lambda a: lax.scan(lambda c, x: (plain(a, c), x), a, jnp.zeros(3))[0], square),
        (lambda a: lax.cond(a[0, 0] > 0, lambda: plain(a, a), lambda: a), square),
        (partial(lax.conv, window_strides=(1,), padding="SAME", precision=precision),)
        + (signal, signal),
    )
    for function, *args in functions:
        for program in programs(function, *args).values():
            assert len(careless(program)) == len(products(program)) == 1


def test_what_a_platform_lacks_does_not_lower():
    with pytest.raises(NotImplementedError, match="tpu"):
        programs(lambda x: lax.platform_dependent(x, cuda=jnp.sin), jnp.ones(3))


def test_the_highest_precision_and_products_of_integers_pass():
    square = jnp.eye(3)
    highest = partial(jnp.dot, precision="highest")
    assert assert_precise(highest, square, square) == 1
    assert assert_precise(jnp.dot, square.astype(int), square.astype(int)) == 0


def step_and_density(model: Any, data: Any, prior: Any) -> Any:
    """Everything that `fit` asks of a model, and the log-density of a row or sequence."""
    stats, log_likelihood = model.e_step(data, about=model)
    density = model.log_prob if isinstance(model, jaxem.Mixture) else model.log_likelihoods
    return model.m_step(stats, prior), log_likelihood, model.log_prior(prior), density(data)


# Each class of family once; rows of features include what single ones do.  What an HMM does with
# most families a mixture has done before.
NARROW = ("Bernoulli", "Poisson", "mixture of Poisson")
WIDE = [name for name in laws.MODELS if not name.endswith(tuple(f" over {n}" for n in NARROW))]
QUICK = {*laws.MIXTURES, "HMM over Gaussian", "HMM over mixture of Gaussian"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WIDE],
)
def test_em_and_densities_lower_with_explicit_precision(name):
    asked = laws.question(name, FLOAT32)
    assert 0 < assert_precise(step_and_density, asked.model, asked.data, laws.PRIOR)


@pytest.mark.parametrize("name", ["Mixture over Gaussian", "HMM over TiedGaussian"])
def test_slopes_lower_with_explicit_precision(name):
    asked = laws.question(name, FLOAT32)
    slope = jax.grad(lambda model, data: model.log_likelihood(data))
    assert assert_precise(slope, asked.model, asked.data) > 0


@pytest.mark.parametrize("family", [jaxem.Gaussian, jaxem.TiedGaussian])
def test_factors_by_blocks_lower_with_explicit_precision(family):
    size = 20  # two blocks of 16
    packed = size * (size + 1) // 2
    members = family(
        jnp.zeros((2, size)), jnp.zeros((2, packed) if family is jaxem.Gaussian else packed)
    )
    x = jnp.zeros((5, size))
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(2)), members)
    assert assert_precise(step_and_density, model, x, jaxem.Prior(floor=0.0)) > 0


CHAIN_QUESTIONS = {
    "filter": chain.filter,
    "entropy": chain.entropy,
    "divergence": lambda batch, lengths: chain.divergence(batch, batch, lengths),
    "viterbi": chain.viterbi,
    "k_best": lambda batch, lengths: chain.k_best(batch, 2, lengths),
    "sample": lambda batch, lengths: chain.sample(jax.random.key(0), batch, lengths),
}


@pytest.mark.parametrize("name", CHAIN_QUESTIONS)
def test_chains_lower_with_explicit_precision(name):
    batch, _ = random_batch(FLOAT32, "shared", zeros=0.1)
    assert_precise(CHAIN_QUESTIONS[name], batch, np.full(len(batch.emission), 3))


@pytest.mark.parametrize("method", [None, *chain.METHODS])
@pytest.mark.parametrize("sharing", SHARING)
def test_every_method_lowers_with_explicit_precision(sharing, method):
    if sharing != "shared" and method in ("stacked", "blocked"):
        pytest.skip("needs one transition matrix")
    batch, _ = random_batch(FLOAT32, sharing, zeros=0.1)
    posterior = partial(chain.posterior, method=method)
    assert_precise(posterior, batch, np.full(len(batch.emission), 3))


def test_what_is_chosen_for_a_long_chain_lowers_with_explicit_precision():
    potentials = jnp.zeros(3), jnp.zeros((3, 3)), jnp.zeros((20_000, 3))
    assert assert_precise(chain.posterior, chain.Chain(*potentials)) > 0


# What TF32 would make of a log-density

INLINED = {"jit", "pjit", "closed_call", "checkpoint", "remat2"} | {
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}


def in_tf32(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the operands of every product rounded to 10 bits of mantissa."""

    def rounded(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = evaluate(closed.jaxpr, closed.consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return rounded


def evaluate(jaxpr: Any, consts: Any, *args: Any) -> list[Any]:
    """The values of a jaxpr, whose loops and branches are rewritten to round as well."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands, params = [read(atom) for atom in equation.invars], equation.params
        if equation.primitive.name in INLINED:
            names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
            inner = next(params[name] for name in names if name in params)
            jaxpr_of, consts_of = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
            results = evaluate(jaxpr_of, consts_of, *operands)
        else:
            if equation.primitive in (lax.dot_general_p, lax.conv_general_dilated_p):
                operands = [lax.reduce_precision(x, 8, 10) for x in operands]
            params = {name: rewritten(value) for name, value in params.items()}
            results = equation.primitive.bind(*operands, **params)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def rewritten(param: Any) -> Any:
    """A parameter of an operation, with every program in it rewritten."""
    if type(param) is tuple:
        return tuple(map(rewritten, param))
    if not isinstance(param, ClosedJaxpr):
        assert not hasattr(param, "eqns"), "a program that nothing rounds in"
        return param
    return jax.make_jaxpr(partial(evaluate, param.jaxpr, param.consts))(*param.in_avals)


def to_tf32(x: Any) -> np.ndarray:
    """Rounded to 10 bits of mantissa, ties to even: the oracle of the rounding."""
    fraction, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.round(fraction * 2**11), exponent - 11)


@jax.custom_jvp
def custom(a: Any, b: Any) -> Any:
    return jnp.dot(a, b, precision="highest")


@jax.custom_vjp
def customised(a: Any, b: Any) -> Any:
    return jnp.dot(a, b, precision="highest")


custom.defjvp(lambda primals, tangents: (custom(*primals), tangents[0]))
customised.defvjp(lambda a, b: (customised(a, b), ()), lambda _, slope: (slope, slope))


@pytest.mark.parametrize(
    "product",
    [
        custom,
        customised,
        lambda a, b: jnp.einsum("ij,jk->ik", a, b, precision="highest"),
        lambda a, b: jax.jit(custom)(a, b),
        lambda a, b: jax.checkpoint(custom)(a, b),
        lambda a, b: lax.map(lambda row: jnp.dot(row, b, precision="highest"), a),
        lambda a, b: lax.scan(lambda _, row: (None, custom(row, b)), None, a)[1],
        lambda a, b: lax.cond(a[0, 0] > 9, lambda: a, lambda: jax.jit(custom)(a, b)),
        lambda a, b: lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, custom(a, b)), (0, a))[
            1
        ],
        lambda a, b: jax.vmap(custom, (0, None))(a, b),
    ],
)
def test_the_rounding_reaches_every_product(product):
    a, b = np.random.default_rng(0).normal(size=(2, 6, 6)).astype(np.float32)
    desired = to_tf32(a) @ to_tf32(b)
    np.testing.assert_allclose(quick(in_tf32(product))(a, b), desired, rtol=0, atol=1e-5)
    assert np.max(np.abs(product(a, b) - desired)) > 2e-4  # as it is, it is not rounded


SIZE, MEMBERS, ROWS = 64, 3, 24
CONSTRUCTORS: dict[str, Callable[[Any, Any], Any]] = {
    "Gaussian": lambda mean, roots: jaxem.Gaussian(mean, packed(roots)),
    "TiedGaussian": lambda mean, roots: jaxem.TiedGaussian(mean, packed(roots[0])),
}


def packed(roots: np.ndarray) -> Any:
    """Lower triangles by rows, the diagonals in logs."""
    rows, columns = np.tril_indices(roots.shape[-1])
    entries = roots[..., rows, columns]
    return np.where(rows == columns, np.log(np.abs(entries)), entries)


def clusters(name: str, width: float) -> tuple[jaxem.Mixture, np.ndarray]:
    """A mixture with means N(0, 1) and clusters `width` wide, and rows of it, in float32."""
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(MEMBERS, SIZE))
    mixing = np.eye(SIZE) + 0.3 / np.sqrt(SIZE) * rng.normal(size=(MEMBERS, SIZE, SIZE))
    roots = width * np.linalg.cholesky(mixing @ mixing.transpose(0, 2, 1))
    members = cast(CONSTRUCTORS[name](mean, roots), np.float32)
    true_mean, true_covariance = densities.moments(members)
    noise = rng.normal(size=(MEMBERS, ROWS, SIZE))
    rows = true_mean[:, None] + noise @ np.linalg.cholesky(true_covariance).transpose(0, 2, 1)
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(MEMBERS)), members)
    return model, rows.reshape(-1, SIZE).astype(np.float32)


def largest_error(log_prob: Any, model: jaxem.Mixture, x: np.ndarray) -> float:
    """Nats between a log-density of the rows and the mixture's in float64."""
    exact = logsumexp(densities.gaussian(model.components, x) - np.log(MEMBERS), 1)
    return float(np.max(np.abs(np.asarray(log_prob, float) - exact)))


def log_prob(model: jaxem.Mixture, x: Any) -> Any:
    """The mixture's log-density in the form that it chooses."""
    return model.log_prob(x)


def feature_form(model: jaxem.Mixture, x: Any) -> Any:
    """The mixture's log-density from the fast form, accurate or not."""
    joint = model.weights.log_probs + optional.form(model.components).log_prob(x)
    return jax.nn.logsumexp(joint, 1)


EXACT, CHOSEN, FEATURES = map(quick, (log_prob, in_tf32(log_prob), in_tf32(feature_form)))


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_tight_clusters_survive_tf32_in_the_form_that_is_chosen(name):
    model, x = clusters(name, width=0.03)
    assert not optional.form(model.components).accurate
    assert largest_error(CHOSEN(model, x), model, x) < 0.1


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_tight_clusters_do_not_survive_tf32_as_products_with_features(name):
    model, x = clusters(name, width=0.03)
    assert largest_error(FEATURES(model, x), model, x) > 5


def test_where_features_are_chosen_only_the_precision_keeps_tf32_away():
    model, x = clusters("Gaussian", width=0.3)
    assert optional.form(model.components).accurate
    assert largest_error(EXACT(model, x), model, x) < 2e-3
    assert largest_error(CHOSEN(model, x), model, x) > 0.03
