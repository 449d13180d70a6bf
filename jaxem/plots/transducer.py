"""The grid of a transducer's labelling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxem.plots.look import best_path, finish, labelled_image, new_axes, one_sequence
from jaxem.transducer import align, posterior
from jaxem.transducer.grid import GridTopology

MOST_NAMES = 40  # labels: with more they would not be legible


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
    label up.  The darker, the more probable that an alignment passes.

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
    ax = new_axes(8.0) if ax is None else ax
    labelled_image(ax, passes.T, "posterior", origin="lower", aspect="auto")
    frames = np.asarray(best.frames[0]) + (0.5 if topology == "modified" else 0)
    corners = np.repeat(frames, 2), np.repeat(np.arange(len(frames) + 1), 2)[1:-1]
    last = len(passes) - 1
    best_path(ax, [0, *corners[0], max(last, *frames)], [0, *corners[1], len(frames)])
    names = [str(v) for v in range(logits.shape[3])] if names is None else list(map(str, names))
    if passes.shape[1] <= MOST_NAMES:
        said = ["none", *(names[int(label)] for label in labels[0])]
        ax.set_yticks(range(passes.shape[1]), said)
    ax.set_xlabel("frame")
    ax.set_ylabel("last label emitted")
    finish(ax, num_columns=2)
    return ax
