"""What starts take as data, checked on the host as far as it is at hand: traced data are not."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxem import observations
from jaxem.data import Samples, is_traced, refuse
from jaxem.families import Categorical, optional
from jaxem.families.categorical import CategoricalOf
from jaxem.families.mixture_family import MixtureOf
from jaxem.platform import is_cpu


def innermost(family: Any) -> Any:
    """The family class itself, or the one inside `MixtureFamily.of`."""
    return innermost(family.family) if hasattr(family, "family") else family


def is_symbolic(family: Any) -> bool:
    """Whether observations are symbols, between which there is no distance."""
    kind = innermost(family)
    return kind is Categorical or isinstance(kind, CategoricalOf)


def name_of(family: Any) -> str:
    """What somebody would type to get this kind of family."""
    if isinstance(family, MixtureOf):
        return f"MixtureFamily.of({name_of(family.family)}, {family.num_components})"
    if isinstance(family, CategoricalOf):
        return f"Categorical.of({family.num_symbols})"
    return getattr(family, "__name__", str(family))


def parts_of(family: Any) -> tuple[Any, int]:
    """The kind of family whose members are fitted, and how many of them a component has."""
    return (family.family, family.num_components) if isinstance(family, MixtureOf) else (family, 1)


def as_vectors(family: Any, values: Any) -> Any:
    """Plain numbers [N] as rows [N, 1] where the family wants rows."""
    located = hasattr(innermost(family), "translate")
    return values[:, None] if values.ndim == 1 and located else values


def on_host(values: Any, *, needed: bool = True) -> Any:
    """A NumPy array unless it is traced, or on an accelerator and not `needed`.

    Under a trace JAX makes a tracer of all that it computes, also from what is known.
    """
    values = observations.as_array(values)
    return values if is_traced(values) or not (needed or is_cpu()) else np.asarray(values)


def array_module(*arrays: Any) -> Any:
    """NumPy where all are on the host, else `jax.numpy`."""
    on_host = all(array is None or isinstance(array, np.ndarray) for array in arrays)
    return np if on_host else jnp


def at_hand(data: Any, family: Any) -> Any:
    """`Samples` or `Sequences` with all that is known on the host; values on a CPU only."""
    parts = {
        name: None if getattr(data, name) is None else on_host(getattr(data, name))
        for name in ("sample_weight", "observed", "labels")
    }
    return replace(data, values=on_host(data.values, needed=is_symbolic(family)), **parts)


def rows_of(data: Any, family: Any, num_components: int) -> tuple[Samples, Any]:
    """Data as `Samples` that the family can have produced, and the family with its symbols counted.

    Raises:
        ValueError: data the family cannot have produced, labels or a K out of range, weights that
            count nothing, traced symbols whose number is not stated.
    """
    data = at_hand(data if isinstance(data, Samples) else Samples(data), family)
    observed, seen = observations.observed_of(data), data.values
    if observed is not None:  # 0 until the rest is checked, so that errors name what came
        seen = array_module(observed, seen).where(observed, seen, 0).astype(seen.dtype)
    seen = as_vectors(family, seen)
    seen = optional.finite_rows(seen, seen.shape[1:])
    weight = observations.weight_of(data.sample_weight, len(seen), "row")
    labels = observations.labels_of(data, seen.shape[:1], num_components, None)
    if innermost(family) is Categorical:
        family = _with_symbols(family, _count_symbols(seen))
    number = len(seen)
    if weight is not None and not is_traced(weight):
        number = np.count_nonzero(weight > 0)
    if not 1 <= num_components <= number:
        raise ValueError(
            f"the number of components must be from 1 to the number of rows that count, "
            f"{number}; got {num_components}."
        )
    kind, inside = parts_of(family)
    row = jax.ShapeDtypeStruct((1, *seen.shape[1:]), jax.dtypes.canonicalize_dtype(seen.dtype))
    default = jax.dtypes.canonicalize_dtype(float)
    seen = optional.validate(_shaped(kind, row, num_components * inside, default), seen)
    if observed is not None:
        observed = observed.reshape(seen.shape)
        _check_observed(observed, weight)
    return Samples(seen, weight, observed, labels), family


def _count_symbols(seen: Any) -> int:
    if is_traced(seen):
        raise ValueError(
            "the number of symbols cannot be read off traced data; state it: Categorical.of(V)."
        )
    refuse(seen < 0, seen, "symbol out of range", "symbols are integers from 0.")
    return int(seen.max(initial=0)) + 1


def _with_symbols(family: Any, num_symbols: int) -> Any:
    """The kind of family over so many symbols, those never seen ruled out."""
    if family is Categorical:
        return CategoricalOf(num_symbols, ruled_out=True)
    return replace(family, family=_with_symbols(family.family, num_symbols))


@lru_cache(maxsize=256)
def _shaped(kind: Any, row: jax.ShapeDtypeStruct, num_members: int, _: Any) -> Any:
    """Members without numbers: what checks of shape and range need, as costly as a trace.

    The last argument, JAX's default floating dtype, tells what another would make of the rest.
    """
    return jax.eval_shape(lambda x: kind.pooled(x, num_members), row)


def _check_observed(observed: Any, weight: Any) -> None:
    """Raise a ValueError if a column is never observed in a row that counts."""
    if is_traced((observed, weight)):
        return
    if weight is not None:
        observed = observed & (weight > 0).reshape(-1, *[1] * (observed.ndim - 1))
    seen = np.any(observed, 0)
    if not np.all(seen):
        where = f"column {np.argmin(seen)} is" if seen.ndim else "the data are"
        raise ValueError(f"{where} never observed: there is nothing to start from; leave that out.")
