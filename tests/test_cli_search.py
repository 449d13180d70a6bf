"""`jaxem fit` with several candidates: what is ranked, printed, drawn and refused."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import configuration_restored

import jaxem
from jaxem import em, many
from jaxem.cli import ranking
from jaxem.cli.arguments import parse
from jaxem.iteration import OUTCOMES

FAITHFUL = ["fit", "old_faithful", "--model", "gaussian-mixture"]
QUAKES = ["fit", "earthquakes", "--model", "poisson-hmm"]


@pytest.fixture(autouse=True)
def process(tmp_path: Path, monkeypatch: Any) -> Iterator[None]:
    """An empty directory, and a process that keeps its configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    with configuration_restored():
        yield


@pytest.fixture
def refused(run: Any, monkeypatch: Any) -> Callable[..., str]:
    """The one line of an invocation that must be refused before anything is fitted or written."""

    def unexpected(*_: Any, **__: Any) -> None:
        raise AssertionError("a fit began")

    monkeypatch.setattr(many, "search", unexpected)

    def call(*arguments: Any) -> str:
        before = sorted(os.listdir())
        result = run(*arguments, "--out", "m.npz")
        assert (result.status, result.out) == (2, "")
        assert re.fullmatch(r"jaxem: error: .+\n", result.err)
        assert sorted(os.listdir()) == before
        return result.err

    return call


def lines_of(text: str) -> list[dict[str, str]]:
    """The lines of the ranked table, by header."""
    table = text.split("\n\n")[0].splitlines()
    header = table[1].split()
    rows = [line.split() for line in table[2:] if line.split()[0].isdecimal()]
    return [dict(zip(header, row, strict=True)) for row in rows]


def result_of(log_likelihood: Any, end: Any, **more: Any) -> many.SearchResult:
    """A search with these ends: candidates by restarts, 100 rows, K from 1."""
    fits = []
    for row, how in zip(np.asarray(log_likelihood, float), np.asarray(end), strict=True):
        shape = (1, len(row))
        fits.append(
            em.EMResult(
                model=None,
                log_likelihood=row[None],
                log_prior=np.zeros(shape),
                trace=np.zeros((*shape, 1)),
                num_steps=np.zeros(shape, int),
                largest_fall=np.zeros(shape),
                num_parameters=np.full(shape, 2 * len(fits) + 2),
                end=how[None],
            )
        )
    number = len(fits)
    fields = {
        "criterion": "bic",
        "cv": None,
        "classification": np.asarray(log_likelihood, float)[None] - 1,
    }
    return many.SearchResult(
        names=tuple(map(str, range(number))),
        num_components=tuple(range(1, number + 1)),
        fits=tuple(fits),
        num_observations=np.array([100.0]),
        **(fields | more),
    )


@pytest.mark.parametrize(
    "text, orders",
    [
        ("3", (3,)),
        ("1:4", (1, 2, 3, 4)),
        ("5:5", (5,)),
        ("5,1,2", (5, 1, 2)),
        ("1:3,8", (1, 2, 3, 8)),
        ("2,1:3", (2, 1, 3)),
    ],
)
def test_numbers_of_components_are_numbers_ranges_and_lists(
    text: str, orders: tuple[int, ...]
) -> None:
    assert parse([*FAITHFUL, "--components", text]).components == orders


def test_covariances_are_separated_by_commas() -> None:
    given = parse([*FAITHFUL, "--components", "2", "--covariance", "full, tied,full"])
    assert given.covariance == ("full", "tied")
    assert parse([*FAITHFUL, "--components", "2"]).covariance is None


@pytest.mark.parametrize("text", ["0:3", "5:2", "a:b", "1:2:3", "1,,2", "", ":", "1:", "-1:2"])
def test_what_is_no_number_of_components_is_refused(refused: Any, text: str) -> None:
    message = refused(*FAITHFUL, f"--components={text}")
    assert "--components: expected a whole number of 1 or more, a range such as 1:10" in message


def test_searches_that_cannot_be_are_refused_before_the_fit(refused: Any) -> None:
    assert "1000 numbers at most" in refused(*FAITHFUL, "--components", "1:2000000000")
    message = refused(*FAITHFUL, "--components", "270:273")
    assert "--components 273 needs at least 273 rows, old_faithful has 272" in message
    message = refused(*FAITHFUL, "--components", "2", "--covariance", "full,round")
    assert "--covariance: invalid choice: 'round'" in message
    message = refused(*QUAKES, "--components", "1:2", "--covariance", "full,tied")
    assert "--covariance is for Gaussian models" in message
    assert "--criterion" in refused(*FAITHFUL, "--components", "2", "--criterion", "mdl")
    assert "--folds is for" in refused(*FAITHFUL, "--components", "2", "--folds", "3")


