"""The command line, called in the test's own process, on data as small as it can be."""

import csv
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from processes import configuration_restored

import jaxem
from jaxem.cli import main, models
from jaxem.cli.arguments import COVARIANCES, MODELS

ROWS = 24  # one number of rows everywhere: every other one compiles anew
DATA = {  # which file a model is fitted to
    "gaussian": "real.csv",
    "gmm": "real.csv",
    "poisson": "counts.csv",
    "bernoulli": "bits.csv",
    "categorical": "symbols.csv",
}


@pytest.fixture(autouse=True)
def process(monkeypatch: Any) -> Iterator[None]:
    """A process that keeps its configuration, and no compiled programs on disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    with configuration_restored():
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty current directory with the data files in it."""
    rng = np.random.default_rng(0)
    state = np.arange(ROWS) // 6 % 2
    write("real.csv", ["a", "b"], 4 * state[:, None] + rng.normal(size=(ROWS, 2)), tmp_path)
    write("counts.csv", ["n"], rng.poisson(2 + 9 * state)[:, None], tmp_path)
    write("symbols.csv", ["s"], (rng.integers(0, 2, ROWS) + state)[:, None], tmp_path)
    write("bits.csv", ["x", "y"], rng.random((ROWS, 2)) < 0.2 + 0.6 * state[:, None], tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, header: list[str], rows: Any, folder: Path | str = ".") -> None:
    cells = [",".join(str(float(cell)) for cell in row) for row in np.asarray(rows, float)]
    Path(folder, name).write_text("\n".join([",".join(header), *cells]) + "\n")


@pytest.fixture
def refused(run: Any, folder: Path) -> Callable[..., str]:
    """The one line of an invocation that must be refused and leave every file as it was."""

    def call(*arguments: Any) -> str:
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        result = run(*arguments)
        after = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        assert (result.status, result.out) == (2, "")
        assert re.fullmatch(r"jaxem: error: .+\n", result.err)
        assert after == before
        return result.err

    return call


def fit(data: str, model: str = "gaussian-mixture", *more: Any) -> list[Any]:
    return ["fit", data, "--model", model, "--components", 2, *more]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=pytest.mark.slow) if name == "gmm-hmm" else name for name in MODELS],
)
def test_every_model_goes_from_data_to_file_to_states_and_samples(run: Any, model: str) -> None:
    data = DATA[model.split("-")[0]]
    fitted = run(*fit(data, model, "--out", "model.npz"))
    assert (fitted.status, fitted.err) == (0, "")
    assert f"{ROWS} rows" in fitted.out
    assert max(map(len, fitted.out.splitlines())) <= 80

    loaded = jaxem.io.load("model.npz")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(loaded)} == {"float64"}
    told = {line[:16].strip(): line[16:].split() for line in fitted.out.splitlines()}
    log_likelihood, count = float(told["log-likelihood"][0]), int(told["AIC"][2])
    assert count >= loaded.num_parameters  # EM may have put some of them to exactly 0
    assert float(told["AIC"][0]) == pytest.approx(2 * count - 2 * log_likelihood, abs=1e-3)
    bic = count * np.log(ROWS) - 2 * log_likelihood
    assert float(told["BIC"][0]) == pytest.approx(bic, abs=1e-3)

    predicted = run("predict", "model.npz", data)
    label = "state" if "hmm" in model else "component"
    states = rows_of(predicted.out)
    assert predicted.status == 0
    assert len(states) == ROWS
    assert list(states[0]) == [label, "probability"]
    assert {row[label] for row in states} <= {"0", "1"}
    assert all(0 <= float(row["probability"]) <= 1 for row in states)
    values = np.loadtxt(data, delimiter=",", skiprows=1)
    if "categorical" in model:
        values = values.astype(np.int32)
    if "mixture" in model:
        expected = np.max(loaded.responsibilities(values), axis=1)
        np.testing.assert_allclose([float(row["probability"]) for row in states], expected, 1e-5)
    else:
        path = np.asarray(loaded.viterbi(values)[1])
        assert [int(row[label]) for row in states] == path.tolist()

    sampled = rows_of(run("sample", "model.npz", "-n", 5).out)
    assert len(sampled) == 5
    assert list(sampled[0])[-1] == label


