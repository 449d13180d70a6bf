"""Packing, padding and chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem import data as data_module
from jaxem.data import chunk, refuse


def test_sequences_are_padded_and_come_back():
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(length, 2)) for length in (3, 0, 5, 1)]
    packed = jaxem.Sequences.pack(sequences)
    assert packed.values.shape == (4, 5, 2) and packed.values.dtype == np.float64
    np.testing.assert_array_equal(packed.lengths, [3, 0, 5, 1])
    np.testing.assert_array_equal(packed.values[0, 3:], 0)
    for original, restored in zip(sequences, packed.unpack(), strict=True):
        np.testing.assert_array_equal(original, restored)
    whole = jaxem.Sequences(np.zeros((2, 3))).unpack()
    assert [one.shape for one in whole] == [(3,), (3,)]


def test_sequences_may_be_lists_and_keep_a_common_dtype():
    packed = jaxem.Sequences.pack([[1, 2, 3], [4]])
    assert packed.values.dtype == np.int64 and packed.values.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert jaxem.Sequences.pack([[1], [0.5, 2.5]]).values.dtype == np.float64
    assert jaxem.Sequences.pack([jnp.arange(2), np.arange(3)]).lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "at least one sequence, got an empty list"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"sequence 1 has shape \(2, 4\)"),
        ([np.zeros((2, 3)), np.zeros(2)], r"sequence 1 has shape \(2,\)"),
        ([np.float64(1.0)], "sequence 0"),
    ],
)
def test_sequences_that_cannot_be_packed_are_refused(sequences, message):
    with pytest.raises(ValueError, match=message):
        jaxem.Sequences.pack(sequences)


@pytest.mark.parametrize("multiple", [1, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_row_lies_in_one_chunk_and_padding_counts_nothing(monkeypatch, multiple, weighted):
    monkeypatch.setattr(data_module, "CHUNK_ELEMENTS", 1)  # the smallest chunks: 256 rows
    x = np.arange(1400.0, dtype=np.float32).reshape(700, 2)
    weight = jnp.asarray(1 + np.arange(700) % 3, jnp.float32) if weighted else None
    rows = chunk(jnp.asarray(x), weight, num_features=2, centred=False, multiple=multiple)
    chunks, _, size = rows.values.shape
    assert chunks > 1 and size % multiple == 0 and rows.num_rows == 700
    together = rows.values.transpose(0, 2, 1).reshape(-1, 2)
    np.testing.assert_array_equal(together[:700], x)
    if chunks * size > 700 or weighted:
        assert rows.weight is not None
        np.testing.assert_array_equal(rows.weight.reshape(-1)[700:], 0)
    np.testing.assert_array_equal(rows.rows(rows.map(lambda rows: rows + 1)), x + 1)

    def one(x, weight, double):
        weight = jnp.ones(len(x)) if weight is None else weight
        return jnp.sum(weight[:, None] * x, 0), jnp.sum(weight * double)

    double = 2 * jnp.ones((chunks, size))
    total, terms = rows.accumulate(one, double)
    counted = np.ones(700) if weight is None else np.asarray(weight)
    np.testing.assert_allclose(total, counted @ x.astype(float), rtol=1e-6)
    np.testing.assert_allclose(terms, 2 * counted.sum(), rtol=1e-6)


def test_rows_are_centred_at_their_weighted_mean_and_the_spread_is_that_of_the_tightest_feature():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 3)) * [2.0, 0.0, 0.5] + 1e4).astype(np.float32)
    weight = rng.integers(0, 3, 300).astype(np.float32)
    exact = x.astype(float)
    garbage = np.where(weight[:, None] == 0, np.float32(np.nan), x)
    rows = chunk(jnp.asarray(garbage), jnp.asarray(weight), num_features=3, centred=True)
    center = np.average(exact, axis=0, weights=weight)
    np.testing.assert_allclose(rows.center, center, rtol=1e-7)
    variance = np.average((exact - center) ** 2, axis=0, weights=weight)
    np.testing.assert_allclose(rows.spread, variance[2], rtol=1e-3)  # a constant has none
    assert np.all(np.isfinite(rows.values))


def test_the_first_bad_place_is_named():
    bad = np.zeros((2, 3), bool)
    bad[1, 2] = bad[1, 1] = True
    with pytest.raises(ValueError, match=r"odd: 0.0 at row 1, column 1 .*mend it"):
        refuse(bad, np.zeros((2, 3)), "odd", "mend it")
    with pytest.raises(ValueError, match=r"odd: 0.0 at row 1, column 0"):
        refuse(np.array([[False], [True]]), np.zeros((2, 1)), "odd", "mend it")
    refuse(np.zeros(3, bool), np.zeros(3), "odd", "mend it")
    jax.jit(lambda x: refuse(x < 1, x, "odd", "mend it"))(np.zeros(3))  # a tracer has no values


def test_data_are_trees():
    samples = jaxem.Samples(np.zeros((3, 2)), np.ones(3))
    assert len(jax.tree.leaves(samples)) == 2
    assert len(jax.tree.leaves(jaxem.Sequences(np.zeros((3, 2))))) == 1
    doubled = jax.tree.map(lambda leaf: 2 * leaf, samples)
    assert isinstance(doubled, jaxem.Samples) and doubled.sample_weight.tolist() == [2, 2, 2]


@pytest.mark.parametrize("number", [7, 1000])
@pytest.mark.parametrize("constant", [0.1, 3.7, -77.3, 333333.33])
def test_a_constant_feature_does_not_set_the_smallest_variance(
    constant: float, number: int, dtype: np.dtype
) -> None:
    varying = np.random.default_rng(0).normal(size=number).astype(dtype)
    rows = np.stack([varying, np.full(number, constant, dtype)], 1)
    laid_out = jax.jit(lambda rows: chunk(rows, None, num_features=2, centred=True))(rows)
    np.testing.assert_allclose(laid_out.spread, np.var(varying), rtol=1e-5)
