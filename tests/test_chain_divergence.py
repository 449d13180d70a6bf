"""How far one posterior over paths is from another, against enumeration of every path."""

from decimal import Decimal, localcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from chains import SHARING, Parts, quick, tolerance, with_garbage

from jaxem import chain, semiring
from jaxem.chain import Chain

INF, NAN = np.inf, np.nan
B, T, K = 400, 5, 3
LENGTHS = np.random.default_rng(8).integers(0, T + 1, B)
DIVERGENCE = quick(chain.divergence)
RELATIVE_ENTROPY = quick(semiring.relative_entropy)
DIGITS = 60  # of the exact oracle


def in_nats(q: oracles.Enumeration, p: oracles.Enumeration) -> np.ndarray:
    """The divergence [B] by its definition; 0 for an impossible q, +inf for p impossible alone."""
    logs = []
    for known in (q, p):
        total = np.where(np.isneginf(known.log_normalizer), 0, known.log_normalizer)
        logs.append(known.log_weights - total[:, None])
    possible = np.isfinite(logs[0])
    ratio = np.where(possible, logs[0], 0) - np.where(possible, logs[1], 0)
    return np.sum(np.where(possible, q.probs * np.where(possible, ratio, 0), 0), 1)


def exactly(q: Chain, p: Chain) -> float:
    """The divergence of two single chains with every number and operation in many digits."""
    steps, states = q.emission.shape
    with localcontext() as context:
        context.prec = DIGITS
        weights = []
        for one in (q, p):
            moves = np.broadcast_to(one.transition, (steps - 1, states, states))
            paths = np.ndindex(*(states,) * steps)
            weights.append([path_weight(one, moves, path) for path in paths])
        probs = [[weight / sum(row) for weight in row] for row in weights]
        terms = [a * (a / b).ln() for a, b in zip(*probs, strict=True) if a]
        return float(sum(terms))


def path_weight(one: Chain, moves: np.ndarray, path: tuple[int, ...]) -> Decimal:
    """The weight of one path in many digits."""
    parts = [one.initial[path[0]], *one.emission[range(len(path)), path]]
    parts += [moves[t, i, j] for t, (i, j) in enumerate(zip(path[:-1], path[1:], strict=True))]
    return sum((Decimal(float(part)) for part in parts), Decimal(0)).exp()


