"""What a search finds, how it ranks it, and that its members are what they would be alone."""

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem.initialize import Start, hmm, kmeans_plus_plus, random_rows
from jaxem.many import criteria
from jaxem.many.progress import Bar

KEY = jax.random.key(0)
STEPS, TOL = 60, 1e-3
COUNTS = np.random.default_rng(0).poisson([1.0, 8.0], (40, 2)).ravel()
ONE, TWO = (Start(kmeans_plus_plus, jaxem.Poisson, k) for k in (1, 2))


def search(data: Any, candidates: Any, key: Any = KEY, **options: Any) -> jaxem.SearchResult:
    options = {"restarts": 3, "max_steps": STEPS, "tol": TOL} | options
    return jaxem.search(key, data, candidates, **options)


def key_of(candidate: int, data_set: int, restart: int) -> Any:
    key = KEY
    for number in (candidate, data_set, restart):
        key = jax.random.fold_in(key, number)
    return key


@pytest.fixture(scope="module")
def found() -> jaxem.SearchResult:
    return search(COUNTS, [ONE, TWO])


def test_a_member_is_what_it_would_be_alone(found):
    for candidate, start in enumerate((ONE, TWO)):
        for restart in (0, 2):
            alone = start(key_of(candidate, 0, restart), COUNTS)
            single = jaxem.fit(alone, COUNTS, max_steps=STEPS, tol=TOL)
            member = jax.tree.map(lambda leaf, r=restart: leaf[0, r], found.fits[candidate])
            np.testing.assert_allclose(member.log_likelihood, single.log_likelihood, rtol=1e-5)
            np.testing.assert_allclose(
                member.model.components.rate, single.model.components.rate, rtol=1e-3
            )


def test_more_restarts_leave_the_others_as_they_are(found):
    more = search(COUNTS, [ONE, TWO], restarts=5)
    np.testing.assert_allclose(more.log_likelihood[..., :3], found.log_likelihood, rtol=1e-6)


def test_criteria_are_those_of_their_definitions(found):
    best = found.best()
    assert found.names == ("Poisson, K=1", "Poisson, K=2")
    assert found.num_components == (1, 2)
    assert found.num_parameters.tolist() == [[[1, 1, 1], [3, 3, 3]]]
    model, n = best.model, len(COUNTS)
    assert found.names[found.ranking()[0]] == "Poisson, K=2"
    log_likelihood = model.log_likelihood(COUNTS)
    np.testing.assert_allclose(best.log_likelihood, log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(
        found.scores("bic")[0, 1], -2 * log_likelihood + 3 * np.log(n), rtol=1e-6
    )
    np.testing.assert_allclose(found.scores("aic")[0, 1], 6 - 2 * log_likelihood, rtol=1e-6)
    joint = jnp.log(model.weights.probs) + model.components.log_prob(jnp.asarray(COUNTS))
    np.testing.assert_allclose(
        found.scores("icl")[0, 1], -2 * joint.max(1).sum() + 3 * np.log(n), rtol=1e-5
    )
    np.testing.assert_allclose(found.scores("log_likelihood")[0, 1], log_likelihood, rtol=1e-6)
    assert found.ranking(criterion="log_likelihood")[0] == 1


def test_icl_of_a_chain_takes_its_best_path(x64):
    quakes = jaxem.datasets.earthquakes()
    model = jaxem.HMM(
        jaxem.Categorical.from_probs(np.array([0.5, 0.5])),
        jaxem.Categorical.from_probs(np.array([[0.9, 0.1], [0.1, 0.9]])),
        jaxem.Poisson.from_rate(np.array([15.0, 26.0])),
    )
    np.testing.assert_allclose(
        model.classification_log_likelihood(quakes), model.viterbi(quakes)[0], rtol=1e-12
    )
    twice = jaxem.Sequences(np.asarray(quakes)[None], sample_weight=np.array([2.0]))
    np.testing.assert_allclose(
        model.classification_log_likelihood(twice), 2 * model.viterbi(quakes)[0], rtol=1e-12
    )


def test_the_table_has_a_line_for_every_fit(found):
    pandas = pytest.importorskip("pandas")
    table = found.table()
    assert isinstance(table, pandas.DataFrame) and len(table) == 6
    assert list(table.columns) == [
        "data_set", "candidate", "K", "restart", "log_likelihood", "df", "aic", "bic", "icl",
        "steps", "ended",
    ]  # fmt: skip
    assert table.groupby("candidate").log_likelihood.max().is_monotonic_increasing
    assert table.to_dict("records") == found.records()
    assert repr(found) == ("SearchResult(2 candidates x 3 restarts x 1 data sets, criterion='bic')")


def test_a_table_without_pandas_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"jaxem\[cli\].*records"):
        found.table()


