"""Every family obeys every law, every law notices a family that does not; and what is special."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import densities
import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest

import jaxem
from jaxem import parameters
from jaxem.em import cast
from jaxem.families import optional
from jaxem.pytree import pytree


def by_name(thing: Any) -> str:
    return getattr(thing, "__name__", str(thing))


@pytest.mark.parametrize("law", laws.FAMILY_LAWS, ids=by_name)
@pytest.mark.parametrize("name", laws.FAMILIES)
def test_family_obeys(law, name, dtype):
    law(laws.members(name, dtype))


@pytest.mark.parametrize("law", laws.FAMILY_LAWS_WHATEVER_THE_DTYPE, ids=by_name)
@pytest.mark.parametrize("name", laws.FAMILIES)
def test_family_obeys_whatever_the_dtype(law, name):
    law(laws.members(name, np.float32))


FREEZABLE = [
    (name, frozen)
    for name, kind in laws.FAMILIES.items()
    for leaves in [
        [n for n, _ in parameters.named_leaves(kind.members(np.random.default_rng(0), 3))]
    ]
    for size in range(1, len(leaves))
    for frozen in combinations(leaves, size)
]


@pytest.mark.parametrize(("name", "frozen"), FREEZABLE)
def test_what_is_not_frozen_gets_the_constrained_maximiser(name, frozen, x64):
    laws.law_stationary(replace(laws.members(name, np.float64), frozen=frozen))


# Families that break a law, each in one place


@pytree
class SampleCovariance(jaxem.Gaussian):
    """Divides the scatter by N − 1."""

    def maximize(self, stats, frozen=()):
        best = super().maximize(stats, frozen)
        weight = stats.covariance_weight
        covariance = best.covariance * (weight / (weight - 1))[:, None, None]
        return replace(self, mean=best.mean, log_cholesky=_packed(covariance))


@pytree
class Ridge(jaxem.Gaussian):
    """Adds to the covariance what is the M-step of no objective."""

    def maximize(self, stats, frozen=()):
        best = super().maximize(stats, frozen)
        covariance = best.covariance + 0.05 * jnp.eye(self.mean.shape[1])
        return replace(self, mean=best.mean, log_cholesky=_packed(covariance))


@pytree
class FreezesAfterwards(jaxem.Gaussian):
    """Puts the old leaf back after a free M-step."""

    def maximize(self, stats, frozen=()):
        return replace(super().maximize(stats), **{name: getattr(self, name) for name in frozen})


@pytree
class IgnoresFrozen(jaxem.Gaussian):
    """Changes what it should keep."""

    def maximize(self, stats, frozen=()):
        return super().maximize(stats)


@pytree
class ResetsTheDead(jaxem.Gaussian):
    """A member without rows starts anew from the origin."""

    def maximize(self, stats, frozen=()):
        best = super().maximize(stats, frozen)
        dead = (stats.weight == 0)[:, None]
        return replace(best, mean=jnp.where(dead, 0, best.mean))


@pytree
class NeverMoves(jaxem.Gaussian):
    """An M-step that keeps everything."""

    def maximize(self, stats, frozen=()):
        return self


@pytree
class Averages(jaxem.Gaussian):
    """Statistics that are means over rows and do not add."""

    def stats(self, x, responsibilities):
        return jax.tree.map(lambda leaf: leaf / len(x), super().stats(x, responsibilities))


@pytree
class Smooths(jaxem.Gaussian):
    """Gives every row some responsibility."""

    def stats(self, x, responsibilities):
        return super().stats(x, responsibilities + 1e-3)


@pytree
class Clips(jaxem.Gaussian):
    """Counts no row more than once."""

    def stats(self, x, responsibilities):
        return super().stats(x, jnp.minimum(responsibilities, 1))


@pytree
class NoConstant(jaxem.Gaussian):
    """Forgets −½ D log 2π."""

    def log_prob(self, x):
        return super().log_prob(x) + self.mean.shape[1] * 0.5 * np.log(2 * np.pi)


@pytree
class NoBaseMeasure(jaxem.Poisson):
    """Forgets log x! in Q."""

    def expected_log_prob(self, stats, candidate):
        return super().expected_log_prob(stats, candidate) + stats.log_base


@pytree
class PriorAboutItself(jaxem.Gaussian):
    """Pretend rows that lie at its own mean, wherever the prior says."""

    def pretend(self, prior):
        return super().pretend(replace(prior, mean=self.mean))


@pytree
class CountsAlpha(jaxem.Poisson):
    """Takes one pretend event too many."""

    def pretend(self, prior):
        return super().pretend(replace(prior, events=prior.events + 1))


@pytree
class HastyForm(jaxem.Gaussian):
    """A fast form that forgets to move its moments to the means."""

    def form(self):
        form = super().form()
        return replace(form, family=replace(form.family, mean=jnp.zeros_like(self.mean)))


@pytree
class AlwaysSure(jaxem.Gaussian):
    """Calls its fast form inaccurate."""

    def form(self):
        return replace(super().form(), accurate=jnp.asarray(False))


@pytree
class SameDraw(jaxem.Gaussian):
    """Samples that do not depend on the key."""

    def sample(self, key, member):
        return super().sample(jax.random.key(0), member)


@pytree
class WideDraw(jaxem.Gaussian):
    """Samples scaled by the covariance, not by its factor."""

    def sample(self, key, member):
        rows = super().sample(key, member) - self.mean[member]
        return self.mean[member] + 1.2 * rows


@pytree
class PooledAtZero(jaxem.Gaussian):
    """A pooled start at the origin."""

    @classmethod
    def pooled(cls, x, num_members):
        pooled = super().pooled(x, num_members)
        return replace(pooled, mean=jnp.zeros_like(pooled.mean))


@pytree
class CountsTwice(jaxem.TiedGaussian):
    """Counts the shared covariance once a member."""

    @property
    def num_parameters(self):
        return self.mean.size + self.num_members * self.log_cholesky.size


def _packed(covariance: Any) -> Any:
    return jaxem.families.covariance.pack(jnp.linalg.cholesky(covariance))


CONTROLS = [
    (laws.law_stationary, SampleCovariance, ()),
    (laws.law_maximum, SampleCovariance, ()),
    (laws.law_stationary, Ridge, ()),
    (laws.law_maximum, Ridge, ()),
    (laws.law_stationary, FreezesAfterwards, ("mean",)),
    (laws.law_stationary, IgnoresFrozen, ("mean",)),
    (laws.law_dead_member, ResetsTheDead, ()),
    (laws.law_no_rows, ResetsTheDead, ()),
    (laws.law_dead_member, NeverMoves, ()),
    (laws.law_additive, Averages, ()),
    (laws.law_weightless, Smooths, ()),
    (laws.law_repetition, Clips, ()),
    (laws.law_density, NoConstant, ()),
    (laws.law_normalised, NoConstant, ()),
    (laws.law_expected_log_prob, NoBaseMeasure, ()),
    (laws.law_prior, PriorAboutItself, ()),
    (laws.law_prior, CountsAlpha, ()),
    (laws.law_pretend_maximum, SampleCovariance, ()),
    (laws.law_form, HastyForm, ()),
    (laws.law_form, AlwaysSure, ()),
    (laws.law_sample, SameDraw, ()),
    (laws.law_sample_then_maximize, WideDraw, ()),
    (laws.law_pooled, PooledAtZero, ()),
    (laws.law_num_parameters, CountsTwice, ()),
]


def as_broken(family: Any, cls: type) -> Any:
    return cls(**dict(parameters.named_leaves(family)))


@pytest.mark.parametrize(("law", "cls", "frozen"), CONTROLS, ids=by_name)
def test_law_notices(law, cls, frozen):
    about = laws.members(cls.__mro__[1].__name__, np.float32)
    family, *others = (as_broken(one, cls) for one in (about.family, *about.others))
    with pytest.raises(AssertionError):
        law(replace(about, family=family, others=others, frozen=frozen))


def test_every_law_of_a_family_has_a_control():
    laws_asked = {*laws.FAMILY_LAWS, *laws.FAMILY_LAWS_WHATEVER_THE_DTYPE}
    assert laws_asked == {law for law, _, _ in CONTROLS}


# Fast forms


def random_gaussian(name: str, members: int, size: int, dtype: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    mean, packed = rng.normal(size=(members, size)), size * (size + 1) // 2
    build = {
        "Gaussian": lambda: jaxem.Gaussian(mean, rng.normal(0, 0.2, (members, packed))),
        "TiedGaussian": lambda: jaxem.TiedGaussian(mean, rng.normal(0, 0.2, packed)),
        "DiagonalGaussian": lambda: jaxem.DiagonalGaussian(mean, rng.normal(0, 0.2, mean.shape)),
        "SphericalGaussian": lambda: jaxem.SphericalGaussian(mean, rng.normal(0, 0.2, members)),
    }
    return cast(build[name](), dtype)


@pytest.mark.parametrize("size", [9])
@pytest.mark.parametrize("name", laws.GAUSSIANS)
def test_fast_form_is_right_in_any_dimension(name, size, x64):
    family = random_gaussian(name, 3, size, np.float64)
    rng = np.random.default_rng(1)
    x, r = rng.normal(size=(40, size)), rng.dirichlet(np.ones(3), 40)
    accurate, log_prob, stats = laws.FORM(family, x, r)
    assert accurate
    desired = densities.gaussian(family, x)
    laws.assert_close(log_prob, desired, ulps=500, dtype=np.float64)
    laws.assert_close(laws.LOG_PROB(family, x), desired, ulps=500, dtype=np.float64)
    laws.assert_close(stats, laws.STATS(family, x, r), ulps=500, dtype=np.float64)


# Σ (μ/σ)² up to which the fast form is used: it costs that many units of rounding.
LARGEST_LOSS = {"float32": 2.0**12, "float64": float(np.finfo(float).eps) ** (-1 / 3)}


@pytest.mark.parametrize("side", [0.9, 1.1])
@pytest.mark.parametrize("name", laws.GAUSSIANS)
def test_fast_form_is_used_up_to_the_loss_that_is_allowed(name, side, dtype):
    """At the threshold both forms agree to the digits that are left; beyond it one is not used."""
    eps, largest = float(np.finfo(dtype).eps), LARGEST_LOSS[dtype.name]
    family = random_gaussian(name, 3, 2, dtype)
    mean, covariance = densities.moments(family)
    precision = np.diagonal(np.linalg.inv(covariance), axis1=1, axis2=2)
    loss = np.max(np.sum(mean**2 * precision, 1))
    family = replace(family, mean=family.mean * (side * largest / loss) ** 0.5)
    x = np.asarray(family.mean)[np.arange(laws.N) % 3] + np.random.default_rng(2).normal(
        size=(laws.N, 2)
    )
    x, r = x.astype(dtype), np.eye(3, dtype=dtype)[np.arange(laws.N) % 3]
    accurate, log_prob, stats = laws.FORM(family, x, r)
    assert bool(accurate) == (side < 1)
    exact = densities.gaussian(family, x)
    own = np.arange(laws.N), np.arange(laws.N) % 3  # each row under the member it lies near
    plain = np.asarray(laws.LOG_PROB(family, x))
    np.testing.assert_allclose(log_prob[own], exact[own], rtol=0, atol=8 * eps * largest)
    np.testing.assert_allclose(plain[own], exact[own], rtol=0, atol=64 * eps)
    total = laws.STATS(family, x, r)
    laws.assert_close(stats, total, ulps=16 * largest, dtype=dtype)


@pytest.mark.parametrize("side", [0.9, 1.1])
def test_an_e_step_takes_the_better_form_on_either_side_of_the_threshold(side):
    """Two tight clusters far apart: float32 keeps the digits of both."""
    scale = (side * LARGEST_LOSS["float32"]) ** -0.5
    mean = np.array([[-1.0, 0.0], [1.0, 0.0]])
    rng = np.random.default_rng(3)
    x = mean[np.arange(200) % 2] + scale * rng.normal(size=(200, 2))
    x = (x - x.mean(0)).astype(np.float32)
    start = jaxem.SphericalGaussian(mean, np.log([scale, scale]))
    model = cast(jaxem.Mixture(jaxem.Categorical(np.zeros(2)), start), np.float32)
    stats, log_likelihood = laws.E_STEP(model, x)
    log_weights = densities.log_probs(model.weights)
    each = densities.gaussian(model.components, x)
    exact = densities.mixture_log_likelihoods(log_weights, each).sum()
    np.testing.assert_allclose(log_likelihood, exact, rtol=1e-5)
    best = laws.MAXIMIZE(model.components, stats.components)
    for k in range(2):
        own = x[k::2].astype(float)
        variance = np.mean((own - own.mean(0)) ** 2)
        np.testing.assert_allclose(best.variance[k], variance, rtol=3e-3)


# float32 far from the origin


@pytest.mark.parametrize("name", laws.GAUSSIANS)
def test_float32_statistics_about_the_mean_keep_their_digits_far_from_the_origin(name):
    rng = np.random.default_rng(4)
    x = (1e4 + rng.normal(size=(400, 2))).astype(np.float32)
    family = random_gaussian(name, 1, 2, np.float32)
    family = replace(family, mean=jnp.asarray(x[:1]))
    best = laws.MAXIMIZE(family, laws.STATS(family, x, np.ones((400, 1), np.float32)))
    exact = np.cov(x.astype(float).T, bias=True)
    if name == "DiagonalGaussian":
        exact = np.diag(np.diag(exact))
    if name == "SphericalGaussian":
        exact = np.eye(2) * np.trace(exact) / 2
    np.testing.assert_allclose(np.reshape(best.covariance, (2, 2)), exact, rtol=0, atol=1e-4)


# The covariance floor


@pytest.mark.parametrize("name", laws.GAUSSIANS)
def test_floor_raises_small_eigenvalues_and_keeps_the_directions(name):
    dtype = np.float32
    rng = np.random.default_rng(6)
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    x = (rng.normal(size=(100, 2)) * [3.0, 0.1] @ turn).astype(dtype)
    r = rng.dirichlet(np.ones(3), 100).astype(dtype)
    family = random_gaussian(name, 3, 2, dtype)
    floor = 0.5
    stats = laws.STATS(family, x, r)
    free = laws.MAXIMIZE(family, stats)
    held = laws.MAXIMIZE(family, replace(stats, floor=jnp.asarray(floor, dtype)))
    np.testing.assert_array_equal(held.mean, free.mean)
    free_covariance = np.reshape(np.asarray(free.covariance, float), (-1, 2, 2))
    values, vectors = np.linalg.eigh(free_covariance)
    assert np.any(values < floor) or name in ("DiagonalGaussian", "SphericalGaussian")
    values = np.maximum(values, floor)
    desired = np.einsum("kij,kj,klj->kil", vectors, values, vectors)
    actual = np.reshape(np.asarray(held.covariance, float), (-1, 2, 2))
    laws.assert_close(actual, desired, ulps=100, dtype=dtype)


@pytest.mark.parametrize("name", laws.GAUSSIANS)
def test_floor_that_binds_is_the_constrained_maximiser(name, x64):
    """Among all covariances Σ ⪰ floor·I none has a higher Q."""
    about = laws.members(name, np.float64)
    floor = 2.0
    best = laws.MAXIMIZE(about.family, replace(about.stats, floor=jnp.asarray(floor)))
    top = laws.Q(about.family, about.stats, best)
    leaf = "log_scale" if hasattr(best, "log_scale") else "log_cholesky"
    rng = np.random.default_rng(8)
    tried = 0
    for size in np.repeat([1e-3, 1e-2, 0.1], 20):
        step = size * rng.normal(size=getattr(best, leaf).shape)
        step = step if tried % 2 else np.abs(step)
        near = replace(best, **{leaf: getattr(best, leaf) + step})
        covariance = np.reshape(near.covariance, (-1, 2, 2))
        if np.linalg.eigvalsh(covariance).min() >= floor:
            tried += 1
            assert laws.Q(about.family, about.stats, near) <= top + 1e-9
    assert tried > 0


def test_rows_in_a_plane_have_a_covariance_at_the_floor(dtype):
    x = np.stack([np.arange(10.0), 2 * np.arange(10.0)], 1).astype(dtype)
    family = random_gaussian("Gaussian", 1, 2, dtype)
    stats = laws.STATS(family, x, np.ones((10, 1), dtype))
    held = laws.MAXIMIZE(family, replace(stats, floor=jnp.asarray(0.01, dtype)))
    values = np.linalg.eigvalsh(np.asarray(held.covariance[0], float))
    np.testing.assert_allclose(values[0], 0.01, rtol=1e-2)
    np.testing.assert_allclose(values[1], 5 * np.var(np.arange(10)), rtol=1e-4)


# The boundary: zeros


def zeros_in(name: str) -> tuple[Any, np.ndarray]:
    """A family with parameters on the boundary, and rows possible under some member."""
    inf = np.inf
    return {
        "Categorical": (
            jaxem.Categorical(np.array([[0.0, -inf, 1.0], [-inf, 0.0, -inf]])),
            np.array([0, 1, 2, 2]),
        ),
        "Bernoulli": (jaxem.Bernoulli(np.array([-inf, inf])), np.array([0, 1, 1, 0])),
        "Poisson": (jaxem.Poisson(np.array([-inf, 0.5])), np.array([0, 3, 0, 1])),
    }[name]


@pytest.mark.parametrize("name", ["Categorical", "Bernoulli", "Poisson"])
def test_zero_probabilities_are_values_with_finite_slopes(name):
    dtype = np.float32
    family, x = zeros_in(name)
    family = cast(family, dtype)
    model = jaxem.Mixture(jaxem.Categorical(np.zeros(2, dtype)), family)
    log_prob = np.asarray(laws.LOG_PROB(family, x))
    assert np.any(np.isneginf(log_prob)) and not np.any(np.isnan(log_prob))
    with np.errstate(divide="ignore"):
        exact = getattr(densities, name.lower())
        np.testing.assert_allclose(log_prob, exact(family, x), rtol=1e-5, atol=1e-6)
    assert np.isfinite(laws.E_STEP(model, x)[1])
    slope = laws.SLOPE(model, x)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
    q_slope = laws.Q_SLOPE(model, laws.E_STEP(model, x)[0], model)
    laws.assert_close(slope, q_slope, ulps=100, dtype=dtype)


@pytest.mark.parametrize("name", ["Categorical", "Bernoulli", "Poisson"])
def test_zeros_take_no_pretend_data_and_stay(name):
    family, x = zeros_in(name)
    family = cast(family, np.float32)
    model = jaxem.Mixture(jaxem.Categorical(np.zeros(2, np.float32)), family)
    stats, _ = laws.E_STEP(model, x)
    after = laws.M_STEP(model, stats, laws.PRIOR).components
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(family), strict=True):
        np.testing.assert_array_equal(np.isinf(new), np.isinf(old))
        np.testing.assert_array_equal(new[np.isinf(new)], old[np.isinf(old)])
    assert np.isfinite(laws.LOG_PRIOR(model, laws.PRIOR))


def test_pretend_counts_are_worth_as_many_real_ones(dtype):
    family = cast(jaxem.Categorical(np.zeros((1, 3))), dtype)
    x = np.array([0, 0, 1, 2, 2, 2])
    real = laws.STATS(family, x, np.ones((6, 1), dtype))
    pretend = family.pretend(jaxem.Prior(symbols=np.array([[2.0, 1.0, 3.0]])))
    np.testing.assert_array_equal(real, pretend)


def test_symbol_counts_are_the_same_by_product_and_by_scatter(monkeypatch, dtype):
    family = cast(jaxem.Categorical(np.zeros((3, 5))), dtype)
    rng = np.random.default_rng(9)
    x, r = rng.integers(0, 5, 50), rng.dirichlet(np.ones(3), 50).astype(dtype)
    scattered = family.stats(x, r)
    monkeypatch.setattr("jaxem.families.categorical.is_cpu", lambda: False)
    laws.assert_close(family.stats(x, r), scattered, ulps=100, dtype=dtype)


# Front doors


def test_families_are_made_from_natural_parameters():
    dtype, rng = np.float32, np.random.default_rng(10)
    mean, root = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 3))
    covariance = np.einsum("kij,klj->kil", root, root) + np.eye(3)
    close = {"rtol": 100 * np.finfo(dtype).eps, "atol": 100 * np.finfo(dtype).eps}
    mean, covariance = mean.astype(dtype), covariance.astype(dtype)
    full = jaxem.Gaussian.from_moments(mean, covariance)
    np.testing.assert_allclose(full.covariance, covariance, **close)
    one = jaxem.Gaussian.from_moments(mean, covariance[0])
    np.testing.assert_allclose(one.covariance, covariance[[0, 0]], **close)
    tied = jaxem.TiedGaussian.from_moments(mean, covariance[0])
    np.testing.assert_allclose(tied.covariance, covariance[0], **close)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    diagonal = jaxem.DiagonalGaussian.from_moments(mean, variance)
    np.testing.assert_allclose(diagonal.variance, variance, **close)
    np.testing.assert_allclose(
        np.diagonal(diagonal.covariance, axis1=1, axis2=2), variance, **close
    )
    spherical = jaxem.SphericalGaussian.from_moments(mean, variance[:, 0])
    np.testing.assert_allclose(spherical.variance, variance[:, 0], **close)
    np.testing.assert_allclose(spherical.covariance[1], variance[1, 0] * np.eye(3), **close)
    probs = np.array([[0.2, 0.8], [1.0, 0.0]], dtype)
    np.testing.assert_allclose(jaxem.Categorical.from_probs(probs).probs, probs, **close)
    np.testing.assert_allclose(jaxem.Bernoulli.from_probs(probs).probs, probs, **close)
    np.testing.assert_allclose(jaxem.Poisson.from_rate(probs).rate, probs, **close)
    for family in (full, one, tied, diagonal, spherical):
        family.check()
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(family))


EYE = np.eye(2)
BAD_PARAMETERS = [
    (lambda: jaxem.Categorical.from_probs([0.5, 0.6]), "sum to 1"),
    (lambda: jaxem.Categorical.from_probs([1.5, -0.5]), ">= 0"),
    (lambda: jaxem.Categorical.from_probs([np.nan, 1.0]), ">= 0"),
    (lambda: jaxem.Categorical.from_probs(1.0), "array"),
    (lambda: jaxem.Bernoulli.from_probs([1.5]), r"\[0, 1\]"),
    (lambda: jaxem.Poisson.from_rate([-1.0]), "negative"),
    (lambda: jaxem.Poisson.from_rate([np.nan]), "negative"),
    (lambda: jaxem.Gaussian.from_moments(np.zeros(2), EYE), r"\[K, D\]"),
    (lambda: jaxem.Gaussian.from_moments(np.zeros((1, 2)), np.eye(3)), r"\[1, 2, 2\]"),
    (lambda: jaxem.Gaussian.from_moments(np.zeros((1, 2)), np.ones(2)), r"\[\.\.\., D, D\]"),
    (lambda: jaxem.Gaussian.from_moments(np.zeros((1, 2)), -EYE), "positive definite"),
    (lambda: jaxem.Gaussian.from_moments(np.zeros((1, 2)), [[1, 0.5], [0, 1]]), "symmetric"),
    (lambda: jaxem.Gaussian.from_moments(np.zeros((1, 2)), EYE * np.nan), "finite"),
    (lambda: jaxem.TiedGaussian.from_moments(np.zeros((3, 2)), [EYE] * 3), "covariance must"),
    (lambda: jaxem.DiagonalGaussian.from_moments(np.zeros((3, 2)), np.ones((2, 3))), "variance"),
    (lambda: jaxem.DiagonalGaussian.from_moments(np.zeros((1, 2)), [[1.0, 0.0]]), "positive"),
    (lambda: jaxem.SphericalGaussian.from_moments(np.zeros((1, 2)), [-1.0]), "positive"),
    (lambda: jaxem.Categorical(np.float32(1.0)).check(), "axis"),
    (lambda: jaxem.Bernoulli(np.zeros((1, 2, 3))).check(), r"\[K, D\]"),
    (lambda: jaxem.Poisson(np.zeros((1, 2, 3))).check(), r"\[K, D\]"),
    (lambda: jaxem.Gaussian(np.zeros((1, 2)), np.zeros((1, 2))).check(), "log_cholesky"),
    (lambda: jaxem.TiedGaussian(np.zeros((1, 2)), np.zeros((1, 3))).check(), "log_cholesky"),
    (lambda: jaxem.DiagonalGaussian(np.zeros((1, 2)), np.zeros(2)).check(), "log_scale"),
    (lambda: jaxem.SphericalGaussian(np.zeros((1, 2)), np.zeros(2)).check(), "log_scale"),
    (
        lambda: jaxem.MixtureFamily(
            jaxem.Categorical(np.zeros((2, 2))), jaxem.Poisson(np.zeros(3))
        ).check(),
        "need 4 components, got 3",
    ),
    (
        lambda: jaxem.MixtureFamily(
            jaxem.Categorical(np.zeros(2)), jaxem.Poisson(np.zeros(2))
        ).check(),
        r"\[K, M\]",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD_PARAMETERS)
def test_parameters_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


BAD_ROWS = [
    ("Categorical", [0, 1, 4, 0], "symbol out of range: 4 at row 2 .*0 to 3"),
    ("Categorical", [0, -1, 0], "symbol out of range: -1 at row 1"),
    ("Categorical", [0.0, 1.5], "not a symbol: 1.5 at row 1"),
    ("Categorical", [0.0, np.nan], "not a symbol: nan at row 1"),
    ("Categorical", [[0, 1]], r"\[N\]"),
    ("Categorical", ["a"], "integers"),
    ("Bernoulli", [0, 1, 2], "0 or 1: 2 at row 2"),
    ("rows of Bernoulli", [[0, 1], [1, 3]], "0 or 1: 3 at row 1, column 1"),
    ("Poisson", [3, -1], "whole numbers >= 0: -1 at row 1"),
    ("Poisson", [3.5], "whole numbers >= 0: 3.5 at row 0"),
    ("rows of Poisson", [[1.0, np.nan]], "finite: nan at row 0, column 1"),
    ("rows of Poisson", [1, 2, 3], r"\[N, 2\]"),
    ("Gaussian", [[0.0, 1.0], [np.inf, 0.0]], "finite: inf at row 1, column 0"),
    ("DiagonalGaussian", [[0.0, np.nan]], "finite: nan at row 0, column 1"),
    ("TiedGaussian", [[0.0, 1.0, 2.0]], r"\[N, 2\].*got \[1, 3\]"),
    ("SphericalGaussian", [0.0, 1.0], r"\[N, 2\]"),
    ("Gaussian", [[1j, 2.0]], "real numbers"),
    ("Gaussian", [["a", "b"]], "real numbers"),
    ("mixture of Gaussian", [[0.0, np.nan]], "finite: nan at row 0, column 1"),
]


@pytest.mark.parametrize(("name", "x", "message"), BAD_ROWS)
def test_rows_that_cannot_be_are_refused_by_row_and_column(name, x, message):
    family = laws.members(name, np.float32).family
    for rows in (np.asarray(x), x):
        with pytest.raises(ValueError, match=message):
            family.validate(rows)


def test_one_feature_may_come_as_a_vector():
    family = random_gaussian("Gaussian", 2, 1, np.float32)
    assert family.validate(np.arange(3.0)).shape == (3, 1)
    assert family.validate(jnp.arange(3)).shape == (3, 1)


def test_a_family_without_the_optional_methods_is_served(x64):
    """The six required ones are enough for a mixture: no prior, no fast form, no location."""

    @pytree
    class Exponential:
        log_rate: Any

        num_members = property(lambda self: self.log_rate.shape[0])
        event_shape = ()

        def log_prob(self, x):
            return self.log_rate - x[:, None] * jnp.exp(self.log_rate)

        def stats(self, x, responsibilities):
            return jnp.sum(responsibilities, 0), x @ responsibilities

        def maximize(self, stats, frozen=()):
            return Exponential(jnp.log(stats[0]) - jnp.log(stats[1]))

    x = np.random.default_rng(0).exponential([1.0, 20.0], (300, 2)).ravel()
    model = jaxem.Mixture(jaxem.Categorical(np.zeros(2)), Exponential(np.array([-0.5, -2.0])))
    result = jaxem.fit(model, x, prior=jaxem.Prior(weights=1.0))
    assert result.converged
    np.testing.assert_allclose(np.exp(result.model.components.log_rate), [1, 0.05], rtol=0.2)
    with pytest.raises(ValueError, match="finite: nan at row 2"):
        jaxem.fit(model, np.array([1.0, 2.0, np.nan]))
    assert optional.is_located(model.components) is False
