"""The lattice of a CTC labelling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxem.ctc import align, posterior
from jaxem.plots.look import best_path, finish, labelled_image, new_axes, one_sequence

MOST_NAMES = 41  # of states: with more they would not be legible


def ctc(
    logits: Any,
    labels: Any,
    *,
    names: Sequence[str] | None = None,
    blank: int = 0,
    ax: Any = None,
) -> Any:
    """Axes with the posterior of every state in every frame, given the labels, and the best path.

    States are a blank, the first label, a blank, the second label, ..., a blank, from below; the
    darker, the more probable.

    Args:
        logits: [T, V], of one sequence.
        labels: [L], its labels.
        names: of the V symbols; default their numbers.
        blank: the symbol of the blank.
        ax: matplotlib axes; default those of a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: several sequences; labels that no path of so many frames has.
    """
    logits, labels = one_sequence(logits, labels, 2, "T, V")
    best = align(logits, labels, blank=blank)
    if not np.isfinite(best.score[0]):
        raise ValueError(f"no path of {logits.shape[1]} frames has these labels.")
    states = np.asarray(posterior(logits, labels, blank=blank).states[0])
    ax = new_axes(8.0) if ax is None else ax
    labelled_image(ax, states.T, "posterior", origin="lower", aspect="auto")
    frames = np.arange(len(states))
    best_path(ax, frames, np.asarray(best.states[0]), drawstyle="steps-mid")
    names = [str(v) for v in range(logits.shape[2])] if names is None else list(map(str, names))
    if states.shape[1] <= MOST_NAMES:
        said = [names[int(label)] for label in labels[0]]
        ax.set_yticks(range(1, states.shape[1], 2), said)
        ax.set_yticks(range(0, states.shape[1], 2), minor=True)
    ax.set_xlabel("frame")
    ax.set_ylabel("label, with blanks between")
    finish(ax, num_columns=2)
    return ax