def test_how_often_the_best_optimum_was_found(found):
    assert found.found().tolist() == [[3, 3]]
    spread = found.log_likelihood.copy()
    fits = list(found.fits)
    worse = jnp.asarray(spread[:, 1] - np.array([[0.0, 1.0, 0.0]]))
    fits[1] = replace(fits[1], log_likelihood=worse)
    changed = replace(found, fits=tuple(fits))
    assert changed.found()[0, 1] == 2 and changed.found(within=2.0)[0, 1] == 3
    assert changed.best_restart[0, 1] in (0, 2)


def test_a_fit_that_is_not_sound_is_never_the_best(found):
    fits = list(found.fits)
    end = jnp.full_like(fits[1].end, jaxem.em.NON_FINITE)
    fits[1] = replace(fits[1], end=end)
    changed = replace(found, fits=tuple(fits))
    assert changed.ranking().tolist() == [0, 1] and np.isnan(changed.scores()[0, 1])
    assert changed.found()[0].tolist() == [3, 0]
    none = replace(changed, fits=(fits[1],), num_components=(2,), names=("two",))
    with pytest.raises(ValueError, match="no fit to data set 0 is sound"):
        none.best()


# Data sets


def test_data_sets_of_different_sizes_have_a_best_model_each(x64):
    data = [COUNTS[:25], COUNTS, np.full(15, 3)]
    result = search(jaxem.Batch(data), {"one": ONE, "two": TWO})
    assert result.log_likelihood.shape == (3, 2, 3)
    assert result.num_observations.tolist() == [25, 80, 15]
    assert [result.names[result.ranking(i)[0]] for i in range(3)] == ["two", "two", "one"]
    start = TWO(key_of(1, 0, 2), data[0])
    single = jaxem.fit(start, data[0], max_steps=STEPS, tol=TOL)
    np.testing.assert_allclose(result.log_likelihood[0, 1, 2], single.log_likelihood, rtol=1e-9)
    table = {(line["data_set"], line["candidate"], line["restart"]) for line in result.records()}
    assert len(table) == 18


@pytest.mark.slow
def test_sequences_of_different_lengths(x64):
    rng = np.random.default_rng(1)
    data = [[rng.poisson(3.0, 12), rng.poisson(3.0, 5)], [rng.poisson(9.0, 20)]]
    start = Start(hmm, jaxem.Poisson, 2)
    result = search(jaxem.Batch(data), start, restarts=2)
    assert result.num_observations.tolist() == [17, 20]
    for index, one in enumerate(data):
        single = jaxem.fit(start(key_of(0, index, 1), one), one, max_steps=STEPS, tol=TOL)
        np.testing.assert_allclose(
            result.log_likelihood[index, 0, 1], single.log_likelihood, rtol=1e-8
        )


def test_a_candidate_that_looks_at_values_is_called_start_by_start():
    def looks(key: Any, data: Any) -> jaxem.Mixture:
        low, high = float(np.min(data)) + 1, float(np.max(data))
        rates = np.log(np.array([low, high])) + 0.1 * np.asarray(jax.random.normal(key, (2,)))
        return jaxem.Mixture(jaxem.Categorical(np.zeros(2)), jaxem.Poisson(rates))

    result = search(COUNTS, looks)
    assert result.names == ("looks",) and result.found().tolist() == [[3]]
    alone = looks(key_of(0, 0, 1), COUNTS)
    single = jaxem.fit(alone, COUNTS, max_steps=STEPS, tol=TOL)
    np.testing.assert_allclose(result.log_likelihood[0, 0, 1], single.log_likelihood, rtol=1e-5)


def test_symbols_of_several_data_sets_need_their_number():
    data = jaxem.Batch([np.array([0, 1, 0, 1, 1, 0]), np.array([0, 2, 1, 2, 1, 0])])
    bare, stated = (
        Start(hmm, family, 2) for family in (jaxem.Categorical, jaxem.Categorical.of(3))
    )
    with pytest.raises(ValueError, match="state what it takes .* number of symbols"):
        search(data, bare, max_steps=3)
    assert search(data[1], bare, max_steps=3).fits[0].model.emission.logits.shape == (1, 3, 2, 3)
    assert search(data, stated, max_steps=3).fits[0].model.emission.logits.shape == (2, 3, 2, 3)


