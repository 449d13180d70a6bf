"""A mixture inside each member: K members of M components each, over any inner family."""

from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxem import em, parameters
from jaxem.families import optional
from jaxem.families.categorical import Categorical
from jaxem.missing import Missing, Partial
from jaxem.pytree import pytree
from jaxem.semiring import logsumexp, softmax


@pytree
class MixtureFamilyStats:
    """Expected counts of the inner components, and the inner family's statistics."""

    weights: Float[Array, "K M"]
    components: Any  # statistics of K·M members


@pytree
class MixtureFamily:
    """Member k is Σ_m c_km p(x | component k·M + m), as in HMMs with Gaussian-mixture emissions.

    `components` is any family with K·M members, those of member 0 first.  Bilmes (1998) §4.2.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> inner = jaxem.Poisson.from_rate(jnp.array([1.0, 2.0, 10.0, 20.0]))
        >>> weights = jaxem.Categorical.from_probs(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> jaxem.MixtureFamily(weights, inner).log_prob(jnp.array([0, 12])).shape
        (2, 2)
    """

    weights: Categorical  # [K, M]
    components: Any  # a family with K·M members

    @property
    def num_members(self) -> int:
        """K."""
        return self.weights.logits.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """That of the inner family."""
        return self.components.event_shape

    @property
    def num_features(self) -> int:
        """Those of the inner family, and what the inner components hold for a row."""
        return optional.num_features(self.components) + 2 * self.components.num_members

    @property
    def num_parameters(self) -> int:
        """K(M − 1) weights and the inner family's."""
        return int(parameters.count(self))

    def check(self) -> None:
        """Raise a ValueError unless the weights are [K, M] and the inner family has K·M members."""
        if jnp.ndim(self.weights.logits) != 2:
            raise ValueError(
                f"MixtureFamily.weights must be [K, M], got {list(jnp.shape(self.weights.logits))}."
            )
        optional.check(self.components)
        if self.components.num_members != self.weights.logits.size:
            raise ValueError(
                f"MixtureFamily.weights {list(self.weights.logits.shape)} need "
                f"{self.weights.logits.size} components, got {self.components.num_members}."
            )

    def validate(self, x: Any, leading: int = 1) -> Array:
        """Rows that the inner family can have produced."""
        return optional.validate(self.components, x, leading)

    @property
    def is_located(self) -> bool:
        """Whether the inner family can be translated."""
        return optional.is_located(self.components)

    def translate(self, offset: Float[Array, " D"]) -> Self:
        """The members for data moved by `offset`."""
        return replace(self, components=self.components.translate(offset))

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """Whether the inner family's means moved little."""
        return optional.near(self.components, proposal.components)

    def log_prob(self, x: Array) -> Float[Array, "N K"]:
        """Log-density of every row under every member."""
        return self.plain_form().log_prob(x)

    def stats(self, x: Array, responsibilities: Float[Array, "N K"]) -> MixtureFamilyStats:
        """Each responsibility is shared among the components of its member.  Bilmes (1998) §4.2."""
        return self.plain_form().stats(x, responsibilities)

    def plain_form(self) -> "MixtureFamilyForm":
        """The members over the inner family itself."""
        return MixtureFamilyForm(self, optional.plain_form(self.components))

    def form(self) -> "MixtureFamilyForm":
        """The members over the inner family's fast form."""
        return MixtureFamilyForm(self, optional.form(self.components))

    def check_partial(self) -> None:
        """Raise a ValueError unless the inner family takes rows with missing entries."""
        optional.check_partial(self.components)

    @property
    def num_factors(self) -> int:
        """Those of the inner family."""
        return optional.num_factors(self.components)

    def partial_form(self, patterns: Bool[Array, "P D"] | None) -> "MixtureFamilyForm":
        """The members over the inner family's form for rows with missing entries."""
        return MixtureFamilyForm(self, optional.form(self.components, Missing(patterns)))

    def plain_partial_form(self, patterns: Bool[Array, "P D"] | None) -> "MixtureFamilyForm":
        """The same over the plainest of these."""
        return MixtureFamilyForm(self, optional.plain_form(self.components, Missing(patterns)))

    def maximize(self, stats: MixtureFamilyStats, frozen: parameters.Names = ()) -> Self:
        """Shares of counts, and the inner family's M-step."""
        weights, components = self.weights, self.components
        if parameters.within(frozen, "weights") is not None:
            weights = weights.maximize(stats.weights)
        inner = parameters.within(frozen, "components")
        if inner is not None:
            extra = (inner,) if inner else ()
            components = components.maximize(stats.components, *extra)
        return replace(self, weights=weights, components=components)

    def expected_log_prob(self, stats: MixtureFamilyStats, candidate: Self) -> Float[Array, ""]:
        """Q over both latent variables."""
        return self.weights.expected_log_prob(
            stats.weights, candidate.weights
        ) + self.components.expected_log_prob(stats.components, candidate.components)

    def pretend(self, prior: em.Prior) -> MixtureFamilyStats:
        """The prior's `inner_weights`, and the inner family's pretend data."""
        return MixtureFamilyStats(
            self.weights.pretend_counts(prior.inner_weights), self.components.pretend(prior)
        )

    def with_pretend(self, stats: MixtureFamilyStats, prior: em.Prior) -> MixtureFamilyStats:
        """The statistics and those of the pretend data, as far as the inner family has any."""
        weights = stats.weights + self.weights.pretend_counts(prior.inner_weights)
        components = optional.with_pretend(self.components, stats.components, prior)
        return MixtureFamilyStats(weights, components)

    def log_prior(self, prior: em.Prior) -> Float[Array, ""]:
        """Expected log-probability of the pretend data."""
        counts = self.weights.pretend_counts(prior.inner_weights)
        weights = self.weights.expected_log_prob(counts, self.weights)
        return weights + optional.log_prior(self.components, prior)

    def sample(self, key: Array, member: Int[Array, " N"]) -> Array:
        """One row from each of the members named."""
        inner_key, row_key = jax.random.split(key)
        inner = self.weights.sample(inner_key, member)
        return self.components.sample(row_key, member * self.weights.logits.shape[1] + inner)

    def marginal(self, dims: Any) -> Self:
        """The members of these features alone, if the inner family is Gaussian."""
        return replace(self, components=self.components.marginal(dims))

    def condition(self, dims: Any, values: Any) -> tuple[Self, Float[Array, " K"]]:
        """The members of the other features given values [d] of these, and log p(values)."""
        components, log_prob = self.components.condition(dims, values)
        log_joint = self.weights.log_probs + log_prob.reshape(self.weights.logits.shape)
        given = replace(self, weights=Categorical(log_joint), components=components)
        return given, logsumexp(log_joint, 1)

    @classmethod
    def of(cls, family: Any, num_components: int) -> "MixtureOf":
        """The kind of family whose members are mixtures of `num_components` members of `family`.

        For `initialize`, which asks a kind of family for its `pooled` fit.
        """
        return MixtureOf(family, num_components)


