"""The table that `jaxem fit` prints: plain text, 80 columns."""

import textwrap
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxem import families
from jaxem.cli import models
from jaxem.cli.table import Table
from jaxem.em import EMResult
from jaxem.many.result import nearness
from jaxem.mixture import Mixture

WIDTH = 80
MOST_ROWS = 24  # of one block; the rest is in the model file
MOST_MATRICES = 40  # rows of covariance matrices in all; beyond, standard deviations alone
MOST_STATES = 8  # whose transition matrix goes on the page
LABEL = 16  # width of the first column of what is no matrix


def report(best: EMResult, found: int, table: Table, arguments: Namespace) -> str:
    """Data, model, parameters, criteria and how the fit ended.

    `found` says how many of the restarts found this optimum.
    """
    head = [
        *_line("data", _data(table)),
        *_incomplete(table),
        *_line("model", _model(best.model, arguments)),
        *_line("seed", f"{arguments.seed}"),
        *_line("dtype", arguments.dtype),
    ]
    parameters = _parameters(best.model, table.columns)
    blocks = [head, *parameters, _ending(best, found, table, arguments)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _line(label: str, text: str) -> list[str]:
    indent = " " * LABEL
    lines = textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [label + lines[0][len(label) :], *lines[1:]]


def _data(table: Table) -> str:
    rows, width = table.values.shape
    columns = ", ".join(table.columns[:6]) + (", ..." if width > 6 else "")
    text = f"{table.source}, {rows} rows, {width} column{'s' * (width > 1)} ({columns})"
    if table.ids is not None:
        text += f", {len(table.groups())} sequences by {table.sequence}"
    return text


def _incomplete(table: Table) -> list[str]:
    """What is missing of the data, and what is known besides them."""
    lines = []
    if table.observed is not None:
        count, size = int(np.sum(~table.observed)), table.observed.size
        lines += _line("missing", f"{count} of {size} entries, {100 * count / size:.3g} per cent")
    if table.weights is not None:
        lines += _line("weights", f"{table.weights.name}, {_num_observations(table):.10g} in all")
    if table.labels is not None:
        known = int(np.sum(table.labels.cells >= 0))
        lines += _line("labels", f"{table.labels.name}, {known} of {len(table.values)} rows known")
    return lines


def _num_observations(table: Table) -> float:
    """The n of BIC."""
    return len(table.values) if table.weights is None else float(table.weights.cells.sum())


def _model(model: Any, arguments: Namespace) -> str:
    what = "component" if isinstance(model, Mixture) else "state"
    count = models.emission(model).num_members
    text = f"{arguments.model}, {count} {what}{'s' * (count > 1)}"
    family = models.emission(model)
    if isinstance(family, families.MixtureFamily):
        inside = family.weights.logits.shape[1]
        text += f" of {inside} component{'s' * (inside > 1)} each"
    covariance = models.covariance_of(type(models.innermost(family)))
    if covariance is not None:
        text += f", {covariance} covariance"
    return text


def _ending(best: EMResult, found: int, table: Table, arguments: Namespace) -> list[str]:
    count = int(best.num_parameters)
    rows: Any = _num_observations(table)  # weights may sum to what is no whole number
    log_likelihood = float(best.log_likelihood)
    lines = [
        *_line("log-likelihood", f"{log_likelihood:.4f}"),
        *_line("AIC", f"{float(best.aic):.4f} with {count} free parameters"),
        *_line("BIC", f"{float(best.bic(rows)):.4f} with n = {rows:.10g}"),
        *_line("steps", f"{int(best.num_steps)}"),
        *_line("ended", best.outcome),
    ]
    if arguments.restarts > 1:
        near = nearness(log_likelihood)
        text = f"{arguments.restarts}, {found} of them within {near:.2g} of this log-likelihood"
        lines += _line("restarts", text)
    return lines


def _parameters(model: Any, columns: Sequence[str]) -> list[list[str]]:
    """Blocks of lines, one for every table of numbers."""
    family = models.emission(model)
    rows = [str(k) for k in range(family.num_members)]
    if isinstance(model, Mixture):
        return _members(family, "component", rows, columns, np.asarray(model.weights.probs))
    initial = np.exp(np.asarray(model.log_initial))
    moves = np.asarray(model.transition.probs)
    title, names = "initial probabilities, and transition probabilities to each state", rows
    if len(rows) > MOST_STATES:
        title = "initial probabilities, and probabilities to stay (the model holds the others)"
        names, moves = ["stays"], np.diagonal(moves, axis1=-2, axis2=-1).reshape(-1, 1)
    chain = _matrix(title, "state", rows, names, moves, decimals=4, first=("initial", initial))
    if not isinstance(family, families.MixtureFamily):
        return [chain, *_members(family, "state", rows, columns, None)]
    weights = np.asarray(family.weights.probs)
    rows = [f"{k}.{m}" for k in range(len(weights)) for m in range(weights.shape[1])]
    inside = _members(family.components, "component", rows, columns, weights.reshape(-1))
    return [chain, *inside]


def _members(
    family: Any,
    label: str,
    rows: Sequence[str],
    columns: Sequence[str],
    weights: np.ndarray | None,
) -> list[list[str]]:
    """Parameters of the members of a family, with their weights if they have any."""
    first = None if weights is None else ("weight", weights)
    prefix = "" if weights is None else "weights and "

    def block(title: str, numbers: Any, names: Sequence[str] = columns, **more: Any) -> list[str]:
        numbers = np.reshape(numbers, (-1, len(names)))
        return _matrix(title, label, rows if len(numbers) > 1 else ["all"], names, numbers, **more)

    if isinstance(family, families.Poisson):
        return [_matrix(f"{prefix}rates", label, rows, columns, _flat(family.rate), first=first)]
    if isinstance(family, families.Bernoulli | families.Categorical):
        symbols = [str(v) for v in range(family.logits.shape[-1])]
        binary = isinstance(family, families.Bernoulli)
        title = "probabilities of a 1" if binary else "probabilities of the symbols"
        names, probs = columns if binary else symbols, _flat(family.probs)
        return [_matrix(prefix + title, label, rows, names, probs, decimals=4, first=first)]
    blocks = [_matrix(f"{prefix}means", label, rows, columns, family.mean, first=first)]
    if isinstance(family, families.DiagonalGaussian):
        return [*blocks, block("variances", family.variance)]
    if isinstance(family, families.SphericalGaussian):
        return [*blocks, block("variances", family.variance, ["every column"])]
    tied = isinstance(family, families.TiedGaussian)
    size = len(columns)
    covariance = np.reshape(family.covariance, (-1, size, size))[: 1 if tied else None]
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    if size == 1:
        return [*blocks, block("variances", variance)]
    if len(covariance) * size > MOST_MATRICES:
        title = "standard deviations (the model holds the covariances)"
        return [*blocks, block(title, np.sqrt(variance))]
    titles = [f"covariance of {label} {row}" for row in rows]
    titles = [f"covariance of every {label}"] if tied else titles
    return blocks + [
        _matrix(title, "", columns, columns, matrix)
        for title, matrix in zip(titles, covariance, strict=True)
    ]


def _flat(numbers: Any) -> np.ndarray:
    return np.reshape(numbers, (len(numbers), -1))


def _matrix(
    title: str,
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    numbers: Any,
    *,
    decimals: int | None = None,
    first: tuple[str, Any] | None = None,
) -> list[str]:
    """A titled block: a line per row, its columns side by side as far as the page is wide.

    What does not fit goes below, as R prints it; rows beyond `MOST_ROWS` are counted only.
    `decimals` is for probabilities; other numbers get five digits.  `first` is a column of
    probabilities before the others.
    """
    numbers = np.asarray(numbers)
    names = [_shortened(row) for row in rows[:MOST_ROWS]]
    form = ".5g" if decimals is None else f".{decimals}f"
    cells = [[format(float(number), form) for number in row] for row in numbers[:MOST_ROWS]]
    heads = [_shortened(column) for column in columns]
    if first is not None:
        heads = [first[0], *heads]
        cells = [[f"{float(p):.4f}", *row] for p, row in zip(first[1], cells, strict=False)]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    margin = max(len(corner), *map(len, names))
    lines, at = [title], 0
    while at < len(widths) and len(lines) < 2 * MOST_ROWS:
        end, used = at, margin + 2
        while end < len(widths) and (end == at or used + widths[end] + 2 <= WIDTH):
            used += widths[end] + 2
            end += 1
        for name, row in zip([corner, *names], [heads, *cells], strict=True):
            shown = "".join(f"  {row[i]:>{widths[i]}}" for i in range(at, end))
            lines.append(f"  {name:>{margin}}{shown}")
        at = end
    hidden = []
    if len(numbers) > MOST_ROWS:
        hidden.append(f"{len(numbers) - MOST_ROWS} more rows")
    if at < len(widths):
        hidden.append(f"{len(widths) - at} more columns")
    return lines if not hidden else [*lines, f"  ... and {' and '.join(hidden)}"]


def _shortened(name: str, most: int = 20) -> str:
    return name if len(name) <= most else name[: most - 1] + "~"
