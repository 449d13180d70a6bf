"""Seeds among rows, and the rows nearest to each of them.

Random draws over more rows begin with the same numbers, so rows appended that cannot be drawn
change nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.labels import UNKNOWN, is_soft, log_evidence_for
from jaxem.pytree import pytree


@pytree
class Points:
    """Rows innermost, and the scale of their distances.

    Rows are subtracted before they are scaled: those that lie as far from one seed as from another
    then do so whatever the rounding of the scale.
    """

    columns: Float[Array, "F N"]
    per_scale: Float[Array, "F 1"]  # 1 / standard deviation, 1 where that is 0

    def distance(self, center: Float[Array, " F"]) -> Float[Array, " N"]:
        """Squared distance of every row to a center, in standard deviations."""
        return jnp.sum(((self.columns - center[:, None]) * self.per_scale) ** 2, 0)


def points_of(features: Float[Array, "N F"], counts: Bool[Array, " N"] | None) -> Points:
    """Rows with the standard deviations of those that count, each alike."""
    columns = features.T
    number = columns.shape[1] if counts is None else jnp.sum(counts)

    def mean(away: Array) -> Array:
        total = jnp.sum(away if counts is None else jnp.where(counts, away, 0), 1, keepdims=True)
        return total / jnp.asarray(number, away.dtype)

    # About a row: a large offset costs no digits, and a constant feature is exactly 0.
    centred = columns - columns[:, :1]
    centred = centred - mean(centred)
    scale = jnp.sqrt(mean(centred**2))
    none = ~(scale >= jnp.finfo(scale.dtype).tiny)  # 1/scale must be finite
    return Points(columns, 1 / jnp.where(none, 1, scale))


def nearest(
    key: Array,
    points: Points,
    weight: Array | None,
    num_seeds: int,
    distant: bool,
    labels: Array | None = None,
) -> Int[Array, " N"]:
    """The nearest of `num_seeds` seeds that its label admits, for every row; O(N) memory.

    Seeds are drawn far from each other if `distant`, and alike else.  The earlier one of two
    as near takes the row.
    """
    columns = points.columns
    size, dtype = columns.shape[1], columns.dtype
    free = jnp.zeros(size) if weight is None else jnp.log(weight)
    far = jnp.full(size, jnp.inf, dtype)
    distance = far
    if labels is None:
        labels = jnp.full(size, UNKNOWN)
        given, centers = jnp.zeros(num_seeds, bool), jnp.zeros((num_seeds, len(columns)), dtype)
    else:
        given, centers = _labelled_seeds(columns, weight, labels, num_seeds)

        def toward(distance: Array, seed: tuple[Array, Array]) -> tuple[Array, None]:
            new = points.distance(seed[1])
            return jnp.where(seed[0], jnp.minimum(distance, new), distance), None

        distance, _ = lax.scan(toward, far, (given, centers))

    def step(carry: tuple[Array, Array, Array, Array], inputs: Any) -> tuple[Any, None]:
        distance, nearest, member, free = carry
        key, index, is_given, center = inputs
        evidence = log_evidence_for(labels, index)
        log_probs = jnp.log(distance) if distant else jnp.zeros_like(distance)
        candidate = free + evidence > -jnp.inf
        # The first seed is any row; so is one drawn when every row already lies on a seed.
        spread = jnp.any(jnp.isfinite(log_probs) & candidate)
        row = _drawn(key, jnp.where(spread, log_probs, 0) + free + evidence)
        new = points.distance(jnp.where(is_given, center, columns[:, row]))
        new = jnp.where(is_given | jnp.any(candidate), new, jnp.inf)  # there may be none left
        own = jnp.where(evidence > -jnp.inf, new, jnp.inf)
        member = jnp.where(own < nearest, index, member)
        free = jnp.where(is_given, free, free.at[row].set(-jnp.inf))
        return (jnp.minimum(distance, new), jnp.minimum(nearest, own), member, free), None

    start = (distance, far, jnp.zeros(size, int), free.astype(dtype))
    inputs = (jax.random.split(key, num_seeds), jnp.arange(num_seeds), given, centers)
    (_, _, member, _), _ = lax.scan(step, start, inputs)
    return member


def _drawn(key: Array, logits: Float[Array, " N"]) -> Int[Array, ""]:
    """`jax.random.categorical`, from a maximum and a minimum.

    XLA's CPU compiler makes neither argmax nor the draws that go into it use vector registers: they
    take four times as long.
    """
    perturbed = jax.random.gumbel(key, logits.shape, logits.dtype) + logits
    size = len(logits)
    place = jnp.where(perturbed == jnp.max(perturbed), jnp.arange(size), size)
    return jnp.minimum(jnp.min(place), size - 1)  # a NaN equals nothing


def divided(
    key: Array,
    points: Points,
    weight: Array | None,
    member: Int[Array, " N"],
    num_members: int,
    inside: int,
) -> Int[Array, " N"]:
    """Each member's rows divided among `inside` seeds of their own: numbers 0..K·M-1."""
    weight = jnp.ones(len(member), points.columns.dtype) if weight is None else weight

    def one(found: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        key, index = inputs
        own = member == index
        part = nearest(key, points, jnp.where(own, weight, 0), inside, True)
        return jnp.where(own, index * inside + part, found), None

    keys = jax.random.split(jax.random.fold_in(key, 1), num_members)
    return lax.scan(one, member, (keys, jnp.arange(num_members)))[0]


def _labelled_seeds(
    columns: Array, weight: Array | None, labels: Array, num_seeds: int
) -> tuple[Bool[Array, " K"], Float[Array, "K F"]]:
    """Which seeds have labelled rows, and the mean of these; a sure row counts more."""
    if is_soft(labels):
        named = jnp.argmax(labels, 1)
        others = jnp.where(jnp.arange(num_seeds) == named[:, None], 0, labels)
        counts = 1 - jnp.max(others, 1)  # the largest entry is 1
    else:
        named, counts = labels, labels != UNKNOWN
    counts = counts.astype(columns.dtype) * (1 if weight is None else weight)
    total = jnp.zeros(num_seeds, columns.dtype).at[named].add(counts)
    about = columns[:, :1]  # a row: sums far from the origin would lose digits
    sums = jnp.zeros((num_seeds, len(columns)), columns.dtype)
    sums = sums.at[named].add((counts * (columns - about)).T)
    return total > 0, about.T + sums / jnp.where(total == 0, 1, total)[:, None]
