"""Draws overview.png, the picture in the README: `python docs/pictures/overview.py`."""

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxem
from jaxem import plots
from jaxem.plots.look import new_figure

HELLO = np.array([1, 2, 3, 3, 4])  # symbols of "hello", 0 is the blank
FRAMES = [0] * 6 + [1] * 5 + [0] * 3 + [2] * 6 + [0] * 4 + [3] * 4 + [0] * 3 + [3] * 5
FRAMES += [0] * 4 + [4] * 6 + [0] * 5  # what is said in each frame


def main() -> None:
    """Four panels: a mixture, a hidden Markov model, a lattice and a certificate."""
    figure = new_figure(13.0, 9.0)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.5))
    mixture, chain = above.subplots(1, 2, width_ratios=(1, 1.4))
    lattice, proof = below.subplots(1, 2, width_ratios=(1.2, 1))

    faithful = jaxem.datasets.old_faithful()
    start = jaxem.initialize.kmeans_plus_plus(jax.random.key(0), jaxem.Gaussian, faithful, 2)
    fitted = jaxem.fit(start, faithful).model
    plots.mixture(fitted, faithful, names=["eruption, min", "waiting, min"], ax=mixture)

    quakes = jaxem.datasets.earthquakes()
    start = jaxem.initialize.hmm(jax.random.key(0), jaxem.Poisson, quakes, 3)
    states = jaxem.fit(start, quakes).model
    plots.hmm(states, quakes, names=["earthquakes in a year"], ax=chain)

    logits = np.random.default_rng(0).normal(size=(len(FRAMES), 5))
    logits[np.arange(len(FRAMES)), FRAMES] += 1.8
    plots.ctc(jnp.asarray(logits), HELLO, names=list("–helo"), ax=lattice)

    plots.certificate(jaxem.certify(states, quakes), ax=proof)
    content = io.BytesIO()
    figure.savefig(content, dpi=84)
    picture = Image.open(content).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
