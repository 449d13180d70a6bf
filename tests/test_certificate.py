"""A right model passes: every kind over every family, at any θ and at the maximum, however it is
constrained; and what a certificate says of itself.

What makes each check fail is in `test_certificate_controls`.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from conftest import enable_x64

import jaxem
from jaxem.comparison import softmax
from jaxem.comparison.certificate import Certificate, Check

FLOORED = replace(laws.NO_PRIOR, floor=2.0)  # above some of the variances that the data ask for
STEPS = 500  # of a fit: enough to come near a maximum, or to say that there is none nearby
NEWTON = {"newton": softmax.METHODS["newton"]}


def with_ascents(monkeypatch: pytest.MonkeyPatch, methods: dict[str, Any]) -> None:
    """They are half of the time that compiling takes: only some tests ask for all three."""
    monkeypatch.setattr(softmax, "METHODS", methods)


@pytest.fixture
def no_ascents(monkeypatch: pytest.MonkeyPatch) -> None:
    with_ascents(monkeypatch, {})


def without_chance(table: Any, *entry: Any) -> Any:
    """The table with some entries structurally 0."""
    return jaxem.Categorical(jnp.asarray(table.logits).at[(..., *entry)].set(-jnp.inf))


def variations(s: laws.Question) -> Iterator[tuple[str, Any, Any, jaxem.Prior]]:
    """Models, data and priors of the same shapes: one compiled program for all of them."""
    gaussian = s.kind.family.endswith("Gaussian")
    priors = {"no prior": laws.NO_PRIOR, "prior": laws.PRIOR}
    for name, prior in priors.items() if not gaussian else [*priors.items(), ("floor", FLOORED)]:
        yield f"random, {name}", s.model, s.data, prior
    best = jaxem.fit(s.model, s.data, prior=laws.PRIOR, tol=0.0, max_steps=STEPS)
    yield "the optimum", best.model, s.data, laws.PRIOR
    if s.kind.is_mixture:
        weight = np.random.default_rng(3).uniform(0, 2, laws.N).astype(s.dtype)
        weight[5] = 0
        yield "weighted", s.model, replace(s.data, sample_weight=weight), laws.PRIOR
        dead = replace(s.model, weights=without_chance(s.model.weights, 1))
        yield "a dead component", dead, s.data, laws.PRIOR
    else:
        barred = replace(s.model, transition=without_chance(s.model.transition, 0, 1))
        yield "a move that cannot be", barred, s.data, laws.PRIOR


def failures(certificate: Certificate) -> list[Check]:
    """Those that failed, for pytest to show."""
    assert any(check.outcome == "passed" for check in certificate)
    return list(certificate.failed)


def assert_certified(name: str, dtype: Any) -> dict[str, Certificate]:
    s, found = laws.question(name, dtype), {}
    for label, model, data, prior in variations(s):
        certificate = found[label] = jaxem.certify(model, data, prior=prior)
        assert failures(certificate) == [], label
        for check in certificate:
            assert check.meaning and (check.value is None) == (check.outcome == "not applicable")
    generalised = name.startswith("stationary")
    at_best = found["the optimum"]["fixed_point.jacobian"]
    assert (at_best.outcome == "passed") == (not generalised), at_best
    if not generalised:
        part = "weights" if s.kind.is_mixture else "transition"
        last = list(found.values())[-1]
        assert last[f"lagrange.{part}.zeros"].outcome == "passed"
    if "floor" in "".join(found):
        floors = [check for check in found["random, floor"] if check.name.endswith(".floor")]
        assert [check.outcome for check in floors] == ["passed"]
    return found


# Every kind of model over every family

QUICK = {
    "Mixture over Categorical": ("float32", NEWTON),
    "Mixture over Poisson": ("float64", softmax.METHODS),
    "Mixture over mixture of Poisson": ("float64", {}),
    "Mixture over Gaussian": ("float64", {}),
}
OTHERS = [
    (name, precision, NEWTON)
    for name in laws.MODELS
    for precision in ("float32", "float64")
    if QUICK.get(name, ("",))[0] != precision
]
ALSO_SLOW = "Mixture over mixture of Poisson"
KINDS = [
    pytest.param(name, *how, marks=[pytest.mark.slow] if name == ALSO_SLOW else [])
    for name, how in QUICK.items()
]
KINDS += [pytest.param(*kind, marks=pytest.mark.slow) for kind in OTHERS]


@pytest.mark.parametrize(("name", "precision", "methods"), KINDS)
def test_every_check_of_a_right_model_passes(name, precision, methods, monkeypatch):
    with_ascents(monkeypatch, methods)
    if precision == "float32":
        assert_certified(name, precision)
        return
    with enable_x64():
        assert_certified(name, precision)


# Constraints


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("Mixture over Poisson", ("weights",)),
        pytest.param("Mixture over Gaussian", ("components.mean",), marks=pytest.mark.slow),
        pytest.param("Mixture over Gaussian", "components.log_cholesky", marks=pytest.mark.slow),
        pytest.param("HMM over Poisson", ("transition", "initial"), marks=pytest.mark.slow),
        pytest.param("HMM over mixture of Poisson", "emission.weights", marks=pytest.mark.slow),
    ],
)
def test_frozen_parts_are_left_alone_and_the_others_certified(name, frozen, x64, no_ascents):
    s = laws.question(name, "float64")
    certificate = jaxem.certify(s.model, s.data, prior=laws.PRIOR, frozen=frozen)
    assert failures(certificate) == []
    for part in (frozen,) if isinstance(frozen, str) else frozen:
        if f"lagrange.{part}" in {check.name for check in certificate}:
            assert certificate[f"lagrange.{part}"].outcome == "not applicable"
            assert "frozen" in certificate[f"natural.{part}"].meaning


def test_where_nothing_is_free_there_is_nothing_to_maximise(no_ascents):
    s = laws.question("Mixture over Poisson", "float32")
    certificate = jaxem.certify(s.model, s.data, frozen=("weights", "components"))
    assert failures(certificate) == []
    for name in ("lagrange.weights", "growth.weights", "second_order.softmax", "natural.weights"):
        assert certificate[name].outcome == "not applicable"


# Numbers at the ends of the dtype


def gaussians(mean: Any, scale: Any = 1.0) -> jaxem.Mixture:
    family = jaxem.DiagonalGaussian.from_moments(np.array(mean), np.square(scale))
    return jaxem.Mixture(jaxem.Categorical.from_probs([0.4, 0.4, 0.2]), family)


ROWS = np.random.default_rng(0).normal(size=(48, 2))
MEANS = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])


def test_units_and_offsets_of_the_data_change_no_verdict(x64, no_ascents):
    for factor, offset in ((1.0, 0.0), (1e-6, 0.0), (np.array([1e6, 1e-6]), 0.0), (1.0, 1e6)):
        model = gaussians(MEANS * factor + offset, np.broadcast_to(factor, 2))
        assert failures(jaxem.certify(model, ROWS * factor + offset)) == []


def test_a_component_too_far_away_to_explain_anything_fails_nothing(x64, no_ascents):
    """Its expected count underflows to 0, and so its new weight is."""
    far = np.array([[0.0, 0.0], [1.0, 1.0], [1e3, 0.0]])
    assert failures(jaxem.certify(gaussians(far), ROWS)) == []


def test_a_component_that_collapses_is_certified_at_the_floor_and_refused_without_one(
    x64, no_ascents
):
    rows = ROWS.copy()
    rows[0] = far = [1e3, 0.0]
    model = gaussians(np.array([[0.0, 0.0], [1.0, 1.0], far]))
    assert failures(jaxem.certify(model, rows)) == []
    with pytest.raises(ValueError, match="components.variance is 0 .* pass a prior with a floor"):
        jaxem.certify(model, rows, prior=jaxem.Prior(floor=0.0))


def test_a_rate_of_0_is_a_value(x64, no_ascents):
    family = jaxem.Poisson.from_rate(np.array([0.0, 2.0, 5.0]))
    model = jaxem.Mixture(jaxem.Categorical.from_probs([0.4, 0.4, 0.2]), family)
    assert failures(jaxem.certify(model, np.tile([0, 0, 0, 2, 1, 5], 8))) == []


# What a certificate says


@pytest.fixture(scope="module")
def poisson() -> tuple[Any, Any]:
    s = laws.question("Mixture over Poisson", "float32")
    return s.model, s.data


def test_a_certificate_is_a_table_with_a_line_for_each_check(poisson, no_ascents):
    certificate = jaxem.certify(*poisson)
    head, blank, *lines = str(certificate).splitlines()
    assert head.startswith("Mixture over Poisson, 48 observations, float32, ℓ = -")
    assert head.endswith(f"{len(certificate.checks) - 4} passed, 0 failed, 4 not applicable")
    assert blank == "" and lines[0].split() == "check value tolerance outcome meaning".split()
    assert [line.split()[0] for line in lines[1:]] == [check.name for check in certificate]
    paired = zip(lines[1:], certificate, strict=True)
    assert len({line.index(check.outcome) for line, check in paired}) == 1
    assert certificate.passed


def test_the_html_of_a_certificate_is_escaped_and_shows_failures():
    failed = Check.of("<a>", np.nan, 1.0, "x < y & z")
    html = Certificate("<b>", (failed,))._repr_html_()
    assert "<a>" not in html and "<b>" not in html
    assert "&lt;a&gt;" in html and "x &lt; y &amp; z" in html and "bold" in html


def test_the_json_of_a_certificate_holds_all_of_it(poisson, no_ascents):
    certificate = jaxem.certify(*poisson)
    record = json.loads(certificate.to_json())
    assert record["subject"] == certificate.subject and record["passed"] is True
    for check, plain in zip(certificate, record["checks"], strict=True):
        assert (plain["name"], plain["outcome"]) == (check.name, check.outcome)
        assert plain["value"] == check.value and plain["tolerance"] == check.tolerance


def test_json_holds_what_is_no_number():
    facts = {"array": np.array([[1.0, np.nan]]), "low": -np.inf, "count": np.int64(3)}
    certificate = Certificate("s", (Check.of("nan", np.nan, np.inf, "never", **facts),))
    assert not certificate.passed
    (record,) = json.loads(certificate.to_json())["checks"]
    assert record["outcome"] == "FAILED" and record["facts"]["count"] == 3
    values = [record["value"], record["tolerance"], record["facts"]["low"]]
    np.testing.assert_array_equal(np.array(values, float), [np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(np.array(record["facts"]["array"], float), [[1, np.nan]])


def test_a_check_that_does_not_exist_names_those_that_do():
    certificate = Certificate("s", (Check.of("fisher", 0, 1, ""), Check.of("ascent.q", 0, 1, "")))
    with pytest.raises(KeyError, match="'fischer'; there are fisher, ascent.q"):
        certificate["fischer"]


def test_a_certificate_without_a_check_that_passed_has_not_passed():
    assert not Certificate("s", ()).passed
    assert not Certificate("s", (Check.not_applicable("fisher", "why"),)).passed


def test_the_key_changes_the_starts_and_not_the_verdict(poisson, no_ascents):
    def certified(seed: int | None) -> Certificate:
        return jaxem.certify(*poisson, key=None if seed is None else jax.random.key(seed))

    first, other = certified(1), certified(2)
    assert [check.outcome for check in first] == [check.outcome for check in other]
    gaps = [np.array(one["decomposition.random"].facts["gaps"]) for one in (first, other)]
    assert np.all(gaps[0] != gaps[1]) and np.all(np.concatenate(gaps) > 0)
    assert first.to_json() == certified(1).to_json()
    assert certified(None).to_json() == certified(None).to_json()


def test_what_is_not_applicable_says_why(poisson, no_ascents):
    certificate = jaxem.certify(*poisson)
    meanings = {c.name: c.meaning for c in certificate if c.outcome == "not applicable"}
    assert meanings.pop("lagrange.weights.zeros") == "no probability is 0"
    assert meanings.pop("prior") == "there are no pretend data"
    assert set(meanings) == {"fixed_point.jacobian", "fixed_point.maximum"}
    for meaning in meanings.values():
        assert meaning.startswith("not at a fixed point: the step is ")


# What cannot be certified


def test_wrong_input_is_one_clear_error(poisson):
    model, data = poisson
    table = jaxem.Categorical.from_probs([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    impossible = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), table)
    nan = replace(model, components=jaxem.Poisson(jnp.array([np.nan, 1.0, 2.0])))
    with pytest.raises(ValueError, match="log-likelihood of -inf; there is nothing to certify"):
        jaxem.certify(impossible, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"Mixture.components.log_rate holds NaN"):
        jaxem.certify(nan, data)
    with pytest.raises(ValueError, match="'rates' names no part of this Mixture"):
        jaxem.certify(model, data, frozen="rates")
    with pytest.raises(ValueError, match="expected|must have shape|must be"):
        jaxem.certify(model, np.zeros((4, 2), int))
    with pytest.raises(ValueError, match="row 1"):
        jaxem.certify(model, np.array([1, -1]))
    with pytest.raises(ValueError, match="must not be negative"):
        jaxem.certify(model, data, prior=jaxem.Prior(events=-1.0))
