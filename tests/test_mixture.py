"""Mixtures obey the laws over every family; and what only mixtures do."""

from dataclasses import replace
from typing import Any

import densities
import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest

import jaxem
from jaxem import data as data_module
from jaxem.em import cast
from jaxem.pytree import pytree

GAUSSIAN_AND_COUNTS = ["Mixture over Gaussian", "Mixture over Poisson"]


def by_name(thing: Any) -> str:
    return getattr(thing, "__name__", str(thing))


# A family is a mixture's business as far as its six methods go: the others' tests are slow ones.
SOME = ["Gaussian", "SphericalGaussian", "Categorical", "rows of Poisson", "mixture of Gaussian"]
MIXTURES = [
    pytest.param(name, marks=[] if kind.family in SOME else pytest.mark.slow)
    for name, kind in laws.MIXTURES.items()
]


@pytest.mark.parametrize("law", laws.MODEL_LAWS, ids=by_name)
@pytest.mark.parametrize("name", MIXTURES)
def test_mixture_obeys(law, name, x64):
    law(laws.question(name, np.float64))


# Rounding is the family's affair: in float32 a mixture of each kind is enough.
@pytest.mark.parametrize("law", laws.MODEL_LAWS, ids=by_name)
@pytest.mark.parametrize("name", ["Mixture over Gaussian"])
def test_mixture_obeys_in_float32(law, name):
    law(laws.question(name, np.float32))


# A mixture with a location, one without, and a nested one: slopes take long to compile.
@pytest.mark.parametrize(
    "name", [*GAUSSIAN_AND_COUNTS, "Mixture over Categorical", "Mixture over mixture of Gaussian"]
)
def test_mixture_obeys_fisher(name, x64):
    laws.law_fisher(laws.question(name, np.float64))


@pytest.mark.parametrize("law", [laws.law_m_step, laws.law_monotone, laws.law_consistent])
@pytest.mark.parametrize("name", MIXTURES)
def test_mixture_with_a_prior_obeys(law, name, x64):
    law(replace(laws.question(name, np.float64), prior=laws.PRIOR))


FREEZABLE = [
    ("Mixture over Gaussian", ("weights",)),
    ("Mixture over Gaussian", ("components.mean",)),
    ("Mixture over Gaussian", ("components.log_cholesky", "weights")),
    ("Mixture over TiedGaussian", ("components.log_cholesky",)),
    ("Mixture over Poisson", ("components",)),
    ("Mixture over Poisson", ("weights.logits",)),
    ("Mixture over mixture of Gaussian", ("components.weights",)),
    ("Mixture over mixture of Gaussian", ("components.components.mean",)),
]


FITTED = [("components.mean",), ("weights",)]


@pytest.mark.parametrize(("name", "frozen"), FREEZABLE, ids=str)
def test_mixture_with_frozen_parts_obeys(name, frozen, x64):
    about = laws.question(name, np.float64)
    frozen = jaxem.parameters.check_frozen(about.model, frozen)
    laws.law_m_step(replace(about, frozen=frozen))
    if frozen in FITTED:
        laws.law_monotone(replace(about, frozen=frozen))


@pytest.mark.parametrize("name", ["Mixture over Categorical"])
def test_fit_to_samples_gains_what_as_many_parameters_should(name, x64):
    laws.law_sample_then_fit(laws.question(name, np.float64))


# Mixtures that break a law, each in one place


@pytree
class NoWeights(jaxem.Mixture):
    """ℓ with equal weights, whatever they are."""

    def e_step(self, data, about=None):
        even = jaxem.Categorical(jnp.zeros_like(self.weights.logits))
        return jaxem.Mixture(even, self.components).e_step(data, about)


@pytree
class MeanStatistics(jaxem.Mixture):
    """Statistics a row."""

    def e_step(self, data, about=None):
        stats, log_likelihood = super().e_step(data, about)
        return jax.tree.map(lambda leaf: leaf / jnp.sum(stats.weights), stats), log_likelihood


@pytree
class MeanLogLikelihood(jaxem.Mixture):
    """ℓ a row."""

    def e_step(self, data, about=None):
        stats, log_likelihood = super().e_step(data, about)
        return stats, log_likelihood / self.prepare(data).num_rows

    def log_likelihood(self, data):
        return self.e_step(data)[1]


@pytree
class FloorsTheWeights(jaxem.Mixture):
    """Adds a little to every count, which no prior asked for."""

    def m_step(self, stats, prior, frozen=()):
        return super().m_step(replace(stats, weights=stats.weights + 0.5), prior, frozen)


@pytree
class StepsTooFar(jaxem.Mixture):
    """Doubles every step of the means: not a maximiser."""

    def m_step(self, stats, prior, frozen=()):
        best = super().m_step(stats, prior, frozen)
        mean = self.components.mean + 2.3 * (best.components.mean - self.components.mean)
        return replace(best, components=replace(best.components, mean=mean))


