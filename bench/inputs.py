"""The numbers every library is given, made alike in every process from a seed."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.workloads import HMM_GROUP, LATTICES, MANY, MIXTURE_GROUP, TRANSDUCER, Workload

DISTANCE = 3.0  # between two means, in standard deviations: components overlap and EM is slow
STAY = 0.9  # probability of a chain to be left alone; else the next state is uniform


@dataclass(frozen=True)
class Inputs:
    """Data and start, as NumPy arrays of one dtype; integers stay integers."""

    # [N, D], [B, T, D] or symbols [B, T]; where they are given, log-likelihoods [B, T, K]; of
    # lattices, logits [B, T, V] or [B, T, L + 1, V]; of many data sets, [M, N, D]
    x: Any
    # Linear parameters: weights or initial and transition, means, ...; of many fits, means
    # [M, K, D], of which K components take the first K, and one covariance [D, D]
    start: dict[str, Any]
    targets: dict[str, Any] = field(default_factory=dict)  # labels [B, L], and the lengths [B]

    @property
    def data_bytes(self) -> int:
        """Size of what the caller hands over as data."""
        return self.x.nbytes


def make_inputs(workload: Workload, dtype: str) -> Inputs:
    """The inputs of a workload; those of float32 are those of float64, rounded."""
    random = np.random.default_rng(zlib.crc32(workload.name.encode()))
    if workload.group in LATTICES:
        logits, targets = _lattice(random, workload)
        return Inputs(_cast(logits, dtype), {}, targets)
    if workload.group == MANY:
        x, start = _many(random, workload)
    elif workload.group == MIXTURE_GROUP:
        x, start = _mixture(random, workload)
    elif workload.kind == "categorical":
        x, start = _categorical(random, workload)
    else:
        x, start = _gaussian_chain(random, workload)
        if workload.group != HMM_GROUP:
            x, start = _given_emissions(x, start)
    return Inputs(_cast(x, dtype), {name: _cast(part, dtype) for name, part in start.items()})


def widened(inputs: Inputs) -> Inputs:
    """The same numbers in float64."""
    start = {name: _cast(part, "float64") for name, part in inputs.start.items()}
    return Inputs(_cast(inputs.x, "float64"), start, inputs.targets)


def _cast(array: Any, dtype: str) -> Any:
    return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array


def _mixture(random: np.random.Generator, w: Workload) -> tuple[Any, dict[str, Any]]:
    spread = DISTANCE / np.sqrt(2 * w.features)
    means = spread * random.normal(size=(w.states, w.features))
    member = random.integers(w.states, size=w.rows)
    noise = random.normal(size=(w.rows, w.features))
    if w.kind == "full":
        mixing = 0.3 / np.sqrt(w.features) * random.normal(size=(w.states, w.features, w.features))
        roots = np.eye(w.features) + mixing
        for k in range(w.states):
            noise[member == k] = noise[member == k] @ roots[k]
        covariances = np.broadcast_to(np.eye(w.features), roots.shape).copy()
    else:
        noise *= random.uniform(0.7, 1.3, size=means.shape)[member]
        covariances = np.ones_like(means)
    start = {
        "weights": np.full(w.states, 1 / w.states),
        "means": spread * random.normal(size=means.shape),  # elsewhere: the truth is not known
        "covariances": covariances,
    }
    return means[member] + noise, start


def _sticky_chain(random: np.random.Generator, w: Workload, stay: float) -> Any:
    """States [B, T]: with probability `stay` as before, else uniform."""
    fresh = random.integers(w.states, size=(w.sequences, w.rows))
    moved = random.random(size=fresh.shape) >= stay
    moved[:, 0] = True
    last_move = np.maximum.accumulate(np.where(moved, np.arange(w.rows), 0), axis=1)
    return np.take_along_axis(fresh, last_move, 1)


def _sticky_matrix(states: int, stay: float) -> Any:
    return stay * np.eye(states) + (1 - stay) / states


def _gaussian_chain(random: np.random.Generator, w: Workload) -> tuple[Any, dict[str, Any]]:
    spread = DISTANCE / np.sqrt(2 * w.features)
    means = spread * random.normal(size=(w.states, w.features))
    state = _sticky_chain(random, w, STAY)
    x = means[state] + random.normal(size=(w.sequences, w.rows, w.features))
    start = {
        "initial": np.full(w.states, 1 / w.states),
        "transition": _sticky_matrix(w.states, 0.7),
        "means": means + 0.3 * spread * random.normal(size=means.shape),
        "covariances": np.broadcast_to(
            1.5 * np.eye(w.features), (w.states, w.features, w.features)
        ).copy(),
    }
    return x, start


def _categorical(random: np.random.Generator, w: Workload) -> tuple[Any, dict[str, Any]]:
    table = random.dirichlet(np.full(w.features, 0.5), size=w.states)
    state = _sticky_chain(random, w, STAY)
    cumulative = np.cumsum(table, 1)
    cumulative[:, -1] = 1.0
    draw = random.random(size=state.shape)
    x = np.empty(state.shape, np.int32)
    for k in range(w.states):
        x[state == k] = np.searchsorted(cumulative[k], draw[state == k], side="right")
    other = random.dirichlet(np.ones(w.features), size=w.states)
    start = {
        "initial": np.full(w.states, 1 / w.states),
        "transition": _sticky_matrix(w.states, 0.7),
        "table": 0.5 * table + 0.5 * other,
    }
    return x, start


def _given_emissions(x: Any, start: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Log-densities of unit normals about the means, [B, T, K], and the chain itself."""
    squares = np.stack([np.sum((x - mean) ** 2, -1) for mean in start["means"]], -1)
    emission = -0.5 * squares - 0.5 * x.shape[-1] * np.log(2 * np.pi)
    return emission, {"initial": start["initial"], "transition": start["transition"]}


