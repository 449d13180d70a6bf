"""Entropies and divergences of posteriors, counts of members and pretend data, by enumeration."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import densities
import jax
import laws
import numpy as np
import oracles
import pytest

import jaxem
from jaxem.em import cast, prepare
from jaxem.hmm import HMMStats

K, M, N = 2, 2, 40
LENGTHS = np.array([5, 3, 1, 0])
OFFSET = 100.0  # of the rows: prepared data are centred


def random_mixture(rng: np.random.Generator, family: Any) -> Any:
    return jaxem.Mixture(jaxem.Categorical(rng.normal(size=K)), family)


def random_hmm(rng: np.random.Generator, family: Any) -> Any:
    tables = (jaxem.Categorical(rng.normal(size=shape)) for shape in (K, (K, K)))
    return jaxem.HMM(*tables, family)


def rates(rng: np.random.Generator, members: int) -> Any:
    return jaxem.Poisson(rng.uniform(0, 1.5, members))


def gaussians(rng: np.random.Generator, members: int) -> Any:
    mean = OFFSET + rng.normal(size=(members, 2))
    return jaxem.Gaussian(mean, rng.normal(0, 0.3, (members, 3)))


def inside(inner: Any) -> Callable[[np.random.Generator, int], Any]:
    def family(rng: np.random.Generator, members: int) -> Any:
        weights = jaxem.Categorical(rng.normal(size=(members, M)))
        return jaxem.MixtureFamily(weights, inner(rng, members * M))

    return family


KINDS = {
    "mixture of rates": (random_mixture, rates),
    "mixture of mixtures": (random_mixture, inside(gaussians)),
    "HMM of mixtures": (random_hmm, inside(rates)),
}


@dataclass(frozen=True)
class Answer:
    """What a model and another say of the same data."""

    entropy: Any  # of the posterior
    divergence: Any  # from the posterior of the other
    none: Any  # the same from its own
    log_likelihoods: Any  # of both
    q: Any  # of both, from the statistics of the first
    counts: Any  # of the members


@jax.jit
def _ask(model: Any, other: Any, data: Any) -> tuple:
    stats, log_likelihood = model.e_step(data)
    return (
        model.posterior_entropy(data),
        model.posterior_divergence(data, other),
        model.posterior_divergence(data, model),
        (log_likelihood, other.e_step(data)[1]),
        [model.expected_log_prob(stats, candidate) for candidate in (model, other)],
        model.member_counts(stats),
    )


def ask(model: Any, other: Any, data: Any) -> Answer:
    """Compiled, of prepared data."""
    return Answer(*_ask(model, other, prepare(model, model.validate(data))))


def log_densities(family: Any, x: np.ndarray) -> np.ndarray:
    """[N, K], or [N, K·M] of the joint with what is latent inside the members."""
    if isinstance(family, jaxem.MixtureFamily):
        each = log_densities(family.components, x)
        return each + densities.log_probs(family.weights).ravel()
    kind = {jaxem.Poisson: "poisson", jaxem.Gaussian: "gaussian", jaxem.Categorical: "categorical"}
    return getattr(densities, kind[type(family)])(family, x)


def log_joint(model: Any, data: Any) -> np.ndarray:
    """Of every row, or sequence, with every state of what is latent; [N, configurations]."""
    if isinstance(model, jaxem.Mixture):
        each = log_densities(model.components, data.values)
        log_weights = densities.log_probs(model.weights)
        return np.repeat(log_weights, each.shape[1] // len(log_weights)) + each
    batch, steps = data.values.shape[:2]
    rows = data.values.reshape(batch * steps, *data.values.shape[2:])
    emission = log_densities(model.emission, rows).reshape(batch, steps, -1)
    copies = emission.shape[-1] // model.num_states  # a state and what is latent inside it

    def copied(log_probs: np.ndarray) -> np.ndarray:
        for axis in range(log_probs.ndim):
            log_probs = np.repeat(log_probs, copies, axis)
        return log_probs

    initial = copied(densities.log_probs(model.initial))
    moves = copied(densities.log_probs(model.transition))
    return oracles.enumerate_paths(
        np.broadcast_to(initial, (batch, *initial.shape)),
        np.broadcast_to(moves, (batch, steps - 1, *moves.shape)),
        emission,
        data.lengths,
    ).log_weights


@dataclass(frozen=True)
class Oracle:
    """Sums over rows or sequences by definition; what is impossible counts nothing."""

    log_likelihood: float
    entropy: float
    divergence: float
    counts: np.ndarray  # of the members


def enumerate_latent(model: Any, other: Any, data: Any) -> Oracle:
    joints = log_joint(model, data), log_joint(other, data)
    evidence = [oracles.logsumexp(joint, 1) for joint in joints]
    possible = evidence[0] > -np.inf
    log_q, log_p = (
        joint[possible] - total[possible, None]
        for joint, total in zip(joints, evidence, strict=True)
    )
    q = np.exp(log_q)
    taken = q > 0
    weight = getattr(data, "sample_weight", None)
    weight = np.ones(len(possible)) if weight is None else weight
    entropy, divergence = (
        np.where(taken, q * np.where(taken, terms, 0), 0).sum(1)
        for terms in (-log_q, np.where(taken, log_q, 0) - np.where(taken, log_p, 0))
    )
    counted = weight[possible] > 0
    weights = weight[possible][counted]
    return Oracle(
        float(np.sum(weight * evidence[0])) if possible.all() else -np.inf,
        float(np.sum(weights * entropy[counted])),
        float(np.sum(weights * divergence[counted])),
        member_counts(model, data, weight[possible, None] * q, possible),
    )


def member_counts(model: Any, data: Any, q: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """How often each member occurs in the configurations, of posterior probabilities q."""
    if isinstance(model, jaxem.Mixture):
        return q.reshape(len(q), K, -1).sum((0, 2))
    states = round(q.shape[1] ** (1 / data.values.shape[1]))
    steps = np.arange(data.values.shape[1])
    path = np.arange(q.shape[1])[:, None] // states**steps % states
    inside = steps < data.lengths[possible, None]
    member = path // (states // K)
    return np.array([np.sum(q @ (member == k) * inside) for k in range(K)])


def question(name: str, dtype: np.dtype) -> tuple[Any, Any, Any]:
    """A model, another, and data: weighted rows or ragged sequences."""
    build, family = KINDS[name]
    rng = np.random.default_rng(3)
    model, other = (cast(build(rng, family(rng, K)), dtype) for _ in range(2))
    shape = (N,) if build is random_mixture else (len(LENGTHS), max(LENGTHS))
    counts = "rates" in name or build is random_hmm
    x = rng.poisson(2.0, shape) if counts else OFFSET + rng.normal(0, 1.5, (*shape, 2))
    x = x if counts else x.astype(dtype)
    if build is random_mixture:
        weight = rng.uniform(0, 2, N) * (rng.random(N) < 0.8)
        return model, other, jaxem.Samples(x, weight.astype(dtype))
    return model, other, jaxem.Sequences(x, LENGTHS)


@pytest.mark.parametrize("name", KINDS)
def test_entropy_and_divergence_are_those_of_enumeration(name: str, dtype: np.dtype) -> None:
    model, other, data = question(name, dtype)
    found, exact = ask(model, other, data), enumerate_latent(model, other, data)
    assert found.entropy.dtype == found.divergence.dtype == dtype
    rtol = 2e-4 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(found.log_likelihoods[0], exact.log_likelihood, rtol=rtol)
    np.testing.assert_allclose(found.entropy, exact.entropy, rtol=rtol)
    np.testing.assert_allclose(found.divergence, exact.divergence, rtol=rtol)
    np.testing.assert_allclose(found.counts, exact.counts, rtol=rtol)
    assert exact.entropy > 1 and exact.divergence > 1
    assert found.none == 0


@pytest.mark.parametrize("name", KINDS)
def test_what_q_lacks_of_the_log_likelihood_is_entropy_and_of_its_change_divergence(
    name: str, x64: None
) -> None:
    model, other, data = question(name, np.dtype(np.float64))
    found = ask(model, other, data)
    here, there = found.log_likelihoods
    scale = 1e-12 * (abs(here) + abs(there) + abs(found.q[1]))
    assert abs(here - found.q[0] - found.entropy) <= scale
    assert abs((there - here) - (found.q[1] - found.q[0]) - found.divergence) <= scale
    # A divergence of order δ² keeps its digits where the difference of the other terms has none.
    near = [
        jax.tree.map(lambda a, b, size=size: a + size * (b - a), model, other)
        for size in (1e-3, 1e-7)
    ]
    small = [float(ask(model, beside, data).divergence) for beside in near]
    assert all(value > 0 for value in small)
    np.testing.assert_allclose(small[1] / small[0], 1e-8, rtol=2e-2)


def symbols(model: str) -> tuple[Any, Any]:
    """A model under which symbol 2 is impossible, and data that hold it once."""
    never = jaxem.Categorical.from_probs(np.array([[0.7, 0.3, 0.0], [0.1, 0.9, 0.0]]))
    if model == "mixture":
        weights = jaxem.Categorical.from_probs(np.array([0.4, 0.6]))
        return jaxem.Mixture(weights, never), jaxem.Samples(np.array([0, 1, 2, 1, 0, 0]))
    tables = (np.array([0.4, 0.6]), np.array([[0.9, 0.1], [0.3, 0.7]]))
    hmm = jaxem.HMM(*map(jaxem.Categorical.from_probs, tables), never)
    return hmm, jaxem.Sequences(np.array([[0, 1, 0], [1, 2, 0], [1, 1, 0]]), np.array([3, 3, 2]))


@pytest.mark.parametrize("kind", ["mixture", "HMM"])
def test_impossible_data_count_nothing_and_lost_support_costs_everything(
    kind: str, x64: None
) -> None:
    model, data = symbols(kind)
    part = "weights" if kind == "mixture" else "initial"
    other = replace(model, **{part: jaxem.Categorical(np.array([1.0, 0.0]))})
    lost = replace(model, **{part: jaxem.Categorical(np.array([0.0, -np.inf]))})
    found, exact = ask(model, other, data), enumerate_latent(model, other, data)
    assert found.log_likelihoods[0] == -np.inf and exact.entropy > 0.5
    np.testing.assert_allclose(found.entropy, exact.entropy, rtol=1e-11)
    np.testing.assert_allclose(found.divergence, exact.divergence, rtol=1e-11)
    assert found.none == 0
    assert ask(model, lost, data).divergence == np.inf
    # The other way round there is nothing that the other cannot do.
    back, exact = ask(lost, model, data), enumerate_latent(lost, model, data)
    assert 0 < exact.divergence < np.inf
    np.testing.assert_allclose(back.divergence, exact.divergence, rtol=1e-11)
    np.testing.assert_allclose(back.entropy, exact.entropy, rtol=1e-11, atol=1e-14)


def test_a_row_of_weight_nothing_costs_nothing_even_where_support_is_lost(x64: None) -> None:
    model, data = symbols("mixture")
    lost = jaxem.Categorical.from_probs(np.array([[0.0, 1.0, 0.0], [0.1, 0.9, 0.0]]))
    data = replace(data, sample_weight=np.array([0.0, 1, 0, 1, 0, 0]))
    other = replace(model, components=lost)
    found, exact = ask(model, other, data), enumerate_latent(model, other, data)
    assert 0 < exact.divergence < np.inf
    np.testing.assert_allclose(found.divergence, exact.divergence, rtol=1e-12)
    data = replace(data, sample_weight=np.array([1.0, 1, 0, 1, 0, 0]))
    assert ask(model, other, data).divergence == np.inf


def test_states_are_counted_as_first_ones_and_as_the_ends_of_moves_whatever_the_step() -> None:
    rng = np.random.default_rng(0)
    first, moves = rng.random(3), rng.random((4, 3, 3))
    model = random_hmm(rng, rates(rng, 3))
    for transition in (moves, moves.sum(0)):
        counts = model.member_counts(HMMStats(first, transition, None))
        np.testing.assert_allclose(counts, first + moves.sum((0, 1)), rtol=1e-6)


@pytest.mark.parametrize("name", ["Mixture over mixture of Gaussian", "HMM over Poisson"])
def test_an_m_step_maximises_over_the_statistics_and_those_of_the_pretend_data(
    name: str, x64: None
) -> None:
    asked = laws.question(name, np.dtype(np.float64))
    model, prior = asked.model, cast(laws.PRIOR, np.dtype(np.float64))
    stats = laws.E_STEP(model, asked.data)[0]
    total = model.with_pretend(stats, prior)
    with_prior = laws.M_STEP(model, stats, prior)
    plain = laws.M_STEP(model, total, cast(laws.NO_PRIOR, np.dtype(np.float64)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), with_prior, plain)
    # Q of the whole is Q of the data and the log-prior, at any parameters.
    for candidate in (model, with_prior):
        q = laws.Q(model, stats, candidate) + laws.LOG_PRIOR(candidate, prior)
        np.testing.assert_allclose(laws.Q(model, total, candidate), q, rtol=1e-11)
    best = laws.Q(model, total, with_prior)
    assert best > laws.Q(model, total, laws.M_STEP(model, stats, laws.NO_PRIOR)) + 0.1


def test_a_stationary_start_takes_no_pretend_first_states(x64: None) -> None:
    rng = np.random.default_rng(0)
    model = random_hmm(rng, rates(rng, K))
    prior = jaxem.Prior(initial=0.5, transition=2.0)
    emission = jax.tree.map(np.zeros_like, model.emission.pretend(prior))
    stats = HMMStats(np.ones(K), np.ones((K, K)), emission)
    for initial, expected in ((model.initial, 1.5), (jaxem.Stationary(), 1.0)):
        total = replace(model, initial=initial).with_pretend(stats, prior)
        np.testing.assert_array_equal(total.initial, [expected] * K)
        np.testing.assert_array_equal(total.transition, np.full((K, K), 3.0))
