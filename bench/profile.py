"""Where one EM step or call spends its time: programs that stop after each part, timed in turn.

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
from bench.peers.jaxem import chain_of, model_of
from bench.workloads import (
    DTYPES,
    LATTICES,
    MANY,
    MIXTURE_GROUP,
    SMOOTHING,
    VITERBI,
    WORKLOADS,
    Workload,
)
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


def parts_of_a_chain(group: str) -> dict[str, Callable[[Any], Any]]:
    """Programs of smoothing or of best paths, each with one part more."""
    if group == SMOOTHING:
        return {
            "forward": jaxem.chain.log_normalizer,
            "backward and counts": jaxem.chain.posterior,
        }
    return {"forward": lambda chain: jaxem.chain.viterbi(chain)[0], "back": jaxem.chain.viterbi}


def parts_of(workload: Workload, dtype: str) -> tuple[dict[str, Callable[[Any], Any]], Any]:
    """The programs of a workload, and what they are given."""
    inputs = make_inputs(workload, dtype)
    start = {name: jnp.asarray(part) for name, part in inputs.start.items()}
    single = workload.group != MIXTURE_GROUP and workload.sequences == 1
    x = inputs.x[0] if single else inputs.x
    if workload.group in (SMOOTHING, VITERBI):
        return parts_of_a_chain(workload.group), chain_of(start, jnp.asarray(x))
    model = model_of(workload, start)
    data = jaxem.em.prepare(model, model.validate(x))
    prior = jaxem.em.resolve(jaxem.Prior(), data, jaxem.em.floating_dtype(data, model))
    make = parts_of_a_mixture if workload.group == MIXTURE_GROUP else parts_of_an_hmm
    return make(model, data, prior), model


def profile(workload: Workload, dtype: str) -> dict[str, float]:
    """Milliseconds of each part, and of the whole; medians of rounds in turn."""
    parts, given = parts_of(workload, dtype)
    programs = {name: jax.jit(part) for name, part in parts.items()}
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program(given))
    for _ in range(REPEATS):
        for name, program in programs.items():
            begun = time.perf_counter()
            jax.block_until_ready(program(given))
            taken[name].append(1000 * (time.perf_counter() - begun))
    so_far, milliseconds = 0.0, {}
    for name, times in taken.items():
        median = statistics.median(times)
        milliseconds[name], so_far = median - so_far, median
    return milliseconds | {"whole": so_far}


def main() -> int:
    """Profile the workloads named, by default all of them, in both dtypes."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=main.__doc__)
    by_name = {one.name: one for one in WORKLOADS if one.group not in (*LATTICES, MANY)}
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    chosen = parser.parse_args().workloads or list(by_name)
    if unknown := set(chosen) - set(by_name):
        parser.error(f"there is no workload {sorted(unknown)}; there are {', '.join(by_name)}")
    jax.config.update("jax_enable_x64", True)
    entries = {}
    for name in chosen:
        for dtype in DTYPES:
            parts = profile(by_name[name], dtype)
            entries[f"{name} {dtype}"] = {"milliseconds": parts}
            shown = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
            print(f"{name} {dtype} (ms): {shown}", flush=True)
    records.write(RESULTS, "profile", entries, records.now(), machine.describe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
