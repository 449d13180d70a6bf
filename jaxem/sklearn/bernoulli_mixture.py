"""Mixtures of independent coins with scikit-learn's interface."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array

from jaxem import em
from jaxem.data import refuse
from jaxem.families import Bernoulli
from jaxem.sklearn import rows
from jaxem.sklearn.mixture_estimator import MixtureEstimator
from jaxem.sklearn.precision import DTYPES
from jaxem.sklearn.tables import log_of


class BernoulliMixture(MixtureEstimator):
    """A mixture of rows of D independent zeros and ones, fitted by EM.

    Arguments, attributes and methods are those of `GaussianMixture` where both have them; see
    there.  Bishop (2006) §9.3.3.

    Args:
        n_components: K.
        binarize: what is above it is a one, as in scikit-learn's `BernoulliNB`; None if all data
            are zeros and ones.
        alpha: pretend ones and zeros of every component and feature, which keep probabilities off 0
            and 1; 0 for maximum likelihood.
            Their log-probability is part of `lower_bound_`.
        probs_init: [K, D], where probabilities start; a 0 or a 1 stays.
        frozen: of "weights" and "probs", those held where they start.

    Attributes:
        weights_: [K].
        probs_: [K, D], the probability of a one.

    Examples:
        >>> import numpy as np
        >>> from jaxem.sklearn import BernoulliMixture
        >>> X = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]])
        >>> labels = BernoulliMixture(n_components=2, random_state=0).fit_predict(X)
        >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
        True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MixtureEstimator._parameter_constraints,
        "binarize": [Real, None],
        "alpha": [Interval(Real, 0.0, None, closed="left")],
        "probs_init": ["array-like", None],
        "frozen": ["array-like", StrOptions({"weights", "probs"}), None],
    }
    _parts: ClassVar[dict[str, str]] = {"weights": "weights", "probs": "components.logits"}

    def __init__(
        self,
        n_components: int = 1,
        *,
        binarize: float | None = 0.0,
        alpha: float = 0.0,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        probs_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        missing: str = "error",
        frozen: Any = None,
    ) -> None:
        self.n_components = n_components
        self.binarize = binarize
        self.alpha = alpha
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.probs_init = probs_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.missing = missing
        self.frozen = frozen

    def _convert(self, x: np.ndarray) -> np.ndarray:
        if self.binarize is None:
            wrong = ~np.isnan(x) & (x != 0) & (x != 1)
            refuse(wrong, x, "values must be 0 or 1", "set binarize.")
            return x
        return np.where(np.isnan(x), x, x > self.binarize).astype(x.dtype)

    def _check_start(self, x: np.ndarray) -> None:
        if self.probs_init is None:
            return
        probs = check_array(self.probs_init, dtype=DTYPES, ensure_2d=False)
        rows.check_shape(probs, (self.n_components, x.shape[1]), "probs")
        if np.any(probs < 0) or np.any(probs > 1):
            raise ValueError("The parameter 'probs' should be in the range [0, 1].")

    def _all_are_given(self) -> bool:
        return self.probs_init is not None

    def _start(self, x: np.ndarray, share: np.ndarray | None) -> tuple[Any, Any]:
        counts = None if share is None else share.sum(0)
        if self.probs_init is not None or share is None or counts is None:
            return counts, _coins(np.asarray(self.probs_init, x.dtype))
        return counts, _coins((share.T @ x + x.mean(0)) / (counts + 1)[:, None])

    def _added(self) -> tuple[em.Prior, float]:
        return em.Prior(successes=self.alpha, failures=self.alpha, floor=0.0), 0.0

    def _publish(self, family: Any) -> None:
        # Of x = log p/(1 − p), p is 1/(1 + exp(−x)): the power that does not overflow.
        logits = np.asarray(family.logits)
        small = np.exp(-np.abs(logits))
        self.probs_ = np.where(logits > 0, 1, small) / (1 + small)

    def _family(self, num_rows: int) -> Any:
        return _coins(np.asarray(self.probs_))

    def _num_member_parameters(self) -> int:
        return int(np.sum((self.probs_ > 0) & (self.probs_ < 1)))

    def _draw(self, member: int, number: int, random: Any) -> np.ndarray:
        probs = self.probs_[member]
        return (random.uniform(size=(number, len(probs))) < probs).astype(int)


def _coins(probs: np.ndarray) -> Bernoulli:
    return Bernoulli(log_of(probs) - log_of(1 - probs))
