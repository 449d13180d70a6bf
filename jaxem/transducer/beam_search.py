"""The most probable labellings by a beam of prefixes, one frame at a time."""

from dataclasses import field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.data import mask_from_lengths
from jaxem.hypotheses import NO_LABEL, Hypotheses, Prefixes, select
from jaxem.pytree import pytree
from jaxem.semiring import compensated_sum, logsumexp
from jaxem.targets import check_logits, lengths_or_all
from jaxem.transducer.grid import GridTopology
from jaxem.transducer.predictor import (
    Join,
    Predict,
    begin,
    check_options,
    log_probs,
)


@pytree
class Beam:
    """What a search carries from frame to frame, for B sequences and W places each.

    The log-probability of a prefix, summed over the alignments found, is `scale + score`.  Kept
    apart, the differences between prefixes lose no digits to the length of the sequence.
    """

    prefixes: Prefixes  # [B, W, ...]
    score: Float[Array, "B W"]  # falling, 0 in the first place; -inf: the place is empty
    scale: Float[Array, " B"]
    lost: Float[Array, " B"]  # what rounding has taken from `scale`
    prediction: Any  # [B, W, ...]
    state: Any  # [B, W, ...]


@pytree
class _Grown:
    """Prefixes that have grown by up to n labels since the frame began; some may be equal."""

    source: Int[Array, " M"]  # the place in the beam that it has grown from
    lengths: Int[Array, " M"]
    tail: Int[Array, "M n"]  # the last labels, -1 before the first
    prediction: Any  # [M, ...]
    state: Any  # [M, ...]

    @classmethod
    def start(cls, prefixes: Prefixes, n: int, prediction: Any, state: Any) -> "_Grown":
        """The prefixes of the beam themselves."""
        position = prefixes.lengths[:, None] - n + jnp.arange(n)
        tail = jnp.take_along_axis(prefixes.labels, jnp.maximum(position, 0), 1)
        return cls(
            source=jnp.arange(len(prefixes.lengths), dtype=jnp.int32),
            lengths=prefixes.lengths,
            tail=jnp.where(position < 0, NO_LABEL, tail),
            prediction=prediction,
            state=state,
        )

    def extend(
        self, parent: Int[Array, " W"], token: Int[Array, " W"], predict: Predict
    ) -> "_Grown":
        """The prefixes in the places `parent`, each followed by a token."""
        parents = jax.tree.map(lambda leaf: leaf[parent], self)
        tail = jnp.concatenate([parents.tail[:, 1:], token[:, None]], 1)
        return _Grown(
            parents.source, parents.lengths + 1, tail, *jax.vmap(predict)(parents.state, token)
        )

    def equal(self, prefixes: Prefixes) -> Bool[Array, "M M"]:
        """Whether two places hold the same prefix: what is before their tails is in the beam."""
        before = self.lengths - self.tail.shape[1]
        same = prefixes.common[self.source[:, None], self.source] >= before
        same = same & (self.lengths[:, None] == self.lengths)
        return same & jnp.all(self.tail[:, None] == self.tail, -1)

    def append_to(self, prefixes: Prefixes, alive: Bool[Array, " M"]) -> Prefixes:
        """The beam with these in its places."""
        n, source = self.tail.shape[1], self.source
        new = self.lengths - prefixes.lengths[source]
        for position in range(n):
            token = jnp.where(position >= n - new, self.tail[:, position], NO_LABEL)
            prefixes = prefixes.select(source, token, alive)
            source = jnp.arange(len(source), dtype=jnp.int32)
        return prefixes


