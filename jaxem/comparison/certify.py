"""One call: every check of an EM step and of the point it was taken from."""

from typing import Any

import jax
import numpy as np

from jaxem import em, parameters
from jaxem.comparison.certificate import Certificate
from jaxem.comparison.curvature import check_curvature, curvature_of
from jaxem.comparison.fixed_point import check_fixed_point
from jaxem.comparison.identities import (
    between,
    check_ascent,
    check_decomposition,
    check_fisher,
    check_held,
    check_prior,
)
from jaxem.comparison.lagrange import check_lagrange
from jaxem.comparison.natural_gradient import check_natural_gradient
from jaxem.comparison.softmax import check_growth, check_softmax, random_leaves
from jaxem.comparison.step import Step, take_step
from jaxem.comparison.survey import survey
from jaxem.families.mixture_family import MixtureFamily

STARTS = 4  # ascents, and random distributions over what is latent


def certify(
    model: Any,
    data: Any,
    *,
    prior: em.Prior | None = None,
    frozen: str | parameters.Names = (),
    key: jax.Array | None = None,
) -> Certificate:
    """Whether the M-step from `model` is what it claims to be, and what kind of point it leads to.

    Takes one EM step, θ to θ′, and puts it to the test:

    * `lagrange`: the Lagrangian of Q in probability coordinates is stationary at θ′, with the
      multipliers that theory gives.
    * `softmax`: Adam, L-BFGS and trust-region Newton on the unconstrained leaves, from random
      starts, come to the same θ′; `growth`: so does p ∂ℓ/∂p for every table of probabilities.
    * `second_order`: Q is strictly concave there, but for what changes no probability.
    * `fisher`: ∇ℓ(θ) = ∇Q(θ | θ); `prior`: ∇ log-prior is what the pretend data add to it; `held`:
      what is frozen or impossible has not moved.
    * `natural`, `preconditioned`: EM as a natural-gradient step and as a preconditioned one.
    * `decomposition`: ℓ = L(q, θ) + KL(q ‖ p), for the posterior and for others.
    * `ascent`: Δℓ = ΔQ + KL(p_old ‖ p_new), and Q does not fall.
    * `fixed_point`: where θ is one, the Jacobian of the EM map is the missing information, its
      spectral radius the rate of convergence; below 1 the point is a strict local maximum.

    What cannot be said is "not applicable", with the reason.  Tolerances follow from the dtype and
    the number of observations: float64 data with 64-bit JAX give the sharpest certificate.  Memory
    is O(chunk) beyond the data, and O(P²) for P parameters up to 1000, above which Lanczos and
    products with vectors serve.

    Args:
        model: a `Mixture`, an `HMM`, or anything with the methods of `em.Model` and
            `expected_log_prob`, `member_counts`, `posterior_entropy` and `posterior_divergence`
            (and `with_pretend(stats, prior)`, if it takes a prior).
            Families may be one's own; they need no more than `fit` asks of them and
            `expected_log_prob`.
        data: what `fit` takes.
        prior: pretend data and the covariance floor, as in `fit`.
        frozen: names of the parts held fixed, as in `fit`.
        key: where the random starts and the random posteriors come from; None for the same ones
            every time.

    Raises:
        ValueError: data that the model cannot have produced, or gives probability 0; NaN in the
            model; a `frozen` name that it lacks.

    Examples:
        >>> import jaxem
        >>> from jaxem.comparison.examples import LINKAGE, Linkage
        >>> certificate = jaxem.certify(Linkage.from_theta(0.5), LINKAGE)
        >>> certificate.passed, certificate["ascent.equality"].outcome
        (True, 'passed')
        >>> print(certificate["fixed_point.maximum"].outcome)
        not applicable
    """
    step = take_step(model, data, prior, frozen)
    surveyed = survey(step)
    curvature = curvature_of(step)
    starts = random_leaves(step, curvature, jax.random.key(0) if key is None else key, STARTS)
    entropy, gap = map(float, between(step.model, step.data, step.proposal))
    checks = [
        *check_lagrange(step, surveyed, curvature),
        *check_softmax(step, surveyed, curvature, starts),
        *check_growth(step, surveyed),
        *check_curvature(step, curvature),
        check_fisher(step, surveyed),
        *check_prior(step, surveyed),
        check_held(step),
        *check_natural_gradient(step, surveyed),
        *check_decomposition(step, surveyed, starts, entropy),
        *check_ascent(step, surveyed, gap),
        *check_fixed_point(step, surveyed, curvature),
    ]
    return Certificate(_subject(step), tuple(checks))


def _subject(step: Step) -> str:
    """What was certified, in words."""
    words = [type(step.model).__name__]
    family = getattr(step.model, "components", getattr(step.model, "emission", None))
    while family is not None:
        words.append(type(family).__name__)
        family = family.components if isinstance(family, MixtureFamily) else None
    size = float(np.sum(step.counts))
    return (
        f"{' over '.join(words)}, {size:.4g} observations, {step.dtype.name}, "
        f"ℓ = {step.log_likelihood:.6f}"
    )
