"""The laws that every family and every model obeys, and the families and models that are asked.

A new family is one line in `FAMILIES`, and its mixture and HMM follow.  A law takes everything it
needs from one record and raises AssertionError where it is broken; the tests also hand each law
something broken, to see that it notices.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import densities
import jax
import jax.numpy as jnp
import numpy as np

import jaxem
from jaxem import parameters
from jaxem.em import cast
from jaxem.families import optional

K, M, D, V, N = 3, 2, 2, 4, 48
LENGTHS = np.array([12, 7, 1, 0])  # of the N rows as sequences [4, 12]

PRIOR = jaxem.Prior(
    weights=0.5,
    initial=0.4,
    transition=0.7,
    inner_weights=0.6,
    symbols=0.3,
    successes=0.4,
    failures=0.6,
    events=2.0,
    exposure=1.5,
    mean=0.5,
    mean_weight=2.0,
    scatter=np.array([[1.5, 0.3], [0.3, 1.0]]),
    scatter_weight=3.0,
    floor=0.0,
)
NO_PRIOR = jaxem.Prior(
    scatter=np.zeros((D, D)), floor=0.0
)  # shaped like PRIOR: one program for both


# What is asked


@dataclass(frozen=True)
class Family:
    """A kind of family."""

    members: Callable[[np.random.Generator, int], Any]  # (rng, K) -> random parameters
    rows: Callable[[np.random.Generator], np.ndarray]  # N rows it can have produced
    log_density: Callable[[Any, np.ndarray], np.ndarray]  # the oracle, [N, K]
    log_prior: Callable[[Any, jaxem.Prior], float]  # another
    num_parameters: int  # of K members
    support: Callable[
        [], tuple[np.ndarray, float]
    ]  # points that exhaust it, and log-volume of each
    shared: tuple[str, ...] = ()  # leaves that no member owns
    expected: Callable[..., float] | None = None  # Q as an oracle; None: Σ r log p


def _categorical(rng: np.random.Generator, members: int) -> Any:
    return jaxem.Categorical(rng.normal(size=(members, V)))


def _rows_of_symbols(rng: np.random.Generator, members: int) -> Any:
    return jaxem.Categorical(rng.normal(size=(members, D, V)))


def _coins(rng: np.random.Generator, members: int) -> Any:
    return jaxem.Bernoulli(rng.normal(size=members))


def _rows_of_coins(rng: np.random.Generator, members: int) -> Any:
    return jaxem.Bernoulli(rng.normal(size=(members, D)))


def _rates(rng: np.random.Generator, members: int) -> Any:
    return jaxem.Poisson(rng.uniform(0, 1.5, members))


def _rows_of_rates(rng: np.random.Generator, members: int) -> Any:
    return jaxem.Poisson(rng.uniform(0, 1.5, (members, D)))


def _full(rng: np.random.Generator, members: int) -> Any:
    return jaxem.Gaussian(rng.normal(size=(members, D)), rng.normal(0, 0.3, (members, 3)))


def _tied(rng: np.random.Generator, members: int) -> Any:
    return jaxem.TiedGaussian(rng.normal(size=(members, D)), rng.normal(0, 0.3, 3))


def _diagonal(rng: np.random.Generator, members: int) -> Any:
    shape = (members, D)
    return jaxem.DiagonalGaussian(rng.normal(size=shape), rng.normal(0, 0.3, shape))


def _spherical(rng: np.random.Generator, members: int) -> Any:
    return jaxem.SphericalGaussian(rng.normal(size=(members, D)), rng.normal(0, 0.3, members))


def _mixture_of(inner: Any) -> Any:
    def members(rng: np.random.Generator, members: int) -> Any:
        weights = jaxem.Categorical(rng.normal(size=(members, M)))
        return jaxem.MixtureFamily(weights, inner(rng, members * M))

    return members


def _integers(stop: int, *shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.integers(0, stop, (N, *shape))


def _agreeing(rng: np.random.Generator) -> np.ndarray:
    """Rows of symbols that mostly agree: of any others EM hardly tells the components apart."""
    rows = rng.integers(0, V, (N, D))
    return np.where(rng.random((N, 1)) < 0.8, rows[:, :1], rows)


def _reals(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 1.5, (N, D))


def _grid(axis: np.ndarray, num_features: int) -> np.ndarray:
    axes = np.meshgrid(*[axis] * num_features, indexing="ij")
    return np.stack([a.ravel() for a in axes], 1)


def _all(stop: int, num_features: int = 0) -> Callable[[], tuple[np.ndarray, float]]:
    points = np.arange(stop)
    return lambda: (_grid(points, num_features) if num_features else points, 0.0)


def _plane() -> tuple[np.ndarray, float]:
    step = 0.25  # the error of this rule is exp(-2 π² σ² / step²): none
    return _grid(np.arange(-9, 9, step), D), 2 * np.log(step)


_GAUSSIAN = (_reals, densities.gaussian, densities.gaussian_log_prior)

FAMILIES = {
    "Categorical": Family(
        _categorical,
        _integers(V),
        densities.categorical,
        densities.categorical_log_prior,
        K * (V - 1),
        _all(V),
    ),
    "rows of Categorical": Family(
        _rows_of_symbols,
        _agreeing,
        densities.categorical,
        densities.categorical_log_prior,
        K * D * (V - 1),
        _all(V, D),
    ),
    "Bernoulli": Family(
        _coins, _integers(2), densities.bernoulli, densities.bernoulli_log_prior, K, _all(2)
    ),
    "rows of Bernoulli": Family(
        _rows_of_coins,
        _integers(2, D),
        densities.bernoulli,
        densities.bernoulli_log_prior,
        K * D,
        _all(2, D),
    ),
    "Poisson": Family(
        _rates, _integers(8), densities.poisson, densities.poisson_log_prior, K, _all(60)
    ),
    "rows of Poisson": Family(
        _rows_of_rates,
        _integers(8, D),
        densities.poisson,
        densities.poisson_log_prior,
        K * D,
        _all(40, D),
    ),
    "Gaussian": Family(_full, *_GAUSSIAN, K * (D + 3), _plane),
    "TiedGaussian": Family(_tied, *_GAUSSIAN, K * D + 3, _plane, shared=("log_cholesky",)),
    "DiagonalGaussian": Family(_diagonal, *_GAUSSIAN, K * 2 * D, _plane),
    "SphericalGaussian": Family(_spherical, *_GAUSSIAN, K * (D + 1), _plane),
    "mixture of Gaussian": Family(
        _mixture_of(_full),
        _reals,
        densities.mixture_of(densities.gaussian),
        densities.mixture_of_log_prior(densities.gaussian_log_prior),
        K * (M - 1) + K * M * (D + 3),
        _plane,
        expected=densities.mixture_of_expected(densities.gaussian),
    ),
    "mixture of Poisson": Family(
        _mixture_of(_rates),
        _integers(8),
        densities.mixture_of(densities.poisson),
        densities.mixture_of_log_prior(densities.poisson_log_prior),
        K * (M - 1) + K * M,
        _all(60),
        expected=densities.mixture_of_expected(densities.poisson),
    ),
}
GAUSSIANS = ("Gaussian", "TiedGaussian", "DiagonalGaussian", "SphericalGaussian")


def _mixture(rng: np.random.Generator, family: Any) -> Any:
    return jaxem.Mixture(jaxem.Categorical(rng.normal(size=K)), family)


def _hmm(rng: np.random.Generator, family: Any) -> Any:
    tables = jaxem.Categorical(rng.normal(size=K)), jaxem.Categorical(rng.normal(size=(K, K)))
    return jaxem.HMM(*tables, family)


def _hmm_per_step(rng: np.random.Generator, family: Any) -> Any:
    moves = jaxem.Categorical(rng.normal(size=(max(LENGTHS) - 1, K, K)))
    return replace(_hmm(rng, family), transition=moves)


def _hmm_stationary(rng: np.random.Generator, family: Any) -> Any:
    return replace(_hmm(rng, family), initial=jaxem.Stationary())


@dataclass(frozen=True)
class Model:
    """A kind of model over a kind of family."""

    build: Callable[[np.random.Generator, Any], Any]  # (rng, family) -> random parameters
    family: str
    extra_parameters: int  # beyond the family's

    @property
    def is_mixture(self) -> bool:
        """Whether rows are independent."""
        return self.build is _mixture


_PER_STEP = K - 1 + K * (K - 1) * (max(LENGTHS) - 1)
MIXTURES = {f"Mixture over {name}": Model(_mixture, name, K - 1) for name in FAMILIES}
HMMS = {f"HMM over {name}": Model(_hmm, name, K - 1 + K * (K - 1)) for name in FAMILIES} | {
    "HMM per step over Gaussian": Model(_hmm_per_step, "Gaussian", _PER_STEP),
    "HMM per step over Poisson": Model(_hmm_per_step, "Poisson", _PER_STEP),
    "stationary HMM over Poisson": Model(_hmm_stationary, "Poisson", K * (K - 1)),
    "stationary HMM over Gaussian": Model(_hmm_stationary, "Gaussian", K * (K - 1)),
}
MODELS = MIXTURES | HMMS


@dataclass(frozen=True)
class Members:
    """A family and what to ask it about."""

    kind: Family
    family: Any
    others: list[Any]  # other parameters of the same kind
    x: np.ndarray  # [N, ...]
    responsibilities: np.ndarray  # [N, K]
    dtype: np.dtype
    frozen: tuple[str, ...] = ()

    @property
    def stats(self) -> Any:
        """The family's statistics of all rows."""
        return STATS(self.family, self.x, self.responsibilities)