def pair(dtype: Any, q_sharing: str, p_sharing: str) -> list[tuple[Chain, Parts]]:
    """Two batches; in even rows p can take every path that q can, in odd rows hardly ever.

    Rows 2 and 4 of q and rows 1 to 3 of p are impossible at all lengths above 0.
    """
    rng = np.random.default_rng(SHARING.index(q_sharing) + 3 * SHARING.index(p_sharing))
    both: list[list[np.ndarray]] = []
    for sharing, zeros in [(q_sharing, 0.2), (p_sharing, 0.0)]:
        initial, transition, emission = oracles.random_chains(rng, B, T, K, zeros=zeros, spread=2.0)
        transition[..., 0, 1] = -INF
        if sharing == "shared":
            initial, transition = initial[0], transition[0, 0]
        if sharing == "per step":
            transition = transition[0]
        both.append([initial.astype(dtype), transition.astype(dtype), emission.astype(dtype)])
    both[1][2][1::2][rng.random((B // 2, T, K)) < 0.2] = -INF
    both[0][2][[2, 4], 0] = -INF
    both[1][2][1:4, 0] = -INF
    wide = [
        (np.broadcast_to(i, (B, K)), np.broadcast_to(t, (B, T - 1, K, K)), e) for i, t, e in both
    ]
    return [(Chain(*parts), w) for parts, w in zip(both, wide, strict=True)]


@pytest.mark.parametrize(
    ("q_sharing", "p_sharing", "ragged", "dtype"),
    [
        ("shared", "shared", True, "float32"),
        ("shared", "per step", True, "float64"),
        ("per step", "per chain", False, "float32"),
        ("per chain", "shared", True, "float32"),
        ("per chain", "per chain", True, "float64"),
    ],
    indirect=["dtype"],
)
def test_divergence_is_that_of_enumeration(
    dtype: Any, q_sharing: str, p_sharing: str, ragged: bool
) -> None:
    (q, q_wide), (p, p_wide) = pair(dtype, q_sharing, p_sharing)
    lengths = LENGTHS if ragged else np.full(B, T)
    known = [oracles.enumerate_paths(*wide, lengths) for wide in (q_wide, p_wide)]
    wanted = in_nats(*known)
    got = DIVERGENCE(
        with_garbage(q, lengths), with_garbage(p, lengths), lengths if ragged else None
    )
    assert got.dtype == dtype
    assert got.shape == (B,)
    np.testing.assert_allclose(got, wanted, **tolerance(dtype))
    assert np.all(got >= 0)
    # Everything there is to tell occurs: large, zero, infinite, impossible.
    assert 3 < np.max(wanted[np.isfinite(wanted)])
    assert 0.1 < np.isinf(wanted).mean() < 0.9
    some = lengths > 0
    impossible = [np.isneginf(one.log_normalizer) for one in known]
    assert np.all(np.asarray(got)[impossible[0] | ~some] == 0)
    assert np.all(np.asarray(got)[impossible[1] & ~impossible[0]] == INF)
    # Negative controls: the divergence the other way, and a wrong time index.
    late = oracles.enumerate_paths(p_wide[0], p_wide[1], np.roll(p_wide[2], 1, 1), lengths)
    for other in [in_nats(*known[::-1]), in_nats(known[0], late)]:
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(got, other, **tolerance(dtype))


def perturbed(dtype: Any, delta: float) -> tuple[Chain, Chain]:
    """A single chain with impossible moves and states, and one whose potentials differ by delta."""
    rng = np.random.default_rng(5)
    parts = oracles.random_chains(rng, 1, 4, K, zeros=0.1, spread=1.0)
    assert any(np.isneginf(part).any() for part in parts)
    q = Chain(parts[0][0].astype(dtype), parts[1][0].astype(dtype), parts[2][0].astype(dtype))
    return q, jax.tree.map(
        lambda part: (part + delta * rng.standard_normal(part.shape)).astype(dtype), q
    )


@pytest.mark.parametrize(
    ("dtype", "delta"),
    [("float32", 1e-2), ("float32", 1e-4), ("float64", 1e-2), ("float64", 1e-7)],
    indirect=["dtype"],
)
def test_divergence_of_almost_equal_posteriors_keeps_its_digits(dtype: Any, delta: float) -> None:
    q, p = perturbed(dtype, delta)
    wanted = exactly(q, p)
    assert 0.1 * delta**2 < wanted < 10 * delta**2
    eps = np.finfo(dtype).eps
    room = 10 * eps / delta  # 1e-8 of 1e-14 nats in float64
    np.testing.assert_allclose(DIVERGENCE(q, p), wanted, rtol=room)
    # Negative control: the definition in the same dtype keeps none of them.
    known = []
    for one in (q, p):
        moves = np.broadcast_to(one.transition, (1, 3, K, K))
        known.append(
            oracles.enumerate_paths(one.initial[None], moves, one.emission[None], np.array([4]))
        )
    if delta == 1e-7:
        assert abs(in_nats(*known)[0] / wanted - 1) > 10 * room


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_divergence_over_long_chains_is_the_expected_log_ratio(dtype: Any) -> None:
    rng = np.random.default_rng(6)
    chains, known = [], []
    for spread in (1.0, 1.3):
        parts = oracles.random_chains(rng, 1, 3000, K, zeros=0.0, spread=spread)
        initial, moves, emission = (part[0].astype(dtype) for part in parts)
        chains.append(Chain(initial, moves[0], emission))
        known.append(oracles.forward_backward(initial, moves[0], emission))
    (q, p), (log_z, states, moves) = chains, known[0]
    apart = jax.tree.map(lambda a, b: a.astype(float) - b, q, p)
    expected = (
        np.sum(states[0] * apart.initial)
        + np.sum(states * apart.emission)
        + np.sum(moves * apart.transition)
    )
    wanted = expected - log_z + known[1][0]
    assert wanted > 1000
    np.testing.assert_allclose(DIVERGENCE(q, p), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("q_sharing", "p_sharing", "dtype"),
    [
        ("shared", "shared", "float32"),
        ("per chain", "shared", "float32"),
        ("shared", "per step", "float64"),
        ("per chain", "per chain", "float64"),
    ],
    indirect=["dtype"],
)
def test_divergence_of_a_chain_from_itself_is_exactly_zero(
    dtype: Any, q_sharing: str, p_sharing: str
) -> None:
    (one, _), _ = pair(dtype, "shared", "shared")

    def said(sharing: str, shift: float) -> Chain:
        """The same chain in another layout; a shift changes the potentials, but no posterior."""
        layout = {"shared": (), "per step": (T - 1,), "per chain": (B, T - 1)}[sharing]
        moves = np.broadcast_to(one.transition, (*layout, K, K))
        wide = sharing == "per chain"
        initial = np.broadcast_to(one.initial, (B, K)) if wide else one.initial
        parts = (initial + shift, moves - 3 * shift, one.emission + 0.7 * shift)
        return Chain(*(part.astype(dtype) for part in parts))

    q = said(q_sharing, 0)
    np.testing.assert_array_equal(DIVERGENCE(q, said(p_sharing, 0), LENGTHS), np.zeros(B))
    nats = np.asarray(DIVERGENCE(q, said(p_sharing, 1), LENGTHS))
    assert np.all(nats >= 0)
    assert 0 < np.max(nats) < 200 * np.finfo(dtype).eps ** 2  # rounding, squared


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_a_path_only_p_rules_out_counts_however_improbable_it_is(dtype: Any) -> None:
    q = Chain(np.array([0, -1e4], dtype), np.zeros((2, 2), dtype), np.zeros((3, 2), dtype))
    p = Chain(np.array([0, -INF], dtype), q.transition, q.emission)
    assert DIVERGENCE(q, p) == INF  # exp(-10,000) is 0 in either dtype
    assert DIVERGENCE(p, q) == 0
    # But not if the rest of the sequence rules it out under q as well.
    stay = np.array([[0, -INF], [-INF, 0]], dtype)
    seen = np.array([[0, 0], [0, 0], [0, -INF]], dtype)
    assert DIVERGENCE(Chain(q.initial, stay, seen), Chain(p.initial, stay, seen)) == 0


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)  # the layout knows no dtype
def test_one_chain_alone_is_one_chain_of_a_batch_and_of_a_vmap(dtype: Any) -> None:
    (q, _), (p, _) = pair(dtype, "per chain", "per chain")
    q, p = with_garbage(q, LENGTHS), with_garbage(p, LENGTHS)
    together = DIVERGENCE(q, p, LENGTHS)
    mapped = quick(jax.vmap(chain.divergence))(q, p, LENGTHS)
    np.testing.assert_allclose(mapped, together, **tolerance(dtype))
    for row in range(20):
        one, other = (jax.tree.map(lambda part, row=row: part[row], each) for each in (q, p))
        alone = DIVERGENCE(one, other, LENGTHS[row])
        assert alone.shape == ()
        np.testing.assert_allclose(alone, together[row], **tolerance(dtype))
        batches = (jax.tree.map(lambda part: part[None], each) for each in (one, other))
        np.testing.assert_array_equal(DIVERGENCE(*batches, LENGTHS[row : row + 1]), alone[None])


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (3, 0, 2), (3, 1, 2)])
def test_chains_of_no_and_of_one_step_have_the_obvious_divergence(shape: tuple[int, ...]) -> None:
    with np.errstate(divide="ignore"):
        q, p = np.log([0.25, 0.75]), np.log([1.0, 0.0])
    moves = np.zeros((0, 2, 2))
    nothing = np.zeros(shape)
    one, other = Chain(q, moves, nothing), Chain(p, moves, nothing)
    got = DIVERGENCE(other, one)
    assert got.shape == shape[:-2]
    np.testing.assert_allclose(got, np.log(4) * shape[-2], rtol=1e-6)
    np.testing.assert_array_equal(DIVERGENCE(one, other), INF if shape[-2] else 0)


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_derivative_by_p_is_a_difference_of_expected_counts_and_that_by_q_is_finite(
    dtype: Any,
) -> None:
    q, p = perturbed(dtype, 0.5)
    by_q, by_p = quick(jax.grad(chain.divergence, (0, 1)))(q, p)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(by_q))
    (_, under_q), (_, under_p) = (quick(chain.posterior)(one) for one in (q, p))
    wanted = jax.tree.map(lambda a, b: a - b, under_p, under_q)
    for leaf, other in zip(jax.tree.leaves(by_p), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(leaf, other, **tolerance(dtype))


def test_chains_that_do_not_match_are_refused() -> None:
    q = Chain(np.zeros(3), np.zeros((3, 3)), np.zeros((5, 3)))
    for shape in [(4, 3), (1, 5, 3)]:
        with pytest.raises(ValueError, match="same states and steps"):
            chain.divergence(q, Chain(q.initial, q.transition, np.zeros(shape)))
    with pytest.raises(ValueError, match="transition must be"):
        chain.divergence(q, Chain(q.initial, np.zeros((5, 3, 3)), q.emission))


def test_relative_entropy_keeps_its_digits_at_any_ratio(dtype: Any) -> None:
    sizes = 10.0 ** np.arange(-7, 4)
    logs_q = np.array([0, -0.3, -20], dtype)[:, None]
    logs_p = (logs_q - np.concatenate([-sizes[:9], [0], sizes, [1, -1, 0.99, -0.99]])).astype(dtype)
    logs_q = np.broadcast_to(logs_q, logs_p.shape)
    with localcontext() as context:
        context.prec = DIGITS
        wanted = np.empty(logs_p.shape)
        for at in np.ndindex(*wanted.shape):
            a, b = Decimal(float(logs_q[at])), Decimal(float(logs_p[at]))
            wanted[at] = a.exp() * (a - b) - a.exp() + b.exp()
    got = RELATIVE_ENTROPY(logs_q, logs_p)
    assert got.dtype == dtype
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    # A logarithm's own rounding is that of exp: its size in roundings.
    room = eps * (8 + np.maximum(np.abs(logs_q), np.abs(np.where(logs_p > logs_q, logs_p, 0))))
    assert np.all(np.abs(np.asarray(got, float) - wanted) <= room * wanted + 4 * tiny)
    assert np.all((np.asarray(got) == 0) == ((logs_q == logs_p) | (wanted < tiny)))
    # Negative control: as it is written.
    naive = np.exp(logs_q) * (logs_q - logs_p) - np.exp(logs_q) + np.exp(logs_p)
    assert np.any(np.abs(naive - wanted) > 1e3 * room * wanted + 4 * tiny)


def test_relative_entropy_knows_zeros_and_keeps_nan(dtype: Any) -> None:
    log_q = jnp.array([-INF, -INF, 0, -1e5, -1e5, NAN, 0, -INF], dtype)
    log_p = jnp.array([-INF, 0, -INF, -INF, 0, 0, NAN, NAN], dtype)
    wanted = [0, 1, INF, INF, 1, NAN, NAN, NAN]
    np.testing.assert_array_equal(RELATIVE_ENTROPY(log_q, log_p), wanted)
    gradient = jax.grad(lambda *logs: jnp.sum(semiring.relative_entropy(*logs)), (0, 1))
    assert not np.any(np.isnan(quick(gradient)(log_q[:5], log_p[:5])))


def test_relative_entropy_is_never_negative(dtype: Any) -> None:
    rng = np.random.default_rng(9)
    floor = np.log(np.finfo(dtype).tiny)
    log_q = rng.uniform(floor - 20, 0, 100_000).astype(dtype)  # subnormal numbers among them
    log_p = (log_q + rng.standard_normal(100_000) * 10.0 ** rng.integers(-9, 2, 100_000)).astype(
        dtype
    )
    got = RELATIVE_ENTROPY(log_q, log_p)
    assert np.all(np.asarray(got) >= 0)
