"""Makers of synthetic data, deterministic in the key, with the model that the data came from."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxem.families import Categorical, Gaussian
from jaxem.hmm import HMM
from jaxem.mixture import Mixture


def _gaussians(key: Array, num_members: int, num_features: int, separation: float) -> Gaussian:
    mean_key, shape_key = jax.random.split(key)
    mean = separation * jax.random.normal(mean_key, (num_members, num_features))
    root = jax.random.normal(shape_key, (num_members, num_features, num_features))
    root = jnp.eye(num_features) + 0.3 * root
    return Gaussian.from_moments(mean, jnp.einsum("kij,klj->kil", root, root, precision="highest"))


def gaussian_mixture(
    key: Array,
    num_rows: int,
    *,
    num_components: int = 3,
    num_features: int = 2,
    separation: float = 3.0,
) -> tuple[Float[Array, "N D"], Int[Array, " N"], Mixture]:
    """Rows from a random Gaussian mixture, their components, and the mixture.

    Means are drawn with standard deviation `separation`, covariances near the identity, weights
    from a flat Dirichlet distribution.

    Examples:
        >>> import jax, jaxem
        >>> x, component, model = jaxem.datasets.gaussian_mixture(jax.random.key(0), 100)
        >>> x.shape, component.shape
        ((100, 2), (100,))
    """
    weight_key, family_key, sample_key = jax.random.split(key, 3)
    weights = jax.random.dirichlet(weight_key, jnp.full(num_components, 5.0))
    components = _gaussians(family_key, num_components, num_features, separation)
    model = Mixture(Categorical(jnp.log(weights)), components)
    return (*model.sample(sample_key, num_rows), model)


def gaussian_hmm(
    key: Array,
    num_steps: int,
    *,
    num_states: int = 3,
    num_features: int = 2,
    separation: float = 3.0,
    persistence: float = 0.9,
) -> tuple[Float[Array, "T D"], Int[Array, " T"], HMM]:
    """A sequence from a random Gaussian HMM, its states, and the HMM.

    A state stays with probability `persistence` and moves to any other with equal probability;
    emissions are as in `gaussian_mixture`.

    Raises:
        ValueError: a persistence outside [0, 1].

    Examples:
        >>> import jax, jaxem
        >>> y, state, model = jaxem.datasets.gaussian_hmm(jax.random.key(0), 50)
        >>> y.shape, model.num_states
        ((50, 2), 3)
    """
    if not 0 <= persistence <= 1:
        raise ValueError(f"persistence must lie in [0, 1], got {persistence}.")
    family_key, sample_key = jax.random.split(key)
    others = (1 - persistence) / max(num_states - 1, 1)
    moves = jnp.full((num_states, num_states), others)
    moves = (
        moves + (persistence - others) * jnp.eye(num_states) if num_states > 1 else jnp.ones((1, 1))
    )
    model = HMM(
        Categorical(jnp.full(num_states, -jnp.log(num_states))),
        Categorical(jnp.log(moves)),
        _gaussians(family_key, num_states, num_features, separation),
    )
    return (*model.sample(sample_key, num_steps), model)


def dishonest_casino(key: Array, num_rolls: int) -> tuple[Int[Array, " T"], Int[Array, " T"], HMM]:
    """Rolls 0..5 of a die that is sometimes loaded, which state it was in, and the HMM.

    State 0 is fair; state 1 shows a six (symbol 5) half of the time, the others with probability
    1/10 each.  The casino switches to the loaded die with probability .05 and back with .1, and
    begins with either.  Durbin, Eddy, Krogh & Mitchison (1998), Biological Sequence Analysis, ch.
    3.

    Examples:
        >>> import jax, jaxem
        >>> rolls, loaded, casino = jaxem.datasets.dishonest_casino(jax.random.key(0), 300)
        >>> print(rolls.shape, casino.transition.probs.round(2)[0])
        (300,) [0.95 0.05]
    """
    model = HMM(
        Categorical.from_probs(jnp.array([0.5, 0.5])),
        Categorical.from_probs(jnp.array([[0.95, 0.05], [0.1, 0.9]])),
        Categorical.from_probs(jnp.array([[1 / 6] * 6, [0.1] * 5 + [0.5]])),
    )
    return (*model.sample(key, num_rolls), model)
