"""Strings of handwritten digits are what they say they are, and the examples learn to read them."""

import importlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxem.datasets import digit_strings

EXAMPLES = Path(__file__).parents[1] / "examples"
CIRCLE = jnp.roll(jnp.eye(10), 1, axis=1)  # after every digit the next one


@pytest.fixture
def images() -> Any:
    """scikit-learn's images with ink in [0, 1], and their digits."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    return digits["images"] / 16, digits["target"]


@pytest.mark.parametrize("held_out", [False, True])
def test_strings_are_made_of_whole_images_of_their_own_part(images: Any, held_out: bool) -> None:
    ink, digit = images
    part = (np.arange(len(digit)) % 4 == 0) == held_out
    pairs = zip(ink[part].astype(np.float32), digit[part], strict=True)
    known = {image.tobytes(): kind for image, kind in pairs}
    strings = digit_strings(jax.random.key(0), 50, max_length=5, held_out=held_out)
    assert strings.frames.shape == (50, 5 * 11, 8) and strings.labels.shape == (50, 5)
    parts = (strings.frames, strings.num_frames, strings.labels, strings.num_labels)
    gaps = set()
    for frames, num_frames, labels, num_labels in zip(*map(np.asarray, parts), strict=True):
        assert 3 <= num_labels <= 5
        assert (labels[num_labels:] == -1).all() and (frames[num_frames:] == 0).all()
        place = 0  # the images stand in order, whatever empty columns are between
        for label in labels[:num_labels]:
            found = [
                gap
                for gap in range(4)
                if known.get(frames[place + gap : place + gap + 8].T.tobytes()) == label - 1
            ]
            assert found, (label, place)
            gaps.add(found[0])
            place += found[0] + 8
        assert place == num_frames
    assert gaps == {0, 1, 2, 3}


def test_digits_follow_each_other_as_the_transition_says(images: Any) -> None:
    strings = digit_strings(jax.random.key(1), 100, min_length=4, max_length=4, transition=CIRCLE)
    labels = np.asarray(strings.labels)
    np.testing.assert_array_equal(labels[:, 1:] - 1, labels[:, :-1] % 10)
    assert set(labels[:, 0]) == set(range(1, 11))
    free = np.asarray(digit_strings(jax.random.key(2), 500).labels)
    share = np.bincount(free[free > 0], minlength=11)[1:] / np.sum(free > 0)
    np.testing.assert_allclose(share, 0.1, atol=0.03)


def test_the_same_key_gives_the_same_strings_and_lengths_may_be_0(images: Any) -> None:
    one, other = (digit_strings(jax.random.key(3), 4, min_length=0, max_length=1) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    empty = np.asarray(one.num_labels) == 0
    assert empty.any() and (np.asarray(one.num_frames)[empty] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": 5, "max_length": 4}, "min_length <= max_length"),
        ({"min_length": 0, "max_length": 0}, "1 <= max_length"),
        ({"max_gap": -1}, "max_gap"),
        ({"transition": jnp.full((10, 10), 0.2)}, "sum to 1"),
        ({"transition": jnp.eye(9)}, "transition"),
    ],
)
def test_options_that_make_no_strings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        digit_strings(jax.random.key(0), 1, **options)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"jaxem\[sklearn\]"):
        digit_strings(jax.random.key(0), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_ctc", "digits_transducer"])
def test_an_example_learns_to_read_and_draws_a_picture(
    name: str, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    picture = tmp_path / "picture.png"
    options = ["--steps", "900", "--strings", "100", "--out", str(picture)]
    errors = importlib.import_module(name).main(options)
    assert errors["greedy"] <= 0.1
    assert all(error <= errors["greedy"] + 0.01 for error in errors.values())
    if name == "digits_ctc":
        assert errors["beam and language model"] < errors["greedy"]
    assert picture.stat().st_size > 10_000
    assert "label error, greedy" in capsys.readouterr().out