@pytree
class StaleLogLikelihood(jaxem.Mixture):
    """Says one thing in the fit and another outside."""

    def e_step(self, data, about=None):
        stats, log_likelihood = super().e_step(data, about)
        return stats, log_likelihood - (0.0 if about is None else 0.01)


@pytree
class CountsEveryLogit(jaxem.Mixture):
    """Counts K weights."""

    @property
    def num_parameters(self):
        return super().num_parameters + 1


@pytree
class SamplesWidely(jaxem.Mixture):
    """Samples that are a tenth too wide."""

    def sample(self, key, num_rows):
        values, component = super().sample(key, num_rows)
        return 1.1 * values, component


CONTROLS = [
    (laws.law_log_likelihood, NoWeights),
    (laws.law_additive_data, MeanStatistics),
    (laws.law_fisher, MeanLogLikelihood),
    (laws.law_m_step, FloorsTheWeights),
    (laws.law_monotone, StepsTooFar),
    (laws.law_consistent, StaleLogLikelihood),
    (laws.law_model_num_parameters, CountsEveryLogit),
    (laws.law_sample_then_fit, SamplesWidely),
]


def as_broken(question: laws.Question, cls: type) -> laws.Question:
    model, *others = (
        cls(one.weights, one.components) for one in (question.model, *question.others)
    )
    return replace(question, model=model, others=others)


@pytest.mark.parametrize(("law", "cls"), CONTROLS, ids=by_name)
def test_law_notices(law, cls, x64):
    about = as_broken(laws.question("Mixture over SphericalGaussian", np.float64), cls)
    with pytest.raises(AssertionError):
        law(about)


def test_every_law_of_a_model_has_a_control():
    assert {*laws.MODEL_LAWS, laws.law_fisher, laws.law_sample_then_fit} == {
        law for law, _ in CONTROLS
    }


# What callers see


@pytest.mark.parametrize("name", GAUSSIAN_AND_COUNTS)
def test_rows_are_scored_and_assigned_by_the_formula(name):
    dtype = np.float32
    about = laws.question(name, dtype)
    model, x = about.model, about.data.values
    log_density = laws.FAMILIES[about.kind.family].log_density
    log_joint = densities.log_probs(model.weights) + log_density(model.components, x)
    log_prob = np.logaddexp.reduce(log_joint, 1)
    responsibilities = np.exp(log_joint - log_prob[:, None])
    laws.assert_close(model.log_prob(x), log_prob, ulps=200, dtype=dtype)
    laws.assert_close(model.responsibilities(x), responsibilities, ulps=200, dtype=dtype)
    np.testing.assert_array_equal(model.predict(x), log_joint.argmax(1))
    laws.assert_close(model.log_likelihood(x), log_prob.sum(), ulps=200, dtype=dtype)
    assert model.log_prob(x).dtype == dtype


def test_weights_are_repetitions():
    about = laws.question("Mixture over Gaussian", np.float32)
    twice = 2 * (np.arange(laws.N) % 2)
    values = about.data.values
    weighted = laws.E_STEP(about.model, jaxem.Samples(values, twice.astype(np.float32)))
    index = np.repeat(np.arange(laws.N), twice)
    ones = np.ones(laws.N, np.float32)
    repeated = laws.E_STEP(about.model, jaxem.Samples(values[index], ones))
    laws.assert_close(weighted, repeated, ulps=200, dtype=np.float32, scale=laws.N)


@pytest.mark.parametrize("name", ["Mixture over Gaussian", "Mixture over rows of Poisson"])
def test_what_a_row_of_weight_zero_holds_does_not_matter(name, dtype):
    about = laws.question(name, dtype)
    weight = (np.arange(laws.N) % 2).astype(dtype)
    values = about.data.values.astype(dtype)
    garbage = np.where(weight[:, None] == 0, np.array(np.nan, dtype), values)
    clean = jaxem.Samples(values, weight), jaxem.Samples(garbage, weight)
    wanted, found = (laws.E_STEP(about.model, data) for data in clean)
    laws.assert_close(found, wanted, ulps=10, dtype=dtype)


@pytest.mark.parametrize("name", GAUSSIAN_AND_COUNTS)
def test_a_dead_component_keeps_its_parameters_and_gets_weight_zero(name, x64):
    about = laws.question(name, np.float64)
    logits = about.model.weights.logits.at[1].set(-np.inf)
    model = replace(about.model, weights=jaxem.Categorical(logits))
    after = laws.M_STEP(model, laws.E_STEP(model, about.data)[0], laws.NO_PRIOR)
    assert after.weights.probs[1] == 0
    for new, old in zip(
        jax.tree.leaves(after.components), jax.tree.leaves(model.components), strict=True
    ):
        np.testing.assert_array_equal(new[1], old[1])
    result = laws.run_fit(about, model)
    assert result.model.weights.probs[1] == 0
    assert int(result.num_parameters) == about.model.num_parameters - 1
    with_prior = laws.M_STEP(model, laws.E_STEP(model, about.data)[0], laws.PRIOR)
    assert with_prior.weights.probs[1] == 0  # a structural zero takes no pretend counts


