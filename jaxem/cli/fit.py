"""`jaxem fit`: the best of several fits, as a table, a file and a picture."""

import sys
from argparse import Namespace
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np

from jaxem import em, io
from jaxem.cli import models, output, picture, report
from jaxem.cli.columns import Choice
from jaxem.cli.read import read
from jaxem.replacement import replace_file

UNSOUND = 1
SAME_OPTIMUM = 0.01  # nats: fits as close as this are statistically one


def run(arguments: Namespace) -> int:
    """Fit, print the table, write what was asked for; the exit status."""
    kind = models.kind_of(arguments.model, arguments.covariance, arguments.mixtures)
    output.check(arguments.out, "--out", [arguments.data, arguments.plot])
    output.check(arguments.plot, "--plot", [arguments.data])
    picture.check(arguments.plot)
    table = read(arguments.data, Choice.of(arguments, arguments.components))
    models.check_values(table, kind.innermost)
    models.check_start(table, kind, arguments.components)
    shape = models.event_shape(kind.innermost, table.values.shape[1])
    rows = models.rows_of(table, kind.innermost, shape, arguments.dtype)
    data = models.sequences_of(rows, table) if kind.is_hmm else rows
    best, objectives = _search(kind, data, arguments)
    lines = [report.report(best, objectives, SAME_OPTIMUM, table, arguments)]
    if _is_unsound(best):
        output.print_text("\n".join(lines))
        print("jaxem: no start led to a sound fit; nothing was written", file=sys.stderr)
        return UNSOUND
    if arguments.out is not None:
        io.save(arguments.out, best.model)
        lines.append(f"{'model in':<{report.LABEL}}{arguments.out}")
    if arguments.plot is not None:
        drawn = picture.draw(best.model, table, data, arguments.plot)
        replace_file(arguments.plot, lambda file: file.write(drawn))
        lines.append(f"{'picture in':<{report.LABEL}}{arguments.plot}")
    output.print_text("\n".join(lines))  # last: the reader of a pipe may have gone away
    return 0


def _search(kind: models.Kind, data: Any, arguments: Namespace) -> tuple[em.EMResult, np.ndarray]:
    """The best fit of all starts, and where each of them ended."""
    keys = jax.random.split(jax.random.key(arguments.seed), arguments.restarts)
    best, objectives = None, []
    with _progress_bar(arguments.restarts) as bar:

        def show(steps: int, objective: float) -> None:
            # Called every ten steps also without a bar: only between calls can Ctrl-C act.
            if bar is not None:
                bar.set_postfix_str(f"step {steps}, log-likelihood {objective:.6g}")

        for key in keys:
            start = kind.start(key, data, arguments.components)
            result = em.fit(
                start, data, tol=arguments.tol, max_steps=arguments.max_steps, progress=show
            )
            objectives.append(float(result.log_likelihood + result.log_prior))
            if best is None or _rank(result) > _rank(best):
                best = result
            if bar is not None:
                bar.update()
    assert best is not None
    return best, np.array(objectives)


def _rank(result: em.EMResult) -> tuple[bool, float]:
    """Sound fits before unsound ones, then by the objective; NaN last."""
    objective = float(result.log_likelihood + result.log_prior)
    return not _is_unsound(result), objective if objective == objective else -np.inf


def _is_unsound(result: em.EMResult) -> bool:
    sound = np.isfinite(float(result.log_likelihood))
    return not sound or int(result.end) in (em.NON_FINITE, em.FELL)


def _progress_bar(total: int) -> Any:
    """A bar on standard error if that is a terminal and tqdm is there; it clears itself."""
    if not sys.stderr.isatty():
        return nullcontext()
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return nullcontext()
    return tqdm(total=total, unit="fit", leave=False, dynamic_ncols=True)
