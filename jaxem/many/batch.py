"""Several data sets, of one size or of many, as one."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxem.data import Samples, Sequences
from jaxem.labels import UNKNOWN
from jaxem.observations import as_array
from jaxem.pytree import pytree


@pytree
class Batch:
    """Several data sets, which are fitted apart.

    Either a list of whatever `fit` takes, of any sizes, or one array (one `Samples`, one
    `Sequences`) with a leading axis more.  A list given to an HMM without `Batch` is one data set
    of several sequences; `Batch` around it makes each of them a data set.

    Examples:
        >>> import numpy as np, jaxem
        >>> len(jaxem.Batch([np.zeros((5, 2)), np.zeros((7, 2))]))
        2
        >>> len(jaxem.Batch(np.zeros((10, 5, 2))))
        10
    """

    data: Any

    def __len__(self) -> int:
        """How many data sets."""
        if isinstance(self.data, (list, tuple)):
            return len(self.data)
        if isinstance(self.data, Iterator):
            raise ValueError("Batch takes a list of data sets, not an iterator: put list() around.")
        return len(jax.tree.leaves(self.data)[0])

    def __getitem__(self, index: int) -> Any:
        """One of them, as `fit` takes it."""
        if isinstance(self.data, (list, tuple)):
            return self.data[index]
        if not isinstance(self.data, (Samples, Sequences)):
            return as_array(self.data)[index]
        return jax.tree.map(lambda part: part[index], self.data)


def stacked(model: Any, batch: Batch) -> Any:
    """The data sets checked and wrapped by the model, with a leading axis.

    Smaller ones are padded: with rows of weight 0, or sequences of length 0.

    Raises:
        ValueError: what `model.validate` refuses, and in which data set it is; no data set at all.
    """
    if len(batch) == 0:
        raise ValueError("Batch holds no data set.")
    if isinstance(batch.data, (list, tuple)):
        return _padded([_validated(model, batch, index) for index in range(len(batch))])
    data = batch.data
    if not isinstance(data, (Samples, Sequences)):
        data = as_array(data)
        if data.ndim < 2:
            raise ValueError(f"Batch needs an axis of data sets before the rows, got {data.shape}.")
    first = _validated(model, batch, 0)
    plain = not isinstance(data, (Samples, Sequences)) or len(jax.tree.leaves(data)) == 1
    if isinstance(first, (Samples, Sequences)) and plain:
        return _at_once(model, batch, jax.tree.leaves(data)[0], first)
    return _padded([_validated(model, batch, index) for index in range(len(batch))])


def _at_once(model: Any, batch: Batch, values: Any, first: Any) -> Any:
    """Data sets of one shape checked as the rows, or sequences, of one."""
    number, *shape = np.shape(first.values)
    try:
        checked = model.validate(type(first)(values.reshape(len(batch) * number, *shape)))
    except ValueError:
        for index in range(len(batch)):  # in which of them
            _validated(model, batch, index)
        raise
    return type(first)(checked.values.reshape(len(batch), number, *shape))


def _validated(model: Any, batch: Batch, index: int) -> Any:
    try:
        return model.validate(batch[index])
    except ValueError as error:
        raise ValueError(f"data set {index} (counted from 0): {error}") from None


def _padded(sets: list[Any]) -> Any:
    """Validated data sets stacked, the smaller ones padded."""
    first = sets[0]
    if not isinstance(first, (Samples, Sequences)):
        return jax.tree.map(lambda *parts: jnp.stack(parts), *sets)
    sets = _labelled([replace(one, groups=None) for one in sets])
    # What one data set says, the others say as well: that all is there, counts once, is unknown.
    needs = {
        entry.name
        for entry in fields(first)
        if any(getattr(one, entry.name) is not None for one in sets)
    }
    shapes = np.array([np.shape(one.values) for one in sets])
    largest = tuple(shapes.max(0))
    if np.any(shapes != shapes[:1]):
        needs.add("sample_weight" if isinstance(first, Samples) else "lengths")
    complete = [_with(one, needs) for one in sets]
    names = [entry.name for entry in fields(first) if entry.name in needs]
    return type(first)(
        **{name: _stack([getattr(one, name) for one in complete], largest) for name in names}
    )


def _with(data: Samples | Sequences, needs: set[str]) -> Any:
    """The data with every field that is needed, said explicitly."""
    shape = np.shape(data.values)
    said = {}
    if "sample_weight" in needs and data.sample_weight is None:
        said["sample_weight"] = np.ones(shape[0])
    if "observed" in needs and data.observed is None:
        said["observed"] = np.ones(shape, bool)
    if "lengths" in needs and isinstance(data, Sequences) and data.lengths is None:
        said["lengths"] = np.full(shape[0], shape[1])
    return replace(data, **said)


def _labelled(sets: list[Any]) -> list[Any]:
    """The data sets, with labels that say nothing where only others have some."""
    known = [one.labels for one in sets if one.labels is not None]
    if not known:
        return sets
    if len({np.ndim(labels) for labels in known}) > 1:
        raise ValueError("labels must be integers in every data set, or soft in every one.")
    soft = np.issubdtype(known[0].dtype, np.floating)
    width = np.shape(known[0])[-1:] if soft else ()

    def nothing(one: Any) -> np.ndarray:
        shape = np.shape(one.values)[: 1 if isinstance(one, Samples) else 2]
        return np.ones((*shape, *width), known[0].dtype) if soft else np.full(shape, UNKNOWN)

    return [replace(one, labels=nothing(one)) if one.labels is None else one for one in sets]


def _stack(parts: list[Any], largest: tuple[int, ...]) -> np.ndarray:
    """Parts in one array, each padded with zeros to the leading axes of `largest`."""
    parts = [np.asarray(part) for part in parts]
    rank = min(parts[0].ndim, len(largest))
    shape = (*largest[:rank], *parts[0].shape[rank:])
    whole = np.zeros((len(parts), *shape), np.result_type(*parts))
    for place, part in zip(whole, parts, strict=True):
        place[tuple(map(slice, part.shape))] = part
    return whole
