"""One adapter a library, all with the same functions, so that the runner knows no library.

    version() -> str                             what is being measured
    supports(workload, dtype) -> str | None      None, or why the library cannot do it
    computes_in(dtype) -> str                    the dtype it really computes in
    prepare(workload, inputs, dtype) -> Run      everything that a careful user does only once

`Run.call` does the whole computation and returns when it is done; `Run.answer` turns what it
returned into NumPy arrays, outside the time that is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.workloads import CTC, MANY, TRANSDUCER

OURS = "jaxem"
MODELLING = ("scikit-learn", "hmmlearn", "dynamax", "pomegranate", "gmmx")
LATTICE = {CTC: ("torch", "optax"), TRANSDUCER: ("torchaudio", "autodiff-scan")}
LOOPS = ("scikit-learn-joblib", "hmmlearn-joblib")
ADAPTERS = {
    name: f"bench.peers.{name.replace('-', '_')}"
    for name in (OURS, *MODELLING, *(name for names in LATTICE.values() for name in names), *LOOPS)
}


def peers_of(group: str) -> tuple[str, ...]:
    """The libraries that are asked for the workloads of a group."""
    return LOOPS if group == MANY else LATTICE.get(group, MODELLING)


@dataclass(frozen=True)
class Run:
    """A computation that is ready to be timed."""

    call: Callable[[], Any]
    # Linear parameters; or gamma [B, T, K]; or path [B, T]; or losses [B] and gradient as logits;
    # or "orders", of each the linear parameters and the number of steps of all fits, [M, ...].
    answer: Callable[[Any], dict[str, Any]]
