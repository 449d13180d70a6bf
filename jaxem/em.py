"""Expectation-maximisation.  Knows no model: a model brings its E-step and its M-step."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxem import parameters
from jaxem.acceleration import check_accelerate
from jaxem.data import is_traced
from jaxem.iteration import (
    AT_RESOLUTION as AT_RESOLUTION,
    CONVERGED as CONVERGED,
    FELL as FELL,
    NON_FINITE as NON_FINITE,
    OUT_OF_STEPS as OUT_OF_STEPS,
    OUTCOMES as OUTCOMES,
    RUNNING as RUNNING,
    State,
    advance,
    begin,
)
from jaxem.pytree import pytree

RELATIVE_FLOOR = 1e-6  # of the smallest feature variance: the default covariance floor


class Model(Protocol):
    """What `fit` asks of a model; `self` is θ.  Nothing inherits from this."""

    def validate(self, data: Any) -> Any:
        """The data wrapped and checked, or a ValueError; traced values are not looked at."""
        ...

    def prepare(self, data: Any) -> Any:
        """What depends on the data alone, done once a fit; returns prepared data unchanged."""
        ...

    def e_step(self, data: Any, about: Any = None) -> tuple[Any, Float[Array, ""]]:
        """Expected statistics about the means of `about` (default self), and ℓ(self)."""
        ...

    def m_step(self, stats: Any, prior: Any, frozen: parameters.Names = ()) -> Any:
        """The maximiser of Q + log-prior, given statistics taken about self's means."""
        ...

    def near(self, proposal: Any) -> Bool[Array, ""]:
        """Whether statistics about self's means were precise enough for a step that far."""
        ...

    def log_prior(self, prior: Any) -> Float[Array, ""]:
        """Expected log-probability of the pretend data."""
        ...


@pytree
class Prior:
    """Pretend data, added to the statistics before the M-step: conjugate priors by what they are
    worth.

    Every field defaults to nothing.  A scalar stands for an array of equal entries.  Structural
    zeros take no pretend counts.  A Dirichlet(α) prior is α − 1 pretend counts; a
    normal-inverse-Wishart prior is `mean_weight` pretend rows at `mean` and `scatter_weight`
    pretend rows of total scatter `scatter` about the component's own mean.  Improper priors are
    legal.

    `floor` is a constraint, not data: no covariance eigenvalue (no variance) falls below it.  None
    stands for 1e-6 of the smallest feature variance; 0 lets components collapse, which `fit`
    reports.

    Examples:
        >>> import jaxem
        >>> prior = jaxem.Prior(weights=1.0, scatter=0.1, scatter_weight=2.0)
        >>> float(prior.weights), prior.floor is None
        (1.0, True)
    """

    weights: Any = 0.0  # [K] pretend counts of a mixture's components
    initial: Any = 0.0  # [K] pretend counts of first states
    transition: Any = 0.0  # [K, K] pretend counts of moves
    inner_weights: Any = 0.0  # [K, M] pretend counts of the components inside each state
    symbols: Any = 0.0  # [K, V] pretend counts of symbols (Categorical)
    successes: Any = 0.0  # [K, D] pretend ones (Bernoulli)
    failures: Any = 0.0  # [K, D] pretend zeros (Bernoulli)
    events: Any = 0.0  # [K, D] pretend total count (Poisson)
    exposure: Any = 0.0  # [K] pretend number of observations (Poisson)
    mean: Any = 0.0  # [K, D] where pretend rows lie (Gaussian families)
    mean_weight: Any = 0.0  # [K] how many of them speak of the mean
    scatter: Any = 0.0  # [D, D], [D] or []: Σ (x − μ)(x − μ)ᵀ of pretend rows
    scatter_weight: Any = 0.0  # [K], or [] for a tied covariance: how many speak of the covariance
    floor: Any = None  # [] smallest eigenvalue of a covariance, in squared units of the data


