"""Rows, weights and responsibilities as scikit-learn's estimators take and make them."""

from typing import Any

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.utils.validation import _check_sample_weight, validate_data

from jaxem.sklearn.precision import DTYPES

MISSING = ("error", "marginalize")


def check_rows(estimator: Any, x: Any, *, reset: bool, least: int = 1) -> np.ndarray:
    """Rows [N, D] in floating point, with NaN only where the estimator takes it for missing.

    Raises:
        ValueError: as scikit-learn's `validate_data` does.
    """
    options: Any = {"ensure_min_samples": least} if reset else {}
    options["ensure_all_finite"] = "allow-nan" if estimator.missing == "marginalize" else True
    checked: Any = validate_data(estimator, x, dtype=DTYPES, reset=reset, **options)
    return checked


def check_weight(weight: Any, x: np.ndarray) -> np.ndarray | None:
    """Weights [N] of the rows, none of them negative; None stays None.

    Raises:
        ValueError: as scikit-learn does; they are all 0.
    """
    if weight is None:
        return None
    weight = _check_sample_weight(weight, x, dtype=x.dtype, ensure_non_negative=True)
    if not np.any(weight > 0):
        raise ValueError("sample_weight is 0 everywhere: there is no row in the data.")
    return weight


def check_shape(values: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Raise a ValueError in scikit-learn's words unless the values have this shape."""
    if values.shape != shape:
        raise ValueError(
            f"The parameter '{name}' should have the shape of {shape}, but got {values.shape}"
        )


def observed_of(x: np.ndarray) -> np.ndarray | None:
    """Where there is no NaN; None if there is none."""
    missing = np.isnan(x)
    return ~missing if missing.any() else None


def completed(x: np.ndarray, observed: np.ndarray | None, random: Any) -> np.ndarray:
    """The rows; where an entry is missing, one of the same column that is not, drawn at random.

    Only starts are made of these.

    Raises:
        ValueError: a column of which nothing is observed.
    """
    if observed is None:
        return x
    number = observed.sum(0)
    if not np.all(number):
        raise ValueError(f"column {np.argmin(number)} is never observed; leave that out.")
    filled = x.copy()
    for column, there in enumerate(observed.T):
        filled[~there, column] = random.choice(x[there, column], int((~there).sum()))
    return filled


def responsibilities(
    x: np.ndarray, num_components: int, how: str, weight: np.ndarray | None, random: Any
) -> np.ndarray:
    """Responsibilities [N, K] to start from, times the weights.

    They draw on `random` as scikit-learn's mixtures do: the same seed gives the same start.
    """
    share = np.zeros((len(x), num_components), x.dtype)
    member = np.arange(num_components)
    if how == "kmeans":
        share[np.arange(len(x)), clusters_of(x, num_components, weight, random, 1).labels_] = 1
    elif how == "random":
        share = random.uniform(size=share.shape).astype(x.dtype)
        share /= share.sum(1, keepdims=True)
    elif how == "random_from_data":
        odds = None if weight is None else weight / weight.sum()
        if odds is not None and np.sum(odds > 0) < num_components:
            raise ValueError(
                f"sample_weight is above 0 in {np.sum(odds > 0)} rows, fewer than n_components="
                f"{num_components} to start from."
            )
        share[random.choice(len(x), num_components, replace=False, p=odds), member] = 1
    else:
        _, seeds = kmeans_plusplus(x, num_components, sample_weight=weight, random_state=random)
        share[seeds, member] = 1
    return share if weight is None else share * weight[:, None]


def clusters_of(x: np.ndarray, number: int, weight: Any, random: Any, starts: int) -> Any:
    """scikit-learn's k-means of the rows."""
    options: Any = {"n_init": starts, "random_state": random}
    return KMeans(number, **options).fit(x, sample_weight=weight)
