"""What is missing of the data, as a model has it: its conditional mean, or a draw of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxem import em
from jaxem.data import Chunks, Samples, Sequences, mask_from_lengths, refuse
from jaxem.families import optional
from jaxem.hmm import HMM
from jaxem.mixture import Mixture, in_dtype
from jaxem.observations import as_array
from jaxem.prepared_sequences import by_time


def impute(model: Mixture | HMM, data: Any) -> Array:
    """The values, each missing entry replaced by its mean given all that is observed.

    For an HMM that is the whole sequence.  The means of the components are mixed by their posterior
    probabilities, so that a value may lie between two clusters where none is: `sample_missing`
    keeps to the clusters.  A missing symbol becomes the most probable one, of equal ones the first.

    What is observed comes back unchanged, shaped as it came, in the model's floating dtype (symbols
    as integers); so do steps past a sequence's end.  Complete data come back as they are.  Weights
    have no influence.  The missing entries of an impossible row or sequence are NaN (symbols -1).

    Little & Rubin (2019) §11.2.

    Examples:
        >>> import numpy as np, jaxem
        >>> covariance = [[[1.0, 0.8], [0.8, 1.0]]] * 2
        >>> pair = jaxem.Gaussian.from_moments([[0.0, 0.0], [10.0, 10.0]], covariance)
        >>> model = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), pair)
        >>> rows = jaxem.Samples.from_nan(np.array([[1.0, np.nan], [np.nan, 9.0]]))
        >>> print(jaxem.impute(model, rows).round(2))
        [[1.  0.8]
         [9.2 9. ]]
    """
    data, checked = _checked(model, data)
    if checked.observed is None:
        return _complete(model, data, checked)
    posterior = model.smooth(data) if isinstance(model, HMM) else model.responsibilities(data)
    return _merged(data, checked, _expected(*_for_rows(model, checked), posterior))


def sample_missing(key: Array, model: Mixture | HMM, data: Any) -> Array:
    """The values, all that is missing drawn from its distribution given all that is observed.

    A component a row, or a path of states a sequence, is drawn from the posterior, and the missing
    entries of a row together given it.  For several draws, `jax.vmap` over keys (where memory is
    short `jax.lax.map`); between them they vary as what is missing does (multiple imputation).

    As `impute` else, counts and binary data as the integers that the family samples.  What is drawn
    depends on the layout of the rows too: it is another draw where `jit` traces the mask.

    Examples:
        >>> import jax, numpy as np, jaxem
        >>> covariance = [[[1.0, 0.8], [0.8, 1.0]]]
        >>> members = jaxem.Gaussian.from_moments([[0.0, 0.0]], covariance)
        >>> model = jaxem.Mixture(jaxem.Categorical.from_probs([1.0]), members)
        >>> rows = jaxem.Samples.from_nan(np.array([[1.0, np.nan]]))
        >>> keys = jax.random.split(jax.random.key(0), 4000)
        >>> draws = jax.vmap(lambda key: jaxem.sample_missing(key, model, rows))(keys)
        >>> print(draws.shape, draws.mean(0).round(1), draws.std(0).round(1))
        (4000, 1, 2) [[1.  0.8]] [[0.  0.6]]
    """
    data, checked = _checked(model, data)
    if checked.observed is None:
        return _complete(model, data, checked)
    member_key, row_key = jax.random.split(key)
    if isinstance(model, HMM):
        member = model.sample_posterior(member_key, data)
    else:
        posterior = model.responsibilities(data)
        drawn = jax.random.categorical(member_key, jnp.log(posterior))
        member = jnp.where(jnp.any(posterior > 0, 1), drawn, -1)
    return _merged(data, checked, _drawn(*_for_rows(model, checked), member, row_key))


def _checked(model: Any, data: Any) -> tuple[Any, Any]:
    """The data, a list of sequences packed, and the same as the model's `validate` has them."""
    if not isinstance(model, (Mixture, HMM)):
        raise ValueError(
            f"the model must be a Mixture or an HMM (that of a fit is `result.model`), got "
            f"{type(model).__name__}."
        )
    if isinstance(model, HMM) and isinstance(data, (list, tuple)):
        data = Sequences.pack(data)
    return data, model.validate(data)


