"""HMMs with hmmlearn's interface, beside hmmlearn's own and beside enumeration."""

import itertools
import logging
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import jaxem

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxem.sklearn import GMMHMM, CategoricalHMM, GaussianHMM, PoissonHMM

MANY = 200  # steps: few numbers of them, since each compiles
TYPES = ("full", "tied", "diag", "spherical")
PATH = np.repeat([0, 1, 2, 0, 2, 1], 25)
CENTERS = np.array([[0.0, 0.0], [3.0, 1.0], [-2.0, 4.0]])
LENGTHS = [70, 50, 30]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(150, 2)) + CENTERS[PATH]
COUNTS = RANDOM.poisson(np.exp(PATH))[:, None]
SYMBOLS = (RANDOM.integers(0, 2, 150) + PATH)[:, None]
ATTRIBUTES = {
    GaussianHMM: ("startprob_", "transmat_", "means_", "covars_"),
    PoissonHMM: ("startprob_", "transmat_", "lambdas_"),
    CategoricalHMM: ("startprob_", "transmat_", "emissionprob_"),
    GMMHMM: ("startprob_", "transmat_", "means_", "weights_", "covars_"),
}
DATA = {GaussianHMM: X, PoissonHMM: COUNTS, CategoricalHMM: SYMBOLS, GMMHMM: X}
EACH = pytest.mark.parametrize("cls", ATTRIBUTES, ids=lambda cls: cls.__name__)
INFORMATIVE = {
    "means_prior": 0.5,
    "means_weight": 2,
    "covars_prior": 0.3,
    "covars_weight": 5,
    "startprob_prior": 2.0,
    "transmat_prior": 0.7,
}
CASES: list[Any] = [
    *((GaussianHMM, {"covariance_type": kind}) for kind in TYPES),
    *((GaussianHMM, {"covariance_type": kind, **INFORMATIVE}) for kind in TYPES),
    (PoissonHMM, {}),
    (CategoricalHMM, {}),
    (CategoricalHMM, {"emissionprob_prior": 1.5}),
    *(
        pytest.param(
            GMMHMM,
            {"covariance_type": kind, "n_mix": 2, "params": params},
            marks=[] if kind == "diag" else pytest.mark.slow,
        )
        for kind in TYPES
        for params in ("stmw", "stcw")  # together they are no M-step there
    ),
    (GMMHMM, {"n_mix": 2, "params": "stmw", "weights_prior": 2.0, "means_weight": 1.5}),
]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """hmmlearn, and we after it, log what a test does on purpose."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def begun(cls: Any, x: np.ndarray, lengths: Any, **options: Any) -> Any:
    """A model that has taken a step from its own start, and takes more from there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = cls(3, random_state=0, n_iter=1, **options).fit(x, lengths)
    return model.set_params(init_params="", tol=0.0)


def theirs_of(model: Any) -> Any:
    """hmmlearn's model with the same parameters."""
    peer = pytest.importorskip("hmmlearn.hmm")
    names = set(model.get_params()) - {"n_init", "missing"}
    other = getattr(peer, type(model).__name__)(**{n: getattr(model, n) for n in names})
    other.tol = -1.0
    for name in ATTRIBUTES[type(model)]:
        value = np.array(getattr(model, name))
        if name == "covars_" and isinstance(model, GaussianHMM):
            value = model._covars_
        setattr(other, name, value)
    return other


def apart(one: Any, other: Any) -> float:
    """The largest difference of two models' parameters."""
    found = 0.0
    for name in ATTRIBUTES[type(one)]:
        ours, theirs = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        if ours.shape != theirs.shape:  # theirs is K·D matrices after a spherical fit
            ours, theirs = ours[:, 0, 0], other._covars_[:, 0]
        found = max(found, np.abs(ours - theirs).max())
    return found