def members(name: str, dtype: Any, seed: int = 0) -> Members:
    """A random question about a family."""
    kind, rng = FAMILIES[name], np.random.default_rng(seed)
    family, *others = (cast(kind.members(rng, K), dtype) for _ in range(4))
    x = kind.rows(rng)
    x = x.astype(dtype) if x.dtype.kind == "f" else x
    responsibilities = rng.dirichlet(np.ones(K), N).astype(dtype)
    return Members(kind, family, others, x, responsibilities, np.dtype(dtype))


@dataclass(frozen=True)
class Question:
    """A model and what to ask it about."""

    kind: Model
    model: Any
    others: list[Any]  # other parameters of the same kind
    data: Any
    dtype: np.dtype
    prior: jaxem.Prior = NO_PRIOR
    frozen: tuple[str, ...] = ()
    max_steps: int = 20

    @property
    def stats(self) -> Any:
        """The model's statistics of all data."""
        return E_STEP(self.model, self.data)[0]


def question(name: str, dtype: Any, seed: int = 0) -> Question:
    """A random question about a model."""
    kind = MODELS[name]
    about = members(kind.family, dtype, seed)
    rng = np.random.default_rng(seed + 1)
    model, *others = (
        cast(kind.build(rng, family), dtype) for family in (about.family, *about.others)
    )
    if kind.is_mixture:
        data: Any = jaxem.Samples(about.x, np.ones(N, dtype))
    else:
        values = about.x.reshape(len(LENGTHS), -1, *about.x.shape[1:])
        data = jaxem.Sequences(values, LENGTHS)
    return Question(kind, model, others, data, np.dtype(dtype))


