"""The most probable labellings among those of a beam (prefix beam search)."""

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from math import isfinite, isqrt
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxem.data import is_traced, mask_from_lengths
from jaxem.hypotheses import NO_LABEL, Hypotheses, Prefixes, select
from jaxem.pytree import pytree
from jaxem.semiring import pairwise_sum, times
from jaxem.targets import LogScale, check_blank, check_logits, computed, lengths_or_all


class LanguageModel(Protocol):
    """What is known of the next label from those before it: a pure function of one hypothesis."""

    @property
    def start(self) -> Any:
        """The first state, a pytree of arrays; every other has its shapes and dtypes."""
        ...

    def __call__(self, state: Any, token: Int[Array, ""]) -> tuple[Float[Array, " V"], Any]:
        """Log-probabilities of the label after `token`, at first -1, nothing; the state there.

        They are indexed as the logits are; the blank's is not used.  It is also asked for empty
        places of the beam, with any state: what it says there is not used either.
        """
        ...


@pytree
class _Options:
    """What all steps share.  The weights are arrays, so that others need no other program."""

    language_model: Any
    alpha: Float[Array, ""]
    beta: Float[Array, ""]


@pytree
class _Frame:
    log_probs: Float[Array, " V"]
    symbols: Int[Array, " S"] | None  # those that may enter the beam, and the blank; None: all
    values: Float[Array, " S"]  # their log-probabilities


@pytree
class _Beam:
    """Prefixes by falling score, each with what its alignments up to here add up to.

    Probabilities and bonuses are relative to those of the first, so that they keep their digits.
    """

    prefixes: Prefixes
    log_blank: Float[Array, " W"]  # of the alignments that end with a blank
    log_label: Float[Array, " W"]  # of those that end with the last label
    bonus: Float[Array, " W"]  # α log P(labels) + β length
    state: Any  # [W, ...], of the language model before the last label


def beam_search(
    logits: Float[Array, "B T V"],
    logit_lengths: Int[Array, " B"] | None = None,
    *,
    width: int,
    language_model: LanguageModel | None = None,
    alpha: float | Float[Array, ""] = 1.0,
    beta: float | Float[Array, ""] = 0.0,
    blank: int = 0,
    max_length: int | None = None,
) -> Hypotheses:
    """The best `width` labellings found of each sequence, [B, width], best first.

    A labelling is scored by log P_ctc + α log P_lm + β · length, where P_ctc is the sum over all
    its alignments.  `log_prob` is log P_ctc alone.  After each frame the beam keeps the prefixes
    with the best scores; alignments that lead to the same prefix are added up, never kept twice.
    So `log_prob` leaves out only what was lost with prefixes that fell out of the beam: it is a
    lower bound, and exact where the beam has room for every prefix of positive probability.

    Places for which there is no labelling of positive probability have scores of -inf and length
    0, all of them if a frame is nothing but -inf; NaN or +inf in a sequence make its scores NaN.
    Frames past `logit_lengths` have no influence.  No labelling grows beyond `max_length`, by
    default T.  P_lm is of the labels alone, without an end of sequence.  Of equal scores any may
    come first.  The scores are float32 at least.  They have no useful gradient: `ctc.loss` of the
    labels found has one.

    The time is O(T · W · (min(V, W) + W)) a sequence without a language model: only the best W + 1
    symbols of a frame can matter; with one, O(T · W · (V + W)) and T · W calls of the model, mapped
    over the batch and the beam.  A language model that is a pytree may change its arrays without a
    new compilation; any other object is taken to be constant.

    Graves et al. (2006) §3.2; Hannun et al. (2014), "First-pass large vocabulary continuous speech
    recognition using bi-directional recurrent DNNs", algorithm 1; the score is that of Hannun et
    al. (2014), "Deep Speech: scaling up end-to-end speech recognition", §2.2.

    Raises:
        ValueError: logits that are not floating [B, T, V], options out of range, lengths that are
            not 0 to T (NaN instead if they are traced), a language model of another vocabulary or
            whose state changes its form.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> logits = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))
        >>> found = jaxem.ctc.beam_search(logits, width=3)
        >>> found.labels[0].tolist(), jnp.exp(found.log_prob[0]).round(2).tolist()
        ([[1, -1], [-1, -1], [-1, -1]], [0.64, 0.36, 0.0])
    """
    logits = check_logits("logits", logits, "B T V")
    batch, num_frames, num_symbols = logits.shape
    check_blank(blank, num_symbols)
    lengths = lengths_or_all("logit_lengths", logit_lengths, batch, num_frames)
    max_length = num_frames if max_length is None else max_length
    for name, value, least in [("width", width, 1), ("max_length", max_length, 0)]:
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}.")
    for name, value, least in [("alpha", alpha, 0), ("beta", beta, -float("inf"))]:
        if not is_traced(value) and not (isfinite(value) and value >= least):
            kind = "finite" if least else "finite and not negative"
            raise ValueError(f"{name} must be {kind}, got {value}.")
    # What JAX knows as a pytree is traced; of another object the program keeps the values it has.
    if language_model is not None and not hasattr(language_model, "start"):
        raise ValueError("language_model must have a `start`, its first state.")
    opaque = jax.tree_util.all_leaves([language_model])
    if opaque and not isinstance(language_model, Hashable):
        raise ValueError(
            f"language_model must be a pytree or hashable, {type(language_model).__name__} is "
            "neither; a frozen dataclass registered with JAX is both."
        )
    traced, constant = (None, language_model) if opaque else (language_model, None)
    dtype = computed(logits.dtype)
    options = _Options(traced, jnp.asarray(alpha, dtype), jnp.asarray(beta, dtype))
    return _search(logits, lengths, options, constant, width, blank, max_length)


