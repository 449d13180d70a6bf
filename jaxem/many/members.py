"""Members fitted to data that are checked: chunk after chunk, on every core."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxem import em, parameters
from jaxem.data import is_traced
from jaxem.iteration import NON_FINITE, State
from jaxem.many.chunks import Size, compiler_options, fitting, over_chunks, suited
from jaxem.many.lanes import Queue, drain, in_blocks
from jaxem.pytree import pytree

Progress = Callable[[int, int, float], None]  # members done, members, best objective so far


@dataclass(frozen=True)
class Options:
    """What a program is compiled for."""

    max_steps: int
    frozen: parameters.Names = ()
    report: Callable[[Any, Any], Any] | None = None  # of each fitted model and its prepared data
    relative: bool = False  # whether the floor is relative to each data set


def fit_members(
    models: Any,
    data: Any,
    data_set: Any,
    *,
    options: Options,
    prior: em.Prior,
    tol: Any,
    memory: int | None,
    progress: Progress | None,
) -> tuple[em.EMResult, Any]:
    """What `fit_batch` returns, and what `options.report` says of each member.

    The data are validated: those of all members, or stacked with `data_set` [M] saying whose.
    """
    member = jax.tree.map(lambda leaf: leaf[0], models)
    number = len(jax.tree.leaves(models)[0])
    dtype = em.floating_dtype(data, member)
    if data_set is None:
        data = em.prepare(member, data)
    elif prior.floor is None:
        options, prior = replace(options, relative=True), replace(prior, floor=0.0)
    prior, limit = em.resolve(prior, data, dtype), jnp.asarray(tol, dtype)
    if is_traced((models, data, prior, limit)):
        chunk = _Chunk(models, data, data_set, jnp.asarray(number))
        ended = _fit_chunk(chunk, prior, limit, num_lanes=number, options=options)
    else:
        whole = _Chunk(jax.tree.map(np.asarray, models), data, data_set, number)
        ended = _on_host(whole, prior, limit, options, memory, progress)
    state, trace, reports = ended
    free = jax.vmap(partial(em.count, frozen=options.frozen))(models)
    return em.result_of(state, trace, free), reports


@pytree
class _Chunk:
    """Members and what they are fitted to."""

    models: Any  # leaves [C, ...]
    data: Any  # prepared, of all members; or of each of U data sets as they came, leaves [U, ...]
    data_set: Any  # [C] which of them is each member's; None: there is but one
    count: Any  # members that are real, the first ones


@partial(jax.jit, static_argnames=("num_lanes", "options"))
def _fit_chunk(
    chunk: _Chunk, prior: em.Prior, tol: Array, *, num_lanes: int, options: Options
) -> tuple[State, Float[Array, "C max_steps+1"], Any]:
    data, member = chunk.data, jax.tree.map(lambda leaf: leaf[0], chunk.models)
    one = data
    if chunk.data_set is not None:
        data = jax.vmap(member.prepare)(data)
        one = jax.tree.map(lambda leaf: leaf[0], data)
        sets = len(jax.tree.leaves(data)[0])
        prior = jax.tree.map(lambda part: jnp.broadcast_to(part, (sets, *part.shape)), prior)
        spread = getattr(data, "spread", None)
        if options.relative and spread is not None:
            prior = replace(prior, floor=jax.vmap(em.relative_floor)(spread))
    num_lanes = suited(num_lanes, type(member).e_step, member, one)
    queue = Queue(chunk.models, data, chunk.data_set, prior, chunk.count)
    state, trace = drain(
        queue, tol, num_lanes=num_lanes, max_steps=options.max_steps, frozen=options.frozen
    )
    if options.report is None:
        return state, trace, None
    report = options.report
    if chunk.data_set is None:
        reports = in_blocks(lambda model: report(model, data), num_lanes, state.accepted)
    else:

        def own(model: Any, which: Array) -> Any:
            return report(model, jax.tree.map(lambda leaf: leaf[which], data))

        reports = in_blocks(own, num_lanes, state.accepted, chunk.data_set)
    return state, trace, reports


def _on_host(
    whole: _Chunk,
    prior: em.Prior,
    tol: Array,
    options: Options,
    memory: int | None,
    progress: Progress | None,
) -> tuple[State, Float[Array, "M max_steps+1"], Any]:
    """Chunk after chunk, on every core."""
    number = whole.count
    if whole.data_set is not None:
        whole = replace(whole, data=jax.tree.map(np.asarray, whole.data))

    def compiled(size: Size) -> Any:
        lowered = _fit_chunk.lower(
            _cut(whole, 0, size.members), prior, tol, num_lanes=size.lanes, options=options
        )
        return lowered.compile(compiler_options=compiler_options())

    program = fitting(compiled, number, memory, progress is not None)
    members, best, finished = program.size.members, -np.inf, 0

    def fit_from(start: int) -> Any:
        return jax.device_get(program.run(_cut(whole, start, members), prior, tol))

    def done(start: int, result: Any) -> None:
        nonlocal best, finished
        if progress is None:
            return
        state, _, _ = result
        here = min(members, number - start)
        objective = (state.log_likelihood + state.log_prior)[:here]
        sound = objective[np.isfinite(objective) & (state.end[:here] < NON_FINITE)]
        best, finished = max(best, np.max(sound, initial=-np.inf)), finished + here
        progress(finished, number, float(best))

    results = over_chunks(fit_from, range(0, number, members), done)
    return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)[:number]), *results)


def _cut(whole: _Chunk, start: int, members: int) -> _Chunk:
    """Members from `start` on, the last one again where there are fewer, and their data sets."""
    index = np.minimum(np.arange(start, start + members), whole.count - 1)
    models = jax.tree.map(lambda leaf: leaf[index], whole.models)
    count = np.asarray(min(members, whole.count - start))
    if whole.data_set is None:
        return _Chunk(models, whole.data, None, count)
    used, which = np.unique(whole.data_set[index], return_inverse=True)
    used = np.resize(used, min(members, len(jax.tree.leaves(whole.data)[0])))
    return _Chunk(models, jax.tree.map(lambda leaf: leaf[used], whole.data), which, count)
