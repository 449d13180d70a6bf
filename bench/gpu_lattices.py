"""CTC and the transducer on a device: losses and their gradient in the logits, from random logits.

The first sequences are compared with plain NumPy in float64; all have the same lengths.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxem
from bench.agreement import TOLERANCES
from bench.gpu_oracles import ctc_oracle, transducer_oracle
from bench.gpu_run import Run, agree, note, to_torch
from bench.peers import autodiff_scan
from bench.peers.gradients import gradient_run

COMPARED = 2  # sequences


@partial(jax.jit, static_argnums=(0, 1))
def _data(kind: str, sizes: tuple[int, int, int, int]) -> tuple[Any, Any]:
    batch, frames, labels, symbols = sizes
    keys = jax.random.split(jax.random.key(0))
    each = (frames, labels + 1) if kind == "transducer" else (frames,)
    logits = jax.random.normal(keys[0], (batch, *each, symbols))
    return logits, jax.random.randint(keys[1], (batch, labels), 1, symbols)


def lattices(run: Run, kind: str) -> None:
    """Every library that has this loss."""
    sizes = tuple(run.sizes[name] for name in ("sequences", "frames", "labels", "symbols"))
    logits, labels = jax.block_until_ready(_data(kind, sizes))
    lengths = [jnp.full(sizes[0], size) for size in sizes[1:3]]
    few = np.asarray(logits[:COMPARED], float), np.asarray(labels[:COMPARED])
    desired = (ctc_oracle if kind == "ctc" else transducer_oracle)(*few)

    def attempt(library: str, method: str, prepare: Callable[[], Callable[[], Any]]) -> None:
        def measure(record: dict[str, Any]) -> None:
            (losses, gradient), seconds, compiling = run.time(prepare())
            note(record, seconds, compiling)
            _check(record, losses, gradient, desired)

        run.attempt(library, method, measure)

    def compiled(losses: Callable[..., Any]) -> Callable[[], Any]:
        call = gradient_run(losses, logits, labels, *lengths).call

        def results() -> Any:
            (_, each), gradient = call()
            return each, gradient

        return results

    if kind == "ctc":
        attempt("jaxem", "ctc.loss", lambda: compiled(jaxem.ctc.loss))
        attempt("optax", "ctc_loss", lambda: compiled(_optax))
        attempt("torch", "ctc_loss", lambda: _torch(logits, labels, lengths))
    else:
        attempt("jaxem", "transducer.loss", lambda: compiled(jaxem.transducer.loss))
        attempt("torchaudio", "rnnt_loss", lambda: _torchaudio(logits, labels, lengths))
        attempt("autodiff-scan", "nested scans", lambda: compiled(autodiff_scan.losses))


def _check(record: dict[str, Any], losses: Any, gradient: Any, desired: Any) -> None:
    """Losses relative, gradients over the largest loss, as on the CPU."""
    largest = np.max(desired[0])
    apart = np.abs(_few(losses) / desired[0] - 1)
    off = np.abs(_few(gradient) - desired[1])
    allowed = TOLERANCES["float32"]["gradient"]
    agree(
        record,
        losses=(float(np.max(apart)), allowed),
        gradient_over_loss=(float(np.max(off)) / largest, allowed),
    )


def _few(array: Any) -> Any:
    part = array[:COMPARED]
    return np.asarray(part if isinstance(part, jax.Array) else part.cpu(), float)


def _optax(logits: Any, labels: Any, logit_lengths: Any, label_lengths: Any) -> Any:
    import optax

    padding = (
        (jnp.arange(size) >= lengths[:, None]).astype(logits.dtype)
        for size, lengths in ((logits.shape[1], logit_lengths), (labels.shape[1], label_lengths))
    )
    logit_padding, label_padding = padding
    return optax.ctc_loss(logits, logit_padding, labels, label_padding)


def _torch(logits: Any, labels: Any, lengths: list[Any]) -> Callable[[], Any]:
    torch, given = to_torch(logits)
    given = given.transpose(0, 1).contiguous().requires_grad_()
    labels, *lengths = (to_torch(part)[1].long() for part in (labels, *lengths))

    def losses() -> Any:
        log_probs = torch.log_softmax(given, -1)
        return torch.nn.functional.ctc_loss(log_probs, labels, *lengths, reduction="none")

    return _with_gradient(torch, losses, given, lambda gradient: gradient.transpose(0, 1))


def _torchaudio(logits: Any, labels: Any, lengths: list[Any]) -> Callable[[], Any]:
    from torchaudio.functional import rnnt_loss

    torch, given = to_torch(logits)
    given = given.clone().requires_grad_()
    targets = [to_torch(part)[1].int() for part in (labels, *lengths)]
    losses = partial(rnnt_loss, given, *targets, blank=0, reduction="none")
    return _with_gradient(torch, losses, given, lambda gradient: gradient)


def _with_gradient(
    torch: Any, losses: Callable[[], Any], given: Any, batch_first: Callable[[Any], Any]
) -> Callable[[], Any]:
    def call() -> tuple[Any, Any]:
        with torch.enable_grad():
            each = losses()
            (gradient,) = torch.autograd.grad(each.sum(), given)
        if given.is_cuda:
            torch.cuda.synchronize()
        return each.detach(), batch_first(gradient)

    return call