@pytree
class EMResult:
    """A fitted model, the log-likelihood that belongs to it, and how the fit ended."""

    model: Any  # θ, in the coordinates of the data
    log_likelihood: Float[Array, ""]  # ℓ(θ) of this very model
    log_prior: Float[Array, ""]  # 0 without a prior
    trace: Float[Array, " max_steps+1"]  # ℓ + log-prior after 0, 1, … steps; NaN past the end
    num_steps: Int[
        Array, ""
    ]  # E-steps after the first: plain EM's M-steps from the start to `model`
    largest_fall: Float[Array, ""]  # largest decrease of the trace in one step; 0 if it never fell
    num_parameters: Int[Array, ""]  # free ones: without the start's zeros and the frozen parts
    end: Int[Array, ""]  # index into OUTCOMES

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the last gain was within the tolerance, or below what the dtype resolves."""
        return (self.end == CONVERGED) | (self.end == AT_RESOLUTION)

    @property
    def outcome(self) -> Any:
        """How the fit ended, in words; an array of them for many fits; not for use under `jit`."""
        words = np.array(OUTCOMES)[np.asarray(self.end)]
        return words if words.ndim else str(words)

    @property
    def aic(self) -> Float[Array, ""]:
        """Akaike's criterion, −2ℓ + 2p: smaller is better."""
        return 2 * (self.num_parameters - self.log_likelihood)

    def bic(self, num_observations: float) -> Float[Array, ""]:
        """Schwarz's criterion, −2ℓ + p log n: smaller is better.

        n is the number of rows or of time steps, or the sum of their weights; p counts the initial
        distribution of an HMM.
        """
        return self.num_parameters * jnp.log(1.0 * num_observations) - 2 * self.log_likelihood


