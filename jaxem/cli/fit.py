"""`jaxem fit`: the best of several fits, as a table, a file and a picture."""

import sys
from argparse import Namespace
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np

from jaxem import em, io, many
from jaxem.cli import models, output, picture, report
from jaxem.cli.columns import Choice
from jaxem.cli.ranking import ranking
from jaxem.cli.read import read
from jaxem.replacement import replace_file

UNSOUND = 1
FOLDS = 5


def run(arguments: Namespace) -> int:
    """Fit, print the tables, write what was asked for; the exit status."""
    orders, left_out = arguments.components, arguments.criterion == "cv"
    if arguments.folds is not None and not left_out:
        raise ValueError("--folds is for --criterion cv")
    folds = arguments.folds or FOLDS
    kinds = [
        models.kind_of(arguments.model, covariance, arguments.mixtures)
        for covariance in arguments.covariance or (None,)
    ]
    kind = kinds[0]  # all take the same data
    output.check(arguments.out, "--out", [arguments.data, arguments.plot])
    output.check(arguments.plot, "--plot", [arguments.data])
    picture.check(arguments.plot)
    table = read(arguments.data, Choice.of(arguments, max(orders)))
    models.check_values(table, kind.innermost)
    models.check_start(table, kind, max(orders))
    models.check_labels(table, orders)
    shape = models.event_shape(kind.innermost, table.values.shape[1])
    rows = models.rows_of(table, kind.innermost, shape, arguments.dtype)
    data = models.sequences_of(rows, table) if kind.is_hmm else rows
    if left_out:
        models.check_folds(data, table.source, folds, max(orders) * kind.mixtures)
    candidates = [models.Candidate(kind, order) for kind in kinds for order in orders]
    result = _search(data, candidates, folds, arguments)
    chosen, best = _best(result)
    lines = []
    if len(candidates) > 1 or left_out:
        covariances = [models.covariance_of(each.kind.innermost) for each in candidates]
        lines = [ranking(result, covariances, folds), ""]
    lines.append(report.report(best, int(result.found()[0, chosen]), table, arguments))
    if not np.any(result.is_sound):
        output.print_text("\n".join(lines))
        print("jaxem: no start led to a sound fit; nothing was written", file=sys.stderr)
        return UNSOUND
    if arguments.out is not None:
        io.save(arguments.out, best.model)
        lines.append(f"{'model in':<{report.LABEL}}{arguments.out}")
    if arguments.plot is not None:
        several = result if len(candidates) > 1 else None
        drawn = picture.draw(best.model, table, data, arguments.plot, several)
        replace_file(arguments.plot, lambda file: file.write(drawn))
        lines.append(f"{'picture in':<{report.LABEL}}{arguments.plot}")
    output.print_text("\n".join(lines))  # last: the reader of a pipe may have gone away
    return 0


def _search(
    data: Any, candidates: list[models.Candidate], folds: int, arguments: Namespace
) -> many.SearchResult:
    """Every candidate fitted from all its starts."""
    parts = folds if arguments.criterion == "cv" else 0
    with _bar(len(candidates) * arguments.restarts * (1 + parts)) as bar:
        return many.search(
            jax.random.key(arguments.seed),
            data,
            candidates,
            restarts=arguments.restarts,
            criterion=arguments.criterion.replace("-", "_"),
            folds=folds,
            tol=arguments.tol,
            max_steps=arguments.max_steps,
            progress=bar or False,
        )


def _best(result: many.SearchResult) -> tuple[int, em.EMResult]:
    """The candidate that comes first, by number, and its best fit, sound or not."""
    chosen = int(result.ranking()[0])
    restart = int(result.best_restart[0, chosen])
    return chosen, jax.tree.map(lambda leaf: leaf[0, restart], result.fits[chosen])


def _bar(total: int) -> Any:
    """A bar on standard error if that is a terminal and tqdm is there; it clears itself."""
    if not sys.stderr.isatty():
        return nullcontext()
    try:
        return many.Bar(total, leave=False)
    except ModuleNotFoundError:
        return nullcontext()
