"""How our own time and memory grow with rows, steps and sequences over two decades."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import ADAPTERS, OURS
from bench.processes import Worker
from bench.workloads import DTYPES, HMM_GROUP, MIXTURE_GROUP, Workload

SHORT, LONG = 2, 8  # EM steps; a step's time is the difference's, without what a fit costs once
DEVIATION_GOAL = 0.10  # of time over size, from the law through the middle
MEMORY_GOAL = 1.10  # of the multiple of the data at the largest size over a decade less


@dataclass(frozen=True)
class Series:
    """One workload at several sizes."""

    name: str
    axis: str  # the field of `Workload` that grows
    symbol: str  # what the axis of a picture is called
    sizes: tuple[int, ...]
    workload: Workload

    def at(self, size: int, steps: int, factor: int) -> Workload:
        """The workload at one size, with so many EM steps; `factor` shrinks the sizes."""
        size = max(2, size // factor)
        if self.axis == "sequences":
            return replace(self.workload, sequences=size, steps=steps)
        return replace(self.workload, rows=size, steps=steps)


LONG_SIZES = (10_000, 31_623, 100_000, 316_228, 1_000_000)
SERIES = (
    Series("growth-gmm-rows", "rows", "N", LONG_SIZES, Workload(MIXTURE_GROUP, "full", 1, 0, 8, 8)),
    Series(
        "growth-hmm-steps", "rows", "T", LONG_SIZES, Workload(HMM_GROUP, "gaussian", 1, 0, 3, 5)
    ),
    Series(
        "growth-hmm-sequences",
        "sequences",
        "B",
        (10, 32, 100, 316, 1000),
        Workload(HMM_GROUP, "gaussian", 0, 500, 4, 8),
    ),
)
NAMES = tuple(series.name for series in SERIES)


def measure(
    name: str,
    dtype: str,
    *,
    repeats: int,
    limit: float,
    factor: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Times and memory of one series, its law and the largest deviation from it."""
    series = next(series for series in SERIES if series.name == name)
    sizes, times, memory = [], [], []
    for wanted in series.sizes:
        short, long = (series.at(wanted, steps, factor) for steps in (SHORT, LONG))
        size = getattr(short, series.axis)
        milliseconds, multiple = _step(short, long, dtype, repeats, limit)
        say(f"  {series.symbol} = {size}: {milliseconds:.3f} ms a step")
        sizes.append(size)
        times.append(milliseconds)
        memory.append(multiple)
    goals = {} if factor > 1 else {"goal": DEVIATION_GOAL, "memory_goal": MEMORY_GOAL}
    return {
        "group": "growth",
        "series": name,
        "dtype": dtype,
        "symbol": series.symbol,
        "sizes": sizes,
        "milliseconds_a_step": times,
        "memory_multiple": memory,
    } | law(sizes, times, memory, **goals)


def _step(
    short: Workload, long: Workload, dtype: str, repeats: int, limit: float
) -> tuple[float, float | None]:
    """Milliseconds of one EM step, and the peak as a multiple of the data."""
    # Both in one process: another one's idle caches would double some times and not others.
    worker = Worker(ADAPTERS[OURS], short, dtype, limit)
    try:
        worker.ask("prepare", (ADAPTERS[OURS], long, dtype))
        for which, workload in enumerate((short, long)):
            _, answer = worker.ask("first", which)
            if answer["steps"] != workload.steps:
                raise RuntimeError(f"{workload.name} stopped after {answer['steps']} steps")
        calls = repeats + 1
        rounds = [[worker.ask("call", which) for which in (0, 1)] for _ in range(calls)][1:]
        multiple = worker.ask("memory", 1)
    finally:
        worker.close()
    few, many = (statistics.median(column) for column in zip(*rounds, strict=True))
    return 1000 * (many - few) / (LONG - SHORT), multiple


def law(
    sizes: list[int],
    times: list[float],
    memory: list[float | None],
    goal: float | None = None,
    memory_goal: float | None = None,
) -> dict[str, Any]:
    """Slope in doubly logarithmic coordinates, and how far time over size strays from its mean.

    Times are differences and may come out below 0 where noise is all there is: then NaN.
    """
    a_unit = np.asarray(times) / np.asarray(sizes)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(a_unit)
        slope = 1 + float(np.polyfit(np.log(sizes), logs, 1)[0]) if all(a_unit > 0) else np.nan
    deviation = float(np.max(np.abs(a_unit / np.exp(np.mean(logs)) - 1)))
    last, decade = memory[-1], memory[-3]
    flat = last / decade if last is not None and decade is not None else None
    return {
        "slope": slope,
        "deviation": deviation,
        "goal": goal,
        "met": None if goal is None else deviation <= goal,
        "memory_growth": flat,
        "memory_goal": memory_goal,
        "memory_met": None if memory_goal is None or flat is None else flat <= memory_goal,
    }


def draw(directory: Path, entries: dict[str, Any]) -> list[Path]:
    """One picture a series from its records in both dtypes; none without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return []
    paths = []
    for series in SERIES:
        found = [entries[key] for dtype in DTYPES if (key := f"{series.name} {dtype}") in entries]
        if not found:
            continue
        figure, (time_axis, memory_axis) = pyplot.subplots(1, 2, figsize=(9, 3.6))
        for entry in found:
            sizes = np.asarray(entry["sizes"], float)
            times = np.asarray(entry["milliseconds_a_step"])
            (line,) = time_axis.loglog(sizes, times, "o", label=entry["dtype"])
            through = np.exp(np.mean(np.log(times / sizes)))
            time_axis.loglog(sizes, through * sizes, color=line.get_color(), linewidth=0.8)
            memory = [np.nan if one is None else one for one in entry["memory_multiple"]]
            memory_axis.semilogx(sizes, memory, "o-", label=entry["dtype"])
        time_axis.set(xlabel=series.symbol, ylabel="ms an EM step", title="lines: linear")
        memory_axis.set(xlabel=series.symbol, ylabel="peak memory / data", ylim=(0, None))
        time_axis.legend()
        figure.suptitle(series.name)
        figure.tight_layout()
        paths.append(directory / f"{series.name}.png")
        figure.savefig(paths[-1], dpi=120, metadata={"Software": None})
        pyplot.close(figure)
    return paths