# How it is asked: one compiled program for every question of the same shape

LOG_PROB = jax.jit(lambda family, x: family.log_prob(x))
STATS = jax.jit(lambda family, x, responsibilities: family.stats(x, responsibilities))
Q = jax.jit(lambda self, stats, candidate: self.expected_log_prob(stats, candidate))
LOG_PRIOR = jax.jit(lambda model, prior: model.log_prior(prior))
E_STEP = jax.jit(lambda model, data: model.e_step(data))
DRAWN = np.arange(60_000) % K  # the members that samples are asked of
DRAW = jax.jit(lambda family, seed, member: family.sample(jax.random.key(seed), member))
SLOPE = jax.jit(jax.grad(lambda model, data: model.log_likelihood(data)))


@partial(jax.jit, static_argnames="frozen")
def MAXIMIZE(family: Any, stats: Any, frozen: tuple[str, ...] = ()) -> Any:  # noqa: N802
    return family.maximize(stats, frozen) if frozen else family.maximize(stats)


@jax.jit
def Q_SLOPE(self: Any, stats: Any, candidate: Any) -> Any:  # noqa: N802
    return jax.grad(lambda candidate: self.expected_log_prob(stats, candidate))(candidate)


@partial(jax.jit, static_argnames="frozen")
def M_STEP(model: Any, stats: Any, prior: Any, frozen: tuple[str, ...] = ()) -> Any:  # noqa: N802
    return model.m_step(stats, cast(prior, jax.tree.leaves(model)[0].dtype), frozen)


