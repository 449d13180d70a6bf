"""Which leaf entries of a model are free, which are at the edge of their range, which are
identified.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from jaxem import parameters
from jaxem.comparison.coordinates import bounded, floor_margin
from jaxem.comparison.step import Part, Step
from jaxem.families.bernoulli import Bernoulli
from jaxem.families.categorical import Categorical
from jaxem.families.poisson import Poisson


@dataclass(frozen=True)
class Layout:
    """Masks and indices into `parameters.ravel` of θ′, on the host; P entries."""

    free: np.ndarray  # [P] finite before and after the step, and not frozen
    interior: (
        np.ndarray
    )  # [P] free, and neither at an edge of its range nor on the covariance floor
    rows: tuple[np.ndarray, ...]  # the free entries of each row of logits: all-ones changes nothing
    reference: np.ndarray  # [P] for an interior logit the index of the largest of its row; else -1
    counts: np.ndarray  # [P] how many observations speak of the entry
    dimensionless: np.ndarray  # [P] logits and log-rates: a unit of theirs is 1 whatever the data
    spread: np.ndarray  # [P] their complete-data information: N p (1 − p), or events; 0 elsewhere
    part: np.ndarray  # [P] which of the step's parts the entry belongs to
    names: tuple[str, ...]  # "components.mean[0,1]"

    @property
    def identified(self) -> np.ndarray:
        """Indices of interior entries, the largest logit of each row left out: it is the unit."""
        own = np.arange(len(self.reference))
        return own[self.interior & (self.reference != own)]


def lay_out(step: Step) -> Layout:
    """The layout of a step's leaves."""
    free = parameters.free_mask(step.model, step.frozen)
    free &= parameters.free_mask(step.proposal, step.frozen)
    interior, counts, dimensionless, spread, owners, names = [], [], [], [], [], []
    rows, references, start = [], [], 0
    for part, leaf, value in leaves(step):
        size = value.size
        inside = np.broadcast_to(_inside(step, part, leaf), value.shape).ravel()
        interior.append(free[start : start + size] & inside)
        counts.append(np.broadcast_to(_along(part.counts, value), value.shape).ravel())
        kind = isinstance(part.there, Categorical | Bernoulli | Poisson)
        dimensionless.append(np.full(size, kind))
        spread.append(np.broadcast_to(_spread(part), value.shape).ravel())
        owners.append(np.full(size, step.parts.index(part)))
        prefix = f"{part.name}.{leaf}" if part.name else leaf
        names += [prefix + _place(place) for place in np.ndindex(value.shape)]
        index = start + np.arange(size).reshape(value.shape)
        reference = np.full(size, -1)
        if isinstance(part.there, Categorical):
            table = index.reshape(-1, value.shape[-1])
            for row, logits in zip(table, value.reshape(table.shape), strict=True):
                if free[row].any():
                    rows.append(row[free[row]])
                within = row[interior[-1][row - start]]
                if len(within):
                    largest = within[np.argmax(logits[np.isin(row, within)])]
                    reference[within - start] = largest
        references.append(reference)
        start += size

    def join(pieces: list[np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype), *pieces]).astype(dtype)

    return Layout(
        free,
        join(interior, bool),
        tuple(rows),
        join(references, int),
        join(counts, float),
        join(dimensionless, bool),
        join(spread, float),
        join(owners, int),
        tuple(names),
    )


def leaves(step: Step) -> Iterator[tuple[Part, str, np.ndarray]]:
    """Part, name and value in θ′ of every leaf, in their order."""
    for part in step.parts:
        for leaf, value in parameters.named_leaves(part.there):
            yield part, leaf, np.asarray(value, float)


def _place(place: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, place))}]" if place else ""


def _along(counts: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Counts of members (or rows) beside the leaf they own; their sum where all share it."""
    counts = np.asarray(counts, float)
    if value.shape[: counts.ndim] == counts.shape:
        return counts.reshape(*counts.shape, *[1] * (value.ndim - counts.ndim))
    return counts.sum()


def _spread(part: Part) -> np.ndarray:
    """What complete data say of each logit or log-rate, from the statistics."""
    if isinstance(part.there, Categorical):
        counts = np.asarray(part.stats, float)
        total = counts.sum(-1, keepdims=True)
        return counts * (1 - counts / np.where(total > 0, total, 1))
    if isinstance(part.there, Bernoulli):
        ones, zeros = (np.asarray(x, float) for x in (part.stats.successes, part.stats.failures))
        total = ones + zeros
        return ones * zeros / np.where(total > 0, total, 1)
    if isinstance(part.there, Poisson):
        return np.asarray(part.stats.events, float)
    return np.zeros(())


def _inside(step: Step, part: Part, leaf: str) -> np.ndarray:
    """Where a leaf is away from the edges of its range."""
    if isinstance(part.there, Categorical):
        return np.asarray(part.stats) > step.edge
    if isinstance(part.there, Bernoulli):
        return (np.asarray(part.stats.successes) > step.edge) & (
            np.asarray(part.stats.failures) > step.edge
        )
    if isinstance(part.there, Poisson):
        return np.asarray(part.stats.events) > step.edge
    value = np.asarray(attrgetter(leaf)(part.there))
    enough = _along(part.counts, value) > step.edge
    name = bounded(part.there).get(leaf)
    if name is not None:
        held = np.asarray(floor_margin(name, part.quantities[leaf], step.floor) <= step.eps**0.5)
        enough = enough & ~held.reshape(*held.shape, *[1] * (value.ndim - held.ndim))
    return enough
