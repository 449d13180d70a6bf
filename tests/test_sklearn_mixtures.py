"""Mixtures with scikit-learn's interface, beside scikit-learn's own and beside the core."""

import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

import jaxem

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Theirs
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxem.sklearn import BernoulliMixture, CategoricalMixture, GaussianMixture, PoissonMixture
from jaxem.sklearn.buckets import bucket
from jaxem.sklearn.mixture_estimator import NOT_CONVERGED

TYPES = ("full", "tied", "diag", "spherical")
FITTED = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
IRIS = load_iris().data


def symbols(random: Any, number: int) -> np.ndarray:
    return random.integers(0, 3, (number, 4)) + (np.arange(number) % 2)[:, None]


DISCRETE = {
    BernoulliMixture: lambda random, number: (symbols(random, number) > 1).astype(float),
    PoissonMixture: lambda random, number: (
        random.poisson(2 + 9 * (np.arange(number) % 2), (4, number)).T
    ),
    CategoricalMixture: symbols,
}


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """What has been compiled since the test began, appended to as it goes on."""
    events: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def stepwise(model: Any, theirs: Any, x: np.ndarray, steps: int = 20) -> float:
    """The largest difference between two mixtures that step together from their own starts."""
    apart = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(steps):
            model.fit(x)
            theirs.fit(x)
            for name in FITTED:
                apart = max(apart, np.abs(getattr(model, name) - getattr(theirs, name)).max())
    return apart


@pytest.mark.parametrize("init_params", ["kmeans", "random"])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_every_step_is_scikit_learns(covariance_type: str, init_params: str) -> None:
    options: Any = {
        "covariance_type": covariance_type,
        "init_params": init_params,
        "reg_covar": 0.2 if init_params == "kmeans" else 1e-6,
        "random_state": 0,
        "max_iter": 1,
        "warm_start": True,
        "tol": 0.0,
    }
    assert stepwise(GaussianMixture(3, **options), Theirs(3, **options), IRIS) < 1e-8


