"""Hidden Markov models over any emission family."""

from dataclasses import field, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxem import chain, em, observations, parameters
from jaxem.data import Sequences
from jaxem.families import optional
from jaxem.families.categorical import Categorical
from jaxem.forecast import Forecast, states_ahead
from jaxem.labels import log_evidence
from jaxem.prepared_sequences import PreparedSequences, grouped
from jaxem.pytree import pytree
from jaxem.semiring import pairwise_sum, relative_entropy, times
from jaxem.stationary import Stationary, maximize_stationary


@pytree
class HMMStats:
    """Expected statistics of an HMM, additive over sequences."""

    initial: Float[Array, " K"]  # expected number of sequences that start in each state
    transition: Float[
        Array, "... K K"
    ]  # expected number of i -> j moves, summed over steps if shared
    emission: Any  # the family's statistics


@pytree
class HMM:
    """A hidden Markov model: initial and transition probabilities, and a family with K members.

    The initial distribution is a `Categorical` [K], or `Stationary()`: the stationary distribution
    of the transition matrix, with no parameters of its own (the M-step is then a generalised one).
    The transition is a `Categorical` [K, K], or [T-1, K, K] for moves that change with time: entry
    t moves step t to t + 1, and sequences are padded to T steps (shorter ones by `Sequences`).

    `method` chooses the recursions, see `chain.METHODS`; None suits them to platform and shape.

    Data are one sequence [T, …], several of equal length [B, T, …], a list of sequences of any
    lengths, or `Sequences`.  Where one sequence comes in, results have no batch axis.

    Bishop (2006) §13.2.

    Examples:
        >>> import jax.numpy as jnp, jaxem
        >>> model = jaxem.HMM(
        ...     jaxem.Categorical.from_probs([0.5, 0.5]),
        ...     jaxem.Categorical.from_probs([[0.9, 0.1], [0.1, 0.9]]),
        ...     jaxem.Poisson.from_rate([10.0, 30.0]))
        >>> result = jaxem.fit(model, jaxem.datasets.earthquakes())
        >>> print(result.log_likelihood.round(1), result.model.emission.rate.round(1))
        -341.9 [15.4 26. ]
    """

    initial: Categorical | Stationary  # [K]
    transition: Categorical  # [K, K], or [T-1, K, K]
    emission: Any  # a family with K members
    method: str | None = field(default=None, metadata={"static": True})

    @property
    def num_states(self) -> int:
        """K."""
        return self.transition.logits.shape[-1]

    @property
    def num_parameters(self) -> int:
        """Number of free parameters, the initial distribution's counted; zeros are not."""
        return int(parameters.count(self))

    @property
    def is_homogeneous(self) -> bool:
        """Whether one transition matrix serves all steps."""
        return self.transition.logits.ndim == 2

    @property
    def log_initial(self) -> Float[Array, " K"]:
        """Log-probabilities of the first state."""
        if isinstance(self.initial, Stationary):
            return self.initial.log_probs(self.transition)
        return self.initial.log_probs

    def check(self) -> None:
        """Raise a ValueError unless the parts agree on the number of states."""
        chain.check_method(self.method)
        optional.check(self.emission)
        states = self.emission.num_members
        shape = np.shape(self.transition.logits)
        if len(shape) not in (2, 3) or shape[-2:] != (states, states):
            raise ValueError(
                f"HMM.transition must be [{states}, {states}] or [T-1, {states}, {states}] for a "
                f"family with {states} members, got {list(shape)}."
            )
        if isinstance(self.initial, Stationary):
            if len(shape) == 3:
                raise ValueError(
                    "a stationary start needs one transition matrix [K, K], got [T-1, K, K]."
                )
        elif np.shape(self.initial.logits) != (states,):
            raise ValueError(
                f"HMM.initial must be [{states}], got {list(np.shape(self.initial.logits))}."
            )

    def validate(self, data: Any) -> Sequences:
        """The data as `Sequences`, or a ValueError naming what is wrong with them."""
        return self._several(data)[0]

    def _several(self, data: Any) -> tuple[Sequences, bool]:
        """The data as `Sequences`, and whether they came as several."""
        self.check()
        sequences, several = observations.sequences_of(data, self.emission)
        steps = sequences.values.shape[1]
        if not self.is_homogeneous and steps != self.transition.logits.shape[0] + 1:
            moves = self.transition.logits.shape[0]
            raise ValueError(
                f"transitions for {moves} moves need sequences padded to {moves + 1} steps, "
                f"got {steps}."
            )
        given = data.groups if isinstance(data, Sequences) else None
        return grouped(sequences, self.emission, given), several

    def prepare(self, data: Any) -> PreparedSequences:
        """Observations centred and laid out for the E-step, once a fit."""
        if isinstance(data, PreparedSequences):
            return data
        data = data if isinstance(data, Sequences) else self.validate(data)
        return PreparedSequences.of(data, self.emission, em.floating_dtype(data, self))

    def potentials(self, data: PreparedSequences) -> chain.Chain:
        """The log-potentials of prepared data, labels included; anything outside a sequence."""
        here = optional.translate(self.emission, data.center)
        emission = optional.in_best_form(
            (here,), lambda form: data.map(form.log_prob), data.missing
        )
        if data.labels is not None:
            emission += log_evidence(data.labels, self.num_states, -1)
        return chain.Chain(self.log_initial, self.transition.log_probs, emission)

    def e_step(self, data: Any, about: Any = None) -> tuple[HMMStats, Float[Array, ""]]:
        """Expected statistics about the means of `about` (default self), and ℓ(self).

        O(B·T·K) memory beyond the data.  Bishop (2006) 13.12-13.20, 13.33, 13.43.
        """
        data = self.prepare(data)
        log_z, counts = chain.posterior(
            self.potentials(data), data.lengths, weight=data.sample_weight, method=self.method
        )
        here = optional.translate(self.emission, data.center)

        def walk(form: Any, anchor: Any) -> Any:
            stats = partial(optional.stats, form, anchor)
            return optional.finish(form, anchor, data.accumulate(stats, counts.emission))

        if about is None:
            emission = optional.in_best_form((here,), lambda form: walk(form, form), data.missing)
        else:
            there = optional.translate(about.emission, data.center)
            emission = optional.in_best_form((here, there), walk, data.missing)
        stats = HMMStats(counts.initial, counts.transition, emission)
        return stats, pairwise_sum(data.weighted(log_z))

    def m_step(self, stats: HMMStats, prior: em.Prior, frozen: parameters.Names = ()) -> Self:
        """Shares of the expected counts, a multiplier a row, and the family's M-step.

        With a stationary start no closed form exists for the transition: Q is raised by L-BFGS from
        the better of the old matrix and the closed form without the start (generalised EM).
        Bishop (2006) 13.18-13.23.
        """
        stats = self.with_pretend(stats, prior)
        emission = optional.maximize(self.emission, stats.emission, "emission", frozen)
        initial, transition = self.initial, self.transition
        free = parameters.within(frozen, "transition") is not None
        if isinstance(initial, Stationary):
            if free:
                transition = maximize_stationary(transition, stats.transition, stats.initial)
        else:
            if parameters.within(frozen, "initial") is not None:
                initial = initial.maximize(stats.initial)
            transition = transition.maximize(stats.transition) if free else transition
        return replace(self, initial=initial, transition=transition, emission=emission)

    def with_pretend(self, stats: HMMStats, prior: em.Prior) -> HMMStats:
        """The statistics and those of the pretend data: what the M-step maximises over."""
        initial = stats.initial
        if not isinstance(self.initial, Stationary):
            initial = initial + self.initial.pretend_counts(prior.initial)
        moves = stats.transition + self.transition.pretend_counts(prior.transition)
        return HMMStats(initial, moves, optional.with_pretend(self.emission, stats.emission, prior))

    def member_counts(self, stats: HMMStats) -> Float[Array, " K"]:
        """How many observations each state explains."""
        return stats.initial + jnp.sum(stats.transition, tuple(range(stats.transition.ndim - 1)))

    def near(self, proposal: Self) -> Bool[Array, ""]:
        """Whether the proposal's means are close in its own standard deviations."""
        return optional.near(self.emission, proposal.emission)

    def expected_log_prob(self, stats: HMMStats, candidate: Self) -> Float[Array, ""]:
        """Q(candidate | self) from statistics that self made.  Bishop (2006) 13.12, 13.17."""
        return (
            jnp.sum(times(stats.initial, candidate.log_initial))
            + self.transition.expected_log_prob(stats.transition, candidate.transition)
            + self.emission.expected_log_prob(stats.emission, candidate.emission)
        )

    def posterior_entropy(self, data: Any) -> Float[Array, ""]:
        """Entropy in nats of p(z | x), summed over sequences; z is all that is latent.

        ℓ = Q + entropy at the posterior (Bishop 2006, 9.74).  Soft labels are the measure on states
        that it is relative to, as Q leaves them out.
        """
        data = self.prepare(data)
        potentials = self.potentials(data)
        smoothed = _smooth(potentials, data.lengths, self.method)
        here = optional.translate(self.emission, data.center)

        def entropy(form: Any, x: Any) -> Array:
            log_q = optional.log_inner(form, x)
            entropy = -times(jnp.exp(log_q), log_q)
            if data.missing is not None:
                entropy += times(jnp.exp(log_q), optional.missing_entropy(form, x))
            return jnp.sum(entropy, 1)

        def walk(form: Any) -> Array:
            return data.total(partial(entropy, form), data.weighted(smoothed))

        states = chain.entropy(potentials, data.lengths)
        if data.labels is not None:
            evidence = log_evidence(data.labels, self.num_states, -1)
            states += jnp.sum(times(smoothed, evidence), (1, 2))
        states = pairwise_sum(data.weighted(states))
        return states + optional.in_best_form((here,), walk, data.missing)

    def classification_log_likelihood(self, data: Any) -> Float[Array, ""]:
        """log p(x, z) at the most probable paths z, as often as each sequence counts: for ICL."""
        data = self.prepare(data)
        return jnp.sum(data.weighted(chain.viterbi(self.potentials(data), data.lengths)[0]))

    def posterior_divergence(self, data: Any, other: Self) -> Float[Array, ""]:
        """KL(p(z | x, self) ‖ p(z | x, other)) in nats, summed over sequences.

        z is all that is latent: the paths, and inside the states what is latent given them.  A sum
        of non-negative terms, right also where the two hardly differ.
        """
        data = self.prepare(data)
        potentials = self.potentials(data)
        here = optional.translate(self.emission, data.center)
        there = optional.translate(other.emission, data.center)

        def divergence(here: Any, there: Any, x: Any) -> Array:
            log_q = optional.log_inner(here, x)
            divergence = relative_entropy(log_q, optional.log_inner(there, x))
            if data.missing is not None:
                inside = optional.missing_divergence(here, there, x)
                divergence += times(jnp.exp(log_q), inside)
            return jnp.sum(divergence, 1)

        def walk(here: Any, there: Any) -> Array:
            smoothed = _smooth(potentials, data.lengths, self.method)
            return data.total(partial(divergence, here, there), data.weighted(smoothed))

        states = chain.divergence(potentials, other.potentials(data), data.lengths)
        states = pairwise_sum(data.weighted(states))
        return states + optional.in_best_form((here, there), walk, data.missing)

    def log_prior(self, prior: em.Prior) -> Float[Array, ""]:
        """Expected log-probability of the pretend data; a stationary start has none of its own."""
        counts = self.transition.pretend_counts(prior.transition)
        total = self.transition.expected_log_prob(counts, self.transition)
        if not isinstance(self.initial, Stationary):
            counts = self.initial.pretend_counts(prior.initial)
            total += self.initial.expected_log_prob(counts, self.initial)
        return total + optional.log_prior(self.emission, prior)

    def log_likelihood(self, data: Any) -> Float[Array, ""]:
        """ℓ = Σ_b log p(x_b), a scalar, summed over sequences, each as often as it counts."""
        each, weight = self.log_likelihoods(data), self.validate(data).sample_weight
        return jnp.sum(each if weight is None else times(jnp.asarray(weight, each.dtype), each))

    def log_likelihoods(self, data: Any) -> Float[Array, " B"]:
        """log p(x_b) of every sequence; 0 for one of length 0, -inf for an impossible one."""
        return _on_chain(*self._ready(data)[:2], function=_log_likelihoods)

    def smooth(self, data: Any) -> Float[Array, "... T K"]:
        """γ: p(z_t = k | x) given the whole sequence; 0 past its end.  Bishop (2006) 13.33."""
        return self._apply(data, _smooth)

    def filter(self, data: Any) -> chain.Filtered:
        """p(z_t | x_1..t) and p(z_t | x_1..t-1), with the log-likelihood of each sequence."""
        return self._apply(data, _filter)

    def viterbi(self, data: Any) -> tuple[Float[Array, "..."], Int[Array, "... T"]]:
        """Log-probability (with the data) and states of the best path; -1 past the end."""
        return self._apply(data, _viterbi)

    def k_best(self, data: Any, k: int) -> tuple[Float[Array, "... k"], Int[Array, "... k T"]]:
        """The k best paths, best first, with their log-probabilities (with the data)."""
        model, sequences, several = self._ready(data)
        return _as_given(_k_best(model, sequences, k), several)

    def transition_counts(self, data: Any) -> Float[Array, "... K K"]:
        """Expected i -> j moves of all sequences (Bishop 2006, 13.43), per step if the table is."""
        return _on_chain(*self._ready(data)[:2], function=_transition_counts)

    def sample_posterior(self, key: Array, data: Any) -> Int[Array, "... T"]:
        """One path of states from p(z | x) for each sequence; -1 past the end."""
        model, sequences, several = self._ready(data)
        return _as_given(_sample_posterior(model, sequences, key), several)

    def _apply(self, data: Any, function: Any) -> Any:
        model, sequences, several = self._ready(data)
        return _as_given(_on_chain(model, sequences, function=function), several)

    def _ready(self, data: Any) -> tuple[Self, Sequences, bool]:
        sequences, several = self._several(data)
        model = em.cast(self, em.floating_dtype(sequences, self))
        return model, replace(sequences, sample_weight=None), several  # each is answered for itself

    def forecast(self, data: Any, steps: int) -> Forecast:
        """States and observations of the `steps` steps after the end of each sequence.

        After a sequence of length 0 the first of them is the initial distribution.

        Raises:
            ValueError: transitions that change with time, or steps < 1.
        """
        if not self.is_homogeneous:
            raise ValueError("forecast needs one transition matrix [K, K], got one a step.")
        if steps < 1:
            raise ValueError(f"steps must be 1 or more, got {steps}.")
        model, sequences, several = self._ready(data)
        states = states_ahead(model, sequences, steps)
        return Forecast(states if several else states[0], model.emission)

    def sample(self, key: Array, num_steps: int) -> tuple[Array, Int[Array, " T"]]:
        """A sequence [T, …] from the model, and its states [T].

        Raises:
            ValueError: more steps than transitions that change with time allow.
        """
        moves = num_steps - 1 if self.is_homogeneous else len(self.transition.logits)
        if num_steps > moves + 1:
            limit = f"transitions for {moves} moves allow at most {moves + 1} steps"
            raise ValueError(f"{limit}, got {num_steps}.")
        state_key, row_key = jax.random.split(key)
        log_moves = self.transition.log_probs
        log_moves = log_moves if self.is_homogeneous else log_moves[: max(num_steps - 1, 0)]
        flat = jnp.zeros((num_steps, self.num_states), log_moves.dtype)
        state = chain.sample(state_key, chain.Chain(self.log_initial, log_moves, flat))
        return self.emission.sample(row_key, state), state