PRETEND = jax.jit(lambda family, prior: family.pretend(prior))


@jax.jit
def FORM(family: Any, x: Any, responsibilities: Any) -> Any:  # noqa: N802
    """Whether the fast form is accurate, and its densities and statistics."""
    form = optional.form(family)
    return form.accurate, form.log_prob(x), form.finish(form.stats(x, responsibilities))


@jax.jit
def MAP_VALUE_AND_SLOPE(model: Any, stats: Any, prior: Any, candidate: Any) -> Any:  # noqa: N802
    def objective(candidate: Any) -> Any:
        return model.expected_log_prob(stats, candidate) + candidate.log_prior(prior)

    return jax.value_and_grad(objective)(candidate)


def assert_close(actual: Any, desired: Any, *, ulps: float, dtype: Any, scale: float = 1.0) -> None:
    """Trees whose leaves differ by `ulps` of the largest entry (of `scale`, if that is larger)."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    eps = float(np.finfo(dtype).eps)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        a, b = np.asarray(a, float), np.asarray(b, float)
        size = np.max(np.abs(b), initial=scale, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=ulps * eps * size)


def assert_flat(slope: Any, frozen: tuple[str, ...], *, dtype: Any, scale: float) -> None:
    """No slope along any leaf that is not frozen, but for rounding in a sum of size `scale`."""
    for name, leaf in parameters.named_leaves(slope):
        if not parameters.is_frozen(name, frozen):
            assert np.all(np.isfinite(leaf)), f"{name} has slope {leaf}"
            steepest = float(np.max(np.abs(leaf), initial=0))
            assert steepest <= 1000 * np.finfo(dtype).eps * scale, f"{name} has slope {leaf}"


def assert_kept(after: Any, before: Any, frozen: tuple[str, ...]) -> None:
    """Frozen leaves are the same bits."""
    pairs = zip(parameters.named_leaves(after), parameters.named_leaves(before), strict=True)
    for (name, new), (_, old) in pairs:
        if parameters.is_frozen(name, frozen):
            np.testing.assert_array_equal(new, old, err_msg=name)


# Laws of a family


def law_density(s: Members) -> None:
    """`log_prob` is the formula."""
    desired = s.kind.log_density(s.family, s.x)
    assert_close(LOG_PROB(s.family, s.x), desired, ulps=50, dtype=s.dtype)


def law_normalised(s: Members) -> None:
    """Probabilities sum, and densities integrate, to one."""
    points, log_volume = s.kind.support()
    log_prob = np.asarray(LOG_PROB(s.family, points), float)
    total = np.sum(np.exp(log_prob + log_volume), 0)
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-5)


def law_additive(s: Members) -> None:
    """Statistics of all rows are those of some plus those of the others."""
    halves = slice(N // 2), slice(N // 2, N)
    parts = [STATS(s.family, s.x[half], s.responsibilities[half]) for half in halves]
    assert_close(jax.tree.map(jnp.add, *parts), s.stats, ulps=100, dtype=s.dtype)


def law_weightless(s: Members) -> None:
    """Rows without responsibility do not count, whatever they hold."""
    mask = (np.arange(N) % 2)[:, None].astype(s.dtype)
    elsewhere = np.where(mask.reshape(-1, *[1] * (s.x.ndim - 1)) > 0, s.x, s.x[::-1])
    responsibilities = s.responsibilities * mask
    assert_close(
        STATS(s.family, elsewhere, responsibilities),
        STATS(s.family, s.x, responsibilities),
        ulps=10,
        dtype=s.dtype,
    )


def law_repetition(s: Members) -> None:
    """A row of weight 2 counts like two rows."""
    twice = 2 * (np.arange(N) % 2)  # as many rows as before
    index = np.repeat(np.arange(N), twice)
    assert_close(
        STATS(s.family, s.x, s.responsibilities * twice[:, None].astype(s.dtype)),
        STATS(s.family, s.x[index], s.responsibilities[index]),
        ulps=100,
        dtype=s.dtype,
    )


def law_expected_log_prob(s: Members) -> None:
    """Q is Σ r log p(x | candidate), for any candidate."""
    expected = s.kind.expected or densities.expected(s.kind.log_density)
    for candidate in (s.family, *s.others):
        desired = expected(s.family, candidate, s.x, s.responsibilities)
        assert_close(Q(s.family, s.stats, candidate), desired, ulps=100, dtype=s.dtype)


def law_stationary(s: Members) -> None:
    """The M-step leaves Q without slope along every free leaf, and the frozen ones as they were."""
    best = MAXIMIZE(s.family, s.stats, parameters.check_frozen(s.family, s.frozen))
    assert_kept(best, s.family, s.frozen)
    assert_flat(Q_SLOPE(s.family, s.stats, best), s.frozen, dtype=s.dtype, scale=10 * N)


def law_maximum(s: Members) -> None:
    """No other parameters have a higher Q: neither near ones nor far ones."""
    best = MAXIMIZE(s.family, s.stats)
    rng = np.random.default_rng(5)

    def moved(size: float) -> Any:
        return jax.tree.map(
            lambda leaf: leaf + size * rng.normal(size=leaf.shape).astype(s.dtype), best
        )

    near = [moved(size) for size in np.repeat([1e-2, 0.1, 1.0], 5)]
    top = float(Q(s.family, s.stats, best))
    slack = 100 * np.finfo(s.dtype).eps * abs(top)
    for candidate in (*near, *s.others, s.family):
        assert float(Q(s.family, s.stats, candidate)) <= top + slack


def law_dead_member(s: Members) -> None:
    """A member that explains nothing keeps its parameters to the bit; the others do not."""
    dead = 1
    responsibilities = s.responsibilities.copy()
    responsibilities[:, dead] = 0
    after = MAXIMIZE(s.family, STATS(s.family, s.x, responsibilities))
    pairs = zip(parameters.named_leaves(after), parameters.named_leaves(s.family), strict=True)
    for (name, new), (_, old) in pairs:
        if name not in s.kind.shared:
            new, old = np.reshape(new, (K, -1)), np.reshape(old, (K, -1))
            np.testing.assert_array_equal(new[dead], old[dead], err_msg=name)
            assert np.all(np.any(np.delete(new != old, dead, 0), 1)), name


def law_no_rows(s: Members) -> None:
    """Without any responsibility nothing changes."""
    after = MAXIMIZE(s.family, STATS(s.family, s.x, np.zeros_like(s.responsibilities)))
    assert_kept(after, s.family, tuple(name for name, _ in parameters.named_leaves(s.family)))


def law_prior(s: Members) -> None:
    """Pretend data have the log-probability they should, whoever made their statistics."""
    for candidate in s.others:
        desired = s.kind.log_prior(candidate, PRIOR)
        own = Q(candidate, PRETEND(candidate, PRIOR), candidate)
        assert_close(own, desired, ulps=100, dtype=s.dtype)
        made_elsewhere = Q(s.family, PRETEND(s.family, PRIOR), candidate)
        assert_close(made_elsewhere, desired, ulps=200, dtype=s.dtype)


def law_pretend_maximum(s: Members) -> None:
    """With pretend data the M-step maximises Q plus the log-prior."""
    pretend = PRETEND(s.family, PRIOR)
    best = MAXIMIZE(s.family, jax.tree.map(jnp.add, s.stats, pretend))
    slope = jax.tree.map(
        jnp.add, Q_SLOPE(s.family, s.stats, best), Q_SLOPE(s.family, pretend, best)
    )
    assert_flat(slope, (), dtype=s.dtype, scale=10 * N)


def law_form(s: Members) -> None:
    """The fast form is accurate here, and then it gives the same densities and statistics."""
    accurate, log_prob, stats = FORM(s.family, s.x, s.responsibilities)
    assert accurate
    assert_close(log_prob, LOG_PROB(s.family, s.x), ulps=200, dtype=s.dtype)
    assert_close(stats, s.stats, ulps=200, dtype=s.dtype)


def law_sample(s: Members) -> None:
    """Samples depend on the key alone, have the family's shape and are legal data for it."""
    first = DRAW(s.family, 3, DRAWN)
    np.testing.assert_array_equal(first, DRAW(s.family, 3, DRAWN))
    assert np.any(first != DRAW(s.family, 1, DRAWN))
    assert first.shape == (len(DRAWN), *s.family.event_shape)
    if np.issubdtype(first.dtype, np.floating):
        assert first.dtype == s.dtype
    assert s.family.validate(first).shape == first.shape