def test_a_step_without_reg_covar_is_noticed() -> None:
    options: Any = {"random_state": 0, "max_iter": 1, "warm_start": True, "tol": 0.0}
    plain, regular = (
        GaussianMixture(3, reg_covar=0.0, **options),
        Theirs(3, reg_covar=0.2, **options),
    )
    assert stepwise(plain, regular, IRIS, steps=2) > 1e-2


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_fit_ends_where_scikit_learns_does(covariance_type: str) -> None:
    options: Any = {"covariance_type": covariance_type, "random_state": 0, "n_init": 2, "tol": 1e-8}
    model = GaussianMixture(3, max_iter=1000, **options).fit(IRIS)
    theirs = Theirs(3, max_iter=1000, **options).fit(IRIS)
    assert model.converged_
    for name in FITTED:
        np.testing.assert_allclose(getattr(model, name), getattr(theirs, name), rtol=0.1, atol=0.02)
    assert model.lower_bound_ == pytest.approx(theirs.score(IRIS), abs=1e-6)
    assert model.score(IRIS) == pytest.approx(model.lower_bound_, abs=1e-12)
    assert model.lower_bounds_[-1] == model.lower_bound_
    assert len(model.lower_bounds_) == model.n_iter_
    assert model.aic(IRIS) == pytest.approx(theirs.aic(IRIS), abs=1e-3)
    assert model.bic(IRIS) == pytest.approx(theirs.bic(IRIS), abs=1e-3)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_answers_about_rows_are_scikit_learns(covariance_type: str) -> None:
    theirs = Theirs(3, covariance_type=covariance_type, random_state=0).fit(IRIS)
    model = GaussianMixture(3, covariance_type=covariance_type, random_state=0)
    for name in FITTED:
        setattr(model, name, getattr(theirs, name))
    np.testing.assert_array_equal(model.predict(IRIS), theirs.predict(IRIS))
    np.testing.assert_allclose(model.predict_proba(IRIS), theirs.predict_proba(IRIS), atol=1e-10)
    np.testing.assert_allclose(model.score_samples(IRIS), theirs.score_samples(IRIS), atol=1e-9)
    for ours, other in zip(model.sample(20), theirs.sample(20), strict=True):
        np.testing.assert_allclose(ours, other)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_starts_that_are_given_are_taken_as_scikit_learn_takes_them(covariance_type: str) -> None:
    fitted = Theirs(3, covariance_type=covariance_type, random_state=1, max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(IRIS)
        options: Any = {
            "covariance_type": covariance_type,
            "weights_init": fitted.weights_,
            "means_init": fitted.means_,
            "precisions_init": fitted.precisions_,
            "max_iter": 1,
        }
        model, theirs = GaussianMixture(3, **options).fit(IRIS), Theirs(3, **options).fit(IRIS)
    for name in FITTED:
        np.testing.assert_allclose(getattr(model, name), getattr(theirs, name), rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "x"),
    [
        ({"n_components": 0}, IRIS),
        ({"n_components": 200}, IRIS),
        ({"tol": -1.0}, IRIS),
        ({"covariance_type": "round"}, IRIS),
        ({"init_params": "best"}, IRIS),
        ({"weights_init": [1.0]}, IRIS),
        ({"weights_init": [0.2, 0.2, 0.2]}, IRIS),
        ({"means_init": np.zeros((3, 3))}, IRIS),
        ({"precisions_init": np.zeros((3, 3))}, IRIS),
        ({"precisions_init": -np.ones(3), "covariance_type": "spherical"}, IRIS),
        ({"precisions_init": np.full((4, 4), -1.0), "covariance_type": "tied"}, IRIS),
        ({"reg_covar": 0.0}, np.ones((20, 2))),
        ({}, IRIS[:1]),
        ({}, IRIS[:, 0]),
        ({}, np.where(IRIS > 7.8, np.nan, IRIS)),
        ({}, np.where(IRIS > 7.8, np.inf, IRIS)),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_is_refused_is_refused_in_scikit_learns_words(options: Any, x: np.ndarray) -> None:
    options = {"n_components": 3, **options}
    with pytest.raises(ValueError) as theirs:
        Theirs(**options).fit(x)
    with pytest.raises(ValueError) as ours:
        GaussianMixture(**options).fit(x)
    words = [sorted(re.findall(r"[^\s{},]+", str(one.value))) for one in (ours, theirs)]
    assert words[0] == words[1]  # the options of a parameter are a set, in any order


def test_the_largest_weight_is_named_as_the_largest() -> None:
    with pytest.raises(ValueError, match=r"range \[0, 1\], .* max value 2.0*, min value -1"):
        GaussianMixture(3, weights_init=[2.0, -1.0, 0.0]).fit(IRIS)


def test_a_fit_out_of_steps_warns_in_scikit_learns_words() -> None:
    with pytest.warns(ConvergenceWarning, match="did not converge") as caught:
        model = GaussianMixture(3, random_state=0, max_iter=1).fit(IRIS)
    assert str(caught[0].message) == NOT_CONVERGED
    assert not model.converged_ and model.n_iter_ == 1


def test_no_steps_keep_the_start_without_a_warning() -> None:
    model = GaussianMixture(3, random_state=0, max_iter=0).fit(IRIS)
    theirs = Theirs(3, random_state=0, max_iter=0).fit(IRIS)
    np.testing.assert_allclose(model.means_, theirs.means_, rtol=1e-12)
    assert not model.converged_ and model.n_iter_ == 0 and model.lower_bounds_ == []


def given(x: np.ndarray, **options: Any) -> GaussianMixture:
    """A mixture of two whose start does not depend on how rows are counted."""
    covariance = np.cov(x.T)
    return GaussianMixture(
        2,
        weights_init=[0.5, 0.5],
        means_init=x[[0, -1]],
        precisions_init=np.stack([np.linalg.inv(covariance)] * 2),
        **options,
    )


def test_a_weight_is_how_often_a_row_counts() -> None:
    weight = np.arange(len(IRIS)) % 3
    weighted = given(IRIS).fit(IRIS, sample_weight=weight)
    repeated = given(IRIS).fit(np.repeat(IRIS, weight, 0))
    assert weighted.n_iter_ == repeated.n_iter_
    for name in FITTED:
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, abs=1e-12)
    assert abs(given(IRIS).fit(IRIS).means_ - weighted.means_).max() > 1e-3


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_rows_of_weight_zero_start_nothing(init_params: str) -> None:
    x = np.concatenate([IRIS, np.full((20, 4), 1e3)])
    weight = np.repeat([1.0, 0.0], [len(IRIS), 20])
    model = GaussianMixture(3, init_params=init_params, random_state=0, max_iter=0)
    assert model.fit(x, sample_weight=weight).means_.max() < 10


@pytest.mark.parametrize("weight", [np.zeros(150), -np.ones(150), np.ones(7), np.full(150, np.nan)])
def test_weights_that_count_nothing_are_refused(weight: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"(?i)sample.weight"):
        GaussianMixture().fit(IRIS, sample_weight=weight)


def test_missing_entries_are_marginalised() -> None:
    hidden = np.where(np.random.default_rng(0).random(IRIS.shape) < 0.1, np.nan, IRIS)
    model = GaussianMixture(2, random_state=0, missing="marginalize", reg_covar=0.0, tol=1e-6)
    model.fit(hidden)
    assert model.converged_ and np.all(np.diff(model.lower_bounds_) > -1e-9)
    with jax.enable_x64(True):
        core = jaxem.Mixture(
            jaxem.Categorical.from_probs(model.weights_),
            jaxem.Gaussian.from_moments(model.means_, model.covariances_),
        )
        expected = np.asarray(core.log_prob(jaxem.Samples.from_nan(hidden)))
        further = jaxem.fit(
            core, jaxem.Samples.from_nan(hidden), prior=jaxem.Prior(floor=0.0), max_steps=1
        )
    np.testing.assert_allclose(model.score_samples(hidden), expected, rtol=1e-9)
    assert float(further.log_likelihood) / len(hidden) - model.lower_bound_ < 2e-6
    nothing = np.full((1, 4), np.nan)
    np.testing.assert_allclose(model.predict_proba(nothing)[0], model.weights_, rtol=1e-12)
    assert model.score_samples(nothing)[0] == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="contains NaN"):
        GaussianMixture().fit(hidden)


