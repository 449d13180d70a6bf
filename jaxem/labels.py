"""Known and partly known members of a model: evidence that multiplies their densities.

A label is the number of the component or state that a row came from, or -1 where it is unknown.  A
soft one is p(label | member) for each member, up to a constant a row: ones say nothing, 0 rules a
member out.  The posterior is what it always is, given data and labels together.
"""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxem.data import Chunks, is_traced, refuse
from jaxem.semiring import log

UNKNOWN = -1


def is_soft(labels: Any) -> bool:
    """Whether labels say how much they speak for each member, and not which it is."""
    return jnp.issubdtype(labels.dtype, jnp.floating)


def log_evidence(labels: Array, num_members: int, axis: int = 0) -> Float[Array, "..."]:
    """log p(label | member), the members along `axis`: of labels [n] or soft ones [K, n], [K, n].

    Integers have 0 at the member they name and -inf elsewhere, or 0 throughout where unknown.
    """
    if is_soft(labels):
        return log(labels)
    member = jnp.arange(num_members).reshape(-1, *[1] * labels.ndim)
    return _log_admits(jnp.expand_dims(labels, axis), jnp.moveaxis(member, 0, axis))


def log_evidence_for(labels: Array, member: Any) -> Float[Array, " n"]:
    """log p(label | member) for one member: of labels [n], or soft ones [n, K]."""
    return log(labels[:, member]) if is_soft(labels) else _log_admits(labels, member)


def _log_admits(labels: Array, member: Any) -> Float[Array, "..."]:
    return jnp.where((labels == member) | (labels == UNKNOWN), 0.0, -jnp.inf)


def with_evidence(log_joint: Float[Array, "K ... n"], labels: Array | None) -> Array:
    """log p(x, member) of a chunk of rows with what their labels say, if there are any."""
    if labels is None:
        return log_joint
    evidence = log_evidence(labels, len(log_joint))
    return log_joint + evidence.reshape(len(evidence), *[1] * (log_joint.ndim - 2), -1)


def silenced(labels: Any, counts: Bool[Array, "..."]) -> Any:
    """Labels that say nothing where nothing counts."""
    on_host = isinstance(labels, np.ndarray) and isinstance(counts, np.ndarray)
    xp: Any = np if on_host else jnp
    counts = counts.reshape(*counts.shape, *[1] * (labels.ndim - counts.ndim))
    return xp.where(counts, labels, 1 if is_soft(labels) else UNKNOWN)


def as_labels(labels: Any, dtype: Any) -> Array | None:
    """Labels on the device, soft ones in this dtype; None if there are none."""
    if labels is None:
        return None
    labels = jnp.asarray(labels)
    return labels.astype(dtype if is_soft(labels) else jnp.int32)


def with_labels(rows: Chunks, labels: Any, dtype: Any) -> Chunks:
    """Chunks with the labels [N], or [N, K], of their rows; padding and weight 0 say nothing."""
    labels = as_labels(labels, dtype)
    if labels is None:
        return rows
    laid_out = rows.slots(labels)
    if rows.weight is not None:
        laid_out = silenced(laid_out, rows.weight > 0)
    return replace(rows, labels=jnp.moveaxis(laid_out, 2, 1) if laid_out.ndim == 3 else laid_out)


def check_labels(
    labels: Any, shape: tuple[int, ...], num_members: int, dtype: Any, inside: Any = None
) -> Any:
    """Labels of rows [N], or of steps [B, T], in the dtype of the model; None if nothing is known.

    What lies outside (where `inside` is False) says nothing, whatever it is.  Traced labels are not
    looked at.

    Raises:
        ValueError: neither integers, one a row, nor floating numbers, one a row and member; a label
            that is no member's; soft labels that are negative, not finite or 0 throughout a row.
    """
    if labels is None:
        return None
    soft = is_soft(labels)
    legal = soft or jnp.issubdtype(labels.dtype, jnp.integer)
    if not legal or labels.shape != ((*shape, num_members) if soft else shape):
        raise ValueError(
            f"labels must be integers {list(shape)}, -1 where unknown, or soft ones, floating "
            f"numbers {[*shape, num_members]}: got shape {list(labels.shape)} and dtype "
            f"{labels.dtype}."
        )
    with np.errstate(over="ignore", under="ignore"):  # what does not fit is refused
        found = labels.astype(dtype if soft else int)
    found = found if inside is None else silenced(found, inside)
    leading = len(shape)
    if not soft:
        remedy = f"labels are 0 to {num_members - 1}, or -1 where unknown."
        bad = (labels < -1) | (labels >= num_members)  # before a cast makes another number of it
        bad = bad if inside is None else bad & inside
        refuse(bad, labels, "label out of range", remedy, leading)
        unknown = not is_traced(found) and not np.any(found != UNKNOWN)
        return None if unknown else found.astype(np.int32)
    name = jnp.dtype(dtype).name
    what = f"soft labels must be finite, in {name} too, and not negative"
    remedy = "a row may be divided by its largest entry."
    refuse(~((found >= 0) & (found < np.inf)), labels, what, remedy, leading)
    nothing = found.max(-1) < jnp.finfo(dtype).tiny  # of what is smaller JAX makes 0
    what = f"a soft label rules out every member (all its entries are 0, in {name})"
    refuse(nothing, labels, what, "ones say that nothing is known.", leading)
    return found
