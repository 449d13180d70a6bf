"""One workload in one dtype: every library in a process of its own, agreement first, then time."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench import agreement, agreement_many
from bench.inputs import make_inputs, widened
from bench.peers import OURS
from bench.processes import Worker, WorkerFailed
from bench.workloads import MANY, Workload

# A peer this many times slower than the fastest, and of so many seconds a call, is timed once.
SLOW, LONG = 3.0, 1.0


def measure(
    workload: Workload,
    dtype: str,
    adapters: Mapping[str, str],
    *,
    repeats: int,
    limit: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What is written down of a workload: a record for each library, and their comparison."""
    libraries: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    try:
        answers = _first_calls(workload, dtype, adapters, limit, workers, libraries, say)
        _compare(workload, dtype, answers, libraries)
        _time(workload, workers, libraries, repeats, say)
    finally:
        for worker in workers.values():
            worker.close()
    for record in libraries.values():
        _summarise(record, workload)
    return {
        "workload": workload.name,
        "group": workload.group,
        "dtype": dtype,
        "steps": workload.steps,
        "libraries": libraries,
    } | verdict(workload, dtype, libraries)


def _first_calls(
    workload: Workload,
    dtype: str,
    adapters: Mapping[str, str],
    limit: float,
    workers: dict[str, Worker],
    libraries: dict[str, dict[str, Any]],
    say: Callable[[str], None],
) -> dict[str, Any]:
    answers = {}
    for name, adapter in adapters.items():
        record = libraries[name] = {}
        try:
            worker = Worker(adapter, workload, dtype, limit)
        except WorkerFailed as failure:
            record["skipped"] = str(failure)
            say(f"  {name} skipped: {failure}")
            continue
        workers[name] = worker
        record |= worker.about
        if "unsupported" in record:
            workers.pop(name).close()
            continue
        with _reported(name, workers, record, say):
            record["first_call_seconds"], answers[name] = worker.ask("first")
            say(f"  {name} {record['version']}: first call {record['first_call_seconds']:.2f} s")
    return answers


@contextlib.contextmanager
def _reported(
    name: str, workers: dict[str, Worker], record: dict[str, Any], say: Callable[[str], None]
) -> Iterator[None]:
    """A worker that fails inside it is closed, and its record says how."""
    try:
        yield
    except WorkerFailed as failure:
        record["skipped"] = str(failure)
        workers.pop(name).close()
        say(f"  {name} skipped: {failure}")


def _compare(
    workload: Workload, dtype: str, answers: dict[str, Any], libraries: dict[str, dict[str, Any]]
) -> None:
    """Note in each record how far the answer is from ours, and whether that is near enough."""
    if OURS not in answers:
        return
    inputs = widened(make_inputs(workload, dtype))
    many = workload.group == MANY
    allowed = (agreement_many if many else agreement).tolerance(workload, dtype)
    for name, answer in answers.items():
        record = libraries[name]
        taken = answer.get("steps", workload.steps)
        if taken != workload.steps:
            ended = answer.get("ended", "no reason given")
            record["stopped"] = f"after {taken} of {workload.steps} steps: {ended}"
        if many:
            record |= agreement_many.compare(workload, inputs, answers[OURS], answer)
        else:
            record["difference"] = agreement.difference(workload, inputs, answers[OURS], answer)
        apart = record["difference"]
        record["tolerance"] = allowed
        # Written so that NaN disagrees.
        record["agrees"] = bool(apart <= allowed) and "stopped" not in record


def _time(
    workload: Workload,
    workers: dict[str, Worker],
    libraries: dict[str, dict[str, Any]],
    repeats: int,
    say: Callable[[str], None],
) -> None:
    """A discarded round, then `repeats` interleaved ones, then one for memory.

    Beyond the patience of a workload a peer, which compiles nothing there, has had its one call.
    """
    warm = {}
    for name, worker in list(workers.items()):
        if name != OURS and libraries[name]["first_call_seconds"] > workload.patience:
            warm[name] = libraries[name]["first_call_seconds"]
            continue
        with _reported(name, workers, libraries[name], say):
            warm[name] = worker.ask("call")
    ranked = [warm[name] for name in workers if name != OURS and libraries[name].get("agrees")]
    fastest = min(ranked, default=float("inf"))
    for name in workers:
        record = libraries[name]
        in_rounds = record.get("agrees", False) and warm[name] <= min(
            max(SLOW * fastest, LONG), workload.patience
        )
        record["repeated"] = name == OURS or in_rounds
        record["seconds"] = [] if record["repeated"] else [warm[name]]
    for _ in range(repeats):
        for name, worker in list(workers.items()):
            if libraries[name]["repeated"]:
                with _reported(name, workers, libraries[name], say):
                    libraries[name]["seconds"].append(worker.ask("call"))
    for name, worker in list(workers.items()):
        # Loops over many fits have processes of their own, whose memory would not be counted.
        if libraries[name]["repeated"] and workload.group != MANY:
            with _reported(name, workers, libraries[name], say):
                libraries[name]["memory_multiple"] = worker.ask("memory")


def _summarise(record: dict[str, Any], workload: Workload) -> None:
    if "skipped" in record or not record.get("seconds"):
        return
    median = statistics.median(record["seconds"])
    record["milliseconds_a_step"] = 1000 * median / workload.steps
    record["compile_seconds"] = max(0.0, record["first_call_seconds"] - median)


def verdict(
    workload: Workload, dtype: str, libraries: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The fastest peer that agrees, the ratio to it, and whether the goals are met.

    The ratio is the peer's time over ours: above 1 we are faster.  It is withheld, as None, when no
    peer agrees or our own fit did not take all its steps.  A goal that speaks of one peer is met or
    not by the ratio to that one, and is left open where that one could not be measured.
    """
    times = {
        name: record["milliseconds_a_step"]
        for name, record in libraries.items()
        if record.get("agrees") and "milliseconds_a_step" in record
    }
    ours = times.pop(OURS, None)
    fastest = min(times, key=times.__getitem__, default=None)
    ratio = times[fastest] / ours if fastest is not None and ours is not None else None
    goal, peer, judged = workload.goal(dtype), workload.goal_peer, ratio
    if peer is not None:
        judged = times[peer] / ours if peer in times and ours is not None else None
    absent = peer is not None and "skipped" in libraries.get(peer, {"skipped": "not asked"})
    memory = libraries.get(OURS, {}).get("memory_multiple")
    compiling = libraries.get(OURS, {}).get("compile_seconds")
    return {
        "fastest_peer": fastest,
        "ratio": ratio,
        "goal": goal,
        "goal_peer": peer,
        "goal_ratio": judged,
        "met": None if goal is None or absent else judged is not None and judged >= goal,
        "memory_goal": workload.memory_goal,
        "memory_met": at_most(memory, workload.memory_goal),
        "compile_goal": workload.compile_goal,
        "compile_met": at_most(compiling, workload.compile_goal),
    }


def at_most(value: float | None, goal: float | None) -> bool | None:
    """Whether a goal that is an upper bound is met; None without a goal or a value."""
    return None if value is None or goal is None else value <= goal
