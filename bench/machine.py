"""What the numbers were measured on, and what that machine can do at best.

Run as a program it prints the rates of one library in one dtype: XLA and NumPy are measured each in
a process of its own, because their threads disturb each other.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.processes import ROOT, environment
from bench.workloads import DTYPES

PACKAGES = (
    "jaxem",
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "scikit-learn",
    "hmmlearn",
    "joblib",
    "dynamax",
    "pomegranate",
    "torch",
    "torchaudio",
    "optax",
    "gmmx",
)
ORDER = 2048  # of the square matrices
NUMBERS = 1 << 24  # of the arrays that are copied and exponentiated
TRIES = 7


def describe() -> dict[str, Any]:
    """Hardware, versions and rates, measured now."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "rates": {dtype: _rates(dtype) for dtype in DTYPES},
    }


def gemm_rate(machine: dict[str, Any], dtype: str) -> float:
    """The better of the two libraries' products, in flops a second."""
    rates = machine["rates"][dtype]
    return 1e9 * max(rates["xla_gemm_gflops"], rates["numpy_gemm_gflops"])


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _rates(dtype: str) -> dict[str, float]:
    rates: dict[str, float] = {}
    for library in ("xla", "numpy"):
        done = subprocess.run(
            [sys.executable, "-m", "bench.machine", library, dtype],
            env=environment(dtype),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        rates |= json.loads(done.stdout)
    return rates


def _best(call: Callable[[], Any]) -> float:
    call()
    seconds = []
    for _ in range(TRIES):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _xla_rates(dtype: str) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    matrix = jax.random.normal(jax.random.key(0), (ORDER, ORDER), dtype)
    numbers = jax.random.normal(jax.random.key(1), (NUMBERS,), dtype)
    product = jax.jit(lambda a: jnp.dot(a, a, precision="highest"))
    exponential = jax.jit(lambda a: jnp.sum(jnp.exp(a)))
    product_seconds = _best(lambda: product(matrix).block_until_ready())
    exp_seconds = _best(lambda: exponential(numbers).block_until_ready())
    return {
        "xla_gemm_gflops": 2e-9 * ORDER**3 / product_seconds,
        "xla_exp_nanoseconds": 1e9 * exp_seconds / NUMBERS,
    }


def _numpy_rates(dtype: str) -> dict[str, float]:
    import numpy as np

    random = np.random.default_rng(0)
    matrix = random.normal(size=(ORDER, ORDER)).astype(dtype)
    numbers = random.normal(size=NUMBERS).astype(dtype)
    product, copy = np.empty_like(matrix), np.empty_like(numbers)
    product_seconds = _best(lambda: np.matmul(matrix, matrix, out=product))
    copy_seconds = _best(lambda: np.copyto(copy, numbers))
    return {
        "numpy_gemm_gflops": 2e-9 * ORDER**3 / product_seconds,
        "copy_gigabytes": 2e-9 * numbers.nbytes / copy_seconds,  # read and written, one thread
    }


def main() -> None:
    """Print the rates as JSON."""
    parser = argparse.ArgumentParser(prog="bench.machine", description=__doc__)
    parser.add_argument("library", choices=("xla", "numpy"))
    parser.add_argument("dtype", choices=DTYPES)
    arguments = parser.parse_args()
    rates = _xla_rates if arguments.library == "xla" else _numpy_rates
    print(json.dumps(rates(arguments.dtype)))


if __name__ == "__main__":
    main()