def test_an_impossible_row_has_no_responsibilities_and_no_slope():
    table = np.log(np.array([[0.5, 0.5, 1e-300], [0.25, 0.75, 1e-300]]))
    table[:, 2] = -np.inf
    model = cast(
        jaxem.Mixture(jaxem.Categorical(np.zeros(2)), jaxem.Categorical(table)), np.float32
    )
    x = np.array([0, 1, 2, 0])
    assert model.log_likelihood(x) == -np.inf
    np.testing.assert_array_equal(np.isneginf(model.log_prob(x)), [False, False, True, False])
    np.testing.assert_array_equal(model.responsibilities(x)[2], 0)
    slope = laws.SLOPE(model, np.array([2, 2, 2, 2]))
    for leaf in jax.tree.leaves(slope):
        np.testing.assert_array_equal(leaf, 0)


def test_chunks_do_not_matter(monkeypatch):
    dtype = np.float32
    about = laws.question("Mixture over Gaussian", dtype)
    x = np.random.default_rng(0).normal(size=(1001, 2)).astype(dtype)
    whole = about.model.prepare(x)
    monkeypatch.setattr(data_module, "CHUNK_ELEMENTS", 1)
    several = about.model.prepare(x)
    assert whole.values.shape[0] == 1 and several.values.shape[0] > 3
    assert several.values.shape[0] * several.values.shape[-1] > 1001  # the last one is padded
    one, many = (laws.E_STEP(about.model, prepared) for prepared in (whole, several))
    laws.assert_close(many, one, ulps=500, dtype=dtype, scale=1001)
    found = np.asarray(about.model.responsibilities(x))  # compiled anew: in several chunks
    monkeypatch.undo()
    assert found.shape == (1001, laws.K)
    wanted = np.exp(
        densities.log_probs(about.model.weights) + densities.gaussian(about.model.components, x)
    )
    wanted /= wanted.sum(1, keepdims=True)
    laws.assert_close(found, wanted, ulps=500, dtype=dtype)


def test_an_e_step_holds_no_more_than_a_chunk():
    """No array of N·K entries: memory beyond the data does not grow with the number of rows."""
    rows, members, size = 200_000, 8, 4
    mean = np.random.default_rng(0).normal(size=(members, size)).astype(np.float32)
    family = jaxem.DiagonalGaussian(mean, np.zeros_like(mean))
    model = cast(jaxem.Mixture(jaxem.Categorical(np.zeros(members)), family), np.float32)
    shapes = jax.ShapeDtypeStruct((rows, size), np.float32)
    prepared = jax.eval_shape(model.prepare, shapes)
    assert prepared.values.size < rows * members
    program = jax.make_jaxpr(lambda data: model.e_step(data))(prepared)
    assert largest(program.jaxpr) < rows * members
    assert largest(jax.make_jaxpr(lambda x: model.components.log_prob(x))(shapes).jaxpr) >= (
        rows * members
    )  # the ruler sees such an array where there is one


def largest(program: Any) -> int:
    """Most entries of any value in a program and in the programs inside it."""
    size = 0
    for equation in program.eqns:
        for variable in equation.outvars:
            size = max(size, int(np.prod(getattr(variable.aval, "shape", ()))))
        for inner in jax.tree.leaves(equation.params, is_leaf=is_program):
            if is_program(inner):
                size = max(size, largest(getattr(inner, "jaxpr", inner)))
    return size


