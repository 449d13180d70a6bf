"""What a model takes as data, checked against its family: rows, and sequences of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxem.data import Samples, Sequences, is_traced, refuse
from jaxem.families import optional
from jaxem.missing import fill


def rows_of(data: Any, family: Any) -> Samples:
    """Data as `Samples` that the family can have produced.

    Raises:
        ValueError: no row; what the family refuses, by row and column; weights that are negative,
            all 0, or not one a row.
    """
    if isinstance(data, Sequences):
        raise ValueError("a mixture takes rows, plain or as Samples, not Sequences.")
    data = data if isinstance(data, Samples) else Samples(data)
    given, observed = known_entries(data)
    if observed is not None:
        optional.check_partial(family)
    values = optional.validate(family, given)
    if observed is not None:
        observed = observed.reshape(values.shape)
    if len(values) == 0:
        raise ValueError("there is no row in the data.")
    if data.sample_weight is None:
        return Samples(values, None, observed)
    weight = as_array(data.sample_weight)
    if weight.shape != values.shape[:1]:
        raise ValueError(f"sample_weight must be [{len(values)}], got {list(weight.shape)}.")
    bad = ~((weight >= 0) & (weight < np.inf))
    refuse(bad, weight, "sample_weight must be finite and not negative", "0 leaves a row out.")
    if not is_traced(weight) and not np.any(weight > 0):
        raise ValueError("sample_weight is 0 everywhere: there is no row in the data.")
    return Samples(values, weight, observed)


def known_entries(data: Samples | Sequences) -> tuple[Any, Any]:
    """The values, something legal for the family where one is missing, and what is observed.

    None stands for all of it.

    Raises:
        ValueError: a mask of another shape than the values, or not of truth values.
    """
    values = as_array(data.values)
    if data.observed is None:
        return values, None
    observed = as_array(data.observed)
    if observed.shape != values.shape or observed.dtype != bool:
        raise ValueError(
            f"observed must be True or False for every value, shape {list(values.shape)}, got "
            f"shape {list(observed.shape)} and dtype {observed.dtype}."
        )
    if not is_traced(observed) and np.all(observed):
        return values, None
    return fill(values, observed), observed


def sequences_of(data: Any, family: Any) -> tuple[Sequences, bool]:
    """Data as `Sequences` that the family can have produced, and whether they came as several.

    One sequence is [T, *event]; a list, `Sequences` and an array with one axis more are several.

    Raises:
        ValueError: no sequence; lengths out of range; what the family refuses, by place.
    """
    event = family.event_shape
    if isinstance(data, Samples):
        raise ValueError("an HMM takes sequences, plain or as Sequences, not Samples.")
    if isinstance(data, (list, tuple)):
        data = Sequences.pack(data)
    if isinstance(data, Sequences) and known_entries(data)[1] is not None:
        raise ValueError(
            "an HMM does not take missing entries yet; leave those sequences out, or cut them."
        )
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
    if lengths is None or values.ndim < 2:
        return Sequences(optional.validate(family, values, 2)), several
    batch, steps = values.shape[:2]
    lengths = as_array(lengths)
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"lengths must be {batch} integers, one a sequence, got shape "
            f"{list(lengths.shape)} and dtype {lengths.dtype}."
        )
    bad = (lengths < 0) | (lengths > steps)
    refuse(bad, lengths, "length out of range", f"sequences are padded to {steps} steps.")
    xp = jnp if is_traced((values, lengths)) else np
    inside = xp.arange(steps) < lengths[:, None]
    inside = inside.reshape(batch, steps, *[1] * (values.ndim - 2))
    if values.size:  # filled with an observation, which any family admits
        values = xp.where(inside, values, values[xp.argmax(lengths > 0), 0])
    return Sequences(optional.validate(family, values, 2), lengths), several


def as_array(values: Any) -> Any:
    """A JAX array as it is, anything else as a NumPy array: nothing moves to a device yet."""
    return values if isinstance(values, jax.Array) else np.asarray(values)