def test_the_log_likelihood_told_is_that_of_the_model_written(run: Any) -> None:
    told = run(*fit("counts.csv", "poisson-hmm", "--out", "m.npz")).out
    values = np.loadtxt("counts.csv", skiprows=1)
    log_likelihood = float(jaxem.io.load("m.npz").log_likelihood(values))
    assert float(re.search(r"log-likelihood +(\S+)", told)[1]) == pytest.approx(
        log_likelihood, abs=1e-4
    )


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_every_covariance_is_a_family(covariance: str) -> None:
    kind = models.kind_of("gmm-hmm", covariance, 3)
    assert kind.innermost.__name__.lower().startswith(covariance.replace("full", "gaussian"))
    assert kind.family.num_components == kind.mixtures == 3


def test_the_parts_of_a_mixture_inside_a_state_differ(run: Any) -> None:
    run(*fit("real.csv", "gmm-hmm", "--out", "m.npz"))
    one, other = jaxem.io.load("m.npz").emission.components.mean.reshape(2, 2, -1).swapaxes(0, 1)
    assert not np.any(np.isclose(one, other))


def test_a_column_of_ids_makes_sequences(run: Any) -> None:
    values = np.loadtxt("counts.csv", skiprows=1)
    names = np.array(["u", "v"])[np.arange(ROWS) % 2]
    lines = [f"{name},{n}" for name, n in zip(names, values, strict=True)]
    Path("long.csv").write_text("\n".join(["id,n", *lines]))
    sequences = np.stack([values[::2], values[1::2]])
    np.savez("padded.npz", values=sequences[:, :, None])
    command = fit("long.csv", "poisson-hmm", "--sequence", "id", "--out", "m.npz")
    assert "2 sequences by id" in run(*command).out
    model = jaxem.io.load("m.npz")

    written = rows_of(run("predict", "m.npz", "long.csv", "--sequence", "id").out)
    assert [row["id"] for row in written] == list(names)
    path = np.asarray(model.viterbi(sequences)[1])
    assert [int(row["state"]) for row in written] == path.T.ravel().tolist()

    assert run(*fit("padded.npz", "poisson-hmm", "--out", "same.npz")).status == 0
    for one, other in zip(*map(jax.tree.leaves, (model, jaxem.io.load("same.npz"))), strict=True):
        np.testing.assert_array_equal(one, other)


def test_sequences_may_differ_in_length(run: Any) -> None:
    values = np.loadtxt("counts.csv", skiprows=1).reshape(2, 12)
    np.savez("padded.npz", values=values, lengths=np.array([12, 7]))
    result = run(*fit("padded.npz", "poisson-hmm", "--out", "m.npz"))
    assert "19 rows" in result.out
    predicted = rows_of(run("predict", "m.npz", "padded.npz").out)
    assert [row["sequence"] for row in predicted] == ["1"] * 12 + ["2"] * 7


def test_every_kind_of_file_holds_the_same_data(run: Any) -> None:
    pandas = pytest.importorskip("pandas")
    values = np.loadtxt("real.csv", delimiter=",", skiprows=1)
    np.save("d.npy", values)
    np.savez("d.npz", whatever=values)
    pandas.DataFrame({"t": ["x"] * ROWS, "a": values[:, 0], "b": values[:, 1]}).to_parquet(
        "d.parquet"
    )
    Path("bare.csv").write_text("\n".join(f"{a},{b}" for a, b in values) + "\n\n")
    kinds = [["real.csv"], ["d.npy"], ["d.npz"], ["d.parquet", "--columns", "a,b"], ["bare.csv"]]
    told = [run(*fit(name, "gaussian-mixture", *more)).out for name, *more in kinds]
    numbers = {text[text.index("log-likelihood") :] for text in told}
    assert len(numbers) == 1
    assert "2 columns (a, b)" in told[0] and "2 columns (1, 2)" in told[1]


def test_columns_are_chosen_by_name_and_by_number(run: Any, refused: Any) -> None:
    by_name = run(*fit("bits.csv", "bernoulli-mixture", "--columns", "y,x"))
    by_number = run(*fit("bits.csv", "bernoulli-mixture", "--columns", "2, 1"))
    assert by_name.status == 0 and by_name.out == by_number.out
    assert "2 columns (y, x)" in by_name.out
    assert "no column is called 'c'" in refused(*fit("real.csv", "poisson-hmm", "--columns", "c"))
    assert "named twice" in refused(*fit("real.csv", "poisson-hmm", "--columns", "a,1"))
    message = refused(*fit("real.csv", "poisson-hmm", "--columns", "a", "--sequence", "a"))
    assert "named twice" in message


