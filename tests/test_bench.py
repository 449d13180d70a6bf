"""The benchmark's runner, on sizes at which nothing can be timed."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxem

ROOT = Path(__file__).parents[1]
OURS = "bench.peers.jaxem"
MACHINE = {
    "cpu": "abacus",
    "cores": 2,
    "memory_gib": 1.0,
    "system": "wood",
    "python": "3",
    "versions": {"jaxem": "0"},
    "rates": {
        dtype: {
            "xla_gemm_gflops": 10.0,
            "xla_exp_nanoseconds": 1.0,
            "numpy_gemm_gflops": 5.0,
            "copy_gigabytes": 1.0,
        }
        for dtype in ("float32", "float64")
    },
}
# Each stands in for a library; the one with an offset of 0 is the control of the one without.
ADAPTER = """
import os, time
from bench.peers import Run, jaxem
from bench.peers.jaxem import computes_in, supports, version

def prepare(workload, inputs, dtype):
    run = jaxem.prepare(workload, inputs, dtype)
    def answer(result):
        told = run.answer(result)
        return told | {{"means": told["means"] + {offset}}}
    return Run(run.call, answer)
"""
BROKEN = """
import os, time{imports}
def version(): return "1"
def computes_in(dtype): return dtype
def supports(workload, dtype): {does}
"""


@pytest.fixture(scope="module", autouse=True)
def bench_is_importable() -> Any:
    """It lies beside the package and is no part of the installation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