@pytree
class BeamSearch:
    """A search over prefixes as pure functions; `beam_search` makes one and says how it works.

    `finalize(step(step(init(B), frames[:, 0]), frames[:, 1]))`, and so on, is what `run(frames)`
    returns.  Put `jax.jit` around `step`, `finalize` or `run`: else each call is compiled again.
    """

    start: Any
    predict: Predict = field(metadata={"static": True})
    join: Join = field(metadata={"static": True})
    width: int = field(metadata={"static": True})
    blank: int = field(metadata={"static": True})
    max_symbols: int = field(metadata={"static": True})
    max_length: int | None = field(metadata={"static": True})
    topology: GridTopology = field(metadata={"static": True})

    def init(self, batch_size: int, dtype: Any = None) -> Beam:
        """A beam of the empty prefix alone, before the first frame.

        The scores are of `dtype`, by default that of the first prediction, float32 at least.
        """
        if self.max_length is None:
            raise ValueError(
                "a search frame by frame needs to know how many labels it may find: give "
                "beam_search a max_length."
            )
        return self._init(batch_size, dtype, self.max_length)

    def step(
        self, beam: Beam, frames: Float[Array, "B F"], active: Bool[Array, " B"] | None = None
    ) -> Beam:
        """The beam one frame later; rows that are not `active` stay as they are."""
        frames, batch = jnp.asarray(frames), len(beam.score)
        if frames.ndim != 2 or len(frames) != batch:
            raise ValueError(
                f"frames must be [{batch}, F], one frame a row of the beam, got shape "
                f"{list(frames.shape)}."
            )
        if active is None:
            return jax.vmap(self._step)(beam, frames)
        active = jnp.asarray(active)
        if active.shape != (batch,) or active.dtype != jnp.bool_:
            raise ValueError(
                f"active must be {batch} booleans, one a row of the beam, got shape "
                f"{list(active.shape)} and dtype {active.dtype}."
            )
        return select(active, jax.vmap(self._step)(beam, frames), beam)

    def finalize(self, beam: Beam) -> Hypotheses:
        """The hypotheses [B, width] of a beam, best first; the search may go on from there."""
        log_prob = beam.scale[:, None] + (beam.score - beam.lost[:, None])
        return jax.vmap(Prefixes.ranked)(beam.prefixes, log_prob, log_prob)

    def run(
        self, frames: Float[Array, "B T F"], lengths: Int[Array, " B"] | None = None
    ) -> Hypotheses:
        """The hypotheses [B, width] after all frames of each sequence, best first.

        Frames past `lengths` have no influence.  Without a `max_length` the labels have room for as
        many as the frames allow.
        """
        frames = check_logits("frames", frames, "B T F")
        batch, steps, _ = frames.shape
        ends = lengths_or_all("lengths", lengths, batch, steps)
        prediction, _ = begin(self.predict, self.start, self.blank)
        frame = jax.ShapeDtypeStruct(frames.shape[2:], frames.dtype)
        dtype = jax.eval_shape(self._log_probs, frame, prediction).dtype
        room = max(steps, 1) * (1 if self.topology == "modified" else self.max_symbols)
        beam = self._init(batch, dtype, self.max_length or room)
        active = None if lengths is None else mask_from_lengths(ends, steps).T

        def step(beam: Beam, inputs: tuple[Array, Array | None]) -> tuple[Beam, None]:
            return self.step(beam, *inputs), None

        beam, _ = lax.scan(step, beam, (frames.swapaxes(0, 1), active))
        wrong = (ends < 0) | (ends > steps)
        return self.finalize(replace(beam, scale=jnp.where(wrong, jnp.nan, beam.scale)))

    def _init(self, batch_size: int, dtype: Any, max_length: int) -> Beam:
        networks = begin(self.predict, self.start, self.blank)
        if dtype is None:
            dtypes = [leaf.dtype for leaf in jax.tree.leaves(networks[0])]
            floats = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
            dtype = jnp.result_type(jnp.float32, *floats) if floats else jnp.result_type(float)
        prediction, state = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (batch_size, self.width, *leaf.shape)), networks
        )
        prefixes = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (batch_size, *leaf.shape)),
            Prefixes.start(self.width, max_length),
        )
        score = jnp.full((batch_size, self.width), -jnp.inf, dtype).at[:, 0].set(0)
        scale = jnp.zeros(batch_size, dtype)
        # Two arrays of zeros: one that stands twice could not be donated.
        return Beam(prefixes, score, scale, jnp.zeros_like(scale), prediction, state)

    def _log_probs(self, frame: Float[Array, " F"], prediction: Any) -> Float[Array, " V"]:
        return log_probs(self.join, self.blank, frame, prediction)

    def _arcs(
        self, score: Array, full: Array, frame: Array, prediction: Any
    ) -> tuple[Float[Array, " W"], Float[Array, "W V"]]:
        """Scores of the prefixes after a blank, and after each label: a full one has none."""
        log_prob = jax.vmap(self._log_probs, (None, 0))(frame, prediction).astype(score.dtype)
        there = ~jnp.isneginf(score)[:, None]  # else NaN of an empty place's networks would spread
        onward = jnp.where(there, score[:, None] + log_prob, -jnp.inf)
        is_label = jnp.arange(onward.shape[1]) != self.blank
        return onward[:, self.blank], jnp.where(is_label & ~full[:, None], onward, -jnp.inf)

    def _step(self, beam: Beam, frame: Float[Array, " F"]) -> Beam:
        """One frame of one sequence."""
        one_frame = self._one_label if self.topology == "modified" else self._several_labels
        prefixes, score, prediction, state = one_frame(beam, frame)
        peak = jnp.where(jnp.isneginf(score[0]), 0, score[0])
        scale, lost = compensated_sum((beam.scale, beam.lost), peak)
        return Beam(prefixes, score - peak, scale, lost, prediction, state)

    def _one_label(self, beam: Beam, frame: Float[Array, " F"]) -> tuple[Prefixes, Array, Any, Any]:
        """A frame in which every prefix stays or grows by one label, and that ends either way."""
        prefixes, width = beam.prefixes, self.width
        stays, grows = self._arcs(beam.score, prefixes.full, frame, beam.prediction)
        # A prefix whose parent is in the beam is reached from there as well.
        parent, last = prefixes.parent, prefixes.last
        reached = jnp.where(parent >= 0, grows[parent, last], -jnp.inf)
        stays = jnp.logaddexp(stays, reached)
        grows = grows.at[jnp.where(parent >= 0, parent, width), last].set(-jnp.inf, mode="drop")
        score, best = _best(jnp.concatenate([stays, grows.ravel()]), width)
        is_new, symbols = best >= width, grows.shape[1]
        source = jnp.where(is_new, (best - width) // symbols, best)
        token = jnp.where(is_new, (best - width) % symbols, NO_LABEL)
        old = jax.tree.map(lambda leaf: leaf[source], (beam.prediction, beam.state))
        new = jax.vmap(self.predict)(old[1], jnp.where(is_new, token, self.blank))
        prefixes = prefixes.select(source, token, ~jnp.isneginf(score))
        return prefixes, score, *select(is_new, new, old)

    def _several_labels(
        self, beam: Beam, frame: Float[Array, " F"]
    ) -> tuple[Prefixes, Array, Any, Any]:
        """A frame in which each prefix grows by up to `max_symbols` labels, and a blank ends it."""
        width, prefixes, score = self.width, beam.prefixes, beam.score
        grown = _Grown.start(prefixes, self.max_symbols, beam.prediction, beam.state)
        rounds, ended, grows = [], [], None
        for _ in range(self.max_symbols + 1):
            if grows is not None:
                score, best = _best(grows.ravel(), width)
                parent, token = jnp.divmod(best, grows.shape[1])
                grown = grown.extend(parent, token, self.predict)
            full = grown.lengths >= prefixes.max_length
            ends, grows = self._arcs(score, full, frame, grown.prediction)
            rounds.append(grown)
            ended.append(ends)
        candidates = jax.tree.map(lambda *blocks: jnp.concatenate(blocks), *rounds)
        score = jnp.concatenate(ended)
        # The same prefix may have grown from several of the beam: all that reach it add up.
        equal = candidates.equal(prefixes) & ~jnp.isneginf(score)
        score = logsumexp(jnp.where(equal, score, -jnp.inf), 1)
        is_first = jnp.argmax(equal, 1) == jnp.arange(len(score))
        score, best = _best(jnp.where(is_first, score, -jnp.inf), width)
        chosen = jax.tree.map(lambda leaf: leaf[best], candidates)
        prefixes = chosen.append_to(prefixes, ~jnp.isneginf(score))
        return prefixes, score, chosen.prediction, chosen.state


def _best(score: Float[Array, " M"], width: int) -> tuple[Float[Array, " W"], Int[Array, " W"]]:
    """The largest scores, falling, and where they stand; of equal ones the first."""
    # Without the barrier XLA's simplifications hide from it on a CPU that no full sort is needed in
    # float32; in float64 it always sorts.
    return lax.optimization_barrier(lax.top_k(score, width))


def beam_search(
    predict: Predict,
    join: Join,
    start: Any,
    *,
    width: int,
    blank: int = 0,
    max_symbols: int = 3,
    max_length: int | None = None,
    topology: GridTopology = "regular",
) -> BeamSearch:
    """A search for the most probable labellings of a transducer, frame by frame or all at once.

    It is four pure functions: `init(batch_size)` returns a beam, `step(beam, frames[B, F],
    active=None)` the beam a frame later, `finalize(beam)` its `Hypotheses` [B, width], best first,
    and `run(frames[B, T, F], lengths=None)` does all three.  `score` and `log_prob` are the
    log-probability of a labelling given the frames so far, summed over the alignments found.

    `predict(state, token)` returns the prediction after one more token and the new state, `join(
    frame, prediction)` the logits [V]; both are pure functions of one hypothesis.  `start` is the
    first state and the blank the first token.  In a frame `join` runs for `width` prefixes in each
    round, `predict` for as many in each round but the first ("modified": in the only one).

    In the "regular" topology a frame is `max_symbols + 1` rounds.  Round n holds the best `width`
    of the prefixes that grew by n labels in this frame; each may end the frame with a blank.  The
    best `width` of all that did are the new beam, equal prefixes having been added up.  In the
    "modified" topology a frame is one round that a label ends as well.

    With a width of at least the number of all prefixes the log-probabilities are exact (of
    alignments with at most `max_symbols` labels in a frame); else they are lower bounds.  No prefix
    has more than `max_length` labels, for which there is room in every place of the beam; only
    `run` knows a default, as many as the frames allow.  Of equal scores the one that needs
    fewer labels in the frame is the better.

    A frame takes O(W · V) a round and, in the "regular" topology, O(W² · max_symbols³) to add up
    equal prefixes: `max_symbols` is 3 by default for that, where `greedy` has 10.

    Graves (2012), algorithm 1, with a bound on the labels of a frame instead of its open loop;
    Saon, Tüske & Audhkhasi (2020).

    Raises:
        ValueError: a wrong option; from the four functions a wrong shape, or lengths that are not 0
            to T (NaN instead if they are traced).

    Examples:
        >>> import jax, jax.numpy as jnp, jaxem
        >>> search = jaxem.transducer.beam_search(
        ...     lambda state, token: (token, token),
        ...     lambda frame, last: frame - 1.0 * (last == jnp.arange(3)),  # a bigram
        ...     0,
        ...     width=3,
        ...     max_length=4,
        ...     topology="modified",
        ... )
        >>> step, beam = jax.jit(search.step), search.init(1)
        >>> for frame in jnp.array([[0.0, 4.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 4.0]]):
        ...     beam = step(beam, frame[None])
        >>> found = search.finalize(beam)
        >>> found.labels[0, 0].tolist(), found.lengths[0].tolist()
        ([1, 2, -1, -1], [2, 1, 2])
    """
    if width < 1:
        raise ValueError(f"width must be 1 or more hypotheses, got {width}.")
    check_options(max_symbols, max_length, topology)
    return BeamSearch(start, predict, join, width, blank, max_symbols, max_length, topology)