def test_a_column_never_observed_is_refused() -> None:
    x = IRIS.copy()
    x[:, 2] = np.nan
    with pytest.raises(ValueError, match="column 2 is never observed"):
        GaussianMixture(missing="marginalize").fit(x)


@pytest.mark.parametrize("part", ["weights", "means", "covariances"])
def test_frozen_parts_stay_where_they_start(part: str) -> None:
    start = given(IRIS, max_iter=0).fit(IRIS)
    fitted = given(IRIS, frozen=part).fit(IRIS)
    for name in ("weights_", "means_", "covariances_"):
        moved = np.abs(getattr(fitted, name) - getattr(start, name)).max()
        assert moved < 1e-12 if name == f"{part}_" else moved > 1e-3, name
    if part != "covariances":  # else each step adds `reg_covar` to nothing that is fitted
        assert np.all(np.diff(fitted.lower_bounds_) > -1e-6)
    with pytest.raises(ValueError, match="frozen may hold"):
        GaussianMixture(frozen=["shape"]).fit(IRIS)


def test_a_weight_of_zero_stays_zero() -> None:
    model = GaussianMixture(3, weights_init=[0.5, 0.5, 0.0], random_state=0).fit(IRIS)
    assert model.weights_[2] == 0 and np.isfinite(model.means_).all()


def test_the_dtype_follows_the_data_and_no_switch_is_thrown() -> None:
    before = jax.config.jax_enable_x64
    for dtype in (np.float32, np.float64, int):
        expected = np.float64 if dtype is int else dtype
        model = GaussianMixture(2, random_state=0).fit((10 * IRIS).astype(dtype))
        assert {getattr(model, name).dtype for name in FITTED} == {np.dtype(expected)}
        assert model.predict_proba((10 * IRIS).astype(dtype)).dtype == expected
        assert model.sample(3)[0].dtype == expected
    assert jax.config.jax_enable_x64 == before


def test_the_best_of_several_starts_is_kept() -> None:
    one = [
        GaussianMixture(4, init_params="random", random_state=seed).fit(IRIS) for seed in range(3)
    ]
    shared = np.random.RandomState(0)
    several = GaussianMixture(4, init_params="random", random_state=shared, n_init=3).fit(IRIS)
    again = GaussianMixture(
        4, init_params="random", random_state=np.random.RandomState(0), n_init=3
    ).fit(IRIS)
    assert several.lower_bound_ >= one[0].lower_bound_ - 1e-12
    np.testing.assert_array_equal(several.means_, again.means_)
    assert len({round(model.lower_bound_, 6) for model in one}) > 1


def test_a_warm_start_goes_on() -> None:
    model = GaussianMixture(3, random_state=0, warm_start=True, max_iter=100).fit(IRIS)
    first = model.lower_bound_
    assert model.fit(IRIS).lower_bound_ >= first and model.n_iter_ < 5


def test_verbose_says_how_it_ended(capsys: Any) -> None:
    GaussianMixture(2, random_state=0, verbose=2, verbose_interval=1).fit(IRIS)
    shown = capsys.readouterr().out
    assert shown.startswith("Initialization 0\n  Iteration 1\t ll change ")
    assert "Initialization converged. lower bound" in shown


