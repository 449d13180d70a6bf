"""Decoding by a transducer, against enumeration and against searches written down in Python."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxem import transducer
from jaxem.hypotheses import Hypotheses
from jaxem.transducer.beam_search import BeamSearch, beam_search
from jaxem.transducer.greedy import greedy

TOPOLOGIES = ["regular", "modified"]
Labelling = tuple[int, ...]


class Networks:
    """A transducer of tables: the logits are those of the frame and of the last two tokens."""

    def __init__(self, seed: int, symbols: int, blank: int, dtype: Any = np.float32) -> None:
        rng = np.random.default_rng(seed)
        self.blank = blank
        self.table = (1.5 * rng.normal(size=(symbols, symbols, symbols))).astype(dtype)

    def predict(self, state: Any, token: Any) -> tuple[Any, Any]:
        return jnp.asarray(self.table)[state["previous"], token], {"previous": token}

    def join(self, frame: Any, prediction: Any) -> Any:
        return frame + prediction

    @property
    def functions(self) -> dict[str, Any]:
        start = {"previous": np.int32(self.blank)}
        return {"predict": self.predict, "join": self.join, "start": start, "blank": self.blank}

    def search(self, **options: Any) -> BeamSearch:
        return beam_search(**self.functions, **options)

    def log_probs(self, frame: np.ndarray, labelling: Labelling) -> np.ndarray:
        """What the two functions say after a labelling, in float64."""
        last = (self.blank, self.blank, *labelling)[-2:]
        logits = frame.astype(np.float64) + self.table[last]
        with np.errstate(invalid="ignore"):
            total = np.logaddexp.reduce(logits)
            return np.where(np.isneginf(total), -np.inf, logits - total)


def labelling_log_prob(
    networks: Networks, frames: np.ndarray, labelling: Labelling, topology: str, max_symbols: int
) -> float:
    """Log-probability of one labelling by a recursion over the lattice.

    `nodes[u, n]`: u labels emitted, n of them in this frame.
    """
    size, blank = len(labelling), networks.blank
    start = np.full(size + 1, -np.inf)
    start[0] = 0
    for frame in frames:
        log_probs = np.stack([networks.log_probs(frame, labelling[:u]) for u in range(size + 1)])
        label = log_probs[np.arange(size), list(labelling)]
        if topology == "modified":
            new = start + log_probs[:, blank]
            new[1:] = np.logaddexp(new[1:], start[:-1] + label)
            start = new
            continue
        nodes = np.full((size + 1, max_symbols + 1), -np.inf)
        nodes[:, 0] = start
        for n in range(max_symbols):
            nodes[1:, n + 1] = nodes[:-1, n] + label
        start = np.logaddexp.reduce(nodes, 1) + log_probs[:, blank]
    return start[size]


def enumerate_labellings(
    networks: Networks, frames: np.ndarray, max_length: int, topology: str, max_symbols: int
) -> dict[Labelling, float]:
    """Log-probabilities of all possible labellings, best first."""
    labels = [v for v in range(len(networks.table)) if v != networks.blank]
    found = {
        labelling: labelling_log_prob(networks, frames, labelling, topology, max_symbols)
        for size in range(max_length + 1)
        for labelling in itertools.product(labels, repeat=size)
    }
    return best(found, len(found))


def best(found: dict[Labelling, float], width: int) -> dict[Labelling, float]:
    order = sorted(found, key=lambda labelling: -found[labelling])
    return {
        labelling: found[labelling] for labelling in order[:width] if found[labelling] > -np.inf
    }


def search_with_dictionaries(
    networks: Networks, frames: np.ndarray, width: int, max_length: int, topology: str, rounds: int
) -> dict[Labelling, float]:
    """The beam search as its docstring has it."""
    beam: dict[Labelling, float] = {(): 0.0}
    for frame in frames:
        ended: dict[Labelling, float] = {}
        grown = ended if topology == "modified" else {}
        for _ in range(1 if topology == "modified" else rounds + 1):
            for labelling, score in beam.items():
                onward = score + networks.log_probs(frame, labelling)
                for symbol, value in enumerate(onward):
                    if symbol == networks.blank:
                        ended[labelling] = np.logaddexp(ended.get(labelling, -np.inf), value)
                    elif len(labelling) < max_length:
                        key = (*labelling, symbol)
                        grown[key] = np.logaddexp(grown.get(key, -np.inf), value)
            beam = best(grown, width)
            grown = {}
        beam = best(ended, width)
    return beam


def greedy_in_a_loop(
    networks: Networks, frames: np.ndarray, max_length: int, topology: str, max_symbols: int
) -> tuple[Labelling, float]:
    labelling: Labelling = ()
    total = 0.0
    for frame in frames:
        for emitted in range(max_symbols + 1):
            log_probs = networks.log_probs(frame, labelling)
            full = len(labelling) == max_length
            full |= topology == "regular" and emitted == max_symbols
            symbol = networks.blank if full else int(np.argmax(log_probs))
            total += log_probs[symbol]
            if symbol != networks.blank:
                labelling = (*labelling, symbol)
            if symbol == networks.blank or topology == "modified":
                break
    return labelling, total


def listed(found: Hypotheses, row: int) -> dict[Labelling, float]:
    """The hypotheses of one row, whose empty places and padding are as they must be."""
    labels, lengths, score = map(np.asarray, (found.labels, found.lengths, found.score))
    np.testing.assert_array_equal(score, found.log_prob)
    score = score[row]
    there = score > -np.inf
    assert np.all(score[:-1] >= score[1:])
    assert np.all(lengths[row][~there] == 0)
    behind = np.arange(labels.shape[-1]) >= lengths[row][:, None]
    np.testing.assert_array_equal(labels[row] == -1, behind)
    return {
        tuple(labelling[:length].tolist()): float(value)
        for labelling, length, value in zip(
            labels[row][there], lengths[row][there], score[there], strict=True
        )
    }


def assert_listed(
    found: Hypotheses, row: int, wanted: dict[Labelling, float], dtype: Any, in_order: bool = True
) -> None:
    got = listed(found, row)
    assert (list(got) == list(wanted)) if in_order else (got.keys() == wanted.keys())
    room = 100 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(
        [got[labelling] for labelling in wanted], list(wanted.values()), rtol=room, atol=room
    )


def random_frames(
    seed: int, lengths: list[int], symbols: int, dtype: Any = np.float32, scale: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Frames [B, T, V] that are NaN past the lengths, and the lengths."""
    rng = np.random.default_rng(seed)
    frames = (scale * rng.normal(size=(len(lengths), max(lengths), symbols))).astype(dtype)
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = np.nan
    return frames, np.array(lengths)


