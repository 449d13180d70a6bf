"""The command line on incomplete data: missing entries, weights, and known components and states.

Models are fitted twice here, once a mixture and once a hidden Markov model; the rest looks at what
is read, or refused.
"""

import csv
import io
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from processes import configuration_restored

import jaxem
from jaxem.cli import main, models
from jaxem.cli.columns import Choice
from jaxem.cli.read import read
from jaxem.comparison import Certificate

ROWS = 24
RNG = np.random.default_rng(0)
STATE = np.arange(ROWS) // 6 % 2
PAIRS = np.round(4 * STATE[:, None] + RNG.normal(size=(ROWS, 2)), 3)
PAIRS[[1, 8, 20], 0] = PAIRS[[1, 14], 1] = np.nan  # of row 1 nothing is known
WEIGHTS = 1 + np.arange(ROWS) % 3 / 2
LABELS = np.where(np.arange(ROWS) % 5 == 0, STATE, -1)
COUNTS = RNG.poisson(2 + 9 * STATE).astype(float)
COUNTS[[0, 9, 10, 23]] = np.nan
SEQUENCE = np.array(["u", "v", "w"])[np.searchsorted([7, 15], np.arange(ROWS), "right")]
ONCE = {"u": 1.0, "v": 0.5, "w": 2.0}  # weights of sequences of 7, 8 and 9 steps
MIXTURE = ["--missing", "marginalize", "--labels", "known"]
CHAIN = [*MIXTURE, "--sequence", "id"]


@pytest.fixture(scope="module", autouse=True)
def process() -> Iterator[None]:
    """A process that keeps its configuration, and no compiled programs on disk."""
    with pytest.MonkeyPatch.context() as patch, configuration_restored():
        patch.setenv("XDG_CACHE_HOME", os.devnull)
        yield


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A folder with data files, the models fitted to two of them, and what was printed."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("fitted")
    columns = (PAIRS[:, 0], PAIRS[:, 1], WEIGHTS, np.where(LABELS < 0, np.nan, LABELS))
    write(folder / "pairs.csv", "a,b,w,known", columns)
    weights = [ONCE[name] for name in SEQUENCE]
    write(folder / "counts.csv", "id,n,w,known", (SEQUENCE, COUNTS, weights, LABELS))
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, data, more in (
            ("gaussian-mixture", "pairs.csv", MIXTURE),
            ("poisson-hmm", "counts.csv", CHAIN),
        ):
            command = ["fit", data, "--model", name, "--components", "2", *more, "--weights", "w"]
            standard_output = io.StringIO()
            patch.setattr("sys.stdout", standard_output)
            status = main([*command, "--out", f"{name}.npz", "--plot", f"{name}.png"])
            assert status == 0
            printed[name] = standard_output.getvalue()
    return {"folder": folder, **printed}


@pytest.fixture
def refused(run: Any, tmp_path: Path, monkeypatch: Any) -> Callable[..., str]:
    """The one line about a text as data that `jaxem fit` must refuse, here before any work."""
    from jaxem import em

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(em, "fit", None)

    def call(text: str, *more: Any, model: str = "gaussian-mixture") -> str:
        Path("d.csv").write_text(text)
        result = run("fit", "d.csv", "--model", model, "--components", 2, "--out", "m.npz", *more)
        assert (result.status, result.out) == (2, "")
        assert re.fullmatch(r"jaxem: error: .+\n", result.err)
        assert not Path("m.npz").exists()
        return result.err

    return call


def write(path: Path, header: str, columns: Any) -> None:
    """A file in which NaN is an empty cell."""
    rows = [
        ",".join("" if str(cell) == "nan" else str(cell) for cell in row)
        for row in zip(*columns, strict=True)
    ]
    path.write_text("\n".join([header, *rows]) + "\n")


def choice(**options: Any) -> Choice:
    """The columns chosen by these options, with missing entries and labels 0 and 1."""
    given = {"columns": None, "sequence": None, "weights": None, "labels": None}
    return Choice.of(Namespace(**{**given, "missing": "marginalize", **options}), 2)


def test_a_mixture_is_fitted_to_what_is_there(fitted: dict[str, Any]) -> None:
    told = fitted["gaussian-mixture"]
    assert "missing         5 of 48 entries, 10.4 per cent\n" in told
    assert "weights         w, 36 in all\n" in told
    assert "labels          known, 5 of 24 rows known\n" in told
    assert re.search(r"BIC .* with n = 36\n", told)
    data = jaxem.Samples.from_nan(PAIRS, WEIGHTS, LABELS)
    model = jaxem.io.load(fitted["folder"] / "gaussian-mixture.npz")
    log_likelihood = float(model.log_likelihood(data))
    assert float(re.search(r"log-likelihood +(\S+)", told)[1]) == pytest.approx(
        log_likelihood, abs=1e-4
    )
    stepped = jaxem.fit(model, data, max_steps=1)  # it is where EM ends
    assert float(stepped.log_likelihood) == pytest.approx(log_likelihood, abs=1e-5)