def test_folds_need_rows_or_sequences_and_leave_enough_of_them(refused: Any) -> None:
    cv = ["--criterion", "cv", "--folds"]
    message = refused(*FAITHFUL, "--components", "2", *cv, "300")
    assert "needs 300 rows or more to leave out in turn, old_faithful has 272" in message
    message = refused(*QUAKES, "--components", "2", *cv, "2")
    assert "needs 2 sequences or more to leave out in turn, earthquakes has 1" in message
    message = refused(*FAITHFUL, "--components", "2,137", *cv, "2")
    assert "fits to 136 rows of old_faithful, too few for 137 components" in message
    assert "expected a whole number of 2 or more" in refused(
        *FAITHFUL, "--components", "2", *cv, "1"
    )


def test_a_label_must_have_its_component_in_every_candidate(refused: Any) -> None:
    rows = [f"{n},{label}" for n, label in [(1, 0), (2, 1), (3, ""), (5, 2), (9, "")]]
    Path("known.csv").write_text("\n".join(["n,known", *rows]))
    command = ["fit", "known.csv", "--model", "poisson-mixture", "--labels", "known"]
    message = refused(*command, "--components", "2:4")
    assert "(--labels) holds 2, counted from 0, so --components 2 are too few" in message
    assert "a label is a whole number from 0 to 1" in refused(*command, "--components", "1:2")


def test_candidates_are_ranked_and_the_best_is_reported_written_and_drawn(run: Any) -> None:
    pytest.importorskip("matplotlib")
    more = ["--restarts", 3, "--out", "m.npz", "--plot", "p.png"]
    result = run(*QUAKES, "--components", "2:3", *more)
    assert (result.status, result.err) == (0, "")
    assert max(map(len, result.out.splitlines())) <= 80
    assert result.out.startswith("candidates by BIC, the best of 3 restarts each\n")
    first, second = lines_of(result.out)
    header = ["rank", "K", "log-lik", "df", "AIC", "BIC", "ICL", "found", "ended"]
    assert list(first) == header  # a Poisson model has no covariance
    assert (first["rank"], first["K"], first["df"], first["BIC"]) == ("1", "2", "5", "707.12")
    assert (second["rank"], second["K"], second["df"], second["BIC"]) == ("2", "3", "11", "708.46")
    assert first["ended"] == second["ended"] == "converged"
    assert 1 <= int(first["found"]) <= 3
    report = result.out.split("\n\n", 1)[1]
    assert "poisson-hmm, 2 states" in report and "707.12" in report
    reached = re.search(r"restarts +3, (\d) of them within 0.01", report)
    assert reached is not None and reached[1] == first["found"]
    model = jaxem.io.load("m.npz")
    assert model.num_states == 2
    quakes = jaxem.datasets.earthquakes()
    np.testing.assert_allclose(float(model.log_likelihood(quakes)), -341.8787, atol=1e-3)
    from matplotlib.image import imread

    height, width = imread("p.png").shape[:2]
    assert width > 2.5 * height  # two pictures side by side


def test_old_faithful_has_three_components_of_one_covariance(run: Any) -> None:
    """Fraley & Raftery (2002): by BIC tied K = 3 comes before full K = 2."""
    command = [*FAITHFUL, "--components", "2:3", "--covariance", "full,tied", "--restarts", 8]
    result = run(*command)
    order = [(line["covariance"], line["K"]) for line in lines_of(result.out)]
    assert order[:2] == [("tied", "3"), ("full", "2")]
    scores = [float(line["BIC"]) for line in lines_of(result.out)]
    assert scores == sorted(scores)
    np.testing.assert_allclose(scores[:2], [2314.30, 2322.19], rtol=0, atol=0.02)
    assert "3 components, tied covariance" in result.out


@pytest.mark.slow
def test_the_published_selections_hold_over_the_whole_range(run: Any) -> None:
    more = ["--covariance", "full,tied", "--restarts", 20]
    first = lines_of(run(*FAITHFUL, "--components", "1:4", *more).out)[0]
    assert (first["covariance"], first["K"]) == ("tied", "3")
    result = run(*QUAKES, "--components", "1:4", "--restarts", 10)
    assert [line["K"] for line in lines_of(result.out)] == ["2", "3", "4", "1"]