def test_a_second_fit_compiles_nothing_and_neither_do_folds(compiled: list[str]) -> None:
    GaussianMixture(2, random_state=0).fit(IRIS[:120]).score(IRIS[120:])
    assert compiled
    compiled.clear()
    for left in (0, 30, 60):
        fold = np.delete(IRIS, np.s_[left : left + 30 + left // 30], 0)
        model = GaussianMixture(2, random_state=left, tol=1e-4, reg_covar=1e-5).fit(fold)
        model.score(IRIS[left : left + 29])
    assert not compiled


def test_sizes_of_buckets() -> None:
    sizes = [bucket(number, 16) for number in range(1, 5000)]
    assert all(size >= number for number, size in enumerate(sizes, 1))
    assert all(size <= max(number + 15, number * 9 / 8) for number, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes) and len(set(sizes)) < 60


def test_data_frames_go_in_and_their_names_are_kept() -> None:
    frame = load_iris(as_frame=True).data
    model = GaussianMixture(3, random_state=0).fit(frame)
    plain = GaussianMixture(3, random_state=0).fit(IRIS)
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    assert model.n_features_in_ == 4 and not hasattr(plain, "feature_names_in_")
    np.testing.assert_array_equal(model.predict(frame), plain.predict(IRIS))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[frame.columns[::-1]])


def test_it_works_in_a_pipeline_a_search_a_clone_and_a_pickle() -> None:
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(random_state=0))
    pipeline.set_output(transform="pandas")
    frame = load_iris(as_frame=True).data
    search = GridSearchCV(
        pipeline,
        {"gaussianmixture__n_components": [1, 2]},
        cv=KFold(3, shuffle=True, random_state=0),
    )
    search.fit(frame)
    best = search.best_estimator_[-1]
    assert best.feature_names_in_.tolist() == frame.columns.tolist()
    assert search.best_params_ == {"gaussianmixture__n_components": 2}
    copy = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(copy.predict_proba(frame), search.predict_proba(frame))
    assert clone(best).get_params() == best.get_params()
    assert not hasattr(clone(best), "means_")


@pytest.mark.slow
def test_what_is_fitted_is_certified() -> None:
    model = GaussianMixture(2, random_state=0, reg_covar=0.0, tol=1e-10, max_iter=1000).fit(IRIS)
    certificate = model.certify(IRIS)
    assert certificate.passed, certificate
    assert certificate["fixed_point.maximum"].outcome == "passed"


@pytest.mark.parametrize("cls", DISCRETE, ids=lambda cls: cls.__name__)
def test_a_discrete_mixture_recovers_what_it_sampled(cls: Any) -> None:
    x = DISCRETE[cls](np.random.default_rng(0), 400)
    model = cls(2, random_state=0, tol=1e-6, max_iter=500).fit(x)
    assert model.converged_ and np.all(np.diff(model.lower_bounds_) > -1e-9)
    drawn, member = model.sample(4000)
    assert drawn.shape == (4000, 4) and np.all(np.diff(member) >= 0)
    again = cls(2, random_state=0, tol=1e-6, max_iter=500).fit(drawn)
    assert again.score(x) > model.score(x) - 0.05
    assert model.score(x) == pytest.approx(model.lower_bound_, abs=1e-9)
    assert model.aic(x) - model.bic(x) == pytest.approx(
        model._n_parameters() * (2 - np.log(len(x)))
    )
    assert pickle.loads(pickle.dumps(model)).score(x) == model.score(x)


@pytest.mark.parametrize("cls", DISCRETE, ids=lambda cls: cls.__name__)
def test_one_component_is_the_frequencies_and_weights_count(cls: Any) -> None:
    x = DISCRETE[cls](np.random.default_rng(1), 60)
    weight = np.arange(60) % 4
    fitted = {
        BernoulliMixture: lambda model: model.probs_[0],
        PoissonMixture: lambda model: model.lambdas_[0],
        CategoricalMixture: lambda model: model.probs_[0] @ np.arange(model.probs_.shape[-1]),
    }[cls]
    model = cls().fit(x, sample_weight=weight)
    np.testing.assert_allclose(fitted(model), np.average(x, 0, weight), rtol=1e-9)
    hidden = np.where(np.random.default_rng(2).random(x.shape) < 0.2, np.nan, x)
    model = cls(missing="marginalize", tol=1e-12, max_iter=1000).fit(hidden)
    np.testing.assert_allclose(fitted(model), np.nanmean(hidden, 0), rtol=1e-4)


