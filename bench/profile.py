"""Where one EM step spends its time: programs that stop after each part of it, timed in turn.

    python -m bench.profile [WORKLOAD…]

The time of a part is that of the program that ends with it less that of the one before, so a part
may be cheaper in the whole than here, and noise may make it negative.  Written to profile.json.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jaxem
from bench import machine, records
from bench.inputs import make_inputs
from bench.peers.jaxem import model_of
from bench.workloads import DTYPES, HMM_GROUP, MIXTURE_GROUP, WORKLOADS, Workload
from jaxem.families import optional

RESULTS = Path(__file__).parent / "results"
REPEATS = 9


def parts_of_a_mixture(model: Any, data: Any, prior: Any) -> dict[str, Callable[[Any], Any]]:
    """Programs of a mixture's EM step, each with one part more."""

    def densities(model: Any) -> Any:
        form = optional.form(optional.translate(model.components, data.center))
        return data.accumulate(lambda x, _: ((), jnp.sum(form.log_prob(x))))[1]

    return {
        "log-densities": densities,
        "responsibilities": lambda model: model.e_step(data)[1],
        "statistics": lambda model: model.e_step(data),
        "M-step": lambda model: model.m_step(model.e_step(data)[0], prior),
    }


def parts_of_an_hmm(model: Any, data: Any, prior: Any) -> dict[str, Callable[[Any], Any]]:
    """Programs of an HMM's EM step, each with one part more."""
    return {
        "log-densities": lambda model: model.potentials(data).emission,
        "forward": lambda model: jaxem.chain.log_normalizer(model.potentials(data), data.lengths),
        "backward and counts": lambda model: jaxem.chain.posterior(
            model.potentials(data), data.lengths
        ),
        "statistics": lambda model: model.e_step(data),
        "M-step": lambda model: model.m_step(model.e_step(data)[0], prior),
    }


def profile(workload: Workload, dtype: str) -> dict[str, float]:
    """Milliseconds of each part of an EM step, and of the whole; medians of rounds in turn."""
    inputs = make_inputs(workload, dtype)
    start = {name: jnp.asarray(part) for name, part in inputs.start.items()}
    model = model_of(workload, start)
    single = workload.group == HMM_GROUP and workload.sequences == 1
    data = jaxem.em.prepare(model, model.validate(inputs.x[0] if single else inputs.x))
    prior = jaxem.em.resolve(jaxem.Prior(), data, jaxem.em.floating_dtype(data, model))
    make = parts_of_a_mixture if workload.group == MIXTURE_GROUP else parts_of_an_hmm
    programs = {name: jax.jit(part) for name, part in make(model, data, prior).items()}
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program(model))
    for _ in range(REPEATS):
        for name, program in programs.items():
            begun = time.perf_counter()
            jax.block_until_ready(program(model))
            taken[name].append(1000 * (time.perf_counter() - begun))
    so_far, parts = 0.0, {}
    for name, times in taken.items():
        median = statistics.median(times)
        parts[name], so_far = median - so_far, median
    return parts | {"whole": so_far}


def main() -> int:
    """Profile the workloads named, by default every mixture and HMM, in both dtypes."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=main.__doc__)
    fits = {w.name: w for w in WORKLOADS if w.group in (MIXTURE_GROUP, HMM_GROUP)}
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    chosen = parser.parse_args().workloads or list(fits)
    if unknown := set(chosen) - set(fits):
        parser.error(f"there is no mixture or HMM {sorted(unknown)}; there are {', '.join(fits)}")
    jax.config.update("jax_enable_x64", True)
    entries = {}
    for name in chosen:
        for dtype in DTYPES:
            parts = profile(fits[name], dtype)
            entries[f"{name} {dtype}"] = {"milliseconds": parts}
            shown = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
            print(f"{name} {dtype} (ms): {shown}", flush=True)
    records.write(RESULTS, "profile", entries, records.now(), machine.describe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