def is_program(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize(
    "name",
    [
        "Gaussian",
        "TiedGaussian",
        pytest.param("DiagonalGaussian", marks=pytest.mark.slow),
        pytest.param("SphericalGaussian", marks=pytest.mark.slow),
    ],
)
def test_float32_covariance_is_right_far_from_the_origin(name):
    """Offset 1e4, unit spread: after one step from afar, and at the optimum."""
    rng = np.random.default_rng(11)
    component = np.arange(400) % 2
    x = 1e4 + rng.normal(size=(400, 2)) + np.array([[-4.0, 0.0], [4.0, 0.0]])[component]
    x = x.astype(np.float32)
    exact = x.astype(float)

    def step(model):
        return jaxem.fit(model, x, max_steps=1).model

    # From so far away the nearest component takes everything.
    far = gaussian_mixture(name, np.array([[0.0, 0.0], [10.0, 10.0]]), np.float32)
    after = step(far)
    np.testing.assert_array_equal(after.weights.probs, [0, 1])
    np.testing.assert_allclose(after.components.mean, [[0, 0], exact.mean(0)], rtol=1e-6)
    wanted = structured(name, np.cov(exact.T, bias=True)[None])[0]
    np.testing.assert_allclose(covariances(after)[-1], wanted, rtol=0, atol=1e-3)

    mean = np.array([[9_996.0, 1e4], [10_004.0, 1e4]])
    model = gaussian_mixture(name, mean, np.float32)
    for _ in range(12):
        model = step(model)
    assert_fixed_point(name, model, exact)


def gaussian_mixture(name: str, mean: np.ndarray, dtype: Any) -> jaxem.Mixture:
    """Two components at these means, unit covariances."""
    kind = getattr(jaxem, name)
    unit = {"Gaussian": np.eye(2), "TiedGaussian": np.eye(2)}.get(name, 1.0)
    family = kind.from_moments(mean, unit)
    return cast(jaxem.Mixture(jaxem.Categorical(np.zeros(2)), family), dtype)


def covariances(model: jaxem.Mixture) -> np.ndarray:
    return np.asarray(model.components.covariance, float).reshape(-1, 2, 2)


def structured(name: str, scatter: np.ndarray) -> np.ndarray:
    """What a covariance structure makes of the components' covariances [K, D, D]."""
    if name == "TiedGaussian":
        return scatter.mean(0, keepdims=True)
    if name == "DiagonalGaussian":
        return scatter * np.eye(2)
    if name == "SphericalGaussian":
        return np.trace(scatter, axis1=1, axis2=2)[:, None, None] / 2 * np.eye(2)
    return scatter


def assert_fixed_point(name: str, model: jaxem.Mixture, exact: np.ndarray) -> None:
    """A float64 EM step from the fitted model changes no covariance by 1e-3."""
    mean, covariance = densities.moments(model.components)
    weights = np.asarray(model.weights.probs, float)
    _, _, after = densities.gaussian_em_step(weights, mean, covariance, exact)
    np.testing.assert_allclose(covariances(model), structured(name, after), rtol=0, atol=1e-3)


def test_float32_shapes_of_results():
    about = laws.question("Mixture over Gaussian", np.float32)
    x = about.data.values
    assert about.model.log_likelihood(x).shape == ()
    assert about.model.log_prob(x).shape == (laws.N,)
    assert about.model.responsibilities(x).shape == (laws.N, laws.K)
    assert about.model.predict(x).shape == (laws.N,)
    values, component = about.model.sample(jax.random.key(0), 7)
    assert values.shape == (7, 2) and component.shape == (7,)


X = np.zeros((4, 2), np.float32)
BAD_DATA = [
    (np.array([[0, 1], [2, np.nan]]), "finite: nan at row 1, column 1"),
    (np.array([[0, -np.inf]]), "finite: -inf at row 0, column 1"),
    (np.zeros((4, 3)), r"\[N, 2\].*got \[4, 3\]"),
    (np.zeros(4), r"\[N, 2\].*got \[4\]"),
    (np.zeros((0, 2)), "no row"),
    (jaxem.Samples(X, np.ones(3)), r"sample_weight must be \[4\], got \[3\]"),
    (jaxem.Samples(X, np.array([1.0, -1, 1, 1])), "negative: -1.0 at row 1"),
    (jaxem.Samples(X, np.array([1.0, 1, np.nan, 1])), "negative: nan at row 2"),
    (jaxem.Samples(X, np.zeros(4)), "0 everywhere"),
    (X + 1j, "real numbers"),
    ("rows", "real numbers"),
    (None, "real numbers"),
]


@pytest.mark.parametrize(("x", "message"), BAD_DATA)
def test_bad_data_are_refused_at_every_front_door(x, message):
    model = laws.question("Mixture over Gaussian", np.float32).model
    for door in (
        model.log_likelihood,
        model.log_prob,
        model.responsibilities,
        model.predict,
        lambda x: jaxem.fit(model, x),
    ):
        with pytest.raises(ValueError, match=message):
            door(x)


def test_infinite_weight_is_refused():
    model = laws.question("Mixture over Gaussian", np.float32).model
    with pytest.raises(ValueError, match="row 0"):
        model.log_likelihood(jaxem.Samples(X, np.array([np.inf, 1, 1, 1])))


def test_parts_that_do_not_fit_each_other_are_refused():
    family = laws.members("Gaussian", np.float32).family
    model = jaxem.Mixture(jaxem.Categorical(np.zeros(4)), family)
    with pytest.raises(ValueError, match=r"weights must be \[3\].*got \[4\]"):
        model.check()
    with pytest.raises(ValueError, match=r"weights must be \[3\].*got \[4\]"):
        jaxem.fit(model, X)
