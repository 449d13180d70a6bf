"""How a fit went: what EM raises, step by step, and how it ended."""

from typing import Any

import numpy as np

from jaxem.em import EMResult
from jaxem.plots.look import COLOURS, GREY, finish, new_axes

FEW = 40  # steps that are drawn as points too


def trace(result: EMResult, *, ax: Any = None) -> Any:
    """Axes with the log-likelihood, log-prior included, after every step of a fit.

    The last point is a disc where the fit converged and a cross where it did not; the legend has
    the words.  Of many fits, as `fit_batch` and `search` return them, the one that ended highest
    stands out, and the others are grey.

    Args:
        result: of `fit`, or with leading axes.
        ax: matplotlib axes; default those of a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no value of the trace is finite.
    """
    values = np.asarray(result.trace, float)
    values = values.reshape(-1, values.shape[-1])
    num_steps = np.asarray(result.num_steps).reshape(-1)
    ends = np.asarray(result.log_likelihood + result.log_prior, float).reshape(-1)
    if not np.isfinite(values).any():
        raise ValueError("the trace has no finite value: there is nothing to draw.")
    ax = new_axes() if ax is None else ax
    best = int(np.argmax(np.where(np.isnan(ends), -np.inf, ends)))
    for i in range(len(values)):
        if i != best:
            ax.plot(values[i, : num_steps[i] + 1], color=GREY, linewidth=0.8, alpha=0.5, zorder=2)
    steps = int(num_steps[best])
    own = values[best, : steps + 1]
    marker = "." if steps <= FEW else None
    ax.plot(own, color=COLOURS[0], marker=marker, markersize=5, linewidth=1.6, zorder=3)
    converged = bool(np.reshape(np.asarray(result.converged), -1)[best])
    how = str(np.reshape(np.asarray(result.outcome), -1)[best]).split(";")[0].split(",")[0]
    ended = f"{how} after {steps} step{'' if steps == 1 else 's'}"
    ax.plot(
        steps, own[-1], color=COLOURS[0] if converged else COLOURS[1],
        marker="o" if converged else "X", markersize=9, linestyle="none", label=ended, zorder=4,
    )  # fmt: skip
    if len(values) > 1:
        ax.plot([], [], color=GREY, linewidth=0.8, label=f"the other {len(values) - 1} fits")
    ax.set_xlabel("step")
    ax.set_ylabel(
        "log-likelihood" if not np.any(result.log_prior) else "log-likelihood + log-prior"
    )
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    finish(ax, num_columns=2)
    return ax