@dataclass(frozen=True)
class MixtureOf:
    """A kind of family: mixtures of M members of an inner one."""

    family: Any  # a family class
    num_components: int  # M

    def pooled(self, x: Array, num_members: int) -> MixtureFamily:
        """Equal weights, every component at the fit of all rows pooled."""
        components = self.family.pooled(x, num_members * self.num_components)
        dtype = jax.tree.leaves(components)[0].dtype
        weights = jnp.full((num_members, self.num_components), 1 / self.num_components, dtype)
        return MixtureFamily(Categorical(jnp.log(weights)), components)


@dataclass(frozen=True)
class MixtureFamilyForm:
    """Members over some form of the inner family."""

    family: MixtureFamily
    inner: Any

    @property
    def accurate(self) -> Any:
        """Whether the inner form is."""
        return self.inner.accurate

    def _log_joint(self, x: Any) -> Float[Array, "K M n"]:
        log_weights = self.family.weights.log_probs
        return log_weights[:, :, None] + self.inner.log_prob(x).T.reshape(*log_weights.shape, -1)

    def log_joint(self, x: Array) -> Float[Array, "K I n"]:
        """log p(x, component | member), what is latent inside the components among it."""
        log_weights = self.family.weights.log_probs
        inner = optional.log_joint(self.inner, x)
        inner = inner.reshape(*log_weights.shape, *inner.shape[1:])
        joint = log_weights[:, :, None, None] + inner
        return joint.reshape(len(joint), -1, joint.shape[-1])

    def missing_entropy(self, x: Partial) -> Float[Array, "K I n"]:
        """Entropy of what is missing of every row given the alternative."""
        return self._as_joint(optional.missing_entropy(self.inner, x))

    def missing_divergence(self, other: "MixtureFamilyForm", x: Partial) -> Float[Array, "K I n"]:
        """Divergence of what is missing of every row given the alternative."""
        return self._as_joint(optional.missing_divergence(self.inner, other.inner, x))

    def _as_joint(self, inner: Float[Array, "KM I n"]) -> Float[Array, "K MI n"]:
        return inner.reshape(self.family.num_members, -1, inner.shape[-1])

    def log_prob(self, x: Array) -> Float[Array, "n K"]:
        """Log-density of every row under every member."""
        return logsumexp(self._log_joint(x), 1).T

    def stats(self, x: Array, responsibilities: Float[Array, "n K"]) -> MixtureFamilyStats:
        """Counts of the components, and the inner form's statistics."""
        return self.stats_given(self, x, responsibilities)

    def stats_given(
        self, form: "MixtureFamilyForm", x: Array, responsibilities: Float[Array, "n K"]
    ) -> MixtureFamilyStats:
        """Statistics about this form's means, components being inferred by `form`."""
        shared = form._shared(x, responsibilities)
        joint = shared.reshape(-1, shared.shape[-1]).T
        components = optional.stats(form.inner, self.inner, x, joint)
        return MixtureFamilyStats(jnp.sum(shared, -1), components)

    def _shared(self, x: Any, responsibilities: Float[Array, "n K"]) -> Float[Array, "K M n"]:
        """The responsibility of each member shared among its components."""
        return softmax(self._log_joint(x), 1)[0] * responsibilities.T[:, None]

    def expected(self, x: Partial, responsibilities: Float[Array, "n K"]) -> Array:
        """What the components expect, each as its member's responsibility is shared."""
        shared = self._shared(x, responsibilities)
        return optional.expected(self.inner, x, shared.reshape(-1, shared.shape[-1]).T)

    def draw(self, key: Array, x: Partial, member: Int[Array, " n"]) -> Array:
        """A component of each member from its posterior, and of this what is missing."""
        inner_key, row_key = jax.random.split(key)
        log_joint = self._log_joint(x)
        log_joint = jnp.take_along_axis(log_joint, member[None, None], 0)[0]  # [M, n]
        inner = jax.random.categorical(inner_key, log_joint, 0)
        return optional.draw(self.inner, row_key, x, member * len(log_joint) + inner)

    def infer(self, x: Any) -> Any:
        """The rows with what the inner form makes of their missing entries."""
        return optional.infer(self.inner, x)

    def finish(self, total: MixtureFamilyStats) -> MixtureFamilyStats:
        """The inner statistics finished."""
        return self.finish_given(self, total)

    def finish_given(
        self, form: "MixtureFamilyForm", total: MixtureFamilyStats
    ) -> MixtureFamilyStats:
        """The same, what is missing of the rows being inferred by `form`."""
        components = optional.finish(form.inner, self.inner, total.components)
        return MixtureFamilyStats(total.weights, components)
