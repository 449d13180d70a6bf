"""What the mixtures share: fitting from several starts, and questions about rows."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import jax
import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted

from jaxem import em
from jaxem.comparison import certify
from jaxem.mixture import Mixture
from jaxem.sklearn import rows
from jaxem.sklearn.added import Added
from jaxem.sklearn.buckets import padded_samples
from jaxem.sklearn.haste import answer, is_small
from jaxem.sklearn.precision import DTYPES, computing_in
from jaxem.sklearn.starts import Fitted, fit_best
from jaxem.sklearn.tables import probs_of, table_of
from jaxem.sklearn.verbose import report_mixture

NOT_CONVERGED = (
    "Best performing initialization did not converge. "
    "Try different init parameters, or increase max_iter, "
    "tol, or check for degenerate data."
)


class MixtureEstimator(DensityMixin, BaseEstimator, ABC):
    """A mixture with scikit-learn's interface; which family it is over, a subclass says."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "random", "random_from_data", "k-means++"})],
        "weights_init": ["array-like", None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "missing": [StrOptions(set(rows.MISSING))],
        "frozen": ["array-like", StrOptions({"weights"}), None],
    }
    # Names of the parts that `frozen` may hold, and what they are called in the model.
    _parts: ClassVar[dict[str, str]]

    n_components: int
    tol: float
    max_iter: int
    n_init: int
    init_params: str
    weights_init: Any
    random_state: Any
    warm_start: bool
    verbose: int
    verbose_interval: int
    missing: str
    frozen: Any

    @abstractmethod
    def _check_start(self, x: np.ndarray) -> None:
        """Raise a ValueError unless the starts that were given suit the rows."""

    @abstractmethod
    def _start(self, x: np.ndarray, share: np.ndarray | None) -> tuple[Any, Any]:
        """Counts [K] and members that responsibilities times weights make, or that were given."""

    @abstractmethod
    def _publish(self, family: Any) -> None:
        """Set the attributes that hold the members."""

    @abstractmethod
    def _family(self, num_rows: int) -> Any:
        """The members that the attributes hold."""

    @abstractmethod
    def _draw(self, member: int, number: int, random: Any) -> np.ndarray:
        """Rows from one member."""

    @abstractmethod
    def _num_member_parameters(self) -> int:
        """Free parameters of the members."""

    def _all_are_given(self) -> bool:
        """Whether no start needs responsibilities."""
        return False

    def _convert(self, x: np.ndarray) -> np.ndarray:
        """Rows that were checked as observations of the family."""
        return x

    def _added(self) -> tuple[em.Prior, float]:
        """What the M-step adds to the statistics, and to every variance."""
        return em.Prior(floor=0.0), 0.0

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit by EM from `n_init` starts and keep the best.

        Args:
            X: rows [N, D], an array or a DataFrame.
            y: ignored.
            sample_weight: [N], how often each row counts; None for once.

        Raises:
            ValueError: a parameter out of range; rows that are not finite, or fewer than
                components; a fit that collapses.
        """
        self._validate_params()
        x = rows.check_rows(self, X, reset=True, least=2)
        if len(x) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = "
                f"{self.n_components}, n_samples = {len(x)}"
            )
        weight = rows.check_weight(sample_weight, x)
        x = self._convert(x)
        self._check_weights(x)
        self._check_start(x)
        frozen = self._frozen()
        again = self.warm_start and hasattr(self, "converged_")
        total = float(len(x) if weight is None else np.sum(weight, dtype=float))
        with computing_in(x.dtype):
            starts = [self._model(len(x))] if again else self._starts(x, weight)
            samples = padded_samples(x, weight, rows.observed_of(x))
            added = [self._with_additions(start, x.dtype) for start in starts]
            fitted = fit_best(
                added,
                samples,
                tol=self.tol * total,
                max_steps=self.max_iter,
                frozen=frozen,
                small=is_small(len(x), self.n_components, x.shape[1]),
            )
        self._check_fitted(fitted)
        if not fitted.converged and self.max_iter > 0:
            warnings.warn(NOT_CONVERGED, ConvergenceWarning, stacklevel=2)
        self.weights_ = probs_of(fitted.model.weights)
        self._publish(fitted.model.components)
        self.converged_ = fitted.converged and self.max_iter > 0
        self.n_iter_ = fitted.num_steps
        self.lower_bound_ = float(fitted.trace[-1]) / total
        self.lower_bounds_ = [float(value) / total for value in fitted.trace[1:]]
        report_mixture(self.verbose, self.verbose_interval, fitted, total)
        return self

    def _check_fitted(self, fitted: Fitted) -> None:
        """Raise a ValueError where a fit has led nowhere."""
        if fitted.broken and fitted.num_steps == 0:
            raise ValueError(
                "some rows are impossible under the start: no component gives them a probability "
                "above 0. Leave them out, or give a start without that 0."
            )

    def _check_weights(self, x: np.ndarray) -> None:
        if self.weights_init is None:
            return
        weights = check_array(self.weights_init, dtype=DTYPES, ensure_2d=False)
        rows.check_shape(weights, (self.n_components,), "weights")
        if np.any(weights < 0) or np.any(weights > 1):
            raise ValueError(
                "The parameter 'weights' should be in the range [0, 1], but got max value "
                f"{weights.max():.5f}, min value {weights.min():.5f}"
            )
        if abs(1 - weights.sum()) > (1e-6 if weights.dtype == np.single else 1e-8):
            raise ValueError(
                "The parameter 'weights' should be normalized, but got sum(weights) = "
                f"{weights.sum():.5f}"
            )

    def _frozen(self) -> list[str]:
        """The frozen parts by their names in the model."""
        given = () if self.frozen is None else self.frozen
        names = [given] if isinstance(given, str) else list(given)
        for name in names:
            if not isinstance(name, str) or name not in self._parts:
                known = ", ".join(map(repr, self._parts))
                raise ValueError(f"frozen may hold {known}, got {name!r}.")
        return [self._parts[name] for name in names]

    def _starts(self, x: np.ndarray, weight: np.ndarray | None) -> Sequence[Mixture]:
        random = check_random_state(self.random_state)
        given = self._all_are_given() and self.weights_init is not None
        filled = rows.completed(x, rows.observed_of(x), random)
        starts = []
        for _ in range(1 if given else self.n_init):
            share = None
            if not given:
                share = rows.responsibilities(
                    filled, self.n_components, self.init_params, weight, random
                )
            counts, family = self._start(filled, share)
            chosen = counts if self.weights_init is None else np.asarray(self.weights_init)
            starts.append(_mixture(chosen, family, x.dtype))
        return starts

    def _with_additions(self, start: Mixture, dtype: Any) -> Added:
        prior, reg_covar = self._added()
        prior = em.Prior(*(np.asarray(value, dtype) for value in vars(prior).values()))
        amount: Any = np.asarray(reg_covar, dtype)
        return Added(start, prior, amount)

    def _model(self, num_rows: int) -> Mixture:
        """The mixture that the attributes hold, for data of so many rows."""
        return _mixture(self.weights_, self._family(num_rows), self.weights_.dtype)

    def _ask(self, X: Any, question: Any) -> Any:
        """What the fitted mixture says of every row, padding removed."""
        check_is_fitted(self)
        x = self._convert(rows.check_rows(self, X, reset=False))
        with computing_in(x.dtype):
            samples = replace(padded_samples(x, None, rows.observed_of(x)), sample_weight=None)
            model = em.cast(self._model(len(x)), x.dtype)
            small = is_small(len(x), self.n_components, x.shape[1])
            found = answer(question, small, model, model.validate(samples))
            return np.asarray(found)[: len(x)]

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and the most probable component of every row under the fitted parameters."""
        return self.fit(X, y, sample_weight).predict(X)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component [N] of every row; of equal ones the first."""
        return np.argmax(self.predict_proba(X), 1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Posterior probabilities [N, K] of the components; 0 throughout an impossible row."""
        return self._ask(X, Mixture.responsibilities)

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) [N] of every row; of what is observed of it where entries are missing."""
        return self._ask(X, Mixture.log_prob)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean over rows of log p(x)."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Rows [N, D] drawn from the mixture, those of the first component first, and components.

        Raises:
            ValueError: fewer than one.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one "
                "sample."
            )
        random = check_random_state(self.random_state)
        weights = self.weights_.astype(float)
        counts = random.multinomial(n_samples, weights / weights.sum())
        drawn = [self._draw(k, int(number), random) for k, number in enumerate(counts)]
        return np.concatenate(drawn), np.repeat(np.arange(len(weights)), counts)

    def aic(self, X: Any) -> float:
        """Akaike's criterion, −2ℓ + 2p: smaller is better."""
        each = self.score_samples(X)
        return -2 * float(np.sum(each, dtype=float)) + 2 * self._n_parameters()

    def bic(self, X: Any) -> float:
        """Schwarz's criterion, −2ℓ + p log N: smaller is better."""
        each = self.score_samples(X)
        return -2 * float(np.sum(each, dtype=float)) + self._n_parameters() * math.log(len(each))

    def _n_parameters(self) -> int:
        return len(self.weights_) - 1 + self._num_member_parameters()

    def certify(self, X: Any, sample_weight: Any = None) -> Any:
        """Whether the M-step from the fitted parameters is what it claims to be.

        See `jaxem.certify`.  What the M-step adds that is no prior, scikit-learn's `reg_covar`, is
        left out: with it a step maximises nothing.
        """
        check_is_fitted(self)
        x = rows.check_rows(self, X, reset=False)
        weight = rows.check_weight(sample_weight, x)
        x = self._convert(x)
        frozen = tuple(self._frozen())
        with computing_in(x.dtype):
            samples = padded_samples(x, weight, rows.observed_of(x))
            trimmed = jax.tree.map(lambda leaf: leaf[: len(x)], samples)
            if weight is None:
                trimmed = replace(trimmed, sample_weight=None)
            return certify(self._model(len(x)), trimmed, prior=self._added()[0], frozen=frozen)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "marginalize"
        return tags


def _mixture(weights: Any, family: Any, dtype: Any) -> Mixture:
    """A mixture whose weights are in proportion to these; a weight of 0 stays 0."""
    weights = np.asarray(weights, dtype)
    return Mixture(table_of(weights / weights.sum(), dtype), family)
