"""Mixtures of counts with scikit-learn's interface."""

from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_array

from jaxem.families import Poisson
from jaxem.sklearn import rows, symbols
from jaxem.sklearn.mixture_estimator import MixtureEstimator
from jaxem.sklearn.precision import DTYPES
from jaxem.sklearn.tables import log_of


class PoissonMixture(MixtureEstimator):
    """A mixture of rows of D independent Poisson counts, fitted by EM.

    Arguments, attributes and methods are those of `GaussianMixture` where both have them; see
    there.  Counts that are not whole are lowered to one that is, with a warning.

    Args:
        n_components: K.
        lambdas_init: [K, D], where rates start; a 0 stays, and explains zeros only.
        frozen: of "weights" and "lambdas", those held where they start.

    Attributes:
        weights_: [K].
        lambdas_: [K, D], expected counts.

    Examples:
        >>> import numpy as np
        >>> from jaxem.sklearn import PoissonMixture
        >>> X = np.array([[1], [0], [2], [20], [25], [22]])
        >>> mixture = PoissonMixture(n_components=2, random_state=0).fit(X)
        >>> sorted(mixture.lambdas_.round(2).ravel().tolist())
        [1.0, 22.33]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MixtureEstimator._parameter_constraints,
        "lambdas_init": ["array-like", None],
        "frozen": ["array-like", StrOptions({"weights", "lambdas"}), None],
    }
    _parts: ClassVar[dict[str, str]] = {"weights": "weights", "lambdas": "components.log_rate"}

    def __init__(
        self,
        n_components: int = 1,
        *,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        lambdas_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        missing: str = "error",
        frozen: Any = None,
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.lambdas_init = lambdas_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.missing = missing
        self.frozen = frozen

    def _convert(self, x: np.ndarray) -> np.ndarray:
        return symbols.whole(x, self)

    def _check_start(self, x: np.ndarray) -> None:
        if self.lambdas_init is None:
            return
        rates = check_array(self.lambdas_init, dtype=DTYPES, ensure_2d=False)
        rows.check_shape(rates, (self.n_components, x.shape[1]), "lambdas")
        if np.any(rates < 0):
            raise ValueError("The parameter 'lambdas' should not be negative.")

    def _all_are_given(self) -> bool:
        return self.lambdas_init is not None

    def _start(self, x: np.ndarray, share: np.ndarray | None) -> tuple[Any, Any]:
        counts = None if share is None else share.sum(0)
        if self.lambdas_init is not None or share is None or counts is None:
            return counts, Poisson(log_of(np.asarray(self.lambdas_init, x.dtype)))
        return counts, Poisson(log_of((share.T @ x + x.mean(0)) / (counts + 1)[:, None]))

    def _publish(self, family: Any) -> None:
        self.lambdas_ = np.exp(np.asarray(family.log_rate))

    def _family(self, num_rows: int) -> Any:
        return Poisson(log_of(np.asarray(self.lambdas_)))

    def _num_member_parameters(self) -> int:
        return int(np.sum(self.lambdas_ > 0))

    def _draw(self, member: int, number: int, random: Any) -> np.ndarray:
        rates = self.lambdas_[member]
        return random.poisson(rates, (number, len(rates)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.categorical = True  # whole numbers
        return tags
