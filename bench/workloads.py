"""What is measured: the table of workloads and the goals set for them."""

import math
from dataclasses import dataclass, replace
from typing import Any

DTYPES = ("float32", "float64")
MIXTURE_GROUP, HMM_GROUP, SMOOTHING, VITERBI = "gmm", "hmm", "smoothing", "viterbi"
CTC, TRANSDUCER, MANY = "ctc", "transducer", "many"
LATTICES = (CTC, TRANSDUCER)


@dataclass(frozen=True)
class Workload:
    """One computation that every library is asked for, from the same numbers."""

    group: str  # gmm, hmm, smoothing, viterbi, ctc, transducer or many
    # full or diagonal; gaussian or categorical; empty where emissions are given; of many fits,
    # what they are: data-sets, restarts, orders or hmm, all of Gaussians with full covariances
    kind: str
    sequences: int  # B; 1 for a mixture
    rows: int  # N rows, or T steps of each sequence
    features: int  # D, or V symbols; of given emissions, the features they come from
    states: int  # K components or states, or labels of each sequence
    steps: int = 1  # EM steps of one timed call
    goals: tuple[float, float | None] | None = None  # least ratio to a peer: float32, float64
    floor_goal: float | None = None  # most multiples of the machine's time for the products alone
    memory_goal: float | None = None  # most multiples of the data at the peak
    goal_peer: str | None = None  # whose ratio the goals are for; None: the fastest's
    compile_goal: float | None = None  # most seconds for all programs
    patience: float = math.inf  # seconds of a call beyond which a peer is timed by its first
    fits: int = 1  # data sets, or restarts of each order
    max_steps: int = 0  # of each of many fits
    tol: float = 0.0  # nats of a data set at which each ends; 0: it takes all its steps
    floor: float = 0.0  # least eigenvalue of a covariance, or what is added to its diagonal

    @property
    def name(self) -> str:
        """How the command line and the results call it."""
        if self.group == MANY:
            return self._name_of_many
        if self.group in LATTICES:
            return f"{self.group}-{self._sequences}-l{self.states}-v{self.features}"
        sizes = f"{self.rows}x{self.features}" if self.group == MIXTURE_GROUP else self._sequences
        tail = {"gaussian": f"-d{self.features}", "categorical": f"-v{self.features}"}
        parts = [self.group, self.kind, sizes, f"k{self.states}{tail.get(self.kind, '')}"]
        return "-".join(part for part in parts if part)

    @property
    def _name_of_many(self) -> str:
        if self.kind == "orders":
            return f"orders-1:{self.states}x{self.fits}-old-faithful"
        if self.kind == "hmm":
            return f"hmm-{self.fits}x{self._sequences}-k{self.states}-d{self.features}"
        kind = "many" if self.kind == "data-sets" else self.kind
        return f"{kind}-{self.fits}x{self.rows}x{self.features}-k{self.states}"

    @property
    def orders(self) -> tuple[int, ...]:
        """The numbers of components, or states, that many fits have."""
        return tuple(range(1, self.states + 1)) if self.kind == "orders" else (self.states,)

    @property
    def _sequences(self) -> str:
        return f"{self.sequences}x{self.rows}"

    @property
    def num_observations(self) -> int:
        """Rows of all sequences together."""
        return self.sequences * self.rows

    @property
    def product_flops(self) -> float | None:
        """Floating-point operations of a mixture's two matrix products in one EM step.

        One product makes the log-densities from F features of each row, the other the statistics:
        F is 1 + D + D(D+1)/2 with full covariances and 1 + 2D with diagonal ones.
        """
        if self.group != MIXTURE_GROUP:
            return None
        size = self.features
        columns = 1 + size + size * (size + 1) / 2 if self.kind == "full" else 1 + 2 * size
        return 4.0 * self.rows * columns * self.states

    def goal(self, dtype: str) -> float | None:
        """The least ratio to the fastest peer, or to `goal_peer`, that was asked for."""
        return None if self.goals is None else self.goals[DTYPES.index(dtype)]


def _mixture(
    kind: str,
    rows: int,
    features: int,
    states: int,
    steps: int,
    goals: tuple[float, float],
    floor: float | None = None,
) -> Workload:
    return Workload(MIXTURE_GROUP, kind, 1, rows, features, states, steps, goals, floor, 2.0)


def _lattice(group: str, sequences: int, rows: int, labels: int, symbols: int) -> Workload:
    goal, peer = (1.6, None) if group == CTC else (10, "torchaudio")
    sizes = (sequences, rows, symbols, labels)
    return Workload(group, "", *sizes, goals=(goal, None), goal_peer=peer)


