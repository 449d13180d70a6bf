"""The pictures that `--plot` writes."""

import io
import os
from typing import Any

from jaxem import plots
from jaxem.cli.table import Table
from jaxem.many import SearchResult
from jaxem.mixture import Mixture
from jaxem.plots.look import new_figure

WIDE, WIDTHS = 12.6, (1.15, 1)  # inches of two pictures side by side, and their shares


def check(path: str | None) -> None:
    """Refuse, before the work, a picture that could not be made after it.

    Raises:
        ValueError: matplotlib is not installed, or knows no files with this ending.
    """
    if path is None:
        return
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError:
        raise ValueError('--plot needs matplotlib: pip install "jaxem[plots]"') from None
    known = FigureCanvasBase.get_supported_filetypes()
    if _ending(path) not in known:
        raise ValueError(
            f"--plot {path}: unknown kind of picture; expected one of "
            f"{', '.join('.' + ending for ending in sorted(known))}"
        )


def draw(
    model: Any, table: Table, data: Any, path: str, several: SearchResult | None = None
) -> bytes:
    """The picture as the bytes of a file of the kind that `path` ends in.

    `data` are those of the table as the model takes them.  Of several sequences the first is drawn.
    Where the model is the best of `several`, their criterion stands beside it.
    """
    axes = None
    if several is not None:
        axes, beside = new_figure(WIDE).subplots(1, 2, width_ratios=WIDTHS)
        plots.criterion(several, ax=beside)
    if isinstance(model, Mixture):
        axes = plots.mixture(model, data, names=table.columns, ax=axes)
    else:
        axes = plots.hmm(model, data, names=table.columns, ax=axes)
        if table.ids is not None:
            axes.set_xlabel(f"step of sequence {table.ids[0]}")
    return written(axes, path)


def written(axes: Any, path: str) -> bytes:
    """The picture of these axes, as the bytes of a file of the kind that `path` ends in."""
    content = io.BytesIO()
    axes.figure.savefig(content, format=_ending(path))
    return content.getvalue()


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower().removeprefix(".")