@pytest.mark.parametrize(
    ("cls", "options"), CASES, ids=lambda value: "" if isinstance(value, dict) else value.__name__
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_step_is_hmmlearns(cls: Any, options: dict[str, Any]) -> None:
    x = DATA[cls]
    model = begun(cls, x, LENGTHS, **options)
    theirs = theirs_of(model)
    for _ in range(20):
        model.fit(x, LENGTHS)
        theirs.fit(x, LENGTHS)
        assert apart(model, theirs) < 1e-8


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_step_without_its_prior_is_noticed() -> None:
    model = begun(GaussianHMM, X, LENGTHS)
    theirs = theirs_of(model)
    model.set_params(covars_prior=0.0).fit(X, LENGTHS)
    assert apart(model, theirs.fit(X, LENGTHS)) > 1e-5


@pytest.mark.parametrize("cls", [GaussianHMM, PoissonHMM, CategoricalHMM])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_same_seed_gives_hmmlearns_fit(cls: Any) -> None:
    peer = pytest.importorskip("hmmlearn.hmm")
    options: Any = {"n_iter": 3, "random_state": 4}
    theirs = getattr(peer, cls.__name__)(3, tol=-1.0, **options).fit(DATA[cls], LENGTHS)
    model = cls(3, tol=0.0, **options).fit(DATA[cls], LENGTHS)
    assert apart(model, theirs) < 1e-9
    assert model.monitor_.iter == theirs.monitor_.iter == 3
    if cls is not GaussianHMM:  # whose prior counts here
        history = list(model.monitor_.history)
        np.testing.assert_allclose(history[:-1], list(theirs.monitor_.history), rtol=1e-10)
        assert history[-1] == pytest.approx(model.score(DATA[cls], LENGTHS), rel=1e-12)


@EACH
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_answers_about_sequences_are_hmmlearns(cls: Any) -> None:
    x = DATA[cls]
    model = begun(cls, x, LENGTHS).set_params(n_iter=MANY, tol=1e-6).fit(x, LENGTHS)
    theirs = theirs_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0 log 0 there
        assert model.score(x, LENGTHS) == pytest.approx(theirs.score(x, LENGTHS), rel=1e-10)
        ours, other = model.decode(x, LENGTHS), theirs.decode(x, LENGTHS)
        np.testing.assert_allclose(
            model.predict_proba(x, LENGTHS), theirs.predict_proba(x, LENGTHS), atol=1e-9
        )
        drawn = model.sample(9, random_state=1), theirs.sample(9, random_state=1)
    assert ours[0] == pytest.approx(other[0], rel=1e-10)
    np.testing.assert_array_equal(ours[1], other[1])
    np.testing.assert_allclose(drawn[0][0], drawn[1][0])
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])
    np.testing.assert_allclose(
        model.get_stationary_distribution(), theirs.get_stationary_distribution(), atol=1e-9
    )
    assert model.sample(3, currstate=2)[1][0] == 2


