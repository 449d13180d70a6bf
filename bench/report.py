"""The tables in the README, made from the JSON files: `python -m bench.report`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import headline, records
from bench.peers import LATTICE, LOOPS, MODELLING, OURS
from bench.workloads import CTC, GROUPS, LATTICES, MANY, TRANSDUCER

Made = Callable[[Path], str]
BEGIN, END = "<!-- results: made by bench.report -->", "<!-- end of results -->"
MODELS = tuple(group for group in GROUPS if group not in (*LATTICES, MANY))


def rewrite_readme(directory: Path, readme: Path, made: Made | None = None) -> Path:
    """Put what is `made` of the results, all tables by default, between the two marks of a README.

    Raises:
        ValueError: a README without the marks.
    """
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{readme} needs the lines {BEGIN!r} and {END!r}, once each.")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    records.replace_file(readme, f"{before}{BEGIN}\n\n{(made or tables)(directory)}\n{END}{after}")
    return readme


def rewrite_readmes() -> tuple[Path, Path]:
    """Put the committed results into this folder's README, and the short table into the first."""
    here = Path(__file__).parent
    results = here / "results"
    long = rewrite_readme(results, here / "README.md")
    return long, rewrite_readme(results, here.parent / "README.md", headline.table)


def tables(directory: Path) -> str:
    """All tables as Markdown, and what they were measured on."""
    contents = {
        group: records.read(directory, group)
        for group in (*GROUPS, "first-call", "growth", "missing", "acceleration", "estimators")
    }
    parts = [
        _machines(contents),
        _comparison(
            "Beside the peers: milliseconds an EM step, or a call",
            _entries(contents, MODELS),
            MODELLING,
        ),
        _comparison(
            "CTC: milliseconds for losses and their gradient",
            _entries(contents, (CTC,)),
            LATTICE[CTC],
        ),
        _comparison(
            "The transducer: milliseconds for losses and their gradient",
            _entries(contents, (TRANSDUCER,)),
            LATTICE[TRANSDUCER],
        ),
        _comparison(
            "Many fits in one call: milliseconds for all of them",
            _entries(contents, (MANY,)),
            LOOPS,
        ),
        _many(_entries(contents, (MANY,))),
        _limits(_entries(contents, (*MODELS, *LATTICES))),
        _first_call(contents["first-call"]["entries"]),
        _growth(contents["growth"]["entries"]),
        _missing(contents["missing"]["entries"]),
        _acceleration(contents["acceleration"]["entries"]),
        _estimators(contents["estimators"]["entries"]),
    ]
    return "\n".join(part for part in parts if part) or "Nothing has been measured yet.\n"


def in_words(entry: Mapping[str, Any]) -> str:
    """The outcome of one workload in a line."""
    if entry["ratio"] is None:
        return "no ratio: " + (_why_not(entry) or "no peer to compare with")
    outcome = f"{entry['ratio']:.2f} times as fast as {entry['fastest_peer']}"
    return outcome if entry["goal"] is None else f"{outcome}, goal {_goal(entry)}"


def _why_not(entry: Mapping[str, Any]) -> str:
    reasons = []
    for name, record in entry["libraries"].items():
        if "skipped" in record:
            reasons.append(f"{name} {record['skipped']}")
        elif "stopped" in record:
            reasons.append(f"{name} stopped {record['stopped']}")
        elif record.get("agrees") is False:
            reasons.append(f"{name} differs by {record['difference']:.1e}")
    return "; ".join(reasons)


def _entries(contents: Mapping[str, Any], groups: tuple[str, ...]) -> list[Mapping[str, Any]]:
    return [entry for group in groups for entry in contents[group]["entries"].values()]


