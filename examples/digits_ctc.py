"""Train a recogniser of handwritten digit strings with CTC, decode it and see where it looks.

    python examples/digits_ctc.py --out alignment.png

The network reads columns of 8 pixels and is told which digits a string shows, not where they are.
It is trained on strings of random digits.  In those it is tested on, made from other images, only
some digits follow each other; that is what the language model knows.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from recogniser import (
    BLANK,
    NUM_SYMBOLS,
    digit_grammar,
    draw,
    encode,
    in_digits,
    init_layers,
    label_error,
    spellings,
    train,
)

from jaxem import ctc
from jaxem.datasets import DigitStrings, digit_strings


def init(key: Any, size: int = 64) -> dict[str, Any]:
    """Parameters: an encoder, and logits of the blank and ten digits from its features."""
    encoder_key, output_key = jax.random.split(key)
    output = 0.1 * jax.random.normal(output_key, (size, NUM_SYMBOLS))
    return {"encoder": init_layers(encoder_key, [8, size, size, size]), "output": output}


def logits_of(params: dict[str, Any], frames: Any, key: Any = None) -> Any:
    """Logits [B, T, V]."""
    return encode(params["encoder"], frames, key) @ params["output"]


def loss(params: dict[str, Any], batch: DigitStrings, key: Any) -> Any:
    """-log p(labels | frames) [B]."""
    logits = logits_of(params, batch.frames, key)
    return ctc.loss(logits, batch.labels, batch.num_frames, batch.num_labels, blank=BLANK)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, decode, draw; the label error of each way of decoding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--strings", type=int, default=500, help="how many are held out")
    parser.add_argument("--width", type=int, default=8, help="of the beam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("alignment.png"), help="the picture")
    options = parser.parse_args(arguments)
    keys = jax.random.split(jax.random.key(options.seed), 6)

    begin = time.perf_counter()
    training = digit_strings(keys[0], 4096)
    params = train(init(keys[1]), loss, training, keys[2], steps=options.steps)
    print(f"trained in {time.perf_counter() - begin:.0f} s")

    grammar = digit_grammar(keys[3])
    held_out = digit_strings(keys[4], options.strings, transition=grammar, held_out=True)
    logits = jax.jit(logits_of)(params, held_out.frames)

    # The language model has read other strings of the same grammar, and no image.
    texts = spellings(digit_strings(keys[5], 2000, transition=grammar))
    language_model = ctc.NGram.estimate(texts, NUM_SYMBOLS, order=2)
    beam = ctc.beam_search(logits, held_out.num_frames, width=options.width)
    guided = ctc.beam_search(
        logits,
        held_out.num_frames,
        width=options.width,
        language_model=language_model,
        alpha=0.8,
        beta=1.0,  # the model takes log 3 from the score of every digit, right or wrong
    )
    best = jax.tree.map(lambda of_beam: of_beam[:, 0], (beam, guided))
    found = {
        "greedy": ctc.greedy(logits, held_out.num_frames),
        f"beam of {options.width}": best[0],
        "beam and language model": best[1],
    }
    errors = {
        name: label_error(hypotheses.labels, hypotheses.lengths, held_out)
        for name, hypotheses in found.items()
    }
    for name, error in errors.items():
        print(f"label error, {name}: {error:.1%}")

    row = int(jnp.argmax(held_out.num_labels))
    one, one_logits = jax.tree.map(lambda whole: whole[row : row + 1], (held_out, logits))
    print(f"\n{in_digits(one.labels[0])}, found as {in_digits(found['greedy'].labels[row])}")
    show_alignment(one_logits, one, options.out)
    return errors


def show_alignment(logits: Any, one: DigitStrings, path: Path) -> None:
    """Print and draw where the digits of one string are, given what it says."""
    given = logits, one.labels, one.num_frames, one.num_labels
    alignment, posterior = ctc.align(*given), ctc.posterior(*given)
    T, L = int(one.num_frames[0]), int(one.num_labels[0])
    digits = in_digits(one.labels[0])
    for place in range(L):
        first, last, confidence = (
            part[0, place] for part in (alignment.first, alignment.last, alignment.confidence)
        )
        print(f"  {digits[place]}: frames {first} to {last}, confidence {confidence:.2f}")
    names = ["·", *(name for digit in digits for name in (digit, "·"))]
    states = posterior.states[0, :T, : 2 * L + 1]
    draw(path, one.frames[0, :T], states, names, "digit, or blank ·")
    print(f"picture in {path}")


if __name__ == "__main__":
    main()