def test_the_seed_alone_determines_everything(run: Any) -> None:
    tables, models, draws = [], [], []
    for seed in (1, 1, 2):
        command = ("--seed", seed, "--restarts", 2, "--out", "m.npz")
        tables.append(run(*fit("counts.csv", "poisson-hmm", *command)).out)
        models.append(Path("m.npz").read_bytes())
        draws.append(run("sample", "m.npz", "-n", 5, "--seed", seed).out)
    assert tables[0] == tables[1] and models[0] == models[1] and draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_restarts_keep_the_best_and_say_how_many_reached_it(run: Any) -> None:
    told = []
    for restarts in (1, 6):
        out = run(*fit("symbols.csv", "categorical-hmm", "--restarts", restarts)).out
        told.append(float(re.search(r"log-likelihood +(\S+)", out)[1]))
    assert told[1] >= told[0]
    reached = re.search(r"restarts +6, (\d) of them within 0.01 of this log-likelihood", out)
    assert 1 <= int(reached[1]) <= 6


def test_a_further_start_compiles_nothing(run: Any, caplog: Any) -> None:
    run(*fit("counts.csv", "poisson-hmm"))
    for count in (2, 5):
        run(*fit("counts.csv", "poisson-hmm", "--restarts", count))  # as many keys are compiled for
    with jax.log_compiles():
        run(*fit("counts.csv", "poisson-hmm", "--restarts", 5, "--seed", 6))
        assert not [record for record in caplog.records if "Compiling" in record.message]
        run(*fit("counts.csv", "poisson-hmm", "--restarts", 3, "--seed", 6))
    assert any("Compiling" in record.message for record in caplog.records)  # it would be seen


def test_float32_is_float32_throughout(run: Any) -> None:
    fitted = run(*fit("counts.csv", "poisson-mixture", "--dtype", "float32", "-o", "m.npz"))
    assert (fitted.status, fitted.err) == (0, "")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(jaxem.io.load("m.npz"))} == {"float32"}
    assert run("predict", "m.npz", "counts.csv").status == 0


@pytest.mark.parametrize(
    "text, place",
    [
        ("a,b\n1,2\n3,\n", "row 3, column b is empty"),
        ("a,b\n1,2\n3\n", "row 3, column b is empty"),
        ("a,b\n1,2\n\nNaN,3\n", "row 4, column a holds NaN"),
        ("a,b\n1,2\n3,inf\n", "row 3, column b holds inf"),
        ("a,b\n1,2\n3,four\n", "row 3, column b holds four"),
        ("1,2\n3,four\n", "row 2, column 2 holds four"),
        ("one,2\n3,4\n", "row 1, column 1 holds one"),
        ("a;b\n1;2\n", "row 2, column a;b holds 1;2; cells are separated by commas"),
        ("a,b\n1,2\n3,4,5\n", "row 3 has 3 cells"),
        ("a,b\n1,2,3\n", "row 2 has 3 cells"),
        (",a\n0,1\n1,3\n", "column 1 has no name"),
        ("a,b\n", "no row of data"),
        ("", "empty"),
        ("a\n\xff\n", "UTF-8"),
    ],
)
def test_a_bad_cell_is_named_by_file_row_and_column(refused: Any, text: str, place: str) -> None:
    Path("bad.csv").write_bytes(text.encode("latin-1"))
    message = refused(*fit("bad.csv", "gaussian-mixture", "--out", "m.npz", "--plot", "p.png"))
    assert f"error: bad.csv: {place}" in message or ("bad.csv" in message and place in message)


def test_blank_lines_do_not_count_as_rows_but_as_lines(run: Any, refused: Any) -> None:
    lines = Path("counts.csv").read_text().splitlines()
    Path("blank.csv").write_text("\n".join(["", *lines[:3], "", *lines[3:], "", ""]))
    assert f"{ROWS} rows" in run(*fit("blank.csv", "poisson-hmm")).out
    Path("blank.csv").write_text("\n".join(["", *lines[:3], "", "-1"]))
    assert "row 6, column n holds -1" in refused(*fit("blank.csv", "poisson-hmm"))


