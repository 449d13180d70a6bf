"""A certificate: how far from its tolerance each check came."""

from typing import Any

import numpy as np

from jaxem.comparison import Certificate
from jaxem.comparison.certificate import FAILED, NOT_APPLICABLE
from jaxem.plots.look import COLOURS, GREY, finish, new_figure

LEAST, MOST = 1e-8, 1e3  # of the axis: what is nearer to 0, or further off, ends there
ROW = 0.19  # inches of a check


def certificate(certificate: Certificate, *, ax: Any = None) -> Any:
    """Axes with a bar for every check of a certificate: its value as a share of its tolerance.

    A bar that ends left of the line at 1 passed; one that failed goes beyond it, hatched and in
    another colour.  Values of 0 are dots at the left edge, and checks that have nothing to say have
    no bar.

    Args:
        certificate: what `certify` returned.
        ax: matplotlib axes; default those of a new figure, high enough for all checks.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: a certificate without checks.
    """
    checks = list(certificate)
    if not checks:
        raise ValueError("the certificate has no checks: there is nothing to draw.")
    if ax is None:
        ax = new_figure(7.2, 1.2 + ROW * len(checks)).subplots()
    shares = np.array([_share(check) for check in checks])
    ends = np.clip(np.nan_to_num(shares, nan=MOST), LEAST, MOST)
    failed = np.array([check.outcome == FAILED for check in checks])
    silent = np.array([check.outcome == NOT_APPLICABLE for check in checks])
    passed = ~failed & ~silent
    place = np.arange(len(checks))
    look = {"left": LEAST, "height": 0.72, "zorder": 2}
    if passed.any():
        shown = f"{passed.sum()} passed"
        ax.barh(place[passed], ends[passed] - LEAST, color=COLOURS[0], label=shown, **look)
    if failed.any():
        shown = f"{failed.sum()} failed"
        ax.barh(
            place[failed], ends[failed] - LEAST, color=COLOURS[1], hatch="////",
            edgecolor="white", linewidth=0, label=shown, **look,
        )  # fmt: skip
    exact = passed & (shares <= LEAST)
    dot = {"marker": "o", "markersize": 4, "linestyle": "none", "clip_on": False, "zorder": 3}
    ax.plot(np.full(exact.sum(), LEAST), place[exact], color=COLOURS[0], **dot)
    for i in place[silent]:
        ax.text(
            LEAST * 1.6, i, "not applicable", color=GREY, fontsize=7.5, va="center", style="italic"
        )
    ax.axvline(1, color="black", linewidth=1.4, label="tolerance", zorder=3)
    ax.set_xscale("log")
    ax.set_xlim(LEAST, MOST)
    ax.set_ylim(len(checks) - 0.4, -0.6)
    ax.set_yticks(place, [check.name for check in checks], fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("value / tolerance")
    ax.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    finish(ax, num_columns=3)
    return ax


def _share(check: Any) -> float:
    """How much of what it may be a value is: up to 1 it passed; NaN where there is no number."""
    value, tolerance = check.value, check.tolerance
    if value is None or tolerance is None or np.isnan(value):
        return np.nan
    if tolerance < 0:  # of a value that must lie below it
        return tolerance / value if value < 0 else np.inf
    if value <= 0:
        return 0.0
    return value / tolerance if tolerance > 0 else np.inf