def test_what_is_left_out_ranks_and_has_its_column(run: Any) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.where(np.arange(24) % 2, 2, 30))
    Path("counts.csv").write_text("\n".join(["n", *map(str, counts)]))
    command = ["fit", "counts.csv", "--model", "poisson-mixture", "--criterion", "cv"]
    result = run(*command, "--components", "1,2", "--folds", 3, "--restarts", 2)
    assert (result.status, result.err) == (0, "")
    assert "candidates by 3-fold cross-validation" in result.out
    first, second = lines_of(result.out)
    assert (first["K"], second["K"]) == ("2", "1")
    assert float(first["CV"]) > float(second["CV"])
    assert float(first["CV"]) < float(first["log-lik"])


def test_missing_entries_weights_and_labels_are_those_of_every_candidate(run: Any) -> None:
    rng = np.random.default_rng(0)
    values = rng.poisson(np.where(np.arange(24) % 2, 2, 30)).astype(str)
    values[5] = ""
    rows = [f"{n},{1 + i % 2},{'' if i > 3 else i % 2}" for i, n in enumerate(values)]
    Path("counts.csv").write_text("\n".join(["n,w,known", *rows]))
    told = ["--missing", "marginalize", "--weights", "w", "--labels", "known"]
    result = run("fit", "counts.csv", "--model", "poisson-mixture", "--components", "2:3", *told)
    assert (result.status, result.err) == (0, "")
    assert lines_of(result.out)[0]["K"] == "2"
    assert "labels          known, 4 of 24 rows known" in result.out
    assert "with n = 36" in result.out


def test_unsound_candidates_come_last_and_only_a_search_of_them_fails(
    run: Any, monkeypatch: Any
) -> None:
    whole, broken = many.search, [0]

    def search(*arguments: Any, **options: Any) -> many.SearchResult:
        result = whole(*arguments, **options)
        fits = list(result.fits)
        for c in broken:
            fits[c] = replace(fits[c], end=np.full((1, 1), em.FELL))
        return replace(result, fits=tuple(fits))

    monkeypatch.setattr(many, "search", search)
    command = ["fit", "earthquakes", "--model", "poisson-mixture", "--components", "3,1"]
    result = run(*command, "--out", "m.npz")
    assert result.status == 0
    last = lines_of(result.out)[1]
    assert (last["K"], last["BIC"], last["found"], last["ended"]) == ("3", "-", "0", "fell")
    assert "fell: stopped as the objective fell" in result.out
    assert jaxem.io.load("m.npz").components.num_members == 1
    broken.append(1)
    result = run(*command, "--out", "other.npz", "--plot", "p.png")
    assert result.status == 1
    assert "no start led to a sound fit; nothing was written" in result.err
    assert not Path("other.npz").exists() and not Path("p.png").exists()


def test_the_table_fits_into_80_columns_whatever_the_numbers() -> None:
    result = result_of(
        [[-123456789.123, -123456788.5], [-1.5e8, np.nan]],
        [[1, 1], [4, 4]],
        cv=np.array([[-2e8, -3e8]]),
        criterion="cv",
    )
    text = ranking.ranking(result, ["spherical", "full"], 5)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[2].split()[:4] == ["1", "1", "spherical", "-123456788"]


def test_every_end_has_a_word() -> None:
    assert sorted(ranking.ENDED) == list(range(len(OUTCOMES)))
    result = result_of([[-10.0]] * len(OUTCOMES), [[end] for end in range(len(OUTCOMES))])
    table = ranking.ranking(result, [None] * len(OUTCOMES), 5)
    assert {line["ended"] for line in lines_of(table)} == set(ranking.ENDED.values())
    assert "resolved: converged to the resolution of the dtype" in table


def test_restarts_that_found_the_optimum_are_those_near_the_best_sound_one() -> None:
    result = result_of([[-10.0, -10.005, -11.0, -5.0]], [[1, 3, 1, em.FELL]])
    assert lines_of(ranking.ranking(result, [None], 5))[0]["found"] == "2"


def test_an_interrupted_search_does_not_wait_for_fits_under_way(monkeypatch: Any) -> None:
    """Such fits may take hours, and hear of no interrupt."""
    import threading
    import time

    from jaxem.many import chunks

    release = threading.Event()

    def fit(start: int) -> int:
        if start == 1:
            release.wait(60)
        return start

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chunks, "num_workers", lambda: 2)
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            chunks.over_chunks(fit, range(2), interrupt)
        assert time.monotonic() - begun < 30
        assert any(thread.name.startswith(chunks.WORKER) for thread in threading.enumerate())
    finally:
        release.set()
