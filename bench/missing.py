"""What missing entries cost: an EM step beside the same one on complete rows, in one process.

Run as a program with the arguments of `measure` it does all of it in its own fresh process and
prints the record as JSON.
"""

import argparse
import json
import statistics
import time
from typing import Any

from bench.processes import output_of

ROWS, FEATURES, COMPONENTS, PATTERNS = 100_000, 16, 16, 64  # some patterns are drawn twice
SHARE = 0.1  # of all entries
SHORT, LONG = 2, 6  # EM steps; a step's time is the difference's, without what a fit costs once
GOALS = {"missing-patterns": 6.0, "missing-own-masks": None}  # times the complete step, at most
NAMES = tuple(GOALS)
COMPARED = 512  # rows on which the way by pattern must equal the one by row


def measure(name: str, dtype: str, *, repeats: int, factor: int) -> dict[str, Any]:
    """The record of one name from `NAMES`; `factor` shrinks the data."""
    program = ["-m", "bench.missing", name, dtype, str(repeats), str(factor)]
    record = json.loads(output_of(program, dtype))
    goal = None if factor > 1 else GOALS[name]
    met = None if goal is None else record["ratio"] <= goal
    return {"group": "missing", "series": name, "dtype": dtype, **record, "goal": goal, "met": met}


def _masks(random: Any, rows: int, name: str) -> Any:
    """What is observed, [N, D]: one of a few patterns, or a pattern of its own for each row."""
    if name == "missing-own-masks":
        return random.random(size=(rows, FEATURES)) >= SHARE
    patterns = random.random(size=(PATTERNS, FEATURES)) >= SHARE
    patterns[0] = True
    return patterns[random.integers(PATTERNS, size=rows)]


def _compare(name: str, dtype: str, repeats: int, factor: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxem

    random = np.random.default_rng(0)
    rows = max(ROWS // factor, 4 * COMPARED)
    means = random.normal(size=(COMPONENTS, FEATURES))
    x = means[random.integers(COMPONENTS, size=rows)] + random.normal(size=(rows, FEATURES))
    x = x.astype(dtype)
    observed = _masks(random, rows, name)
    start = (means + 0.3 * random.normal(size=means.shape)).astype(dtype)
    components = jaxem.Gaussian.from_moments(start, 1.5 * np.eye(FEATURES, dtype=dtype))
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(COMPONENTS, dtype)), components)
    samples = jaxem.Samples(x, observed=observed)
    few = jaxem.Samples(x[:COMPARED], observed=observed[:COMPARED])
    by_row = jax.jit(lambda few: model.e_step(few)[1])(few)  # a traced mask is not grouped
    apart = abs(float(model.log_likelihood(few) / by_row) - 1)
    if not apart < (1e-9 if dtype == "float64" else 1e-5):
        raise RuntimeError(f"by pattern and by row differ by a relative {apart:.1e}")

    def seconds(data: Any, steps: int) -> float:
        begun = time.perf_counter()
        result = jax.block_until_ready(jaxem.fit(model, data, tol=0.0, max_steps=steps))
        taken = time.perf_counter() - begun
        if int(result.num_steps) != steps:
            raise RuntimeError(f"stopped after {int(result.num_steps)} of {steps} steps")
        return taken

    def a_step(data: Any) -> float:
        """Milliseconds; the fits of other data would leave their traces in the caches."""
        rounds = [[seconds(data, steps) for steps in (SHORT, LONG)] for _ in range(repeats + 1)]
        few, many = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
        return 1000 * (many - few) / (LONG - SHORT)

    complete, partial = a_step(x), a_step(samples)
    return {
        "rows": rows,
        "patterns": len(np.unique(observed, axis=0)),
        "share_missing": float(np.mean(~observed)),
        "complete_milliseconds_a_step": complete,
        "milliseconds_a_step": partial,
        "ratio": partial / complete,
        "difference": apart,
    }


def main() -> None:
    """Print as JSON what missing entries cost here."""
    parser = argparse.ArgumentParser(prog="bench.missing", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("dtype")
    parser.add_argument("repeats", type=int)
    parser.add_argument("factor", type=int)
    arguments = parser.parse_args()
    print(json.dumps(_compare(**vars(arguments))))


if __name__ == "__main__":
    main()
