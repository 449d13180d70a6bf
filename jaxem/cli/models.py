"""The models that the command line knows: which family, which data, which start."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array

from jaxem import families, initialize
from jaxem.cli.table import Table
from jaxem.data import Sequences
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
        ValueError: more components than rows, or a Gaussian of a column that never varies.
    """
    rows, needed = len(table.values), num_components * kind.mixtures
    if needed > rows:
        inside = "" if kind.mixtures == 1 else f" with --mixtures {kind.mixtures}"
        raise ValueError(
            f"--components {num_components}{inside} needs at least {needed} rows, "
            f"{table.source} has {rows}"
        )
    if kind.innermost in GAUSSIANS.values():
        still = np.flatnonzero(np.ptp(table.values, axis=0) == 0)
        if len(still):
            raise ValueError(
                f"{table.source}: column {table.columns[still[0]]} holds "
                f"{table.values[0, still[0]]} in every row, so it has no variance; "
                "leave it out with --columns"
            )


def rows_of(table: Table, family: Any, event_shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The values as a family of this class takes them: [N, *event_shape], integers if symbols."""
    values = table.values.reshape(len(table.values), *event_shape)
    return values.astype(np.int32 if family is families.Categorical else dtype)


def sequences_of(rows: np.ndarray, groups: list[np.ndarray]) -> Any:
    """Rows as what an HMM takes: one sequence [T, ...], or `Sequences`."""
    parts = [rows[group] for group in groups]
    if len(parts) == 1:
        return parts[0]
    if len({len(part) for part in parts}) == 1:  # nothing to mask
        return Sequences(np.stack(parts))
    return Sequences.pack(parts)


def event_shape(family: Any, num_columns: int) -> tuple[int, ...]:
    """Shape of an observation for a family class that is still without parameters."""
    if family in GAUSSIANS.values():
        return (num_columns,)
    return () if num_columns == 1 else (num_columns,)


def emission(model: Mixture | HMM) -> Any:
    """The family of a model: its components, or what its states emit."""
    return model.components if isinstance(model, Mixture) else model.emission
