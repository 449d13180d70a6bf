"""A sequence and the states of a hidden Markov model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxem.data import Sequences
from jaxem.families import Bernoulli, Categorical, Poisson
from jaxem.hmm import HMM
from jaxem.plots.look import (
    COLOURS,
    HATCHES,
    blended,
    finish,
    innermost,
    names_of,
    new_axes,
    observed_rows,
)

RIBBON = 0.08  # of the height of the axes
TINT = 0.35  # of a colour in the background
DARK = "#555555"  # on it


def hmm(
    model: HMM,
    values: Any,
    *,
    names: Sequence[str] | None = None,
    ax: Any = None,
    max_steps: int = 2000,
) -> Any:
    """Axes with one sequence and, in a ribbon below it, its most probable path of states.

    Behind each step are the colours of the states, mixed in the shares of their posterior
    probabilities given the whole sequence.  The black bars are the expected values in the states of
    that path.  Of several columns the first is drawn; what is missing of it is a gap.

    Args:
        model: the hidden Markov model.
        values: one sequence, [T, D] or [T], or `Sequences`, of which the first is drawn.
        names: of the D columns; default "column 1", ...
        ax: matplotlib axes; default those of a new figure.
        max_steps: draw the first so many steps.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    data = values if isinstance(values, Sequences) else Sequences(np.asarray(values)[None])
    data = replace(data, sample_weight=None, groups=None)
    first = jax.tree.map(lambda part: part[:1], data)
    path = np.asarray(model.viterbi(first)[1])[0]
    posterior = np.asarray(model.smooth(first))[0]
    length = len(path) if first.lengths is None else int(first.lengths[0])
    path = path[: min(length, max_steps)]
    observed = None if first.observed is None else first.observed[0]
    columns = observed_rows(first.values[0], observed)[: len(path)]
    names = names_of(names, columns.shape[1])
    ax = new_axes(8.0) if ax is None else ax
    series, steps = columns[:, 0], np.arange(len(path))
    symbolic = isinstance(innermost(model.emission), Categorical)
    link = "none" if symbolic else "-"
    ax.plot(steps, series, color=DARK, linestyle=link, linewidth=0.8, marker=".", markersize=3)
    starts = np.flatnonzero(np.diff(path, prepend=-2))
    lengths = np.diff(starts, append=len(path))
    level = _levels(model.emission)
    if level is not None:
        expected = np.where(path >= 0, level[path], np.nan)[starts]
        ax.hlines(expected, starts - 0.5, starts + lengths - 0.5, color="black", linewidth=1.6)
    _ribbon(ax, path[starts], starts, lengths, model.num_states)
    tints = 1 - TINT * (1 - blended(posterior[: len(path)]))
    edges = (-0.5, len(path) - 0.5, RIBBON, 1)
    ax.imshow(
        tints[None], extent=edges, transform=ax.get_xaxis_transform(), aspect="auto",
        interpolation="nearest", zorder=0,
    )  # fmt: skip
    seen = series[~np.isnan(series)]
    if not len(seen):  # the bars alone are there to be seen
        seen = np.zeros(1) if level is None else level
    low, high = float(seen.min()), float(seen.max())
    room = max(high - low, 1e-9 * max(abs(high), 1))
    ax.set_ylim(low - 2 * RIBBON * room, high + 0.05 * room)
    ax.set_xlim(-0.5, len(path) - 0.5)
    if np.all(seen == np.round(seen)):
        ax.yaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("step")
    ax.set_ylabel(names[0])
    finish(ax, num_columns=8)
    return ax


def _levels(family: Any) -> np.ndarray | None:
    """The expected first feature of every member; None for symbols."""
    inner = innermost(family)
    if isinstance(inner, Categorical):
        return None
    if isinstance(inner, Poisson):
        level = inner.rate
    else:
        level = inner.probs if isinstance(inner, Bernoulli) else inner.mean
    level = np.asarray(level).reshape(inner.num_members, -1)[:, 0]
    if inner is family:
        return level
    weights = np.asarray(family.weights.probs)
    return np.sum(weights * level.reshape(weights.shape), axis=1)


def _ribbon(
    ax: Any, states: np.ndarray, starts: np.ndarray, lengths: np.ndarray, num_states: int
) -> None:
    """Runs of states as bars at the foot of the axes."""
    for k in range(num_states):
        runs = [(start - 0.5, length) for start, length in zip(starts, lengths, strict=True)]
        runs = [run for run, state in zip(runs, states, strict=True) if state == k]
        look = {"facecolor": COLOURS[k % len(COLOURS)], "hatch": HATCHES[k % len(HATCHES)]}
        place = ax.get_xaxis_transform()  # steps across, shares of the height up
        look |= {"edgecolor": "white", "linewidth": 0.3, "transform": place}
        ax.broken_barh(runs, (0, RIBBON), label=f"state {k}", **look)
