"""A start that waits for a key and data: what a search over many of them takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

from jaxem.initialize.chains import hmm
from jaxem.initialize.mixtures import kmeans_plus_plus
from jaxem.initialize.rows import name_of


@dataclass(frozen=True)
class Start:
    """A candidate, `(key, data) -> model`: a kind of model with its number of components or states.

    Candidates made alike are equal and hash alike, so that what was compiled for one serves the
    other.  `make` may be any function `(key, family, data, num_components) -> model` defined once:
    two lambdas, or two `functools.partial`, never are equal.

    Examples:
        >>> import jax, jaxem
        >>> kmeans_plus_plus = jaxem.initialize.kmeans_plus_plus
        >>> candidates = [
        ...     jaxem.initialize.Start(kmeans_plus_plus, jaxem.Gaussian, k) for k in range(1, 6)]
        >>> candidates[2].name, candidates[2].num_components
        ('Gaussian, K=3', 3)
        >>> faithful = jaxem.datasets.old_faithful()
        >>> candidates[2](jax.random.key(0), faithful).components.mean.shape
        (3, 2)
        >>> keys = jax.random.split(jax.random.key(0), 50)
        >>> many = jax.jit(jax.vmap(lambda key: candidates[2](key, faithful)))(keys)
        >>> many.components.mean.shape
        (50, 3, 2)
        >>> jaxem.initialize.Start(jaxem.initialize.hmm, jaxem.Categorical.of(6), 2).name
        'HMM of Categorical.of(6), K=2'
    """

    make: Callable[..., Any]  # `kmeans_plus_plus`, `random_rows`, `random_responsibilities`, `hmm`
    family: Any  # a family class, `Categorical.of(V)` or `MixtureFamily.of(family, M)`
    num_components: int  # K, of components or states

    def __call__(self, key: Array, data: Any) -> Any:
        """The model that the start makes of the data."""
        return self.make(key, self.family, data, self.num_components)

    @property
    def name(self) -> str:
        """For tables: family and number, and how it starts where that is not by k-means++."""
        make = getattr(self.make, "func", self.make)  # of a partial
        usual = self.make in (kmeans_plus_plus, hmm)
        how = "" if usual else f" ({getattr(make, '__name__', type(make).__name__)})"
        model = f"HMM of {name_of(self.family)}" if make is hmm else name_of(self.family)
        return f"{model}, K={self.num_components}{how}"