@partial(jax.jit, static_argnames="function")
def _on_chain(model: HMM, data: Sequences, function: Any) -> Any:
    prepared = model.prepare(data)
    return function(model.potentials(prepared), prepared.lengths, model.method)


def _as_given(result: Any, several: bool) -> Any:
    return result if several else jax.tree.map(lambda leaf: leaf[0], result)


def _log_likelihoods(potentials: chain.Chain, lengths: Any, method: str | None) -> Array:
    return chain.log_normalizer(potentials, lengths, method=method)


def _smooth(potentials: chain.Chain, lengths: Any, method: str | None) -> Array:
    return chain.posterior(potentials, lengths, method=method)[1].emission


def _transition_counts(potentials: chain.Chain, lengths: Any, method: str | None) -> Array:
    return chain.posterior(potentials, lengths, method=method)[1].transition


def _filter(potentials: chain.Chain, lengths: Any, _: str | None) -> chain.Filtered:
    return chain.filter(potentials, lengths)


def _viterbi(potentials: chain.Chain, lengths: Any, _: str | None) -> tuple[Array, Array]:
    return chain.viterbi(potentials, lengths)


@partial(jax.jit, static_argnames="k")
def _k_best(model: HMM, data: Sequences, k: int) -> Any:
    prepared = model.prepare(data)
    return chain.k_best(model.potentials(prepared), k, prepared.lengths)


@jax.jit
def _sample_posterior(model: HMM, data: Sequences, key: Array) -> Array:
    prepared = model.prepare(data)
    return chain.sample(key, model.potentials(prepared), prepared.lengths)