def _comparison(title: str, entries: list[Mapping[str, Any]], peers: tuple[str, ...]) -> str:
    rows = []
    for entry in entries:
        libraries = entry["libraries"]
        fastest = entry["fastest_peer"]
        cells = [entry["workload"], entry["dtype"], _milliseconds(libraries.get(OURS, {}))]
        cells += [
            f"**{cell}**" if name == fastest else cell
            for name in peers
            if (cell := _milliseconds(libraries.get(name, {})))
        ]
        ratio = "withheld" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        rows.append([*cells, ratio, _goal(entry), _met(entry["met"])])
    heads = ["workload", "dtype", "jaxem", *peers, "ratio", "goal", "met"]
    notes = [
        f"- {entry['workload']} {entry['dtype']}: {reasons}"
        for entry in entries
        if (reasons := _why_not(entry))
    ]
    table = _table(title, heads, rows)
    return table + ("\nNot compared:\n\n" + "\n".join(notes) + "\n" if notes else "")


def _goal(entry: Mapping[str, Any]) -> str:
    """The goal, and the peer it speaks of with the ratio to it where that is not the fastest."""
    peer = entry.get("goal_peer")
    if entry["goal"] is None or peer is None or peer == entry["fastest_peer"]:
        return _number(entry["goal"])
    found = "not measured" if entry["goal_ratio"] is None else f"{entry['goal_ratio']:.2f}"
    return f"{_number(entry['goal'])} to {peer}: {found}"


def _limits(entries: list[Mapping[str, Any]]) -> str:
    rows = []
    for entry in entries:
        ours = entry["libraries"].get(OURS, {})
        if "milliseconds_a_step" not in ours:
            continue
        rows.append(
            [
                entry["workload"],
                entry["dtype"],
                _number(ours["compile_seconds"], 2),
                _number(entry.get("floor_ratio"), 2),
                _number(entry.get("floor_goal")),
                _met(entry.get("floor_met")),
                _number(ours.get("memory_multiple"), 2),
                _number(entry["memory_goal"]),
                _met(entry["memory_met"]),
            ]
        )
    heads = ["workload", "dtype", "compile, s", "times the products alone", "goal", "met"]
    return _table("jaxem alone", [*heads, "peak memory / data", "goal", "met"], rows)


def _many(entries: list[Mapping[str, Any]]) -> str:
    rows = []
    for entry in entries:
        ours, peer = (
            entry["libraries"].get(name, {}) for name in (OURS, entry["fastest_peer"] or "")
        )
        alike, regular = (peer.get(f"share_{share}") for share in ("alike", "regular"))
        rows.append(
            [
                entry["workload"],
                entry["dtype"],
                _number(ours.get("mean_steps"), 1),
                _number(peer.get("mean_steps"), 1),
                _number(alike, 3),
                _number(regular, 3),
                _number(ours.get("compile_seconds"), 2),
                _number(entry["compile_goal"]),
                _met(entry["compile_met"]),
            ]
        )
    heads = ["workload", "dtype", "steps a fit", "steps of the peer", "alike", "regular"]
    return _table("Many fits: steps and compilation", [*heads, "compile, s", "goal", "met"], rows)


def _first_call(entries: Mapping[str, Any]) -> str:
    rows = []
    for name, entry in entries.items():
        seconds = entry.get("compile_seconds", entry.get("median"))
        again, cached = entry.get("compilations_of_second"), entry.get("first_seconds_with_cache")
        goal = f"< {_number(entry['goal'])}"
        rows.append(
            [
                name,
                _number(seconds, 2),
                goal,
                _number(again),
                _number(cached, 2),
                _met(entry["met"]),
            ]
        )
    heads = ["", "import or compile, s", "goal", "compiled by a second fit"]
    return _table("The first call", [*heads, "first fit with a cache, s", "met"], rows)


def _growth(entries: Mapping[str, Any]) -> str:
    rows = [
        [
            entry["series"],
            entry["dtype"],
            f"{entry['symbol']} = {entry['sizes'][0]} … {entry['sizes'][-1]}",
            _number(entry["slope"], 3),
            f"{100 * entry['deviation']:.0f} %",
            _met(entry["met"]),
            _number(entry["memory_growth"], 2),
            _met(entry["memory_met"]),
        ]
        for entry in entries.values()
    ]
    heads = ["series", "dtype", "sizes", "slope", "deviation from linear", "met (10 %)"]
    return _table("Growth", [*heads, "memory / data, last decade", "met (1.1)"], rows)


