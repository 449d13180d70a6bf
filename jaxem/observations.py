"""What a model takes as data, checked against its family: rows, and sequences of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxem import em
from jaxem.data import Samples, Sequences, is_traced, refuse
from jaxem.families import optional
from jaxem.labels import check_labels
from jaxem.missing import check_unmasked, fill


def rows_of(data: Any, family: Any) -> Samples:
    """Data as `Samples` that the family can have produced.

    Raises:
        ValueError: no row; what the family refuses, by row and column; weights that are negative,
            all 0, or not one a row; labels of no member.
    """
    if isinstance(data, Sequences):
        raise ValueError("a mixture takes rows, plain or as Samples, not Sequences.")
    data = data if isinstance(data, Samples) else Samples(data)
    values, observed = as_array(data.values), observed_of(data)
    if observed is not None:
        optional.check_partial(family)
        values = validated(family, values, fill(values, observed), observed)
        observed = observed.reshape(values.shape)
    else:
        values = optional.validate(family, values)
    if len(values) == 0:
        raise ValueError("there is no row in the data.")
    weight = weight_of(data.sample_weight, len(values), "row")
    labels = labels_of(data, values.shape[:1], family.num_members, family)
    return Samples(values, weight, observed, labels)


def validated(family: Any, values: Any, filled: Any, there: Any, leading: int = 1) -> Any:
    """The filled values checked by the family; what it refuses is named where it is `there`.

    Else a bad value that was copied would be found where the copy is.
    """
    try:
        return optional.validate(family, filled, leading)
    except ValueError as error:
        refused = error
    if not is_traced((values, there)):
        xp: Any = np if isinstance(values, np.ndarray) else jnp
        optional.validate(family, xp.where(there, values, 0).astype(values.dtype), leading)
    raise refused


def labels_of(
    data: Samples | Sequences,
    shape: tuple[int, ...],
    num_members: int,
    model: Any,
    inside: Any = None,
) -> Any:
    """The labels of rows [N], or of steps [B, T], in the dtype that the model will have.

    None if nothing is known.

    Raises:
        ValueError: as `labels.check_labels` does.
    """
    if data.labels is None:
        return None
    dtype = em.floating_dtype(data, model)
    return check_labels(as_array(data.labels), shape, num_members, dtype, inside)


def weight_of(weight: Any, number: int, of_what: str) -> Any:
    """Weights of so many rows or sequences, or a ValueError; None if there are none."""
    if weight is None:
        return None
    weight = as_array(weight)
    if weight.shape != (number,):
        raise ValueError(f"sample_weight must be [{number}], got {list(weight.shape)}.")
    bad = ~((weight >= 0) & (weight < np.inf))
    remedy = f"0 leaves a {of_what} out."
    axes = 1 if of_what == "row" else 2
    refuse(bad, weight, "sample_weight must be finite and not negative", remedy, axes)
    if not is_traced(weight) and not np.any(weight > 0):
        raise ValueError(f"sample_weight is 0 everywhere: there is no {of_what} in the data.")
    return weight


def observed_of(data: Samples | Sequences) -> Any:
    """What is observed of every value; None for all of it.

    Raises:
        ValueError: a mask of another shape than the values, or not of truth values.
    """
    if data.observed is None:
        return None
    shape, observed = np.shape(data.values), as_array(data.observed)
    if observed.shape != shape or observed.dtype != bool:
        numbers = observed.shape == shape and observed.dtype.kind in "iuf"
        remedy = "; give booleans: `observed.astype(bool)`" if numbers else ""
        raise ValueError(
            f"observed must be True or False for every value, shape {list(shape)}, got "
            f"shape {list(observed.shape)} and dtype {observed.dtype}{remedy}."
        )
    return None if not is_traced(observed) and np.all(observed) else observed


def sequences_of(data: Any, family: Any) -> tuple[Sequences, bool]:
    """Data as `Sequences` that the family can have produced, and whether they came as several.

    One sequence is [T, *event]; a list, `Sequences` and an array with one axis more are several.

    Raises:
        ValueError: no sequence; lengths out of range; what the family refuses, by place; weights
            and labels as for rows.
    """
    event = family.event_shape
    if isinstance(data, Samples):
        raise ValueError("an HMM takes sequences, plain or as Sequences, not Samples.")
    if isinstance(data, (list, tuple)):
        data = Sequences.pack(data)
    several = isinstance(data, Sequences)
    if not several:
        values = as_array(data)
        if values.ndim == 1 and event == (1,):
            values = values[:, None]
        several = values.ndim > 1 + len(event)
        data = Sequences(values if several else values[None])
    values, lengths = as_array(data.values), data.lengths
    if values.ndim and len(values) == 0:
        raise ValueError("there is no sequence in the data.")
    if values.ndim < 2:
        return Sequences(optional.validate(family, values, 2)), several
    weight = weight_of(data.sample_weight, len(values), "sequence")
    observed, inside, there = observed_of(data), None, None
    xp: Any = jnp if is_traced((values, lengths)) else np
    if lengths is not None:
        lengths = _lengths(lengths, *values.shape[:2])
        inside = xp.arange(values.shape[1]) < lengths[:, None]
        there = inside.reshape(*inside.shape, *[1] * (values.ndim - 2))
        if observed is not None:
            everything = not is_traced((observed, there)) and np.all(observed | ~there)
            observed = None if everything else observed & there
    filled = values
    if observed is not None:
        optional.check_partial(family)
        rows = -1, *values.shape[2:]
        filled = fill(values.reshape(rows), observed.reshape(rows)).reshape(values.shape)
    if lengths is not None and values.size:  # filled with an observation, which any family admits
        filled = xp.where(there, filled, filled[xp.argmax(lengths > 0), 0])
    there = there if observed is None else observed
    if there is None:
        values = optional.validate(family, values, 2)
    else:
        values = validated(family, values, filled, there, 2)
    observed = None if observed is None else observed.reshape(values.shape)
    labels = labels_of(data, values.shape[:2], family.num_members, family, inside)
    return Sequences(values, lengths, weight, observed, labels), several


def _lengths(lengths: Any, batch: int, steps: int) -> Any:
    """The lengths of sequences padded to `steps`, or a ValueError."""
    lengths = as_array(lengths)
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"lengths must be {batch} integers, one a sequence, got shape "
            f"{list(lengths.shape)} and dtype {lengths.dtype}."
        )
    bad = (lengths < 0) | (lengths > steps)
    refuse(bad, lengths, "length out of range", f"sequences are padded to {steps} steps.")
    return lengths


def as_array(values: Any) -> Any:
    """A JAX array as it is, anything else as a NumPy array: nothing moves to a device yet.

    Raises:
        ValueError: a NumPy mask that hides something.
    """
    check_unmasked(values)
    return values if isinstance(values, jax.Array) else np.asarray(values)
