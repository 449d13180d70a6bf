"""Train the same recogniser as a transducer, and decode it frame by frame.

    python examples/digits_transducer.py --out occupancy.png

A transducer has a predictor beside the encoder: what it found last changes what it expects next.
So it is trained on strings in which only some digits follow each other, and learns which do.
"""

import argparse
import time
from functools import partial
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
    train,
)

from jaxem import transducer
from jaxem.datasets import DigitStrings, digit_strings

TOPOLOGY = "modified"  # at most one label a frame: a digit is eight frames wide


def init(key: Any, size: int = 64) -> dict[str, Any]:
    """Parameters: an encoder, embeddings of the last two tokens, and logits from their sum."""
    keys = jax.random.split(key, 4)
    return {
        "encoder": init_layers(keys[0], [8, size, size, size]),
        "last": 0.1 * jax.random.normal(keys[1], (NUM_SYMBOLS, size)),
        "before": 0.1 * jax.random.normal(keys[2], (NUM_SYMBOLS, size)),
        "output": 0.1 * jax.random.normal(keys[3], (size, NUM_SYMBOLS)),
    }


def predict(params: dict[str, Any], state: Any, token: Any) -> tuple[Any, Any]:
    """The prediction after a token, and the next state: that token.  At first all are blanks."""
    return params["last"][token] + params["before"][state], token


def join(params: dict[str, Any], frame: Any, prediction: Any) -> Any:
    """Logits [V] of one encoded frame and one prediction; leading axes are broadcast."""
    return jax.nn.relu(frame + prediction) @ params["output"]


def logits_of(params: dict[str, Any], batch: DigitStrings, key: Any = None) -> Any:
    """Logits [B, T, L + 1, V] of all frames after all true prefixes."""
    frames = encode(params["encoder"], batch.frames, key)
    tokens = jnp.pad(jnp.maximum(batch.labels, BLANK), ((0, 0), (2, 0)), constant_values=BLANK)
    predictions, _ = predict(params, tokens[:, :-1], tokens[:, 1:])
    return join(params, frames[:, :, None], predictions[:, None])


def loss(params: dict[str, Any], batch: DigitStrings, key: Any) -> Any:
    """-log p(labels | frames) [B]."""
    logits = logits_of(params, batch, key)
    return transducer.loss(
        logits, batch.labels, batch.num_frames, batch.num_labels, blank=BLANK, topology=TOPOLOGY
    )


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, decode, draw; the label error of each way of decoding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--strings", type=int, default=500, help="how many are held out")
    parser.add_argument("--width", type=int, default=4, help="of the beam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("occupancy.png"), help="the picture")
    options = parser.parse_args(arguments)
    keys = jax.random.split(jax.random.key(options.seed), 5)

    begin = time.perf_counter()
    grammar = digit_grammar(keys[0])
    training = digit_strings(keys[1], 4096, transition=grammar)
    params = train(init(keys[2]), loss, training, keys[3], steps=options.steps)
    print(f"trained in {time.perf_counter() - begin:.0f} s")

    held_out = digit_strings(keys[4], options.strings, transition=grammar, held_out=True)
    frames = jax.jit(encode)(params["encoder"], held_out.frames)

    # Decoding calls the networks for one hypothesis at a time.
    networks = {
        "predict": lambda state, token: predict(params, state, token),
        "join": lambda frame, prediction: join(params, frame, prediction),
        "start": jnp.int32(BLANK),
        "topology": TOPOLOGY,
    }
    room = held_out.labels.shape[1] + 4
    take_best = jax.jit(partial(transducer.greedy, **networks, max_length=room))
    greedy = take_best(frames, held_out.num_frames)
    search = transducer.beam_search(**networks, width=options.width, max_length=room)
    beam = jax.jit(search.run)(frames, held_out.num_frames)
    errors = {
        "greedy": label_error(greedy.labels, greedy.lengths, held_out),
        f"beam of {options.width}": label_error(beam.labels[:, 0], beam.lengths[:, 0], held_out),
    }
    for name, error in errors.items():
        print(f"label error, {name}: {error:.1%}")

    row = int(jnp.argmax(held_out.num_labels))
    one = jax.tree.map(lambda whole: whole[row : row + 1], held_out)
    print(f"\n{in_digits(one.labels[0])}, as its frames come in:")
    heard = frames[row : row + 1, : one.num_frames[0]]
    at_last, at_once = listen(search, heard[0]), jax.jit(search.run)(heard)
    assert at_last == in_digits(at_once.labels[0, 0])  # one by one is as all at once
    show_occupancy(params, one, options.out)
    return errors


def listen(search: transducer.BeamSearch, frames: Any) -> str:
    """Print what is found after each of the frames [T, F] of one string, where that changes."""
    step, finalize = jax.jit(search.step), jax.jit(search.finalize)
    beam, found = search.init(1), ""
    for t, frame in enumerate(frames):
        beam = step(beam, frame[None])
        best = in_digits(finalize(beam).labels[0, 0])
        if best != found:
            print(f"  frame {t}: {best}")
            found = best
    return found


def show_occupancy(params: dict[str, Any], one: DigitStrings, path: Path) -> None:
    """Draw how many labels of one string are found at each frame, given what it says."""
    given = logits_of(params, one), one.labels, one.num_frames, one.num_labels
    T, L = int(one.num_frames[0]), int(one.num_labels[0])
    posterior = transducer.posterior(*given, topology=TOPOLOGY)
    occupancy = posterior.blank.at[:, :, :-1].add(posterior.label)[0, :T, : L + 1]
    names = [in_digits(one.labels[0, :place]) or "nothing" for place in range(L + 1)]
    draw(path, one.frames[0, :T], occupancy, names, "found so far")
    print(f"picture in {path}")


if __name__ == "__main__":
    main()
