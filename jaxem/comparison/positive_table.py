"""A table of positive numbers that need not sum to one."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxem.families.categorical import Categorical
from jaxem.pytree import pytree
from jaxem.semiring import log, times


@pytree
class PositiveTable:
    """Stands in for a `Categorical` where Σ = 1 is left to a Lagrange multiplier.

    log p is taken of every entry as it is, so that ∂Q/∂p_j = count_j / p_j, and p_j ∂ℓ/∂p_j is the
    expected count of j.  An entry of 0 is a value and takes no gradient.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from jaxem.comparison.positive_table import PositiveTable
        >>> counts = jnp.array([3.0, 1.0])
        >>> q = lambda p: PositiveTable(p).expected_log_prob(counts, PositiveTable(p))
        >>> print(jax.grad(q)(counts / 4))  # -λ = N = 4, the same for all
        [4. 4.]
    """

    probs: Float[Array, "... V"]

    @property
    def log_probs(self) -> Float[Array, "... V"]:
        """Logarithms, not normalised."""
        return log(self.probs)

    @property
    def logits(self) -> Float[Array, "... V"]:
        """The same: what a `Categorical` is asked for its shape and its zeros."""
        return self.log_probs

    @property
    def num_members(self) -> int:
        """K, the first axis."""
        return self.probs.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """An observation is one integer, or (D,) of them."""
        return self.probs.shape[1:-1]

    def expected_log_prob(self, stats: Array, candidate: Any) -> Float[Array, ""]:
        """Σ counts · log p of the candidate, with 0 · log 0 = 0."""
        return jnp.sum(times(stats, candidate.log_probs))

    # What a categorical family does with its log-probabilities it does with these.
    log_prob = Categorical.log_prob
    pretend_counts = Categorical.pretend_counts
    pretend = Categorical.pretend
    stats = Categorical.stats