@pytest.mark.parametrize(
    ("topology", "max_symbols", "blank", "dtype"),
    [
        ("regular", 2, 0, "float32"),
        ("regular", 2, 0, "float64"),
        ("modified", 1, 2, "float32"),
    ],
    indirect=["dtype"],
)
def test_a_beam_as_wide_as_all_prefixes_has_their_exact_probabilities(
    dtype: Any, topology: str, max_symbols: int, blank: int
) -> None:
    """With impossible symbols, a frame without a blank and one of nothing, and no frame at all."""
    networks = Networks(0, 3, blank, dtype)
    networks.table[np.arange(3) != blank, blank] = np.nan  # no blank is predicted after a label
    frames, lengths = random_frames(1, [3, 3, 2, 3, 3, 0], 3, dtype)
    frames[1, 1, 1] = frames[1, 2, blank] = frames[3, 1] = -np.inf
    frames[4, 1] = frames[4, 0]
    search = networks.search(width=15, max_length=3, max_symbols=max_symbols, topology=topology)
    found = jax.jit(search.run)(frames, lengths)
    assert found.score.dtype == dtype and found.labels.shape == (6, 15, 3)
    for row, length in enumerate(lengths):
        wanted = enumerate_labellings(networks, frames[row, :length], 3, topology, max_symbols)
        assert_listed(found, row, wanted, dtype, in_order=row != 4)
    assert len(listed(found, 1)) < 15
    assert not listed(found, 3)
    assert listed(found, 5) == {(): 0.0}
    if topology == "regular":  # the bound on the labels of a frame is one that matters
        others = enumerate_labellings(networks, frames[0], 3, topology, 1)
        assert any(abs(others.get(y, 0) - value) > 0.1 for y, value in listed(found, 0).items())


