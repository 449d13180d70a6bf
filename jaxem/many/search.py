"""Restarts, model orders, families and data sets, in one call."""

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxem import em, parameters
from jaxem.acceleration import check_accelerate
from jaxem.many import criteria
from jaxem.many.batch import Batch, stacked
from jaxem.many.chunks import WORKER, check_memory, num_workers
from jaxem.many.members import Fitted, Options, Progress, fit_members
from jaxem.many.progress import Bar
from jaxem.many.result import SearchResult
from jaxem.many.starts import Candidate, check_one_shape, starts, traced_starts


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
    accelerate: str | None = None,
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
            the rest; the parts are the same for all candidates.
        folds: parts for "cv".
        prior: as for `fit`, for all.
        tol: as for `fit`.
        max_steps: as for `fit`.
        frozen: as for `fit`.
        accelerate: as for `fit`.
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
        if number < least or int(number) != number:
            raise ValueError(f"{name} must be a whole number, {least} or more, got {number}.")
    named = _named(candidates)
    restarts, folds = int(restarts), int(folds)
    task = _Task(key, data, restarts, folds if criterion == "cv" else 0)
    prior = em.Prior() if prior is None else prior
    asked = (frozen,) if isinstance(frozen, str) else tuple(frozen)
    options = Options(int(max_steps), asked, accelerate, criteria.classification)
    fitting: dict[str, Any] = {"prior": prior, "tol": tol, "memory": memory}
    bar: Any = Bar() if progress is True else nullcontext(progress or None)
    found: list[_Found] = []
    with bar as report:
        count = _Count(len(named) * len(task) * restarts * (1 + task.folds), report)
        ahead = ThreadPoolExecutor(num_workers(), thread_name_prefix=WORKER)
        fitting["ahead"] = ahead
        begun: deque[Callable[[], _Found]] = deque()
        try:
            for index, candidate in enumerate(named.values()):
                begun.append(_begin(task, index, candidate, options, fitting, count))
                if len(begun) > num_workers():  # programs compile while others are made, or run
                    found.append(begun.popleft()())
            found.extend(finish() for finish in begun)
        finally:
            ahead.shutdown(wait=False, cancel_futures=True)
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
        self.total, self.report, self.done, self.best = total, report, 0, -np.inf

    def of_some(self) -> Progress | None:
        """A report of some of the members."""
        if self.report is None:
            return None
        report, before = self.report, 0

        def show(done: int, _: int, best: float) -> None:
            nonlocal before
            self.done, before = self.done + done - before, done
            self.best = max(self.best, best)
            report(self.done, self.total, self.best)

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
            numbered = (f"candidate {number}" for number in itertools.count(index))
            proper = () if name == "<lambda>" else (str(name),)
            free = next(one for one in itertools.chain(proper, numbered) if one not in named)
            named[free] = candidate
    if not named:
        raise ValueError("there is no candidate to fit.")
    for name, candidate in named.items():
        if not callable(candidate):
            raise ValueError(f"{name} is no function (key, data) -> model, but {candidate!r}.")
        if not isinstance(candidate, Hashable):
            raise ValueError(f"{name} must be hashable, as functions are; freeze its dataclass.")
    return named


# Fits [S, R], classification log-likelihoods [S, R], what cross-validation says [S], n [S], and K.
_Found = tuple[em.EMResult, np.ndarray, np.ndarray | None, np.ndarray, int | None]


def _begin(
    task: _Task,
    index: int,
    candidate: Candidate,
    options: Options,
    fitting: dict[str, Any],
    count: _Count,
) -> Callable[[], _Found]:
    """A candidate's starts made and its program on the way; a function that fits it."""
    data, sets, restarts = task.data, len(task), task.restarts
    several = isinstance(data, Batch)
    keys = task.keys(index, sets)
    models = (
        None
        if isinstance(data, Batch | list | tuple)
        else traced_starts(candidate, keys, data, None)
    )
    if models is None:
        member = candidate(keys[0], data[0] if several else data)
    else:
        member = jax.tree.map(lambda leaf: leaf[0], models)
    if not hasattr(member, "e_step"):
        raise ValueError(f"candidate {index} (from 0) made no model to fit, but {member}.")
    if isinstance(data, Batch):
        try:
            whole = stacked(member, data)
        except ValueError:  # is it the data, or what the candidate read off the first of them?
            made = []
            with suppress(ValueError):
                made.extend(candidate(keys[0], data[i]) for i in range(sets))
            check_one_shape(made, range(sets))
            raise
    else:
        whole = member.validate(data)
    data_set = np.repeat(np.arange(sets), restarts) if several else None
    check_accelerate(options.accelerate, member)
    options = replace(options, frozen=parameters.check_frozen(member, options.frozen))

    def fits(models: Any, keys: Array, data: Any, whole: Any, data_set: Any) -> Any:
        if models is None:
            models = starts(candidate, keys, data, whole, data_set)
        models = em.cast(models, em.floating_dtype(whole, member))
        report = count.of_some()
        return fit_members(models, whole, data_set, options=options, progress=report, **fitting)

    fitted: Callable[[], Fitted] = fits(models, keys, data, whole, data_set)

    def finish() -> _Found:
        result, classification = fitted()
        cv = None
        if task.folds:
            stack = whole if several else jax.tree.map(lambda leaf: np.asarray(leaf)[None], whole)
            cv = _cross_validated(task, index, stack, fits, fitting["memory"])
        shaped = jax.tree.map(lambda leaf: leaf.reshape(sets, restarts, *leaf.shape[1:]), result)
        order = getattr(member, "num_states", None)
        order = getattr(getattr(member, "components", None), "num_members", order)
        observations = np.reshape(criteria.num_observations(whole, several), (sets,))
        return shaped, np.reshape(classification, (sets, restarts)), cv, observations, order

    return finish


def _cross_validated(
    task: _Task, index: int, stack: Any, fits: Callable[..., Any], memory: int | None
) -> np.ndarray:
    """The log-likelihood of what is left out under the best restart on the rest, summed; [S]."""
    parts, left_out = criteria.folds(task.key, stack, task.folds)
    number = len(task) * task.folds
    data_set = np.repeat(np.arange(number), task.restarts)
    result, _ = fits(None, task.keys(index, number), Batch(parts), parts, data_set)()
    shaped = jax.tree.map(lambda leaf: leaf.reshape(number, task.restarts, *leaf.shape[1:]), result)
    objective = np.asarray(shaped.log_likelihood + shaped.log_prior)
    sound = np.isfinite(objective) & (np.asarray(shaped.end) < em.NON_FINITE)
    best = np.argmax(np.where(sound, objective, -np.inf), 1)
    chosen = jax.tree.map(lambda leaf: leaf[np.arange(number), best], shaped.model)
    judge = fit_members(
        chosen,
        left_out,
        np.arange(number),
        options=Options(0),
        prior=em.Prior(floor=0.0),
        tol=0.0,
        memory=memory,
        progress=None,
    )
    judged, _ = judge()
    score = np.where(sound.any(1), np.asarray(judged.log_likelihood), np.nan)
    return score.reshape(len(task), task.folds).sum(1)
