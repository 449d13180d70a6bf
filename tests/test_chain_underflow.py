"""Rescaled probabilities where they are right, the log domain where they are not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from chains import QUESTIONS, Parts, quick, random_batch, tolerance

from jaxem.chain import Chain, log_domain, scaled
from jaxem.chain.factors import Factors
from jaxem.chain.potentials import lay_out

pytestmark = pytest.mark.numerics

STEPS, STATES = 300, 3


def logs(probs: Any, dtype: Any) -> np.ndarray:
    """Logarithms of numbers of which float32 could not hold every one."""
    with np.errstate(divide="ignore"):
        return np.log(np.array(probs, float)).astype(dtype)


def lanes(u: float, switch: float, dtype: Any) -> Parts:
    """Two lanes and hardly a switch: one is worst in the middle, the other at both ends.

    Both weigh u^20 altogether, so that each has probability about one half.  A third state is the
    best of all but cannot be entered.
    """
    lane = np.ones((STEPS, 2))
    lane[140:160, 0] = u
    lane[20:30, 1] = lane[270:280, 1] = u
    emission = np.concatenate([np.log(lane), np.full((STEPS, 1), 3.0)], 1).astype(dtype)
    moves = [[1, switch, 0], [switch, 1, 0], [0.5, 0.5, 1]]
    return logs([1, 1, 0], dtype), logs(moves, dtype), emission


def last_survivor(switch: float, dtype: Any) -> Parts:
    """State 0 is the better one by far until it becomes impossible."""
    rng = np.random.default_rng(0)
    emission = rng.standard_normal((STEPS, STATES))
    emission[:200, 0] += 7
    emission[200:, 0] = -np.inf
    moves = np.full((3, 3), switch) + np.eye(3)
    return logs([1, switch, switch], dtype), logs(moves, dtype), emission.astype(dtype)


def there_and_back(switch: float, dtype: Any) -> Parts:
    """State 0 is possible at the ends only and state 1 in the middle only."""
    emission = np.zeros((STEPS, STATES))
    emission[:100, 1] = emission[200:, 1] = emission[100:200, 0] = -np.inf
    moves = np.full((3, 3), switch) + np.eye(3)
    moves[2] = moves[:, 2] = 0
    return logs([1, 1, 0], dtype), logs(moves, dtype), emission.astype(dtype)


def left_to_right(switch: float, dtype: Any) -> Parts:
    """From 0 through 1 to 2 and never back; what is seen favours 0, but 2 must be reached."""
    rng = np.random.default_rng(1)
    emission = rng.standard_normal((STEPS, STATES)) - [0, 5, 10]
    emission[-1, :2] = -np.inf
    moves = np.eye(3) + switch * np.eye(3, k=1)
    return logs([1, 0, 0], dtype), logs(moves, dtype), emission.astype(dtype)


def meeting_half_way(u: float, dtype: Any) -> Parts:
    """The one surviving state is unlikely from the left and from the right, though safe from each.

    In the middle its forward message is u and its backward message is u, while the best state from
    the left has no future and the best one from the right no past.
    """
    emission = np.ones((STEPS, STATES))
    emission[150, 0] = 0
    emission[200, 1] = u
    return logs([1, u, 0], dtype), logs(np.eye(3), dtype), logs(emission, dtype)


def hard_cases(dtype: Any) -> dict[str, Parts]:
    single = dtype == np.float32
    least, u, below = (1e-30, 1e-4, 1e-25) if single else (1e-300, 1e-40, 1e-200)
    return {
        "lanes without a switch": lanes(u, 0, dtype),
        "lanes with a rare switch": lanes(u, least, dtype),
        "last survivor": last_survivor(least, dtype),
        "there and back": there_and_back(least, dtype),
        "left to right": left_to_right(least, dtype),
        "meeting half way": meeting_half_way(below, dtype),
    }


def assert_right(got: Any, parts: Parts, dtype: Any) -> None:
    """Log-normaliser and expected counts are those of float64 logarithms."""
    log_z, states, moves = oracles.forward_backward(*parts)
    eps = np.finfo(dtype).eps
    room = {"rtol": 2000 * eps, "atol": 2000 * eps}  # exponentials of logs of several hundred
    np.testing.assert_allclose(got[0], log_z, rtol=5 * eps)
    np.testing.assert_allclose(got[1].emission, states, **room)
    np.testing.assert_allclose(got[1].initial, states[0], **room)
    np.testing.assert_allclose(got[1].transition, moves, **room)


def branches(parts: Parts) -> dict[str, Any]:
    """Log-normaliser and counts of one chain either way, and whether the scaled one is trusted."""
    p = lay_out(Chain(*parts), None)
    f = Factors.of(p)
    one = jnp.ones((), p.emission.dtype)
    messages = scaled.forward(f)
    answers = {"exact": scaled.is_exact(f)}
    for name, total, (moves, states) in [
        ("scaled", jnp.sum(f.log_normalizer(messages[1])), scaled.counts(f, *messages, one)),
        ("log", jnp.sum(log_domain.forward(p)[1]), log_domain.counts(p, one)),
    ]:
        answers[name] = total, Chain(states[0], moves, states)
    return answers


both = jax.jit(branches)
each = jax.jit(jax.vmap(branches))


def test_chains_that_underflow_have_the_right_answer(dtype: Any) -> None:
    for parts in hard_cases(dtype).values():
        answer = QUESTIONS["posterior"](Chain(*parts), None)
        assert_right(answer, parts, dtype)


def test_chains_that_underflow_are_not_trusted_to_rescaled_probabilities(dtype: Any) -> None:
    spoilt = []
    for name, parts in hard_cases(dtype).items():
        answers = both(parts)
        assert_right(answers["log"], parts, dtype)
        try:
            assert_right(answers["scaled"], parts, dtype)
        except AssertionError:
            spoilt.append(name)
            assert not answers["exact"], name
    assert {"lanes without a switch", "left to right", "meeting half way"} <= set(spoilt)


def test_every_probability_of_a_switch_has_the_right_answer(dtype: Any) -> None:
    smallest = 30 if dtype == np.float32 else 300
    exact = []
    for exponent in np.linspace(1, smallest, 12):
        parts = last_survivor(10**-exponent, dtype)
        assert_right(QUESTIONS["posterior"](Chain(*parts), None), parts, dtype)
        exact.append(bool(both(parts)["exact"]))
    assert exact[0] and not exact[-1]  # both ways were taken


def test_dense_transitions_are_trusted_to_rescaled_probabilities(dtype: Any) -> None:
    """However extreme what is seen: no state is ever far from any other."""
    rng = np.random.default_rng(2)
    moves = np.log(rng.dirichlet(np.ones(STATES), STATES)).astype(dtype)
    for spread in [1, 10, 100, 1000]:
        emission = (spread * rng.standard_normal((STEPS, STATES))).astype(dtype)
        parts = np.zeros(STATES, dtype), moves, emission
        answers = both(parts)
        assert answers["exact"]
        assert_right(answers["scaled"], parts, dtype)
        assert_right(answers["log"], parts, dtype)


@pytest.mark.parametrize(
    ("sharing", "dtype"), [("shared", "float32"), ("per chain", "float64")], indirect=["dtype"]
)
def test_both_ways_agree_on_well_behaved_chains(dtype: Any, sharing: str) -> None:
    batch, _ = random_batch(dtype, sharing, zeros=0.0)
    few = Chain(
        batch.initial if sharing == "shared" else batch.initial[:50],
        batch.transition if sharing == "shared" else batch.transition[:50],
        batch.emission[:50],
    )
    lengths = np.arange(50) % 6
    p = lay_out(few, lengths)
    weight = jnp.linspace(0, 2, 50, dtype=dtype)

    @quick
    def ask(p: Any) -> Any:
        f = Factors.of(p)
        messages = scaled.forward(f)
        log_z = jnp.sum(f.log_normalizer(messages[1]), 0)
        logs = jnp.sum(log_domain.forward(p)[1], 0)
        ways = scaled.counts(f, *messages, weight), log_domain.counts(p, weight)
        return scaled.is_exact(f), (log_z, *ways[0]), (logs, *ways[1])

    exact, one, other = ask(p)
    assert exact
    for got, wanted in zip(one, other, strict=True):
        np.testing.assert_allclose(got, wanted, **tolerance(dtype))


def test_no_chain_is_trusted_to_rescaled_probabilities_wrongly(dtype: Any) -> None:
    """Small chains by the ten thousand, of potentials near where factors and products underflow."""
    batch, steps = 2000, 4
    lowest = np.log(np.finfo(dtype).tiny)
    levels = np.array([0, 0, 0, 0.06, 0.14, 0.23, 0.31, 0.32, 0.33, 0.4, 0.52, 0.69, 0.92, np.inf])
    trusted, spoilt = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        few = rng.choice(levels, 4) if seed % 2 else levels
        with np.errstate(invalid="ignore"):
            initial, transition, emission = (
                (lowest * rng.choice(few, (batch, *shape))).astype(dtype)
                for shape in [(STATES,), (STATES, STATES), (steps, STATES)]
            )
        wide = np.broadcast_to(transition[:, None], (batch, steps - 1, STATES, STATES))
        exact = oracles.enumerate_paths(initial, wide, emission, np.full(batch, steps))
        answers = each((initial, transition, emission))
        room = 1e4 * np.finfo(dtype).eps
        right = {}
        for way in ["scaled", "log"]:
            log_z, counts = answers[way]
            states, moves = counts.emission - exact.emission, counts.transition
            right[way] = (
                np.isclose(log_z, exact.log_normalizer, rtol=room, atol=room)
                & (np.abs(states).max((1, 2)) < room)
                & (np.abs(moves - exact.transition.sum(1)).max((1, 2)) < room)
            )
        assert right["log"].all()
        assert np.all(right["scaled"] | ~answers["exact"])
        trusted.append(np.mean(answers["exact"] & np.isfinite(exact.log_normalizer)))
        spoilt.append(np.mean(~right["scaled"]))
    assert np.mean(trusted) > 0.2  # rescaled probabilities are used,
    assert np.mean(spoilt) > 0.02  # and would not always do