def test_information_criteria_are_hmmlearns_where_nothing_is_zero() -> None:
    model = begun(GaussianHMM, X, LENGTHS, covariance_type="full")
    theirs = theirs_of(model)
    assert model.score(X, LENGTHS) == pytest.approx(theirs.score(X, LENGTHS), rel=1e-12)
    assert model.aic(X, LENGTHS) == pytest.approx(theirs.aic(X, LENGTHS), rel=1e-12)
    assert model.bic(X, LENGTHS) == pytest.approx(theirs.bic(X, LENGTHS), rel=1e-12)
    model.startprob_ = np.array([1.0, 0.0, 0.0])
    assert model.aic(X) - 2 * -model.score(X) == pytest.approx(2 * (6 + 6 + 9))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_a_mixture_in_each_state_climbs_to_hmmlearns_fixed_point(kind: str) -> None:
    alone: dict[str, Any] = {  # without a prior the likelihood has no bound: components collapse
        "full": {"covars_prior": 0.5 * np.eye(2)},
        "tied": {"covars_prior": 0.5 * np.eye(2)},
        "diag": {"covars_weight": 0.3},
        "spherical": {"covars_prior": -2.0, "covars_weight": 0.3},
    }[kind]
    model = begun(GMMHMM, X, LENGTHS, n_mix=2, covariance_type=kind, weights_prior=2.0, **alone)
    model.set_params(n_iter=MANY, tol=1e-10)
    history = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(10):
            history.extend(model.fit(X, LENGTHS).monitor_.history)
    assert model.monitor_.converged and np.all(np.diff(history) > -1e-8)
    theirs = theirs_of(model.set_params(n_iter=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(X, LENGTHS)
    assert apart(model, theirs) < 1e-3


def test_a_mixture_without_a_prior_that_collapses_says_so() -> None:
    model = begun(GMMHMM, X, LENGTHS, n_mix=2).set_params(n_iter=MANY, tol=1e-9)
    with pytest.warns(ConvergenceWarning, match="not finite"):
        model.fit(X, LENGTHS)
    assert not model.monitor_.converged and model.monitor_.iter < MANY
    assert np.isfinite(model.score(X, LENGTHS)) and np.all(model.covars_ > 0)


def small(**options: Any) -> CategoricalHMM:
    """Two states and three symbols, of which some cannot be."""
    model = CategoricalHMM(2, init_params="", n_features=3, **options)
    model.startprob_ = np.array([0.7, 0.3])
    model.transmat_ = np.array([[0.0, 1.0], [0.4, 0.6]])
    model.emissionprob_ = np.array([[0.5, 0.5, 0.0], [0.1, 0.6, 0.3]])
    return model


def test_scores_and_paths_are_those_of_enumeration() -> None:
    model, x = small(), np.array([[0], [1], [2], [1]])
    joint = {}
    for path in itertools.product(range(2), repeat=4):
        p = model.startprob_[path[0]]
        for before, after in itertools.pairwise(path):
            p *= model.transmat_[before, after]
        joint[path] = p * np.prod(model.emissionprob_[list(path), x[:, 0]])
    total = sum(joint.values())
    assert model.score(x) == pytest.approx(np.log(total), rel=1e-12)
    best = max(joint, key=lambda path: joint[path])
    score, states = model.decode(x)
    assert tuple(states) == best and score == pytest.approx(np.log(joint[best]), rel=1e-12)
    posterior = [
        [sum(p for path, p in joint.items() if path[t] == k) / total for k in range(2)]
        for t in range(4)
    ]
    np.testing.assert_allclose(model.predict_proba(x), posterior, rtol=1e-12)
    score, states = model.decode(x, algorithm="map")
    assert tuple(states) == tuple(np.argmax(posterior, 1))
    assert np.exp(score) == pytest.approx(joint[tuple(states)], rel=1e-12)
    both = model.decode(np.concatenate([x, x[:2]]), [4, 2], algorithm="map")[0]
    assert both == pytest.approx(score + model.decode(x[:2], algorithm="map")[0], rel=1e-12)


@EACH
def test_sequences_are_told_apart_by_their_lengths(cls: Any) -> None:
    x = DATA[cls]
    model = begun(cls, x, LENGTHS)
    parts = np.split(x, np.cumsum(LENGTHS)[:-1])
    assert model.score(x, LENGTHS) == pytest.approx(sum(map(model.score, parts)), rel=1e-10)
    np.testing.assert_array_equal(
        model.predict(x, LENGTHS), np.concatenate([model.predict(part) for part in parts])
    )
    assert model.score(x) != pytest.approx(model.score(x, LENGTHS), abs=1e-3)
    with pytest.raises(ValueError, match=r"lengths array \[3, 4\] doesn't sum to 150 samples"):
        model.score(x, [3, 4])


@EACH
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sequences_of_one_step_and_of_none_work(cls: Any) -> None:
    x = DATA[cls][::30]
    model = cls(2, random_state=0).fit(x, [1, 1, 0, 1, 1, 1])
    np.testing.assert_allclose(model.transmat_.sum(1), 1)  # kept: nothing is known of it
    assert np.isfinite(model.score(x, [1] * 5))
    assert model.predict(x, [1, 1, 0, 1, 1, 1]).shape == (5,)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_state_that_cannot_be_reached_keeps_what_it_has() -> None:
    model = begun(GaussianHMM, X, LENGTHS)
    model.startprob_ = np.array([0.5, 0.5, 0.0])
    model.transmat_ = np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.2, 0.3, 0.5]])
    kept, mean = model.transmat_[2].copy(), model.means_[2].copy()
    model.set_params(n_iter=MANY, tol=1e-6).fit(X, LENGTHS)
    np.testing.assert_allclose(model.transmat_[2], kept)
    np.testing.assert_allclose(model.means_[2], mean)
    assert np.isfinite(model.score(X, LENGTHS)) and model.startprob_[2] == 0
    assert np.all(model.predict_proba(X, LENGTHS)[:, 2] == 0)


