"""The models that the command line knows: which family, which data, which start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array

from jaxem import families, initialize
from jaxem.cli.table import Table
from jaxem.data import Samples, Sequences
from jaxem.hmm import HMM
from jaxem.mixture import Mixture

MAX_SYMBOLS = 10**6  # a larger symbol is taken for a measurement, not for a code
GAUSSIANS = {
    "full": families.Gaussian,
    "tied": families.TiedGaussian,
    "diagonal": families.DiagonalGaussian,
    "spherical": families.SphericalGaussian,
}
OTHERS = {
    "poisson": families.Poisson,
    "bernoulli": families.Bernoulli,
    "categorical": families.Categorical,
}


@dataclass(frozen=True)
class Kind:
    """A kind of model, before it has parameters."""

    is_hmm: bool
    family: Any  # a family class, or `MixtureFamily.of(family, M)`
    innermost: Any  # the family class itself
    mixtures: int = 1  # components inside every state


@dataclass(frozen=True)
class Candidate:
    """A kind of model with a number of components or states, as `search` takes it."""

    kind: Kind
    num_components: int

    def __call__(self, key: Array, data: Any) -> Any:
        """A model to fit from: k-means++ and one M-step away."""
        make = initialize.hmm if self.kind.is_hmm else initialize.kmeans_plus_plus
        return make(key, self.kind.family, data, self.num_components)

    @property
    def name(self) -> str:
        """Covariance, if there is one, and number."""
        covariance = covariance_of(self.kind.innermost)
        return f"{'' if covariance is None else covariance + ', '}K={self.num_components}"


def kind_of(name: str, covariance: str | None, mixtures: int | None) -> Kind:
    """The kind that --model, one --covariance and --mixtures name.

    Raises:
        ValueError: an option that this model does not have.
    """
    base, structure = name.rsplit("-", 1)
    if mixtures is not None and base != "gmm":
        raise ValueError(f"--mixtures is for gmm-hmm; {name} has no components inside a state")
    if base in OTHERS:
        if covariance is not None:
            raise ValueError(f"--covariance is for Gaussian models; {name} has no covariance")
        return Kind(structure == "hmm", OTHERS[base], OTHERS[base])
    inner = GAUSSIANS[covariance or "full"]
    if base != "gmm":
        return Kind(structure == "hmm", inner, inner)
    mixtures = mixtures or 2
    return Kind(True, families.MixtureFamily.of(inner, mixtures), inner, mixtures)


def covariance_of(family: Any) -> str | None:
    """What the command line calls the covariance of a family class; None: it has none."""
    return next((name for name, known in GAUSSIANS.items() if known is family), None)


def innermost(family: Any) -> Any:
    """The family itself, or the one inside a `MixtureFamily`."""
    return innermost(family.components) if isinstance(family, families.MixtureFamily) else family


def check_values(table: Table, family: Any, num_symbols: int | None = None) -> None:
    """Refuse entries that no member of this family class can have produced.

    Raises:
        ValueError: the message names file, row and column.
    """
    values = table.values
    if family is families.Categorical:
        if values.shape[1] != 1:
            raise ValueError(
                f"{table.source}: a categorical model takes one column of symbols, got "
                f"{', '.join(table.columns)}; choose one with --columns"
            )
        limit = MAX_SYMBOLS if num_symbols is None else num_symbols
        legal = (values >= 0) & (values == np.round(values)) & (values < limit)
        last = "..." if num_symbols is None else f"up to {num_symbols - 1} in this model"
        table.refuse(~legal, f"symbols are whole numbers 0, 1, {last}")
    elif family is families.Poisson:
        table.refuse((values < 0) | (values != np.round(values)), "counts are whole numbers >= 0")
    elif family is families.Bernoulli:
        table.refuse((values != 0) & (values != 1), "Bernoulli models take 0 and 1")


def check_start(table: Table, kind: Kind, num_components: int) -> None:
    """Refuse data too poor for a model of this kind.

    Raises:
        ValueError: nothing observed, or nothing in some column; more components than rows; a
            Gaussian of a column that never varies.
    """
    there = np.ones(table.values.shape, bool) if table.observed is None else table.observed
    if table.weights is not None:
        there = there & (table.weights.cells > 0)[:, None]
    of_rows = "in every row" if table.weights is None else "in every row of positive weight"
    if not there.any():
        raise ValueError(
            f"{table.source}: every entry is missing {of_rows}: there is nothing to fit"
        )
    unseen = np.flatnonzero(~there.any(0))
    if len(unseen):
        raise ValueError(
            f"{table.source}: column {table.columns[unseen[0]]} is empty {of_rows}; "
            "leave it out with --columns"
        )
    rows, needed = int(there.any(1).sum()), num_components * kind.mixtures
    if needed > rows:
        inside = "" if kind.mixtures == 1 else f" with --mixtures {kind.mixtures}"
        but = "" if rows == len(there) else " that count and are not empty"
        raise ValueError(
            f"--components {num_components}{inside} needs at least {needed} rows, "
            f"{table.source} has {rows}{but}"
        )
    if kind.innermost in GAUSSIANS.values():
        highest = np.where(there, table.values, -np.inf).max(0)
        still = np.flatnonzero(highest == np.where(there, table.values, np.inf).min(0))
        if len(still):
            value = table.values[np.argmax(there[:, still[0]]), still[0]]
            where = of_rows if there.all() else "wherever it counts and is not empty"
            raise ValueError(
                f"{table.source}: column {table.columns[still[0]]} holds {value} {where}, "
                "so it has no variance; leave it out with --columns"
            )


def check_labels(table: Table, orders: Sequence[int]) -> None:
    """Refuse a label that the smallest of several models has no component for.

    Raises:
        ValueError: the message names the label and the number of components.
    """
    if table.labels is None:
        return
    largest, least = int(table.labels.cells.max()), min(orders)
    if largest >= least:
        raise ValueError(
            f"{table.source}: column {table.labels.name} (--labels) holds {largest}, counted from "
            f"0, so --components {least} are too few; begin at {largest + 1}"
        )


def check_folds(data: Samples | Sequences, source: str, folds: int, needed: int) -> None:
    """Refuse data of which so many folds cannot be left out in turn.

    Raises:
        ValueError: fewer rows (or sequences) that count than folds; fewer rows than the largest of
            the models has components, `needed`, once a fold is left out.
    """
    counts = np.ones(len(data.values), bool)
    if data.sample_weight is not None:
        counts = np.asarray(data.sample_weight) > 0
    if isinstance(data, Sequences) and data.lengths is not None:
        counts = counts & (np.asarray(data.lengths) > 0)
    number, what = int(counts.sum()), "rows" if isinstance(data, Samples) else "sequences"
    if number < folds:
        raise ValueError(
            f"--criterion cv with --folds {folds} needs {folds} {what} or more to leave out in "
            f"turn, {source} has {number}"
        )
    left = number - -(-number // folds)
    if isinstance(data, Samples) and left < needed:
        raise ValueError(
            f"--criterion cv with --folds {folds} fits to {left} rows of {source}, too few for "
            f"{needed} components"
        )


def rows_of(table: Table, family: Any, event_shape: tuple[int, ...], dtype: str) -> Samples:
    """The rows as a family of this class takes them: [N, *event_shape], integers if symbols."""
    shape = len(table.values), *event_shape
    values = table.values.reshape(shape)
    return Samples(
        values.astype(np.int32 if family is families.Categorical else dtype),
        None if table.weights is None else table.weights.cells.astype(dtype),
        None if table.observed is None else table.observed.reshape(shape),
        labels=None if table.labels is None else table.labels.cells,
    )


def sequences_of(rows: Samples, table: Table) -> Sequences:
    """The rows of a table as the sequences that they are.

    Raises:
        ValueError: weights that differ within a sequence; the message names two rows.
    """
    groups = table.groups()
    table.check_weights_of(groups)
    lengths = np.array([len(group) for group in groups])
    inside = np.arange(lengths.max()) < lengths[:, None]
    row = np.zeros(inside.shape, int)  # which is at each step; past the end the first, say
    row[inside] = np.concatenate(groups)
    return Sequences(
        rows.values[row],
        None if inside.all() else lengths,
        None if rows.sample_weight is None else rows.sample_weight[row[:, 0]],
        None if rows.observed is None else rows.observed[row],
        labels=None if rows.labels is None else np.where(inside, rows.labels[row], -1),
    )


def event_shape(family: Any, num_columns: int) -> tuple[int, ...]:
    """Shape of an observation for a family class that is still without parameters."""
    if family in GAUSSIANS.values():
        return (num_columns,)
    return () if num_columns == 1 else (num_columns,)


def emission(model: Mixture | HMM) -> Any:
    """The family of a model: its components, or what its states emit."""
    return model.components if isinstance(model, Mixture) else model.emission
