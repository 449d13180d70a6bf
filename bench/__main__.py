"""The command line: `python -m bench [WORKLOAD ...]`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from bench import (
    acceleration,
    estimators,
    first_call,
    growth,
    machine,
    measure,
    missing,
    records,
    report,
)
from bench.peers import ADAPTERS, OURS, peers_of
from bench.processes import WorkerFailed
from bench.workloads import DTYPES, GROUPS, WORKLOADS, Workload, shrunk

RESULTS = Path(__file__).parent / "results"
FIRST_CALL, GROWTH, MISSING = "first-call", "growth", "missing"
ACCELERATION = "acceleration"
ESTIMATORS = "estimators"
MEMBERS: dict[str, tuple[str, ...]] = {
    group: tuple(workload.name for workload in WORKLOADS if workload.group == group)
    for group in GROUPS
} | {
    FIRST_CALL: first_call.NAMES,
    GROWTH: growth.NAMES,
    MISSING: missing.NAMES,
    ACCELERATION: acceleration.NAMES,
    ESTIMATORS: estimators.NAMES,
}
LEAST_REPEATS = 5  # of results that are kept


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the results, and make the table anew."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for group, names in MEMBERS.items():
            print(group, *names, sep="\n  ")
        return 0
    names = _chosen(parser, options.workloads)
    _check(parser, options)
    run, about = records.now(), machine.describe()
    failed: list[str] = []
    for group, members in MEMBERS.items():
        for name in (member for member in members if member in names):
            try:
                _measure(group, name, options, run, about)
            except (WorkerFailed, RuntimeError) as failure:  # the others are still worth having
                failed.append(name)
                print(f"{name} failed: {failure}", file=sys.stderr)
    if any(name in growth.NAMES for name in names):
        growth.draw(options.out, records.read(options.out, GROWTH)["entries"])
    print(f"table in {_rewrite(options.out)}")
    return 1 if failed else 0


def _measure(group: str, name: str, options: Any, run: str, about: dict[str, Any]) -> None:
    """Measure one workload in every dtype asked for, and write each as soon as it is known."""

    def say(line: str) -> None:
        print(line, flush=True)

    def write(key: str, entry: dict[str, Any]) -> None:
        entry |= {"shrink": options.shrink, "repeats": options.repeats}
        records.write(options.out, group, {key: entry}, run, about)

    if group == FIRST_CALL:
        say(name)
        write(name, first_call.measure(name, options.repeats))
        return
    for dtype in options.dtype:
        key = f"{name} {dtype}"
        say(key)
        if group == GROWTH:
            entry = growth.measure(
                name,
                dtype,
                repeats=options.repeats,
                limit=options.limit,
                factor=options.shrink,
                say=say,
            )
        elif group == MISSING:
            entry = missing.measure(name, dtype, repeats=options.repeats, factor=options.shrink)
            say(f"  {entry['ratio']:.2f} times the complete step")
        elif group == ACCELERATION:
            entry = acceleration.measure(
                name, dtype, repeats=options.repeats, factor=options.shrink
            )
            for method, found in entry["methods"].items():
                say(f"  {method}: {found['e_steps_to_tolerance']} E-steps")
        elif group == ESTIMATORS:
            entry = estimators.measure(name, dtype, repeats=options.repeats, factor=options.shrink)
            say(f"  {entry['ratio']:.2f} times as fast as scikit-learn's")
        else:
            workload = next(one for one in WORKLOADS if one.name == name)
            asked = shrunk(workload, options.shrink) if options.shrink > 1 else workload
            peers = (one for one in peers_of(group) if one in options.peers)
            adapters = {one: ADAPTERS[one] for one in (OURS, *peers)}
            entry = measure.measure(
                asked, dtype, adapters, repeats=options.repeats, limit=options.limit, say=say
            )
            entry |= _above_floor(asked, dtype, entry, about)
            say(f"  {report.in_words(entry)}")
        write(key, entry)


def _above_floor(
    workload: Workload, dtype: str, entry: dict[str, Any], about: dict[str, Any]
) -> dict[str, Any]:
    """How many times the matrix products alone our step takes, at the rate just measured."""
    flops = workload.product_flops
    ours = entry["libraries"][OURS].get("milliseconds_a_step")
    if flops is None or ours is None:
        return {}
    floor = 1000 * flops / machine.gemm_rate(about, dtype)
    return {
        "floor_milliseconds": floor,
        "floor_ratio": ours / floor,
        "floor_goal": workload.floor_goal,
        "floor_met": measure.at_most(ours / floor, workload.floor_goal),
    }


def _rewrite(directory: Path) -> Path:
    """The tables of committed results belong into the READMEs; those of others lie beside them."""
    if directory.resolve() == RESULTS.resolve():
        return report.rewrite_readmes()[0]
    path = directory / "table.md"
    records.replace_file(path, report.tables(directory))
    return path


def _chosen(parser: argparse.ArgumentParser, asked: list[str]) -> set[str]:
    known = {name for names in MEMBERS.values() for name in names}
    chosen: set[str] = set()
    for name in asked or MEMBERS:
        if name not in known and name not in MEMBERS:
            everything = ", ".join(MEMBERS) + "; " + ", ".join(sorted(known))
            parser.error(f"there is no workload {name!r}; groups and workloads are: {everything}")
        chosen |= set(MEMBERS.get(name, (name,)))
    return chosen


def _check(parser: argparse.ArgumentParser, options: Any) -> None:
    if options.repeats < 1 or options.shrink < 1:
        parser.error("--repeats and --shrink must be 1 or more.")
    kept = options.out.resolve() == RESULTS.resolve()
    if kept and (options.shrink > 1 or options.repeats < LEAST_REPEATS):
        parser.error(
            f"results that are kept have the full size and at least {LEAST_REPEATS} repeats; "
            "pass --out DIR for others."
        )


def _parser() -> argparse.ArgumentParser:
    peers = tuple(name for name in ADAPTERS if name != OURS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure jaxem beside its peers; with no workload, everything.",
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="a workload or a group")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results")
    parser.add_argument("--repeats", type=int, default=LEAST_REPEATS, help="timed rounds")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, help="default: all")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one call at most")
    parser.add_argument("--shrink", type=int, default=1, help="divide the sizes: to try, not time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
