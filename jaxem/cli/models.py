"""The models that the command line knows: which family, which data, which start."""

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

    def start(self, key: Array, data: Any, num_components: int) -> Any:
        """A model to fit from: k-means++ and one M-step away."""
        make = initialize.hmm if self.is_hmm else initialize.kmeans_plus_plus
        return make(key, self.family, data, num_components)


def kind_of(name: str, covariance: str | None, mixtures: int | None) -> Kind:
    """The kind that --model, --covariance and --mixtures name.

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
