"""Mixtures to start from: seeds or shares by chance, and one M-step."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float

from jaxem import em
from jaxem.data import Samples, chunk
from jaxem.families import Categorical, MixtureFamily, optional
from jaxem.families.mixture_family import MixtureOf
from jaxem.initialize.rows import innermost, is_symbolic, parts_of, rows_of
from jaxem.initialize.seeds import divided, nearest, points_of
from jaxem.labels import is_soft, log_evidence
from jaxem.lockstep import lockstep
from jaxem.mixture import Mixture, num_features


def kmeans_plus_plus(key: Array, family: Any, data: Any, num_components: int) -> Mixture:
    """A mixture whose components begin at the clusters of well-spread rows.

    The first seed is a random row, each further one a row drawn with probability proportional to
    its squared distance to the nearest seed so far (Arthur & Vassilvitskii 2007), in units of the
    features' standard deviations.  Every row goes to its nearest seed; each component then takes
    its rows, and D + 1 pretend rows like the data as a whole, so that a cluster of few rows has a
    covariance and no symbol that the data have is ruled out; with `Categorical.of(V)` none is.
    Symbols have no distance: their responsibilities are random.

    A component with labelled rows has their mean for its seed; the others are drawn given these
    (Basu, Banerjee & Mooney 2002).  Soft labels count by how far the largest entry of a row exceeds
    the next.  Every row goes to the nearest seed of a component that its label admits.

    Args:
        key: a PRNG key.
        family: a family class, `Categorical.of(V)` or `MixtureFamily.of(family, M)`.
        data: rows [N, D] or [N], or `Samples`; concrete, or traced with the key under `jit` and
            `vmap`.  Traced data are not checked, and traced symbols need their number V stated.
        num_components: K, from 1 to the number of rows that count.

    Raises:
        ValueError: data the family cannot have produced, labels or a K out of range, weights that
            count nothing, traced symbols whose number is not stated.

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


def _mixture(key: Array, family: Any, data: Any, num_components: int, seeds: str) -> Mixture:
    rows, family = rows_of(data, family, num_components)
    return _begin(key, rows, family=family, num_components=num_components, seeds=seeds)


@partial(jax.jit, static_argnames=("family", "num_components", "seeds"))
def _begin(key: Array, rows: Samples, *, family: Any, num_components: int, seeds: str) -> Mixture:
    """The start from checked rows."""
    rows, counts = _those_that_count_first(rows, in_place=is_symbolic(family))
    values, weight = rows.values, rows.sample_weight
    if rows.observed is not None:
        values = _completed(key, values, rows.observed, counts)
    # EM keeps equal components equal, so those inside a member must begin apart as well.
    kind, inside = parts_of(family)
    pooled = kind.pooled(values, num_components * inside)
    dtype = jax.tree.leaves(pooled)[0].dtype
    weight = None if weight is None else weight.astype(dtype)
    labels = _scaled(rows.labels)
    if is_symbolic(family) or seeds == "soft":
        count = innermost(family).num_symbols if is_symbolic(family) else len(values)
        share = jax.random.dirichlet(key, jnp.ones(num_components * inside, dtype), (count,))
        if is_symbolic(family):
            legal = (values >= 0) & (values < count)  # traced symbols were not looked at
            share = jnp.where(legal[:, None], share[jnp.where(legal, values, 0)], jnp.nan)
        share = share if labels is None else _admitted(share, labels, num_components)
    else:
        points = points_of(values.reshape(len(values), -1).astype(dtype), counts)
        share = nearest(key, points, weight, num_components, seeds == "distant", labels)
        if inside > 1:
            share = divided(key, points, weight, share, num_components, inside)
    number = len(values) if counts is None else jnp.sum(counts)
    whole = is_symbolic(family) and not innermost(family).ruled_out
    symbols = innermost(family).num_symbols if whole else None
    stats, shares = _responsible(pooled, values, weight, share, number, symbols)
    components = _maximized(pooled, stats)
    table = shares.reshape(num_components, inside)
    shares = jnp.sum(table, 1)
    if isinstance(family, MixtureOf):
        components = MixtureFamily(Categorical(jnp.log(table / shares[:, None])), components)
    return Mixture(Categorical(jnp.log(shares / jnp.sum(shares))), components)


