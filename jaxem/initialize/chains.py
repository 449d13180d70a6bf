"""Hidden Markov models to start from: a mixture over all steps, and moves along its components."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxem import observations
from jaxem.data import Samples, Sequences, is_traced
from jaxem.families import Categorical
from jaxem.hmm import HMM
from jaxem.initialize.mixtures import kmeans_plus_plus
from jaxem.initialize.rows import array_module, as_vectors, at_hand, is_symbolic, on_host
from jaxem.mixture import Mixture


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
        family: a family class, `Categorical.of(V)` or `MixtureFamily.of(family, M)`.
        data: one sequence [T] or [T, D] (an array of symbols with two axes is [B, T]), several
            [B, T, D], a list of sequences, or `Sequences`; concrete or traced, as for a
            mixture.
        num_states: K, from 1 to the number of time steps.
        start: the mixture's start: `kmeans_plus_plus`, `random_rows` or `random_responsibilities`.

    Raises:
        ValueError: data the family cannot have produced, labels or a K out of range, weights that
            count nothing, traced symbols whose number is not stated.

    Examples:
        >>> import jax, jaxem
        >>> model = jaxem.initialize.hmm(
        ...     jax.random.key(0), jaxem.Poisson, jaxem.datasets.earthquakes(), 2)
        >>> model.emission.rate.shape, model.transition.probs.shape
        ((2,), (2, 2))
    """
    sequences = at_hand(_sequences(data, family), family)
    rows, order, weight = _steps(sequences, num_states)
    mixture = start(key, family, rows, num_states)
    path = mixture.predict(rows)
    dtype = mixture.weights.logits.dtype
    first, moves = _counted(path, order, weight, num_states=num_states, dtype=dtype)
    return HMM(Categorical(first), Categorical(moves), mixture.components)


def _steps(sequences: Sequences, num_states: int) -> tuple[Samples, Any, Any]:
    """Every step as a row, those inside their sequences first; the place of each; weights [B, T].

    Rows that stand for a step outside repeat those inside, with weight 0.  No place where all are
    inside.
    """
    values, lengths = sequences.values, sequences.lengths
    lengths = None if lengths is None else on_host(lengths)
    batch, steps = values.shape[:2]
    xp = array_module(lengths)
    inside = None if lengths is None else xp.arange(steps) < lengths[:, None]
    labels = observations.labels_of(sequences, (batch, steps), num_states, None, inside)
    given = observations.weight_of(sequences.sample_weight, batch, "sequence")
    weight = array_module(given).ones(batch) if given is None else given
    weight = array_module(weight).broadcast_to(weight[:, None], (batch, steps))
    if inside is not None and not is_traced(inside) and np.all(inside):
        inside = None
    if inside is not None:
        weight = array_module(weight, inside).where(inside, weight, 0)
    flat_weight = None if given is None and inside is None else weight.reshape(-1)
    parts = (values, flat_weight, sequences.observed, labels)
    shapes = (values.shape[2:], (), values.shape[2:], (() if labels is None else labels.shape[2:]))
    flat = [
        None if part is None else part.reshape(-1, *shape)
        for part, shape in zip(parts, shapes, strict=True)
    ]
    if inside is None:
        return Samples(*flat), None, weight
    outside = ~inside.reshape(-1)
    order, number = xp.argsort(outside, stable=True), xp.sum(~outside)
    place = xp.arange(batch * steps)
    taken = order[place % xp.maximum(number, 1)]
    values, flat_weight, observed, labels = (
        None if part is None else array_module(part, taken).asarray(part)[taken] for part in flat
    )
    flat_weight = array_module(flat_weight, place).where(place < number, flat_weight, 0)
    return Samples(values, flat_weight, observed, labels), order, weight


@partial(jax.jit, static_argnames=("num_states", "dtype"))
def _counted(
    path: Int[Array, " N"],
    order: Int[Array, " N"] | None,
    weight: Float[Array, "B T"],
    *,
    num_states: int,
    dtype: Any,
) -> tuple[Float[Array, " K"], Float[Array, "K K"]]:
    """Logits of first steps and of moves along the path, each counted once more than it is seen."""
    path = path if order is None else jnp.zeros_like(path).at[order].set(path)
    path, weight = path.reshape(weight.shape), weight.astype(dtype)
    first = jnp.ones(num_states, dtype).at[path[:, 0]].add(weight[:, 0])
    moves = jnp.ones((num_states, num_states), dtype)
    moves = moves.at[path[:, :-1], path[:, 1:]].add(weight[:, 1:])  # 0 past the end
    return jnp.log(first / jnp.sum(first)), jnp.log(moves / jnp.sum(moves, 1, keepdims=True))


def _sequences(data: Any, family: Any) -> Sequences:
    """Data as `Sequences`; a plain array with two axes is [T, D], of symbols [B, T]."""
    if isinstance(data, (list, tuple)):
        data = Sequences.pack([as_vectors(family, observations.as_array(one)) for one in data])
    if isinstance(data, Sequences):
        return data
    values = as_vectors(family, on_host(data, needed=False))
    several = values.ndim > 2 or (values.ndim == 2 and is_symbolic(family))
    return Sequences(values if several else values[None])