def test_symbols_out_of_range_and_negative_ones_are_refused_by_name() -> None:
    x = np.array([[0, 1], [2, 0], [1, 1]])
    model = CategoricalMixture().fit(x)
    assert model.n_categories_.tolist() == [3, 2] and model.probs_[0, 1, 2] == 0
    with pytest.raises(ValueError, match="Largest symbol is 2 .* up to 1 .row 0, column 1"):
        model.predict([[0, 2]])
    with pytest.raises(ValueError, match=r"Negative values in data.*-1.0 at row 1, column 0"):
        model.fit([[0, 0], [-1, 0]])
    with pytest.raises(ValueError, match="Largest symbol is 2"):
        CategoricalMixture(n_categories=2).fit(x)
    with pytest.warns(match="not whole"):
        assert PoissonMixture().fit([[0.5], [2.0]]).lambdas_[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("model", "name", "start"),
    [
        (BernoulliMixture(2), "probs", [[0.0, 0.3], [0.9, 0.8]]),
        (PoissonMixture(2), "lambdas", [[0.0, 1.0], [1.0, 2.0]]),
        (CategoricalMixture(2), "probs", [[[0.0, 1.0], [0.5, 0.5]], [[0.2, 0.8], [0.7, 0.3]]]),
    ],
    ids=["Bernoulli", "Poisson", "Categorical"],
)
def test_discrete_starts_are_taken_zeros_stay_and_frozen_parts_hold(
    model: Any, name: str, start: Any
) -> None:
    x = np.array([[0, 1], [1, 0], [1, 1], [0, 0], [1, 1], [0, 1]])
    model.set_params(**{f"{name}_init": start}, weights_init=[0.3, 0.7])
    fitted = getattr(clone(model).fit(x), f"{name}_")
    assert fitted.flat[0] == 0 and abs(fitted - np.array(start)).max() > 1e-2
    held = clone(model).set_params(frozen=[name]).fit(x)
    np.testing.assert_allclose(getattr(held, f"{name}_"), start, rtol=1e-12)
    with pytest.raises(ValueError, match="should have the shape of"):
        clone(model).set_params(**{f"{name}_init": [[0.5]]}).fit(x)


def test_without_scikit_learn_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import jaxem\n"
        "try:\n    import jaxem.sklearn\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'jaxem[sklearn]'" in done.stdout


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_large_numbers_overflow_nowhere(covariance_type: str) -> None:
    """Off-diagonal entries of a factor went through an exponential of which nothing was used."""
    x = 3e3 * IRIS @ np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    model = GaussianMixture(2, covariance_type=covariance_type, random_state=0).fit(x)
    assert np.isfinite(model.score(x)) and np.abs(model.precisions_cholesky_).max() < 1


def test_a_number_of_components_set_later_counts_from_the_next_fit_on() -> None:
    model = GaussianMixture(2, random_state=0).fit(IRIS)
    before = model.aic(IRIS)
    model.set_params(n_components=3)
    assert set(model.sample(50)[1]) == {0, 1} and model.aic(IRIS) == before
    assert model.fit(IRIS).means_.shape == (3, 4)


def test_a_fit_that_fails_leaves_the_symbols_of_the_one_before() -> None:
    x = symbols(np.random.default_rng(0), 40)
    fresh = CategoricalMixture(
        2, random_state=0, warm_start=True, probs_init=np.ones((2, 4, 2)) / 2
    )
    with pytest.raises(ValueError, match="should have the shape"):
        fresh.fit(np.zeros((4, 4)))
    fresh.set_params(probs_init=None).fit(x)
    fitted = fresh.n_categories_.tolist()
    with pytest.raises(ValueError, match="Negative values"):
        fresh.set_params(warm_start=False).fit(-1 - x)
    assert fresh.n_categories_.tolist() == fitted and np.isfinite(fresh.score(x))
    with pytest.raises(ValueError, match="n_categories"):
        CategoricalMixture(n_categories=3.7).fit(x)


def test_more_of_what_cannot_be_is_named() -> None:
    for frozen in ([["means"]], ["shape"], [3]):
        with pytest.raises(ValueError, match="frozen"):
            GaussianMixture(frozen=frozen).fit(IRIS)
    weight = np.eye(1, 150)[0]
    with pytest.raises(ValueError, match="above 0 in 1 rows, fewer than n_components=2"):
        GaussianMixture(2, init_params="random_from_data").fit(IRIS, sample_weight=weight)
    with pytest.raises(ValueError, match="must be 0 or 1: 5.1 at row 0, column 0"):
        BernoulliMixture(binarize=None).fit(IRIS)
    impossible = np.array([[0.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="impossible under the start"):
        BernoulliMixture(2, probs_init=impossible).fit(np.array([[1, 0], [1, 1]]))