@partial(jax.jit, static_argnames=("constant_model", "width", "blank", "max_length"))
def _search(
    logits: Array,
    lengths: Array,
    options: _Options,
    constant_model: Any,
    width: int,
    blank: int,
    max_length: int,
) -> Hypotheses:
    if constant_model is not None:
        options = _Options(constant_model, options.alpha, options.beta)
    _check_language_model(options.language_model, logits.shape[-1])
    frames = _frames(options, logits.astype(options.alpha.dtype), lengths, blank, width)
    start = _start(options, width, max_length, frames.values.shape[2])
    return jax.vmap(partial(_walk, options, blank, start))(frames)


def _frames(options: _Options, logits: Array, lengths: Array, blank: int, width: int) -> _Frame:
    """What a step reads of each frame, [B, number of chunks, chunk, ...]."""
    B, T, V = logits.shape
    # Labels are put in order between chunks: about every √T frames, a divisor of T if there is one.
    root = max(isqrt(T), 1)
    chunk = min(range(root, 2 * root + 1), key=lambda size: -T % size)
    padding = -T % chunk
    is_blank = jnp.arange(V) == blank
    # Past the end there is nothing but blanks, which are certain: they change nothing.
    in_range = (lengths >= 0) & (lengths <= T)
    inside = mask_from_lengths(lengths, T + padding) & in_range[:, None]
    outside = jnp.where(in_range[:, None], jnp.where(is_blank, 0, -jnp.inf), jnp.nan)
    log_probs = jnp.pad(LogScale.of(logits).log_prob(logits), [(0, 0), (0, padding), (0, 0)])
    log_probs = jnp.where(inside[..., None], log_probs, outside[:, None].astype(logits.dtype))
    symbols, values = None, log_probs
    if options.language_model is None and width + 2 < V:
        # Prefixes then agree on the order of labels, and those before one make better prefixes: all
        # but a prefix's last label, which may need a blank.  So it has room after `width` others.
        symbols = lax.top_k(jnp.where(is_blank, jnp.inf, log_probs), width + 2)[1]
        values = jnp.take_along_axis(log_probs, symbols, -1)
    chunks = (B, (T + padding) // chunk, chunk)
    return jax.tree.map(
        lambda leaf: leaf.reshape(*chunks, leaf.shape[-1]), _Frame(log_probs, symbols, values)
    )


def _check_language_model(model: Any, num_symbols: int) -> None:
    """A ValueError unless it knows that many symbols and its state keeps its form."""
    if model is None:
        return
    start = jax.tree.map(jnp.asarray, model.start)
    answer = jax.eval_shape(model, start, jnp.zeros((), jnp.int32))
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ValueError(f"language_model must return (log_probs, state), got {answer}.")
    log_probs, after = answer
    if log_probs.shape != (num_symbols,):
        raise ValueError(
            f"language_model must return log-probabilities [{num_symbols}], one for each column of "
            f"the logits, got shape {log_probs.shape}."
        )
    before = jax.eval_shape(lambda: start)
    forms = [
        (jax.tree.structure(state), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)])
        for state in (before, after)
    ]
    if forms[0] != forms[1]:
        raise ValueError(
            f"language_model must return a state of the form of its start, {before}, got {after}."
        )


