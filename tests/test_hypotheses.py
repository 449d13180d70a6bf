"""The beam of prefixes, against Python's tuples."""

from os.path import commonprefix
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxem.hypotheses import Prefixes

WIDTH, ROOM = 6, 12


@jax.jit
def step(prefixes: Prefixes, source: Any, token: Any, alive: Any) -> Prefixes:
    return prefixes.select(source, token, alive)


@jax.jit
def told(prefixes: Prefixes) -> Any:
    return prefixes.labels, prefixes.last, prefixes.parent, prefixes.common, prefixes.full


@pytest.mark.parametrize("window", [None, 3])
def test_a_beam_knows_its_prefixes_what_they_share_and_their_parents(
    window: int | None,
) -> None:
    """Few labels and few sources: prefixes meet again, and are made anew after they were lost."""
    rng = np.random.default_rng(0)
    settle = jax.jit(Prefixes.settle)
    shared = parents = 0
    for _ in range(10):
        prefixes, expected = Prefixes.start(WIDTH, ROOM, window), [()] + [None] * (WIDTH - 1)
        for steps in range(1, ROOM + 1):
            source, token = rng.integers(0, WIDTH, WIDTH), rng.integers(-1, 2, WIDTH)
            alive = rng.random(WIDTH) < 0.9
            source[0] = next(i for i, one in enumerate(expected) if one is not None)
            alive[0] = True
            prefixes = step(prefixes, source, token, alive)
            if window and steps % window == 0:
                prefixes = settle(prefixes)
            expected = [
                None if expected[s] is None or not a else expected[s] + (int(k),) * int(k >= 0)
                for s, k, a in zip(source, token, alive, strict=True)
            ]
            labels, last, parent, common, full = map(np.asarray, told(prefixes))
            for i, one in enumerate(expected):
                row = () if one is None else one
                assert prefixes.lengths[i] == (-1 if one is None else len(one))
                assert labels[i].tolist() == [*row, *[-1] * (ROOM - len(row))]
                assert last[i] == (row[-1] if row else -1)
                assert full[i] == (len(row) == ROOM)
                shorter = [j for j, other in enumerate(expected) if row and other == row[:-1]]
                assert parent[i] == (shorter[-1] if shorter else -1)
                alike = [len(commonprefix([row, other or ()])) for other in expected]
                assert common[i].tolist() == alike
                shared, parents = shared + sum(alike), parents + bool(shorter)
    assert shared > 100 and parents > 100


def test_ranked_puts_the_best_first_and_empties_places_of_probability_zero() -> None:
    token, alive = np.array([-1, 3, 4, 5]), np.array([True, True, True, False])
    prefixes = step(Prefixes.start(1, 2), np.zeros(4, int), token, alive)
    score = jnp.array([-2.0, -jnp.inf, -1.0, -jnp.inf])
    found = jax.jit(Prefixes.ranked)(prefixes, score, 2 * score)
    assert found.labels.tolist() == [[4, -1], [-1, -1], [-1, -1], [-1, -1]]
    assert found.lengths.tolist() == [1, 0, 0, 0]
    assert found.score.tolist() == [-1, -2, -np.inf, -np.inf]
    assert found.log_prob.tolist() == [-2, -4, -np.inf, -np.inf]


def test_a_beam_without_room_holds_the_empty_prefix() -> None:
    alive = np.array([True, False])
    prefixes = step(Prefixes.start(2, 0), np.zeros(2, int), np.full(2, -1), alive)
    labels, _, _, common, full = told(prefixes)
    assert labels.shape == (2, 0)
    assert full.tolist() == [True, False]
    assert not np.any(common)
