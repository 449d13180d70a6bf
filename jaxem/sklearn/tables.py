"""Probabilities and rates as leaves of models: logarithms, of which -inf is one."""

from typing import Any

import numpy as np

from jaxem.families import Categorical


def log_of(values: Any) -> Any:
    """The logarithm of numbers from 0, on the host; a 0 is a structural zero."""
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(values))


def table_of(probs: Any, dtype: Any) -> Categorical:
    """A table of these probabilities; those that are 0 stay so."""
    return Categorical(log_of(np.asarray(probs, dtype)))


def probs_of(table: Categorical) -> np.ndarray:
    """The probabilities of a table, which sum to 1 along the last axis."""
    probs = np.exp(np.asarray(table.logits))
    return probs / probs.sum(-1, keepdims=True)


def num_free(probs: Any) -> int:
    """Free parameters of a table of probabilities: possible entries less one a row."""
    possible = np.asarray(probs) > 0
    return int(np.sum(possible) - np.sum(np.any(possible, -1)))
