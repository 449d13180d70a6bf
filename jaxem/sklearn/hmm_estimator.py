"""What the HMMs share: starts, fitting, and questions about sequences."""

import logging
import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from jaxem import em
from jaxem.comparison import certify
from jaxem.data import Sequences
from jaxem.hmm import HMM
from jaxem.sklearn import questions, rows, steps
from jaxem.sklearn.added import Added
from jaxem.sklearn.buckets import padded_sequences
from jaxem.sklearn.haste import answer, is_small
from jaxem.sklearn.monitor import ConvergenceMonitor
from jaxem.sklearn.precision import computing_in
from jaxem.sklearn.starts import fit_best
from jaxem.sklearn.tables import num_free, probs_of, table_of
from jaxem.sklearn.verbose import report_hmm

LOG = logging.getLogger("jaxem.sklearn")
DECODERS = ("viterbi", "map")
COUNTS = ("initial", "transition", "inner_weights", "symbols")  # of a prior: Dirichlet ones less 1
NOT_CONVERGED = "The fit did not converge in n_iter={} steps; raise n_iter or tol."
NOT_FINITE = (
    "The fit stopped after {} steps where the log-likelihood is not finite: the data are "
    "impossible, or a covariance has collapsed; a prior keeps it from that."
)


class HMMEstimator(BaseEstimator, ABC):
    """An HMM with hmmlearn's interface; which emission family it has, a subclass says."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Real],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "params": [str],
        "init_params": [str],
        "implementation": [StrOptions({"log", "scaling"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "missing": [StrOptions(set(rows.MISSING))],
    }
    # The letter of each parameter, its attribute, and what holds it in the model.
    _letters: ClassVar[dict[str, tuple[str, str]]]

    n_components: int
    startprob_prior: Any
    transmat_prior: Any
    algorithm: str
    random_state: Any
    n_iter: int
    tol: float
    verbose: Any
    params: str
    init_params: str
    implementation: str
    n_init: int
    missing: str

    @abstractmethod
    def _initial(
        self, letter: str, x: np.ndarray, weight: np.ndarray | None, seed: Any
    ) -> np.ndarray:
        """Where a parameter of the emissions starts; weights are those of rows."""

    @abstractmethod
    def _check_emission(self, x: np.ndarray | None) -> None:
        """Raise a ValueError unless the attributes of the emissions suit each other and rows."""

    @abstractmethod
    def _emission(self, num_rows: int) -> Any:
        """The family that the attributes hold, for data of so many rows."""

    @abstractmethod
    def _publish(self, emission: Any) -> None:
        """Set the attributes of the emissions."""

    @abstractmethod
    def _emission_prior(self) -> dict[str, Any]:
        """The fields of `em.Prior` that hold what is pretended of the emissions."""

    @abstractmethod
    def _draw(self, state: int, random: Any) -> np.ndarray:
        """An observation [D] of a state."""

    @abstractmethod
    def _num_emission_parameters(self) -> int:
        """Free parameters of the emissions."""

    @abstractmethod
    def _expected(self) -> np.ndarray:
        """What each state is expected to emit, [K, D]."""

    _tied: int = 0  # so many members of the family share a covariance

    def _convert(self, x: np.ndarray) -> np.ndarray:
        """Rows that were checked as observations of the family."""
        return x

    def fit(self, X: Any, lengths: Any = None, sample_weight: Any = None) -> Self:
        """Fit by EM from `n_init` starts and keep the best.

        A parameter whose letter is in `init_params`, or that is not set, starts anew; one whose
        letter is not in `params` stays where it starts.

        Args:
            X: rows [N, D] of all sequences, one after the other.
            lengths: [B], how many rows each sequence has; None for one sequence.
            sample_weight: [B], how often each sequence counts; None for once.

        Raises:
            ValueError: a parameter out of range; rows that are not finite; lengths of another sum;
                probabilities that do not sum to 1.
        """
        self._validate_params()
        if set(self.params) - set(self._letters):
            raise ValueError(f"params may hold {''.join(self._letters)!r}, got {self.params!r}.")
        x = rows.check_rows(self, X, reset=True)
        lengths = steps.check_lengths(lengths, len(x))
        weight = steps.check_sequence_weight(sample_weight, lengths)
        x = self._convert(x)
        observed = rows.observed_of(x)
        by_row = steps.each_step(weight, lengths)
        random = check_random_state(self.random_state)
        filled = rows.completed(x, observed, check_random_state(self.random_state))
        drawn = [letter for letter in self._letters if self._needs_start(letter)]
        prior = None
        with computing_in(x.dtype):
            starts = []
            for number in range(self.n_init if drawn else 1):
                # The first start is hmmlearn's, which draws from the seed more than once.
                self._set_start(drawn, filled, by_row, random, random if number else None)
                if prior is None:
                    self._check(x)
                    self._warn_of_few(x)
                    prior = self._prior()
                    prior = em.Prior(*(np.asarray(part, x.dtype) for part in vars(prior).values()))
                nothing: Any = np.zeros((), x.dtype)
                start = em.cast(self._model(len(x), x.dtype), x.dtype)
                starts.append(Added(start, prior, nothing, self._tied))
            sequences = padded_sequences(x, lengths, weight, observed)
            fitted = fit_best(
                starts,
                sequences,
                tol=max(float(self.tol), 0.0),
                max_steps=self.n_iter,
                frozen=self._held,
                small=self._is_small(x),
            )
        self.startprob_ = probs_of(fitted.model.initial)
        self.transmat_ = probs_of(fitted.model.transition)
        self._publish(fitted.model.emission)
        self.monitor_ = ConvergenceMonitor(self.tol, self.n_iter, bool(self.verbose))
        self.monitor_.history.extend(fitted.trace.tolist())
        self.monitor_.iter = fitted.num_steps
        self.monitor_.converged = fitted.converged and not fitted.broken
        report_hmm(bool(self.verbose), fitted)
        if not self.monitor_.converged and self.n_iter > 0:
            ended = NOT_CONVERGED.format(self.n_iter)
            ended = NOT_FINITE.format(fitted.num_steps) if fitted.broken else ended
            warnings.warn(ended, ConvergenceWarning, stacklevel=2)
        return self

    @property
    def _held(self) -> tuple[str, ...]:
        """What in the model is not fitted."""
        return tuple(
            part for letter, (_, part) in self._letters.items() if letter not in self.params
        )

    def _has(self, name: str) -> bool:
        """Whether a parameter is set."""
        return hasattr(self, name)

    def _needs_start(self, letter: str) -> bool:
        name, _ = self._letters[letter]
        if letter not in self.init_params:
            return not self._has(name)
        if self._has(name):
            LOG.warning(
                "Even though the %r attribute is set, it will be overwritten during "
                "initialization because 'init_params' contains %r",
                name,
                letter,
            )
        return True

    def _set_start(
        self, letters: list[str], x: np.ndarray, weight: Any, random: Any, seed: Any
    ) -> None:
        """Draw the parameters with these letters anew."""
        alpha = np.full(self.n_components, 1 / self.n_components)
        seed = self.random_state if seed is None else seed
        for letter in letters:
            if letter == "s":
                self.startprob_ = random.dirichlet(alpha)
            elif letter == "t":
                self.transmat_ = random.dirichlet(alpha, size=self.n_components)
            else:
                setattr(self, self._letters[letter][0], self._initial(letter, x, weight, seed))

    def _warn_of_few(self, x: np.ndarray) -> None:
        number = self._num_parameters()
        if x.size < number:
            LOG.warning(
                "Fitting a model with %d free scalar parameters with only %d data points will "
                "result in a degenerate solution.",
                number,
                x.size,
            )

    def _check(self, x: np.ndarray | None = None) -> None:
        """Raise a ValueError unless the parameters are those of an HMM, and suit the rows."""
        states = self.n_components
        if len(np.atleast_1d(self.startprob_)) != states:
            raise ValueError("startprob_ must have length n_components")
        steps.check_sums(self.startprob_, "startprob_")
        if np.shape(self.transmat_) != (states, states):
            raise ValueError("transmat_ must have shape (n_components, n_components)")
        steps.check_sums(self.transmat_, "transmat_")
        self._check_emission(x)

    def _prior(self) -> em.Prior:
        states = self.n_components
        first = steps.spread_over(self.startprob_prior, (states,), "startprob_prior") - 1
        moves = steps.spread_over(self.transmat_prior, (states, states), "transmat_prior") - 1
        return em.Prior(initial=first, transition=moves, floor=0.0, **self._emission_prior())

    def _model(self, num_rows: int, dtype: Any) -> HMM:
        """The HMM that the attributes hold, for data of so many rows."""
        start, moves = (table_of(part, dtype) for part in (self.startprob_, self.transmat_))
        return HMM(start, moves, self._emission(num_rows))

    def _ready(self, X: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray, Sequences]:
        check_is_fitted(self, "startprob_")
        x = self._convert(rows.check_rows(self, X, reset=False))
        self._check(x)
        lengths = steps.check_lengths(lengths, len(x))
        return x, lengths, padded_sequences(x, lengths, None, rows.observed_of(x))

    def _ask(self, X: Any, lengths: Any, question: Any) -> tuple[Any, np.ndarray]:
        """What the HMM says of padded sequences, and the lengths of these."""
        x, lengths, sequences = self._ready(X, lengths)
        with computing_in(x.dtype):
            model = em.cast(self._model(len(x), x.dtype), x.dtype)
            found = answer(question, self._is_small(x), model, model.validate(sequences))
            return jax.tree.map(np.asarray, found), lengths

    def _is_small(self, x: np.ndarray) -> bool:
        return is_small(len(x), self.n_components * getattr(self, "n_mix", 1), x.shape[1])

    def score(self, X: Any, lengths: Any = None) -> float:
        """Σ log p(x) over sequences: the total, where scikit-learn's mixtures have a mean."""
        each, lengths = self._ask(X, lengths, HMM.log_likelihoods)
        return float(np.sum(each[: len(lengths)]))

    def score_samples(self, X: Any, lengths: Any = None) -> tuple[float, np.ndarray]:
        """The total log-likelihood, and posteriors [N, K] of the states given whole sequences.

        Posteriors are 0 throughout an impossible sequence.
        """
        (each, smoothed), lengths = self._ask(X, lengths, questions.smoothed)
        return float(np.sum(each[: len(lengths)])), steps.as_rows(smoothed, lengths)

    def predict_proba(self, X: Any, lengths: Any = None) -> np.ndarray:
        """Posteriors [N, K] of the states given whole sequences."""
        return self.score_samples(X, lengths)[1]

    def filter(self, X: Any, lengths: Any = None) -> np.ndarray:
        """Probabilities [N, K] of the states given what came up to each step."""
        found, lengths = self._ask(X, lengths, questions.filtered)
        return steps.as_rows(found, lengths)

    def forecast(
        self, X: Any, lengths: Any = None, n_steps: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is to come in the `n_steps` after each sequence, H of them.

        Returns probabilities of the states [B, H, K], and what observations are expected to be
        [B, H, D]: means, or for symbols their probabilities.  Without `lengths` there is no axis B.

        Raises:
            ValueError: n_steps < 1.
        """
        if n_steps < 1:
            raise ValueError(f"n_steps must be 1 or more, got {n_steps}.")
        found, sizes = self._ask(X, lengths, questions.ahead(int(n_steps)))
        states = found[: len(sizes)] if lengths is not None else found[0]
        return states, np.tensordot(states, self._expected(), 1)

    def decode(
        self, X: Any, lengths: Any = None, algorithm: str | None = None
    ) -> tuple[float, np.ndarray]:
        """States [N], and their log-probability jointly with the data, summed over sequences.

        "viterbi" finds the most probable path; "map" the most probable state of each step by
        itself, a path that may be impossible, with log-probability -inf.  hmmlearn's score of "map"
        is a sum of posteriors, which is no log-probability.  In an impossible sequence the states
        are -1: it has no path, and log-probability -inf.

        Raises:
            ValueError: an algorithm that is neither.
        """
        algorithm = algorithm or self.algorithm
        if algorithm not in DECODERS:
            raise ValueError(f"Unknown decoder {algorithm!r}")
        if algorithm == "viterbi":
            (each, states), sizes = self._ask(X, lengths, HMM.viterbi)
            return float(np.sum(each[: len(sizes)])), steps.as_rows(states, sizes).astype(int)
        (smoothed, emission), sizes = self._ask(X, lengths, questions.pointwise)
        shares = steps.as_rows(smoothed, sizes)
        states, possible = np.argmax(shares, 1), np.any(shares > 0, 1)
        log_emission = steps.as_rows(emission, sizes)[np.arange(len(states)), states]
        chain_only = steps.log_prob_of_path(self.startprob_, self.transmat_, states, sizes)
        score = np.sum(np.where(possible, chain_only + log_emission, -np.inf))
        return float(score), np.where(possible, states, -1)

    def predict(self, X: Any, lengths: Any = None) -> np.ndarray:
        """States [N] as `decode` finds them, -1 in an impossible sequence."""
        return self.decode(X, lengths)[1]

    def sample(
        self, n_samples: int = 1, random_state: Any = None, currstate: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A sequence [N, D] and its states [N]; the first is `currstate`, if there is one."""
        check_is_fitted(self, "startprob_")
        self._check()
        random = check_random_state(self.random_state if random_state is None else random_state)
        moves = np.cumsum(self.transmat_, 1)
        state = currstate
        if state is None:
            state = int((np.cumsum(self.startprob_) > random.rand()).argmax())
        states, drawn = [state], [self._draw(state, random)]
        for _ in range(n_samples - 1):
            state = int((moves[state] > random.rand()).argmax())
            states.append(state)
            drawn.append(self._draw(state, random))
        return np.atleast_2d(drawn), np.array(states, dtype=int)

    def get_stationary_distribution(self) -> np.ndarray:
        """The distribution [K] that the transitions keep; NaN where there are several."""
        check_is_fitted(self, "transmat_")
        dtype = np.result_type(np.asarray(self.transmat_), np.single)
        with computing_in(dtype):
            table = table_of(self.transmat_, dtype)
            return np.exp(np.asarray(answer(questions.stationary, True, table, None)))

    def _num_parameters(self) -> int:
        """Free parameters, zeros in the tables left out."""
        chain_only = num_free(self.startprob_) + num_free(self.transmat_)
        return chain_only + self._num_emission_parameters()

    def aic(self, X: Any, lengths: Any = None) -> float:
        """Akaike's criterion, −2ℓ + 2p: smaller is better."""
        return -2 * self.score(X, lengths) + 2 * self._num_parameters()

    def bic(self, X: Any, lengths: Any = None) -> float:
        """Schwarz's criterion, −2ℓ + p log N, N the number of rows: smaller is better."""
        return -2 * self.score(X, lengths) + self._num_parameters() * math.log(len(X))

    def certify(self, X: Any, lengths: Any = None) -> Any:
        """Whether the M-step from the parameters is what it claims to be, see `jaxem.certify`.

        Raises:
            ValueError: covariances that mixture components share ("tied" in `GMMHMM`); a Dirichlet
                parameter below 1, which is no prior that pretends rows.
        """
        if self._tied:
            raise ValueError("covariances that components of a mixture share are not certified.")
        x, lengths, sequences = self._ready(X, lengths)
        prior = self._prior()
        if any(np.any(np.asarray(getattr(prior, name)) < 0) for name in COUNTS):
            raise ValueError("a prior with a Dirichlet parameter below 1 is not certified.")
        lasts = max(int(lengths.max()), 1)
        cut = jax.tree.map(lambda leaf: leaf[: len(lengths)], sequences)
        observed = None if cut.observed is None else cut.observed[:, :lasts]
        cut = replace(cut, values=cut.values[:, :lasts], observed=observed)
        with computing_in(x.dtype):
            return certify(self._model(len(x), x.dtype), cut, prior=prior, frozen=self._held)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "marginalize"
        return tags