def law_sample_then_maximize(s: Members) -> None:
    """From many samples the M-step finds the parameters they were drawn from."""
    responsibilities = np.eye(K, dtype=s.dtype)[DRAWN]
    best = MAXIMIZE(s.family, STATS(s.family, DRAW(s.family, 3, DRAWN), responsibilities))

    def centred(name: str, leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf, float)  # of a table only differences of logits mean anything
        is_table = name == "weights.logits" or isinstance(s.family, jaxem.Categorical)
        return leaf - leaf.mean(-1, keepdims=True) if is_table else leaf

    found = dict(parameters.named_leaves(best))
    for name, leaf in parameters.named_leaves(s.family):
        np.testing.assert_allclose(
            centred(name, found[name]), centred(name, leaf), rtol=0, atol=0.06, err_msg=name
        )


def law_pooled(s: Members) -> None:
    """`pooled` gives every member the fit of all rows."""
    kind = type(s.family)
    if kind is jaxem.MixtureFamily:
        kind = kind.of(type(s.family.components), M)
    pooled = kind.pooled(jnp.asarray(s.x), K)
    assert pooled.num_members == K
    log_prob = np.asarray(LOG_PROB(pooled, s.x), float)
    np.testing.assert_array_equal(log_prob, log_prob[:, :1].repeat(K, 1))
    everyone = np.full((N, K), 1 / K, s.dtype)
    fitted = MAXIMIZE(pooled, STATS(pooled, s.x, everyone))
    desired = np.asarray(LOG_PROB(fitted, s.x), float)
    np.testing.assert_allclose(log_prob, desired, rtol=0, atol=1e-4)


