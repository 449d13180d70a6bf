"""The CTC loss: minus the log-probability of a labelling, and its posterior-based gradient."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem import lattice
from jaxem.blocks import by_blocks
from jaxem.ctc.labelling import TOPOLOGY, Labelling
from jaxem.targets import LogScale, finished, negative, slope


def loss(
    logits: Float[Array, "B T V"],
    labels: Int[Array, "B L"],
    logit_lengths: Int[Array, " B"] | None = None,
    label_lengths: Int[Array, " B"] | None = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Float[Array, " B"]:
    """Minus the log-probability of each label sequence: of all paths that collapse to it.

    A path has one symbol a frame; repeated symbols become one and blanks are left out.  The
    gradient with respect to the logits is softmax(logits) - `posterior`, and derivatives of any
    order are right, by `jacrev(jacrev)` or `hessian`; only a first one by `jvp` is not supported.

    A target for which there are too few frames has loss +inf, or 0 if `zero_infinity`, and a
    gradient of 0.  Logits of -inf are legal; a path whose probability is below 2^(-2^29) counts as
    impossible.  The loss is never negative; it is right to a few roundings of itself, or of 1 for
    each frame.  What lies past `logit_lengths` and `label_lengths`, NaN too, has no influence.
    Sequences without labels, and ones without frames, are legal.  A NaN before gives its row NaN.

    bfloat16 and float16 are computed in float32, which the loss has then; the gradient has the
    dtype of the logits.  O(B T (2L + 1)) memory and the gradient; on a CPU 8 rows at a time, if
    their logits are no more than 16 MiB.  Under `shard_map` pass `check_vma=False`.

    Graves et al. (2006) (7.5)-(7.8) and (16).

    Raises:
        ValueError: shapes that do not fit, a `blank` outside the vocabulary; unless traced, lengths
            beyond the arrays, and labels that are the blank or no symbol.  Under `jit` a row that
            has one of these gets NaN.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> logits = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))
        >>> loss = jaxem.ctc.loss(logits, jnp.array([[1]]))
        >>> jnp.exp(-loss).round(2).tolist()  # .4 · .4 + .4 · .6 + .6 · .4
        [0.64]
    """
    logits, labelling = Labelling.check(logits, labels, logit_lengths, label_lengths, blank)
    return finished(_compiled(blank, True, logits, labelling), zero_infinity)


def loss_from_log_probs(
    log_probs: Float[Array, "B T V"],
    labels: Int[Array, "B L"],
    logit_lengths: Int[Array, " B"] | None = None,
    label_lengths: Int[Array, " B"] | None = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Float[Array, " B"]:
    """`loss` of log-probabilities that are normalised already.

    All is as there, but the gradient, with respect to the log-probabilities as free numbers: minus
    the `posterior`, summed over the states of a symbol.  What is not normalised and sums to more
    than 1 may have a loss below 0, which is given as 0.

    Examples:
        >>> import jax, jax.numpy as jnp, jaxem
        >>> log_probs = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))
        >>> gradient = jax.grad(lambda x: jaxem.ctc.loss_from_log_probs(x, jnp.array([[1]]))[0])
        >>> gradient(log_probs).round(3).tolist()
        [[[-0.375, -0.625], [-0.375, -0.625]]]
    """
    log_probs, labelling = Labelling.check(
        log_probs, labels, logit_lengths, label_lengths, blank, "log_probs"
    )
    return finished(_compiled(blank, False, log_probs, labelling), zero_infinity)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss(blank: int, normalise: bool, logits: Array, labelling: Labelling) -> Array:
    def rows(logits: Array, labelling: Labelling) -> Array:
        potentials = labelling.potentials(logits, _scale(normalise, logits), blank)
        log_prob = lattice.log_normalizer(TOPOLOGY, potentials, labelling.paths)
        return negative(log_prob, labelling.is_valid)

    return by_blocks(rows, logits, labelling)


def _forward(blank: int, normalise: bool, logits: Array, labelling: Labelling) -> tuple[Array, Any]:
    def rows(logits: Array, labelling: Labelling) -> tuple[Array, Any]:
        log_scale = _scale(normalise, labelling.within(logits))
        potentials = labelling.potentials(logits, log_scale, blank)
        log_prob, counts = lattice.posterior(TOPOLOGY, potentials, labelling.paths)
        blanks, hits = jax.tree.leaves(counts)
        expected = log_scale, blanks[:, 0].T, jnp.transpose(hits, (2, 1, 0))
        return negative(log_prob, labelling.is_valid), expected

    value, expected = by_blocks(rows, logits, labelling)
    return value, (logits, labelling, value, expected)


def _backward(blank: int, normalise: bool, residuals: Any, cotangent: Array) -> tuple[Array, None]:
    def rows(
        logits: Array, labelling: Labelling, value: Array, expected: Any, cotangent: Array
    ) -> Array:
        log_scale, blanks, hits = expected
        scale = slope(value, cotangent, labelling.inside(logits.shape[1]))
        gradient = -jnp.where(jnp.arange(logits.shape[2]) == blank, blanks[..., None], 0)
        if normalise:
            gradient += jnp.exp(log_scale.log_prob(labelling.within(logits)))
        row = jnp.arange(len(logits))[:, None]
        # A window of all frames for each label: one by one the same additions take twice the time.
        gradient = scale[..., None] * gradient
        gradient = gradient.at[row, :, labelling.labels].add(-scale[:, None] * hits)
        return gradient.astype(logits.dtype)

    return by_blocks(rows, *residuals, cotangent), None


_loss.defvjp(_forward, _backward)
_compiled = jax.jit(_loss, static_argnums=(0, 1))


def _scale(normalise: bool, logits: Array) -> LogScale:
    """What normalises the logits."""
    return LogScale.of(logits) if normalise else LogScale.none(logits.shape[:2], logits.dtype)
