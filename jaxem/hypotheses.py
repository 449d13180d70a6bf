"""Label sequences found by a search, and the beam of prefixes that a search keeps."""

from dataclasses import field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.pytree import pytree

NO_LABEL = -1  # behind a sequence's last label; as a token, nothing is appended
NO_PREFIX = -1  # length of a place of the beam that holds nothing, not even the empty prefix


@pytree
class Hypotheses:
    """Label sequences with what they are ranked by; the leading axes are those of the search.

    A beam has one more axis, best first.  A place without a hypothesis has scores of -inf, length 0
    and labels of -1.
    """

    labels: Int[Array, "... L"]  # int32, -1 behind the last label
    lengths: Int[Array, "..."]  # number of labels
    score: Float[Array, "..."]  # what they are ranked by
    log_prob: Float[Array, "..."]  # of the labels given the frames, without any bonus


@pytree
class Prefixes:
    """A beam of W prefixes, and how much each pair of them has in common.

    The matrix `common` is exact, without hashing: where prefixes grow by a label at most, so does
    what two of them share.
    One beam; for a batch of them, `jax.vmap`.

    A step, `select`, takes O(W L) for the labels and O(W²) for the matrix.  With a `window` it
    moves only the labels appended since the last `settle`, which is due after `window` steps.
    """

    settled: Int[Array, "W L"]  # labels at the last `settle`; [W, 0] without a window
    origin: Int[Array, " W"]  # the row of `settled` that a prefix begins with
    begun: Int[Array, " W"]  # how many of its labels are there
    recent: Int[Array, "W window"]  # those after them, -1 behind the last
    last: Int[Array, " W"]  # the last label, -1 of an empty prefix or place
    lengths: Int[Array, " W"]  # -1: the place holds no prefix
    common: Int[Array, "W W"]  # number of leading labels that a pair shares
    max_length: int = field(metadata={"static": True})

    @classmethod
    def start(cls, width: int, max_length: int, window: int | None = None) -> "Prefixes":
        """The empty prefix in place 0, and nothing in the others."""
        room = (max_length, 0) if window is None else (min(window, max_length), max_length)
        none = jnp.full(width, NO_LABEL, jnp.int32)
        return cls(
            settled=jnp.full((width, room[1]), NO_LABEL, jnp.int32),
            origin=jnp.arange(width, dtype=jnp.int32),
            begun=jnp.zeros(width, jnp.int32),
            recent=jnp.full((width, room[0]), NO_LABEL, jnp.int32),
            last=none,
            lengths=jnp.full(width, NO_PREFIX, jnp.int32).at[0].set(0),
            common=jnp.zeros((width, width), jnp.int32),
            max_length=max_length,
        )

    @property
    def labels(self) -> Int[Array, "W L"]:
        """All labels, -1 behind the last."""
        if not self.settled.shape[1]:
            return self.recent
        shape = (len(self.lengths), self.max_length)
        return self._at(jnp.broadcast_to(jnp.arange(self.max_length), shape))

    @property
    def full(self) -> Bool[Array, " W"]:
        """Whether a prefix has as many labels as there is room for, so that none may follow."""
        return self.lengths >= self.max_length

    @property
    def parent(self) -> Int[Array, " W"]:
        """The place of each prefix without its last label; -1: nowhere."""
        begins = self.common == self.lengths[:, None]
        is_parent = begins & (self.lengths[:, None] + 1 == self.lengths)
        place = jnp.arange(len(self.lengths), dtype=jnp.int32)[:, None]
        return jnp.max(jnp.where(is_parent, place, -1), 0)

    def select(
        self, source: Int[Array, " M"], token: Int[Array, " M"], alive: Bool[Array, " M"]
    ) -> "Prefixes":
        """Another beam: in place m the prefix of place `source[m]` followed by `token[m]`.

        A token of -1 appends nothing.  Places that are not `alive` hold no prefix.  The beam has as
        many places as `source`, which may be another number.  What is `full` must not be extended.
        """
        token = token.astype(self.last.dtype)
        alive = alive & (self.lengths[source] != NO_PREFIX)
        grows = alive & (token != NO_LABEL)
        length, begun = self.lengths[source], self.begun[source]
        here = grows[:, None] & (jnp.arange(self.recent.shape[1]) == (length - begun)[:, None])
        recent = jnp.where(here, token[:, None], self.recent[source])
        last = jnp.where(grows, token, self.last[source])
        grown = replace(
            self,
            origin=self.origin[source],
            begun=jnp.where(alive, begun, 0),
            recent=jnp.where(alive[:, None], recent, NO_LABEL),
            last=jnp.where(alive, last, NO_LABEL),
            lengths=jnp.where(alive, length + grows, NO_PREFIX),
        )
        common = jnp.where(alive[:, None] & alive, self.common[source[:, None], source], 0)
        # At most one label more: either the two differ there, or one of them ended there and has
        # grown by a single label.
        following = lax.optimization_barrier(grown._at(common))  # not again for its transpose
        shared = (following == following.T) & (following != NO_LABEL)
        return replace(grown, common=common + shared)

    def settle(self) -> "Prefixes":
        """The same prefixes, with room for another `window` of labels.  O(W L)."""
        if not self.settled.shape[1]:
            return self
        return replace(
            self,
            settled=self.labels,
            origin=jnp.arange(len(self.lengths), dtype=jnp.int32),
            begun=jnp.maximum(self.lengths, 0),
            recent=jnp.full_like(self.recent, NO_LABEL),
        )

    def ranked(self, score: Float[Array, " W"], log_prob: Float[Array, " W"]) -> Hypotheses:
        """The prefixes by falling score, those of equal score by place."""
        score, order = lax.top_k(score, len(score))
        there = score > -jnp.inf
        return Hypotheses(
            jnp.where(there[:, None], self.labels[order], NO_LABEL),
            jnp.where(there, self.lengths[order], 0),
            score,
            jnp.where(jnp.isneginf(score), -jnp.inf, log_prob[order]),
        )

    def _at(self, position: Int[Array, "W P"]) -> Int[Array, "W P"]:
        """The label at each position of its row; -1 behind the last, and past the room."""
        later = position - self.begun[:, None]
        label = jnp.take_along_axis(self.recent, later, 1, mode="clip")
        label = jnp.where(later < self.recent.shape[1], label, NO_LABEL)
        if not self.settled.shape[1]:
            return label
        early = self.settled[self.origin[:, None], position]
        return jnp.where(later < 0, early, label)


def select(which: Bool[Array, " W"], new: Any, old: Any) -> Any:
    """The rows of `new` where `which`, else those of `old`, of every leaf [W, ...]."""
    return jax.tree.map(
        lambda new, old: jnp.where(which.reshape(-1, *[1] * (old.ndim - 1)), new, old), new, old
    )
