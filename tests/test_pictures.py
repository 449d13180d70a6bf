"""Pictures of fits, certificates and lattices, by their artists."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import jaxem
from jaxem import em, plots
from jaxem.comparison.certificate import Certificate, Check
from jaxem.plots.hmm import LIGHTNESS, tinted
from jaxem.plots.look import COLOURS, GREY, blended, hatch, marker

HALF = jaxem.Categorical.from_probs(np.array([0.5, 0.5]))
STAY = jaxem.Categorical.from_probs(np.array([[0.9, 0.1], [0.0, 1.0]]))
RATES = jaxem.Poisson.from_rate(np.array([2.0, 9.0]))


def legend(axes: Any) -> list[str]:
    return [entry.get_text() for entry in axes.get_legend().get_texts()]


def line(axes: Any, label: str) -> Any:
    return next(one for one in axes.lines if one.get_label() == label)


def fitted(*traces: list[float], end: int = em.CONVERGED, log_prior: float = 0.0) -> em.EMResult:
    """Results of fits with these traces, as a batch where there are several."""
    longest = max(map(len, traces))
    table = np.array([[*trace, *[np.nan] * (longest - len(trace))] for trace in traces])
    ends = np.array([trace[-1] for trace in traces])
    steps = np.array([len(trace) - 1 for trace in traces])
    many = em.EMResult(
        None, ends - log_prior, np.full(len(traces), log_prior), table, steps,
        np.zeros(len(traces)), np.ones(len(traces), int), np.full(len(traces), end),
    )  # fmt: skip
    return many if len(traces) > 1 else jax.tree.map(lambda leaf: leaf[0], many)


def test_a_trace_is_a_curve_that_says_how_it_ended() -> None:
    axes = plots.trace(fitted([-9.0, -5.0, -4.0]))
    assert axes.lines[0].get_ydata().tolist() == [-9, -5, -4]
    assert legend(axes) == ["converged after 2 steps"]
    end = line(axes, "converged after 2 steps")
    assert (*end.get_data(),) == ([2], [-4]) and end.get_marker() == "o"
    assert axes.get_ylabel() == "log-likelihood"


@pytest.mark.parametrize("end", [em.OUT_OF_STEPS, em.NON_FINITE, em.FELL])
def test_an_end_that_is_none_looks_different(end: int) -> None:
    axes = plots.trace(fitted([-9.0, -5.0], end=end, log_prior=-1.0))
    last = axes.lines[1]
    assert last.get_marker() == "X" and last.get_color() == COLOURS[1]
    assert legend(axes)[0].endswith("after 1 step") and len(legend(axes)[0]) < 60
    assert axes.get_ylabel() == "log-likelihood + log-prior"


def test_of_many_traces_the_best_stands_out() -> None:
    axes = plots.trace(fitted([-9.0, -5.0], [-8.0, -3.0, -2.0], [-7.0, -6.0]))
    coloured = [one for one in axes.lines if one.get_color() == COLOURS[0]]
    assert coloured[0].get_ydata().tolist() == [-8, -3, -2]
    grey = [one for one in axes.lines if one.get_color() == GREY and len(one.get_xdata())]
    assert sorted(one.get_ydata().tolist() for one in grey) == [[-9, -5], [-7, -6]]
    assert legend(axes) == ["converged after 2 steps", "the other 2 fits"]
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.trace(fitted([np.nan]))


def test_fits_to_one_data_set_of_several_are_drawn_and_of_all_are_not() -> None:
    restarts = fitted([-9.0, -5.0], [-8.0, -3.0])
    one = jax.tree.map(lambda leaf: leaf[None], restarts)  # as `search` has them
    assert legend(plots.trace(one)) == legend(plots.trace(restarts))
    two = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), restarts)
    with pytest.raises(ValueError, match=r"\[2, 2, 2\], of fits to several data sets"):
        plots.trace(two)


def test_transitions_are_a_map_with_their_numbers() -> None:
    axes = plots.transitions(jaxem.HMM(HALF, STAY, RATES), names=["calm", "wild"])
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1], [0.0, 1.0]], atol=1e-6)
    said = {one.get_position(): one.get_text() for one in axes.texts}
    assert said == {(0, 0): ".90", (1, 0): ".10", (1, 1): "1.00"}  # a 0 has none
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["calm", "wild"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("to state", "from state")
    with pytest.raises(ValueError, match="one a state, 2"):
        plots.transitions(jaxem.HMM(HALF, STAY, RATES), names=["calm"])


def test_of_many_states_there_are_no_numbers_and_of_changing_transitions_no_map() -> None:
    table = jaxem.Categorical(np.zeros((20, 20)))
    many = jaxem.HMM(jaxem.Categorical(np.zeros(20)), table, jaxem.Poisson(np.zeros(20)))
    assert not plots.transitions(many).texts
    names = [f"a state by the name of {k}" for k in range(20)]
    axes = plots.transitions(many, names=names)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == names
    axes.figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in axes.get_xticklabels()]
    assert all(left.x1 <= right.x0 + 0.5 for left, right in zip(boxes, boxes[1:], strict=False))
    assert axes.yaxis.label.get_window_extent().x0 >= 0  # nothing is cut off
    assert axes.xaxis.label.get_window_extent().y0 >= 0
    changing = jaxem.HMM(HALF, jaxem.Categorical(np.zeros((5, 2, 2))), RATES)
    with pytest.raises(ValueError, match="change with time"):
        plots.transitions(changing)


def test_a_certificate_is_a_bar_a_check_up_to_its_share_of_the_tolerance() -> None:
    checks = (
        Check.of("fine", 1e-3, 1e-1, ""),
        Check.of("exact", 0.0, 1e-9, ""),
        Check.of("wrong", 3.0, 1e-2, ""),
        Check.of("unknown", float("nan"), 1.0, ""),
        Check.not_applicable("silent", "no prior"),
        Check.of("curved", -1.0, -1e-3, ""),  # below, by a thousand times
        Check.of("flat", -1e-6, -1e-3, ""),
        Check.of("none allowed", 1.0, 0.0, ""),
    )
    axes = plots.certificate(Certificate("a step", checks))
    bars = [bar for group in axes.containers for bar in group]
    ends = {round(bar.get_y() + bar.get_height() / 2): bar for bar in bars}
    shares = {i: bar.get_x() + bar.get_width() for i, bar in ends.items()}
    assert shares[0] == pytest.approx(1e-2) and shares[2] == pytest.approx(300)
    assert shares[5] == pytest.approx(1e-3) and shares[6] == pytest.approx(1e3)
    assert shares[3] == shares[7] == axes.get_xlim()[1] and 4 not in shares
    assert {i for i, bar in ends.items() if bar.get_hatch()} == {2, 3, 6, 7}
    assert sorted(legend(axes)) == ["3 passed", "4 failed", "tolerance"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [one.name for one in checks]
    assert [one.get_text() for one in axes.texts] == ["not applicable"]
    assert line(axes, "tolerance").get_xdata() == [1, 1]
    assert len(axes.patches) - len(bars) == 4  # bands behind the 2nd, 4th, 6th and 8th kind
    with pytest.raises(ValueError, match="no checks"):
        plots.certificate(Certificate("nothing", ()))


def test_the_labels_of_many_checks_do_not_overlap() -> None:
    checks = tuple(Check.of(f"check.{i}", 1e-3, 1.0, "") for i in range(60))
    axes = plots.certificate(Certificate("much", checks))
    axes.figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    assert all(low.y1 <= high.y0 + 0.5 for high, low in zip(boxes, boxes[1:], strict=False))


LABELS = np.array([1, 2, 2])


def test_the_lattice_of_ctc_is_its_posterior_under_the_best_path() -> None:
    logits = jax.random.normal(jax.random.key(0), (9, 4))
    axes = plots.ctc(logits, LABELS, names=["-", "a", "b", "c"])
    expected = jaxem.ctc.posterior(logits[None], LABELS[None]).states[0]
    np.testing.assert_allclose(axes.images[0].get_array(), expected.T, rtol=1e-6)
    path = line(axes, "best path")
    best = jaxem.ctc.align(logits[None], LABELS[None]).states[0]
    np.testing.assert_array_equal(path.get_ydata(), best)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "b"]
    assert axes.get_yticks().tolist() == [1, 3, 5]
    assert [tick.get_text() for tick in axes.get_yticklabels(minor=True)] == ["-"] * 4


def test_the_grid_of_a_transducer_is_passed_from_corner_to_corner() -> None:
    logits = jax.random.normal(jax.random.key(0), (5, 4, 4))
    axes = plots.transducer(logits, LABELS)
    passes = np.asarray(axes.images[0].get_array())
    assert passes.shape == (4, 5) and passes[0, 0] == pytest.approx(1, abs=1e-6)
    assert passes[-1, -1] == pytest.approx(1, abs=1e-6)
    path = line(axes, "best path")
    frames = jaxem.transducer.align(logits[None], LABELS[None]).frames[0].tolist()
    up = {
        x for x, rise in zip(path.get_xdata()[1:], np.diff(path.get_ydata()), strict=True) if rise
    }
    assert up == set(frames)
    assert (path.get_xdata()[0], path.get_ydata()[0]) == (0, 0)
    assert (path.get_xdata()[-1], path.get_ydata()[-1]) == (4, 3)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "2", "2"]
    assert [tick.get_text() for tick in axes.get_yticklabels(minor=True)] == ["none"]


def test_many_labels_are_named_without_overlap_and_very_many_are_counted() -> None:
    for number in (40, 41):
        labels = np.arange(number) % 3 + 1
        lattice = plots.ctc(jnp.zeros((2 * number, 4)), labels)
        grid = plots.transducer(jnp.zeros((5, number + 1, 4)), labels)
        for axes in (lattice, grid):
            axes.figure.draw_without_rendering()
            said = [tick for tick in axes.get_yticklabels() if tick.get_text()]
            boxes = [tick.get_window_extent() for tick in said]
            assert all(low.y1 <= up.y0 + 0.5 for low, up in zip(boxes, boxes[1:], strict=False))
            assert (len(said) == 40) == (number == 40)
    assert [tick.get_text() for tick in lattice.get_yticklabels()] == ["0", "10", "20", "30", "40"]
    assert lattice.get_yticks().tolist() == [1, 21, 41, 61, 81]
    assert grid.get_ylabel() == "labels emitted"


def test_a_label_of_the_modified_grid_rises_between_its_frame_and_the_next() -> None:
    logits = jax.random.normal(jax.random.key(0), (5, 4, 4))
    axes = plots.transducer(logits, LABELS, topology="modified")
    path = line(axes, "best path")
    batch = logits[None], jnp.asarray(LABELS)[None]
    frames = jaxem.transducer.align(*batch, topology="modified").frames[0]
    rises = np.flatnonzero(np.diff(path.get_ydata()))
    np.testing.assert_array_equal(np.asarray(path.get_xdata())[rises], frames + 0.5)
    passes = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(passes.sum(0), 1, atol=1e-5)  # every frame is left by one arc


def test_a_path_of_one_frame_is_a_point_that_can_be_seen() -> None:
    axes = plots.ctc(jnp.zeros((1, 4)), np.array([2]))
    assert line(axes, "best path").get_marker() == "o"
    assert line(plots.ctc(jnp.zeros((2, 4)), np.array([2])), "best path").get_marker() == "None"


def test_a_lattice_without_a_path_and_several_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="no path of 3 frames"):  # two equal ones need a blank
        plots.ctc(jnp.zeros((3, 4)), LABELS)
    with pytest.raises(ValueError, match="one sequence is drawn"):
        plots.ctc(jnp.zeros((1, 9, 4)), LABELS)
    impossible = jnp.zeros((5, 4, 4)).at[..., 2].set(-jnp.inf)
    with pytest.raises(ValueError, match="no alignment with 5 frames"):
        plots.transducer(impossible, LABELS)


def test_labels_that_are_none_have_a_lattice_too() -> None:
    nothing = np.zeros(0, int)
    assert line(plots.ctc(jnp.zeros((3, 4)), nothing), "best path").get_ydata().tolist() == [0] * 3
    path = line(plots.transducer(jnp.zeros((3, 1, 4)), nothing), "best path")
    assert path.get_data()[0].tolist() == [0, 2] and path.get_data()[1].tolist() == [0, 0]


def test_a_point_has_the_colours_of_its_components() -> None:
    means = np.array([[0.0, 0.0], [4.0, 0.0]])
    model = jaxem.Mixture(HALF, jaxem.DiagonalGaussian.from_moments(means, np.ones((2, 2))))
    rows = np.array([[0.0, 1.0], [2.0, 0.0], [4.0, 1.0]])
    axes = plots.mixture(model, rows)
    points = np.concatenate([one.get_offsets() for one in axes.collections])
    colours = np.concatenate(
        [one.get_facecolor()[: len(one.get_offsets()), :3] for one in axes.collections]
    )
    by_place = dict(zip(points[:, 0].tolist(), colours, strict=True))
    between = (np.array(to_rgb(COLOURS[0])) + to_rgb(COLOURS[1])) / 2
    np.testing.assert_allclose(by_place[2.0], between, atol=1e-6)
    np.testing.assert_allclose(by_place[0.0], to_rgb(COLOURS[0]), atol=2e-3)
    np.testing.assert_allclose(blended(np.zeros((1, 2)))[0], to_rgb(GREY))


def test_behind_a_step_are_the_colours_of_its_states() -> None:
    model = jaxem.HMM(HALF, STAY, RATES)
    counts = np.array([1, 2, 5, 9, 8, 10])
    axes = plots.hmm(model, counts)
    tints = np.asarray(axes.images[0].get_array())[0]
    shares = np.asarray(model.smooth(counts))
    assert 0.01 < shares[2, 0] < 0.99
    np.testing.assert_allclose(tints, shares @ tinted(np.eye(2)), atol=1e-6)
    assert axes.get_xlim() == (-0.5, 5.5)


def test_tints_differ_in_lightness_and_members_of_one_colour_in_their_marks() -> None:
    grey = tinted(np.eye(3)) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey, LIGHTNESS, atol=1e-6)
    np.testing.assert_allclose(tinted(np.zeros((1, 3))), 1)
    assert np.all(tinted(np.eye(30)) >= 0.5)
    for look in (marker, hatch):
        assert len({(COLOURS[k % len(COLOURS)], look(k)) for k in range(64)}) == 64


def test_one_step_has_its_bar_in_sight_and_steps_are_whole() -> None:
    axes = plots.hmm(jaxem.HMM(HALF, STAY, RATES), np.array([1]))
    (bar,) = (one for one in axes.collections if hasattr(one, "get_segments"))
    assert axes.get_ylim()[0] < bar.get_segments()[0][0, 1] < axes.get_ylim()[1]
    axes = plots.hmm(jaxem.HMM(HALF, STAY, RATES), np.array([1, 2, 8]))
    assert all(tick == round(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.trace(fitted([-2.0, -1.0]), ax=ax),
        lambda ax: plots.transitions(jaxem.HMM(HALF, STAY, RATES), ax=ax),
        lambda ax: plots.certificate(Certificate("a", (Check.of("b", 0.1, 1.0, ""),)), ax=ax),
        lambda ax: plots.ctc(jnp.zeros((9, 4)), LABELS, ax=ax),
        lambda ax: plots.transducer(jnp.zeros((5, 4, 4)), LABELS, ax=ax),
    ],
)
def test_axes_that_are_given_are_drawn_on(draw: Any) -> None:
    axes = Figure().subplots()
    assert draw(axes) is axes and (axes.lines or axes.images)
