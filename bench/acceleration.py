"""What acceleration saves on slow problems: E-steps and seconds of `fit` beside plain EM.

Run as a program with the arguments of `measure` it does all of it in its own fresh process and
prints the record as JSON.
"""

import argparse
import json
import statistics
import time
from typing import Any

from bench.processes import output_of

# Rows, features, components, and standard deviations between neighbouring means
SIZES = {"acceleration-2-normals": (10_000, 2, 2, 1.5), "acceleration-4-normals": (20_000, 4, 4, 2)}
NAMES = tuple(SIZES)
METHODS = {"plain": None, "squarem": "squarem", "lbfgs": "lbfgs"}
LEAST_RATE = 0.95  # of EM at its end, for a problem to count as slow
WITHIN = 1e-6  # nats below the highest log-likelihood that any of them reaches
RESOLUTION = 8  # in float32: so many units in the last place of the log-likelihood, if that is more
MOST_STEPS = 20_000


def measure(name: str, dtype: str, *, repeats: int, factor: int) -> dict[str, Any]:
    """The record of one name from `NAMES`; `factor` shrinks the data."""
    program = ["-m", "bench.acceleration", name, dtype, str(repeats), str(factor)]
    record = json.loads(output_of(program, dtype))
    return {"group": "acceleration", "series": name, "dtype": dtype, **record}


def _compare(name: str, dtype: str, repeats: int, factor: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxem

    random = np.random.default_rng(0)
    rows, features, components, apart = SIZES[name]
    rows = max(rows // factor, 200)
    means = apart / np.sqrt(features) * np.arange(components)[:, None] * np.ones(features)
    x = means[random.integers(components, size=rows)] + random.normal(size=(rows, features))
    x = x.astype(dtype)
    start = (means + 0.5 * random.normal(size=means.shape)).astype(dtype)
    family = jaxem.Gaussian.from_moments(start, 1.5 * np.eye(features, dtype=dtype))
    model = jaxem.Mixture(jaxem.Categorical(jnp.zeros(components, dtype)), family)

    def fit(method: str, tol: float) -> Any:
        result = jaxem.fit(model, x, tol=tol, max_steps=MOST_STEPS, accelerate=METHODS[method])
        return jax.block_until_ready(result)

    tight = {method: fit(method, 0.0) for method in METHODS}
    ends = {method: float(result.log_likelihood) for method, result in tight.items()}
    best = max(ends.values())
    within = max(WITHIN, RESOLUTION * float(np.finfo(dtype).eps) * abs(best))
    loose: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(repeats):
        for method in METHODS:
            begun = time.perf_counter()
            loose[method] = fit(method, 1e-6)
            seconds[method].append(time.perf_counter() - begun)
    gains = np.diff(np.asarray(loose["plain"].trace)[: int(loose["plain"].num_steps) + 1])
    shrinking = float((gains[-1] / gains[-11]) ** (1 / 20)) if dtype == "float64" else None
    if factor == 1 and shrinking is not None and not shrinking > LEAST_RATE:
        raise RuntimeError(f"EM has a rate of {shrinking:.3f} here: it is not slow")
    methods = {}
    for method, result in tight.items():
        trace = np.asarray(result.trace)[: int(result.num_steps) + 1]
        there = np.flatnonzero(trace >= best - within)
        methods[method] = {
            "e_steps_to_maximum": int(there[0]) + 1 if len(there) else None,
            "e_steps_to_tolerance": int(loose[method].num_steps) + 1,
            "gap": best - float(loose[method].log_likelihood),
            "seconds": statistics.median(seconds[method]),
            "outcome": loose[method].outcome,
        }
    if dtype == "float64" and best - min(ends.values()) > 1e-3:
        raise RuntimeError(f"they end apart: {ends}")
    return {"rows": rows, "rate": shrinking, "within": within, "methods": methods}


def main() -> None:
    """Print as JSON what acceleration saves here."""
    parser = argparse.ArgumentParser(prog="bench.acceleration", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("dtype")
    parser.add_argument("repeats", type=int)
    parser.add_argument("factor", type=int)
    arguments = parser.parse_args()
    print(json.dumps(_compare(**vars(arguments))))


if __name__ == "__main__":
    main()
