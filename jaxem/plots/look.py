"""What all pictures have in common: colours, axes, a legend, names."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxem.families import MixtureFamily

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#F0E442")
MARKERS = "os^Dv<>P"
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oo", "**")
GREY = "#888888"
MOST_NAMES = 40  # of the labels of a lattice: with more they would not be legible


def colour(k: int) -> str:
    """The colour of member k; after eight they begin again."""
    return COLOURS[k % len(COLOURS)]


def marker(k: int) -> str:
    """The marker of member k: those of one colour differ."""
    return MARKERS[(k + k // len(COLOURS)) % len(MARKERS)]


def hatch(k: int) -> str:
    """The hatch of member k: those of one colour differ."""
    return HATCHES[(k + k // len(COLOURS)) % len(HATCHES)]


def new_figure(width: float = 6.4, height: float = 4.4) -> Any:
    """A figure that pyplot does not know of; inches.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'pictures need matplotlib: pip install "jaxem[plots]"', name="matplotlib"
        ) from error
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def new_axes(width: float = 6.4) -> Any:
    """The axes of a new figure."""
    return new_figure(width).subplots()


def lattice_axes(num_labels: int) -> Any:
    """The axes of a new figure in which so many labels have room for their names."""
    height = max(4.4, 1.2 + 0.16 * min(num_labels, MOST_NAMES))
    return new_figure(8.0, height).subplots()


def name_labels(ax: Any, places: np.ndarray, labels: Any, names: Sequence[str] | None) -> None:
    """The names of labels at their places up the axes, the labels themselves if there are none."""
    said = [str(int(label) if names is None else names[int(label)]) for label in labels]
    ax.set_yticks(places, said, fontsize=10 if len(said) <= MOST_NAMES // 2 else 8)


def finish(ax: Any, num_columns: int, most_entries: int = 20) -> None:
    """A legend above the axes, where it hides nothing, with the data first.

    It has as few rows as so many columns allow, of nearly the same length.
    """
    ax.spines[["top", "right"]].set_visible(False)
    entries = sorted(
        zip(*ax.get_legend_handles_labels(), strict=True), key=lambda e: e[1] != "data"
    )
    if len(entries) <= most_entries:
        num_rows = -(-len(entries) // num_columns)
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        ax.legend(
            *zip(*entries, strict=True),
            ncols=-(-len(entries) // num_rows),
            fontsize=9,
            frameon=False,
            columnspacing=1.1,
            handlelength=1.7,
            handletextpad=0.5,
            **place,
        )


def labelled_image(ax: Any, values: np.ndarray, meaning: str, **options: Any) -> None:
    """Probabilities as shades of grey, with a bar that says what they mean."""
    image = ax.imshow(values, cmap="Greys", interpolation="nearest", vmin=0, vmax=1, **options)
    bar = ax.figure.colorbar(image, ax=ax, label=meaning, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)


def best_path(ax: Any, across: Any, up: Any, thin: bool, **options: Any) -> None:
    """A line that is seen on black and on white; a disc where it is but one point."""
    from matplotlib.patheffects import Normal, Stroke

    width = 1.0 if thin else 2.0
    rim = [Stroke(linewidth=2 * width, foreground="white"), Normal()]
    look = {"color": COLOURS[1], "linewidth": width, "path_effects": rim, "label": "best path"}
    point = "o" if np.unique(np.stack([across, up]), axis=1).shape[1] == 1 else None
    ax.plot(across, up, solid_joinstyle="round", marker=point, **look, **options)


def whole_steps(axis: Any) -> None:
    """Ticks of an axis at whole numbers alone."""
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def one_sequence(logits: Any, labels: Any, rank: int, axes: str) -> tuple[Any, Any]:
    """Logits and labels of one sequence, each with an axis B of size 1 before.

    Raises:
        ValueError: other numbers of axes.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim != rank or labels.ndim != 1:
        raise ValueError(
            f"one sequence is drawn, logits [{axes}] and labels [L], got {list(logits.shape)} and "
            f"{list(labels.shape)}."
        )
    return logits[None], labels[None]


def blended(shares: Any) -> np.ndarray:
    """Colours [N, 3] of members mixed in these shares [N, K], which sum to 1 or to 0 (grey)."""
    from matplotlib.colors import to_rgb

    shares = np.asarray(shares, float)
    colours = np.array([to_rgb(colour(k)) for k in range(shares.shape[1])])
    rest = 1 - np.clip(shares.sum(1, keepdims=True), 0, 1)
    return np.clip(shares @ colours + rest * np.array(to_rgb(GREY)), 0, 1)


def names_of(names: Sequence[str] | None, width: int) -> list[str]:
    """Names of the columns, those given or their numbers from 1."""
    return [f"column {i + 1}" for i in range(width)] if names is None else [str(n) for n in names]


def innermost(family: Any) -> Any:
    """The family itself, or the one inside a `MixtureFamily`."""
    return family.components if isinstance(family, MixtureFamily) else family


def observed_rows(values: Any, observed: Any) -> np.ndarray:
    """Rows [N, D] of numbers, NaN where one is missing."""
    columns = np.array(values, float)
    if observed is not None:
        columns[~np.asarray(observed)] = np.nan
    return columns.reshape(len(columns), -1)
