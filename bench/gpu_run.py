"""How a process of `bench.gpu` measures and reports, and the rates of the device it runs on."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REPEATS, MOST_REPEATS, ENOUGH_SECONDS = 5, 20, 2.0
REFUSAL = "no GPU or TPU found; --small tries the script on a CPU"


class Skipped(Exception):
    """Why something is not measured."""


@dataclass(frozen=True)
class Run:
    """One workload in its process: what it was told, and how it reports."""

    sizes: dict[str, Any]
    emit: Callable[[dict[str, Any]], None]
    deadline: float  # on the monotonic clock
    scan_step_seconds: float  # of the smallest step there is on this device

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def attempt(self, library: str, method: str, measure: Callable[..., None]) -> None:
        """Emit the record that `measure(record)` fills in, or why there is nothing in it."""
        record: dict[str, Any] = {"library": library, "method": method}
        reason = "no time was left" if self.left() <= 0 else why_not(lambda: measure(record))
        if reason is not None:
            record["skipped"] = reason
        self.emit(record)

    def time(self, call: Callable[[], Any]) -> tuple[Any, list[float], float]:
        """The answer of a call that blocks, seconds of warm ones, and of compiling the first."""
        answer, first = seconds_of(call)
        _, warm = seconds_of(call)
        if warm * REPEATS > self.left():
            raise Skipped(f"one call takes {warm:.1f} s; there was no time for {REPEATS} more")
        seconds: list[float] = []
        while len(seconds) < REPEATS or (
            len(seconds) < MOST_REPEATS and sum(seconds) < ENOUGH_SECONDS and self.left() > 0
        ):
            seconds.append(seconds_of(call)[1])
        return answer, seconds, max(0.0, first - statistics.median(seconds))


def why_not(function: Callable[[], None]) -> str | None:
    """Call it: None, or why it did not end well.  Whatever a library raises is a result."""
    try:
        function()
    except Skipped as reason:
        return str(reason)
    except ImportError as missing:
        return f"not installed: {missing.name or missing}"
    except Exception as failure:
        text = f"{type(failure).__name__}: {failure}".splitlines()[0][:300]
        full = "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
        return f"the device is too small: {text}" if full else f"raised {text}"
    return None


def seconds_of(call: Callable[[], Any]) -> tuple[Any, float]:
    """The answer of a call, and how long it took."""
    begin = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - begin


def to_torch(x: Any) -> tuple[Any, Any]:
    """torch, and the array as its tensor, without a copy through the host."""
    import jax
    import torch

    if jax.devices()[0].platform != "cpu" and not torch.cuda.is_available():
        raise Skipped("this torch has no CUDA")
    torch.set_float32_matmul_precision("highest")
    torch.set_grad_enabled(False)
    return torch, torch.from_dlpack(x)


def note(record: dict[str, Any], seconds: list[float], compiling: float, steps: int = 1) -> None:
    """Put times of calls of several steps into a record, as times of one."""
    record["seconds"] = [each / steps for each in seconds]
    record["median_seconds"] = statistics.median(record["seconds"])
    record["compile_seconds"] = compiling


def difference(more: list[float], fewer: list[float]) -> list[float]:
    """Times of calls less the median of shorter ones; refused where their quartiles overlap."""
    low, high = sorted(more)[len(more) // 4], sorted(fewer)[-1 - len(fewer) // 4]
    if low <= high:
        raise Skipped(f"steps are lost in noise: fits of {low:.3g} s with, {high:.3g} s without")
    return [each - statistics.median(fewer) for each in more]


def agree(record: dict[str, Any], **apart: tuple[float, float]) -> None:
    """Note how far an answer is off, and the tolerance, by what was compared; NaN is far."""
    record["differences"] = {name: float(difference) for name, (difference, _) in apart.items()}
    record["tolerances"] = {name: float(allowed) for name, (_, allowed) in apart.items()}
    record["agrees"] = all(bool(difference <= allowed) for difference, allowed in apart.values())


def measure_device(small: bool) -> dict[str, Any]:
    """What this process computes on, and its rates; or why it should not."""
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    if device.platform == "cpu" and not small:
        return {"refused": REFUSAL}

    def best(function: Any, *args: Any) -> float:
        compiled = jax.jit(function)
        call = lambda: jax.block_until_ready(compiled(*args))  # noqa: E731
        call()
        return min(seconds_of(call)[1] for _ in range(MOST_REPEATS))

    order, numbers, steps = (512, 1 << 20, 1000) if small else (8192, 1 << 28, 10_000)
    matrix = jax.random.normal(jax.random.key(0), (order, order))
    vector = jnp.zeros(numbers)
    flops, moved = 2.0 * order**3, 8.0 * numbers
    highest = best(lambda a: jnp.dot(a, a, precision="highest"), matrix)
    default = best(lambda a: jnp.dot(a, a, precision="default"), matrix)
    copy = best(lambda a: a + 1, vector)
    scan = best(
        lambda rows: jax.lax.scan(lambda sum, row: (sum * row + row, None), rows[0], rows)[0],
        jnp.ones((steps, 8)),
    )
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return {
        "name": device.device_kind,
        "platform": device.platform,
        "runtime": device.client.platform_version.splitlines()[0],
        "memory_bytes": memory,
        "highest_flops_per_second": flops / highest,
        "default_precision_flops_per_second": flops / default,
        "copied_bytes_per_second": moved / copy,
        "scan_step_seconds": scan / steps,
    }