def test_an_impossible_observation_has_no_probability_and_no_nan() -> None:
    model = small()
    model.emissionprob_ = np.array([[0.5, 0.5, 0.0], [0.4, 0.6, 0.0]])
    x = np.array([[0], [2], [1], [0], [1]])
    assert model.score(x, [3, 2]) == -np.inf
    posterior = model.predict_proba(x, [3, 2])
    assert np.all(posterior[:3] == 0) and np.allclose(posterior[3:].sum(1), 1)
    assert model.decode(x, [3, 2])[0] == -np.inf
    with pytest.warns(ConvergenceWarning):
        model.fit(x, [3, 2])
    assert not model.monitor_.converged
    assert all(np.isfinite(getattr(model, name)).all() for name in ATTRIBUTES[CategoricalHMM])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[0.5], [1.0]], "Symbols should be integers"),
        ([[0], [-1]], "Symbols should be nonnegative.*-1 at row 1, column 0"),
        ([[0], [3]], "Largest symbol is 3 but the model only emits symbols up to 2 .row 1"),
    ],
)
def test_symbols_that_cannot_be_are_refused_by_name(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().score(x)
    with pytest.raises(ValueError, match=message):
        small().fit(x)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_several_columns_of_symbols_are_independent_given_the_state() -> None:
    x = np.concatenate([SYMBOLS, SYMBOLS[::-1]], 1)
    model = CategoricalHMM(2, random_state=0, n_iter=MANY).fit(x, LENGTHS)
    assert model.emissionprob_.shape == (2, 2, 4)
    assert model.monitor_.iter > 2 and np.all(np.diff(model.monitor_.history) > -1e-9)
    assert model.sample(5)[0].shape == (5, 2)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_covariances_keep_their_shape(kind: str) -> None:
    model = begun(GaussianHMM, X, LENGTHS, covariance_type=kind)
    for _ in range(2):
        model.set_params(n_iter=MANY, tol=1e-6).fit(X, LENGTHS)
        assert model.covars_.shape == (3, 2, 2)
        np.testing.assert_allclose(model.covars_, np.swapaxes(model.covars_, 1, 2))
        before = model.covars_.copy()
        model.covars_ = model.covars_
        np.testing.assert_array_equal(model.covars_, before)
        model.covars_ = model._covars_


def test_variances_that_are_set_before_means_are_kept() -> None:
    model = GaussianHMM(3, "spherical", params="stm", init_params="stm", random_state=0, n_iter=1)
    model.covars_ = [1.0, 2.0, 3.0]
    with pytest.warns(ConvergenceWarning):
        model.fit(X, LENGTHS)
    np.testing.assert_allclose(model.covars_[:, 0, 0], [1, 2, 3])


@pytest.mark.parametrize(
    ("kind", "covars", "message"),
    [
        ("spherical", [1.0], "'spherical' covars have length n_components"),
        ("spherical", [1.0, -1.0], "'spherical' covars must be positive"),
        ("diag", [1.0, 1.0], "'diag' covars must have shape"),
        ("diag", [[1.0], [0.0]], "'diag' covars must be positive"),
        ("tied", [[1.0, 2.0]], "'tied' covars must have shape"),
        ("tied", [[1.0, 2.0], [0.0, 1.0]], "'tied' covars must be symmetric"),
        ("full", [[1.0]], "'full' covars must have shape"),
        ("full", [[[1.0, 2.0], [2.0, 1.0]]], "component 0 of 'full' covars must be symmetric"),
    ],
)
def test_covariances_that_are_none_are_refused(kind: str, covars: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianHMM(2, kind).covars_ = covars


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("startprob_", [0.5, 0.5], "startprob_ must have length n_components"),
        ("startprob_", [0.5, 0.5, 0.5], r"startprob_ must sum to 1 \(got 1.5000\)"),
        ("transmat_", np.eye(2), r"transmat_ must have shape \(n_components, n_components\)"),
        ("transmat_", np.ones((3, 3)), "transmat_ rows must sum to 1"),
        ("transmat_", 2 * np.eye(3) - 1 / 3, "transmat_ must not be negative"),
        ("means_", np.zeros((3, 5)), "Unexpected number of dimensions, got 2 but expected 5"),
    ],
)
def test_parameters_that_are_none_are_refused_in_hmmlearns_words(
    name: str, value: Any, message: str
) -> None:
    model = begun(GaussianHMM, X, LENGTHS)
    setattr(model, name, value)
    with pytest.raises(ValueError, match=message):
        model.fit(X, LENGTHS)


