"""What holds between ℓ, Q and the posterior at any θ: Fisher's identity, the decomposition of ℓ,
and ascent as an equality.

Sums of terms of either sign are compared relative to the size of the terms.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxem import parameters
from jaxem.comparison import objective
from jaxem.comparison.certificate import Check, largest
from jaxem.comparison.coordinates import bounded, coordinates_of, floor_margin
from jaxem.comparison.step import Step, e_step
from jaxem.comparison.survey import Survey
from jaxem.families.categorical import Categorical


@jax.jit
def between(model: Any, data: Any, other: Any) -> tuple[Array, Array]:
    """Entropy of the posterior of `model`, and its divergence from that of `other`."""
    return model.posterior_entropy(data), model.posterior_divergence(data, other)


_unravel = jax.jit(parameters.unravel)


def check_fisher(step: Step, survey: Survey) -> Check:
    """∇ℓ(θ) = ∇Q(θ | θ).

    Fisher (1925); Louis (1982), 3.1'.
    """
    differences = {
        part.name: largest(
            *(
                np.abs(np.asarray(ours, float) - theirs)
                for ours, theirs in zip(own.whitened, own.whitened_q, strict=True)
            )
        )
        / step.size
        for part, own in zip(step.parts, survey.parts, strict=True)
    }
    return Check.of(
        "fisher",
        largest(*differences.values()),
        step.tolerance.identity,
        "∇ℓ(θ) = ∇Q(θ | θ), by autodiff of each, per observation",
        by_part=differences,
    )


def check_prior(step: Step, survey: Survey) -> Iterator[Check]:
    """∇ log p(θ) is what the pretend data add to ∇Q: a prior is pretend data."""
    sides = [
        (np.asarray(ours, float), np.asarray(theirs, float))
        for own in survey.parts
        for ours, theirs in zip(own.whitened_prior, own.whitened_pretend, strict=True)
    ]
    if not any(np.any(side) for pair in sides for side in pair):
        yield Check.not_applicable("prior", "there are no pretend data")
        return
    errors = [np.abs(ours - theirs) for ours, theirs in sides]
    yield Check.of(
        "prior",
        largest(*errors) / step.size,
        step.tolerance.identity,
        "the gradient of the log-prior is what the pretend data add to that of Q, per observation",
    )


def check_held(step: Step) -> Check:
    """What is frozen, and what is impossible, is after the step what it was before, to the bit."""
    moved = 0
    for (name, here), there in zip(
        parameters.named_leaves(step.model), jax.tree.leaves(step.proposal), strict=True
    ):
        here, there = np.asarray(here), np.asarray(there)
        held = np.isneginf(here) | parameters.is_frozen(name, step.frozen)
        moved += int(np.sum(held & (here != there)))
    return Check.of(
        "held", moved, 0, "what is frozen or impossible stays what it is; entries moved"
    )


def check_decomposition(
    step: Step, survey: Survey, starts: Float[Array, "S P"], entropy: float
) -> Iterator[Check]:
    """ℓ = L(q, θ) + KL(q ‖ p(z | x, θ)), L = Q + entropy of q, for the posterior and for others.

    The others are the posteriors of the models in `starts`: any distribution over what is latent
    that the model could have as a posterior, and far from its own.  `entropy` is that of the
    posterior at θ.  Bishop (2006) 9.70-9.72.
    """
    tolerance = step.tolerance.identity
    bound = survey.q_here + entropy
    scale = step.size + abs(step.log_likelihood) + abs(entropy)
    yield Check.of(
        "decomposition.posterior",
        abs(step.log_likelihood - bound) / scale,
        tolerance,
        "ℓ = Q + entropy at the posterior: the gap is 0",
        log_likelihood=step.log_likelihood,
        bound=bound,
    )
    errors, gaps = [], []
    for start in starts:
        other = _unravel(step.model, start)
        stats, log_likelihood = e_step(other, step.model, step.data)
        if not np.isfinite(log_likelihood):
            continue
        expected = float(objective.q_at(step.model, stats, step.model))
        entropy, gap = map(float, between(other, step.data, step.model))
        scale = step.size + abs(step.log_likelihood) + abs(expected) + abs(entropy) + gap
        errors += [abs(step.log_likelihood - (expected + entropy + gap)) / scale, -gap]
        gaps.append(gap)
    if not gaps:
        yield Check.not_applicable("decomposition.random", "no random q gives these data a chance")
        return
    yield Check.of(
        "decomposition.random",
        largest(*errors),
        tolerance,
        f"ℓ = L(q, θ) + KL(q ‖ p) with KL ≥ 0 for {len(gaps)} random q",
        gaps=gaps,
    )


def check_ascent(step: Step, survey: Survey, gap: float) -> Iterator[Check]:
    """Δℓ = ΔQ + KL(p_old ‖ p_new), ΔQ ≥ 0; `gap` is the divergence, from the two posteriors.

    Dempster, Laird & Rubin (1977) lemma 1 and theorem 1.
    """
    tolerance = step.tolerance.identity
    after = float(e_step(step.proposal, step.anchor, step.data)[1])
    values = (after, step.log_likelihood, survey.q_here, survey.q_there)
    scale = step.size + sum(map(abs, values))
    gain = survey.q_there - survey.q_here
    facts = {
        "log_likelihood_gain": after - step.log_likelihood,
        "q_gain": gain,
        "divergence": gap,
    }
    if gap == np.inf and _lost_to_underflow(step):
        yield Check.not_applicable(
            "ascent.equality",
            "a posterior probability too small for the dtype became 0 in θ′: KL is infinite by "
            "rounding alone",
            **facts,
        )
    else:
        yield Check.of(
            "ascent.equality",
            abs((after - step.log_likelihood) - gain - gap) / scale,
            tolerance,
            "Δℓ = ΔQ + KL(p_old ‖ p_new), relative to the terms",
            **facts,
        )
    fall = survey.objective_here - survey.objective_there
    if _is_below_floor(step, survey):
        yield Check.not_applicable(
            "ascent.q",
            "a covariance of θ lies below the floor: the step that raises it may lower Q",
            gain=-fall,
        )
    else:
        yield Check.of(
            "ascent.q",
            largest(fall) / scale,
            tolerance,
            "the M-step does not lower Q + log-prior",
            gain=-fall,
        )
    yield Check.of("ascent.divergence", largest(-gap), 0.0, "KL(p_old ‖ p_new) ≥ 0", divergence=gap)


def _lost_to_underflow(step: Step) -> bool:
    """Whether θ′ rules out what θ does not, where nothing at all was counted."""
    found = False
    for part in step.parts:
        for here, there in zip(*map(jax.tree.leaves, (part.here, part.there)), strict=True):
            lost = np.isneginf(there) & ~np.isneginf(here)
            if isinstance(part.here, Categorical) and np.any(np.asarray(part.stats)[lost] > 0):
                return False
            found |= bool(lost.any())
    return found


def _is_below_floor(step: Step, survey: Survey) -> bool:
    return any(
        np.any(floor_margin(name, np.asarray(value), step.floor) < -(step.eps**0.5))
        for part, own in zip(step.parts, survey.parts, strict=True)
        for name, value in zip(coordinates_of(part.here).names, own.here, strict=True)
        if name in bounded(part.here).values()
    )
