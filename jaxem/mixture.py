"""Mixtures: one latent component a row."""

from dataclasses import replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxem import em, observations, parameters
from jaxem.data import Chunks, Samples, chunk, chunk_partial, chunk_size, is_traced
from jaxem.families import optional
from jaxem.families.categorical import Categorical
from jaxem.labels import log_evidence, with_evidence, with_labels
from jaxem.missing import Groups, group
from jaxem.pytree import pytree
from jaxem.semiring import log_normalize, relative_entropy, softmax, times


@pytree
class MixtureStats:
    """Expected statistics of a mixture, additive over rows."""

    weights: Float[Array, " K"]  # N_k, how many rows each component explains
    components: Any  # the family's statistics


@pytree
class Mixture:
    """p(x) = Σ_k π_k p_k(x): weights over the K members of any family.  Bishop (2006) §9.2.

    Data are rows [N, D] (or [N], as the family has it), plain or as `Samples`.

    Examples:
        >>> import jaxem
        >>> faithful = jaxem.datasets.old_faithful()
        >>> covariance = [[[0.1, 0.0], [0.0, 36.0]]] * 2
        >>> components = jaxem.Gaussian.from_moments([[2.0, 55.0], [4.3, 80.0]], covariance)
        >>> model = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), components)
        >>> result = jaxem.fit(model, faithful)
        >>> print(result.model.weights.probs.round(2))
        [0.36 0.64]
    """

    weights: Categorical  # [K]
    components: Any  # a family with K members

    @property
    def num_parameters(self) -> int:
        """Number of free parameters: K − 1 weights and the family's; zeros are not counted."""
        return int(parameters.count(self))

    def check(self) -> None:
        """Raise a ValueError unless the weights are [K] and the family has K members."""
        optional.check(self.components)
        if np.shape(self.weights.logits) != (self.components.num_members,):
            raise ValueError(
                f"Mixture.weights must be [{self.components.num_members}] for a family with "
                f"{self.components.num_members} members, got {list(np.shape(self.weights.logits))}."
            )

    def validate(self, data: Any) -> Samples:
        """The rows as `Samples`, or a ValueError naming what is wrong with them."""
        self.check()
        rows = observations.rows_of(data, self.components)
        given = data.groups if isinstance(data, Samples) else None
        return replace(rows, groups=groups_of(rows.observed, self.components, given))

    def prepare(self, data: Any) -> Chunks:
        """Rows centred and laid out for the E-step, once a fit."""
        if isinstance(data, Chunks):
            return data
        data = data if isinstance(data, Samples) else Samples(data)
        dtype = em.floating_dtype(data, self)
        weight = None if data.sample_weight is None else jnp.asarray(data.sample_weight, dtype)
        values = in_dtype(self.components, data.values, dtype)
        rows = chunks_of(self.components, values, weight, data.observed, data.groups)
        return with_labels(rows, data.labels, dtype)

    def e_step(self, data: Any, about: Any = None) -> tuple[MixtureStats, Float[Array, ""]]:
        """Expected statistics about the means of `about` (default self), and ℓ(self).

        Rows are walked in chunks: O(chunk · K) memory beyond the data.  Bishop (2006) 9.13, 9.18.
        """
        rows = self.prepare(data)
        here = optional.translate(self.components, rows.center)
        log_weights = self.weights.log_probs[:, None]

        def walk(form: Any, anchor: Any) -> tuple[MixtureStats, Array]:
            def one(x: Any, weight: Array | None, labels: Array | None) -> tuple[Any, Array]:
                x = optional.infer(form, x)
                log_joint = with_evidence(log_weights + form.log_prob(x).T, labels)
                probs, log_prob = softmax(log_joint, 0)
                if weight is not None:
                    probs, log_prob = probs * weight, times(weight, log_prob)
                counts = jnp.sum(probs, 1)
                stats = optional.stats(form, anchor, x, probs.T)
                return (counts, stats), jnp.sum(log_prob)

            (counts, stats), log_likelihood = rows.accumulate(one, rows.labels)
            return MixtureStats(counts, optional.finish(form, anchor, stats)), log_likelihood

        if about is None:
            return optional.in_best_form((here,), lambda form: walk(form, form), rows.missing)
        there = optional.translate(about.components, rows.center)
        return optional.in_best_form((here, there), walk, rows.missing)

    def m_step(self, stats: MixtureStats, prior: Any, frozen: parameters.Names = ()) -> Self:
        """Shares of the counts, and the family's M-step.  Bishop (2006) 9.17-9.22."""
        stats = self.with_pretend(stats, prior)
        weights = self.weights
        if parameters.within(frozen, "weights") is not None:
            weights = weights.maximize(stats.weights)
        components = optional.maximize(self.components, stats.components, "components", frozen)
        return replace(self, weights=weights, components=components)

    def with_pretend(self, stats: MixtureStats, prior: Any) -> MixtureStats:
        """The statistics and those of the pretend data: what the M-step maximises over."""
        weights = stats.weights + self.weights.pretend_counts(prior.weights)
        components = optional.with_pretend(self.components, stats.components, prior)
        return MixtureStats(weights, components)

    def member_counts(self, stats: MixtureStats) -> Float[Array, " K"]:
        """How many rows each component explains."""
        return stats.weights

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """Whether the proposal's means are close in its own standard deviations."""
        return optional.near(self.components, proposal.components)

    def expected_log_prob(self, stats: MixtureStats, candidate: Self) -> Float[Array, ""]:
        """Q(candidate | self) from statistics that self made.  Bishop (2006) 9.30."""
        return self.weights.expected_log_prob(
            stats.weights, candidate.weights
        ) + self.components.expected_log_prob(stats.components, candidate.components)

    def posterior_entropy(self, data: Any) -> Float[Array, ""]:
        """Entropy in nats of p(z | x), summed over rows; z is all that is latent.

        ℓ = Q + entropy at the posterior (Bishop 2006, 9.74).  0 for an impossible row.

        Missing entries are latent too: theirs is a differential entropy where they are continuous,
        and of counts relative to the measure 1/x!, as Q has them.  Soft labels are a measure as
        well, on the components: Q leaves them out.
        """
        rows = self.prepare(data)
        here = optional.translate(self.components, rows.center)

        def entropy(form: Any, x: Any, labels: Array | None) -> Array:
            log_q = self._log_posterior(form, x, labels)
            entropy = -jnp.sum(times(jnp.exp(log_q), log_q), 0)
            if labels is not None:
                probs = jnp.exp(log_q).reshape(self.components.num_members, -1, len(entropy))
                probs = jnp.sum(probs, 1)
                entropy += jnp.sum(times(probs, log_evidence(labels, len(probs))), 0)
            if rows.missing is None:
                return entropy
            inside = optional.missing_entropy(form, x).reshape(log_q.shape)
            return entropy + jnp.sum(times(jnp.exp(log_q), inside), 0)

        return optional.in_best_form(
            (here,), lambda form: _total(rows, entropy, form), rows.missing
        )

    def classification_log_likelihood(self, data: Any) -> Float[Array, ""]:
        """log p(x, z) at the most probable components z, summed over rows as often as they count.

        ℓ less this is how little the components are told apart: what ICL adds to BIC (Biernacki,
        Celeux & Govaert 2000).
        """
        rows = self.prepare(data)
        here = optional.translate(self.components, rows.center)
        log_weights = self.weights.log_probs[:, None]

        def best(form: Any, x: Any, labels: Array | None) -> Array:
            return jnp.max(with_evidence(log_weights + form.log_prob(x).T, labels), 0)

        return optional.in_best_form((here,), lambda form: _total(rows, best, form), rows.missing)

    def posterior_divergence(self, data: Any, other: Self) -> Float[Array, ""]:
        """KL(p(z | x, self) ‖ p(z | x, other)) in nats, summed over rows; z is all that is latent.

        A sum of non-negative terms, right also where the two hardly differ.
        """
        rows = self.prepare(data)
        here = optional.translate(self.components, rows.center)
        there = optional.translate(other.components, rows.center)

        def divergence(here: Any, there: Any, x: Any, labels: Array | None) -> Array:
            log_q = self._log_posterior(here, x, labels)
            log_p = other._log_posterior(there, x, labels)
            impossible = jnp.all(jnp.isneginf(log_q), 0)
            divergence = relative_entropy(log_q, log_p)
            if rows.missing is not None:
                inside = optional.missing_divergence(here, there, x).reshape(log_q.shape)
                divergence += times(jnp.exp(log_q), inside)
            return jnp.where(impossible, 0, jnp.sum(divergence, 0))

        def walk(here: Any, there: Any) -> Array:
            return _total(rows, divergence, here, there)

        return optional.in_best_form((here, there), walk, rows.missing)

    def _log_posterior(self, form: Any, x: Any, labels: Array | None) -> Float[Array, "KI n"]:
        log_joint = self.weights.log_probs[:, None, None] + optional.log_joint(form, x)
        log_joint = with_evidence(log_joint, labels)
        return log_normalize(log_joint.reshape(-1, log_joint.shape[-1]).T).T

    def log_prior(self, prior: em.Prior) -> Float[Array, ""]:
        """Expected log-probability of the pretend data."""
        counts = self.weights.pretend_counts(prior.weights)
        weights = self.weights.expected_log_prob(counts, self.weights)
        return weights + optional.log_prior(self.components, prior)

    def log_likelihood(self, data: Any) -> Float[Array, ""]:
        """ℓ = Σ_n log p(x_n), a scalar; of a row with a label log p(x_n, label_n)."""
        return _log_likelihood(*self._same_dtype(data))

    def log_prob(self, data: Any) -> Float[Array, " N"]:
        """log p(x_n) of every row, its label included.  An impossible row has -inf."""
        return _log_prob(*self._same_dtype(data))

    def responsibilities(self, data: Any) -> Float[Array, "N K"]:
        """Posterior probability of every component for every row; 0 throughout an impossible row.

        Bishop (2006) 9.13.
        """
        return _responsibilities(*self._same_dtype(data))

    def predict(self, data: Any) -> Int[Array, " N"]:
        """The most probable component of every row; of equal ones the first."""
        return jnp.argmax(self.responsibilities(data), 1)

    def sample(self, key: Array, num_rows: int) -> tuple[Array, Int[Array, " N"]]:
        """Rows [N, …] drawn from the mixture, and the components [N] they came from."""
        component_key, row_key = jax.random.split(key)
        log_weights = self.weights.log_probs
        component = jax.random.categorical(component_key, log_weights, shape=(num_rows,))
        return self.components.sample(row_key, component), component

    def marginal(self, dims: Any) -> Self:
        """The mixture of these features alone, in this order; its components are Gaussian.

        Examples:
            >>> import jaxem
            >>> components = jaxem.DiagonalGaussian.from_moments([[0.0, 1.0], [2.0, 3.0]], 1.0)
            >>> model = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), components)
            >>> model.marginal([1]).components.mean.tolist()
            [[1.0], [3.0]]
        """
        self._check_gaussian()
        return replace(self, components=self.components.marginal(dims))

    def condition(self, dims: Any, values: Any) -> Self:
        """The mixture of the other features, given values [d] of these; components are Gaussian.

        Its mean is Gaussian mixture regression.  For many rows of values, `jax.vmap` it: the
        result then has a leading axis.  A component counts as much as it explains the values.
        Bishop (2006) 2.81-2.82.

        Raises:
            ValueError: components that are not Gaussian; features that do not exist, twice, or all;
                values that are not one a feature, or not finite.

        Examples:
            >>> import jaxem
            >>> covariance = [[[1.0, 0.5], [0.5, 1.0]], [[1.0, -0.5], [-0.5, 1.0]]]
            >>> components = jaxem.Gaussian.from_moments([[0.0, 0.0], [4.0, 4.0]], covariance)
            >>> model = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), components)
            >>> given = model.condition([0], [2.0])
            >>> print(given.weights.probs.round(2), given.components.mean.ravel())
            [0.5 0.5] [1. 5.]
        """
        self._check_gaussian()
        components, log_prob = self.components.condition(dims, values)
        weights = Categorical(log_normalize(self.weights.log_probs + log_prob))
        return replace(self, weights=weights, components=components)

    def _check_gaussian(self) -> None:
        innermost = self.components
        while hasattr(innermost, "components"):
            innermost = innermost.components
        if not hasattr(innermost, "condition"):
            raise ValueError(
                f"marginal and condition need Gaussian components, got {type(innermost).__name__}."
            )

    def _same_dtype(self, data: Any) -> tuple[Self, Samples]:
        data = self.validate(data)
        return em.cast(self, em.floating_dtype(data, self)), data