def test_without_a_maximal_length_there_is_room_for_all_that_frames_allow() -> None:
    networks = Networks(2, 3, 0)
    frames, _ = random_frames(3, [2, 2], 3)
    for options, length in [({"max_symbols": 2}, 4), ({"topology": "modified"}, 2)]:
        search = networks.search(width=3, **options)
        assert jax.eval_shape(search.run, frames).labels.shape == (2, 3, length)
        first = jax.eval_shape(partial(greedy, **networks.functions, **options), frames)
        assert first.labels.shape == (2, length)


def test_no_frame_leaves_the_empty_labelling_and_too_long_a_traced_length_gives_nan() -> None:
    networks = Networks(2, 3, 0)
    frames = np.zeros((2, 0, 3), np.float32)
    lengths = np.array([0, 1])
    found = jax.jit(networks.search(width=3, topology="modified").run)(frames, lengths)
    first = jax.jit(partial(greedy, **networks.functions))(frames, lengths)
    first = jax.tree.map(lambda leaf: leaf[:, None], first)
    for beam in (found, first):
        assert listed(jax.tree.map(lambda leaf: leaf[:1], beam), 0) == {(): 0.0}
        assert np.isnan(beam.score[1]).all() and np.all(beam.labels[1] == -1)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_narrow_beams_are_those_of_the_search_in_python(topology: str) -> None:
    networks = Networks(4, 6, 1)
    frames, lengths = random_frames(5, [9] * 6, 6, scale=1.0)
    search = networks.search(width=4, max_length=7, max_symbols=2, topology=topology)
    found = jax.jit(search.run)(frames)
    differ = 0
    for row, frame in enumerate(frames):
        wanted = search_with_dictionaries(networks, frame, 4, 7, topology, 2)
        assert_listed(found, row, wanted, np.float32)
        (labelling, value), *_ = wanted.items()
        exact = labelling_log_prob(networks, frame, labelling, topology, 2)
        assert value <= exact + 1e-4
        differ += value < exact - 1e-3
    assert differ  # the beam is narrow enough to lose something
    assert np.max(found.lengths) == 7


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_greedy_takes_the_path_of_the_loop_in_python(dtype: Any, topology: str) -> None:
    networks = Networks(6, 4, 3, dtype)
    frames, lengths = random_frames(7, [9, 9, 4, 1, 0, 9, 9], 4, dtype)
    frames[0, 3, 3] = frames[1, 2, :2] = frames[5, 4] = -np.inf
    frames[6, :, 3] -= 20  # the blank is never the best
    run = jax.jit(
        lambda frames, lengths: greedy(
            frames, lengths, **networks.functions, max_symbols=2, max_length=11, topology=topology
        )
    )
    found = run(frames, lengths)
    assert found.log_prob.dtype == dtype and found.labels.shape == (7, 11)
    found = jax.tree.map(lambda leaf: leaf[:, None], found)
    paths = []
    for row, length in enumerate(lengths):
        labelling, value = greedy_in_a_loop(networks, frames[row, :length], 11, topology, 2)
        assert_listed(found, row, {labelling: value} if value > -np.inf else {}, dtype)
        paths.append(labelling)
    assert not listed(found, 5) and listed(found, 4) == {(): 0.0}
    assert len(paths[6]) == (11 if topology == "regular" else 9)