def _missing(entries: Mapping[str, Any]) -> str:
    rows = [
        [
            entry["series"],
            entry["dtype"],
            f"{100 * entry['share_missing']:.0f} %",
            _number(entry["patterns"]),
            _number(entry["complete_milliseconds_a_step"], 2),
            _number(entry["milliseconds_a_step"], 2),
            _number(entry["ratio"], 2),
            _number(entry["goal"]),
            _met(entry["met"]),
        ]
        for entry in entries.values()
    ]
    heads = ["workload", "dtype", "missing", "patterns", "complete, ms", "incomplete, ms"]
    return _table("Missing entries: an EM step", [*heads, "times", "at most", "met"], rows)


def _acceleration(entries: Mapping[str, Any]) -> str:
    rows = [
        [
            entry["series"],
            entry["dtype"],
            _number(entry["rate"], 4),
            method,
            _number(found["e_steps_to_maximum"]),
            _number(found["e_steps_to_tolerance"]),
            f"{found['gap']:.1e}",
            _number(1000 * found["seconds"], 1),
        ]
        for entry in entries.values()
        for method, found in entry["methods"].items()
    ]
    heads = ["workload", "dtype", "rate of EM", "method", "E-steps to the maximum"]
    heads += ["to the default tolerance", "left to gain, nats", "ms"]
    return _table("Acceleration: a fit of a slow problem", heads, rows)


def _estimators(entries: Mapping[str, Any]) -> str:
    rows = []
    for entry in entries.values():
        ours, theirs = entry["libraries"]["jaxem"], entry["libraries"]["scikit-learn"]
        rows.append(
            [
                entry["series"],
                entry["dtype"],
                _number(ours["fits"]),
                _number(ours["seconds"], 2),
                _number(theirs["seconds"], 2),
                _number(entry["ratio"], 2),
                _number(ours["first_search"], 2),
                _number(ours["first_fit"], 2),
                _number(entry["goal"]),
                _met(entry["met"]),
            ]
        )
    heads = ["search", "dtype", "fits", "jaxem, s", "scikit-learn, s", "ratio"]
    return _table(
        "GridSearchCV over mixtures",
        [*heads, "the first search, s", "its first fit, s", "at most", "met"],
        rows,
    )


def _machines(contents: Mapping[str, Any]) -> str:
    found: dict[str, dict[str, Any]] = {}
    for content in contents.values():
        found |= content["machines"]
    lines = []
    for run, about in sorted(found.items()):
        rates = "; ".join(
            f"{dtype}: GEMM {rate['xla_gemm_gflops']:.0f} (XLA) and "
            f"{rate['numpy_gemm_gflops']:.0f} (NumPy) GFLOP/s, copy "
            f"{rate['copy_gigabytes']:.0f} GB/s, exp {rate['xla_exp_nanoseconds']:.2f} ns"
            for dtype, rate in about["rates"].items()
        )
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        lines.append(
            f"Measured {run} on {about['cores']} cores of {about['cpu']}, "
            f"{about['memory_gib']} GiB, {about['system']}, Python {about['python']}.  {rates}.  "
            f"{versions}.\n"
        )
    return "\n".join(lines)


def _table(title: str, heads: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return f"### {title}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _milliseconds(record: Mapping[str, Any]) -> str:
    """The time of one library, with a mark for what is odd about it."""
    if "milliseconds_a_step" not in record:
        absent = record.get("skipped", "").startswith("not installed")
        return "absent" if absent else "failed" if "skipped" in record else "–"
    marks = "" if record["repeated"] else " (once)"
    marks += "" if record.get("agrees", True) else " (differs)"
    return f"{_number(record['milliseconds_a_step'], 2)}{marks}"


def _number(value: float | None, decimals: int | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if decimals is None else f"{value:.{decimals}f}"


def _met(met: bool | None) -> str:
    return "–" if met is None else "yes" if met else "**no**"


if __name__ == "__main__":
    print(*rewrite_readmes(), file=sys.stderr)
