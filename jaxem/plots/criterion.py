"""The criterion by which a search chose, over the number of components."""

import re
from typing import Any

import numpy as np

from jaxem.many import SearchResult
from jaxem.many.criteria import HIGHEST
from jaxem.plots.look import LINES, colour, finish, innermost, marker, new_axes

LABELS = {  # of the axis
    "aic": "AIC",
    "bic": "BIC",
    "icl": "ICL",
    "log_likelihood": "log-likelihood",
    "cv": "log-likelihood of what was left out",
}
APART = 0.14  # of the distance between two K: families side by side


def criterion(
    result: SearchResult, criterion: str | None = None, *, data_set: int = 0, ax: Any = None
) -> Any:
    """Axes with the criterion of every candidate over its number of components K.

    Every restart is a small point, the best one (of the highest objective) of a candidate a marker,
    and a line joins those of one family; a ring is around the candidate that was chosen.  Restarts
    that ended unsound are left out.  Cross-validation says one number a candidate, so there are no
    points.  Where a candidate's model names no K, the candidates stand side by side, by name.

    Args:
        result: what `search` returned.
        criterion: another than the one it was asked for, such as "aic".
        data_set: which of the data sets.
        ax: matplotlib axes; default those of a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no such criterion; no fit is sound.
    """
    name = result.criterion if criterion is None else criterion
    scores = result.scores(name)[data_set]
    if np.isnan(scores).all():
        raise ValueError(f"no fit to data set {data_set} is sound: there is nothing to draw.")
    ax = new_axes() if ax is None else ax
    chosen = int(result.ranking(data_set, name)[0])
    numbered = None not in result.num_components
    place = (0.0, 0.0)  # of the chosen one
    groups = _groups(result) if numbered else {"candidate": list(range(len(scores)))}
    for index, (label, members) in enumerate(groups.items()):
        at = np.array([result.num_components[c] if numbered else c for c in members], float)
        at = at + APART * (index - (len(groups) - 1) / 2) / max(len(groups) / 4, 1)
        if name != "cv":
            every = np.where(result.is_sound, getattr(result, name), np.nan)[data_set, members]
            ax.plot(
                np.repeat(at, every.shape[1]), every.ravel(), color=colour(index), marker=".",
                markersize=6, markeredgewidth=0, alpha=0.45, linestyle="none", zorder=2,
            )  # fmt: skip
        line = LINES[index % len(LINES)] if numbered else "none"
        ax.plot(
            at, scores[members], color=colour(index), marker=marker(index), markersize=4.5,
            linewidth=1.2, linestyle=line, label=label, zorder=3,
        )  # fmt: skip
        if chosen in members:
            place = at[members.index(chosen)], scores[chosen]
    ax.plot(
        *place, marker="o", markersize=12, markerfacecolor="none", markeredgewidth=1.6,
        color="black", linestyle="none", label=f"best: {result.names[chosen]}", zorder=4,
    )  # fmt: skip
    if name != "cv":
        ax.plot(
            [], [], color="black", marker=".", markersize=6, markeredgewidth=0, alpha=0.45,
            linestyle="none", label="every restart",
        )  # fmt: skip
    if numbered:
        ax.set_xlabel("K")
        ax.xaxis.get_major_locator().set_params(integer=True, nbins=12, steps=[1, 2, 5, 10])
    else:
        ax.set_xticks(range(len(scores)), result.names, rotation=30, ha="right")
    better = "larger" if name in HIGHEST else "smaller"
    ax.set_ylabel(f"{LABELS[name]} ({better} is better)")
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    finish(ax, num_columns=3)
    return ax


def _groups(result: SearchResult) -> dict[str, list[int]]:
    """Candidates that differ in K alone, by what they have in common, in order of K."""
    groups: dict[str, list[int]] = {}
    for c in np.argsort(np.array(result.num_components), kind="stable"):
        groups.setdefault(_label(result, int(c)), []).append(int(c))
    first = {label: min(members) for label, members in groups.items()}
    return dict(sorted(groups.items(), key=lambda group: first[group[0]]))


def _label(result: SearchResult, candidate: int) -> str:
    """The name of a candidate without its K; its family where that leaves nothing."""
    name, number = result.names[candidate], result.num_components[candidate]
    without = re.sub(rf",?\s*\bK\s*=\s*{number}\b", "", name).strip()
    if without and without != name:
        return without
    model = result.fits[candidate].model
    family = getattr(model, "emission", getattr(model, "components", model))
    return type(innermost(family)).__name__
