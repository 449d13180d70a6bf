"""A batch in chunks: how large they are, and who works on them."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import jax

from jaxem.platform import computing_wide, is_cpu, is_wide

LANES = 32  # members side by side on a core, at most
CACHE = 2**20  # bytes of the largest array of an E-step, those of all lanes together, at most
ACCELERATOR_LANES = 4096
CHUNK = 512  # members of a chunk on a CPU, at most: they wait for the slowest of them at its end
ACCELERATOR_CHUNK = 2**16
MEMORY_SHARE = 0.75  # of what an accelerator has, if no budget is named
REPORTS = 20  # of progress, in about so many chunks


@dataclass(frozen=True)
class Size:
    """How many members a chunk has, and how many of them are side by side."""

    members: int
    lanes: int


@dataclass(frozen=True)
class Program:
    """A compiled program, and for which chunks."""

    size: Size
    run: Callable[..., Any]


# Chunks run beside one another: a program that uses several cores itself would wait for the others.
OPTIONS = {"xla_cpu_multi_thread_eigen": False}


def compiler_options() -> dict[str, Any]:
    """How a chunk's program is compiled."""
    return OPTIONS if is_cpu() and num_workers() > 1 else {}


def num_workers() -> int:
    """Chunks at a time: one on each core of a CPU, one on an accelerator."""
    if not is_cpu():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def first_size(number: int, reports: bool) -> Size:
    """What suits the platform, if memory allows; equal chunks, as many on every core."""
    workers = num_workers()
    lanes, most = (LANES, CHUNK) if is_cpu() else (ACCELERATOR_LANES, ACCELERATOR_CHUNK)
    if reports:
        most = min(most, max(number // REPORTS, lanes))
    rounds = -(-number // (workers * most))
    members = max(-(-number // (workers * rounds)), 1)
    return Size(members, min(lanes, members))


def suited(num_lanes: int, e_step: Callable[..., Any], *arguments: Any) -> int:
    """So many lanes, or fewer: as many as a core's cache holds what one E-step makes."""
    if not is_cpu():
        return num_lanes
    largest = _largest(jax.make_jaxpr(e_step)(*arguments).jaxpr)
    return max(min(num_lanes, CACHE // max(largest, 1)), 1)


def _largest(jaxpr: Any) -> int:
    """Bytes of the largest array that a program makes."""
    sizes = [0]
    for equation in jaxpr.eqns:
        for made in equation.outvars:
            sizes.append(made.aval.size * made.aval.dtype.itemsize)
        for part in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                sizes.append(_largest(inner))
    return max(sizes)


def fitting(
    compiled: Callable[[Size], Any], number: int, memory: int | None, reports: bool
) -> Program:
    """A program for chunks as large as suits the platform and the memory.

    Raises:
        ValueError: a single member takes more than `memory`.
    """
    limit, size = _limit(memory), first_size(number, reports)
    while True:
        run = compiled(size)
        used = 0 if limit is None else _bytes(run) * num_workers()
        if limit is None or used <= limit:
            return Program(size, run)
        if size.members == 1:
            raise ValueError(
                f"one member takes about {used} bytes with its data, more than memory={limit}."
            )
        members = max(min(int(size.members * limit / used), size.members - 1), 1)
        size = Size(members, max(min(int(size.lanes * limit / used), members), 1))


def check_memory(memory: int | None) -> None:
    """Raise a ValueError unless this is None or a number of bytes."""
    if memory is not None and not memory > 0:
        raise ValueError(f"memory is a number of bytes, 1 or more; got {memory}.")


def _limit(memory: int | None) -> int | None:
    if memory is not None:
        return memory
    stats = None if is_cpu() else jax.devices()[0].memory_stats()
    return int(MEMORY_SHARE * stats["bytes_limit"]) if stats and "bytes_limit" in stats else None


def _bytes(run: Any) -> int:
    """Arguments, results and temporaries of a compiled program."""
    used = run.memory_analysis()
    return used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes


def over_chunks(
    function: Callable[[int], Any], starts: range, done: Callable[[int, Any], None]
) -> list[Any]:
    """`function(start)` of every chunk, on all workers; `done(start, result)` after each.

    Results come back in order.  An error, or an interrupt, leaves out the chunks not yet begun.
    """
    results: dict[int, Any] = {}
    wide = is_wide()

    def there(start: int) -> Any:
        with computing_wide(wide):  # a thread begins with the process's default
            return function(start)

    with ThreadPoolExecutor(num_workers()) as pool:
        futures = {pool.submit(there, start): start for start in starts}
        try:
            for future in as_completed(futures):
                start = futures[future]
                results[start] = future.result()
                done(start, results[start])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[start] for start in starts]
