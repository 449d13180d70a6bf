"""Worked examples: the linkage model of Dempster, Laird & Rubin, and a Gaussian fitted three ways.

Both are small enough to check by hand, and both have published or closed-form answers.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxem import em, parameters
from jaxem.comparison.ascent import Ascent
from jaxem.data import is_traced, refuse
from jaxem.families import covariance as cov
from jaxem.families.gaussian import Gaussian
from jaxem.families.optional import finite_rows
from jaxem.pytree import pytree
from jaxem.semiring import log, relative_entropy, times

LINKAGE = (125, 18, 20, 34)  # animals in the four cells: Rao (1965), in Dempster et al. (1977)
HALF_CELL = 2.0  # the part 1/2 of the first cell where θ/4, the other part, is written as θ
START = 0.5  # of every coordinate of an ascent, none of which ends there but by chance
FLAT = 0.75  # ε to this power is a gradient as good as 0


@pytree
class LinkageStats:
    """Expected counts of complete data, additive over data sets."""

    half: Float[Array, ""]  # y₁ − x: animals of the first cell that the part 1/2 explains
    linked: Float[Array, ""]  # x + y₄: animals of probability θ/4
    unlinked: Float[Array, ""]  # y₂ + y₃: animals of probability (1 − θ)/4


@pytree
class Linkage:
    """Genetic linkage, the first example of Dempster, Laird & Rubin (1977).

    197 animals fall into four cells of probabilities

        p = (1/2 + θ/4, (1 − θ)/4, (1 − θ)/4, θ/4),   0 ≤ θ ≤ 1,   y = (125, 18, 20, 34).

    Latent is, for each animal of the first cell, which of its two parts the animal belongs to:
    z = 1 is the part θ/4, z = 0 the part 1/2.  Every probability is taken four times as large and
    the multinomial coefficient left out, as in the published ℓ: constants that no step notices.

    * Observed: ℓ(θ) = y₁ log(2 + θ) + (y₂ + y₃) log(1 − θ) + y₄ log θ.
    * E-step: p(z = 1 | y, θ) = θ / (2 + θ) for each of the y₁ animals, of whom x = y₁ θ / (2 + θ)
      are expected in the part θ/4.
    * Q(θ' | θ) = (y₁ − x) log 2 + (x + y₄) log θ' + (y₂ + y₃) log(1 − θ').
    * M-step: ∂Q/∂θ' = (x + y₄)/θ' − (y₂ + y₃)/(1 − θ') = 0, which has the one solution
      θ' = (x + y₄) / (x + y₂ + y₃ + y₄), a maximum because Q is concave.
    * The z are independent Bernoullis, so the posterior's entropy is y₁ times that of one of them,
      and likewise its divergence from the posterior at another θ:
      ℓ(θ) = Q(θ | θ) + entropy,   ℓ(θ') − ℓ(θ) = Q(θ' | θ) − Q(θ | θ) + KL(θ ‖ θ').

    A fixed point solves 197 θ² − 15 θ − 68 = 0: θ* = (15 + √53809)/394.  Information about θ there:

        complete  −Q''  = (x + y₄)/θ² + (y₂ + y₃)/(1 − θ)²             = 435.32
        missing   KL''  = y₁ · 2 / (θ (2 + θ)²)                        =  57.80
        observed  −ℓ''  = complete − missing                           = 377.52
        rate of convergence = missing / complete                       = 0.1328

    The leaf is the log-odds of θ: any real number is legal, and ±inf are θ = 0 and θ = 1.  Data are
    four counts [4], plain.  A prior is not used.

    Examples:
        >>> import jaxem
        >>> from jaxem.comparison.examples import LINKAGE, Linkage
        >>> start = Linkage.from_theta(0.5)
        >>> stats, log_likelihood = start.e_step(LINKAGE)
        >>> round(float(stats.linked), 3), round(float(log_likelihood), 3)
        (59.0, 64.63)
        >>> round(float(start.m_step(stats).theta), 3)
        0.608
        >>> result = jaxem.fit(start, LINKAGE)
        >>> round(float(result.model.theta), 3), bool(result.converged)
        (0.627, True)
    """

    quantities = {"logit": "theta"}  # what a reader wants to see of each leaf

    logit: Float[Array, ""]  # log θ − log(1 − θ)

    @classmethod
    def from_theta(cls, theta: Any) -> Self:
        """The model with this θ, a number from 0 to 1.

        Raises:
            ValueError: another shape, NaN, or a number outside 0 to 1.
        """
        theta = jnp.asarray(theta)
        if theta.ndim or not (is_traced(theta) or 0 <= theta <= 1):
            raise ValueError(f"theta must be one number from 0 to 1, got {theta}.")
        theta = theta.astype(em.floating_dtype(theta, ()))
        return cls(jnp.log(theta) - jnp.log1p(-theta))

    @property
    def theta(self) -> Float[Array, ""]:
        """θ, four times the probability of the fourth cell."""
        return jax.nn.sigmoid(jnp.asarray(self.logit))

    @property
    def num_parameters(self) -> int:
        """1, or 0 where θ is exactly 0 or 1."""
        return int(parameters.count(self))

    def validate(self, data: Any) -> Any:
        """The four counts as an array [4], integers or floating, or a ValueError.

        Raises:
            ValueError: a leaf that is no scalar; another shape; what is no number; a count that is
                negative, NaN or infinite.
        """
        if np.shape(self.logit):
            raise ValueError(f"Linkage.logit must be a scalar, got {list(np.shape(self.logit))}.")
        counts = data if isinstance(data, jax.Array) else np.asarray(data)
        numeric = jnp.issubdtype(counts.dtype, jnp.integer) or jnp.issubdtype(
            counts.dtype, jnp.floating
        )
        if counts.shape != (4,) or not numeric:
            raise ValueError(
                f"linkage data are four counts [4], got shape {list(counts.shape)} and dtype "
                f"{counts.dtype}."
            )
        refuse(
            ~((counts >= 0) & (counts < np.inf)),
            counts,
            "a count must be finite and not negative",
            "each row is one of the four cells.",
        )
        return counts

    def prepare(self, data: Any) -> Float[Array, " 4"]:
        """The counts in the dtype that the fit computes in."""
        return jnp.asarray(data, em.floating_dtype(data, self))

    def e_step(self, data: Any, about: Any = None) -> tuple[LinkageStats, Float[Array, ""]]:
        """Expected counts of complete data, and ℓ(self).  O(1).

        `about` does not matter: counts are not about any mean.
        """
        first, second, third, fourth = self.prepare(data)
        unlinked = second + third
        theta, (log_theta, log_other) = self.theta, self._logs
        observed = times(unlinked, log_other) + times(fourth, log_theta)
        log_likelihood = first * jnp.log(HALF_CELL + theta) + observed
        expected = first * theta / (HALF_CELL + theta)
        half = first * HALF_CELL / (HALF_CELL + theta)
        return LinkageStats(half, expected + fourth, unlinked), log_likelihood

    def m_step(self, stats: LinkageStats, prior: Any = None, frozen: parameters.Names = ()) -> Self:
        """θ = linked / (linked + unlinked); without either, θ is kept."""
        if "logit" in frozen:
            return self
        none = (stats.linked == 0) & (stats.unlinked == 0)
        linked, unlinked = (jnp.where(none, 1, n) for n in (stats.linked, stats.unlinked))
        return type(self)(jnp.where(none, self.logit, log(linked) - log(unlinked)))

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """True: statistics that are about no mean are precise for any step."""
        return jnp.asarray(True)

    def log_prior(self, prior: Any) -> Float[Array, ""]:
        """0: there is no pretend data for this model."""
        return jnp.zeros_like(jnp.asarray(self.logit))

    def expected_log_prob(self, stats: LinkageStats, candidate: Self) -> Float[Array, ""]:
        """Q(candidate | self) from statistics that self made."""
        log_theta, log_other = candidate._logs
        return (
            stats.half * math.log(HALF_CELL)
            + times(stats.linked, log_theta)
            + times(stats.unlinked, log_other)
        )

    def member_counts(self, stats: LinkageStats) -> Float[Array, " 1"]:
        """How many animals there are."""
        return jnp.stack([stats.half + stats.linked + stats.unlinked])

    def log_likelihood(self, data: Any) -> Float[Array, ""]:
        """ℓ(θ) without its constants, a scalar; -inf where θ = 0 or 1 cannot have made the data."""
        data = self.validate(data)
        return em.cast(self, em.floating_dtype(data, self)).e_step(data)[1]

    def posterior_entropy(self, data: Any) -> Float[Array, ""]:
        """Entropy in nats of p(z | y), a Bernoulli for each animal of the first cell.

        ℓ = Q + entropy at the posterior.
        """
        log_q = self._log_posterior
        return -self.prepare(data)[0] * jnp.sum(times(jnp.exp(log_q), log_q))

    def posterior_divergence(self, data: Any, other: Self) -> Float[Array, ""]:
        """KL(p(z | y, self) ‖ p(z | y, other)) in nats, right also where the two hardly differ."""
        divergence = relative_entropy(self._log_posterior, other._log_posterior)
        return times(self.prepare(data)[0], jnp.sum(divergence))

    @property
    def _logs(self) -> tuple[Array, Array]:
        """log θ and log(1 − θ), each to its last digit however small it makes θ or 1 − θ."""
        logit = jnp.asarray(self.logit)
        return jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)

    @property
    def _log_posterior(self) -> Float[Array, " 2"]:
        """log p(z | y) of one animal of the first cell, z = 0 first."""
        log_odds = self._logs[0] - math.log(HALF_CELL)
        return jax.nn.log_sigmoid(jnp.stack([-log_odds, log_odds]))


def gaussian_mle(x: Any) -> Gaussian:
    """The Gaussian of largest likelihood, one member, in closed form.  x is [N, D], or [N] (D = 1).

    For rows x_n independently from N(μ, Σ), with S = Σ_n (x_n − μ)(x_n − μ)ᵀ,

        ℓ(μ, Σ) = −½ N D log 2π − ½ N log |Σ| − ½ tr(Σ⁻¹ S).

    * ∂ℓ/∂μ = Σ⁻¹ Σ_n (x_n − μ) = 0, whatever Σ is, where μ = (1/N) Σ_n x_n.
    * ∂ℓ/∂Σ = ½ (Σ⁻¹ S Σ⁻¹ − N Σ⁻¹) = 0 where Σ = S/N; from d log |Σ| = tr(Σ⁻¹ dΣ) and
      dΣ⁻¹ = −Σ⁻¹ dΣ Σ⁻¹.  Not S/(N − 1), which has no bias and a smaller likelihood.
    * It is the maximum: in the precision Λ = Σ⁻¹ the second differential is −½ N tr(Λ⁻¹ dΛ Λ⁻¹ dΛ),
      negative for every symmetric dΛ ≠ 0, and N Σ⁻¹ is positive definite.

    With D = 1: μ is the mean, σ² = (1/N) Σ_n (x_n − μ)².  This is the M-step of a mixture whose one
    component explains every row, so it is computed by the family itself: once about the first row,
    and once more about the mean it found, which no offset of the data robs of digits.

    Bishop (2006) 2.118-2.122; 1.54-1.56 with D = 1.

    Raises:
        ValueError: rows that are not finite numbers, or that lie in a plane of fewer than D
            dimensions, where the likelihood has no maximum.

    Examples:
        >>> import jaxem
        >>> from jaxem.comparison.examples import gaussian_mle
        >>> fitted = gaussian_mle(jaxem.datasets.old_faithful())
        >>> print(fitted.mean.round(2), fitted.covariance.round(2))
        [[ 3.49 70.9 ]] [[[  1.3   13.93]
          [ 13.93 184.14]]]
    """
    rows = _rows(x)
    return _two_m_steps(rows)


@jax.jit
def _two_m_steps(rows: Array) -> Gaussian:
    size = rows.shape[1]
    responsibilities = jnp.ones((len(rows), 1), rows.dtype)
    fitted = Gaussian(rows[:1], jnp.zeros((1, size * (size + 1) // 2), rows.dtype))
    for _ in range(2):
        fitted = fitted.maximize(fitted.stats(rows, responsibilities))
    return fitted


def gaussian_mle_by(
    ascent: Callable[..., Ascent],
    x: Any,
    *,
    tol: float | None = None,
    max_steps: int = 10_000,
) -> tuple[Gaussian, Ascent]:
    """The Gaussian of largest likelihood by a numerical ascent, and how the ascent ended.

    `ascent` is `adam`, `lbfgs` or `newton` of `jaxem.comparison.ascent`; x is [N, D], or [N].  What
    is climbed is ℓ/N, the mean log-density of the rows themselves, over the D means and the
    D(D + 1)/2 entries of the packed log-Cholesky factor: Σ = L Lᵀ with L lower triangular and its
    diagonal in logs.  Any real vector is such a Gaussian, every Gaussian is one such vector, and so
    an ascent without constraints has the same one maximum as the closed form, with the same value.

    The ascent sees standardised columns z = (x − m)/s and starts at ½ in every coordinate, so that
    no step size depends on units.  Afterwards μ ↦ m + s μ and L ↦ diag(s) L, again triangular.

    Newton's method maximises a quadratic model of ℓ/N exactly, and that model is soon as good as
    ℓ/N itself: with D = 1 and a = log σ, in z,

        ℓ/N = −½ log 2π − a − ½ e^(−2a) (1 + μ²),   Hessian diag(−1, −2) at the maximum (0, 0),

    so an error e leaves one of the order e² behind, and ten steps or so suffice.  A gradient step
    shrinks the error along an eigenvector of curvature c by the factor |1 − rate · c|, the same at
    every step: Adam needs hundreds, and more where the columns are more correlated.

    `tol` bounds the largest partial derivative of ℓ/N at the end; None stands for ε^¾ of the dtype.
    The `Ascent` that comes with the Gaussian is in the coordinates of the ascent.

    Raises:
        ValueError: as `gaussian_mle`.

    Examples:
        >>> import jaxem
        >>> from jaxem.comparison.ascent import newton
        >>> from jaxem.comparison.examples import gaussian_mle_by
        >>> fitted, ascent = gaussian_mle_by(newton, jaxem.datasets.old_faithful()[:, 1])
        >>> print(fitted.mean.round(1), fitted.covariance.round(1), int(ascent.num_steps) < 10)
        [[70.9]] [[[184.1]]] True
    """
    rows = _rows(x)
    tol = float(jnp.finfo(rows.dtype).eps) ** FLAT if tol is None else tol
    return _ascend(ascent, rows, tol, max_steps)


@partial(jax.jit, static_argnums=0)
def _ascend(
    ascent: Callable[..., Ascent], rows: Array, tol: Array, max_steps: Array
) -> tuple[Gaussian, Ascent]:
    center = jnp.mean(rows, 0)
    center = center + jnp.mean(rows - center, 0)  # the first sum may have lost digits to an offset
    scale = jnp.sqrt(jnp.mean((rows - center) ** 2, 0))
    standard = (rows - center) / scale
    size = rows.shape[1]

    def gaussian(point: Array) -> Gaussian:
        return Gaussian(point[None, :size], point[None, size:])

    def mean_log_prob(point: Array) -> Array:
        return jnp.mean(gaussian(point).log_prob(standard))

    start = jnp.full(size + size * (size + 1) // 2, START, rows.dtype)
    ended = ascent(mean_log_prob, start, tol=tol, max_steps=max_steps)
    best = gaussian(ended.point)
    factor = cov.pack(scale[:, None] * best.scale_tril)
    return Gaussian(center + scale * best.mean, factor), ended


def _rows(x: Any) -> Float[Array, "N D"]:
    """Rows in a floating dtype, of which a Gaussian can be fitted."""
    values = x if isinstance(x, jax.Array) else np.asarray(x)
    values = values[:, None] if values.ndim == 1 else values
    values = finite_rows(values, values.shape[1:2])
    if len(values) == 0:
        raise ValueError("there is no row in the data.")
    rows = jnp.asarray(values, em.floating_dtype(values, ()))
    if not is_traced(rows):
        away = np.asarray(rows - rows[:1])
        largest = np.abs(away).max(0, initial=0)
        rank = np.linalg.matrix_rank(away / np.where(largest > 0, largest, 1))
        if rank < rows.shape[1]:
            raise ValueError(
                f"{len(rows)} rows span {rank} of {rows.shape[1]} dimensions: the likelihood of a "
                "Gaussian has no maximum; drop columns that others determine, or add rows."
            )
    return rows
