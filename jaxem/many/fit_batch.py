"""Many fits of models of one shape, in one compiled program."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxem import em, parameters
from jaxem.data import refuse
from jaxem.many.batch import Batch, stacked
from jaxem.many.chunks import check_memory
from jaxem.many.members import Options, Progress, fit_members


def fit_batch(
    models: Any,
    data: Any,
    *,
    data_set: Any = None,
    prior: em.Prior | None = None,
    tol: float | Array = 1e-6,
    max_steps: int = 1000,
    frozen: str | parameters.Names = (),
    memory: int | None = None,
    progress: Progress | None = None,
) -> em.EMResult:
    """What `fit` makes of every member of a batch of models, with a leading axis M.

    Every member ends by itself and equals its own `fit` from the same start, to rounding, whatever
    the others do: one that goes non-finite says so in its `end` and changes none of them.  How the
    batch is cut into chunks, and the order of members, change nothing but rounding either.

    On a CPU a few members advance side by side on every core, and the next in the queue takes the
    place of one that has ended; an accelerator has as many side by side as `memory` allows.  It
    compiles once per shape of a chunk.

    Args:
        models: a model whose leaves have a leading axis [M, ...], such as `jax.vmap` makes it.
        data: what `fit` takes, for all members; or a `Batch` of S data sets.
        data_set: [M], which of the data sets each member is fitted to, from 0; by default S is M
            and each has its own.
        prior: as for `fit`, one for all; a relative floor is relative to each data set.
        tol: as for `fit`.
        max_steps: as for `fit`.
        frozen: as for `fit`.
        memory: bytes that a chunk's program may take, its data and results included; None: what
            suits a CPU's caches, or most of an accelerator's memory.
        progress: called after every chunk with (members done, M, best objective so far); ignored
            when traced.

    Returns:
        An `EMResult` whose leaves have a leading axis M; `outcome` is an array of words.

    Raises:
        ValueError: as `fit` does, and names the data set; leaves that differ in their leading axis;
            a `data_set` out of range; a `memory` that one member exceeds.

    Examples:
        >>> import jax, jax.numpy as jnp, jaxem
        >>> quakes = jaxem.datasets.earthquakes()
        >>> def start(rates):
        ...     weights = jaxem.Categorical.from_probs(jnp.array([0.5, 0.5]))
        ...     return jaxem.Mixture(weights, jaxem.Poisson(jnp.log(rates)))
        >>> starts = jax.vmap(start)(jnp.array([[10.0, 30.0], [5.0, 15.0], [20.0, 21.0]]))
        >>> result = jaxem.fit_batch(starts, quakes)
        >>> print(result.converged, result.log_likelihood.round(1))
        [ True  True  True] [-360.4 -360.4 -360.4]
    """
    em.check_options(tol, max_steps)
    check_memory(memory)
    number = num_members(models)
    member = jax.tree.map(lambda leaf: leaf[0], models)
    data_set = _data_set(data_set, data, number)
    ready = stacked(member, data) if isinstance(data, Batch) else member.validate(data)
    frozen = parameters.check_frozen(member, frozen)
    dtype = em.floating_dtype(ready, member)
    result, _ = fit_members(
        em.cast(models, dtype),
        ready,
        data_set,
        options=Options(int(max_steps), frozen),
        prior=em.Prior() if prior is None else prior,
        tol=tol,
        memory=memory,
        progress=progress,
    )
    return result


def num_members(models: Any) -> int:
    """The common leading axis of the leaves.

    Raises:
        ValueError: there is none, or it is empty.
    """
    shapes = {name: np.shape(leaf) for name, leaf in parameters.named_leaves(models)}
    leading = {shape[:1] for shape in shapes.values()}
    if len(leading) != 1 or leading <= {(), (0,)}:
        told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(
            f"the leaves of a batch of models have one leading axis, of members; got {told}."
        )
    return leading.pop()[0]


def _data_set(data_set: Any, data: Any, number: int) -> Any:
    """Which data set each member takes; None where there is but one.

    Raises:
        ValueError: another length than M; a number out of range; no `Batch`.
    """
    if not isinstance(data, Batch):
        if data_set is not None:
            raise ValueError("data_set chooses among the data sets of a Batch; data is none.")
        return None
    if data_set is None:
        if len(data) != number:
            raise ValueError(
                f"there are {number} members and {len(data)} data sets: pass data_set [{number}], "
                "which says whose is whose."
            )
        return np.arange(number)
    data_set = np.asarray(data_set)
    if data_set.shape != (number,) or not np.issubdtype(data_set.dtype, np.integer):
        raise ValueError(
            f"data_set must be {number} integers, one a member, got shape "
            f"{list(data_set.shape)} and dtype {data_set.dtype}."
        )
    refuse(
        (data_set < 0) | (data_set >= len(data)),
        data_set,
        "no such data set",
        f"there are {len(data)}.",
    )
    return data_set
