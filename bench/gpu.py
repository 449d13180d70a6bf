"""What a GPU or TPU does with the large workloads: `python -m bench.gpu`, in under ten minutes.

A plain checkout with `pip install "jax[cuda12]" .` is enough; scikit-learn, dynamax, torch,
torchaudio and optax are measured too where they are installed for the device.  Every workload runs
in a process of its own, within its share of the time: one that crashes, hangs or does not fit costs
nothing but its own row.

The floor of a workload is the larger of its flops over the rate of a float32 product at the highest
precision, and its bytes over the rate of a copy, both measured in the same run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from operator import truediv
from pathlib import Path
from typing import Any

from bench.machine import PACKAGES
from bench.records import now, replace_file

ROOT = Path(__file__).parents[1]
TOTAL_SECONDS = 580.0
START_SECONDS = 40.0  # for a process to import everything and to make its data
FORMULAS = {
    "mixture": "flops 4 G N (1 + D + D(D+1)/2) K: the products with and of quadratic features; "
    "bytes 4 G N D: each row read once",
    "chain": "flops 6 B T K^2: forward, backward and the counts of moves; "
    "bytes 8 B T K: potentials read once, counts written once",
    "ctc": "flops 4 B T V: of each logit a difference, an exponential, a sum and a quotient; "
    "bytes 8 B T V: logits read once, their gradient written once",
    "transducer": "flops 4 B T (U+1) V and bytes 8 B T (U+1) V, as of ctc",
}


@dataclass(frozen=True)
class Case:
    """One workload, or a sweep over shapes of one."""

    kind: str  # mixture, chain, ctc or transducer
    title: str
    sizes: dict[str, Any]
    small: dict[str, Any]  # for trying the script
    budget: float  # seconds
    goal: float | None  # seconds a step on one H200

    def work(self, sizes: dict[str, Any]) -> tuple[float, float] | None:
        """Least flops and bytes of one step, as in FORMULAS; None for a sweep."""
        if self.kind == "mixture":
            rows, size = float(sizes["fits"] * sizes["rows"]), sizes["features"]
            columns = 1 + size + size * (size + 1) / 2
            return 4 * rows * columns * sizes["members"], 4 * rows * size
        if self.kind in ("ctc", "transducer"):
            rows = float(sizes["sequences"] * sizes["frames"])
            rows *= sizes["labels"] + 1 if self.kind == "transducer" else 1
            return 4 * rows * sizes["symbols"], 8 * rows * sizes["symbols"]
        if len(sizes["shapes"]) > 1:
            return None
        batch, steps, states = sizes["shapes"][0]
        return 6.0 * batch * steps * states**2, 8.0 * batch * steps * states


def _mixture(fits: int, rows: int, features: int, members: int, steps: int) -> dict[str, Any]:
    names = ("fits", "rows", "features", "members", "steps")
    return dict(zip(names, (fits, rows, features, members, steps), strict=True))


def _lattice(sequences: int, frames: int, labels: int, symbols: int) -> dict[str, Any]:
    names = ("sequences", "frames", "labels", "symbols")
    return dict(zip(names, (sequences, frames, labels, symbols), strict=True))


_SWEEP = [(1, 1000, 8), (1, 10_000, 8), (1, 10_000, 32), (1, 10_000, 64), (1, 100_000, 8)]
CASES = {
    "gmm": Case(
        "mixture",
        "Gaussian mixture, full covariances: N=1e7, D=64, K=256, an EM step",
        _mixture(1, 10_000_000, 64, 256, 2),
        _mixture(1, 20_000, 4, 3, 20),
        budget=170,
        goal=1.0,
    ),
    "hmm-batch": Case(
        "chain",
        "HMM, B=4096 sequences: T=1000, K=32, the counts of an E-step",
        {"shapes": [(4096, 1000, 32)]},
        {"shapes": [(8, 50, 4)]},
        budget=70,
        goal=10e-3,
    ),
    "hmm-long": Case(
        "chain",
        "HMM, one sequence: T=1e7, K=8, the counts of an E-step",
        {"shapes": [(1, 10_000_000, 8)]},
        {"shapes": [(1, 25_500, 3)]},
        budget=80,
        goal=8e-3,
    ),
    "fits": Case(
        "mixture",
        "10,000 Gaussian mixtures at once: N=1000, D=4, K=8, an EM step of all",
        _mixture(10_000, 1000, 4, 8, 10),
        _mixture(6, 500, 3, 4, 10),
        budget=70,
        goal=0.8e-3,
    ),
    "ctc": Case(
        "ctc",
        "CTC, B=256 sequences: T=1500, L=200, V=1024, losses and their gradient",
        _lattice(256, 1500, 200, 1024),
        _lattice(3, 40, 5, 7),
        budget=50,
        goal=None,
    ),
    "transducer": Case(
        "transducer",
        "RNN-transducer, B=30 sequences: T=500, U=100, V=500, losses and their gradient",
        _lattice(30, 500, 100, 500),
        _lattice(3, 20, 5, 7),
        budget=50,
        goal=None,
    ),
    "hmm-methods": Case(
        "chain",
        "HMM, one sequence, T x K by method: where each is the fastest",
        {"shapes": _SWEEP},
        {"shapes": [(1, 200, 3), (1, 600, 3)]},
        budget=90,
        goal=None,
    ),
}


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {
        "PYTHONPATH": path,
        "JAX_ENABLE_X64": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # torch needs memory too
        "SCIPY_ARRAY_API": "1",  # read by SciPy when it is imported
    }


def _records(name: str, small: bool, seconds: float, scan_step: float) -> list[dict[str, Any]]:
    """What a process of its own reports until it ends, or is ended when its time is up."""
    size = "small" if small else "full"
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.gpu_workloads", name, size, str(seconds), str(scan_step)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            cwd=ROOT,
            text=True,
        )
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds + START_SECONDS, stop)
        timer.start()
        assert process.stdout is not None
        try:
            with process.stdout:
                records = [json.loads(line) for line in process.stdout if line.endswith("\n")]
            status = process.wait()
        finally:
            timer.cancel()
            process.kill()
        if status:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
            reason = "its time was up" if late.is_set() else f"status {status}: {lines[-1][:300]}"
            records.append({"library": "process", "method": "ended", "skipped": reason})
    return records


def _measure(name: str, small: bool, seconds: float, device: dict[str, Any]) -> dict[str, Any]:
    """One workload: its floor, and every record with its ratio to that."""
    case = CASES[name]
    sizes = case.small if small else case.sizes
    goal = None if small else case.goal
    rates = (device["highest_flops_per_second"], device["copied_bytes_per_second"])
    work = case.work(sizes)
    floor = max(map(truediv, work, rates)) if work else None
    entries = _records(name, small, seconds, device["scan_step_seconds"])
    for entry in entries:
        if "median_seconds" in entry:
            median = entry["median_seconds"]
            entry["ratio_to_floor"] = None if floor is None else median / floor
            if entry["library"] == "jaxem" and goal is not None:
                entry["met"] = entry.get("agrees", False) and median <= goal
    return {
        "title": case.title,
        "sizes": sizes,
        "goal_seconds": goal,
        "flops_and_bytes": work,
        "floor_seconds": floor,
        "floor": FORMULAS[case.kind],
        "entries": entries,
    }


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0]


def table(result: dict[str, Any]) -> list[str]:
    """The results as lines of Markdown."""
    device = result["device"]
    lines = [
        f"{device['name']}, driver {result['driver'] or 'unknown'}, jax "
        f"{result['versions'].get('jax')}, {result['date']}: float32 products "
        f"{device['highest_flops_per_second'] / 1e12:.3g} TF/s at the highest precision "
        f"({device['default_precision_flops_per_second'] / 1e12:.3g} at the default), copy "
        f"{device['copied_bytes_per_second'] / 1e9:.4g} GB/s, one step of a scan "
        f"{device['scan_step_seconds'] * 1e6:.3g} µs.",
    ]
    for name, workload in result["workloads"].items():
        title = f"{name}: {workload['sizes']}" if result["small"] else workload["title"]
        lines += ["", f"**{title}**" + _bounds(workload), ""]
        lines.append("| library | method | ms a step | times the floor | compile s | agrees |")
        lines.append("|---|---|---|---|---|---|")
        lines += [_row(entry) for entry in workload["entries"]]
    return lines


def _bounds(workload: dict[str, Any]) -> str:
    parts = []
    if workload["floor_seconds"] is not None:
        parts.append(f"floor {workload['floor_seconds'] * 1e3:.3g} ms")
    if workload["goal_seconds"] is not None:
        parts.append(f"goal {workload['goal_seconds'] * 1e3:.3g} ms")
    return f" ({', '.join(parts)})" if parts else ""


def _row(entry: dict[str, Any]) -> str:
    cells = [entry["library"], entry["method"]]
    if "skipped" in entry:
        reason = entry["skipped"].replace("|", "/")
        cells += ["–", "–", "–", f"not measured: {reason}"]
    else:
        ratio = entry["ratio_to_floor"]
        met = {True: ", goal met", False: ", goal missed", None: ""}[entry.get("met")]
        cells += [
            f"{entry['median_seconds'] * 1e3:.4g}",
            "–" if ratio is None else f"{ratio:.3g}",
            f"{entry['compile_seconds']:.1f}",
            ("yes" if entry.get("agrees") else f"NO {entry.get('differences')}") + met,
        ]
    return f"| {' | '.join(cells)} |"


def _write(out: Path | None, result: dict[str, Any]) -> None:
    if out is None:
        return
    stem = "gpu-small" if result["small"] else "gpu"  # a trial never replaces a measurement
    replace_file(out / f"{stem}.json", json.dumps(result, indent=1) + "\n")
    replace_file(out / f"{stem}.md", "\n".join(table(result)) + "\n")


def main() -> int:
    """Measure, print the table and write it; 2 where there is nothing to measure on."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--out", type=Path, help="where gpu.json and gpu.md go; bench/results, or with --small none"
    )
    arguments = parser.parse_args()
    begin = time.monotonic()
    out = arguments.out or (None if arguments.small else ROOT / "bench" / "results")
    device = _records("device", arguments.small, START_SECONDS, 0.0)[-1]
    if "name" not in device:
        print(device.get("refused") or f"the device failed: {device['skipped']}", file=sys.stderr)
        return 2
    result: dict[str, Any] = {
        "date": now(),
        "small": arguments.small,
        "device": device,
        "driver": _driver(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": _versions(),
        "workloads": {},
    }
    for name in arguments.only:
        left = TOTAL_SECONDS - (time.monotonic() - begin) - START_SECONDS
        print(f"{name} ...", file=sys.stderr, flush=True)
        measured = _measure(name, arguments.small, max(1.0, min(CASES[name].budget, left)), device)
        result["workloads"][name] = measured
        result["seconds"] = time.monotonic() - begin
        _write(out, result)
    print("\n".join(table(result)))
    return 0


def _versions() -> dict[str, str]:
    found = {}
    for name in (*PACKAGES, "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cublas-cu12"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