@EACH
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_zeros_stay_zero(cls: Any) -> None:
    model = begun(cls, DATA[cls], LENGTHS, startprob_prior=1.5, transmat_prior=1.5)
    model.startprob_ = np.array([1.0, 0.0, 0.0])
    model.transmat_ = np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.1, 0.0, 0.9]])
    where = model.transmat_ == 0
    model.set_params(n_iter=MANY, tol=1e-6).fit(DATA[cls], LENGTHS)
    np.testing.assert_array_equal(model.transmat_ == 0, where)
    assert model.startprob_.tolist() == [1, 0, 0]


@pytest.mark.slow
@EACH
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_letters_say_what_is_fitted(cls: Any) -> None:
    x, names = DATA[cls], ATTRIBUTES[cls]
    letters = cls().params
    for letter in letters:
        model = begun(cls, x, LENGTHS)
        before = {name: np.array(getattr(model, name)) for name in names}
        model.set_params(params=letters.replace(letter, "")).fit(x, LENGTHS)
        held = [
            name for name in names if np.allclose(before[name], getattr(model, name), atol=1e-13)
        ]
        # With one component a state its weight is 1 anyway.
        assert model._letters[letter][0] in held and set(held) <= {
            model._letters[letter][0],
            "weights_",
        }


@EACH
def test_a_weight_is_how_often_a_sequence_counts(cls: Any) -> None:
    x = DATA[cls]
    parts = np.split(x, np.cumsum(LENGTHS)[:-1])
    with pytest.warns(ConvergenceWarning):
        weighted = begun(cls, x, LENGTHS).fit(x, LENGTHS, sample_weight=[2, 0, 1])
        repeated = begun(cls, x, LENGTHS)
        repeated.fit(np.concatenate([parts[0], parts[0], parts[2]]), [70, 70, 30])
    assert apart(weighted, repeated) < 1e-9
    with pytest.raises(ValueError, match=r"sample_weight must be \[3\]"):
        weighted.fit(x, LENGTHS, sample_weight=np.ones(150))


@EACH
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_missing_entries_are_marginalised(cls: Any) -> None:
    x = DATA[cls].astype(float)
    model = begun(cls, x, LENGTHS, missing="marginalize")
    hidden = x.copy()
    hidden[20:23] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        begun(cls, x, LENGTHS).score(hidden)
    # p(x with a hole) is forecast from before the hole, and goes on after it.
    filtered = model.filter(hidden)
    np.testing.assert_allclose(
        filtered[22], filtered[19] @ np.linalg.matrix_power(model.transmat_, 3)
    )
    model.set_params(n_iter=MANY, tol=1e-6).fit(hidden, LENGTHS)
    assert model.monitor_.iter > 2 and np.all(np.diff(model.monitor_.history) > -1e-8)