@pytest.mark.parametrize(
    "model, column, entry, reason",
    [
        ("poisson-mixture", "n", -1, "counts are whole numbers"),
        ("poisson-hmm", "n", 1.5, "counts are whole numbers"),
        ("bernoulli-hmm", "n", 2, "take 0 and 1"),
        ("categorical-hmm", "n", 0.5, "symbols are whole numbers"),
        ("categorical-mixture", "n", -3, "symbols are whole numbers"),
    ],
)
def test_an_entry_a_model_cannot_have_made_is_named(
    refused: Any, model: str, column: str, entry: float, reason: str
) -> None:
    write("bad.csv", [column], [[0], [1], [entry]])
    message = refused(*fit("bad.csv", model, "--out", "m.npz"))
    assert f"bad.csv: row 4, column n holds {float(entry)}" in message and reason in message


def test_numpy_data_are_checked_too(refused: Any) -> None:
    np.save("bad.npy", np.array([[1.0, 2.0], [np.nan, 3.0]]))
    assert "bad.npy: row 2, column 1 holds nan" in refused(*fit("bad.npy"))
    np.savez("bad.npz", values=np.full((2, 3, 1), np.inf), lengths=np.array([0, 2]))
    assert "bad.npz: sequence 2, step 1, column 1 holds inf" in refused(*fit("bad.npz"))
    np.savez("bad.npz", values=np.zeros((2, 3)), lengths=np.array([1, 4]))
    assert "lengths must be from 0 to 3" in refused(*fit("bad.npz"))
    np.savez("bad.npz", x=np.zeros(3), y=np.zeros(3))
    assert "holds the arrays x, y" in refused(*fit("bad.npz"))
    np.save("bad.npy", np.array(["a", "b"]))
    assert "not real numbers" in refused(*fit("bad.npy"))
    np.save("bad.npy", np.array([None, {}], dtype=object), allow_pickle=True)
    assert "bad.npy: not a whole file of numbers" in refused(*fit("bad.npy"))
    Path("bad.npy").write_bytes(b"")
    assert "bad.npy: not a whole file of numbers" in refused(*fit("bad.npy"))
    Path("bad.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "bad.npz: not a whole file of numbers" in refused(*fit("bad.npz"))
    Path("bad.parquet").write_bytes(b"PAR1")
    assert "bad.parquet: not a Parquet file" in refused(*fit("bad.parquet"))


def test_a_hole_in_a_parquet_table_is_named(refused: Any) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": ["u", None, "v"], "a": [1, 2, 3], "b": [0.5, 1.0, None]})
    frame.to_parquet("bad.parquet")
    assert "column id holds" in refused(*fit("bad.parquet"))
    message = refused(*fit("bad.parquet", "gaussian-mixture", "--columns", "a,b"))
    assert "bad.parquet: row 3, column b holds nan" in message
    message = refused(*fit("bad.parquet", "gaussian-hmm", "--columns", "a", "--sequence", "id"))
    assert "bad.parquet: row 2, column id is empty" in message


def test_data_that_are_not_there_are_told_with_what_is(refused: Any) -> None:
    message = refused(*fit("old_fathful"))
    assert "old_fathful: no such file" in message
    assert "old_faithful, earthquakes, iris" in message
    assert "nowhere.csv: no such file" in refused(*fit("nowhere.csv"))
    Path("notes.txt").write_text("1\n2\n")
    assert "notes.txt: unknown kind of file" in refused(*fit("notes.txt"))


def test_arguments_that_do_not_fit_are_refused_in_one_line(refused: Any) -> None:
    command = ["fit", "real.csv", "--model", "gaussian-mixture"]
    for wrong in ("0", "-1", "two", "1.5"):
        message = refused(*command, "--components", wrong)
        assert "--components: expected a whole number of 1 or more" in message
    message = refused(*command, "--components", ROWS + 1, "--out", "m.npz")
    assert f"needs at least {ROWS + 1} rows, real.csv has {ROWS}" in message
    assert "--components" in refused(*command)
    assert "invalid choice" in refused("fit", "real.csv", "--model", "hmm", "--components", "2")
    assert "--tol" in refused(*command, "--components", 2, "--tol", "-1")
    assert "--covariance is for" in refused(
        *fit("counts.csv", "poisson-hmm", "--covariance", "full")
    )
    assert "--mixtures is for" in refused(*fit("real.csv", "gaussian-hmm", "--mixtures", 2))
    assert "one column of symbols" in refused(*fit("bits.csv", "categorical-hmm"))
    assert "COMMAND" in refused()


def test_a_column_without_variance_is_no_gaussian(refused: Any) -> None:
    write("still.csv", ["a", "b"], [[1, 2], [2, 2], [3, 2]])
    message = refused(*fit("still.csv", "gaussian-mixture", "--out", "m.npz"))
    assert "still.csv: column b holds 2.0 in every row" in message


def test_what_is_no_model_cannot_predict(run: Any, refused: Any) -> None:
    assert "nowhere.npz: No such file" in refused("predict", "nowhere.npz", "counts.csv")
    Path("text.npz").write_text("not a zip")
    assert "text.npz" in refused("predict", "text.npz", "counts.csv")
    np.savez("data.npz", values=np.zeros(3))
    assert "data.npz" in refused("sample", "data.npz", "-n", 5)
    jaxem.io.save("part.npz", jaxem.Categorical(np.zeros(2)))
    assert "part.npz: holds a Categorical" in refused("predict", "part.npz", "counts.csv")
    run(*fit("counts.csv", "poisson-hmm", "--out", "m.npz"))
    assert "2 columns (a, b), but the model in m.npz takes 1" in refused(
        "predict", "m.npz", "real.csv"
    )


def test_a_symbol_the_model_does_not_have_is_named(run: Any, refused: Any) -> None:
    run(*fit("symbols.csv", "categorical-hmm", "--out", "m.npz"))
    write("new.csv", ["s"], [[0], [3]])
    message = refused("predict", "m.npz", "new.csv", "--out", "states.csv")
    assert "new.csv: row 3, column s holds 3.0; symbols are whole numbers 0, 1, up to 2" in message


def test_impossible_rows_belong_to_no_component(run: Any) -> None:
    rates = jaxem.Poisson.from_rate(np.array([0.0, 0.0]))
    half = jaxem.Categorical.from_probs(np.array([0.5, 0.5]))
    write("mostly.csv", ["n"], np.arange(ROWS)[:, None] % 3)
    jaxem.io.save("m.npz", jaxem.Mixture(half, rates))
    assert run("predict", "m.npz", "mostly.csv").out.split()[1:4] == ["0,0.5", "-1,0", "-1,0"]
    moves = jaxem.Categorical.from_probs(np.full((2, 2), 0.5))
    jaxem.io.save("m.npz", jaxem.HMM(half, moves, rates))
    assert set(run("predict", "m.npz", "mostly.csv").out.split()[1:]) == {"-1,0"}


def test_a_place_that_cannot_be_written_is_refused_before_the_work(refused: Any) -> None:
    Path("folder").mkdir()
    assert "is a directory" in refused(*fit("counts.csv", "poisson-hmm", "--out", "folder"))
    message = refused(*fit("counts.csv", "poisson-hmm", "--out", "nowhere/m.npz"))
    assert "--out nowhere/m.npz: there is no directory" in message
    message = refused(*fit("counts.csv", "poisson-hmm", "--plot", "nowhere/p.png"))
    assert "--plot nowhere/p.png: there is no directory" in message
    assert "in use already" in refused(*fit("counts.csv", "poisson-hmm", "--out", "counts.csv"))
    message = refused(*fit("counts.csv", "poisson-hmm", "--out", "x.png", "--plot", "x.png"))
    assert "in use already" in message


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(refused: Any) -> None:
    Path("locked").mkdir(mode=0o500)
    assert "no permission" in refused(*fit("counts.csv", "poisson-hmm", "--out", "locked/m.npz"))


def test_an_error_while_writing_leaves_the_old_file(run: Any, monkeypatch: Any) -> None:
    run(*fit("counts.csv", "poisson-hmm", "--out", "m.npz"))
    Path("states.csv").write_text("old")
    before = sorted(os.listdir())

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "states.csv")

    monkeypatch.setattr(os, "replace", fail)
    result = run("predict", "m.npz", "counts.csv", "--out", "states.csv")
    assert (result.status, result.out) == (2, "")
    assert result.err == "jaxem: error: states.csv: No space left on device\n"
    assert Path("states.csv").read_text() == "old" and sorted(os.listdir()) == before