def fit(
    model: Any,
    data: Any,
    *,
    prior: Prior | None = None,
    tol: float | Array = 1e-6,
    max_steps: int = 1000,
    frozen: str | parameters.Names = (),
    accelerate: str | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> EMResult:
    """Maximum-likelihood (or MAP) parameters by EM, from the parameters of `model`.

    Each step raises ℓ(θ) + log-prior(θ) or, at a stationary point (a maximum or a saddle: Wu 1983),
    leaves it.  The loop carries a consistent triple, so the returned log-likelihood is that of the
    returned model.  `jit` and `vmap` go through; it compiles once per shape and dtype, and where
    entries are missing once for each number of patterns and of chunks that they make.

    Args:
        model: the start, a `Mixture`, an `HMM`, or anything with the methods of `Model`.
        data: an array [N, ...] of rows, a `Samples`, a `Sequences`, ...: what the model takes.
            The model is cast to its floating dtype; with integer data it keeps its own.
        prior: pretend data and the covariance floor, see `Prior`.
        tol: stop when one step gains no more than this, in nats of the whole data set.
        max_steps: most M-steps taken; another number is another length of `trace`, and compiles.
        frozen: dotted names of the parts held fixed, such as "components.mean" or "transition".
            The rest gets its constrained maximiser.
        accelerate: None for plain EM; for slow problems "squarem", which extrapolates EM steps, or
            "lbfgs", which hands over to L-BFGS on the free leaves where EM is slow (for models with
            an `expected_log_prob`).  A step costs about as much as one of EM, the objective never
            falls, zeros and frozen parts stay, and still the fit ends by a step of EM that gains no
            more than `tol`.  The stationary point reached may be another.  A trial that fails
            counts as a step, and leaves the trace level.
        progress: called between blocks of ten steps with (steps so far, objective); ignored when
            traced.

    Raises:
        ValueError: data that the model cannot have produced (NaN, a wrong shape, a symbol out of
            range), named by row and column; a `frozen` name the model lacks; a negative
            tolerance or number of steps; an acceleration that there is not, or not for this model.

    Source: Dempster, Laird & Rubin (1977); Bishop (2006) §9.3-9.4; Varadhan & Roland (2008).

    Examples:
        >>> import jax, jaxem
        >>> faithful = jaxem.datasets.old_faithful()
        >>> key = jax.random.key(0)
        >>> start = jaxem.initialize.kmeans_plus_plus(key, jaxem.Gaussian, faithful, 2)
        >>> result = jaxem.fit(start, faithful)
        >>> round(float(result.log_likelihood)), bool(result.converged)
        (-1130, True)
    """
    check_options(tol, max_steps)
    check_accelerate(accelerate, model)
    data = model.validate(data)
    frozen = parameters.check_frozen(model, frozen)
    dtype = floating_dtype(data, model)
    model = cast(model, dtype)
    data = prepare(model, data)
    prior = resolve(Prior() if prior is None else prior, data, dtype)
    state, trace = begin(model, dtype, accelerate), jnp.full(max_steps + 1, jnp.nan, dtype)
    take = partial(advance, data=data, prior=prior, tol=jnp.asarray(tol, dtype))
    take = partial(take, frozen=frozen, accelerate=accelerate)
    if progress is None or is_traced((model, data, prior, tol)):
        state, trace = take(state, trace, limit=jnp.asarray(int(max_steps)))
    else:
        while int(state.end) == RUNNING:
            state, trace = take(state, trace, limit=state.num_steps + 10)
            unjudged = int(state.end) == RUNNING  # the last step
            progress(int(state.num_steps) - unjudged, float(state.log_likelihood + state.log_prior))
    return result_of(state, trace, count(model, frozen))


def check_options(tol: Any, max_steps: int) -> None:
    """Raise a ValueError when the tolerance or the number of steps is none."""
    if max_steps < 0 or int(max_steps) != max_steps:
        raise ValueError(f"max_steps must be a whole number, 0 or more, got {max_steps}.")
    if not is_traced(tol) and not (np.ndim(tol) == 0 and tol >= 0):
        raise ValueError(f"tol must be a number, 0 or more, got {tol}.")


def result_of(state: State, trace: Array, num_parameters: Array) -> EMResult:
    """What a fit that has ended returns."""
    return EMResult(
        state.accepted,
        state.log_likelihood,
        state.log_prior,
        trace,
        state.num_steps,
        state.largest_fall,
        num_parameters,
        state.end,
    )


def floating_dtype(data: Any, model: Any) -> Any:
    """The dtype a model takes for these data: theirs if they are floating, its own if not."""
    values = getattr(data, "values", data)
    for tree in (values, model):
        dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
        floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
        if floating:
            # Half precision holds data, but no factorisation and no sum of log-densities.
            return jax.dtypes.canonicalize_dtype(jnp.result_type(jnp.float32, *floating))
    return jnp.zeros(()).dtype


def cast(model: Any, dtype: Any) -> Any:
    """The model with every leaf a JAX array of this dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), model)


@jax.jit
def prepare(model: Any, data: Any) -> Any:
    """What the model makes of the data once a fit, compiled."""
    return model.prepare(data)


@partial(jax.jit, static_argnames="frozen")
def count(model: Any, frozen: parameters.Names) -> Int[Array, ""]:
    """Number of free parameters, compiled."""
    return jnp.asarray(parameters.count(model, frozen))


@jax.jit
def relative_floor(spread: Array) -> Array:
    """The default floor for data whose smallest feature variance is `spread`."""
    return RELATIVE_FLOOR * jnp.where(jnp.isfinite(spread), spread, 0)


def resolve(prior: Prior, data: Any, dtype: Any) -> Prior:
    """The prior in the data's dtype, its relative floor made absolute."""
    if prior.floor is None:
        spread = getattr(data, "spread", None)
        prior = replace(prior, floor=0.0 if spread is None else relative_floor(spread))
    for entry in fields(prior):
        value = getattr(prior, entry.name)
        if is_traced(value):
            continue
        if not np.all(np.isfinite(np.asarray(value))):
            raise ValueError(f"Prior.{entry.name} must be finite, got {value}.")
        if entry.name in ("mean", "scatter"):
            continue
        if not np.all(np.asarray(value) >= 0):
            raise ValueError(
                f"Prior.{entry.name} must not be negative, got {value}; it counts pretend data "
                "(a Dirichlet parameter α is α - 1 pretend counts)."
            )
    return Prior(*(jnp.asarray(getattr(prior, entry.name), dtype) for entry in fields(prior)))
