"""Starts for EM, each one M-step away from responsibilities; deterministic in the key.

They respect labels: rows that are known to come from a component belong to it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxem import em, observations
from jaxem.data import Samples, Sequences, chunk, refuse
from jaxem.families import Categorical, MixtureFamily, optional
from jaxem.families.mixture_family import MixtureOf
from jaxem.hmm import HMM
from jaxem.labels import UNKNOWN, is_soft, log_evidence, log_evidence_for
from jaxem.mixture import Mixture, num_features


def kmeans_plus_plus(key: Array, family: Any, data: Any, num_components: int) -> Mixture:
    """A mixture whose components begin at the clusters of well-spread rows.

    The first seed is a random row, each further one a row drawn with probability proportional to
    its squared distance to the nearest seed so far (Arthur & Vassilvitskii 2007), in units of the
    features' standard deviations.  Every row goes to its nearest seed; each component then takes
    its rows, and D + 1 pretend rows like the data as a whole, so that a cluster of few rows has a
    covariance and no symbol is ruled out.  Symbols have no distance: their responsibilities are
    random.

    A component with labelled rows has their mean for its seed; the others are drawn given these
    (Basu, Banerjee & Mooney 2002).  Soft labels count by how far the largest entry of a row exceeds
    the next.  Every row goes to the nearest seed of a component that its label admits.

    Args:
        key: a PRNG key.
        family: a family class, or `MixtureFamily.of(family, M)`.
        data: rows [N, D] or [N], or `Samples`.
        num_components: K, from 1 to the number of rows.

    Raises:
        ValueError: data the family cannot have produced, labels or a K out of range, weights that
            count nothing.

    Examples:
        >>> import jax, jaxem
        >>> faithful = jaxem.datasets.old_faithful()
        >>> key = jax.random.key(0)
        >>> start = jaxem.initialize.kmeans_plus_plus(key, jaxem.Gaussian, faithful, 2)
        >>> start.components.mean.shape
        (2, 2)
    """
    return _mixture(key, family, data, num_components, "distant")


def random_rows(key: Array, family: Any, data: Any, num_components: int) -> Mixture:
    """As `kmeans_plus_plus`, but the seeds are distinct rows drawn at random."""
    return _mixture(key, family, data, num_components, "uniform")


def random_responsibilities(key: Array, family: Any, data: Any, num_components: int) -> Mixture:
    """A mixture from responsibilities drawn uniformly from the simplex, row by row.

    All components begin near the pooled fit: a slow start, but one that favours no region.  What
    labels say multiplies the responsibilities.
    """
    return _mixture(key, family, data, num_components, "soft")


def hmm(
    key: Array,
    family: Any,
    data: Any,
    num_states: int,
    *,
    start: Callable[..., Mixture] = kmeans_plus_plus,
) -> HMM:
    """An HMM whose states begin as the components of a mixture over all time steps.

    Initial and transition probabilities are the counts of first steps and of moves between the
    steps' most probable components, known states among them, plus one each.

    Args:
        key: a PRNG key.
        family: a family class, or `MixtureFamily.of(family, M)`.
        data: one sequence [T] or [T, D] (an array of symbols with two axes is [B, T]), several
            [B, T, D], a list of sequences, or `Sequences`.
        num_states: K, from 1 to the number of time steps.
        start: the mixture's start: `kmeans_plus_plus`, `random_rows` or `random_responsibilities`.

    Raises:
        ValueError: data the family cannot have produced, labels or a K out of range, weights that
            count nothing.

    Examples:
        >>> import jax, jaxem
        >>> model = jaxem.initialize.hmm(
        ...     jax.random.key(0), jaxem.Poisson, jaxem.datasets.earthquakes(), 2)
        >>> model.emission.rate.shape, model.transition.probs.shape
        ((2,), (2, 2))
    """
    sequences = _sequences(data, family)
    batch, steps = sequences.values.shape[:2]
    lengths = np.full(batch, steps) if sequences.lengths is None else np.asarray(sequences.lengths)
    inside = np.arange(steps) < lengths[:, None]
    observed = None if sequences.observed is None else np.asarray(sequences.observed)[inside]
    given = observations.weight_of(sequences.sample_weight, batch, "sequence")
    weight = np.ones(batch) if given is None else np.asarray(given)
    each_step = np.broadcast_to(weight[:, None], inside.shape)
    labels = observations.labels_of(sequences, (batch, steps), num_states, None, inside)
    rows = Samples(
        np.asarray(sequences.values)[inside],
        None if given is None else each_step[inside],
        observed,
        None if labels is None else np.asarray(labels)[inside],
    )
    mixture = start(key, family, rows, num_states)
    path = np.full((batch, steps), -1)
    path[inside] = np.asarray(mixture.predict(rows))
    begun = lengths > 0
    first = np.bincount(path[begun, 0], weight[begun], minlength=num_states) + 1.0
    moves = np.ones((num_states, num_states))
    follows = inside[:, 1:]
    np.add.at(moves, (path[:, :-1][follows], path[:, 1:][follows]), each_step[:, 1:][follows])
    dtype = mixture.weights.logits.dtype
    return HMM(
        Categorical(jnp.asarray(np.log(first / first.sum()), dtype)),
        Categorical(jnp.asarray(np.log(moves / moves.sum(1, keepdims=True)), dtype)),
        mixture.components,
    )


def _sequences(data: Any, family: Any) -> Sequences:
    """Data as `Sequences`; a plain array with two axes is [T, D], of symbols [B, T]."""
    if isinstance(data, (list, tuple)):
        data = Sequences.pack([_as_vectors(family, observations.as_array(one)) for one in data])
    if isinstance(data, Sequences):
        return data
    values = _as_vectors(family, np.asarray(observations.as_array(data)))
    several = values.ndim > 2 or (values.ndim == 2 and _innermost(family) is Categorical)
    return Sequences(values if several else values[None])


def _innermost(family: Any) -> Any:
    """The family class itself, or the one inside `MixtureFamily.of`."""
    return _innermost(family.family) if hasattr(family, "family") else family


def _as_vectors(family: Any, values: Any) -> Any:
    """Plain numbers [N] as rows [N, 1] where the family wants rows."""
    return (
        values[:, None] if values.ndim == 1 and hasattr(_innermost(family), "translate") else values
    )


def _mixture(key: Array, family: Any, data: Any, num_components: int, seeds: str) -> Mixture:
    data = data if isinstance(data, Samples) else Samples(data)
    observed, seen = observations.observed_of(data), observations.as_array(data.values)
    if observed is not None:  # 0 until the rest is checked, so that errors name what came
        xp: Any = np if isinstance(seen, np.ndarray) else jnp
        seen = xp.where(observed, seen, 0).astype(seen.dtype)
    seen = _as_vectors(family, seen)
    seen = optional.finite_rows(seen, seen.shape[1:])
    weight = observations.weight_of(data.sample_weight, len(seen), "row")
    labels = _scaled(observations.labels_of(data, seen.shape[:1], num_components, None))
    symbolic = _innermost(family) is Categorical
    if symbolic:
        refuse(seen < 0, seen, "symbol out of range", "symbols are integers from 0.")
        seen = Categorical(jnp.zeros((1, int(seen.max()) + 1))).validate(seen)
    everything = seen
    if weight is not None and not symbolic:  # a weight of 0 is absence, but no symbol is unknown
        counts = np.asarray(weight) > 0
        there = [None if part is None else part[counts] for part in (observed, labels, weight)]
        seen, (observed, labels, weight) = seen[counts], there
    if not 1 <= num_components <= len(seen):
        raise ValueError(
            f"the number of components must be from 1 to the number of rows that count, "
            f"{len(seen)}; got {num_components}."
        )
    values = seen
    if observed is not None:
        values = _completed(key, seen, np.asarray(observed).reshape(seen.shape), weight)
    # EM keeps equal components equal, so those inside a member must begin apart as well.
    mixed = isinstance(family, MixtureOf)
    kind, inside = (family.family, family.num_components) if mixed else (family, 1)
    pooled = kind.pooled(jnp.asarray(values), num_components * inside)
    optional.validate(pooled, everything)  # errors name the rows that came
    seen = optional.validate(pooled, seen)
    values = jnp.asarray(seen if observed is None else optional.validate(pooled, values))
    dtype = jax.tree.leaves(pooled)[0].dtype
    weight = None if weight is None else jnp.asarray(weight, dtype)
    if symbolic or seeds == "soft":
        count = int(values.max()) + 1 if symbolic else len(values)
        share = jax.random.dirichlet(key, jnp.ones(num_components * inside, dtype), (count,))
        share = share[values] if symbolic else share
        share = share if labels is None else _admitted(share, labels, num_components)
    else:
        features = _standardise(values.reshape(len(values), -1).astype(dtype))
        share = _nearest(key, features, weight, num_components, seeds == "distant", labels)
        if inside > 1:
            share = _divide(key, features, weight, share, num_components, inside)
    stats, counts = _responsible(pooled, values, weight, share)
    components = pooled.maximize(stats)
    table = counts.reshape(num_components, inside)
    counts = jnp.sum(table, 1)
    if mixed:
        components = MixtureFamily(Categorical(jnp.log(table / counts[:, None])), components)
    return Mixture(Categorical(jnp.log(counts / jnp.sum(counts))), components)


def _completed(key: Array, values: Any, observed: np.ndarray, weight: Any) -> Array:
    """The values; where one is missing, another row's of the same column, drawn at random."""
    donor = observed
    if weight is not None:
        counts = np.asarray(weight) > 0
        donor = donor & counts.reshape(-1, *[1] * (donor.ndim - 1))
    number = np.sum(donor, 0)
    if not np.all(number):
        where = f"column {np.argmin(number)} is" if number.ndim else "the data are"
        raise ValueError(f"{where} never observed: there is nothing to start from; leave that out.")
    drawn = jax.random.randint(jax.random.fold_in(key, 2), values.shape, 0, number)
    row = jnp.take_along_axis(jnp.argsort(~donor, 0), drawn, 0)
    return jnp.where(observed, values, jnp.take_along_axis(jnp.asarray(values), row, 0))


