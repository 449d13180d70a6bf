"""`jaxem predict`: the component or state of every row."""

from argparse import Namespace

import numpy as np

from jaxem.cli import model_file, models, output
from jaxem.cli.columns import Choice
from jaxem.cli.read import read
from jaxem.data import Samples, Sequences
from jaxem.hmm import HMM
from jaxem.mixture import Mixture

NOWHERE = -1  # the component of a row that the model rules out


def run(arguments: Namespace) -> int:
    """Write a row for every row of the data; the exit status."""
    output.check(arguments.out, "--out", [arguments.data, arguments.model])
    model = model_file.load(arguments.model)
    members = models.emission(model).num_members
    table = read(arguments.data, Choice.of(arguments, members))
    rows = model_file.rows_for(model, arguments.model, table, "float64")
    if isinstance(model, Mixture):
        label, member, probability = "component", *_components(model, rows)
    else:
        data = models.sequences_of(rows, table)
        label, member, probability = "state", *_states(model, data, table.groups())
    header = [label, "probability"]
    columns = [member.astype(str), [f"{p:.6g}" for p in probability]]
    if table.ids is not None:
        header, columns = [str(table.sequence), *header], [table.ids, *columns]
    output.write_csv(arguments.out, header, columns)
    return 0


def _components(model: Mixture, rows: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The most probable component of every row, and its probability."""
    responsibilities = np.asarray(model.responsibilities(rows))
    probability = responsibilities.max(axis=1)
    return np.where(probability > 0, responsibilities.argmax(axis=1), NOWHERE), probability


def _states(model: HMM, data: Sequences, groups: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The state of every row on its sequence's best path, and its probability given the data."""
    log_prob, path = map(np.asarray, model.viterbi(data))
    smoothed = np.asarray(model.smooth(data))
    number = sum(map(len, groups))
    state, probability = np.full(number, NOWHERE), np.zeros(number)
    for group, possible, states, probs in zip(
        groups, log_prob > -np.inf, path, smoothed, strict=True
    ):
        if possible:
            steps = np.arange(len(group))
            state[group] = states[: len(group)]
            probability[group] = probs[steps, states[: len(group)]]
    return state, probability
