"""Something wrong for every check of a certificate, which must notice.

A check that no mistake makes fail says nothing.  Every control names all the checks that fail: what
it leaves out has passed or had nothing to say.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem.comparison import curvature, identities, lagrange, softmax, survey
from jaxem.comparison.objective import quantities
from jaxem.em import cast
from jaxem.pytree import pytree

certify = importlib.import_module("jaxem.comparison.certify")  # the package names the function so

MISTAKES = ("none", "variance", "density", "statistics", "count", "half", "saddle")


def mistake(name: str) -> np.ndarray:
    """A 1 in the place of the mistake that is made."""
    return np.eye(len(MISTAKES))[MISTAKES.index(name)]


@pytree
class Normal:
    """Somebody's own family, numbers from N(mean, exp(log_scale)²), with mistakes to choose from.

    The choice is a frozen leaf, so that right and wrong are the same compiled program.
    """

    mean: Any  # [K]
    log_scale: Any  # [K]
    wrong: Any  # [mistakes]

    @property
    def num_members(self) -> int:
        return self.mean.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return ()

    def is_wrong(self, name: str) -> Any:
        return self.wrong[MISTAKES.index(name)]

    def log_prob(self, x: Any) -> Any:
        z = (x[:, None] - self.mean) * jnp.exp(-self.log_scale)
        return -0.5 * z**2 - self.log_scale - 0.5 * np.log(2 * np.pi)

    def stats(self, x: Any, responsibilities: Any) -> Any:
        away = x[:, None] - self.mean
        # A mistake: squares weighed by r² (what a careless einsum over r does).
        twice = responsibilities ** (1 + self.is_wrong("statistics"))
        return (
            responsibilities.sum(0),
            (responsibilities * away).sum(0),
            (twice * away**2).sum(0),
        )

    def maximize(self, stats: Any, frozen: Any = ()) -> "Normal":
        weight, first, second = stats
        shift = first / weight
        # A mistake: N − 1 where the likelihood asks for N.
        variance = (second - weight * shift**2) / (weight - self.is_wrong("variance"))
        # A mistake that only slows down: half of the way.
        share = 1 - 0.5 * self.is_wrong("half")
        return replace(self, mean=self.mean + share * shift, log_scale=0.5 * jnp.log(variance))

    def sample(self, key: Any, member: Any) -> Any:
        noise = jax.random.normal(key, member.shape, self.mean.dtype)
        return self.mean[member] + jnp.exp(self.log_scale[member]) * noise

    def expected_log_prob(self, stats: Any, candidate: "Normal") -> Any:
        weight, first, second = stats
        move = candidate.mean - self.mean
        squares = second - 2 * move * first + weight * move**2
        # A mistake: log σ forgotten in part.
        log_scale = candidate.log_scale * (1 - 0.1 * self.is_wrong("density"))
        terms = weight * (log_scale + 0.5 * np.log(2 * np.pi))
        # A mistake that the gradient at θ′ does not show: Q is flat there, but curved upwards.
        upwards = self.is_wrong("saddle") * weight * (move - first / weight) ** 2
        return jnp.sum(upwards - terms - 0.5 * squares * jnp.exp(-2 * candidate.log_scale))

    def natural_parameters(self, candidate: "Normal") -> Any:
        precision = jnp.exp(-2 * candidate.log_scale)
        return precision * (candidate.mean - self.mean), -0.5 * precision

    def mean_step(self, stats: Any, candidate: "Normal") -> Any:
        move = candidate.mean - self.mean
        change = jnp.exp(2 * candidate.log_scale) - jnp.exp(2 * self.log_scale)
        # A mistake: one observation too many.
        weight = stats[0] + self.is_wrong("count")
        return weight * move, weight * (change + move**2)


FROZEN = "components.wrong"
SHARES = [0.4, 0.6]
NUMBERS = np.random.default_rng(0).normal(size=40) * 2 + 3 * (np.arange(40) % 2)
QUAKES = jaxem.datasets.earthquakes()
FLAT = np.random.default_rng(1).normal(size=(40, 2)) * [1.0, 0.1]
FLOORED = jaxem.Prior(floor=0.25)


def normals(wrong: str) -> jaxem.Mixture:
    """Two of somebody's own normals, with a mistake."""
    return jaxem.Mixture(
        jaxem.Categorical.from_probs(SHARES),
        Normal(np.array([0.0, 2.0]), np.array([0.5, 0.2]), mistake(wrong)),
    )


