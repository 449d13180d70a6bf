"""What all pictures have in common: colours, axes, a legend, names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxem.families import MixtureFamily

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#F0E442")
MARKERS = "os^Dv<>P"
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oo", "**")
GREY = "#888888"


def new_figure(width: float = 6.4) -> Any:
    """A figure that pyplot does not know of.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'pictures need matplotlib: pip install "jaxem[plots]"', name="matplotlib"
        ) from error
    return Figure(figsize=(width, 4.4), layout="constrained", dpi=150)


def new_axes(width: float = 6.4) -> Any:
    """The axes of a new figure."""
    return new_figure(width).subplots()


def finish(ax: Any, num_columns: int, most_entries: int = 20) -> None:
    """A legend above the axes, where it hides nothing, with the data first."""
    ax.spines[["top", "right"]].set_visible(False)
    entries = sorted(
        zip(*ax.get_legend_handles_labels(), strict=True), key=lambda e: e[1] != "data"
    )
    if len(entries) <= most_entries:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        ax.legend(
            *zip(*entries, strict=True),
            ncols=num_columns,
            fontsize=9,
            frameon=False,
            columnspacing=1.4,
            **place,
        )


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
