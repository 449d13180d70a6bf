"""What the observed entries of a row say of the missing ones, under full Gaussians."""

from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxem.families import covariance as cov, moments
from jaxem.pytree import pytree
from jaxem.semiring import PRECISION, relative_entropy


@pytree
class Conditional:
    """x − μ = `color` z with independent standard normal z, those of the observed entries first.

    These first ones are known, z_o = `whiten` (x − μ), and of the others nothing is: the marginal
    density of what is observed is that of z_o, the conditional mean of the rest is what z_o alone
    colors, and its conditional covariance is what the unknown ones do.  All of it is one
    factorisation of the covariance with the observed entries first, so that no covariance is
    subtracted from another.  Little & Rubin (2019) §11.2; the sweep operator finds the same.
    """

    inverse: Float[Array, "... D D"]  # of `color`
    color: Float[Array, "... D D"]
    known: Bool[Array, "... D"]  # which of z are: as many as are observed, the first ones
    observed: Bool[Array, "... D"]
    log_scale: Float[Array, "... D"]  # log standard deviation of each entry given those before it

    @classmethod
    def of(cls, scale_tril: Float[Array, "... D D"], observed: Bool[Array, "... D"]) -> Self:
        """From the factors of the covariances; leading axes broadcast."""
        size = scale_tril.shape[-1]
        batch = jnp.broadcast_shapes(scale_tril.shape[:-2], observed.shape[:-1])
        observed = jnp.broadcast_to(observed, (*batch, size))
        order = jnp.argsort(~observed, -1, stable=True)
        place = jnp.argsort(order, -1)
        root = jnp.broadcast_to(scale_tril, (*batch, size, size))
        factor = cov.triangular(jnp.take_along_axis(root, order[..., None], -2))
        known = jnp.arange(size) < jnp.sum(observed, -1, keepdims=True)
        return cls(
            jnp.take_along_axis(cov.inverse(factor), place[..., None, :], -1),
            jnp.take_along_axis(factor, place[..., None], -2),
            known,
            observed,
            jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)),
        )

    @property
    def whiten(self) -> Float[Array, "... D D"]:
        """From x − μ to the known ones of z: 0 in the columns of missing entries."""
        return jnp.where(self.known[..., None], self.inverse, 0)

    @property
    def constant(self) -> Float[Array, "..."]:
        """The log-density of an observation at the mean."""
        each = moments.gaussian_constant(1) - self.log_scale
        return jnp.sum(jnp.where(self.known, each, 0), -1)

    @property
    def entropy(self) -> Float[Array, "..."]:
        """Differential entropy of what is missing given what is observed."""
        each = 0.5 - moments.gaussian_constant(1) + self.log_scale
        return jnp.sum(jnp.where(self.known, 0, each), -1)

    @property
    def precision(self) -> Float[Array, "... D D"]:
        """Of the marginal of what is observed, 0 in the rows and columns of missing entries."""
        columns = jnp.swapaxes(self.whiten, -1, -2)
        return jnp.matmul(columns, self.whiten, precision=PRECISION)

    @property
    def regression(self) -> Float[Array, "... D D"]:
        """From x − μ, whatever it holds where an entry is missing, to its conditional mean."""
        unit = jnp.eye(self.known.shape[-1], dtype=self.color.dtype)
        product = jnp.matmul(self.color, self.whiten, precision=PRECISION)
        return jnp.where(self.observed[..., None], unit, product)

    @property
    def covariance(self) -> Float[Array, "... D D"]:
        """The conditional covariance, 0 in the rows and columns of observed entries."""
        free = jnp.where(self.known[..., None, :], 0, self.color)
        return jnp.matmul(free, jnp.swapaxes(free, -1, -2), precision=PRECISION)

    def divergence(self, other: Self) -> tuple[Float[Array, "... D D"], Float[Array, "..."]]:
        """KL of what is missing, given what is observed, from what it is under `other`.

        A matrix that turns the difference of the two conditional means into independent normals of
        `other`, of which KL has half the square, and the rest, which is the same for all rows.
        """
        turned = jnp.matmul(other.inverse, self.color, precision=PRECISION)
        unknown = ~self.known[..., None] & ~self.known[..., None, :]
        below = jnp.where(unknown, jnp.tril(turned, -1), 0)
        ratio = jnp.where(self.known, 0, 2 * (self.log_scale - other.log_scale))
        # ½ (t² − 1 − log t²) of each ratio t of standard deviations, right also near 1
        own = 0.5 * jnp.sum(relative_entropy(jnp.zeros_like(ratio), ratio), -1)
        rest = own + 0.5 * jnp.sum(below**2, (-2, -1))
        return jnp.where(self.known[..., None], 0, other.inverse), rest