def poissons(rates: Any = (15.0, 27.0)) -> jaxem.Mixture:
    """Two Poisson distributions of the library's."""
    return jaxem.Mixture(
        jaxem.Categorical.from_probs(SHARES), jaxem.Poisson.from_rate(np.array(rates))
    )


def diagonals() -> jaxem.Mixture:
    """Two Gaussians that are narrower than the floor lets them be, along one axis."""
    family = jaxem.DiagonalGaussian.from_moments([[-0.3, 0.0], [0.4, 0.1]], 1.0)
    return jaxem.Mixture(jaxem.Categorical.from_probs(SHARES), family)


@pytest.fixture(autouse=True)
def double_precision(x64: None) -> None:
    """Mistakes show sharply."""


@contextmanager
def compiled_anew(*programs: Any) -> Iterator[None]:
    """What was compiled before is not what is called now, nor afterwards."""
    for program in programs:
        program.clear_cache()
    yield
    for program in programs:
        program.clear_cache()


@pytest.fixture
def no_ascents(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are half of the time that compiling takes."""
    monkeypatch.setattr(softmax, "METHODS", {})


def failed(certificate: Any) -> set[str]:
    return {check.name for check in certificate.failed}


# Somebody's own family: right, and wrong in one line each

ASCENTS = {f"softmax.{name}{of}" for name in ("adam", "lbfgs", "newton") for of in ("", ".q")}
IDENTITIES = {"fisher", "decomposition.posterior", "decomposition.random", "ascent.equality"}
OWN = {
    "none": set(),
    "variance": {"lagrange.components", "natural.components"} | ASCENTS,
    "density": {"lagrange.components"} | ASCENTS | IDENTITIES,
    "statistics": {"natural.components"} | IDENTITIES,
    "count": {"natural.components"},
}
AT_THE_FIXED_POINT = {
    "none": set(),
    "half": {"fixed_point.jacobian"},
    "saddle": {"second_order.constrained", "second_order.softmax", "decomposition.random"},
}


def own_certificate(model: Any) -> Any:
    return jaxem.certify(model, NUMBERS, frozen=FROZEN)


@pytest.mark.parametrize("wrong", OWN)
def test_a_family_of_ones_own_passes_unless_it_is_wrong(wrong):
    certificate = own_certificate(normals(wrong))
    assert failed(certificate) == OWN[wrong]
    assert (
        certificate["preconditioned.components"].meaning == "no preconditioner is known for Normal"
    )


def test_a_family_without_natural_parameters_is_told_of_them(monkeypatch, no_ascents):
    for name in ("natural_parameters", "mean_step"):
        monkeypatch.delattr(Normal, name)
    with compiled_anew(survey._survey):
        certificate = own_certificate(normals("none"))
    assert not failed(certificate)
    assert certificate["natural.components"].outcome == "not applicable"
    assert "Exponential" in certificate["natural.components"].meaning


@jax.jit
def many_steps(model: Any, data: Any) -> Any:
    """EM from there to its fixed point."""
    prior = jaxem.Prior(floor=0.0)

    def step(_: Any, here: Any) -> Any:
        return here.m_step(here.e_step(data)[0], prior, (FROZEN,))

    return jax.lax.fori_loop(0, 2000, step, model)


@pytest.mark.parametrize("wrong", AT_THE_FIXED_POINT)
def test_a_mistake_that_shows_at_the_fixed_point_alone_is_found_there(wrong, no_ascents):
    best = many_steps(cast(normals("none"), float), NUMBERS)
    model = replace(best, components=replace(best.components, wrong=mistake(wrong)))
    certificate = own_certificate(model)
    assert failed(certificate) == AT_THE_FIXED_POINT[wrong]


# A library's model, and a wrong M-step


def step_to(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """The M-step leads to `change` of the right step."""
    right = certify.take_step

    def wrong(*args: Any) -> Any:
        step = right(*args)
        proposal = change(step)
        return replace(step, proposal=proposal, quantities=jax.device_get(quantities(proposal)))

    monkeypatch.setattr(certify, "take_step", wrong)


def squared_counts(step: Any) -> Any:
    """Weights in proportion to squares of counts."""
    weights = jaxem.Categorical(2 * jnp.log(step.total.weights))
    return replace(step.proposal, weights=weights)


def one_dropped(step: Any) -> Any:
    """A component without weight, though it explains rows."""
    return replace(step.proposal, weights=jaxem.Categorical(jnp.array([0.0, -jnp.inf])))


def medians(step: Any) -> Any:
    """About the median of each Poisson distribution instead of its mean."""
    rate = step.proposal.components.rate - 1 / 3
    return replace(step.proposal, components=jaxem.Poisson.from_rate(rate))


def too_far(step: Any) -> Any:
    """An over-relaxed step, four times as long."""
    return jax.tree.map(lambda here, there: here + 4 * (there - here), step.model, step.proposal)


WEIGHTS = {f"{form}.weights" for form in ("lagrange", "growth", "natural", "preconditioned")}
COMPONENTS = {f"{form}.components" for form in ("lagrange", "natural", "preconditioned")}
DROPPED = {"lagrange.weights.zeros", "lagrange.weights.multiplier", "ascent.q", "ascent.equality"}
STEPS = {
    squared_counts: WEIGHTS,
    one_dropped: WEIGHTS - {"lagrange.weights"} | DROPPED,
    medians: COMPONENTS,
    too_far: WEIGHTS | COMPONENTS | {"ascent.q"},
}


@pytest.mark.parametrize("change", STEPS)
def test_a_wrong_m_step_is_found_out(change, monkeypatch, no_ascents):
    assert not failed(jaxem.certify(poissons(), QUAKES))
    step_to(monkeypatch, change)
    assert failed(jaxem.certify(poissons(), QUAKES)) == STEPS[change]


def scatter(step: Any) -> Any:
    """Variances before the floor."""
    stats = step.total.components
    weight = stats.weight[:, None]
    return stats.second / weight - (stats.first / weight) ** 2


def with_variance(step: Any, variance: Any) -> Any:
    family = replace(step.proposal.components, log_scale=0.5 * jnp.log(variance))
    return replace(step.proposal, components=family)


def floor_added(step: Any) -> Any:
    """ε added to every variance, instead of raising those below it."""
    return with_variance(step, scatter(step) + step.floor)


def floor_as_ceiling(step: Any) -> Any:
    """No variance above ε, instead of none below."""
    return with_variance(step, jnp.minimum(scatter(step), step.floor))


FLOORS = {
    floor_added: COMPONENTS | {"second_order.constrained"},
    floor_as_ceiling: {"lagrange.components.floor"},
}


@pytest.mark.parametrize("change", FLOORS)
def test_a_wrong_covariance_floor_is_found_out(change, monkeypatch, no_ascents):
    right = jaxem.certify(diagonals(), FLAT, prior=FLOORED)
    assert not failed(right) and right["lagrange.components.floor"].outcome == "passed"
    step_to(monkeypatch, change)
    assert failed(jaxem.certify(diagonals(), FLAT, prior=FLOORED)) == FLOORS[change]


def test_equal_components_of_counts_that_vary_more_than_poissons_are_a_saddle(no_ascents):
    certificate = jaxem.certify(poissons([QUAKES.mean()] * 2), QUAKES)
    assert failed(certificate) == {"fixed_point.maximum"}
    facts = certificate["fixed_point.maximum"].facts
    assert facts["kind"] == "saddle"
    # Where the rates part, the rate is the variance of the data over that of the model.
    np.testing.assert_allclose(facts["rate"], QUAKES.var() / QUAKES.mean(), rtol=1e-10)


# The library itself, wrong


def scaled(function: Any, *factors: float) -> Any:
    """The function with its answers, one or more, multiplied."""

    def wrong(*args: Any) -> Any:
        answers = function(*args)
        if not isinstance(answers, tuple):
            return factors[0] * answers
        return tuple(f * answer for f, answer in zip(factors, answers, strict=True))

    return wrong


LIBRARY = {  # where, what is scaled by what, and what fails
    "multipliers": (lagrange, "theory", (1.01,), {"lagrange.weights.multiplier"}),
    "entropy": (certify, "between", (1.01, 1), {"decomposition.posterior"}),
    "sign": (certify, "between", (1, -1), {"ascent.equality", "ascent.divergence"}),
    "divergence": (identities, "between", (1, 0.9), {"decomposition.random"}),
    "Hessian": (curvature, "_hessian_in_quantities", (-1,), {"second_order.constrained"}),
    "Hessian in logits": (curvature, "_hessian", (-1,), {"second_order.softmax"}),
}


@pytest.mark.parametrize("wrong", LIBRARY)
def test_a_wrong_library_is_found_out(wrong, monkeypatch, no_ascents):
    where, name, factors, expected = LIBRARY[wrong]
    monkeypatch.setattr(where, name, scaled(getattr(where, name), *factors))
    assert failed(jaxem.certify(poissons(), QUAKES)) == expected


def test_a_q_that_holds_logits_in_place_has_no_null_direction(monkeypatch, no_ascents):
    right = curvature.q_of_leaves

    def ridge(*args: Any) -> Any:
        return right(*args) - 1e-3 * jnp.sum(args[-1] ** 2)

    monkeypatch.setattr(curvature, "q_of_leaves", ridge)
    with compiled_anew(curvature._hessian):
        certificate = jaxem.certify(poissons(), QUAKES)
    assert failed(certificate) == {"second_order.null"}


def test_probabilities_that_do_not_sum_to_1_are_not_feasible(monkeypatch, no_ascents):
    right = certify.survey

    def wrong(step: Any) -> Any:
        found = right(step)
        table = replace(found.parts[0], there=(1.01 * found.parts[0].there[0],))
        return replace(found, parts=(table, *found.parts[1:]))

    monkeypatch.setattr(certify, "survey", wrong)
    assert failed(jaxem.certify(poissons(), QUAKES)) == {
        "lagrange.weights",
        "lagrange.weights.feasible",
        "lagrange.weights.multiplier",
        "growth.weights",
        "preconditioned.weights",
    }


@pytest.mark.slow
def test_moves_are_counted_by_exits_and_not_by_visits(monkeypatch, no_ascents):
    first = jaxem.Categorical.from_probs(SHARES)
    moves = jaxem.Categorical.from_probs([[0.8, 0.2], [0.3, 0.7]])
    model = jaxem.HMM(first, moves, poissons().components)
    assert not failed(jaxem.certify(model, QUAKES))
    monkeypatch.setattr(lagrange, "_exits", lambda step: step.counts)
    assert failed(jaxem.certify(model, QUAKES)) == {"lagrange.transition.multiplier"}


def test_what_is_frozen_and_moves_all_the_same_is_noticed(no_ascents):
    model = normals("none")  # whose M-step knows nothing of frozen leaves
    certificate = jaxem.certify(model, NUMBERS, frozen=(FROZEN, "components.mean"))
    assert "held" in failed(certificate) and certificate["held"].value == 2


def test_a_log_prior_that_forgets_its_pretend_data_is_noticed(monkeypatch, no_ascents):
    prior = jaxem.Prior(weights=2.0)
    assert jaxem.certify(poissons(), QUAKES, prior=prior)["prior"].outcome == "passed"
    monkeypatch.setattr(jaxem.Mixture, "log_prior", lambda model, prior: 0.0)
    with compiled_anew(survey._survey):
        certificate = jaxem.certify(poissons(), QUAKES, prior=prior)
    assert "prior" in failed(certificate)


def test_a_weight_near_0_that_grows_is_no_fixed_point(no_ascents):
    """It has no curvature to speak of, and yet the likelihood rises with it."""
    family = jaxem.Poisson.from_rate(np.array([QUAKES.mean(), 30.0]))
    model = jaxem.Mixture(jaxem.Categorical.from_probs([1.0, 1e-30]), family)
    check = jaxem.certify(model, QUAKES)["fixed_point.maximum"]
    assert check.outcome == "not applicable" and "weights.probs[1]" in check.meaning
    with pytest.raises(ValueError, match="grows by a factor"):
        jaxem.information(model, QUAKES)


ALONE = {"second_order.null", "lagrange.weights.feasible", "fixed_point.maximum", "prior", "held"}


def test_every_check_has_a_control(no_ascents):
    tables = (OWN, AT_THE_FIXED_POINT, STEPS, FLOORS, {name: LIBRARY[name][-1] for name in LIBRARY})
    controlled = ALONE.union(*(names for table in tables for names in table.values()))
    own, floored = own_certificate(normals("none")), jaxem.certify(diagonals(), FLAT, prior=FLOORED)
    for check in (*own, *floored, *jaxem.certify(poissons(), QUAKES)):
        assert check.name in controlled