def _scaled(labels: Any) -> Array | None:
    """Labels on the device, the largest entry of each soft one 1: a constant says nothing."""
    if labels is None:
        return None
    labels = jnp.asarray(labels)
    return labels / jnp.max(labels, 1, keepdims=True) if is_soft(labels) else labels


def _admitted(share: Float[Array, "N KI"], labels: Array, num_members: int) -> Float[Array, "N KI"]:
    """Responsibilities, those of I inner components a member, times what labels say."""
    evidence = jnp.exp(log_evidence(labels, num_members, 1)).astype(share.dtype)
    evidence = jnp.repeat(evidence, share.shape[1] // num_members, 1)
    together = share * evidence
    total = jnp.sum(together, 1, keepdims=True)
    none = total == 0  # shares drawn may be too small for the dtype
    return jnp.where(none, evidence, together) / jnp.where(
        none, jnp.sum(evidence, 1)[:, None], total
    )


@partial(jax.jit, static_argnames=("num_members", "inside"))
def _divide(
    key: Array,
    features: Array,
    weight: Array | None,
    label: Int[Array, " N"],
    num_members: int,
    inside: int,
) -> Int[Array, " N"]:
    """Each member's rows divided among `inside` seeds of their own: labels 0..K·M-1."""
    weight = jnp.ones(len(features), features.dtype) if weight is None else weight

    def one(label_of_rows: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        key, member = inputs
        own = label == member
        part = _nearest(key, features, jnp.where(own, weight, 0), inside, True)
        return jnp.where(own, member * inside + part, label_of_rows), None

    keys = jax.random.split(jax.random.fold_in(key, 1), num_members)
    return jax.lax.scan(one, label, (keys, jnp.arange(num_members)))[0]


def _standardise(features: Float[Array, "N F"]) -> Float[Array, "N F"]:
    centred = features - jnp.mean(features, 0)
    scale = jnp.std(centred, 0)
    return centred / jnp.where(scale == 0, 1, scale)


@partial(jax.jit, static_argnames=("num_seeds", "distant"))
def _nearest(
    key: Array,
    features: Array,
    weight: Array | None,
    num_seeds: int,
    distant: bool,
    labels: Array | None = None,
) -> Int[Array, " N"]:
    """The nearest of `num_seeds` seeds that its label admits, for every row; O(N) memory."""
    free = jnp.zeros(len(features)) if weight is None else jnp.log(weight)
    far = jnp.full(len(features), jnp.inf, features.dtype)
    distance = far
    if labels is None:
        labels = jnp.full(len(features), UNKNOWN)
        given, centers = jnp.zeros(num_seeds, bool), jnp.zeros((num_seeds, 1), features.dtype)
    else:
        given, centers = _labelled_seeds(features, weight, labels, num_seeds)

        def toward(distance: Array, seed: tuple[Array, Array]) -> tuple[Array, None]:
            new = jnp.sum((features - seed[1]) ** 2, 1)
            return jnp.where(seed[0], jnp.minimum(distance, new), distance), None

        distance, _ = jax.lax.scan(toward, far, (given, centers))

    def step(carry: tuple[Array, Array, Array, Array], inputs: Any) -> tuple[Any, None]:
        distance, nearest, member, free = carry
        key, index, is_given, center = inputs
        evidence = log_evidence_for(labels, index)
        log_probs = jnp.log(distance) if distant else jnp.zeros_like(distance)
        candidate = free + evidence > -jnp.inf
        # The first seed is any row; so is one drawn when every row already lies on a seed.
        spread = jnp.any(jnp.isfinite(log_probs) & candidate)
        row = jax.random.categorical(key, jnp.where(spread, log_probs, 0) + free + evidence)
        new = jnp.sum((features - jnp.where(is_given, center, features[row])) ** 2, 1)
        new = jnp.where(is_given | jnp.any(candidate), new, jnp.inf)  # there may be none left
        own = jnp.where(evidence > -jnp.inf, new, jnp.inf)
        member = jnp.where(own < nearest, index, member)
        free = jnp.where(is_given, free, free.at[row].set(-jnp.inf))
        return (jnp.minimum(distance, new), jnp.minimum(nearest, own), member, free), None

    start = (distance, far, jnp.zeros(len(features), int), free.astype(features.dtype))
    inputs = (jax.random.split(key, num_seeds), jnp.arange(num_seeds), given, centers)
    (_, _, member, _), _ = jax.lax.scan(step, start, inputs)
    return member


def _labelled_seeds(
    features: Array, weight: Array | None, labels: Array, num_seeds: int
) -> tuple[Bool[Array, " K"], Float[Array, "K F"]]:
    """Which seeds have labelled rows, and the mean of these; a sure row counts more."""
    if is_soft(labels):
        named = jnp.argmax(labels, 1)
        others = jnp.where(jnp.arange(num_seeds) == named[:, None], 0, labels)
        counts = 1 - jnp.max(others, 1)  # the largest entry is 1
    else:
        named, counts = labels, labels != UNKNOWN
    counts = counts.astype(features.dtype) * (1 if weight is None else weight)
    total = jnp.zeros(num_seeds, features.dtype).at[named].add(counts)
    sums = jnp.zeros((num_seeds, features.shape[1]), features.dtype)
    sums = sums.at[named].add(counts[:, None] * features)
    return total > 0, sums / jnp.where(total == 0, 1, total)[:, None]


@jax.jit
def _responsible(
    pooled: Any, values: Array, weight: Array | None, share: Array
) -> tuple[Any, Float[Array, " K"]]:
    """The pooled family's statistics when rows belong to members as `share` says, [N] or [N, K].

    Every member also takes D + 1 rows' worth of all rows alike.
    """
    members = pooled.num_members
    dtype = jax.tree.leaves(pooled)[0].dtype
    located = optional.is_located(pooled)
    rows = chunk(
        values.astype(dtype) if located else values,
        weight,
        num_features=num_features(pooled),
        centred=located,
    )
    here = optional.translate(pooled, rows.center)
    pretend = (1 + int(np.prod(pooled.event_shape))) / len(values)
    padding = rows.values.shape[0] * rows.values.shape[-1] - len(values)
    share = jnp.pad(share, [(0, padding)] + [(0, 0)] * (share.ndim - 1))
    share = share.reshape(rows.values.shape[0], -1, *share.shape[1:])

    def one(x: Array, weight: Array | None, share: Array) -> tuple[Any, Array]:
        whole = (share[:, None] == jnp.arange(members)) if share.ndim == 1 else share
        responsibilities = whole.astype(dtype) + pretend
        if weight is not None:
            responsibilities = responsibilities * weight[:, None]
        stats = here.stats(x, responsibilities)
        return (stats, jnp.sum(responsibilities.T, 1)), jnp.zeros((), dtype)

    stats, counts = rows.accumulate(one, share)[0]
    if rows.spread is not None:
        # The floor that `fit` has by default: collinear features must not make a singular start.
        spread = jnp.where(jnp.isfinite(rows.spread), rows.spread, 1)
        prior = em.cast(em.Prior(floor=em.RELATIVE_FLOOR * spread), dtype)
        stats = jax.tree.map(jnp.add, stats, here.pretend(prior))
    return stats, counts
