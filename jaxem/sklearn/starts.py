"""Many starts fitted, and the best of them as NumPy arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxem import em, parameters
from jaxem.many import fit_batch
from jaxem.platform import hastily
from jaxem.sklearn.added import ADDED, Added

NOTHING = em.Prior(floor=0.0)  # what is added to statistics is part of the starts


@dataclass(frozen=True)
class Fitted:
    """The best of some fits, on the host."""

    model: Any  # without what was added
    trace: np.ndarray  # [steps + 1], what EM raises, at the start and after each step
    num_steps: int
    converged: bool  # whether the last step gained or lost no more than the tolerance
    broken: bool  # whether a log-likelihood was not finite


def fit_best(
    starts: Sequence[Added],
    data: Any,
    *,
    tol: float,
    max_steps: int,
    frozen: Sequence[str] = (),
    small: bool = False,
) -> Fitted:
    """The fit that ends highest, of those from these starts.

    A `small` problem is compiled hastily.  `frozen` names parts of the model inside.  Under
    additions that are no prior a step may lose a little at the end: where it loses no more than the
    tolerance that is convergence too, as it is to scikit-learn.
    """
    names = (*ADDED, *(f"model.{name}" for name in frozen))
    fit = _fit_small_starts if small else _fit_starts
    results = fit(starts, data, tol=tol, max_steps=max_steps, frozen=names)
    objective = np.asarray(results.log_likelihood + results.log_prior)
    best = int(np.argmax(np.where(np.isnan(objective), -np.inf, objective)))
    result: em.EMResult = jax.tree.map(lambda leaf: np.asarray(leaf)[best], results)
    steps = int(result.num_steps)
    trace = np.asarray(result.trace)[: steps + 1]
    with np.errstate(invalid="ignore"):  # from -inf to -inf nothing is gained
        gain = abs(trace[-1] - trace[-2]) if steps else np.inf
    return Fitted(
        result.model.model,
        trace,
        steps,
        bool(result.converged) or bool(gain <= tol),
        int(result.end) == em.NON_FINITE or not np.isfinite(result.log_likelihood),
    )


def _fit_starts(starts: Sequence[Added], data: Any, **options: Any) -> em.EMResult:
    """The fits from all starts in one batch, with a leading axis."""
    if len(starts) == 1:
        result = em.fit(starts[0], data, prior=NOTHING, **options)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], result)
    return fit_batch(_stacked(starts), data, prior=NOTHING, **options)


def _stacked(starts: Sequence[Added]) -> Added:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *starts)


def _fit_small_starts(
    starts: Sequence[Added], data: Any, *, tol: float, max_steps: int, frozen: parameters.Names
) -> em.EMResult:
    """The same in one program, preparation and all."""
    data = starts[0].validate(data)
    return _fit_each(_stacked(starts), data, tol, max_steps=max_steps, frozen=frozen)


@partial(hastily, static_argnames=("max_steps", "frozen"))
def _fit_each(
    starts: Added, data: Any, tol: Any, max_steps: int, frozen: parameters.Names
) -> em.EMResult:
    def fit(start: Added) -> em.EMResult:
        return em.fit(start, data, prior=NOTHING, tol=tol, max_steps=max_steps, frozen=frozen)

    return lax.map(fit, starts)