def _family(model: Mixture | HMM) -> Any:
    return model.emission if isinstance(model, HMM) else model.components


def _for_rows(model: Any, checked: Any) -> tuple[Any, Any]:
    """The model and the data without what its posterior alone needs: weights hide no row here."""
    model = em.cast(model, em.floating_dtype(checked, model))
    kept = {"observed": checked.observed, "groups": checked.groups}
    if isinstance(model, HMM):
        return model, Sequences(checked.values, checked.lengths, **kept)
    return model, Samples(checked.values, **kept)


@jax.jit
def _expected(model: Any, data: Any, posterior: Float[Array, "... K"]) -> Array:
    """What is expected of every row, with the axes of the data."""
    rows = _chunks(model, data)
    shares = rows.slots(by_time(posterior) if isinstance(model, HMM) else posterior)

    def walk(form: Any) -> Array:
        return rows.map(
            lambda x, shares: optional.expected(form, optional.infer(form, x), shares), shares
        )

    return _found(model, data, rows, walk, jnp.any(posterior > 0, -1))


@jax.jit
def _drawn(model: Any, data: Any, member: Int[Array, "..."], key: Array) -> Array:
    """Every row drawn from its member given what is observed, with the axes of the data."""
    rows = _chunks(model, data)
    members = rows.slots(jnp.maximum(by_time(member) if isinstance(model, HMM) else member, 0))
    keys = jax.random.split(key, len(members))

    def walk(form: Any) -> Array:
        return rows.map(
            lambda x, member, key: optional.draw(form, key, optional.infer(form, x), member),
            members,
            keys,
        )

    return _found(model, data, rows, walk, member >= 0)


def _chunks(model: Any, data: Any) -> Chunks:
    prepared = model.prepare(data)
    return prepared.rows if isinstance(model, HMM) else prepared


def _found(
    model: Any, data: Any, rows: Chunks, walk: Callable[[Any], Array], possible: Bool[Array, "..."]
) -> Array:
    """What `walk` says of the chunks, back in the coordinates and the order of the data."""
    here = optional.translate(_family(model), rows.center)
    found = rows.rows(optional.in_best_form((here,), walk, rows.missing))
    if rows.center is not None:
        found = found + rows.center
    if isinstance(model, HMM):
        batch, steps = data.values.shape[:2]
        found = found.reshape(steps, batch, *found.shape[1:]).swapaxes(0, 1)
    possible = possible.reshape(*possible.shape, *[1] * (found.ndim - possible.ndim))
    nothing = jnp.nan if jnp.issubdtype(found.dtype, jnp.floating) else -1
    return jnp.where(possible, found, nothing)


def _complete(model: Any, data: Any, checked: Any) -> Array:
    """Data of which nothing is missing."""
    dtype = em.floating_dtype(checked, model)
    return _as_given(data, checked, in_dtype(_family(model), checked.values, dtype))


def _merged(data: Any, checked: Any, found: Array) -> Array:
    """What was observed, and what was found of the rest."""
    if jnp.issubdtype(found.dtype, jnp.integer):
        bad = checked.observed & (checked.values >= jnp.iinfo(found.dtype).max)
        leading = 2 if isinstance(checked, Sequences) else 1
        remedy = "`impute` keeps it as a floating number."
        refuse(bad, checked.values, f"count too large for {found.dtype}", remedy, leading)
    values = jnp.asarray(checked.values.astype(found.dtype))
    return _as_given(data, checked, jnp.where(checked.observed, values, found))


def _as_given(data: Any, checked: Any, values: Array) -> Array:
    """The values in the shape in which they came, and past a sequence's end what came there."""
    given = as_array(data.values if isinstance(data, (Samples, Sequences)) else data)
    values = values.reshape(given.shape)
    if not isinstance(checked, Sequences) or checked.lengths is None:
        return values
    inside = mask_from_lengths(jnp.asarray(checked.lengths), given.shape[1])
    inside = inside.reshape(*inside.shape, *[1] * (given.ndim - 2))
    return jnp.where(inside, values, jnp.asarray(given).astype(values.dtype))