def in_dtype(family: Any, values: Any, dtype: Any) -> Array:
    """Values on the device; floating ones, and all for a family with a location, in this dtype."""
    values = jnp.asarray(values)
    floating = jnp.issubdtype(values.dtype, jnp.floating)
    return values.astype(dtype) if floating or optional.is_located(family) else values


def groups_of(observed: Any, family: Any, given: Groups | None) -> Groups | None:
    """Rows [N, D] grouped by what is observed, where the family factors anew for each pattern.

    A traced mask cannot be looked at: its rows keep the groups `given` with it, if any.
    """
    factors = optional.num_factors(family)
    if observed is None or factors == 0:
        return None
    if is_traced(observed):
        return given
    largest = chunk_size(num_features(family))
    return group(np.asarray(observed), num_factors=factors, largest=largest)


def chunks_of(
    family: Any,
    values: Array,
    weight: Array | None,
    observed: Any,
    groups: Groups | None,
    multiple: int = 1,
) -> Chunks:
    """Rows laid out for an E-step of this family; complete ones in whole `multiple`s."""
    size, centred = num_features(family), optional.is_located(family)
    if observed is None:
        return chunk(values, weight, num_features=size, centred=centred, multiple=multiple)
    groups = groups if optional.num_factors(family) else None
    if groups is None:
        size += optional.num_factors(family) * int(np.prod(values.shape[1:])) ** 2
    observed = jnp.asarray(observed)
    return chunk_partial(
        values, weight, observed, num_features=size, centred=centred, groups=groups
    )


