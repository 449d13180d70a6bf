"""What a user waits for before anything runs: the import, compilation, and whether it is repeated.

Run as a program with a family and a model it fits twice in its own fresh process and prints what
that took; `measure_imports` and `measure_fits` start such processes.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from bench.processes import output_of

IMPORT = "import-jaxem"
FAMILIES = (
    "gaussian",
    "tied-gaussian",
    "diagonal-gaussian",
    "spherical-gaussian",
    "poisson",
    "bernoulli",
    "categorical",
    "mixture-family",
)
MODELS = ("mixture", "hmm")
NAMES = (IMPORT, *(f"first-fit-{family}-{model}" for model in MODELS for family in FAMILIES))
IMPORT_GOAL = 1.5  # seconds at most
COMPILE_GOAL = 3.0
FRESH = 3  # processes that fit for the first time; the median is kept
ROWS, FEATURES, STATES, SYMBOLS = 1000, 3, 3, 6
COMPILATION = "/jax/core/compile/backend_compile_duration"  # JAX's name for the event


def measure(name: str, repeats: int) -> dict[str, Any]:
    """The record of one name from `NAMES`."""
    return _imports(repeats) if name == IMPORT else _fits(name, min(repeats, FRESH))


def _imports(repeats: int) -> dict[str, Any]:
    code = "import time; t = time.perf_counter(); import jaxem; print(time.perf_counter() - t)"
    seconds = [float(output_of(["-c", code])) for _ in range(repeats)]
    median = statistics.median(seconds)
    return {"seconds": seconds, "median": median, "goal": IMPORT_GOAL, "met": median < IMPORT_GOAL}


def _fits(name: str, repeats: int) -> dict[str, Any]:
    family, model = name.removeprefix("first-fit-").rsplit("-", 1)
    program = ["-m", "bench.first_call", family, model]
    fresh = [json.loads(output_of(program)) for _ in range(repeats)]
    cold = sorted(fresh, key=lambda one: one["first"] - one["second"])[(repeats - 1) // 2]
    with tempfile.TemporaryDirectory() as cache:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        output_of(program, **kept)
        warm = json.loads(output_of(program, **kept))
    compile_seconds = cold["first"] - cold["second"]
    again = cold["compilations_of_second"]
    return {
        "all_first_seconds": [one["first"] for one in fresh],
        "first_seconds": cold["first"],
        "second_seconds": cold["second"],
        "compile_seconds": compile_seconds,
        "compilations_of_second": again,
        "first_seconds_with_cache": warm["first"],
        "goal": COMPILE_GOAL,
        "met": compile_seconds < COMPILE_GOAL and again == 0,
    }


def _twice(family: str, model: str) -> dict[str, Any]:
    """Seconds of a first fit and of a second of other values, and what the second compiled."""
    import jax
    import numpy as np

    import jaxem

    starts: list[tuple[Any, Any]] = []
    for seed in (0, 1):
        members, data = _member_and_data(jaxem, np.random.default_rng(seed), family)
        shares = jaxem.Categorical.from_probs(np.full(STATES, 1 / STATES, np.float32))
        if model == "mixture":
            starts.append((jaxem.Mixture(shares, members), data))
        else:
            stay = np.full((STATES, STATES), 0.1, np.float32) + 0.7 * np.eye(STATES, dtype="f")
            moves = jaxem.Categorical.from_probs(stay)
            starts.append((jaxem.HMM(shares, moves, members), data))
    events: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: events.append(event)
    )
    seconds, compilations = [], []
    for start, data in starts:
        events.clear()
        begin = time.perf_counter()
        jax.block_until_ready(jaxem.fit(start, data))
        seconds.append(time.perf_counter() - begin)
        compilations.append(events.count(COMPILATION))
    if not compilations[0]:
        raise RuntimeError(f"no event {COMPILATION} was seen; this JAX has another name for it")
    return {
        "first": seconds[0],
        "second": seconds[1],
        "compilations_of_second": compilations[1],
    }


def _member_and_data(jaxem: Any, random: Any, family: str) -> tuple[Any, Any]:
    """A family of `STATES` members at rough values, and data it can have produced."""
    import numpy as np

    count, size = STATES, FEATURES
    rows = random.normal(size=(ROWS, size)) + 2 * random.integers(count, size=(ROWS, 1))
    rows = rows.astype(np.float32)
    means = (2 * np.arange(count)[:, None] + random.normal(size=(count, size))).astype(np.float32)
    inner = (2 * random.normal(size=(2 * count, size))).astype(np.float32)
    identity, ones = np.eye(size, dtype=np.float32), np.ones(1, np.float32)
    shares = random.dirichlet(np.ones(SYMBOLS), size=count).astype(np.float32)
    makers: dict[str, Callable[[], tuple[Any, Any]]] = {
        "gaussian": lambda: (jaxem.Gaussian.from_moments(means, identity), rows),
        "tied-gaussian": lambda: (jaxem.TiedGaussian.from_moments(means, identity), rows),
        "diagonal-gaussian": lambda: (jaxem.DiagonalGaussian.from_moments(means, ones), rows),
        "spherical-gaussian": lambda: (
            jaxem.SphericalGaussian.from_moments(means, np.ones(count, np.float32)),
            rows,
        ),
        "poisson": lambda: (
            jaxem.Poisson.from_rate(np.array([1.0, 4.0, 9.0], np.float32)),
            random.poisson(1 + 3 * random.integers(count, size=ROWS)).astype(np.float32),
        ),
        "bernoulli": lambda: (
            jaxem.Bernoulli.from_probs(random.uniform(0.2, 0.8, (count, size)).astype(np.float32)),
            random.integers(2, size=(ROWS, size)).astype(np.float32),
        ),
        "categorical": lambda: (
            jaxem.Categorical.from_probs(shares),
            random.integers(SYMBOLS, size=ROWS).astype(np.int32),
        ),
        "mixture-family": lambda: (
            jaxem.MixtureFamily(
                jaxem.Categorical.from_probs(np.full((count, 2), 0.5, np.float32)),
                jaxem.Gaussian.from_moments(inner, identity),
            ),
            rows,
        ),
    }
    members, data = makers[family]()
    return members, data


def main() -> None:
    """Print as JSON what two fits in this process took."""
    parser = argparse.ArgumentParser(prog="bench.first_call", description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("model", choices=MODELS)
    arguments = parser.parse_args()
    print(json.dumps(_twice(arguments.family, arguments.model)))


if __name__ == "__main__":
    main()
