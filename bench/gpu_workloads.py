"""What `bench.gpu` runs in a process of its own: jaxem and its peers on the device.

Data are made on the device.  Every answer of jaxem is compared with plain NumPy in float64, on part
of the data or by another algorithm, and every peer's with jaxem's or with the same NumPy.
"""

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxem
from bench.gpu import CASES
from bench.gpu_lattices import lattices
from bench.gpu_oracles import SUBSAMPLE, chain_oracle, em_step
from bench.gpu_run import (
    REPEATS,
    Run,
    Skipped,
    agree,
    difference,
    measure_device,
    note,
    to_torch,
    why_not,
)
from jaxem.em import Prior, resolve

DISTANCE = 3.0  # between two means, in standard deviations
STAY = 0.9  # probability of a chain to be left alone; else the next state is uniform
ABSOLUTE, RELATIVE = 2e-3, 2e-5  # tolerance of parameters and probabilities; of log-likelihoods
CHUNK_NUMBERS = 1 << 28  # of the largest temporary array that torch is given to make
PASSES = {"sequential": 2, "stacked": 1, "log": 2}  # dependent steps a time step, one after another


def _apart(one: Any, other: Any) -> float:
    return float(np.max(np.abs(np.asarray(one, float) - np.asarray(other, float)), initial=0))


def _relative(one: Any, other: Any) -> float:
    one, other = float(one), float(other)
    return abs(one - other) / max(abs(other), 1.0)


# Mixtures: one large, or many small ones


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _mixture_data(fits: int, rows: int, size: int, members: int) -> tuple[Any, Any]:
    """Rows [G, N, D] of unit clusters, and means [G, K, D] half a standard deviation off theirs."""
    keys = jax.random.split(jax.random.key(0), 4)
    means = DISTANCE / math.sqrt(2 * size) * jax.random.normal(keys[0], (fits, members, size))
    member = jax.random.randint(keys[1], (fits, rows), 0, members)
    noise = jax.random.normal(keys[2], (fits, rows, size))
    off = 0.5 / math.sqrt(size) * jax.random.normal(keys[3], means.shape)
    return jax.vmap(lambda mean, k: mean[k])(means, member) + noise, means + off


