"""What ranks fitted models: penalised likelihoods, and the likelihood of data left out."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxem.data import Samples, Sequences

LOWEST = ("aic", "bic", "icl")  # of these the smallest is best ...
HIGHEST = ("log_likelihood", "cv")  # ... and of these the largest


def check_criterion(criterion: Any) -> None:
    """Raise a ValueError unless it is one of the criteria."""
    if criterion not in LOWEST + HIGHEST:
        names = ", ".join(map(repr, LOWEST + HIGHEST))
        raise ValueError(f"criterion must be one of {names}, got {criterion!r}.")


def num_observations(data: Any, is_stacked: bool) -> np.ndarray:
    """The n of BIC: rows, or time steps, each as often as it counts; [S] of stacked data."""
    axis = int(is_stacked)
    weight = getattr(data, "sample_weight", None)
    if isinstance(data, Sequences):
        shape = np.shape(data.values)[: axis + 2]
        length = np.full(shape[:-1], shape[-1]) if data.lengths is None else data.lengths
        return np.sum(np.asarray(length) * (1.0 if weight is None else np.asarray(weight)), -1)
    if weight is not None:
        return np.sum(np.asarray(weight, float), -1)
    shape = np.shape(jax.tree.leaves(data)[0])
    return np.full(shape[:axis], float(shape[axis]))


def classification(model: Any, data: Any) -> Array:
    """The classification log-likelihood where the model has one, else NaN."""
    if hasattr(model, "classification_log_likelihood"):
        return model.classification_log_likelihood(data)
    return jnp.asarray(jnp.nan)


def folds(key: Array, data: Any, number: int) -> tuple[Any, Any]:
    """Stacked data [S] as [S · number] parts to fit to, and those left out of each.

    Rows (or sequences) that count are dealt out at random, in equal parts; a part is all data of
    its set, with weight 0 for the others.

    Raises:
        ValueError: a data set with fewer rows, or sequences, than folds; data of another kind.
    """
    if not isinstance(data, Samples | Sequences):
        raise ValueError(f"cross-validation takes rows or sequences, not {type(data).__name__}.")
    sets, units = np.shape(data.values)[:2]
    weight = np.ones((sets, units)) if data.sample_weight is None else data.sample_weight
    weight = np.asarray(weight, float)
    counts = weight > 0
    if isinstance(data, Sequences) and data.lengths is not None:
        counts = counts & (np.asarray(data.lengths) > 0)
    enough = counts.sum(1) >= number
    if not enough.all():
        what = "rows" if isinstance(data, Samples) else "sequences"
        raise ValueError(
            f"{number} folds need {number} {what} or more; data set {np.argmin(enough)} "
            f"(counted from 0) has {counts.sum(1)[np.argmin(enough)]}."
        )
    order = np.asarray(jax.random.uniform(key, (sets, units)))
    rank = np.argsort(np.argsort(np.where(counts, order, np.inf), 1), 1)
    left_out = (rank % number)[:, None] == np.arange(number)[:, None]

    def part(mask: np.ndarray) -> Any:
        masked = (mask * weight[:, None]).reshape(sets * number, units)
        whole = jax.tree.map(
            lambda leaf: np.repeat(np.asarray(leaf), number, 0), replace(data, sample_weight=None)
        )
        return replace(whole, sample_weight=masked)

    return part(~left_out), part(left_out)