def law_num_parameters(s: Members) -> None:
    """The number of parameters is the one counted by hand."""
    assert s.family.num_parameters == s.kind.num_parameters
    assert s.family.num_members == K
    s.family.check()


FAMILY_LAWS = [
    law_density,
    law_weightless,
    law_repetition,
    law_expected_log_prob,
    law_stationary,
    law_maximum,
    law_dead_member,
    law_no_rows,
    law_prior,
    law_pretend_maximum,
    law_form,
]
FAMILY_LAWS_WHATEVER_THE_DTYPE = [
    law_normalised,
    law_additive,
    law_sample,
    law_sample_then_maximize,
    law_pooled,
    law_num_parameters,
]


# Laws of a model


def exact_log_likelihood(kind: Model, model: Any, data: Any) -> float:
    """ℓ in float64 NumPy."""
    log_density = FAMILIES[kind.family].log_density
    if kind.is_mixture:
        log_weights = densities.log_probs(model.weights)
        each = log_density(model.components, data.values)
        return float(data.sample_weight @ densities.mixture_log_likelihoods(log_weights, each))
    transition = np.exp(densities.log_probs(model.transition))
    if isinstance(model.initial, jaxem.Stationary):
        initial = densities.stationary(transition)
    else:
        initial = np.exp(densities.log_probs(model.initial))
    return sum(
        densities.hmm_log_likelihood(initial, transition, log_density(model.emission, one))
        for one in data.unpack()
        if len(one)
    )


def part(data: Any, kind: Model, which: int) -> Any:
    """Of two parts of the data one: the other's rows have weight 0, its sequences length 0."""
    if kind.is_mixture:
        return replace(data, sample_weight=data.sample_weight * (np.arange(N) % 2 == which))
    return replace(data, lengths=data.lengths * (np.arange(len(LENGTHS)) % 2 == which))


def law_log_likelihood(s: Question) -> None:
    """ℓ is the formula."""
    desired = exact_log_likelihood(s.kind, s.model, s.data)
    assert_close(E_STEP(s.model, s.data)[1], desired, ulps=100, dtype=s.dtype)


def law_additive_data(s: Question) -> None:
    """Statistics and ℓ of all data are those of one part plus those of the other."""
    parts = [E_STEP(s.model, part(s.data, s.kind, which)) for which in (0, 1)]
    assert_close(
        jax.tree.map(jnp.add, *parts), E_STEP(s.model, s.data), ulps=200, dtype=s.dtype, scale=N
    )


def law_fisher(s: Question) -> None:
    """The slope of ℓ is that of Q at the parameters whose posterior it takes."""
    assert_close(
        SLOPE(s.model, s.data),
        Q_SLOPE(s.model, s.stats, s.model),
        ulps=1000,
        dtype=s.dtype,
        scale=N,
    )