def _given(group: str, sequences: int, rows: int, states: int, *goals: float) -> Workload:
    return Workload(group, "", sequences, rows, 2, states, 1, (goals[0], goals[1]))


def _many(
    kind: str, fits: int, sizes: tuple[int, int, int, int], goals: tuple[float, float], **more: Any
) -> Workload:
    shared: dict[str, Any] = {"max_steps": 1000, "compile_goal": 20.0, "patience": 5.0}
    return Workload(MANY, kind, *sizes, goals=goals, fits=fits, **shared | more)


# Of fits to tolerance: what hmmlearn stops at by default, and what float32 tells apart here.
TOL = 1e-2
WORKLOADS = (
    _mixture("full", 100_000, 2, 8, 20, (20, 12)),
    _mixture("full", 100_000, 16, 16, 10, (7, 6.5)),
    _mixture("full", 1_000_000, 8, 16, 3, (16, 18), 4.0),
    _mixture("full", 100_000, 64, 64, 2, (9, 7), 2.5),
    _mixture("diagonal", 100_000, 2, 8, 20, (20, 10)),
    _mixture("diagonal", 100_000, 16, 16, 20, (5, 4)),
    _mixture("diagonal", 1_000_000, 8, 16, 10, (13, 8)),
    _mixture("diagonal", 100_000, 64, 64, 10, (4, 4)),
    Workload(HMM_GROUP, "gaussian", 1, 100_000, 3, 5, 10, (5, 3.8)),
    Workload(HMM_GROUP, "gaussian", 100, 1000, 4, 8, 10, (7, 5)),
    Workload(HMM_GROUP, "gaussian", 1, 10_000, 8, 64, 10, (7, 4)),
    Workload(HMM_GROUP, "categorical", 1000, 200, 50, 10, 10, (4, 2.5)),
    _given(SMOOTHING, 1, 100_000, 5, 2, 1.6),
    _given(SMOOTHING, 1, 10_000, 64, 3.5, 2.7),
    _given(SMOOTHING, 256, 500, 16, 6, 2.5),
    _given(VITERBI, 1, 100_000, 5, 1, 1),
    _given(VITERBI, 1, 10_000, 64, 1, 1),
    _given(VITERBI, 256, 500, 16, 1, 1),
    _lattice(CTC, 32, 200, 30, 64),
    _lattice(CTC, 64, 500, 80, 128),
    _lattice(CTC, 16, 1000, 100, 1000),
    _lattice(TRANSDUCER, 8, 100, 20, 500),
    _lattice(TRANSDUCER, 16, 200, 40, 128),
    _many("data-sets", 1000, (1, 500, 2, 3), (60, 20), max_steps=20),
    _many("restarts", 200, (1, 2000, 4, 8), (10, 10), tol=TOL),
    _many("orders", 20, (1, 272, 2, 10), (10, 10), tol=TOL, floor=1e-6),
    _many("hmm", 100, (10, 500, 2, 4), (5, 5), tol=TOL),
)
GROUPS = (MIXTURE_GROUP, HMM_GROUP, SMOOTHING, VITERBI, *LATTICES, MANY)

ROWS_A_FEATURE = 4  # of each component, and as many for 16 features more: with fewer one collapses


def shrunk(workload: Workload, factor: int) -> Workload:
    """The same with about 1/factor of the data, and no goals: for trying, not for timing."""
    if workload.group in LATTICES:
        return _shrunk_lattice(workload, factor)
    if workload.group == MANY:
        return _shrunk_many(workload, factor)
    least = ROWS_A_FEATURE * workload.states * (workload.features + 16)
    total = max(workload.num_observations // factor, least)
    total = min(total, workload.num_observations)
    sequences = workload.sequences
    if sequences > 1:
        sequences = max(2, sequences // factor)
    rows = max(2, total // sequences)
    return replace(
        workload, sequences=sequences, rows=rows, goals=None, floor_goal=None, memory_goal=None
    )


def _shrunk_lattice(workload: Workload, factor: int) -> Workload:
    """Fewer sequences, and then frames and labels in proportion."""
    sequences = max(2, workload.sequences // factor)
    part = min(1.0, workload.sequences / sequences / factor)
    rows, labels = (max(2, int(part * size)) for size in (workload.rows, workload.states))
    return replace(
        workload, sequences=sequences, rows=max(rows, 2 * labels), states=labels, goals=None
    )


def _shrunk_many(workload: Workload, factor: int) -> Workload:
    """Fewer fits, of fewer orders."""
    states = max(2, workload.states // factor) if workload.kind == "orders" else workload.states
    fits = max(2, workload.fits // factor)
    return replace(workload, fits=fits, states=states, goals=None, compile_goal=None)
