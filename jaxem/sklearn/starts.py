"""Many starts fitted, and the best of them as NumPy arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxem import em
from jaxem.sklearn.added import ADDED, Added


@dataclass(frozen=True)
class Fitted:
    """The best of some fits, on the host."""

    model: Any  # without what was added
    log_likelihood: float
    trace: np.ndarray  # [steps + 1], what EM raises, at the start and after each step
    num_steps: int
    converged: bool  # whether the last step gained or lost no more than the tolerance
    broken: bool  # whether a log-likelihood was not finite


def fit_best(
    starts: Sequence[Added], data: Any, *, tol: float, max_steps: int, frozen: Sequence[str] = ()
) -> Fitted:
    """The fit that ends highest, of those from these starts.

    `frozen` names parts of the model inside.  Under additions that are no prior a step may lose a
    little at the end: where it loses no more than the tolerance that is convergence too, as it is
    to scikit-learn.
    """
    names = (*ADDED, *(f"model.{name}" for name in frozen))
    results = _fit_starts(starts, data, tol=tol, max_steps=max_steps, frozen=names)
    objective = np.asarray(results.log_likelihood + results.log_prior)
    best = int(np.argmax(np.where(np.isnan(objective), -np.inf, objective)))
    result: em.EMResult = jax.tree.map(lambda leaf: np.asarray(leaf)[best], results)
    steps = int(result.num_steps)
    trace = np.asarray(result.trace)[: steps + 1]
    gain = abs(trace[-1] - trace[-2]) if steps else np.inf
    return Fitted(
        result.model.model,
        float(result.log_likelihood),
        trace,
        steps,
        bool(result.converged) or bool(gain <= tol),
        int(result.end) == em.NON_FINITE or not np.isfinite(result.log_likelihood),
    )


def _fit_starts(starts: Sequence[Added], data: Any, **options: Any) -> em.EMResult:
    """The fits from all starts, with a leading axis."""
    prior = em.Prior(floor=0.0)
    results = [em.fit(start, data, prior=prior, **options) for start in starts]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)