def law_m_step(s: Question) -> None:
    """The M-step leaves Q plus log-prior without slope, and higher than anywhere else.

    With a stationary start it is a generalised one: Q does not fall.
    """
    stats = s.stats

    def objective(candidate: Any) -> Any:
        return MAP_VALUE_AND_SLOPE(s.model, stats, s.prior, candidate)

    best = M_STEP(s.model, stats, s.prior, s.frozen)
    assert_kept(best, s.model, s.frozen)
    top, slope = objective(best)
    slack = 100 * np.finfo(s.dtype).eps * abs(float(top))
    assert float(objective(s.model)[0]) <= top + slack
    generalised = isinstance(getattr(s.model, "initial", None), jaxem.Stationary)
    loose = (*s.frozen, "transition") if generalised else s.frozen
    assert_flat(slope, loose, dtype=s.dtype, scale=10 * N)
    if not s.frozen and not generalised:
        for candidate in s.others:
            assert float(objective(candidate)[0]) <= top + slack


def law_monotone(s: Question) -> None:
    """A fit never lowers its objective beyond rounding, whatever the start."""
    for start in (s.model, *s.others):
        result = run_fit(s, start)
        steps = int(result.num_steps)
        trace = np.asarray(result.trace, float)
        assert np.all(np.isfinite(trace[: steps + 1])), trace
        assert np.all(np.isnan(trace[steps + 1 :]))
        falls = np.maximum(-np.diff(trace[: steps + 1]), 0)
        slack = 64 * np.finfo(s.dtype).eps * max(N, np.max(np.abs(trace[: steps + 1])))
        assert np.max(falls, initial=0) <= slack, trace
        fall = np.max(falls, initial=0)
        np.testing.assert_allclose(result.largest_fall, fall, rtol=1e-6, atol=slack)
        assert trace[steps] > trace[0]
        assert_kept(result.model, start, s.frozen)


def law_consistent(s: Question) -> None:
    """What a fit returns belongs together: model, ℓ, log-prior, the end of the trace."""
    result = run_fit(s, s.model)
    log_likelihood = E_STEP(result.model, s.data)[1]
    log_prior = LOG_PRIOR(result.model, cast(s.prior, s.dtype))
    close = partial(assert_close, ulps=100, dtype=s.dtype, scale=N)
    close(result.log_likelihood, log_likelihood)
    close(result.log_prior, log_prior)
    close(result.trace[int(result.num_steps)], log_likelihood + log_prior)
    assert all(leaf.dtype == s.dtype for leaf in jax.tree.leaves(result.model))


def law_model_num_parameters(s: Question) -> None:
    """The number of parameters is the one counted by hand; a fit says the same."""
    by_hand = s.kind.extra_parameters + FAMILIES[s.kind.family].num_parameters
    assert s.model.num_parameters == by_hand
    assert int(run_fit(s, s.model).num_parameters) == by_hand


def law_sample_then_fit(s: Question) -> None:
    """A fit to what a model sampled gains as much over the truth as p parameters should.

    Twice the gain is about χ² with p degrees of freedom (Wilks 1938), p not counting what the data
    do not speak of.
    """
    size = 2000
    values, latent = s.model.sample(jax.random.key(4), size)
    again, _ = s.model.sample(jax.random.key(4), size)
    np.testing.assert_array_equal(values, again)
    assert latent.shape == (size,)
    assert latent.min() >= 0 and latent.max() < K
    result = jaxem.fit(s.model, values, tol=1e-3, max_steps=300)
    gain = float(result.log_likelihood - result.trace[0])
    free = s.model.num_parameters
    assert 0 <= gain <= 0.5 * free + 3 * np.sqrt(0.5 * free), f"gained {gain}, {free} parameters"


def run_fit(s: Question, start: Any) -> jaxem.EMResult:
    """The fit that the laws look at: always the same program for the same kind of model."""
    return jaxem.fit(start, s.data, prior=s.prior, frozen=s.frozen, max_steps=s.max_steps, tol=1e-4)


MODEL_LAWS = [
    law_log_likelihood,
    law_additive_data,
    law_m_step,
    law_monotone,
    law_consistent,
    law_model_num_parameters,
]