@EACH
def test_filtering_and_forecasting(cls: Any) -> None:
    x = DATA[cls]
    model = begun(cls, x, LENGTHS)
    ends = np.cumsum(LENGTHS) - 1
    filtered = model.filter(x, LENGTHS)
    np.testing.assert_allclose(filtered[ends], model.predict_proba(x, LENGTHS)[ends], atol=1e-10)
    states, expected = model.forecast(x, LENGTHS, n_steps=2000)
    assert states.shape == (3, 2000, 3)
    np.testing.assert_allclose(states[:, 0], filtered[ends] @ model.transmat_, rtol=1e-9)
    np.testing.assert_allclose(
        states[:, -1], np.tile(model.get_stationary_distribution(), (3, 1)), rtol=1e-6
    )
    assert expected.shape == (3, 2000, {CategoricalHMM: 4, PoissonHMM: 1}.get(cls, 2))
    assert model.forecast(x)[0].shape == (1, 3)
    with pytest.raises(ValueError, match="n_steps must be 1 or more"):
        model.forecast(x, n_steps=0)


def test_steps_that_run_out_are_no_convergence() -> None:
    with pytest.warns(ConvergenceWarning, match="n_iter=2"):
        model = GaussianHMM(3, n_iter=2, random_state=0).fit(X, LENGTHS)
    assert not model.monitor_.converged and model.monitor_.iter == 2
    assert len(model.monitor_.history) == 3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_best_of_several_starts_is_kept() -> None:
    options: Any = {"n_iter": MANY, "tol": 1e-3, "random_state": 3}
    one = CategoricalHMM(3, **options).fit(SYMBOLS, LENGTHS)
    several = CategoricalHMM(3, n_init=4, **options).fit(SYMBOLS, LENGTHS)
    again = CategoricalHMM(3, n_init=4, **options).fit(SYMBOLS, LENGTHS)
    assert several.score(SYMBOLS, LENGTHS) >= one.score(SYMBOLS, LENGTHS) - 1e-9
    np.testing.assert_array_equal(several.emissionprob_, again.emissionprob_)


@pytest.mark.slow
@EACH
def test_what_is_fitted_is_certified(cls: Any) -> None:
    options: Any = {"covars_prior": 0.0} if cls is GaussianHMM else {}
    model = begun(cls, DATA[cls], LENGTHS, **options)
    with pytest.warns(ConvergenceWarning):
        model.fit(DATA[cls], LENGTHS)
    certificate = model.certify(DATA[cls], LENGTHS)
    assert certificate.passed, certificate


def test_what_components_share_is_not_certified() -> None:
    model = begun(GMMHMM, X, LENGTHS, n_mix=2, covariance_type="tied")
    with pytest.raises(ValueError, match="share"):
        model.certify(X, LENGTHS)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_dtype_follows_the_data() -> None:
    for dtype in (np.float32, np.float64):
        model = GaussianHMM(3, random_state=0).fit(X.astype(dtype), LENGTHS)
        assert model.means_.dtype == model._covars_.dtype == model.transmat_.dtype == dtype
        assert model.predict_proba(X.astype(dtype)).dtype == dtype


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_it_works_in_a_pipeline_a_search_a_clone_and_a_pickle() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["left", "right"])
    pipeline = make_pipeline(StandardScaler(), GaussianHMM(random_state=0, n_iter=MANY))
    pipeline.set_output(transform="pandas")
    search = GridSearchCV(pipeline, {"gaussianhmm__n_components": [1, 3]}, cv=KFold(2)).fit(frame)
    assert search.best_params_ == {"gaussianhmm__n_components": 3}
    best = search.best_estimator_
    assert best[-1].feature_names_in_.tolist() == ["left", "right"]
    copy = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(copy.predict(frame), search.predict(frame))
    assert clone(best[-1]).get_params() == best[-1].get_params()
    assert not hasattr(clone(best[-1]), "monitor_")


def test_verbose_shows_the_steps_and_logs_say_what_is_overwritten(capsys: Any, caplog: Any) -> None:
    logging.disable(logging.NOTSET)
    model = GaussianHMM(2, random_state=0, n_iter=MANY, verbose=True).fit(X[:4])
    assert len(capsys.readouterr().err.splitlines()) == model.monitor_.iter + 1
    assert "with only 8 data points" in caplog.text
    model.fit(X)
    assert "Even though the 'means_' attribute is set" in caplog.text


