"""The transition matrix of a hidden Markov model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxem.hmm import HMM
from jaxem.plots.look import labelled_image, new_axes

MOST_NUMBERS = 12  # states: with more the numbers would not be legible


def transitions(model: HMM, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Axes with the transition probabilities as a heat map, from each state (row) to each (column).

    The darker, the more probable.  Up to 12 states every entry has its number; an entry without one
    is exactly 0, a transition that cannot be.

    Args:
        model: the hidden Markov model.
        names: of the K states; default their numbers from 0.
        ax: matplotlib axes; default those of a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: transitions that change with time; names that are not one a state.
    """
    probs = np.asarray(model.transition.probs, float)
    number = model.num_states
    if probs.ndim != 2:
        raise ValueError(
            f"transitions that change with time, {list(probs.shape)}, have no one matrix; draw "
            "those of a step."
        )
    names = [str(k) for k in range(number)] if names is None else [str(name) for name in names]
    if len(names) != number:
        raise ValueError(f"names must be one a state, {number} of them, got {len(names)}.")
    ax = new_axes(5.2) if ax is None else ax
    image = labelled_image(ax, probs, "probability", origin="upper", aspect="equal")
    image.set_clim(0, 1)
    if number <= MOST_NUMBERS:
        ax.set_xticks(range(number), names)
        ax.set_yticks(range(number), names)
        for i, j in np.argwhere(probs > 0):
            text = "<.01" if probs[i, j] < 0.005 else f"{probs[i, j]:.2f}".removeprefix("0")
            colour = "white" if probs[i, j] > 0.55 else "black"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    ax.set_xlabel("to state")
    ax.set_ylabel("from state")
    return ax