def test_a_markov_model_is_fitted_to_what_is_there(fitted: dict[str, Any]) -> None:
    told = fitted["poisson-hmm"]
    assert "24 rows, 1 column (n), 3 sequences by id\n" in told
    assert "missing         4 of 24 entries, 16.7 per cent\n" in told
    assert "labels          known, 5 of 24 rows known\n" in told
    assert re.search(r"BIC .* with n = 29\n", told)
    model = jaxem.io.load(fitted["folder"] / "poisson-hmm.npz")
    parts = [COUNTS[SEQUENCE == name] for name in ONCE]
    labels = [LABELS[SEQUENCE == name] for name in ONCE]
    data = jaxem.Sequences.from_nan(parts, None, np.array([*ONCE.values()]), labels)
    log_likelihood = float(model.log_likelihood(data))
    assert float(re.search(r"log-likelihood +(\S+)", told)[1]) == pytest.approx(
        log_likelihood, abs=1e-4
    )


def test_labels_are_evidence_in_predictions(
    fitted: dict[str, Any], run: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(fitted["folder"])
    model: Any = jaxem.io.load("gaussian-mixture.npz")
    done = run("predict", "gaussian-mixture.npz", "pairs.csv", *MIXTURE, "--weights", "w")
    written = list(csv.DictReader(io.StringIO(done.out)))
    expected = model.responsibilities(jaxem.Samples.from_nan(PAIRS, labels=LABELS))
    assert [int(row["component"]) for row in written] == np.argmax(expected, 1).tolist()
    np.testing.assert_allclose(
        [float(row["probability"]) for row in written], expected.max(1), 1e-5
    )
    assert all(
        written[i] == {"component": f"{STATE[i]}", "probability": "1"} for i in range(0, 24, 5)
    )

    done = run("predict", "poisson-hmm.npz", "counts.csv", *CHAIN, "--columns", "n")
    states = [int(row["state"]) for row in csv.DictReader(io.StringIO(done.out))]
    assert [states[i] for i in range(0, ROWS, 5)] == STATE[::5].tolist()
    # Where nothing is seen, in the middle of a run of state 1, a label alone can say otherwise.
    other = np.where(np.arange(ROWS) == 9, 1 - states[9], LABELS)
    write(Path("other.csv"), "id,n,known", (SEQUENCE, COUNTS, other))
    done = run("predict", "poisson-hmm.npz", "other.csv", *CHAIN)
    assert int([*csv.DictReader(io.StringIO(done.out))][9]["state"]) == 1 - states[9]


def test_certify_gets_the_same_data(fitted: dict[str, Any], run: Any, monkeypatch: Any) -> None:
    """Looked at where the command hands them over: a certificate takes long to compile."""
    from jaxem.cli import certify

    seen = []
    monkeypatch.setattr(
        certify, "certify", lambda _, data: seen.append(data) or Certificate("", ())
    )
    monkeypatch.chdir(fitted["folder"])
    run("certify", "gaussian-mixture.npz", "pairs.csv", *MIXTURE, "--weights", "w")
    run("certify", "poisson-hmm.npz", "counts.csv", *CHAIN, "--weights", "w")
    rows, sequences = seen
    np.testing.assert_array_equal(rows.observed, ~np.isnan(PAIRS))
    np.testing.assert_array_equal(rows.values[rows.observed], PAIRS[~np.isnan(PAIRS)])
    np.testing.assert_array_equal(rows.sample_weight, WEIGHTS)
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert sequences.lengths.tolist() == [7, 8, 9]
    assert sequences.sample_weight.tolist() == [1.0, 0.5, 2.0]
    for i, name in enumerate(ONCE):
        counts, own = COUNTS[SEQUENCE == name], sequences.observed[i, : 7 + i]
        np.testing.assert_array_equal(own, ~np.isnan(counts))
        np.testing.assert_array_equal(sequences.values[i, : 7 + i][own], counts[own])
        np.testing.assert_array_equal(sequences.labels[i, : 7 + i], LABELS[SEQUENCE == name])
    assert np.all(sequences.labels[0, 7:] == -1)


def test_every_kind_of_file_can_have_holes(tmp_path: Path, monkeypatch: Any) -> None:
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    cells = np.column_stack([PAIRS, WEIGHTS, np.where(LABELS < 0, np.nan, LABELS)])
    frame = pandas.DataFrame(cells, columns=["a", "b", "w", "known"])
    frame.to_csv("d.csv", index=False)
    Path("r.csv").write_text(frame.to_csv(index=False, na_rep=" NA"))
    np.savetxt("bare.csv", cells, delimiter=",")
    np.save("d.npy", cells)
    np.savez("d.npz", values=cells)
    frame.convert_dtypes().to_parquet("d.parquet")
    named, numbered = choice(weights="w", labels="known"), choice(weights="3", labels="4")
    tables = [read(name, named) for name in ("d.csv", "r.csv", "d.parquet")]
    tables += [read(name, numbered) for name in ("bare.csv", "d.npy", "d.npz")]
    for table in tables:
        np.testing.assert_array_equal(table.observed, ~np.isnan(PAIRS))
        np.testing.assert_allclose(table.values, np.nan_to_num(PAIRS), rtol=1e-15)
        np.testing.assert_array_equal(table.weights.cells, WEIGHTS)
        np.testing.assert_array_equal(table.labels.cells, LABELS)


@pytest.mark.parametrize("name", ["d.csv", "d.parquet", "d.npy"])
def test_whole_numbers_stay_whole_beside_holes(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    Path("d.csv").write_text("s,t\n2,true\n,\n123457,false\n")
    frame = pandas.DataFrame({"s": [2, None, 123457], "t": [True, None, False]})
    frame.to_parquet("d.parquet")
    np.save("d.npy", np.array([[2, 1], [np.nan, np.nan], [123457, 0]]))
    symbols, bits = read(name, choice(columns="1")), read(name, choice(columns="2"))
    models.check_values(symbols, jaxem.Categorical)
    models.check_values(bits, jaxem.Bernoulli)
    rows = models.rows_of(symbols, jaxem.Categorical, (), "float32")
    assert rows.values.dtype == np.int32 and rows.values.tolist() == [2, 0, 123457]
    assert rows.observed.tolist() == [True, False, True]
    assert bits.values.ravel().tolist() == [1, 0, 0]


def test_a_blank_line_is_a_hole_only_in_a_file_of_one_column(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('n\n\n4\n \n""\n5\n\n\n')
    table = read(str(path), choice())
    assert table.observed.ravel().tolist() == [False, True, False, False, True]
    assert table.lines.tolist() == [2, 3, 4, 5, 6]
    path.write_text("\n3\n\n4\n")  # no header: what is blank at the beginning is no row
    assert read(str(path), choice()).values.ravel().tolist() == [3, 0, 4]
    path.write_text("a,b\n1,2\n\n,\n3\n")
    table = read(str(path), choice())
    assert table.observed.tolist() == [[True, True], [False, False], [True, False]]
    assert table.lines.tolist() == [2, 4, 5]


@pytest.mark.parametrize(
    "text, options, told",
    [
        ("a,b\n1,2\n,3\n", [], "d.csv: row 3, column a is empty; every entry must be a finite"),
        ("a,b\n1,2\n,\n", [], "d.csv: row 3, column a is empty"),
        ("a,b\n1,2\nNA,3\n", ["--missing", "refuse"], "d.csv: row 3, column a holds NA"),
        ("a,b\n1,2\n,inf\n", MIXTURE[:2], "d.csv: row 3, column b holds inf"),
        ("a,b\n1,2\n,abc\n", MIXTURE[:2], "d.csv: row 3, column b holds abc"),
        ("a,b\n1,\n2,\n3,NaN\n", MIXTURE[:2], "column b is empty in every row"),
        ("a,b\n,\n,\n", MIXTURE[:2], "every entry is missing in every row"),
        (
            "a,b,w\n1,,1\n,2,0\n3,,1\n",
            [*MIXTURE[:2], "--weights", "w"],
            "b is empty in every row of",
        ),
        ("a,b\n1,2\n3,\n,2\n", MIXTURE[:2], "column b holds 2.0 wherever it"),
        ("a,b\n1,2\n,\n,\n", MIXTURE[:2], "needs at least 2 rows, d.csv has 1 that count"),
        ("a,w\n1,1\n2,heavy\n", ["--weights", "w"], "row 3, column w holds heavy; a weight is"),
        ("a,w\n1,1\n2,\n", [*MIXTURE[:2], "--weights", "w"], "row 3, column w is empty; a weight"),
        ("a,w\n1,1\n2,-1\n", ["--weights", "w"], "row 3, column w holds -1; a weight is"),
        ("a,w\n1,1\n2,inf\n", ["--weights", "w"], "row 3, column w holds inf; a weight is"),
        ("a,w\n1,0\n2,0\n", ["--weights", "w"], "column w (--weights) is 0 in every row"),
        (
            "a,l\n1,0\n2,2\n",
            ["--labels", "l"],
            "row 3, column l holds 2; a label is a whole number",
        ),
        ("a,l\n1,0\n2,0.5\n", ["--labels", "l"], "row 3, column l holds 0.5; a label is"),
        ("a,l\n1,0\n2,-2\n", ["--labels", "l"], "row 3, column l holds -2; a label is"),
        ("a,l\n1,\n2,one\n", ["--labels", "l"], "row 3, column l holds one; a label is"),
        ("a,w\n1,1\n2,1\n", ["--weights", "v"], "no column is called 'v' (--weights)"),
        ("a,w\n1,1\n2,1\n", ["--labels", "3"], "no column is called '3' (--labels)"),
        (
            "a,w\n1,1\n2,1\n",
            ["--labels", "w", "--weights", "2"],
            "w is named twice in --weights and",
        ),
        (
            "a,w\n1,1\n2,1\n",
            ["--columns", "a,w", "--weights", "w"],
            "w is named twice in --weights",
        ),
        ("w\n1\n2\n", ["--weights", "w"], "no column is left beside --weights w"),
        ("a,b\n1,2\n", ["--missing", "impute"], "--missing: invalid choice"),
    ],
)
def test_what_is_wrong_with_incomplete_data_is_told_in_one_line(
    refused: Any, text: str, options: list[str], told: str
) -> None:
    assert told in refused(text, *options)


@pytest.mark.parametrize(
    "text, options, told",
    [
        (
            "id,n,w\nu,1,1\nv,2,3\nu,,2\n",
            [*MIXTURE[:2], "--sequence", "id", "--weights", "w"],
            "row 2 and row 4 of sequence u have the weights 1 and 2 (column w)",
        ),
        ("n,w\n1,1\n2,3\n", ["--weights", "w"], "row 2 and row 3 of one sequence have the weights"),
        ("id,n\nu,1\n,2\n", [*MIXTURE[:2], "--sequence", "id"], "row 3, column id is empty"),
        ("n\n1\n\n-2\n", MIXTURE[:2], "row 4, column n holds -2.0; counts are whole numbers"),
    ],
)
def test_what_is_wrong_with_incomplete_sequences_is_told_in_one_line(
    refused: Any, text: str, options: list[str], told: str
) -> None:
    assert told in refused(text, *options, model="poisson-hmm")


def test_holes_in_numpy_and_parquet_files_are_refused_by_default(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    strict = choice(missing="refuse")
    np.savez(tmp_path / "d.npz", values=np.full((2, 3, 1), np.nan), lengths=np.array([0, 2]))
    with pytest.raises(ValueError, match="sequence 2, step 1, column 1 holds nan; .* --missing"):
        read(str(tmp_path / "d.npz"), strict)
    frame = pandas.DataFrame({"a": [1, None], "b": [None, None], "c": ["0", "one"]})
    frame.to_parquet(tmp_path / "d.parquet")
    for columns, place in (("a", "row 2, column a"), ("b", "row 1, column b")):
        with pytest.raises(ValueError, match=f"{place} holds nan; .* --missing marginalize"):
            read(str(tmp_path / "d.parquet"), choice(missing="refuse", columns=columns))
    with pytest.raises(ValueError, match="row 2, column c holds one; a label is"):
        read(str(tmp_path / "d.parquet"), choice(columns="a", labels="c"))


def test_weights_and_labels_of_padded_sequences_are_columns(tmp_path: Path) -> None:
    values = np.array([[[1, 2, 0], [3, 2, np.nan]], [[5, 4, 1], [7, 7, 7]]])
    np.savez(tmp_path / "d.npz", values=values, lengths=np.array([2, 1]))
    table = read(str(tmp_path / "d.npz"), choice(weights="2", labels="3"))
    data = models.sequences_of(models.rows_of(table, jaxem.Poisson, (), "float64"), table)
    assert data.values[0].tolist() == [1, 3] and data.values[1, 0] == 5
    assert data.lengths.tolist() == [2, 1] and data.sample_weight.tolist() == [2, 4]
    assert data.labels.tolist() == [[0, -1], [1, -1]]


def test_complete_data_are_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a\n1\n2\n")
    table = read(str(tmp_path / "d.csv"), choice(missing="refuse"))
    assert jax.tree.leaves((table.observed, table.weights, table.labels)) == []
    rows = models.rows_of(table, jaxem.Poisson, (), "float64")
    assert len(jax.tree.leaves(rows)) == 1
    assert len(jax.tree.leaves(models.sequences_of(rows, table))) == 1


def test_the_readme_shows_what_is_printed(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    name, data, command, shown = re.search(
        r"`(\w+\.csv)`[^`]*```csv\n(.*?)```\n[^`]*```console\n\$ (.*?)\n\n(.*?)```",
        readme,
        re.DOTALL,
    ).groups()
    Path(name).write_text(data)
    program, *arguments = shlex.split(command.replace("\\\n", " "))
    assert program == "jaxem" and {"--missing", "--weights", "--labels"} <= set(arguments)
    done = run(*arguments)
    assert (done.status, done.err) == (0, "")
    assert done.out == shown