# Cross-validation


def test_folds_part_what_counts_and_nothing_else():
    weight = np.ones((2, 11))
    weight[1, 7:] = 0
    data = jaxem.Samples(np.arange(22).reshape(2, 11), weight)
    parts, left_out = criteria.folds(KEY, data, 3)
    assert parts.values.shape == (6, 11)
    together = parts.sample_weight.reshape(2, 3, 11) + left_out.sample_weight.reshape(2, 3, 11)
    np.testing.assert_array_equal(together, np.repeat(weight[:, None], 3, 1))
    dealt = left_out.sample_weight.reshape(2, 3, 11).sum(2)
    assert np.ptp(dealt, axis=1).max() <= 1
    np.testing.assert_array_equal(left_out.sample_weight.reshape(2, 3, 11).sum(1), weight)


def test_a_data_set_is_parted_as_it_is_alone():
    """Its lots depended on the number of rows of the largest data set."""
    weight = (np.arange(11) < np.array([7, 9, 11])[:, None]).astype(float)
    _, left_out = criteria.folds(KEY, jaxem.Samples(np.zeros((3, 11)), weight), 3)
    _, alone = criteria.folds(KEY, jaxem.Samples(np.zeros((2, 9)), weight[:2, :9]), 3)
    np.testing.assert_array_equal(left_out.sample_weight[:6, :9], alone.sample_weight)


def test_cross_validation_parts_the_data_alike_for_all_candidates():
    def same(key: Any, data: Any) -> Any:
        return jaxem.Mixture(jaxem.Categorical(np.zeros(2)), jaxem.Poisson(np.log([1.0, 6.0])))

    cv = search(COUNTS, {"one": same, "other": same}, criterion="cv", restarts=1).cv
    assert cv[0, 0] == cv[0, 1]


def test_cross_validation_is_the_likelihood_of_what_was_left_out(x64):
    result = search(COUNTS, [ONE, TWO], criterion="cv", folds=4)
    assert result.cv.shape == (1, 2) and result.ranking()[0] == 1
    data = jaxem.Samples(COUNTS[None])
    for candidate, start in enumerate((ONE, TWO)):
        parts, left_out = criteria.folds(KEY, data, 4)
        total = 0.0
        for fold in range(4):
            rest, tested = (COUNTS[part.sample_weight[fold] > 0] for part in (parts, left_out))
            fits = [
                jaxem.fit(start(key_of(candidate, fold, r), rest), rest, max_steps=STEPS, tol=TOL)
                for r in range(3)
            ]
            best = max(fits, key=lambda one: float(one.log_likelihood))
            total += float(best.model.log_likelihood(tested))
        np.testing.assert_allclose(result.cv[0, candidate], total, rtol=2e-4)
    assert {line["cv"] for line in result.records()} == set(result.cv[0].tolist())


@pytest.mark.slow
def test_cross_validation_leaves_out_whole_sequences(x64):
    rng = np.random.default_rng(2)
    data = [rng.poisson(4.0, size) for size in (8, 5, 9, 7)]
    result = search(data, Start(hmm, jaxem.Poisson, 1), criterion="cv", folds=2, restarts=1)
    parts, _ = criteria.folds(
        KEY, jaxem.Sequences(np.zeros((1, 4, 9)), np.array([[8, 5, 9, 7]])), 2
    )
    total = 0.0
    for kept in parts.sample_weight > 0:
        rate = np.mean(
            np.concatenate([one for one, there in zip(data, kept, strict=True) if there])
        )
        model = jaxem.Mixture(jaxem.Categorical(np.zeros(1)), jaxem.Poisson(np.log([rate])))
        tested = np.concatenate([one for one, there in zip(data, kept, strict=True) if not there])
        total += float(model.log_likelihood(tested))
    np.testing.assert_allclose(result.cv, [[total]], rtol=1e-6)
    with pytest.raises(ValueError, match="5 sequences or more; data set 0 .* has 4"):
        search(data, Start(hmm, jaxem.Poisson, 1), criterion="cv")


# Published selections


