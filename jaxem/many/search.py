"""Restarts, model orders, families and data sets, in one call."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxem import em, parameters
from jaxem.many import criteria
from jaxem.many.batch import Batch, stacked
from jaxem.many.chunks import check_memory
from jaxem.many.members import Options, Progress, fit_members
from jaxem.many.progress import Bar
from jaxem.many.result import SearchResult
from jaxem.many.starts import Candidate, starts


def search(
    key: Array,
    data: Any,
    candidates: Candidate | Sequence[Candidate] | Mapping[str, Candidate],
    *,
    restarts: int = 10,
    criterion: str = "bic",
    folds: int = 5,
    prior: em.Prior | None = None,
    tol: float | Array = 1e-6,
    max_steps: int = 1000,
    frozen: str | parameters.Names = (),
    memory: int | None = None,
    progress: bool | Progress = False,
) -> SearchResult:
    """Every candidate fitted from every restart to every data set, and what is best.

    A candidate makes a start from a key and data, `(key, data) -> model`, such as
    `initialize.Start`; one that JAX can trace starts all its members in one compiled call.  It sees
    the data as they came; but `Samples` or `Sequences` where data sets differ in size, or something
    is left out: rows of weight 0 are not there, nor sequences of length or weight 0.
    Candidates may differ in anything: order, family, kind of model.  All members of one candidate
    are one `fit_batch`.

    Restart r of candidate c on data set s starts from `fold_in(fold_in(fold_in(key, c), s), r)`:
    more restarts, candidates or data sets leave the others as they are.

    Args:
        key: a PRNG key.
        data: what `fit` takes; or a `Batch` of S data sets, of one size or of many.
        candidates: one, several, or several by name.
        restarts: R, starts of each candidate on each data set.
        criterion: "bic", "aic", "icl", "log_likelihood" or "cv", by which `SearchResult.best`
            decides; the first four can be asked of any result.  "cv" is the log-likelihood of what
            is left out, the rows (or sequences) in turn in `folds` parts, under the best restart on
            the rest.
        folds: parts for "cv".
        prior: as for `fit`, for all.
        tol: as for `fit`.
        max_steps: as for `fit`.
        frozen: as for `fit`.
        memory: as for `fit_batch`.
        progress: True for a bar (tqdm), or a function of (members done, members in all, best
            objective so far).

    Raises:
        ValueError: as `fit_batch` does; no candidate; a criterion that does not exist; fewer rows
            or sequences than folds.

    Examples:
        >>> import jax, jaxem
        >>> from jaxem.initialize import Start, kmeans_plus_plus
        >>> faithful = jaxem.datasets.old_faithful()
        >>> orders = [Start(kmeans_plus_plus, jaxem.TiedGaussian, k) for k in (2, 3)]
        >>> result = jaxem.search(jax.random.key(0), faithful, orders, restarts=4)
        >>> print(result.names[result.ranking()[0]], result.scores().round(1))
        TiedGaussian, K=3 [[2325.2 2314.3]]
    """
    criteria.check_criterion(criterion)
    check_memory(memory)
    em.check_options(tol, max_steps)
    for name, number in (("restarts", restarts), ("folds", folds)):
        least = 1 if name == "restarts" else 2
        if number < least:
            raise ValueError(f"{name} must be {least} or more, got {number}.")
    named = _named(candidates)
    task = _Task(key, data, restarts, folds if criterion == "cv" else 0)
    prior = em.Prior() if prior is None else prior
    fitting: dict[str, Any] = {"prior": prior, "tol": tol, "memory": memory}
    bar: Any = Bar() if progress is True else nullcontext(progress or None)
    with bar as report:
        count = _Count(len(named) * len(task) * restarts * (1 + task.folds), report)
        found = [
            _of_candidate(task, index, candidate, max_steps, frozen, fitting, count)
            for index, candidate in enumerate(named.values())
        ]
    fits, classification, cv, sizes, orders = zip(*found, strict=True)
    return SearchResult(
        criterion,
        tuple(named),
        orders,
        fits,
        sizes[0],
        np.stack(classification, 1),
        np.stack(cv, 1) if task.folds else None,
    )


@dataclass(frozen=True)
class _Task:
    """What every candidate is asked for."""

    key: Array
    data: Any  # as it came
    restarts: int
    folds: int  # 0: nothing is left out

    def __len__(self) -> int:
        return len(self.data) if isinstance(self.data, Batch) else 1

    def keys(self, candidate: int, sets: int) -> Array:
        """[sets · restarts], the restarts of a data set together."""
        fold = jax.random.fold_in
        own = fold(self.key, candidate)

        def one(data_set: Any, restart: Any) -> Array:
            return fold(fold(own, data_set), restart)

        which, restart = np.divmod(np.arange(sets * self.restarts), self.restarts)
        return jax.vmap(one)(which, restart)


class _Count:
    """Members done, over all candidates."""

    def __init__(self, total: int, report: Progress | None) -> None:
        self.total, self.report, self.before, self.best = total, report, 0, -np.inf

    def of(self, number: int) -> Progress | None:
        """A report of the next `number` members."""
        if self.report is None:
            return None
        report, before = self.report, self.before
        self.before += number

        def show(done: int, _: int, best: float) -> None:
            self.best = max(self.best, best)
            report(before + done, self.total, self.best)

        return show


def _named(candidates: Any) -> dict[str, Candidate]:
    """The candidates by name.

    Raises:
        ValueError: none, or what cannot be called.
    """
    if isinstance(candidates, Mapping):
        named = {str(name): candidate for name, candidate in candidates.items()}
    else:
        several = [candidates] if callable(candidates) else list(candidates)
        named = {}
        for index, candidate in enumerate(several):
            name = getattr(candidate, "name", None) or getattr(candidate, "__name__", "<lambda>")
            plain = name == "<lambda>" or name in named
            named[f"candidate {index}" if plain else str(name)] = candidate
    if not named:
        raise ValueError("there is no candidate to fit.")
    for name, candidate in named.items():
        if not callable(candidate):
            raise ValueError(f"{name} is no function (key, data) -> model, but {candidate!r}.")
    return named


def _of_candidate(
    task: _Task,
    index: int,
    candidate: Candidate,
    max_steps: int,
    frozen: Any,
    fitting: dict[str, Any],
    count: _Count,
) -> tuple[em.EMResult, np.ndarray, Any, np.ndarray, int | None]:
    """Fits [S, R], classification log-likelihoods [S, R], what cross-validation says [S], n, K."""
    data, sets, restarts = task.data, len(task), task.restarts
    several = isinstance(data, Batch)
    keys = task.keys(index, sets)
    member = candidate(keys[0], data[0] if several else data)
    whole = stacked(member, data) if several else member.validate(data)
    data_set = np.repeat(np.arange(sets), restarts) if several else None
    frozen = parameters.check_frozen(member, frozen)
    options = Options(int(max_steps), frozen, criteria.classification)

    def fits(keys: Array, data: Any, whole: Any, data_set: Any) -> tuple[em.EMResult, Any]:
        models = starts(candidate, keys, data, whole, data_set)
        models = em.cast(models, em.floating_dtype(whole, member))
        number = len(keys)
        return fit_members(
            models, whole, data_set, options=options, progress=count.of(number), **fitting
        )

    result, classification = fits(keys, data, whole, data_set)
    cv = None
    if task.folds:
        stack = whole if several else jax.tree.map(lambda leaf: np.asarray(leaf)[None], whole)
        cv = _cross_validated(task, index, stack, fits, fitting)
    shaped = jax.tree.map(lambda leaf: leaf.reshape(sets, restarts, *leaf.shape[1:]), result)
    order = getattr(member, "num_states", None)
    order = getattr(getattr(member, "components", None), "num_members", order)
    observations = np.reshape(criteria.num_observations(whole, several), (sets,))
    return shaped, np.reshape(classification, (sets, restarts)), cv, observations, order


def _cross_validated(
    task: _Task, index: int, stack: Any, fits: Callable[..., Any], fitting: dict[str, Any]
) -> np.ndarray:
    """The log-likelihood of what is left out under the best restart on the rest, summed; [S]."""
    parts, left_out = criteria.folds(jax.random.fold_in(task.key, index), stack, task.folds)
    number = len(task) * task.folds
    data_set = np.repeat(np.arange(number), task.restarts)
    result, _ = fits(task.keys(index, number), Batch(parts), parts, data_set)
    shaped = jax.tree.map(lambda leaf: leaf.reshape(number, task.restarts, *leaf.shape[1:]), result)
    objective = np.asarray(shaped.log_likelihood + shaped.log_prior)
    sound = np.isfinite(objective) & (np.asarray(shaped.end) < em.NON_FINITE)
    best = np.argmax(np.where(sound, objective, -np.inf), 1)
    chosen = jax.tree.map(lambda leaf: leaf[np.arange(number), best], shaped.model)
    judged, _ = fit_members(
        chosen,
        left_out,
        np.arange(number),
        options=Options(0),
        prior=em.Prior(floor=0.0),
        tol=0.0,
        memory=fitting["memory"],
        progress=None,
    )
    score = np.where(sound.any(1), np.asarray(judged.log_likelihood), np.nan)
    return score.reshape(len(task), task.folds).sum(1)
