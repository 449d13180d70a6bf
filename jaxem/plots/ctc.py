"""The lattice of a CTC labelling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxem.ctc import align, posterior
from jaxem.plots.look import (
    GREY,
    MOST_NAMES,
    best_path,
    finish,
    labelled_image,
    lattice_axes,
    name_labels,
    one_sequence,
    whole_steps,
)

MOST_BLANKS = 10  # labels: with more the blanks between have no names


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
    darker, the more probable.  Of more than 40 labels there are numbers, from 0, for names.

    Args:
        logits: [T, V], of one sequence.
        labels: [L], its labels.
        names: of the V symbols; default their numbers, and "–" for the blank.
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
    number = labels.shape[1]
    ax = lattice_axes(number) if ax is None else ax
    labelled_image(ax, states.T, "posterior", origin="lower", aspect="auto")
    frames, path = np.arange(len(states)), np.asarray(best.states[0])
    best_path(ax, frames, path, thin=number > MOST_NAMES, drawstyle="steps-mid")
    places = 2 * np.arange(number) + 1
    if number <= MOST_NAMES:
        name_labels(ax, places, labels[0], names)
        ax.set_ylabel("label, with blanks between")
    else:
        ax.set_yticks(places[::10], range(0, number, 10))
        ax.set_ylabel("number of the label, with blanks between")
    if number <= MOST_BLANKS:
        between = ["–" if names is None else str(names[blank])] * (number + 1)
        ax.set_yticks([*(places - 1), 2 * number], between, minor=True, fontsize=8, color=GREY)
        ax.tick_params(axis="y", which="minor", length=0)
    whole_steps(ax.xaxis)
    ax.set_xlabel("frame")
    finish(ax, num_columns=2)
    return ax