def test_a_fit_that_ends_unsound_writes_nothing(run: Any, monkeypatch: Any) -> None:
    from dataclasses import replace

    from jaxem import em, many

    whole = many.search

    def broken(*arguments: Any, **options: Any) -> many.SearchResult:
        result = whole(*arguments, **options)
        ended = jax.numpy.full((1, 1), em.NON_FINITE)
        return replace(result, fits=tuple(replace(fit, end=ended) for fit in result.fits))

    monkeypatch.setattr(many, "search", broken)
    result = run(*fit("counts.csv", "poisson-hmm", "--out", "m.npz"))
    assert result.status == 1
    assert "non-finite" in result.out and "nothing was written" in result.err
    assert not Path("m.npz").exists()


@pytest.mark.parametrize("kind, start", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_ending_of_the_name_says_which_kind_of_picture(
    run: Any, kind: str, start: bytes
) -> None:
    pytest.importorskip("matplotlib")
    result = run(*fit("counts.csv", "poisson-hmm", "--plot", f"p.{kind}"))
    assert (result.status, result.err) == (0, "")
    assert Path(f"p.{kind}").read_bytes().startswith(start)


def test_an_unknown_kind_of_picture_is_refused(refused: Any) -> None:
    pytest.importorskip("matplotlib")
    message = refused(*fit("counts.csv", "poisson-hmm", "--plot", "p.bmp"))
    assert "--plot p.bmp: unknown kind of picture" in message and ".png" in message


@pytest.mark.parametrize(
    "missing, arguments, extra",
    [
        ("matplotlib", ["--plot", "p.png"], "jaxem[plots]"),
        ("pandas", [], "jaxem[cli]"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    refused: Any, monkeypatch: Any, missing: str, arguments: list[str], extra: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    message = refused(*fit("counts.csv", "poisson-hmm", *arguments))
    assert missing in message and extra in message


def test_a_terminal_gets_a_progress_bar(run: Any, monkeypatch: Any) -> None:
    pytest.importorskip("tqdm")
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    assert run(*fit("counts.csv", "poisson-hmm", "--restarts", 2)).status == 0
    assert "0/2" in screen.getvalue() and "2/2" in screen.getvalue()
    assert "best -" in screen.getvalue()
    assert screen.getvalue().endswith(" \r")  # it has wiped itself out


def test_without_tqdm_a_terminal_gets_no_bar(run: Any, monkeypatch: Any) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run(*fit("counts.csv", "poisson-hmm")).status == 0
    assert screen.getvalue() == ""


def test_ctrl_c_ends_without_a_traceback(run: Any, monkeypatch: Any) -> None:
    from jaxem import many

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "search", interrupted)
    result = run(*fit("counts.csv", "poisson-hmm", "--out", "m.npz"))
    assert (result.status, result.out, result.err) == (130, "", "jaxem: interrupted\n")
    assert not Path("m.npz").exists()


def test_the_installed_command_runs_and_keeps_what_it_compiled(folder: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [Path(sys.executable).parent / "jaxem", "sample", "m.npz", "-n", "3"]
    half = jaxem.Categorical.from_probs(np.array([0.5, 0.5]))
    jaxem.io.save("m.npz", jaxem.Mixture(half, jaxem.Poisson.from_rate(np.array([1.0, 9.0]))))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "x1,component" and len(done.stdout.splitlines()) == 4
    assert any((folder / "cache" / "jaxem" / "compiled").iterdir())


@pytest.mark.parametrize("command", [[], ["fit"], ["predict"], ["sample"], ["certify"]])
def test_help_tells_the_exit_statuses(capsys: Any, command: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert "130 interrupted" in capsys.readouterr().out


def test_a_saved_model_is_no_pickle(run: Any) -> None:
    run(*fit("counts.csv", "poisson-hmm", "--out", "m.npz"))
    assert "header.json" in zipfile.ZipFile("m.npz").namelist()
