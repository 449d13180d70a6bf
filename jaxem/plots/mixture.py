"""Data and the components of a mixture."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxem.data import Samples
from jaxem.families import Bernoulli, Categorical, MixtureFamily, Poisson
from jaxem.mixture import Mixture
from jaxem.plots.look import (
    COLOURS,
    GREY,
    LINES,
    MARKERS,
    blended,
    finish,
    names_of,
    new_axes,
    observed_rows,
)

ELLIPSES = ((1, "-"), (2, "--"))  # standard deviations, line
MOST_POINTS = 5000  # of a scatter
BARS = {"color": "#DDDDDD", "edgecolor": "white", "label": "data"}


def mixture(
    model: Mixture, values: Any, *, names: Sequence[str] | None = None, ax: Any = None
) -> Any:
    """Axes with the rows of `values` and the components of a mixture.

    Gaussian components: of one feature a histogram under the component densities; of two a scatter
    with ellipses one and two standard deviations from the means, where a point has the colours of
    the components in the shares of its responsibilities, and the marker of the most probable one;
    of more the same in the plane of the first two principal axes.  Counts, symbols: observed and
    fitted frequencies (of the first column).  Zeros and ones: the share of ones in every column.

    Of `Samples` only what is observed, in rows of positive weight, is drawn.  Histograms,
    frequencies and shares count a row as often as its weight says; the points of a scatter are all
    alike.  In a scatter of two features a row that lacks one is a tick at the edge.  Of more
    features, rows that lack any are left out, and the axes are found with the column's mean in the
    place of what is missing.

    Args:
        model: the mixture.
        values: rows [N, D] or [N], plain or as `Samples`.
        names: of the D columns; default "column 1", ...
        ax: matplotlib axes; default those of a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: components that are mixtures themselves; nothing observed of the only column.
    """
    data = values if isinstance(values, Samples) else Samples(np.asarray(values))
    columns = observed_rows(data.values, data.observed)
    weight = np.ones(len(columns))
    if data.sample_weight is not None:
        weight = np.asarray(data.sample_weight)
        columns[weight == 0] = np.nan
    names = names_of(names, columns.shape[1])
    ax = new_axes() if ax is None else ax
    if isinstance(model.components, MixtureFamily):
        raise ValueError("components that are mixtures themselves cannot be drawn; flatten them.")
    if isinstance(model.components, Bernoulli):
        _shares(ax, model, columns, weight, names)
    elif columns.shape[1] > 1 and not isinstance(model.components, Poisson | Categorical):
        _scatter(ax, model, columns, np.asarray(model.responsibilities(data)), names)
    else:
        there = ~np.isnan(columns[:, 0])
        if not there.any():
            raise ValueError(f"nothing of {names[0]} is observed: there is nothing to draw.")
        draw = _frequencies if isinstance(model.components, Poisson | Categorical) else _densities
        draw(ax, model, columns[there, 0], weight[there], names[0])
    finish(ax, num_columns=4)
    return ax


def _scatter(
    ax: Any, model: Mixture, rows: np.ndarray, responsibilities: np.ndarray, names: list[str]
) -> None:
    mean = np.asarray(model.components.mean)
    covariance = np.asarray(model.components.covariance)
    covariance = np.broadcast_to(covariance, (len(mean), *covariance.shape[-2:]))
    if rows.shape[1] > 2:
        there = ~np.isnan(rows)
        center = np.sum(rows, 0, where=there) / np.maximum(there.sum(0), 1)
        away = np.where(there, rows - center, 0)
        _, size, axes = np.linalg.svd(away, full_matrices=False)
        share = size**2 / np.sum(size**2)
        names = [f"principal axis {i + 1} ({share[i]:.0%} of the variance)" for i in range(2)]
        axes = axes[:2].T
        rows, mean = (rows - center) @ axes, (mean - center) @ axes
        covariance = axes.T @ covariance @ axes
    there = ~np.isnan(rows)
    shown = _thinned(np.flatnonzero(there.all(1)))
    member, mixed = np.argmax(responsibilities, 1), blended(responsibilities)
    for k in range(len(mean)):
        colour = COLOURS[k % len(COLOURS)]
        own = shown[member[shown] == k]
        look = {"s": 16, "marker": MARKERS[k % len(MARKERS)], "alpha": 0.7, "linewidths": 0}
        ax.scatter(rows[own, 0], rows[own, 1], color=mixed[own], **look)
        ax.scatter([], [], color=colour, label=f"component {k}", **look)
        _ellipses(ax, mean[k], covariance[k])
        _edges(ax, rows[member == k], colour)
    if np.any(there[:, 0] != there[:, 1]):
        ax.plot([], [], color=GREY, marker="|", linestyle="none", label="other missing")
    for radius, line in ELLIPSES:
        ax.plot([], [], color="black", linestyle=line, linewidth=1.2, label=f"{radius} s.d.")
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])


def _thinned(rows: np.ndarray) -> np.ndarray:
    """So many of the rows, evenly, that a scatter can be drawn."""
    number = min(len(rows), MOST_POINTS)
    return rows[np.unique(np.linspace(0, max(len(rows) - 1, 0), number).astype(int))]


def _edges(ax: Any, pairs: np.ndarray, colour: str) -> None:
    """What is there of pairs with one entry, as ticks at the lower and the left edge."""
    there = ~np.isnan(pairs)
    look = {"color": colour, "linestyle": "none", "markersize": 16, "markeredgewidth": 1.4}
    for i in (0, 1):
        own = pairs[_thinned(np.flatnonzero(there[:, i] & ~there[:, 1 - i])), i]
        if i == 0:
            ax.plot(own, 0 * own, marker="|", transform=ax.get_xaxis_transform(), **look)
        else:
            ax.plot(0 * own, own, marker="_", transform=ax.get_yaxis_transform(), **look)


def _ellipses(ax: Any, mean: np.ndarray, covariance: np.ndarray) -> None:
    from matplotlib.patches import Ellipse

    variance, axes = np.linalg.eigh(covariance)  # smaller first
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
    minor, major = np.sqrt(np.maximum(variance, 0))
    for radius, line in ELLIPSES:
        style = {"facecolor": "none", "edgecolor": "black", "linestyle": line, "linewidth": 1.2}
        size = 2 * radius * major, 2 * radius * minor
        ax.add_patch(Ellipse(tuple(mean), *size, angle=angle, **style))
    ax.plot(*mean, marker="+", color="black", markersize=9, markeredgewidth=1.6, linestyle="none")


def _densities(ax: Any, model: Mixture, column: np.ndarray, weight: np.ndarray, name: str) -> None:
    bins = int(np.clip(np.sqrt(len(column)), 10, 60))
    ax.hist(column, bins=bins, weights=weight, density=True, **BARS)
    low, high = float(column.min()), float(column.max())
    room = 0.05 * (high - low)
    grid = np.linspace(low - room, high + room, 500)
    _curves(ax, model, grid, np.asarray(model.components.log_prob(jnp.asarray(grid[:, None]))))
    ax.set_xlabel(name)
    ax.set_ylabel("density")


def _frequencies(
    ax: Any, model: Mixture, column: np.ndarray, weight: np.ndarray, name: str, most: int = 200
) -> None:
    """Relative frequencies of whole numbers, observed and fitted."""
    column = column.astype(int)
    family = model.components
    symbolic = isinstance(family, Categorical)
    first = 0 if symbolic else int(column.min())
    last = family.logits.shape[-1] - 1 if symbolic else int(column.max())
    if not symbolic and np.ndim(family.log_rate) == 2:
        family = Poisson(family.log_rate[:, 0])
    width = -(-(last + 1 - first) // most)  # numbers that share a bar
    edges = np.arange(first, last + 1 + width, width) - 0.5
    ax.hist(column, edges, weights=weight, density=True, **BARS)
    support = np.arange(first, last + 1, width)
    _curves(ax, model, support, np.asarray(family.log_prob(jnp.asarray(support))))
    ax.set_xlabel(name)
    ax.set_ylabel("frequency")
    ax.xaxis.get_major_locator().set_params(integer=True)


def _curves(ax: Any, model: Mixture, at: np.ndarray, log_probs: np.ndarray) -> None:
    """The weighted components and their sum."""
    parts = np.exp(log_probs) * np.asarray(model.weights.probs)
    ax.plot(at, parts.sum(1), color=GREY, linewidth=4, alpha=0.6, label="mixture")
    for k in range(parts.shape[1]):
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[1 + k % 3]}
        ax.plot(at, parts[:, k], label=f"component {k}", **style)


def _shares(
    ax: Any, model: Mixture, rows: np.ndarray, weight: np.ndarray, names: list[str]
) -> None:
    """Shares of ones by column, observed and of every component."""
    probs = np.asarray(model.components.probs).reshape(-1, rows.shape[1])
    place = np.arange(rows.shape[1])
    counts = np.where(np.isnan(rows), 0, weight[:, None])
    total = counts.sum(0)
    ones = np.sum(counts * np.nan_to_num(rows), 0)
    seen = total > 0
    ax.bar(place[seen], ones[seen] / total[seen], color=BARS["color"], label="data")
    for k, shares in enumerate(probs):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        ax.plot(
            place, shares, color=colour, marker=marker, linestyle="none", label=f"component {k}"
        )
    if len(names) <= 12:
        ax.set_xticks(place, names, rotation=0 if sum(map(len, names)) < 50 else 45)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("share of ones")
