"""The short table in the project's README: one line for each thing that is measured."""

from pathlib import Path

from bench import records
from bench.peers import OURS
from bench.workloads import DTYPES, WORKLOADS

SHOWN = {  # workloads, in the words of a reader
    "gmm-full-100000x16-k16": "a step of a Gaussian mixture, 100,000 × 16, K = 16, full",
    "gmm-diagonal-1000000x8-k16": "the same, 1,000,000 × 8, K = 16, diagonal",
    "hmm-gaussian-100x1000-k8-d4": "a step of a Gaussian HMM, 100 sequences of 1000, K = 8",
    "hmm-categorical-1000x200-k10-v50": "of a categorical one, 1000 sequences of 200, K = 10",
    "smoothing-1x10000-k64": "smoothing, T = 10,000, K = 64",
    "viterbi-1x10000-k64": "the best path of it",
    "viterbi-1x100000-k5": "the best path, T = 100,000, K = 5",
    "ctc-64x500-l80-v128": "CTC and its gradient, 64 × 500 frames, 80 labels",
    "transducer-16x200-l40-v128": "the transducer and its gradient, 16 × 200 frames, 40 labels",
    "many-1000x500x2-k3": "1000 mixtures fitted to 1000 data sets",
    "restarts-200x2000x4-k8": "200 restarts of a mixture to convergence",
    "hmm-100x10x500-k4-d2": "100 restarts of a Gaussian HMM to convergence",
}


def table(directory: Path) -> str:
    """Milliseconds and the fastest peer's time as a multiple of them, in both dtypes."""
    groups = {workload.name: workload.group for workload in WORKLOADS}
    lines = [
        "| | jaxem, ms | fastest peer | times as fast, float32 | float64 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, words in SHOWN.items():
        entries = records.read(directory, groups[name])["entries"]
        single, double = (entries.get(f"{name} {dtype}") for dtype in DTYPES)
        if single is None or single["fastest_peer"] is None:
            continue
        ours = single["libraries"][OURS]["milliseconds_a_step"]
        peer = single["fastest_peer"].removesuffix("-joblib")
        time = f"{ours:.1f}" if ours < 100 else f"{ours:.0f}"
        ratios = (_ratio(entry and entry["ratio"]) for entry in (single, double))
        lines.append(f"| {' | '.join((words, time, peer, *ratios))} |")
    return "\n".join(lines) + "\n"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value < 10 else f"{value:.0f}"