def mixtures(run: Run) -> None:
    """EM steps of Gaussian mixtures with full covariances; more than one fit is one `vmap`."""
    fits, rows, size, members, steps = (
        run.sizes[name] for name in ("fits", "rows", "features", "members", "steps")
    )
    x, means = jax.block_until_ready(_mixture_data(fits, rows, size, members))
    start: Any = jaxem.Mixture(
        jaxem.Categorical(jnp.zeros((fits, members))),
        jaxem.Gaussian(means, jnp.zeros((fits, members, size * (size + 1) // 2))),
    )
    data, over = x, jax.vmap
    if fits == 1:
        start, data = jax.tree.map(lambda leaf: leaf[0], (start, x))
        over = _itself
    prepared = jax.block_until_ready(jax.jit(over(lambda m, x: m.prepare(x)))(start, data))
    after: list[Any] = []  # the model after one step, and after all

    def steps_of(method: str | None, record: dict[str, Any]) -> None:
        model = replace(start, components=replace(start.components, method=method))
        step = jax.jit(over(_em_step))

        def call() -> Any:
            here, log_likelihood = model, None
            for _ in range(steps):
                here, log_likelihood = step(here, prepared)
            return jax.block_until_ready((here, log_likelihood))

        (last, _), seconds, compiling = run.time(call)
        note(record, seconds, compiling, steps)
        one, log_likelihood = step(model, prepared)
        _check_mixture(record, model, one, log_likelihood, x, fits)
        after[:] = after or [one, last]

    run.attempt("jaxem", "e_step, m_step", partial(steps_of, None))
    run.attempt("jaxem", "… with features", partial(steps_of, "features"))
    run.attempt("jaxem", "fit", partial(_fits, run, start, data, over, after))
    run.attempt("torch", "batched matmuls", partial(_torch, run, x, means, after))
    if fits == 1:
        run.attempt("scikit-learn", "array API on torch", partial(_sklearn, run, x, means, after))


def _itself(function: Any) -> Any:
    return function


def _em_step(model: Any, rows: Any) -> tuple[Any, Any]:
    stats, log_likelihood = model.e_step(rows)
    prior = resolve(Prior(), rows, log_likelihood.dtype)
    return model.m_step(stats, prior), log_likelihood


def _fits(
    run: Run, start: Any, data: Any, over: Any, after: list[Any], record: dict[str, Any]
) -> None:
    """One step as the difference between a fit of several steps and a fit of none."""
    steps = run.sizes["steps"]

    several = over is not _itself

    def call(max_steps: int) -> Callable[[], Any]:
        fit = jaxem.fit_batch if several else jaxem.fit
        given = jaxem.Batch(data) if several else data
        return lambda: jax.block_until_ready(fit(start, given, tol=0.0, max_steps=max_steps))

    _, none, _ = run.time(call(0))
    result, seconds, compiling = run.time(call(steps))
    taken = np.atleast_1d(result.num_steps)
    if np.max(taken) != steps:
        raise Skipped(f"the last fit ended after {np.max(taken)} of {steps} steps")
    record["fit_seconds"], record["fit_of_no_steps_seconds"] = seconds, none
    note(record, difference(seconds, none), compiling, steps)
    mine, last = (np.asarray(model.components.mean) for model in (result.model, *after[1:]))
    whole = (taken == steps).reshape(-1, *[1] * (mine.ndim - 1))
    agree(record, means=(_apart(np.where(whole, mine, last), last), ABSOLUTE))


def _check_mixture(
    record: dict[str, Any], start: Any, one: Any, log_likelihood: Any, x: Any, fits: int
) -> None:
    """One step against NumPy: of the first fit, or of the first rows of the only one."""
    rows = x[0, :SUBSAMPLE]
    whole = (0.0, 1.0)
    if fits > 1:
        start, one, log_likelihood = jax.tree.map(
            lambda leaf: leaf[0], (start, one, log_likelihood)
        )
    means = np.asarray(start.components.mean, float)
    oracle, each = em_step(np.asarray(rows, float), means)
    if fits == 1:
        # All rows have the mean log-likelihood of the first, but for sampling.
        spread = np.std(each) / math.sqrt(len(each))
        off = abs(float(log_likelihood) / x.shape[1] - np.mean(each))
        whole = (off, 5 * spread + RELATIVE * abs(np.mean(each)))
        prepared = jax.jit(lambda m, x: m.prepare(x))(start, rows)
        one, log_likelihood = jax.jit(_em_step)(start, prepared)
    counted = oracle["weights"] * len(each) > 1  # with less than a row, quotients of rounding
    mine = _parameters(one)
    agree(
        record,
        log_likelihood=(_relative(log_likelihood, np.sum(each)), RELATIVE),
        mean_log_likelihood_of_all=whole,
        **{name: (_apart(mine[name][counted], oracle[name][counted]), ABSOLUTE) for name in oracle},
    )


def _parameters(model: Any) -> dict[str, Any]:
    members = model.components
    return {
        "weights": np.asarray(model.weights.probs),
        "means": np.asarray(members.mean),
        "covariances": np.asarray(members.covariance),
    }


def _torch(run: Run, x: Any, means: Any, after: list[Any], record: dict[str, Any]) -> None:
    """The feature form in batched products, chunk by chunk: what one would write by hand."""
    torch, x = to_torch(x)
    _, centre = to_torch(means)
    fits, rows, size = x.shape
    members = centre.shape[1]
    i, j = torch.triu_indices(size, size, device=x.device)
    twice = torch.where(i == j, 1.0, 2.0)
    chunk = max(1, CHUNK_NUMBERS // (fits * (1 + size + len(i))))

    def step(weights: Any, mean: Any, covariance: Any) -> tuple[Any, Any, Any]:
        factor = torch.linalg.cholesky(covariance)
        precision = torch.cholesky_inverse(factor)
        linear = (precision @ mean[..., None])[..., 0]
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = weights.log() - half_log_det - 0.5 * size * math.log(2 * math.pi)
        constant = constant - 0.5 * (mean * linear).sum(-1)
        quadratic = -0.5 * precision[..., i, j] * twice
        theta = torch.cat([constant[..., None], linear, quadratic], -1).transpose(1, 2)
        sums = x.new_zeros(fits, members, theta.shape[1])
        for part in x.split(chunk, 1):
            ones = torch.ones_like(part[..., :1])
            phi = torch.cat([ones, part, part[..., i] * part[..., j]], -1)
            sums += torch.softmax(phi @ theta, -1).transpose(1, 2) @ phi
        count = sums[..., 0]
        mean = sums[..., 1 : size + 1] / count[..., None]
        second = x.new_empty(fits, members, size, size)
        second[..., i, j] = second[..., j, i] = sums[..., size + 1 :] / count[..., None]
        return count / rows, mean, second - mean[..., :, None] * mean[..., None, :]

    def call() -> Any:
        equal = x.new_full((fits, members), 1 / members)
        unit = torch.eye(size, device=x.device).expand(fits, members, size, size)
        result = step(equal, centre, unit)
        if x.is_cuda:
            torch.cuda.synchronize()
        return result

    (_, mean, _), seconds, compiling = run.time(call)
    note(record, seconds, compiling)
    _compare(record, mean.cpu().numpy(), after)


def _compare(record: dict[str, Any], mean: Any, after: list[Any]) -> None:
    """A peer's means after one step against jaxem's."""
    ours = after[0].components.mean if after else jnp.nan
    agree(record, means=(_apart(mean.reshape(np.shape(ours) or mean.shape), ours), ABSOLUTE))


def _sklearn(run: Run, x: Any, means: Any, after: list[Any], record: dict[str, Any]) -> None:
    """One step as the difference between two numbers of iterations."""
    import sklearn
    from sklearn.mixture import GaussianMixture

    torch, x = to_torch(x[0])
    _, centre = to_torch(means[0])
    steps, (members, size) = run.sizes["steps"], centre.shape
    unit = torch.eye(size, device=x.device).expand(members, size, size).contiguous()

    def fit(iterations: int) -> Any:
        mixture = GaussianMixture(
            members,
            tol=0.0,
            reg_covar=0.0,
            max_iter=iterations,
            init_params="random",
            weights_init=x.new_full((members,), 1 / members),
            means_init=centre,
            precisions_init=unit,
        )
        mixture.fit(x)
        if x.is_cuda:
            torch.cuda.synchronize()
        return mixture

    with sklearn.config_context(array_api_dispatch=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, few, _ = run.time(partial(fit, 1))
        _, seconds, compiling = run.time(partial(fit, 1 + steps))
    record["fit_seconds"], record["fit_of_one_step_seconds"] = seconds, few
    note(record, difference(seconds, few), compiling, steps)
    _compare(record, one.means_.cpu().numpy(), after)


# Chains


@partial(jax.jit, static_argnums=(0, 1, 2))
def _chain_data(batch: int, steps: int, states: int) -> Any:
    """Log-potentials: B chains of T steps (or one), sticky, with emissions N(0, 4)."""
    shape = (batch, steps, states) if batch > 1 else (steps, states)
    moves = STAY * jnp.eye(states) + (1 - STAY) / states
    initial = jnp.full(states, -math.log(states))
    emission = 2 * jax.random.normal(jax.random.key(1), shape)
    return jaxem.chain.Chain(initial, jnp.log(moves), emission)


def chains(run: Run) -> None:
    """Expected counts of chains of log-potentials, by every method that can end in time."""
    for batch, steps, states in run.sizes["shapes"]:
        chain = jax.block_until_ready(_chain_data(batch, steps, states))
        shape = f"{steps}x{states}, " if len(run.sizes["shapes"]) > 1 else ""
        few = np.asarray(chain.emission[:4] if batch > 1 else chain.emission[None])
        oracle = chain_oracle(few, np.exp(np.asarray(chain.transition, float)))
        for method in (None, *jaxem.chain.METHODS):
            measure = partial(_posterior, run, chain, method, oracle)
            run.attempt("jaxem", f"{shape}method={method}", measure)
        if not shape:
            run.attempt("dynamax", "smoother", partial(_dynamax, run, chain, oracle))


def _posterior(
    run: Run, chain: Any, method: str | None, oracle: Any, record: dict[str, Any]
) -> None:
    steps = chain.emission.shape[-2]
    least = PASSES.get(str(method), 0) * steps * run.scan_step_seconds
    if (2 + REPEATS) * least > run.left():
        raise Skipped(f"{steps} steps one after another take at least {least:.1f} s")
    function = jax.jit(partial(jaxem.chain.posterior, method=method))
    call = lambda: jax.block_until_ready(function(chain))  # noqa: E731
    (log_z, counts), seconds, compiling = run.time(call)
    note(record, seconds, compiling)
    _check_chain(record, log_z, counts.emission, counts.transition, oracle)


def _check_chain(record: dict[str, Any], log_z: Any, states: Any, moves: Any, oracle: Any) -> None:
    """Log-normalisers and states of some chains; all moves by what leaves and enters a state."""
    desired_log_z, desired_states = oracle
    few = len(desired_log_z)
    batched = states if states.ndim == 3 else states[None]
    apart = np.abs(np.ravel(log_z)[:few] / desired_log_z - 1)
    leaving, entering = (
        np.asarray(jnp.sum(part, (0, 1)), float) for part in (batched[:, :-1], batched[:, 1:])
    )
    moves, total = np.asarray(moves, float), leaving.sum()
    agree(
        record,
        log_normalizer=(float(np.max(apart)), RELATIVE),
        states=(_apart(batched[:few, : desired_states.shape[1]], desired_states), ABSOLUTE),
        moves=(
            max(_apart(moves.sum(1), leaving), _apart(moves.sum(0), entering)) / total,
            ABSOLUTE,
        ),
    )


def _dynamax(run: Run, chain: Any, oracle: Any, record: dict[str, Any]) -> None:
    """Its smoother over a batch, or its time-parallel one, in full float32 precision."""
    if chain.emission.ndim == 3:
        from dynamax.hidden_markov_model import hmm_smoother

        smoother = jax.vmap(hmm_smoother, (None, None, 0))
    else:
        from dynamax.hidden_markov_model.parallel_inference import hmm_smoother as smoother
    initial, moves = jnp.exp(chain.initial), jnp.exp(chain.transition)
    with jax.default_matmul_precision("highest"):
        function = jax.jit(smoother)
        call = lambda: jax.block_until_ready(function(initial, moves, chain.emission))  # noqa: E731
        result, seconds, compiling = run.time(call)
    note(record, seconds, compiling)
    moved = result.trans_probs if result.trans_probs.ndim == 2 else result.trans_probs.sum(0)
    _check_chain(record, result.marginal_loglik, result.smoothed_probs, moved, oracle)


def main() -> None:
    """Measure the case named on the command line; records go out as lines of JSON."""
    name, small, seconds, scan_step_seconds = sys.argv[1:]
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to standard error

    def emit(record: dict[str, Any]) -> None:
        channel.write(json.dumps(record) + "\n")
        channel.flush()

    if name == "device":
        return emit(measure_device(small == "small"))
    case = CASES[name]
    sizes = case.small if small == "small" else case.sizes
    run = Run(sizes, emit, time.monotonic() + float(seconds), float(scan_step_seconds))
    measure = {"mixture": mixtures, "chain": chains}.get(case.kind)
    reason = why_not(lambda: measure(run) if measure else lattices(run, case.kind))
    if reason is not None:
        emit({"library": "all", "method": "data", "skipped": reason})


if __name__ == "__main__":
    main()
