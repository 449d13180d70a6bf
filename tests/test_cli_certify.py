"""`jaxem certify`, called in the test's own process on models saved beforehand.

Everything here is a mixture of two Poissons on the same 107 counts: one shape, compiled once.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from processes import configuration_restored

import jaxem
from jaxem.cli import main
from jaxem.comparison import Certificate, softmax

QUAKES = jaxem.datasets.earthquakes()


@pytest.fixture(autouse=True)
def process(monkeypatch: Any) -> Iterator[None]:
    """A process that keeps its configuration, no compiled programs on disk, and one ascent."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    monkeypatch.setattr(softmax, "METHODS", {"newton": softmax.METHODS["newton"]})
    with configuration_restored():
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty current directory with a table and three models in it."""
    rows = [f"{'early' if i < 60 else 'late'},{count}" for i, count in enumerate(QUAKES)]
    (tmp_path / "quakes.csv").write_text("\n".join(["when,count", *rows]) + "\n")
    mean = float(np.mean(QUAKES, dtype=float))
    save(tmp_path / "saddle.npz", [mean, mean])
    save(tmp_path / "start.npz", [10.0, 30.0])
    save(tmp_path / "never.npz", [0.0, 0.0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path: Path | str, rates: list[float]) -> None:
    """A mixture of equal weights."""
    half = jaxem.Categorical(log([0.5, 0.5]))
    jaxem.io.save(path, jaxem.Mixture(half, jaxem.Poisson(log(rates))))


def log(numbers: list) -> Any:
    """A leaf of float64: JAX may still have 32 bits."""
    with np.errstate(divide="ignore"):
        return np.log(numbers)


@pytest.fixture
def refused(run: Any, folder: Path) -> Callable[..., str]:
    """The one line of an invocation that must be refused and leave every file as it was."""

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def call(*arguments: Any) -> str:
        before = contents()
        result = run("certify", *arguments)
        assert (result.status, result.out) == (2, "")
        assert re.fullmatch(r"jaxem: error: .+\n", result.err)
        assert contents() == before
        return result.err

    return call


@pytest.mark.slow
def test_what_fit_writes_passes_with_standard_errors(run: Any) -> None:
    command = ["fit", "earthquakes", "--model", "poisson-mixture", "--components", 2]
    assert run(*command, "--out", "m.npz").status == 0
    done = run("certify", "m.npz", "earthquakes", "--information", "--json", "c.json")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Mixture over Poisson, 107 observations, float64, ℓ = -360.369")
    assert " 0 failed" in done.out and "a strict local maximum" in done.out

    model = jaxem.io.load("m.npz")
    data = QUAKES.astype(float)
    table, information = done.out.rstrip("\n").rsplit("\n\n", 1)
    certificate = jaxem.certify(model, data)
    assert table == str(certificate)
    assert information == str(jaxem.information(model, data))
    written, expected = Path("c.json").read_text(encoding="utf-8"), certificate.to_json()
    assert without_facts(written) == without_facts(expected)


def without_facts(text: str) -> Any:
    """A certificate less the numbers behind its checks: some are times, which vary."""
    record = json.loads(text)
    for check in record["checks"]:
        del check["facts"]
    return record


def test_columns_are_chosen_as_predict_chooses_them(run: Any) -> None:
    by_name = run("certify", "start.npz", "quakes.csv", "--columns", "count")
    by_rest = run("certify", "start.npz", "quakes.csv", "--sequence", "when")
    bundled = run("certify", "start.npz", "earthquakes")
    assert by_name.out == by_rest.out == bundled.out
    assert (by_name.status, by_name.err) == (0, "")
    assert "passed" in by_name.out


def test_the_certificate_is_drawn_and_a_picture_that_cannot_be_is_refused(
    run: Any, refused: Any
) -> None:
    pytest.importorskip("matplotlib")
    done = run("certify", "start.npz", "earthquakes", "--plot", "c.svg", "--json", "c.json")
    assert (done.status, done.err) == (0, "") and "passed" in done.out
    assert "<svg" in Path("c.svg").read_text() and Path("c.json").exists()
    Path("c.json").unlink()
    assert "unknown kind of picture" in refused("start.npz", "earthquakes", "--plot", "c.doc")
    same = ("--plot", "c.png", "--json", "c.png")
    assert "in use already" in refused("start.npz", "earthquakes", *same)
    assert "in use already" in refused("start.npz", "earthquakes", "--plot", "start.npz")


def test_rows_of_one_sequence_are_given_to_a_markov_model_as_one(
    run: Any, monkeypatch: Any
) -> None:
    """Looked at where the command hands them over: a certificate of an HMM takes long to compile"""
    from jaxem.cli import certify

    seen = []

    def remembered(model: Any, data: Any) -> Any:
        seen.append((model, data))
        return Certificate("nothing", ())

    monkeypatch.setattr(certify, "certify", remembered)
    half = jaxem.Categorical(log([0.5, 0.5]))
    moves = jaxem.Categorical(log([[0.9, 0.1], [0.2, 0.8]]))
    model = jaxem.HMM(half, moves, jaxem.Poisson(log([10.0, 30.0])))
    jaxem.io.save("hmm.npz", model)
    result = run("certify", "hmm.npz", "quakes.csv", "--sequence", "when", "--columns", "count")
    assert result.status == 1  # nothing passed
    run("certify", "hmm.npz", "earthquakes", "--dtype", "float32")
    (double, parts), (single, whole) = seen
    assert parts.lengths.tolist() == [60, 47]
    np.testing.assert_array_equal(parts.values[1, :47], QUAKES[60:])
    np.testing.assert_array_equal(whole.values, QUAKES[None])
    assert whole.lengths is None
    assert [parts.values.dtype, whole.values.dtype] == ["float64", "float32"]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(double)} == {"float64"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(single)} == {"float32"}


def test_symbols_are_certified_in_the_dtype_that_was_asked_for(run: Any, monkeypatch: Any) -> None:
    from jaxem.cli import certify

    dtypes = []

    def remembered(model: Any, _: Any) -> Any:
        dtypes.extend(leaf.dtype.name for leaf in jax.tree.leaves(model))
        return Certificate("nothing", ())

    monkeypatch.setattr(certify, "certify", remembered)
    single: Any = np.log(np.full((2, 2), 0.5, np.float32))
    model = jaxem.Mixture(jaxem.Categorical(single[0]), jaxem.Categorical(single))
    jaxem.io.save("symbols.npz", model)
    Path("symbols.csv").write_text("s\n0\n1\n")
    run("certify", "symbols.npz", "symbols.csv")
    assert dtypes == ["float64", "float64"]


def test_a_saddle_fails_and_its_certificate_is_written_all_the_same(run: Any) -> None:
    done = run("certify", "saddle.npz", "earthquakes", "--json", "c.json")
    assert (done.status, done.err) == (1, "")
    failed = [line.split()[0] for line in done.out.splitlines() if "FAILED" in line]
    assert failed == ["fixed_point.maximum"]
    record = json.loads(Path("c.json").read_text(encoding="utf-8"))
    assert record["passed"] is False
    outcomes = {check["name"]: check["outcome"] for check in record["checks"]}
    assert outcomes["fixed_point.maximum"] == "FAILED" and outcomes["fisher"] == "passed"


def test_a_model_that_is_no_fit_yet_passes_but_has_no_standard_errors(run: Any) -> None:
    done = run("certify", "start.npz", "earthquakes", "--information")
    assert (done.status, done.err) == (0, "")
    assert re.search(r"fixed_point.maximum +not applicable +not at a fixed point", done.out)
    last = done.out.splitlines()[-1]
    assert last.startswith("there are no standard errors to be had: not at a fixed point")


def test_an_output_without_greek_letters_gets_question_marks(run: Any, monkeypatch: Any) -> None:
    whole = run("certify", "start.npz", "earthquakes").out
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert main(["certify", "start.npz", "earthquakes"]) == 0
    assert printed.getvalue().decode() == whole.encode("ascii", "replace").decode() != whole


def test_bad_input_is_told_in_one_line(refused: Any) -> None:
    assert "nowhere.npz: No such file" in refused("nowhere.npz", "earthquakes")
    assert "nowhere.csv: no such file" in refused("start.npz", "nowhere.csv")
    Path("text.npz").write_text("not a zip")
    assert "text.npz" in refused("text.npz", "earthquakes", "--json", "c.json")
    jaxem.io.save("part.npz", jaxem.Categorical(log([0.5, 0.5])))
    assert "part.npz: holds a Categorical" in refused("part.npz", "earthquakes")
    Path("pairs.csv").write_text("a,b\n1,2\n3,4\n")
    message = refused("start.npz", "pairs.csv", "--json", "c.json")
    assert "pairs.csv: 2 columns (a, b), but the model in start.npz takes 1" in message
    message = refused("start.npz", "pairs.csv", "--columns", "c")
    assert "no column is called 'c'" in message
    Path("halves.csv").write_text("n\n1\n1.5\n")
    message = refused("start.npz", "halves.csv", "--json", "c.json")
    assert "halves.csv: row 3, column n holds 1.5; counts are whole numbers" in message
    assert "invalid choice" in refused("start.npz", "earthquakes", "--dtype", "float16")
    assert "MODEL" in refused()


def test_data_that_the_model_rules_out_are_refused(refused: Any) -> None:
    message = refused("never.npz", "earthquakes", "--json", "c.json")
    assert "log-likelihood of -inf" in message


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    refused: Any, monkeypatch: Any
) -> None:
    from jaxem.cli import certify

    monkeypatch.setattr(certify, "certify", None)  # the work
    message = refused("start.npz", "quakes.csv", "--json", "nowhere/c.json")
    assert "--json nowhere/c.json: there is no directory" in message
    for taken in ("start.npz", "quakes.csv"):
        assert "in use already" in refused("start.npz", "quakes.csv", "--json", taken)
    Path("folder").mkdir()
    assert "is a directory" in refused("start.npz", "quakes.csv", "--json", "folder")


def test_an_error_while_writing_leaves_the_old_file(refused: Any, monkeypatch: Any) -> None:
    Path("c.json").write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "c.json")

    monkeypatch.setattr(os, "replace", fail)
    message = refused("start.npz", "earthquakes", "--json", "c.json")
    assert message == "jaxem: error: c.json: No space left on device\n"


def test_help_tells_the_exit_statuses(capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main(["certify", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "of certify: a check failed" in out and "130 interrupted" in out