def test_the_core_says_the_same() -> None:
    model = begun(GaussianHMM, X, LENGTHS, covariance_type="full")
    core = jaxem.HMM(
        jaxem.Categorical.from_probs(model.startprob_),
        jaxem.Categorical.from_probs(model.transmat_),
        jaxem.Gaussian.from_moments(model.means_, model.covars_),
    )
    parts = np.split(X.astype(np.float32), np.cumsum(LENGTHS)[:-1])
    assert float(core.log_likelihood(parts)) == pytest.approx(model.score(X, LENGTHS), rel=1e-5)


def test_an_impossible_sequence_has_no_path_however_it_is_decoded() -> None:
    model = small()
    model.emissionprob_ = np.array([[0.5, 0.5, 0.0], [0.4, 0.6, 0.0]])
    for algorithm in ("viterbi", "map"):
        score, states = model.decode([[0], [2], [1]], [2, 1], algorithm=algorithm)
        assert score == -np.inf and states[:2].tolist() == [-1, -1] and states[2] >= 0


@pytest.mark.parametrize(
    ("kind", "matrices"),
    [
        ("diag", [[[1, 0.9], [0.9, 1]]] * 2),
        ("spherical", [[[1.0, 0], [0, 5]]] * 2),
        ("tied", [np.eye(2), 9 * np.eye(2)]),
        ("diag", [[1.0, np.nan], [1, 1]]),
    ],
)
def test_covariances_of_another_type_are_not_cut_to_size(kind: str, matrices: Any) -> None:
    with pytest.raises(ValueError, match="covars"):
        GaussianHMM(2, kind).covars_ = matrices


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_symbols_of_several_columns_are_refused_by_their_own_number() -> None:
    x = np.concatenate([SYMBOLS % 2, SYMBOLS], 1)
    model = CategoricalHMM(2, random_state=0, n_iter=1).fit(x)
    with pytest.raises(ValueError, match="Largest symbol is 2 .* up to 1 .row 0, column 0"):
        model.score([[2, 0]])
    given = CategoricalHMM(2, random_state=0, n_features=[2, 5], n_iter=1).fit(x)
    assert given.emissionprob_.shape == (2, 2, 5) and np.isfinite(given.score(x))
    with pytest.raises(ValueError, match="n_features"):
        CategoricalHMM(2, n_features=3.5).fit(SYMBOLS)


def test_sequences_too_uneven_to_be_padded_are_refused_before_they_are() -> None:
    lengths = [50_000, *[1] * 5000]
    with pytest.raises(ValueError, match="5001 sequences are padded to the longest, 50000 steps"):
        GaussianHMM(2).fit(np.arange(55_000.0)[:, None], lengths)


def test_letters_that_name_nothing_and_priors_that_pretend_nothing_are_named() -> None:
    with pytest.raises(ValueError, match="params may hold 'stmc', got 'xyz'"):
        GaussianHMM(2, params="xyz").fit(X)
    model = begun(GaussianHMM, X, LENGTHS, startprob_prior=0.5)
    with pytest.raises(ValueError, match="Dirichlet parameter below 1"):
        model.certify(X, LENGTHS)


def test_a_stationary_distribution_is_of_floats_and_of_the_transitions() -> None:
    model = GaussianHMM(2)
    model.transmat_ = np.array([[0, 1], [1, 0]])
    found = model.get_stationary_distribution()
    assert found.dtype == np.double and found.tolist() == [0.5, 0.5]
    model.transmat_ = np.eye(2)
    assert np.isnan(model.get_stationary_distribution()).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_float32_stays_so_where_float64_is_switched_on(x64: None) -> None:
    model = CategoricalHMM(2, random_state=0, n_iter=1).fit(SYMBOLS.astype(np.float32))
    assert model.startprob_.dtype == model.emissionprob_.dtype == np.single
    assert GaussianHMM(2, random_state=0, n_iter=1).fit(np.float32(X)).sample(2)[0].dtype == "f4"
