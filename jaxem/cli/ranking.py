"""The ranked table of candidates that `jaxem fit` prints where there are several: 80 columns."""

from collections.abc import Sequence

import numpy as np

from jaxem import iteration
from jaxem.cli.report import WIDTH
from jaxem.many import SearchResult
from jaxem.many.result import SAME_OPTIMUM

CRITERIA = {  # headers, by the names that `search` has for them
    "log_likelihood": "log-lik",
    "aic": "AIC",
    "bic": "BIC",
    "icl": "ICL",
    "cv": "CV",
}
ENDED = {  # how a fit ended, in a word
    iteration.RUNNING: "running",
    iteration.CONVERGED: "converged",
    iteration.AT_RESOLUTION: "resolved",
    iteration.OUT_OF_STEPS: "steps",
    iteration.NON_FINITE: "non-finite",
    iteration.FELL: "fell",
}
MEANING = {  # of what is no plain word
    "resolved": "converged to the resolution of the dtype",
    "steps": "out of steps",
    "fell": "stopped as the objective fell",
}
GAP = "  "


def ranking(result: SearchResult, covariances: Sequence[str | None], folds: int) -> str:
    """A line a candidate, the best first; `covariances` are theirs, `folds` those of "cv"."""
    order = [int(c) for c in result.ranking()]
    restarts = result.log_likelihood.shape[2]
    best = result.best_restart[0]
    ends = [ENDED[int(np.asarray(result.fits[c].end)[0, best[c]])] for c in order]
    before = {"rank": [str(rank + 1) for rank in range(len(order))]}
    before["K"] = [str(result.num_components[c]) for c in order]
    if any(covariances):
        before["covariance"] = [str(covariances[c]) for c in order]
    df = result.num_parameters[0]
    count = [f"{df[c, best[c]]:.0f}" for c in order]
    after = {"found": [str(n) for n in result.found()[0][order]], "ended": ends}
    text = [_title(result, restarts, folds)]
    dispensable = [name for name in ("icl", "aic", "bic") if name != result.criterion]
    shapes = [(decimals, ()) for decimals in (2, 1, 0)]
    shapes += [(0, tuple(dispensable[: number + 1])) for number in range(len(dispensable))]
    rows: list[str] = []
    for decimals, left_out in shapes:
        columns = before.copy()
        for name, header in CRITERIA.items():
            if name in left_out or (name == "cv" and result.cv is None):
                continue
            columns[header] = [_number(x, decimals) for x in result.scores(name)[0][order]]
            if name == "log_likelihood":
                columns["df"] = count
        rows = _aligned(columns | after)
        if len(rows[0]) <= WIDTH:
            break
    text += [row.rstrip() for row in rows]
    notes = [f"{word}: {meaning}" for word, meaning in MEANING.items() if word in ends]
    if restarts > 1:
        notes.insert(
            0, f"found: restarts that ended within {SAME_OPTIMUM} of the candidate's best fit"
        )
    return "\n".join(text + notes)


def _title(result: SearchResult, restarts: int, folds: int) -> str:
    how = {
        "log_likelihood": "log-likelihood",
        "cv": f"{folds}-fold cross-validation",
    }.get(result.criterion, result.criterion.upper())
    starts = f", the best of {restarts} restarts each" if restarts > 1 else ""
    return f"candidates by {how}{starts}"


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if np.isfinite(value) else "-"


def _aligned(columns: dict[str, list[str]]) -> list[str]:
    """Lines of equal length; numbers to the right, words to the left."""
    shown = []
    for header, cells in columns.items():
        width = max(map(len, [header, *cells]))
        words = header in ("covariance", "ended")
        shown.append(
            [f"{cell:<{width}}" if words else f"{cell:>{width}}" for cell in [header, *cells]]
        )
    return [GAP.join(row) for row in zip(*shown, strict=True)]