def num_features(family: Any) -> int:
    """About how many numbers an E-step holds for a row: it sets the size of a chunk."""
    return optional.num_features(family) + 2 * family.num_members


def _total(rows: Chunks, terms: Any, *forms: Any) -> Array:
    """Σ_n weight · terms(*forms, x, labels) [n], chunk by chunk."""

    def one(x: Array, weight: Array | None, labels: Array | None) -> tuple[tuple, Array]:
        values = terms(*forms, x, labels)
        return (), jnp.sum(values if weight is None else times(weight, values))

    return rows.accumulate(one, rows.labels)[1]


def _joint(model: Mixture, data: Samples, function: Any) -> Any:
    rows = model.prepare(replace(data, sample_weight=None))  # each row is answered for itself
    here = optional.translate(model.components, rows.center)
    log_weights = model.weights.log_probs[:, None]

    def walk(form: Any) -> Any:
        def one(x: Any, labels: Array | None) -> Any:
            return function(with_evidence(log_weights + form.log_prob(x).T, labels))

        return rows.map(one, rows.labels)

    return rows.rows(optional.in_best_form((here,), walk, rows.missing))


@jax.jit
def _log_likelihood(model: Mixture, data: Samples) -> Array:
    return model.e_step(data)[1]


@jax.jit
def _log_prob(model: Mixture, data: Samples) -> Array:
    return _joint(model, data, lambda log_joint: softmax(log_joint, 0)[1])


@jax.jit
def _responsibilities(model: Mixture, data: Samples) -> Array:
    return _joint(model, data, lambda log_joint: softmax(log_joint, 0)[0].T)
