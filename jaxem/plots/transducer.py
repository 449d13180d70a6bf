"""The grid of a transducer's labelling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxem.plots.look import (
    MOST_NAMES,
    best_path,
    finish,
    labelled_image,
    lattice_axes,
    name_labels,
    one_sequence,
    whole_steps,
)
from jaxem.transducer import align, posterior
from jaxem.transducer.grid import GridTopology


def transducer(
    logits: Any,
    labels: Any,
    *,
    names: Sequence[str] | None = None,
    blank: int = 0,
    topology: GridTopology = "regular",
    ax: Any = None,
) -> Any:
    """Axes with the posterior of every node of the grid, given the labels, and the best path.

    A node is a frame and how many labels have been emitted; a blank leads to the next frame, a
    label up.  The darker, the more probable that an alignment passes.  More than 40 labels are
    counted, not named.

    Args:
        logits: [T, U+1, V], of one sequence.
        labels: [U], its labels.
        names: of the V symbols; default their numbers.
        blank: the symbol of the blank.
        topology: that of the loss; in the modified one a label leads to the next frame as well.
        ax: matplotlib axes; default those of a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: several sequences; labels that have no alignment.
    """
    logits, labels = one_sequence(logits, labels, 3, "T, U+1, V")
    best = align(logits, labels, blank=blank, topology=topology)
    if not np.isfinite(best.score[0]):
        raise ValueError(f"these labels have no alignment with {logits.shape[1]} frames.")
    arcs = posterior(logits, labels, blank=blank, topology=topology)
    passes = np.array(arcs.blank[0])  # a node is left once, by a blank or by a label
    passes[:, :-1] += np.asarray(arcs.label[0])
    number = labels.shape[1]
    ax = lattice_axes(number) if ax is None else ax
    labelled_image(ax, passes.T, "posterior", origin="lower", aspect="auto")
    frames = np.asarray(best.frames[0]) + (0.5 if topology == "modified" else 0)
    across = [0, *np.repeat(frames, 2), max([len(passes) - 1, *frames])]
    up = np.repeat(np.arange(number + 1), 2)
    best_path(ax, across, up, thin=number > MOST_NAMES)
    if number <= MOST_NAMES:
        name_labels(ax, np.arange(1, number + 1), labels[0], names)
        ax.set_yticks([0], ["none"], minor=True)
        ax.set_ylabel("last label emitted")
    else:
        whole_steps(ax.yaxis)
        ax.set_ylabel("labels emitted")
    whole_steps(ax.xaxis)
    ax.set_xlabel("frame")
    finish(ax, num_columns=2)
    return ax
