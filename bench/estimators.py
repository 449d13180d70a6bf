"""A search over mixtures by cross-validation, jaxem's estimator beside scikit-learn's.

Run as a program with the arguments of `measure` it does all of it in its own fresh process, one a
library, and prints the record as JSON.
"""

import argparse
import json
import statistics
import time
from typing import Any

from bench.processes import output_of

SEARCHES = {  # rows, features, components, folds
    "search-150x4": (150, 4, range(1, 7), 5),
    "search-10000x8": (10_000, 8, range(4, 9), 3),
}
TYPES = ("full", "tied", "diag", "spherical")
NAMES = tuple(SEARCHES)
LIBRARIES = ("jaxem", "scikit-learn")
APART = 0.05  # nats a row that mean scores may differ by: the fits end a step apart
FIRST_GOAL = 3.0  # seconds that the first fit of a small mixture may take


def measure(name: str, dtype: str, *, repeats: int, factor: int) -> dict[str, Any]:
    """The record of one name from `NAMES`; `factor` shrinks the data."""
    told = {}
    for library in LIBRARIES:
        program = ["-m", "bench.estimators", name, dtype, str(repeats), str(factor), library]
        told[library] = json.loads(output_of(program, dtype))
    scores = [told[library].pop("scores") for library in LIBRARIES]
    apart = max(abs(a - b) for a, b in zip(*scores, strict=True))
    if not apart < APART:
        raise RuntimeError(f"mean scores differ by {apart:.1e} nats a row")
    ours, theirs = (told[library]["seconds"] for library in LIBRARIES)
    return {
        "group": "estimators",
        "series": name,
        "dtype": dtype,
        "libraries": told,
        "ratio": theirs / ours,
        "difference": apart,
        "goal": None if factor > 1 else FIRST_GOAL,
        "met": None if factor > 1 else told["jaxem"]["first_fit"] <= FIRST_GOAL,
    }


def _search(name: str, dtype: str, repeats: int, factor: int, library: str) -> dict[str, Any]:
    import warnings

    import numpy as np
    from sklearn.model_selection import GridSearchCV

    if library == "jaxem":
        from jaxem.sklearn import GaussianMixture
    else:
        from sklearn.mixture import GaussianMixture

    warnings.simplefilter("ignore")  # that some of many fits did not converge
    rows, features, components, folds = SEARCHES[name]
    rows = max(rows // factor, 60)
    random = np.random.default_rng(0)
    means = random.normal(0, 2, size=(4, features))
    x = means[random.integers(4, size=rows)] + random.normal(size=(rows, features))
    x = x.astype(dtype)
    grid = {"n_components": list(components), "covariance_type": list(TYPES)}

    def seconds(call: Any) -> tuple[float, Any]:
        begun = time.perf_counter()
        result = call()
        return time.perf_counter() - begun, result

    one = GaussianMixture(max(components), random_state=0, max_iter=50)
    first, _ = seconds(lambda: one.fit(x))
    again, _ = seconds(lambda: one.fit(x))
    search = GridSearchCV(GaussianMixture(random_state=0, max_iter=50), grid, cv=folds)
    with_compiling, _ = seconds(lambda: search.fit(x))
    taken = [seconds(lambda: search.fit(x))[0] for _ in range(repeats)]
    return {
        "first_fit": first,
        "second_fit": again,
        "first_search": with_compiling,
        "seconds": statistics.median(taken),
        "fits": len(grid["n_components"]) * len(TYPES) * folds + 1,
        "scores": search.cv_results_["mean_test_score"].tolist(),
    }


def main() -> None:
    """Print as JSON what a search takes here."""
    parser = argparse.ArgumentParser(prog="bench.estimators", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("dtype")
    parser.add_argument("repeats", type=int)
    parser.add_argument("factor", type=int)
    parser.add_argument("library", choices=LIBRARIES)
    arguments = parser.parse_args()
    print(json.dumps(_search(**vars(arguments))))


if __name__ == "__main__":
    main()