def _start(options: _Options, width: int, max_length: int, chunk: int) -> _Beam:
    """The empty prefix, which is certain, and nothing else."""
    nothing = jnp.full(width, -jnp.inf, options.alpha.dtype)
    model = options.language_model
    state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (width, *jnp.shape(leaf))),
        None if model is None else model.start,
    )
    prefixes = Prefixes.start(width, max_length, chunk)
    return _Beam(prefixes, nothing.at[0].set(0), nothing, jnp.zeros_like(nothing), state)


def _walk(options: _Options, blank: int, beam: _Beam, frames: _Frame) -> Hypotheses:
    """The frames of a sequence, chunk by chunk."""

    def walk_chunk(beam: _Beam, chunk: _Frame) -> tuple[_Beam, Any]:
        beam, shifts = lax.scan(partial(_step, options, blank), beam, chunk)
        return replace(beam, prefixes=beam.prefixes.settle()), shifts

    beam, shifts = lax.scan(walk_chunk, beam, frames)
    log_scale, bonus_scale = (pairwise_sum(shift.reshape(-1)) for shift in shifts)
    log_prob = _total(beam) + log_scale
    return beam.prefixes.ranked(log_prob + (beam.bonus + bonus_scale), log_prob)


def _total(beam: _Beam) -> Array:
    return jnp.logaddexp(beam.log_blank, beam.log_label)


def _step(options: _Options, blank: int, beam: _Beam, frame: _Frame) -> tuple[_Beam, Any]:
    """The beam after one more frame, and what was subtracted to make it relative to its first."""
    prefixes, last, total = beam.prefixes, beam.prefixes.last, _total(beam)
    log_probs, symbols = frame.log_probs, frame.symbols
    symbols = jnp.arange(len(log_probs)) if symbols is None else symbols
    gain, after = _language(options, beam)

    # A prefix stays with a blank, with its last label again, or as its parent grows into it.
    parent, is_last = prefixes.parent, symbols == last[:, None]
    joined = jnp.where(last[parent] == last, beam.log_blank[parent], total[parent])
    joined = jnp.where(parent >= 0, joined, -jnp.inf)
    log_blank = total + log_probs[blank]
    log_label = jnp.logaddexp(beam.log_label, joined) + log_probs[last]
    stay = jnp.logaddexp(log_blank, log_label) + beam.bonus

    # Or it grows by a label: where that is its last one again, only after a blank.
    grown = jnp.where(is_last, beam.log_blank[:, None], total[:, None]) + frame.values
    # An empty place grows into nothing, also where the language model says NaN there.
    closed = prefixes.full | jnp.isneginf(total)
    grown = jnp.where(closed[:, None], -jnp.inf, grown + (beam.bonus[:, None] + gain))
    # What a parent grew into is there already.
    place = jnp.max(jnp.where(is_last, jnp.arange(len(symbols)), -1), 1)
    parents = jnp.where((parent >= 0) & (place >= 0), parent, len(parent))
    grown = grown.at[parents, place].set(-jnp.inf, mode="drop")

    scores = jnp.where(symbols == blank, stay[:, None], grown)  # nothing grows by a blank
    score, best = lax.top_k(scores.reshape(-1), len(stay))
    source, column = best // len(symbols), best % len(symbols)
    token, alive = symbols[column], ~jnp.isneginf(score)  # NaN is alive, and stays NaN
    stays = token == blank
    before = jnp.where(token == last[source], beam.log_blank[source], total[source])
    log_label = jnp.where(stays, log_label[source], before + frame.values[column])
    log_blank = jnp.where(stays, log_blank[source], -jnp.inf)
    gained = jnp.where(stays, 0, jnp.broadcast_to(gain, scores.shape)[source, column])
    bonus = beam.bonus[source] + gained

    old, new = jax.tree.map(lambda leaf: leaf[source], (beam.state, after))
    state = select(stays, old, new)
    prefixes = prefixes.select(source, jnp.where(stays, NO_LABEL, token), alive)
    log_blank, log_label = (jnp.where(alive, end, -jnp.inf) for end in (log_blank, log_label))
    bonus = jnp.where(alive, bonus, 0)
    shift = jnp.where(alive[0], jnp.logaddexp(log_blank[0], log_label[0]), 0), bonus[0]
    return _Beam(
        prefixes, log_blank - shift[0], log_label - shift[0], bonus - shift[1], state
    ), shift


def _language(options: _Options, beam: _Beam) -> tuple[Array, Any]:
    """What growing by each symbol adds to the bonus, [W, V] or [1, 1]; states after the last."""
    if options.language_model is None:
        return options.beta[None, None], None
    log_probs, after = jax.vmap(options.language_model)(beam.state, beam.prefixes.last)
    return times(options.alpha, log_probs.astype(options.alpha.dtype)) + options.beta, after
