"""CTC's loss beside optax's and torch's, where those are right."""

from typing import Any

import jax
import jax.numpy as jnp
import lattice_oracles as oracles
import numpy as np
import optax
import pytest
from chains import quick

from jaxem import ctc

B, T, V, L = 16, 30, 7, 6


def random_batch(dtype: Any) -> oracles.Batch:
    """Rows of all lengths but 0, without impossible symbols: what every peer takes."""
    batch = oracles.random_batch(11, (B, T, V), L, blank=0, zeros=0.0, spread=2.0)
    lengths = np.maximum(batch.logit_lengths, 1)
    return oracles.Batch(batch.logits.astype(dtype), batch.labels, lengths, batch.label_lengths)


@quick
def ours(logits: Any, *rest: Any) -> Any:
    losses, pullback = jax.vjp(lambda at: ctc.loss(at, *rest), logits)
    return losses, pullback(jnp.ones_like(losses))[0]


@quick
def of_optax(logits: Any, labels: Any, lengths: Any, counts: Any) -> Any:
    """Its gradient is that of a sum over feasible rows: the others have a loss of 1e5."""
    padding = [
        (jnp.arange(width) >= length[:, None]).astype(logits.dtype)
        for width, length in [(T, lengths), (L, counts)]
    ]
    losses, pullback = jax.vjp(
        lambda at: optax.ctc_loss(at, padding[0], labels, padding[1]), logits
    )
    return losses, pullback((losses < 9e4).astype(losses.dtype))[0]


def test_loss_and_gradient_are_optax_s_where_the_labels_fit(dtype: Any) -> None:
    batch = random_batch(dtype)
    losses, gradient = ours(*batch.arguments)
    their_losses, their_gradient = (np.asarray(part) for part in of_optax(*batch.arguments))
    feasible = np.isfinite(losses)
    assert 0.5 < feasible.mean() < 1
    assert np.all(their_losses[~feasible] > 9e4)
    room = {"rtol": 1e-5, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(losses[feasible], their_losses[feasible], **room)
    np.testing.assert_allclose(gradient, their_gradient, **room)


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_loss_and_gradient_are_torch_s(dtype: Any, zero_infinity: bool) -> None:
    """But for the gradient of infeasible labels, which torch makes NaN unless told otherwise."""
    torch = pytest.importorskip("torch")
    batch = random_batch(dtype)
    logits = torch.tensor(batch.logits, requires_grad=True)
    losses = torch.nn.functional.ctc_loss(
        torch.log_softmax(logits, -1).transpose(0, 1),
        *(torch.tensor(part) for part in batch.arguments[1:]),
        reduction="none",
        zero_infinity=zero_infinity,
    )
    losses.sum().backward()
    ask = jax.jit(lambda *arguments: ctc.loss(*arguments, zero_infinity=zero_infinity))
    room = {"rtol": 1e-5, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(ask(*batch.arguments), losses.detach().numpy(), **room)
    plain, gradient = ours(*batch.arguments)
    same = np.isfinite(plain) | zero_infinity
    np.testing.assert_allclose(gradient[same], logits.grad.numpy()[same], **room)
