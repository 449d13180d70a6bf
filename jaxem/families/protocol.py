"""What a family of K distributions must offer, and what it may offer to be faster and better."""

from typing import Any, Protocol, Self

from jaxtyping import Array, Bool, Float, Int

from jaxem import em, parameters
from jaxem.missing import Partial


class Family(Protocol):
    """K members of one kind of distribution; `self` is θ.  Nothing inherits from this.

    A mixture or an HMM needs the first six; the others have defaults in `families.optional`.
    """

    @property
    def num_members(self) -> int:
        """K."""
        ...

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one observation: () or (D,)."""
        ...

    def log_prob(self, x: Array) -> Float[Array, "N K"]:
        """Log-density of every row under every member."""
        ...

    def stats(self, x: Array, responsibilities: Float[Array, "N K"]) -> Any:
        """Expected sufficient statistics about self's means: a pytree, additive over rows."""
        ...

    def maximize(self, stats: Any, frozen: parameters.Names = ()) -> Self:
        """The maximiser of Q in closed form; a member without weight keeps its parameters."""
        ...

    def sample(self, key: Array, member: Array) -> Array:
        """One observation from each of the members [N] named; [N, ...]."""
        ...

    def expected_log_prob(self, stats: Any, candidate: Self) -> Float[Array, ""]:
        """Q: Σ r log p(x | candidate), from statistics that self made; base measure included."""
        ...

    def pretend(self, prior: em.Prior) -> Any:
        """Statistics of the pretend data of a prior, about self's means."""
        ...

    @classmethod
    def pooled(cls, x: Array, num_members: int) -> Self:
        """A start: `num_members` members, each at the fit of all rows pooled.

        Called under `jit`: `x` is traced.
        """
        ...

    @property
    def num_parameters(self) -> int:
        """Number of free parameters."""
        ...

    def validate(self, x: Any, leading: int = 1) -> Array:
        """Rows the family can have produced, `leading` axes first, or a ValueError."""
        ...


class Located(Protocol):
    """A family with a location: data and members can be moved together."""

    def translate(self, offset: Float[Array, " D"]) -> Self:
        """The members for data moved by `offset`."""
        ...

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """Whether statistics about self's means were precise enough for a step that far."""
        ...


class Form(Protocol):
    """A faster way to the same numbers, for parameters where `accurate` is True."""

    @property
    def accurate(self) -> Bool[Array, ""]:
        """Whether rounding stays harmless for these parameters."""
        ...

    def log_prob(self, x: Array) -> Float[Array, "N K"]:
        """Log-density of every row under every member."""
        ...

    def stats(self, x: Array, responsibilities: Float[Array, "N K"]) -> Any:
        """Raw statistics, additive over rows."""
        ...

    def finish(self, total: Any) -> Any:
        """Summed raw statistics as the family's own."""
        ...


class Incomplete(Protocol):
    """A family that takes rows with missing entries."""

    def partial_form(self, patterns: Bool[Array, "P D"] | None) -> "PartialForm":
        """The members on `Partial` rows: in these patterns, or each row with a mask of its own.

        `plain_partial_form`, if there is one, stands in where the form is not accurate.
        """
        ...

    @property
    def num_factors(self) -> int:
        """How many factorisations a pattern takes.  Optional: without any no rows are grouped."""
        ...


class PartialForm(Protocol):
    """How members explain rows of which some entries are missing (at random)."""

    @property
    def accurate(self) -> Bool[Array, ""]:
        """Whether rounding stays harmless for these parameters."""
        ...

    def log_prob(self, x: Partial) -> Float[Array, "N K"]:
        """Marginal log-density of what is observed of every row; 0 where that is nothing."""
        ...

    def stats(self, x: Partial, responsibilities: Float[Array, "N K"]) -> Any:
        """Raw statistics, additive over rows, those in `PerPattern` for each pattern apart.

        `stats_given(form, x, responsibilities)` stands in where they take what `form` infers.
        """
        ...

    def finish_given(self, form: Self, total: Any) -> Any:
        """The family's statistics about self's means: what `form` expects of the complete rows."""
        ...

    def missing_entropy(self, x: Partial) -> Float[Array, "N K"]:
        """Entropy of what is missing of every row, given what is observed and the member."""
        ...

    def missing_divergence(self, other: Self, x: Partial) -> Float[Array, "N K"]:
        """Its divergence from the same under `other`."""
        ...

    def expected(self, x: Partial, responsibilities: Float[Array, "n K"]) -> Array:
        """The mean of every row given what is observed, mixed over members; [n, ...].

        What it holds of observed entries is anything.  Needed by `impute` alone.
        """
        ...

    def draw(self, key: Array, x: Partial, member: Int[Array, " n"]) -> Array:
        """Every row drawn from the member named, given what is observed of it; [n, ...].

        What it holds of observed entries is anything.  Needed by `sample_missing` alone.
        """
        ...


class Nested(Protocol):
    """A form of a family that has latent variables of its own inside each member."""

    def log_joint(self, x: Array) -> Float[Array, "K I n"]:
        """log p(x, inner | member) for each of the I inner alternatives."""
        ...