def test_old_faithful_prefers_three_tied_components_to_two_full_ones(x64):
    """mclust: full K=2 ℓ −1130.264, BIC 2322.192; tied K=3 ℓ −1126.316; ICL of the former 2322.7"""
    faithful = jaxem.datasets.old_faithful()
    candidates = [
        Start(kmeans_plus_plus, jaxem.Gaussian, 2),
        Start(kmeans_plus_plus, jaxem.TiedGaussian, 3),
    ]
    result = search(faithful, candidates, restarts=10, max_steps=500, tol=1e-7)
    np.testing.assert_allclose(result.scores("log_likelihood"), [[-1130.264, -1126.316]], atol=2e-3)
    assert result.names[result.ranking()[0]] == "TiedGaussian, K=3"
    assert result.num_parameters[0, :, 0].tolist() == [11, 11]
    np.testing.assert_allclose(result.scores("bic")[0, 0], 2322.192, atol=2e-3)
    np.testing.assert_allclose(result.scores("icl")[0, 0], 2322.70, atol=2e-2)


@pytest.mark.slow
def test_earthquakes_by_the_convention_that_the_start_counts(x64):
    """BIC 707.12 (K = 2) and 708.46 (K = 3): Zucchini & MacDonald's counts, free start."""
    quakes = jaxem.datasets.earthquakes()
    candidates = [Start(hmm, jaxem.Poisson, k) for k in (2, 3)]
    result = search(quakes, candidates, restarts=10, max_steps=500, tol=1e-7)
    np.testing.assert_allclose(result.scores(), [[707.12, 708.46]], atol=5e-3)
    assert result.ranking().tolist() == [0, 1]


# Progress, and what is wrong


def test_progress_counts_over_all_candidates():
    seen: list[tuple[int, int, float]] = []
    result = search(COUNTS, [ONE, TWO], progress=lambda *now: seen.append(now))
    done = [now[0] for now in seen]
    assert done == sorted(done) and seen[-1][:2] == (6, 6)
    np.testing.assert_allclose(seen[-1][2], result.log_likelihood.max(), rtol=1e-6)


def test_a_bar_shows_members_done_and_the_best(capsys):
    pytest.importorskip("tqdm")
    search(COUNTS, [ONE, TWO], progress=True)
    shown = capsys.readouterr().err
    assert "6/6" in shown and "best" in shown


def test_a_bar_without_tqdm_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ModuleNotFoundError, match=r"tqdm: pip install 'jaxem\[cli\]'"):
        Bar()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": "waic"}, "criterion must be one of .*'bic'.* got 'waic'"),
        ({"restarts": 0}, "restarts must be a whole number, 1 or more, got 0"),
        ({"folds": 1}, "folds must be a whole number, 2 or more, got 1"),
        ({"candidates": []}, "no candidate"),
        ({"candidates": {"mine": 3}}, "mine is no function"),
        ({"candidates": lambda key, data: 3}, "candidate 0 .* made no model to fit, but 3"),
        ({"restarts": 2.5}, "restarts must be a whole number"),
        ({"data": np.array([1.0, np.nan])}, "finite"),
        ({"data": jaxem.Batch([COUNTS, np.array([-1, 2])])}, "data set 1"),
        ({"frozen": "nothing"}, "names no part"),
        ({"accelerate": "warp"}, "accelerate must be"),
        ({"memory": -5}, "memory"),
        ({"data": COUNTS[:4], "criterion": "cv"}, "5 folds need 5 rows or more"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    arguments = {"data": COUNTS, "candidates": [ONE]} | change
    with pytest.raises(ValueError, match=message):
        search(arguments.pop("data"), arguments.pop("candidates"), **arguments)


def test_cross_validation_is_not_there_unless_asked_for(found):
    with pytest.raises(ValueError, match="not asked for criterion='cv'"):
        found.scores("cv")


def test_candidates_have_names_of_their_own():
    ways = [ONE, ONE, partial(random_rows, num_components=1), Start(random_rows, jaxem.Poisson, 1)]
    named = ["Poisson, K=1", "candidate 1", "candidate 2", "Poisson, K=1 (random_rows)"]
    from jaxem.many.search import _named

    assert list(_named(ways)) == named


def test_a_candidate_named_like_a_nameless_one_does_not_replace_it():
    from jaxem.many.search import _named

    def number_one(key: Any, data: Any) -> Any:
        return ONE(key, data)

    number_one.__name__ = "candidate 1"
    assert len(_named([number_one, partial(random_rows, num_components=1), number_one])) == 3