def _lattice(random: np.random.Generator, w: Workload) -> tuple[Any, dict[str, Any]]:
    """Logits as of a network that has learnt nothing yet, and labels other than the blank, 0.

    All sequences are as long as the arrays; every library is told so by arrays, as with others.
    """
    each = (w.rows, w.states + 1) if w.group == TRANSDUCER else (w.rows,)
    targets = {
        "labels": random.integers(1, w.features, size=(w.sequences, w.states), dtype=np.int32),
        "logit_lengths": np.full(w.sequences, w.rows, np.int32),
        "label_lengths": np.full(w.sequences, w.states, np.int32),
    }
    return random.normal(size=(w.sequences, *each, w.features)), targets


OLD_FAITHFUL = Path(__file__).parents[1] / "jaxem" / "datasets" / "old_faithful.csv"
APART = 2.0  # standard deviation of a mean's entries, of many fits to tolerance


def _many(random: np.random.Generator, w: Workload) -> tuple[Any, dict[str, Any]]:
    """Data of unit clusters, or Old Faithful; means that start at rows, drawn for each fit."""
    covariance = np.eye(w.features)
    chain = {}
    if w.kind == "orders":
        x = np.loadtxt(OLD_FAITHFUL, delimiter=",", skiprows=1)
        covariance = np.cov(x.T, bias=True)
    elif w.kind == "data-sets":
        means = DISTANCE / np.sqrt(2 * w.features) * random.normal(size=(w.fits, w.states, 2))
        member = random.integers(w.states, size=(w.fits, w.rows, 1))
        x = np.take_along_axis(means, member, 1) + random.normal(size=(w.fits, w.rows, 2))
    else:
        means = APART * random.normal(size=(w.states, w.features))
        if w.kind == "hmm":
            chain = {
                "initial": np.full(w.states, 1 / w.states),
                "transition": _sticky_matrix(w.states, 0.7),
            }
            member = _sticky_chain(random, w, STAY)
        else:
            member = random.integers(w.states, size=w.rows)
        x = means[member] + random.normal(size=(*member.shape, w.features))
    rows = x if w.kind == "data-sets" else x.reshape(1, -1, w.features)
    chosen = np.stack([random.permutation(rows.shape[1])[: w.states] for _ in range(w.fits)])
    start = np.take_along_axis(
        np.broadcast_to(rows, (w.fits, *rows.shape[1:])), chosen[..., None], 1
    )
    return x, {"means": start, "covariance": covariance} | chain