def test_in_the_modified_topology_a_beam_of_one_is_greedy() -> None:
    """In the regular one it need not be: it weighs the blank that has to follow the label."""
    networks = Networks(8, 5, 0)
    frames, _ = random_frames(9, [20] * 6, 5)
    for topology in TOPOLOGIES:
        search = networks.search(width=1, max_symbols=1, max_length=20, topology=topology)
        found = jax.jit(search.run)(frames)
        beam = [listed(found, row) for row in range(6)]
        loop = [greedy_in_a_loop(networks, row, 20, topology, 1) for row in frames]
        same = [list(one) == [labelling] for one, (labelling, _) in zip(beam, loop, strict=True)]
        assert all(same) if topology == "modified" else not all(same)
        for one, (labelling, value) in zip(beam, loop, strict=True):
            if topology == "modified":
                np.testing.assert_allclose(one[labelling], value, rtol=1e-5)


@pytest.fixture(scope="module", params=TOPOLOGIES)
def streamed(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A search over all frames, and the same frame by frame."""
    networks = Networks(10, 5, 0)
    frames, lengths = random_frames(11, [12, 7, 1, 0, 12], 5)
    search = networks.search(width=4, max_length=10, max_symbols=2, topology=request.param)
    step, beam = jax.jit(search.step), search.init(5)
    beams = [beam]
    for t, frame in enumerate(frames.swapaxes(0, 1)):
        beam = step(beam, frame, t < lengths)
        beams.append(beam)
    parts = {"frames": frames, "lengths": lengths, "beams": beams, "step": step}
    return {**parts, "search": search, "whole": jax.jit(search.run)(frames, lengths)}


def test_frame_by_frame_gives_the_same_hypotheses_as_all_at_once(streamed: dict[str, Any]) -> None:
    found = streamed["search"].finalize(streamed["beams"][-1])
    jax.tree.map(np.testing.assert_array_equal, found, streamed["whole"])
    assert np.isfinite(streamed["whole"].score[0]).all()


def test_a_row_that_is_not_active_keeps_its_beam(streamed: dict[str, Any]) -> None:
    for row, length in enumerate(streamed["lengths"]):
        for beam in streamed["beams"][length + 1 :]:
            jax.tree.map(
                lambda leaf, then, row=row: np.testing.assert_array_equal(leaf[row], then[row]),
                beam,
                streamed["beams"][length],
            )


def test_rows_of_a_batch_have_no_influence_on_each_other(streamed: dict[str, Any]) -> None:
    search, step, lengths = streamed["search"], streamed["step"], streamed["lengths"]
    beam, frames = search.init(5), streamed["frames"].swapaxes(0, 1)
    for t, frame in enumerate(frames):
        beam = step(beam, frame[::-1], (t < lengths)[::-1])
    found = jax.tree.map(lambda leaf: leaf[::-1], search.finalize(beam))
    jax.tree.map(np.testing.assert_array_equal, found, streamed["whole"])
    if search.topology == "modified":  # one is enough: it takes another program
        beam = search.init(1)
        for frame in frames[:, :1]:
            beam = step(beam, frame)
        alone = listed(search.finalize(beam), 0)
        assert_listed(streamed["whole"], 0, alone, np.float32)


def test_thousands_of_frames_leave_float32_its_digits(x64: None) -> None:
    """Differences of scores that were summed up instead would be wrong by what they are apart."""
    frames, _ = random_frames(13, [3000], 4, np.float64, scale=1.0)
    time = np.arange(3000)
    frames[0, time, np.where(time % 20, 0, time % 3 + 1)] += 2
    found = {}
    for dtype in (np.float32, np.float64):
        networks = Networks(12, 4, 0, dtype)
        search = networks.search(width=4, max_length=1000, topology="modified")

        def scan(frames: Any, search: BeamSearch = search) -> Any:
            beam = search.init(1)
            return jax.lax.scan(lambda beam, frame: (search.step(beam, frame), None), beam, frames)

        beam, _ = jax.jit(scan)(frames[0][:, None].astype(dtype))
        assert beam.score.dtype == dtype
        found[dtype] = search.finalize(beam), np.asarray(beam.score[0], np.float64)
    (single, apart), (double, exact) = found[np.float32], found[np.float64]
    np.testing.assert_array_equal(single.labels, double.labels)
    np.testing.assert_allclose(single.log_prob, double.log_prob, rtol=1e-7)
    np.testing.assert_allclose(apart, exact, atol=3e-6)
    assert single.lengths[0, 0] > 50 and np.spacing(abs(single.log_prob[0, 0])) > 3e-5


def test_logits_of_half_precision_are_decoded_in_single() -> None:
    networks = Networks(14, 4, 0, jnp.bfloat16)
    frames = random_frames(15, [3], 4)[0].astype(jnp.bfloat16)
    search = networks.search(width=2, topology="modified")
    assert jax.eval_shape(search.run, frames).score.dtype == np.float32
    single = Networks(14, 4, 0, jnp.bfloat16).search(width=2, max_length=3)
    assert single.init(1).score.dtype == np.float32
    assert jax.eval_shape(lambda: greedy(frames, **networks.functions)).score.dtype == np.float32


FRAMES = np.zeros((2, 3, 4), np.float32)
CALLS: dict[str, tuple[Callable[[Networks], Any], str]] = {
    "rank": (
        lambda n: greedy(FRAMES[0], **n.functions),
        r"frames must be a floating array \[B, T, F\]",
    ),
    "length": (
        lambda n: n.search(width=2).run(FRAMES, np.array([3, 4])),
        r"lengths\[1\] is 4",
    ),
    "number of lengths": (
        lambda n: greedy(FRAMES, np.array([3]), **n.functions),
        "logit_lengths must be 2 integers",
    ),
    "fractional lengths": (
        lambda n: greedy(FRAMES, np.array([3.0, 2.0]), **n.functions),
        "logit_lengths must be 2 integers",
    ),
    "topology": (lambda n: n.search(width=2, topology="skew"), 'topology must be "regular" or'),
    "width": (lambda n: n.search(width=0), "width must be 1 or more"),
    "symbols": (lambda n: n.search(width=1, max_symbols=0), "max_symbols must be 1 or more"),
    "maximum": (lambda n: n.search(width=1, max_length=0), "max_length must be 1 or more"),
    "no maximum": (lambda n: n.search(width=1).init(2), "give beam_search a max_length"),
    "blank": (
        lambda n: greedy(FRAMES, **{**n.functions, "blank": 4}),
        "blank must be a symbol, 0 to 3",
    ),
    "negative blank": (
        lambda n: greedy(FRAMES, **{**n.functions, "blank": -1}),
        "blank must be a symbol",
    ),
    "batched join": (
        lambda n: greedy(FRAMES, **{**n.functions, "join": lambda frame, _: frame[None]}),
        r"join must return floating logits \[V\]",
    ),
    "changing state": (
        lambda n: greedy(FRAMES, **{**n.functions, "predict": lambda s, v: (v, (s, v))}),
        "predict must return a state of the same structure",
    ),
    "step": (
        lambda n: n.search(width=1, max_length=2).step(
            n.search(width=1, max_length=2).init(2), FRAMES
        ),
        r"frames must be \[2, F\]",
    ),
    "active": (
        lambda n: n.search(width=1, max_length=2).step(
            n.search(width=1, max_length=2).init(2), FRAMES[:, 0], np.array([1, 0])
        ),
        "active must be 2 booleans",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_input_is_refused(name: str) -> None:
    call, message = CALLS[name]
    with pytest.raises(ValueError, match=message):
        call(Networks(0, 4, 0))


def test_a_beam_may_be_donated() -> None:
    search = transducer.beam_search(
        lambda state, token: (token, token),
        lambda frame, last: frame - 1.0 * (last == jnp.arange(3)),
        0,
        width=3,
        max_length=4,
        topology="modified",
    )
    frames = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    step, beam = jax.jit(search.step, donate_argnums=0), search.init(2)
    for t in range(3):
        beam = step(beam, frames[:, t])
    found = jax.jit(search.finalize)(beam)
    np.testing.assert_array_equal(found.labels, jax.jit(search.run)(frames).labels[:, :, :4])
