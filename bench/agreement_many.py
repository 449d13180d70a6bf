"""Whether two libraries found the same in many fits: every member of equal steps, else the best."""

from typing import Any

import numpy as np

from bench.agreement import TOLERANCES, hmm_log_likelihood, mixture_log_likelihood
from bench.inputs import Inputs
from bench.workloads import Workload

ALL_STEPS = 0.99  # of the steps asked for: in float32 a few fits of many have nothing left to gain
REGULAR = 100.0  # floors: a covariance whose least eigenvalue is larger was formed by the data
STEPS_APART = 5  # at most, in which two libraries end: the last ones gain a tolerance or less each
SAME_OPTIMUM = 0.1  # nats between two fits that are called alike: ten tolerances


def compare(workload: Workload, inputs: Inputs, ours: Any, theirs: Any) -> dict[str, Any]:
    """How far two answers are apart, and what else is worth telling.

    Fits of equal steps: the largest relative difference of the log-likelihoods of two members.
    Fits to tolerance: that of the best fits of each order, in nats.  With a floor only members
    that are regular in both libraries are compared, since the two keep eigenvalues off zero in
    different ways, one by adding to all of them.  NaN is far.
    """
    apart, alike, regular = [], [], []
    for order, (one, other) in enumerate(zip(ours["orders"], theirs["orders"], strict=True)):
        a, b = (scores(workload, inputs, fits, order) for fits in (one, other))
        both = is_regular(workload, one) & is_regular(workload, other)
        regular.append(both)
        if not workload.tol:
            apart.append(np.max(np.abs(a - b) / np.abs(a)))
        elif np.any(both):
            apart.append(abs(np.max(a[both]) - np.max(b[both])))
        alike.append(np.abs(a - b)[both] <= SAME_OPTIMUM)
    told: dict[str, Any] = {"mean_steps": mean_steps(theirs)}
    if (reason := stopped(workload, theirs)) is not None:
        told["stopped"] = reason
    return told | {
        "difference": float(np.max(apart)) if apart else float("nan"),
        "orders_compared": len(apart),
        "share_regular": float(np.mean(np.concatenate(regular))),
        "share_alike": float(np.mean(np.concatenate(alike))) if apart else None,
    }


def tolerance(workload: Workload, dtype: str) -> float:
    """The largest difference at which a peer is compared."""
    return STEPS_APART * workload.tol if workload.tol else TOLERANCES[dtype]["score"]


def mean_steps(answer: Any) -> float:
    """EM steps of a fit; of fits that failed there are none to count."""
    return float(np.nanmean(np.concatenate([fits["steps"] for fits in answer["orders"]])))


def stopped(workload: Workload, answer: Any) -> str | None:
    """Why fits that were to take all their steps are not to be compared; None: they are."""
    taken = mean_steps(answer)
    if workload.tol or taken >= ALL_STEPS * workload.max_steps:
        return None
    return f"after {taken:.1f} of {workload.max_steps} steps on average"


def scores(workload: Workload, inputs: Inputs, fits: Any, order: int = 0) -> Any:
    """Log-likelihoods [M] of fitted parameters from float64 data; NaN where there are none."""
    found = np.full(len(fits["means"]), np.nan)
    own = workload.kind == "data-sets"
    with np.errstate(divide="ignore", invalid="ignore"):
        for member in range(len(found)):
            part = {name: leaf[member] for name, leaf in fits.items() if name != "steps"}
            x = inputs.x[member] if own else inputs.x
            try:
                if workload.kind == "hmm":
                    found[member] = hmm_log_likelihood(workload, x, part)
                else:
                    found[member] = mixture_log_likelihood(x, part)
            except np.linalg.LinAlgError:  # a covariance that is none
                continue
    return found


def is_regular(workload: Workload, fits: Any) -> Any:
    """Whether the data, and not the floor, decide on all covariances of a fit, [M]."""
    covariances = np.asarray(fits["covariances"], float)
    sound = np.all(np.isfinite(covariances), axis=(1, 2, 3))
    filled = np.where(sound[:, None, None, None], covariances, 0.0)
    least = np.linalg.eigvalsh(filled).min((1, 2))
    return sound & (least > REGULAR * workload.floor)
