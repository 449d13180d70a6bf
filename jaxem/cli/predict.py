"""`jaxem predict`: the component or state of every row."""

from argparse import Namespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxem import families, io
from jaxem.cli import models, output
from jaxem.cli.read import read
from jaxem.cli.table import Table
from jaxem.hmm import HMM
from jaxem.mixture import Mixture

NOWHERE = -1  # the component of a row that the model rules out


def run(arguments: Namespace) -> int:
    """Write a row for every row of the data; the exit status."""
    output.check(arguments.out, "--out", [arguments.data, arguments.model])
    model = load(arguments.model)
    table = read(arguments.data, arguments.columns, arguments.sequence)
    family = models.innermost(models.emission(model))
    _check_columns(table, family, arguments.model)
    symbolic = isinstance(family, families.Categorical)
    models.check_values(table, type(family), family.logits.shape[-1] if symbolic else None)
    rows = models.rows_of(table, type(family), family.event_shape, "float64")
    if isinstance(model, Mixture):
        label, member, probability = "component", *_components(model, rows)
    else:
        label, member, probability = "state", *_states(model, rows, table.groups())
    header = [label, "probability"]
    columns = [member.astype(str), [f"{p:.6g}" for p in probability]]
    if table.ids is not None:
        header, columns = [str(table.sequence), *header], [table.ids, *columns]
    output.write_csv(arguments.out, header, columns)
    return 0


def _check_columns(table: Table, family: Any, path: str) -> None:
    expected = int(np.prod(family.event_shape))
    if len(table.columns) != expected:
        raise ValueError(
            f"{table.source}: {len(table.columns)} columns ({', '.join(table.columns)}), but the "
            f"model in {path} takes {expected}; choose with --columns"
        )


def _components(model: Mixture, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most probable component of every row, and its probability."""
    responsibilities = np.asarray(model.responsibilities(rows))
    probability = responsibilities.max(axis=1)
    return np.where(probability > 0, responsibilities.argmax(axis=1), NOWHERE), probability


def _states(
    model: HMM, rows: np.ndarray, groups: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The state of every row on its sequence's best path, and its probability given the data."""
    data = models.sequences_of(rows, groups)
    log_prob, path = map(np.asarray, model.viterbi(data))
    smoothed = np.asarray(model.smooth(data))
    if len(groups) == 1:
        log_prob, path, smoothed = log_prob[None], path[None], smoothed[None]
    state, probability = np.full(len(rows), NOWHERE), np.zeros(len(rows))
    for group, possible, states, probs in zip(
        groups, log_prob > -np.inf, path, smoothed, strict=True
    ):
        if possible:
            steps = np.arange(len(group))
            state[group] = states[: len(group)]
            probability[group] = probs[steps, states[: len(group)]]
    return state, probability


def load(path: str) -> Mixture | HMM:
    """The model in a file.

    Raises:
        ValueError: no model file, or a part of a model.
        OSError: it cannot be read.
    """
    model = io.load(path)
    if not isinstance(model, Mixture | HMM):
        raise ValueError(f"{path}: holds a {type(model).__name__}; expected a Mixture or an HMM")
    return jax.tree.map(jnp.asarray, model)
