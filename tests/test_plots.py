"""The pictures: what is drawn, where, and that nothing is cut off or hidden."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import jaxem
from jaxem import plots
from jaxem.many import SearchResult
from jaxem.plots.hmm import RIBBON

pytest.importorskip("matplotlib")

HALF = jaxem.Categorical.from_probs(np.array([0.5, 0.5]))
STAY = jaxem.Categorical.from_probs(np.array([[0.9, 0.1], [0.1, 0.9]]))
MEANS = np.array([[0.0, 0.0, 0.0], [5.0, 5.0, 1.0]])
ROWS = np.random.default_rng(0).normal(size=(24, 3)) + MEANS[np.arange(24) // 6 % 2]
COUNTS = np.random.default_rng(1).poisson(3, 24)


def gaussians(size: int) -> Any:
    return jaxem.Gaussian.from_moments(MEANS[:, :size], np.stack([np.eye(size)] * 2))


def legend(axes: Any) -> list[str]:
    return [entry.get_text() for entry in axes.get_legend().get_texts()]


def assert_nothing_overlaps(axes: Any) -> None:
    """The legend lies inside the figure and outside the data."""
    figure = axes.figure
    figure.draw_without_rendering()
    box = axes.get_legend().get_window_extent()
    assert box.y0 >= axes.bbox.y1 - 1
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_gaussian_mixture_is_a_histogram_a_scatter_or_its_principal_plane(size: int) -> None:
    model = jaxem.Mixture(HALF, gaussians(size))
    axes = plots.mixture(model, ROWS[:, :size], names=["u", "v", "w"][:size])
    assert_nothing_overlaps(axes)
    if size == 1:
        assert legend(axes) == ["data", "mixture", "component 0", "component 1"]
        assert axes.get_xlabel() == "u"
        area = sum(bar.get_width() * bar.get_height() for bar in axes.patches)
        assert area == pytest.approx(1)
    else:
        assert legend(axes) == ["component 0", "component 1", "1 s.d.", "2 s.d."]
        assert len(axes.patches) == 4
        shown = sum(len(points.get_offsets()) for points in axes.collections)
        assert shown == len(ROWS)
    if size == 2:
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("u", "v")
    if size == 3:
        assert axes.get_xlabel().startswith("principal axis 1")


def test_an_ellipse_lies_along_the_covariance_of_its_component() -> None:
    covariance = np.array([[4.0, 1.9], [1.9, 1.0]])
    family = jaxem.Gaussian.from_moments(np.zeros((2, 2)), np.stack([covariance] * 2))
    ellipse = plots.mixture(jaxem.Mixture(HALF, family), ROWS[:, :2]).patches[0]
    variance, axes = np.linalg.eigh(covariance)
    assert ellipse.width == pytest.approx(2 * np.sqrt(variance[1]), rel=1e-4)
    assert ellipse.height == pytest.approx(2 * np.sqrt(variance[0]), rel=1e-3)
    slope = np.tan(np.radians(ellipse.angle))
    assert slope == pytest.approx(axes[1, 1] / axes[0, 1], rel=1e-4)


@pytest.mark.parametrize(
    "family, values",
    [
        (jaxem.Poisson.from_rate(np.array([2.0, 9.0])), COUNTS),
        (jaxem.Poisson.from_rate(np.array([[2.0, 1.0], [9.0, 1.0]])), np.stack([COUNTS] * 2, 1)),
        (jaxem.Poisson.from_rate(np.array([2.0, 9e4])), COUNTS * 10_000),
        (jaxem.Categorical.from_probs(np.full((2, 12), 1 / 12)), COUNTS),
        (jaxem.Bernoulli.from_probs(np.array([[0.1, 0.5], [0.9, 0.5]])), ROWS[:, :2] > 0),
    ],
)
def test_a_discrete_mixture_is_observed_beside_fitted(family: Any, values: Any) -> None:
    axes = plots.mixture(jaxem.Mixture(HALF, family), values)
    assert legend(axes)[0] == "data" and "component 1" in legend(axes)
    assert len(axes.patches) <= 201
    if isinstance(family, jaxem.Categorical):  # which have no order: points beside each other
        points = drawn(axes, "component 0"), drawn(axes, "component 1")
        assert {one.get_linestyle() for one in points} == {"None"}
        assert np.all(points[0].get_xdata() < points[1].get_xdata())
    assert_nothing_overlaps(axes)


def test_a_hidden_markov_model_is_a_series_over_a_ribbon_of_its_states() -> None:
    model = jaxem.HMM(HALF, STAY, gaussians(2))
    axes = plots.hmm(model, ROWS[:, :2], names=["u", "v"])
    assert legend(axes) == ["state 0", "state 1"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "u")
    lowest_point = axes.transData.transform((0, ROWS[:, 0].min()))[1]
    ribbon_top = axes.transAxes.transform((0, RIBBON))[1]
    assert lowest_point > ribbon_top
    assert_nothing_overlaps(axes)


def test_a_long_sequence_shows_its_beginning() -> None:
    rates = jaxem.Poisson.from_rate(np.array([2.0, 9.0]))
    axes = plots.hmm(jaxem.HMM(HALF, STAY, rates), COUNTS, max_steps=10)
    assert len(axes.lines[0].get_xdata()) == 10


def test_symbols_and_mixtures_inside_states_are_drawn() -> None:
    symbols = jaxem.Categorical.from_probs(np.full((2, 12), 1 / 12))
    axes = plots.hmm(jaxem.HMM(HALF, STAY, symbols), COUNTS)
    assert legend(axes) == ["state 0", "state 1"]
    both = jaxem.Categorical.from_probs(np.full((2, 1), 1.0))
    inside = jaxem.MixtureFamily(both, gaussians(1))
    axes = plots.hmm(jaxem.HMM(HALF, STAY, inside), ROWS[:, :1])
    assert legend(axes) == ["state 0", "state 1"]


def test_a_pair_that_is_not_whole_is_a_tick_at_the_edge() -> None:
    observed = np.ones((24, 2), bool)
    observed[:3, 0] = observed[3:5, 1] = observed[5] = False
    weight = np.where(np.arange(24) < 22, 1.0, 0.0)
    data = jaxem.Samples(ROWS[:, :2], weight, observed)
    axes = plots.mixture(jaxem.Mixture(HALF, gaussians(2)), data)
    assert sum(len(points.get_offsets()) for points in axes.collections) == 24 - 3 - 2 - 1 - 2
    ticks = {"|": [], "_": []}
    for line in axes.lines:
        ticks.get(line.get_marker(), []).extend(zip(*line.get_data(), strict=True))
    assert sorted(x for x, _ in ticks["|"]) == sorted(ROWS[3:5, 0])
    assert sorted(y for _, y in ticks["_"]) == sorted(ROWS[:3, 1])
    assert "other missing" in legend(axes)
    assert_nothing_overlaps(axes)


def test_of_many_features_whole_rows_are_drawn_in_the_plane_of_all() -> None:
    model = jaxem.Mixture(HALF, gaussians(3))
    observed = np.arange(72).reshape(24, 3) % 7 > 0
    axes = plots.mixture(model, jaxem.Samples(ROWS, observed=observed))
    drawn = sum(len(points.get_offsets()) for points in axes.collections)
    assert drawn == np.sum(observed.all(1)) and legend(axes)[0] == "component 0"
    axes = plots.mixture(
        model, jaxem.Samples(ROWS, observed=np.eye(3, dtype=bool)[np.arange(24) % 3])
    )
    assert not any(len(points.get_offsets()) for points in axes.collections)
    assert_nothing_overlaps(axes)


def test_bars_are_of_what_is_observed_and_count_weights() -> None:
    values, weight = np.array([0, 1, 1, 7]), np.array([1.0, 2.0, 0.0, 1.0])
    data = jaxem.Samples(values, weight, np.array([True, True, True, False]))
    rates = jaxem.Poisson.from_rate(np.array([2.0, 9.0]))
    axes = plots.mixture(jaxem.Mixture(HALF, rates), data)
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([1 / 3, 2 / 3])
    observed = np.array([[True, False], [True, False], [True, False], [False, False]])
    bits = jaxem.Samples(np.stack([values == 1, values == 9], 1), weight, observed)
    coins = jaxem.Bernoulli.from_probs(np.array([[0.1, 0.5], [0.9, 0.5]]))
    axes = plots.mixture(jaxem.Mixture(HALF, coins), bits)
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([2 / 3])
    nothing = jaxem.Samples(values, observed=np.zeros(4, bool))
    with pytest.raises(ValueError, match="nothing of column 1 is observed"):
        plots.mixture(jaxem.Mixture(HALF, rates), nothing)


def test_the_first_of_several_sequences_is_drawn_with_its_gaps() -> None:
    observed = np.ones((2, 12), bool)
    observed[0, 4] = False
    values = np.where(observed, COUNTS.reshape(2, 12), -9)
    data = jaxem.Sequences(values, np.array([8, 12]), np.array([0.0, 1.0]), observed)
    model = jaxem.HMM(HALF, STAY, jaxem.Poisson.from_rate(np.array([2.0, 9.0])))
    axes = plots.hmm(model, data)
    series = axes.lines[0].get_ydata()
    assert len(series) == 8 and np.flatnonzero(np.isnan(series)).tolist() == [4]
    assert_nothing_overlaps(axes)
    unseen = jaxem.Sequences(values, observed=np.zeros((2, 12), bool))
    assert legend(plots.hmm(model, unseen)) == ["state 0", "state 1"]


def test_axes_that_are_given_are_drawn_on_and_pyplot_is_left_alone() -> None:
    from matplotlib.figure import Figure

    loaded = "matplotlib.pyplot" in sys.modules
    axes = Figure().subplots()
    model = jaxem.Mixture(HALF, gaussians(2))
    assert plots.mixture(model, ROWS[:, :2], ax=axes) is axes
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_without_matplotlib_the_extra_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"jaxem\[plots\]"):
        plots.mixture(jaxem.Mixture(HALF, gaussians(2)), ROWS[:, :2])


def searched(**more: Any) -> SearchResult:
    """A search over two families, K from 1 to 3, with four restarts: the third one is unsound."""
    names, fits, orders = [], [], []
    for family, start in (("full", -110.0), ("tied", -112.0)):
        for order in (1, 2, 3):
            log_likelihood = start + 20 * (order > 1) + order - np.array([[0.0, 1.0, -50.0, 3.0]])
            fits.append(
                SimpleNamespace(
                    log_likelihood=log_likelihood,
                    log_prior=np.zeros((1, 4)),
                    num_parameters=np.full((1, 4), 3 * order),
                    end=np.array([[1, 1, jaxem.em.FELL, 1]]),
                    model=jaxem.Mixture(HALF, gaussians(2)),
                )
            )
            names.append(f"{family}, K={order}")
            orders.append(order)
    fields = {"names": tuple(names), "num_components": tuple(orders), "cv": None} | more
    return SearchResult(
        criterion="bic",
        fits=tuple(fits),
        num_observations=np.array([100.0]),
        classification=np.full((1, 6, 4), np.nan),
        **fields,
    )


def drawn(axes: Any, label: str) -> Any:
    return next(line for line in axes.lines if line.get_label() == label)


def test_a_criterion_is_a_line_a_family_and_a_point_a_restart() -> None:
    result = searched()
    axes = plots.criterion(result)
    assert legend(axes) == ["full", "tied", "best: full, K=2", "every restart"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("K", "BIC (smaller is better)")
    for label, members in (("full", [0, 1, 2]), ("tied", [3, 4, 5])):
        line = drawn(axes, label)
        assert np.round(line.get_xdata()).tolist() == [1, 2, 3]
        np.testing.assert_allclose(line.get_ydata(), result.scores()[0, members])
    places = [line for line in axes.lines if line.get_marker() == "." and len(line.get_xdata())]
    points = np.concatenate([line.get_ydata() for line in places])
    sound = np.delete(result.bic[0], 2, axis=1)  # what ended unsound is left out
    np.testing.assert_allclose(np.sort(points[~np.isnan(points)]), np.sort(sound.ravel()))
    ring = drawn(axes, "best: full, K=2")
    np.testing.assert_allclose(ring.get_ydata(), result.scores()[0, 1])
    assert_nothing_overlaps(axes)


def test_families_of_a_criterion_are_told_apart_without_colour() -> None:
    lines = [drawn(plots.criterion(searched()), label) for label in ("full", "tied")]
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 2
    assert len({line.get_color() for line in lines}) == 2


def test_another_criterion_can_be_drawn_and_axes_given() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert plots.criterion(searched(), "log_likelihood", ax=axes) is axes
    assert axes.get_ylabel() == "log-likelihood (larger is better)"
    assert "best: full, K=3" in legend(axes)
    with pytest.raises(ValueError, match="criterion='cv'"):
        plots.criterion(searched(), "cv")


def test_cross_validation_has_no_points() -> None:
    axes = plots.criterion(searched(cv=np.array([[-9.0, -5, -6, -7, -4, -8]])), "cv")
    assert legend(axes) == ["full", "tied", "best: tied, K=2"]
    assert not [line for line in axes.lines if line.get_marker() == "."]


def test_candidates_without_a_number_stand_side_by_side_by_name() -> None:
    names = ("a", "b", "c", "d", "e", "f")
    axes = plots.criterion(searched(names=names, num_components=(None,) * 6))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(names)
    assert drawn(axes, "candidate").get_linestyle() == "None"


def test_names_without_a_number_are_lines_of_their_family() -> None:
    axes = plots.criterion(searched(names=tuple("abcdef"), num_components=(1, 2, 3, 4, 5, 6)))
    assert legend(axes)[0] == "Gaussian" and len(drawn(axes, "Gaussian").get_xdata()) == 6
