"""Columns of symbols, numbered from 0, and of counts."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import DataConversionWarning

from jaxem.data import refuse


def whole(x: np.ndarray, estimator: Any) -> np.ndarray:
    """The numbers; those that are not whole lowered to it, with a warning.

    So does scikit-learn's `CategoricalNB`, without one.

    Raises:
        ValueError: a negative number.
    """
    what = f"Negative values in data passed to X in {type(estimator).__name__}"
    refuse(x < 0, x, what, "what is counted begins with 0.")
    lowered = np.floor(x)
    if np.any((lowered != x) & ~np.isnan(x)):
        warnings.warn(
            "X has numbers that are not whole; they are taken for the whole numbers below.",
            DataConversionWarning,
            stacklevel=4,
        )
    return lowered


def check_range(x: np.ndarray, number: np.ndarray) -> None:
    """Raise a ValueError unless the symbols [N, D] of each column are below its number [D]."""
    largest = np.nanmax(x, 0, initial=-1)
    for column in np.flatnonzero(largest >= number):
        place = int(np.argmax(x[:, column] == largest[column]))
        raise ValueError(
            f"Largest symbol is {int(largest[column])} but the model only emits symbols up to "
            f"{int(number[column]) - 1} (row {place}, column {int(column)}, counted from 0)"
        )


def numbers_of(x: np.ndarray, given: Any) -> np.ndarray:
    """How many symbols each column has [D]: those given, a number or one a column, or those seen.

    Raises:
        ValueError: numbers that are not one a column; a symbol beyond them.
    """
    if given is None:
        return np.nanmax(x, 0, initial=0).astype(int) + 1
    number = np.asarray(given)
    if number.shape not in ((), (x.shape[1],)):
        raise ValueError(f"expected one number of symbols, or {x.shape[1]}, got {given}.")
    number = np.broadcast_to(number, x.shape[1:]).astype(int)
    check_range(x, number)
    return number


def shares_of(x: np.ndarray, share: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Frequencies [K, D, V] of the symbols of rows shared among K members.

    Each has one pretend row like all of them, so that no symbol that occurs is ruled out.
    """
    tables = []
    for column, size in zip(x.T, number, strict=True):
        shown = (column[:, None] == np.arange(number.max())).astype(x.dtype)
        pooled = shown.mean(0) + (np.arange(number.max()) < size) * np.finfo(x.dtype).eps
        tables.append(share.T @ shown + pooled)
    counts = np.stack(tables, 1)
    return counts / counts.sum(-1, keepdims=True)
