"""Names of leaves, frozen parts, and the vector of free coordinates."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest

import jaxem
from jaxem import parameters


@pytest.fixture
def model() -> jaxem.HMM:
    """An HMM with zeros and a one."""
    logits = np.array([[0.0, -np.inf], [1.0, 2.0]])
    emission = jaxem.MixtureFamily(
        jaxem.Categorical(np.array([[0.0, 1.0, -np.inf], [0.5, 0.5, 0.5]])),
        jaxem.Bernoulli(np.array([-np.inf, 0.1, 0.2, np.inf, 0.3, 0.4])),
    )
    return jaxem.HMM(jaxem.Stationary(), jaxem.Categorical(logits), emission)


def test_leaves_are_named_by_their_path_in_the_order_of_the_tree():
    for name in laws.MODELS:
        model = laws.question(name, np.float32).model
        names, leaves = zip(*parameters.named_leaves(model), strict=True)
        paths = [
            ".".join(key.name for key in path)
            for path, _ in jax.tree_util.tree_leaves_with_path(model)
        ]
        assert list(names) == paths
        assert all(a is b for a, b in zip(leaves, jax.tree.leaves(model), strict=True))


def test_free_coordinates_come_back_where_they_were(model):
    vector = parameters.ravel_free(model)
    np.testing.assert_allclose(vector, [0, 1, 2, 0, 1, 0.5, 0.5, 0.5, 0.1, 0.2, 0.3, 0.4])
    same = parameters.unravel_free(model, vector)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b, np.float32))
    other = parameters.unravel_free(model, vector + 1)
    np.testing.assert_array_equal(other.transition.logits, [[1, -np.inf], [2, 3]])
    np.testing.assert_array_equal(
        other.emission.components.logits,
        np.array([-np.inf, 1.1, 1.2, np.inf, 1.3, 1.4], np.float32),
    )


def test_frozen_parts_are_no_coordinates(model):
    vector = parameters.ravel_free(model, ("transition", "emission.weights"))
    np.testing.assert_allclose(vector, [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    moved = parameters.unravel_free(model, vector * 0, ("transition", "emission.weights"))
    assert moved.transition.logits is model.transition.logits
    assert parameters.ravel_free(model, ("transition", "emission")).shape == (0,)


def test_the_vector_can_be_differentiated_through(model):
    def total(vector):
        return jnp.sum(parameters.unravel_free(model, vector).transition.probs[1] ** 2)

    slope = jax.jit(jax.grad(total))(parameters.ravel_free(model))
    assert np.all(np.isfinite(slope)) and np.any(slope[1:3] != 0)
    np.testing.assert_array_equal(slope[3:], 0)


def test_a_vector_of_another_length_is_refused(model):
    for length in (11, 13):
        with pytest.raises((ValueError, TypeError)):
            parameters.unravel_free(model, jnp.zeros(length))


def test_parameters_are_counted_without_zeros_and_null_directions(model):
    # transition: 2 + 1 possible entries, 2 rows; weights: 2 + 3, 2 rows; 4 finite log-odds
    assert model.num_parameters == (3 - 2) + (5 - 2) + 4
    assert parameters.count(model, ("emission.weights",)) == (3 - 2) + 4
    assert parameters.count(model, ("emission",)) == 1
    empty = replace(model, transition=jaxem.Categorical(np.full((2, 2), -np.inf)))
    assert parameters.count(empty, ("emission",)) == 0


def test_frozen_names_are_checked_and_sorted(model):
    check = parameters.check_frozen
    assert check(model, "transition") == check(model, ("transition",))
    twice = check(model, ["transition", "emission", "transition"])
    assert twice == check(model, ("emission", "transition")) == tuple(sorted(set(twice)))
    assert parameters.within(twice, "emission") is None
    for name in (
        "",
        "emision",
        "emission.",
        "emission.components.rate",
        "initial",
        "transition.log",
    ):
        with pytest.raises(ValueError, match="names no part of this HMM; its parts are emission"):
            check(model, name)


def test_a_part_whose_leaves_are_all_frozen_is_frozen():
    model = laws.question("Mixture over Gaussian", np.float32).model
    names = ("components.mean", "components.log_cholesky", "weights.logits")
    frozen = parameters.check_frozen(model, names)
    assert parameters.within(frozen, "components") is None
    assert parameters.within(frozen, "weights") is None
    frozen = parameters.check_frozen(model, "components.mean")
    assert parameters.within(frozen, "components") == ("mean",)
    assert parameters.within(frozen, "weights") == ()