def _those_that_count_first(
    rows: Samples, *, in_place: bool
) -> tuple[Samples, Bool[Array, " N"] | None]:
    """Rows of weight 0 at the end, and which count; what draws lots then never meets the others.

    The others hold what those hold that count, in turn, so that they are legal and the rows pooled
    are like the data.  Symbols keep their places: no lot is drawn by place among them.
    """
    rows = jax.tree.map(jnp.asarray, rows)
    if rows.sample_weight is None:
        return rows, None
    counts = rows.sample_weight > 0
    order, number = jnp.argsort(~counts, stable=True), jnp.sum(counts)
    place = jnp.arange(len(counts))
    taken = order[place % jnp.maximum(number, 1)]
    if in_place:
        taken = jnp.where(counts, place, taken)
    else:
        counts = place < number
    rows = jax.tree.map(lambda part: part[taken], rows)
    return replace(rows, sample_weight=jnp.where(counts, rows.sample_weight, 0)), counts


def _completed(
    key: Array, values: Array, observed: Array, counts: Bool[Array, " N"] | None
) -> Array:
    """The values; where one is missing, another row's of the same column, drawn at random."""
    donor = observed
    if counts is not None:
        donor = donor & counts.reshape(-1, *[1] * (donor.ndim - 1))
    number = jnp.sum(donor, 0)
    drawn = jax.random.randint(jax.random.fold_in(key, 2), values.shape, 0, number)
    row = jnp.take_along_axis(jnp.argsort(~donor, 0), drawn, 0)
    return jnp.where(observed, values, jnp.take_along_axis(values, row, 0))


def _scaled(labels: Array | None) -> Array | None:
    """Labels, the largest entry of each soft one 1: a constant says nothing."""
    if labels is None or not is_soft(labels):
        return labels
    return labels / jnp.max(labels, 1, keepdims=True)


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


def _responsible(
    pooled: Any, values: Array, weight: Array | None, share: Array, number: Any, symbols: int | None
) -> tuple[Any, Float[Array, " K"]]:
    """The pooled family's statistics when rows belong to members as `share` says, [N] or [N, K].

    Every member also takes D + 1 rows' worth of all of the `number` rows that count, alike; and one
    more that has so many `symbols` alike, if none is to be ruled out.
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
    pretend = (1 + int(np.prod(pooled.event_shape))) / jnp.asarray(number, dtype)
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
        prior = em.Prior(floor=em.RELATIVE_FLOOR * spread)
    elif symbols is not None:
        heavy = 1 if weight is None else jnp.sum(weight) / number  # as those that there are
        prior, counts = em.Prior(symbols=heavy / symbols, floor=0.0), counts + heavy
    else:
        return stats, counts
    return optional.with_pretend(here, stats, em.cast(prior, dtype)), counts


def _maximized(pooled: Any, stats: Any) -> Any:
    """The M-step; under `vmap` in lockstep, so that no eigenvalue is sought where none is low."""
    return _maximized_alone(pooled, stats)


@custom_vmap
def _maximized_alone(pooled: Any, stats: Any) -> Any:
    return pooled.maximize(stats)


@_maximized_alone.def_vmap
def _(size: int, batched: Any, pooled: Any, stats: Any) -> tuple[Any, Any]:
    found = _maximized_together(*_with_axis(size, batched, (pooled, stats)))
    return found, jax.tree.map(lambda _: True, found)


@custom_vmap
def _maximized_together(pooled: Any, stats: Any) -> Any:
    """The M-steps of many, along the first axis."""
    return lockstep(lambda pooled, stats: pooled.maximize(stats))(pooled, stats)


@_maximized_together.def_vmap
def _(size: int, batched: Any, pooled: Any, stats: Any) -> tuple[Any, Any]:
    parts = _with_axis(size, batched, (pooled, stats))
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)
    found = jax.tree.map(
        lambda leaf: leaf.reshape(size, -1, *leaf.shape[1:]), _maximized_together(*flat)
    )
    return found, jax.tree.map(lambda _: True, found)


def _with_axis(size: int, batched: Any, parts: Any) -> Any:
    """Every leaf with the axis that only some of them have."""

    def one(leaf: Array, has_axis: bool) -> Array:
        return leaf if has_axis else jnp.broadcast_to(leaf, (size, *leaf.shape))

    return jax.tree.map(one, parts, tuple(batched))
