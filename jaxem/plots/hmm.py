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
    blended,
    colour,
    finish,
    hatch,
    innermost,
    names_of,
    new_axes,
    observed_rows,
    whole_steps,
)

RIBBON = 0.08  # of the height of the axes
LIGHTNESS = 0.92, 0.83, 0.74  # of the states behind the series: grey tells those that follow apart
MOST = 0.5  # of a colour in its tint
FEW = 400  # steps that are drawn as points too
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

    Behind each step are tints of the states, mixed in the shares of their posterior probabilities
    given the whole sequence.  The black bars are the expected values in the states of
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
    point = "." if symbolic or len(path) <= FEW else None
    ax.plot(steps, series, color=DARK, linestyle=link, linewidth=0.8, marker=point, markersize=3)
    starts = np.flatnonzero(np.diff(path, prepend=-2))
    lengths = np.diff(starts, append=len(path))
    seen = series[~np.isnan(series)]
    whole = bool(np.all(seen == np.round(seen)))
    level = _levels(model.emission)
    if level is not None:
        expected = np.where(path >= 0, level[path], np.nan)[starts]
        seen = np.concatenate([seen, expected[~np.isnan(expected)]])
        ax.hlines(expected, starts - 0.5, starts + lengths - 0.5, color="black", linewidth=1.6)
    _ribbon(ax, path[starts], starts, lengths, model.num_states)
    tints = tinted(posterior[: len(path)])
    edges = (-0.5, len(path) - 0.5, RIBBON, 1)
    ax.imshow(
        tints[None], extent=edges, transform=ax.get_xaxis_transform(), aspect="auto",
        interpolation="nearest", zorder=0,
    )  # fmt: skip
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    room = max(high - low, 1.0 if whole else 1e-9 * max(abs(high), 1))
    ax.set_ylim(low - 2 * RIBBON * room, high + 0.05 * room)
    ax.set_xlim(-0.5, len(path) - 0.5)
    if whole:
        whole_steps(ax.yaxis)
    whole_steps(ax.xaxis)
    ax.set_xlabel("step")
    ax.set_ylabel(names[0])
    finish(ax, num_columns=6)
    return ax


def tinted(posterior: np.ndarray) -> np.ndarray:
    """Tints [T, 3] of the states mixed in these shares [T, K]; white where they are all 0."""
    number = posterior.shape[1]
    colours = blended(np.eye(number))
    grey = colours @ [0.299, 0.587, 0.114]  # as a screen or a printer makes it
    wanted = np.array([LIGHTNESS[k % len(LIGHTNESS)] for k in range(number)])
    share = np.minimum((1 - wanted) / (1 - grey), MOST)
    return 1 - posterior @ (share[:, None] * (1 - colours))


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
        look = {"facecolor": colour(k), "hatch": hatch(k)}
        place = ax.get_xaxis_transform()  # steps across, shares of the height up
        look |= {"edgecolor": "white", "linewidth": 0.3, "transform": place}
        ax.broken_barh(runs, (0, RIBBON), label=f"state {k}", **look)