@pytest.fixture
def add_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a module that workers can import, and return its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def add(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return add


def tiny_mixture(steps: int = 3) -> Any:
    """A workload of a few rows, with a goal."""
    return import_module("bench.workloads").Workload("gmm", "full", 1, 400, 2, 3, steps, (2, 2))


def measured(adapters: dict[str, str], *, limit: float = 120.0, steps: int = 3) -> dict[str, Any]:
    """The record of a tiny mixture computed by these libraries."""
    return import_module("bench.measure").measure(
        tiny_mixture(steps), "float32", adapters, repeats=2, limit=limit, say=lambda line: None
    )


def test_the_command_measures_writes_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = import_module("bench.__main__")
    monkeypatch.setattr(program.machine, "describe", lambda: MACHINE)
    name = "gmm-full-100000x2-k8"
    options = ["--shrink", "100", "--repeats", "1", "--dtype", "float64", "--out", str(tmp_path)]
    assert program.main([name, *options, "--peers", "scikit-learn"]) == 0
    entry = json.loads((tmp_path / "gmm.json").read_text())["entries"][f"{name} float64"]
    ours, peer = entry["libraries"]["jaxem"], entry["libraries"]["scikit-learn"]
    assert ours["agrees"] and len(ours["seconds"]) == 1 and ours["milliseconds_a_step"] > 0
    assert entry["floor_ratio"] > 0 and entry["shrink"] == 100
    if find_spec("sklearn"):
        ratio = peer["milliseconds_a_step"] / ours["milliseconds_a_step"]
        assert peer["agrees"] and entry["ratio"] == pytest.approx(ratio)
        assert entry["fastest_peer"] == "scikit-learn"
    else:
        assert "sklearn" in peer["skipped"] and entry["ratio"] is None
    assert entry["workload"] in (tmp_path / "table.md").read_text()
    assert "scikit-learn" in capsys.readouterr().out


def test_a_missing_peer_is_skipped_by_name(add_adapter: Any) -> None:
    absent = add_adapter("absent_adapter", "import no_such_library\n")
    entry = measured({"jaxem": OURS, "absent": absent})
    assert entry["libraries"]["absent"]["skipped"].startswith("not installed")
    assert "no_such_library" in entry["libraries"]["absent"]["skipped"]
    assert entry["libraries"]["jaxem"]["milliseconds_a_step"] > 0
    assert entry["ratio"] is None and entry["met"] is False


@pytest.mark.slow
def test_a_peer_that_differs_gets_no_ratio(add_adapter: Any) -> None:
    measure, report = import_module("bench.measure"), import_module("bench.report")
    honest = add_adapter("honest_adapter", ADAPTER.format(offset=0.0))
    liar = add_adapter("lying_adapter", ADAPTER.format(offset=0.1))
    entry = measured({"jaxem": OURS, "liar": liar, "honest": honest})
    libraries = entry["libraries"]
    told = libraries["liar"]
    assert told["agrees"] is False and told["difference"] > told["tolerance"]
    assert told["milliseconds_a_step"] > 0  # shown, and compared with nothing
    assert libraries["honest"]["agrees"] and entry["fastest_peer"] == "honest"
    assert entry["ratio"] > 0 and "liar differs by" in report.in_words(entry | {"ratio": None})
    del libraries["honest"]
    alone = measure.verdict(tiny_mixture(), "float32", libraries)
    assert alone["fastest_peer"] is None and alone["ratio"] is None and alone["met"] is False


@pytest.mark.slow
def test_a_fit_that_stops_early_does_not_count() -> None:
    ours = measured({"jaxem": OURS}, steps=5000)["libraries"]["jaxem"]
    assert ours["stopped"].startswith("after ") and ours["agrees"] is False
    assert "stopped" not in measured({"jaxem": OURS})["libraries"]["jaxem"]


def test_a_worker_that_dies_raises_or_hangs_is_reported(add_adapter: Any) -> None:
    adapters = {
        name: add_adapter(name, BROKEN.format(imports="", does=does))
        for name, does in {
            "dies": "os._exit(3)",
            "raises": "raise ValueError('out of cheese')",
            "hangs": "time.sleep(60)",
        }.items()
    }
    libraries = measured(adapters, limit=5.0)["libraries"]
    assert "died with status 3" in libraries["dies"]["skipped"]
    assert libraries["raises"]["skipped"] == "raised ValueError: out of cheese"
    assert libraries["hangs"]["skipped"] == "took more than 5 s"


def test_an_unknown_workload_is_refused_with_the_names() -> None:
    command = [sys.executable, "-m", "bench", "gmm-round"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "'gmm-round'" in done.stderr and "gmm-full-100000x2-k8" in done.stderr


def test_results_that_are_kept_are_neither_shrunk_nor_few(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (["--shrink", "2"], ["--repeats", "4"]):
        with pytest.raises(SystemExit):
            import_module("bench.__main__").main(["gmm", *arguments])
        assert "--out" in capsys.readouterr().err


def entry_of(ratio: float | None, goal: float) -> dict[str, Any]:
    """A record as `measure` makes it."""
    shared = {"repeated": True, "agrees": True, "compile_seconds": 1.0}
    ours = shared | {"milliseconds_a_step": 2.0, "memory_multiple": 1.5}
    peer = shared | {"milliseconds_a_step": 2.0 * (ratio or 4), "difference": 0.5}
    return {
        "workload": "gmm-full-1x1-k1",
        "group": "gmm",
        "dtype": "float32",
        "libraries": {"jaxem": ours, "gmmx": peer | {"agrees": ratio is not None}},
        "fastest_peer": None if ratio is None else "gmmx",
        "ratio": ratio,
        "goal": goal,
        "met": ratio is not None and ratio >= goal,
        "memory_goal": 2.0,
        "memory_met": True,
    }


def test_the_table_says_what_the_results_say(tmp_path: Path) -> None:
    records, report = import_module("bench.records"), import_module("bench.report")
    entries = {"win": entry_of(3.0, 2.0), "loss": entry_of(0.25, 2.0), "lie": entry_of(None, 2.0)}
    records.write(tmp_path, "gmm", entries, "run", MACHINE)
    lines = report.tables(tmp_path).splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| gmm-full")]
    win, loss, lie = rows[:3]
    assert win[2] == loss[2] == lie[2] == "2.00"
    assert (win[7], loss[7], lie[7]) == ("**6.00**", "**0.50**", "8.00 (differs)")
    assert (win[8], loss[8], lie[8]) == ("3.00", "0.25", "withheld")
    assert (win[10], loss[10], lie[10]) == ("yes |", "**no** |", "**no** |")
    assert any("gmmx differs by 5.0e-01" in line for line in lines)
    assert any("abacus" in line for line in lines)


@pytest.mark.parametrize("folder", ["bench", "."])
def test_the_tables_in_the_readme_are_those_of_the_results(folder: str, tmp_path: Path) -> None:
    report = import_module("bench.report")
    made = report.tables if folder == "bench" else import_module("bench.headline").table
    copy = tmp_path / "README.md"
    committed = (ROOT / folder / "README.md").read_text()
    copy.write_text(committed)
    report.rewrite_readme(ROOT / "bench" / "results", copy, made)
    assert copy.read_text() == committed
    copy.write_text("no marks")
    with pytest.raises(ValueError, match="needs the lines"):
        report.rewrite_readme(tmp_path, copy)


def test_a_partial_run_replaces_only_what_it_measured(tmp_path: Path) -> None:
    records = import_module("bench.records")
    records.write(tmp_path, "gmm", {"a": {"x": 1}, "b": {"x": 1}}, "first", MACHINE)
    records.write(tmp_path, "gmm", {"b": {"x": 2}}, "second", MACHINE)
    content = records.read(tmp_path, "gmm")
    assert {name: entry["x"] for name, entry in content["entries"].items()} == {"a": 1, "b": 2}
    assert content["entries"]["b"]["machine"] == "second" and content["entries"]["a"]["date"]
    assert set(content["machines"]) == {"first", "second"}
    records.write(tmp_path, "gmm", {"a": {"x": 3}}, "second", MACHINE)
    assert set(records.read(tmp_path, "gmm")["machines"]) == {"second"}
    assert [path.name for path in tmp_path.iterdir()] == ["gmm.json"]


def test_inputs_of_float32_are_those_of_float64_rounded() -> None:
    inputs, workloads = import_module("bench.inputs"), import_module("bench.workloads")
    for workload in workloads.WORKLOADS:
        small = replace(workloads.shrunk(workload, 1000), rows=20)
        wide, narrow = (inputs.make_inputs(small, dtype) for dtype in ("float64", "float32"))
        np.testing.assert_array_equal(narrow.x, wide.x.astype(narrow.x.dtype))
        assert len({one.name for one in workloads.WORKLOADS}) == len(workloads.WORKLOADS)


def test_scores_are_the_log_likelihoods_of_jaxem(x64: None) -> None:
    inputs, agreement = import_module("bench.inputs"), import_module("bench.agreement")
    workloads, adapter = import_module("bench.workloads"), import_module(OURS)
    one_a_kind = {(one.group, one.kind): one for one in reversed(workloads.WORKLOADS)}
    for workload in one_a_kind.values():
        small = replace(workload, rows=50, sequences=min(workload.sequences, 2))
        given = inputs.make_inputs(small, "float64")
        start = jax.tree.map(np.asarray, given.start)
        x = given.x if small.group == "gmm" or small.sequences > 1 else given.x[0]
        if small.group in ("gmm", "hmm"):
            expected = adapter.model_of(small, start).log_likelihood(x)
            found = agreement.score(small, given, start)
        elif small.group == "viterbi":
            chain = jaxem.chain.Chain(np.log(start["initial"]), np.log(start["transition"]), x)
            scores, path = jaxem.chain.viterbi(chain)
            expected = np.sum(scores)
            path = np.asarray(path).reshape(small.sequences, -1)
            found = agreement.score(small, given, {"path": path})
        else:
            continue
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("group", ["ctc", "transducer"])
def test_libraries_agree_with_plain_numpy_on_losses_and_gradients(group: str, x64: None) -> None:
    inputs, agreement = import_module("bench.inputs"), import_module("bench.agreement")
    workloads, peers = import_module("bench.workloads"), import_module("bench.peers")
    whole = next(one for one in workloads.WORKLOADS if one.group == group)
    small = replace(whole, sequences=2, rows=9, states=4, features=5)
    given = inputs.make_inputs(small, "float64")
    oracle = getattr(import_module("bench.gpu_oracles"), f"{group}_oracle")
    losses, gradient = oracle(given.x, given.targets["labels"])
    desired = {"losses": losses, "gradient": gradient}
    for name in ("jaxem", *peers.peers_of(group)):
        try:
            adapter = import_module(peers.ADAPTERS[name])
        except ImportError:
            continue
        if adapter.supports(small, "float64") is None:
            run = adapter.prepare(small, given, "float64")
            apart = agreement.difference(small, given, desired, run.answer(run.call()))
            assert apart <= agreement.tolerance(small, "float64"), name
    wrong = desired | {"gradient": gradient + 1e-6}
    apart = agreement.difference(small, given, desired, wrong)
    assert apart > agreement.tolerance(small, "float64")
    wrong["gradient"] = gradient * np.nan
    assert np.isnan(agreement.difference(small, given, desired, wrong))


def test_a_goal_that_speaks_of_one_peer_is_judged_by_that_one() -> None:
    measure, report = import_module("bench.measure"), import_module("bench.report")
    workloads = import_module("bench.workloads")
    workload = next(one for one in workloads.WORKLOADS if one.goal_peer == "torchaudio")
    timed = {
        name: {"agrees": True, "milliseconds_a_step": milliseconds}
        for name, milliseconds in (("jaxem", 1.0), ("autodiff-scan", 4.0), ("torchaudio", 12.0))
    }
    told = measure.verdict(workload, "float32", timed)
    assert (told["fastest_peer"], told["ratio"], told["goal_ratio"]) == ("autodiff-scan", 4.0, 12.0)
    assert told["met"] is True
    assert "goal 10 to torchaudio: 12.00" in report.in_words(told)
    timed["torchaudio"]["agrees"] = False
    assert measure.verdict(workload, "float32", timed)["met"] is False
    timed["torchaudio"] = {"skipped": "not installed: No module named 'torchaudio'"}
    absent = measure.verdict(workload, "float32", timed)
    assert absent["ratio"] == 4.0 and absent["met"] is None
    assert "goal 10 to torchaudio: not measured" in report.in_words(absent)


def many_fits(kind: str, **sizes: Any) -> Any:
    """A workload of two fits, or two of each of two orders."""
    workloads = import_module("bench.workloads")
    whole = next(one for one in workloads.WORKLOADS if (one.group, one.kind) == ("many", kind))
    return replace(workloads.shrunk(whole, 1000), **sizes)


@pytest.mark.parametrize("kind", ["data-sets", "orders"])
def test_loops_over_fits_find_what_one_call_finds(kind: str, x64: None) -> None:
    pytest.importorskip("sklearn")
    inputs, agreement = import_module("bench.inputs"), import_module("bench.agreement_many")
    workload = many_fits(kind)
    given = inputs.make_inputs(workload, "float64")
    ours, loop = (
        import_module(f"bench.peers.{name}").prepare(workload, given, "float64")
        for name in ("jaxem", "scikit_learn_joblib")
    )
    one, other = (run.answer(run.call()) for run in (ours, loop))
    told = agreement.compare(workload, given, one, other)
    assert told["difference"] <= agreement.tolerance(workload, "float64")
    assert told["orders_compared"] == len(workload.orders) and told["share_alike"] == 1
    assert "stopped" not in told and told["mean_steps"] == pytest.approx(
        agreement.mean_steps(one), abs=2 * bool(workload.tol)
    )
    for fits, order in zip(one["orders"], workload.orders, strict=True):
        assert fits["means"].shape == (workload.fits, order, workload.features)
    wrong = {"orders": [fits | {"means": fits["means"] + 0.1} for fits in other["orders"]]}
    apart = agreement.compare(workload, given, one, wrong)["difference"]
    assert apart > agreement.tolerance(workload, "float64")
    early = {"orders": [fits | {"steps": fits["steps"] - 1} for fits in other["orders"]]}
    assert ("stopped" in agreement.compare(workload, given, one, early)) != bool(workload.tol)


def test_fits_that_failed_or_collapsed_are_not_the_best() -> None:
    inputs, agreement = import_module("bench.inputs"), import_module("bench.agreement_many")
    workload = many_fits("orders", states=1)
    given = inputs.make_inputs(workload, "float64")
    covariance = np.cov(given.x.T, bias=True)
    mean = given.x.mean(0)

    def answer(*covariances: Any) -> dict[str, Any]:
        return {
            "orders": [
                {
                    "steps": np.ones(2),
                    "weights": np.ones((2, 1)),
                    "means": np.stack([mean[None]] * 2),
                    "covariances": np.stack(covariances)[:, None],
                }
            ]
        }

    sound = answer(covariance, 1.1 * covariance)
    failed = answer(covariance, np.nan * covariance)
    told = agreement.compare(workload, given, sound, failed)
    assert told["difference"] == 0 and told["share_regular"] == 0.5
    collapsed = answer(np.eye(2) * workload.floor, np.eye(2) * workload.floor)
    assert np.isnan(agreement.compare(workload, given, sound, collapsed)["difference"])


@pytest.mark.slow
def test_a_group_of_many_fits_is_measured_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hmmlearn")
    program = import_module("bench.__main__")
    monkeypatch.setattr(program.machine, "describe", lambda: MACHINE)
    name = "hmm-100x10x500-k4-d2"
    options = ["--shrink", "1000", "--repeats", "1", "--dtype", "float32", "--out", str(tmp_path)]
    assert program.main([name, *options]) == 0
    entry = json.loads((tmp_path / "many.json").read_text())["entries"][f"{name} float32"]
    ours, peer = (entry["libraries"][library] for library in ("jaxem", "hmmlearn-joblib"))
    assert ours["agrees"] and peer["agrees"] and entry["fastest_peer"] == "hmmlearn-joblib"
    assert "unsupported" in entry["libraries"]["scikit-learn-joblib"]
    assert peer["computes_in"] == "float64" and ours["mean_steps"] > 2
    table = (tmp_path / "table.md").read_text()
    assert table.count(entry["workload"]) == 2  # beside the peers, and alone


def test_what_a_library_started_ends_with_its_worker(add_adapter: Any) -> None:
    processes = import_module("bench.processes")
    source = """
import subprocess
def version(): return str(subprocess.Popen(["sleep", "60"]).pid)
def computes_in(dtype): return dtype
def supports(workload, dtype): return "it only starts a process"
"""
    adapter = add_adapter("fertile", source)
    worker = processes.Worker(adapter, tiny_mixture(), "float32", 60.0)
    if not Path("/proc/self/stat").exists():
        worker.close()
        pytest.skip("no /proc to look it up in")
    state = Path(f"/proc/{worker.about['version']}/stat")
    assert state.exists()
    worker.close()
    for _ in range(100):
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it outlived the worker")


def test_growth_tells_linear_from_more_than_linear() -> None:
    growth = import_module("bench.growth")
    sizes, memory = [100, 316, 1000, 3162, 10000], [3.0, 2.0, 1.5, 1.5, 1.5]
    linear = growth.law(sizes, [0.5 * size for size in sizes], memory, 0.1, 1.1)
    assert linear["slope"] == pytest.approx(1) and linear["met"] and linear["memory_met"]
    bent = growth.law(sizes, [size**1.2 for size in sizes], sizes, 0.1, 1.1)
    assert bent["slope"] == pytest.approx(1.2) and not bent["met"] and not bent["memory_met"]
    noise = growth.law(sizes, [-1.0, 1.0, 1.0, 1.0, 1.0], memory, 0.1, 1.1)
    assert not noise["met"]


def test_a_second_fit_of_the_same_shape_compiles_nothing() -> None:
    processes = import_module("bench.processes")
    told = json.loads(processes.output_of(["-m", "bench.first_call", "poisson", "mixture"]))
    assert told["first"] > told["second"] > 0 and told["compilations_of_second"] == 0


@pytest.mark.slow
def test_a_search_is_timed_beside_scikit_learns() -> None:
    estimators = import_module("bench.estimators")
    told = estimators.measure("search-150x4", "float32", repeats=1, factor=2)
    assert told["goal"] is None and told["difference"] < estimators.APART
    ours, theirs = (told["libraries"][name] for name in estimators.LIBRARIES)
    assert ours["fits"] == theirs["fits"] == 121 and ours["seconds"] < ours["first_search"]


@pytest.mark.slow
def test_missing_entries_are_timed_beside_complete_rows() -> None:
    missing = import_module("bench.missing")
    told = missing.measure("missing-patterns", "float32", repeats=1, factor=50)
    assert 30 <= told["patterns"] <= missing.PATTERNS and told["difference"] < 1e-5
    assert told["goal"] is None and 0 < told["share_missing"] < 0.2


@pytest.mark.slow
def test_acceleration_is_measured_in_e_steps_beside_plain_em() -> None:
    acceleration = import_module("bench.acceleration")
    told = acceleration.measure("acceleration-2-normals", "float64", repeats=1, factor=10)
    steps = {name: found["e_steps_to_maximum"] for name, found in told["methods"].items()}
    assert told["rate"] > acceleration.LEAST_RATE
    assert steps["plain"] > steps["squarem"] > steps["lbfgs"] > 0
    assert all(found["gap"] >= 0 for found in told["methods"].values())
