"""The transition matrix of a hidden Markov model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxem.hmm import HMM
from jaxem.plots.look import labelled_image, new_figure

MOST_NUMBERS = 12  # states: with more the numbers would not be legible
MOST_NAMES = 40  # states: with more neither would their names be


def transitions(model: HMM, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Axes with the transition probabilities as a heat map, from each state (row) to each (column).

    The darker, the more probable.  Up to 12 states every entry has its number; an entry without one
    is exactly 0, a transition that cannot be, and .00 is less than half a per cent.

    Args:
        model: the hidden Markov model.
        names: of the K states, shown up to 40; default their numbers from 0.
        ax: matplotlib axes; default those of a new figure, large enough for all states.

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
    if names is not None and len(names) != number:
        raise ValueError(f"names must be one a state, {number} of them, got {len(names)}.")
    said = [str(k) for k in range(number)] if names is None else [str(name) for name in names]
    longest = max(map(len, said))
    if ax is None:
        room = min(0.08 * longest, 2.0)  # inches that names take from the map
        side = room + float(np.clip(1.6 + 0.42 * number, 4.0, 9.0))
        figure = new_figure(side + 0.8, side)  # the entries nearly square
        ax = figure.subplots()
    labelled_image(ax, probs, "probability", origin="upper", aspect="auto")
    if number <= (MOST_NUMBERS if names is None else MOST_NAMES):
        flat = longest < max(30 / number, 4)  # a column is as wide
        size = 10 if number <= MOST_NUMBERS else 7
        ax.set_yticks(range(number), said, fontsize=size)
        ax.set_xticks(range(number), said, fontsize=size, rotation=0 if flat else 90)
    if number <= MOST_NUMBERS:
        for i, j in np.argwhere(probs > 0):
            colour = "white" if probs[i, j] > 0.5 else "black"
            text = f"{probs[i, j]:.2f}".removeprefix("0")
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    ax.set_xlabel("to state")
    ax.set_ylabel("from state")
    return ax
