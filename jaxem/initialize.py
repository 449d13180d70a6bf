"""Starts for EM, each one M-step away from responsibilities; deterministic in the key."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxem import em, observations
from jaxem.data import Samples, Sequences, chunk, refuse
from jaxem.families import Categorical, MixtureFamily, optional
from jaxem.families.mixture_family import MixtureOf
from jaxem.hmm import HMM
from jaxem.missing import fill
from jaxem.mixture import Mixture, num_features


def kmeans_plus_plus(key: Array, family: Any, data: Any, num_components: int) -> Mixture:
    """A mixture whose components begin at the clusters of well-spread rows.

    The first seed is a random row, each further one a row drawn with probability proportional to
    its squared distance to the nearest seed so far (Arthur & Vassilvitskii 2007), in units of the
    features' standard deviations.  Every row goes to its nearest seed; each component then takes
    its rows, and D + 1 pretend rows like the data as a whole, so that a cluster of few rows has a
    covariance and no symbol is ruled out.  Symbols have no distance: their responsibilities are
    random.

    Args:
        key: a PRNG key.
        family: a family class, or `MixtureFamily.of(family, M)`.
        data: rows [N, D] or [N], or `Samples`.
        num_components: K, from 1 to the number of rows.

    Raises:
        ValueError: data the family cannot have produced, or a K out of range.

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

    All components begin near the pooled fit: a slow start, but one that favours no region.
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
    steps' most probable components, plus one each.

    Args:
        key: a PRNG key.
        family: a family class, or `MixtureFamily.of(family, M)`.
        data: one sequence [T] or [T, D] (an array of symbols with two axes is [B, T]), several
            [B, T, D], a list of sequences, or `Sequences`.
        num_states: K, from 1 to the number of time steps.
        start: the mixture's start: `kmeans_plus_plus`, `random_rows` or `random_responsibilities`.

    Raises:
        ValueError: data the family cannot have produced, or a K out of range.

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
    weight = np.ones(batch)
    if sequences.sample_weight is not None:
        weight = np.asarray(sequences.sample_weight)
    each_step = np.broadcast_to(weight[:, None], inside.shape)
    counted = None if sequences.sample_weight is None else each_step[inside]
    rows = Samples(np.asarray(sequences.values)[inside], counted, observed)
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
        data = Sequences.pack([_as_vectors(family, np.asarray(one)) for one in data])
    if isinstance(data, Sequences):
        return data
    values = _as_vectors(family, np.asarray(data))
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
    values = _as_vectors(family, _completed(key, data))
    values = optional.finite_rows(values, values.shape[1:])
    if not 1 <= num_components <= len(values):
        raise ValueError(
            f"the number of components must be from 1 to the number of rows, {len(values)}; "
            f"got {num_components}."
        )
    symbolic = _innermost(family) is Categorical
    if symbolic:
        refuse(values < 0, values, "symbol out of range", "symbols are integers from 0.")
        values = Categorical(jnp.zeros((1, int(values.max()) + 1))).validate(values)
    # EM keeps equal components equal, so those inside a member must begin apart as well.
    mixed = isinstance(family, MixtureOf)
    kind, inside = (family.family, family.num_components) if mixed else (family, 1)
    pooled = kind.pooled(jnp.asarray(values), num_components * inside)
    values = jnp.asarray(optional.validate(pooled, values))
    dtype = jax.tree.leaves(pooled)[0].dtype
    weight = None if data.sample_weight is None else jnp.asarray(data.sample_weight, dtype)
    if symbolic or seeds == "soft":
        count = int(values.max()) + 1 if symbolic else len(values)
        share = jax.random.dirichlet(key, jnp.ones(num_components * inside, dtype), (count,))
        share = share[values] if symbolic else share
    else:
        features = _standardise(values.reshape(len(values), -1).astype(dtype))
        share = _nearest(key, features, weight, num_components, seeds == "distant")
        if inside > 1:
            share = _divide(key, features, weight, share, num_components, inside)
    stats, counts = _responsible(pooled, values, weight, share)
    components = pooled.maximize(stats)
    table = counts.reshape(num_components, inside)
    counts = jnp.sum(table, 1)
    if mixed:
        components = MixtureFamily(Categorical(jnp.log(table / counts[:, None])), components)
    return Mixture(Categorical(jnp.log(counts / jnp.sum(counts))), components)


def _completed(key: Array, data: Samples) -> Any:
    """The values; where one is missing, another row's of the same column, drawn at random."""
    values, observed = observations.as_array(data.values), observations.observed_of(data)
    if observed is None:
        return values
    donor = np.asarray(observed)
    if data.sample_weight is not None:
        counts = np.asarray(data.sample_weight) > 0
        donor = donor & counts.reshape(-1, *[1] * (donor.ndim - 1))
    number = np.sum(donor, 0)
    if not np.all(number):
        where = f"column {np.argmin(number)} is" if number.ndim else "the data are"
        raise ValueError(f"{where} never observed: there is nothing to start from; leave that out.")
    drawn = jax.random.randint(jax.random.fold_in(key, 2), values.shape, 0, number)
    row = jnp.take_along_axis(jnp.argsort(~donor, 0), drawn, 0)
    values = fill(values, observed)
    return jnp.where(observed, values, jnp.take_along_axis(jnp.asarray(values), row, 0))


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
    key: Array, features: Array, weight: Array | None, num_seeds: int, distant: bool
) -> Int[Array, " N"]:
    """Index of the nearest of `num_seeds` seeds for every row; O(N) memory."""
    free = jnp.zeros(len(features)) if weight is None else jnp.log(weight)

    def step(carry: tuple[Array, Array, Array], inputs: Any) -> tuple[Any, None]:
        distance, label, free = carry
        key, index = inputs
        log_probs = jnp.log(distance) if distant else jnp.zeros_like(distance)
        # The first seed is any row; so is one drawn when every row already lies on a seed.
        spread = (index > 0) & jnp.any((log_probs > -jnp.inf) & (free > -jnp.inf))
        row = jax.random.categorical(key, jnp.where(spread, log_probs, 0) + free)
        new = jnp.sum((features - features[row]) ** 2, 1)
        label = jnp.where(new < distance, index, label)
        return (jnp.minimum(distance, new), label, free.at[row].set(-jnp.inf)), None

    distance = jnp.full(len(features), jnp.inf, features.dtype)
    start = (distance, jnp.zeros(len(features), int), free.astype(features.dtype))
    keys = jax.random.split(key, num_seeds)
    (_, label, _), _ = jax.lax.scan(step, start, (keys, jnp.arange(num_seeds)))
    return label


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
