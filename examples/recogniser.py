"""What the two recognisers share: an encoder of columns, training, the error, a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from jaxem.datasets import DigitStrings

BLANK = 0
NUM_SYMBOLS = 11  # the blank and ten digits


def digit_grammar(key: Any) -> Any:
    """Probabilities [10, 10] of the next digit, by a random circle of all ten.

    A digit is followed by one of the next three on the circle, all equally likely.
    """
    followed = sum(jnp.roll(jnp.eye(10), step, axis=1) for step in (1, 2, 3)) / 3
    circle = jax.random.permutation(key, 10)
    return followed[circle][:, circle]


def init_layers(key: Any, sizes: list[int], width: int = 5) -> list[dict[str, Any]]:
    """Convolutions along the frames, each `width` columns wide."""
    layers = []
    for rows, columns in zip(sizes, sizes[1:], strict=False):
        key, weight_key = jax.random.split(key)
        weight = jax.random.normal(weight_key, (width, rows, columns))
        scale = jnp.sqrt(2 / (width * rows))
        layers.append({"weight": scale * weight, "bias": jnp.zeros(columns)})
    return layers


def encode(layers: list[dict[str, Any]], frames: Any, key: Any = None) -> Any:
    """Features [B, T, F] of frames [B, T, 8]; with a key those of training, noisy and thinned."""
    x, keys = frames, []
    if key is not None:
        noise_key, *keys = jax.random.split(key, 1 + len(layers))
        x = x + 0.1 * jax.random.normal(noise_key, x.shape)
    for number, layer in enumerate(layers):
        dimensions = ("NHC", "HIO", "NHC")
        x = jax.lax.conv_general_dilated(
            x, layer["weight"], (1,), "SAME", dimension_numbers=dimensions
        )
        x = jax.nn.relu(x + layer["bias"])
        if keys:  # dropout of whole features
            x = x * jax.random.bernoulli(keys[number], 0.8, (len(x), 1, x.shape[2])) / 0.8
    return x


def train(
    params: Any,
    loss: Callable[[Any, DigitStrings, Any], Any],
    strings: DigitStrings,
    key: Any,
    *,
    steps: int,
    batch_size: int = 32,
) -> Any:
    """The parameters after so many steps of AdamW on the mean of `loss(params, batch, key)`."""
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 20, steps)
    optimizer = optax.adamw(rate, weight_decay=0.01)

    @jax.jit
    def step(params: Any, state: Any, key: Any) -> tuple[Any, Any, Any]:
        batch_key, loss_key = jax.random.split(key)
        rows = jax.random.randint(batch_key, (batch_size,), 0, len(strings.frames))
        batch = jax.tree.map(lambda whole: whole[rows], strings)
        value, gradient = jax.value_and_grad(lambda p: jnp.mean(loss(p, batch, loss_key)))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for number, step_key in enumerate(jax.random.split(key, steps), start=1):
        params, state, value = step(params, state, step_key)
        if number % 200 == 0:
            print(f"step {number}: loss {value:.3f}", flush=True)
    return params


def label_error(labels: Any, lengths: Any, strings: DigitStrings) -> float:
    """Edit distances between what was found and what is true, over the number of true labels."""
    found = [row[:length] for row, length in zip(np.asarray(labels), lengths, strict=True)]
    truth = spellings(strings)
    return sum(map(_edit_distance, found, truth)) / sum(map(len, truth))


def spellings(strings: DigitStrings) -> list[Any]:
    """The labels of each string, without padding."""
    rows = zip(np.asarray(strings.labels), strings.num_labels, strict=True)
    return [row[:length] for row, length in rows]


def _edit_distance(found: Any, truth: Any) -> int:
    distance = np.arange(len(truth) + 1)
    for symbol in found:
        new = np.minimum(distance + 1, np.append(np.inf, distance[:-1] + (truth != symbol)))
        # A label that is missing costs one more than the place before it.
        distance = np.minimum.accumulate(new - np.arange(len(new))) + np.arange(len(new))
    return int(distance[-1])


def in_digits(labels: Any) -> str:
    """What the labels say, up to the first -1."""
    return "".join(str(label - 1) for label in np.asarray(labels) if label > 0)


def draw(path: Path, columns: Any, lattice: Any, names: list[str], title: str) -> None:
    """A string's columns [T, 8] above what was inferred of each state [T, S], on one time axis."""
    figure = Figure(figsize=(9, 1.2 + 0.25 * len(names)), layout="constrained", dpi=120)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, len(names)))
    above.imshow(np.asarray(columns).T, cmap="gray_r", aspect="auto")
    above.set_yticks([])
    shown = below.imshow(np.asarray(lattice).T, cmap="magma_r", aspect="auto", vmin=0, vmax=1)
    below.set_yticks(range(len(names)), names)
    below.set(xlabel="frame", ylabel=title)
    figure.colorbar(shown, ax=below, label="probability", pad=0.01)
    figure.savefig(path)
