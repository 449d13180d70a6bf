"""Many fits of another library: a loop over them in processes of joblib, one on each core."""

from collections.abc import Callable
from functools import partial
from typing import Any

import joblib
import numpy as np

from bench.inputs import Inputs
from bench.peers import Run
from bench.workloads import Workload

TASKS_A_CORE = 8  # few enough to cost nothing, and enough to share out fits of unequal length

# (workload, start with the means of one fit, its data) -> linear parameters and number of steps
FitOne = Callable[[Workload, dict[str, Any], Any], dict[str, Any]]


def prepare(fit_one: FitOne, workload: Workload, inputs: Inputs) -> Run:
    """The loop, in processes that have started, imported the library and fitted once."""
    members = [(order, member) for order in workload.orders for member in range(workload.fits)]
    cores = joblib.cpu_count()
    tasks = min(cores * TASKS_A_CORE, len(members))
    shares = [members[task::tasks] for task in range(tasks)]  # of orders a bit of each
    parallel = joblib.Parallel(n_jobs=cores, pre_dispatch="all").__enter__()
    each = joblib.delayed(partial(_fit_some, fit_one, workload))

    def arguments(share: list[tuple[int, int]]) -> tuple[Any, list[Any]]:
        own = workload.kind == "data-sets"
        starts = [
            inputs.start | {"means": inputs.start["means"][member, :order]}
            for order, member in share
        ]
        data = [inputs.x[member] for _, member in share] if own else inputs.x
        return starts, data

    def call() -> list[list[dict[str, Any]]]:
        return parallel(each(*arguments(share)) for share in shares)

    def answer(done: list[list[dict[str, Any]]]) -> dict[str, Any]:
        by_member = {
            one: fitted
            for share, some in zip(shares, done, strict=True)
            for one, fitted in zip(share, some, strict=True)
        }
        return {
            "orders": [
                _stacked([by_member[order, member] for member in range(workload.fits)])
                for order in workload.orders
            ]
        }

    parallel(each(*arguments(share[:1])) for share in [members[:1]] * 2 * cores)
    return Run(call, answer)


def _fit_some(
    fit_one: FitOne, workload: Workload, starts: list[dict[str, Any]], data: Any
) -> list[dict[str, Any]]:
    own = data if workload.kind == "data-sets" else [data] * len(starts)
    return [fit_one(workload, start, x) for start, x in zip(starts, own, strict=True)]


def _stacked(fitted: list[dict[str, Any]]) -> dict[str, Any]:
    """Parameters [M, ...]; NaN where a fit failed."""
    whole = next((one for one in fitted if one), {})
    nothing = {name: np.full(np.shape(part), np.nan) for name, part in whole.items()}
    return {name: np.stack([(one or nothing)[name] for one in fitted]) for name in whole}
