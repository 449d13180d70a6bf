"""Mixtures of symbols (latent class models) with scikit-learn's interface."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array

from jaxem import em
from jaxem.sklearn import rows, symbols
from jaxem.sklearn.mixture_estimator import MixtureEstimator
from jaxem.sklearn.precision import DTYPES
from jaxem.sklearn.tables import num_free, probs_of, table_of


class CategoricalMixture(MixtureEstimator):
    """A mixture of rows of D independent symbols, a latent class model, fitted by EM.

    Symbols are whole numbers from 0; what is not whole is lowered to one, with a warning.
    Arguments, attributes and methods are those of `GaussianMixture` where both have them; see
    there.

    Args:
        n_components: K.
        n_categories: how many symbols there are, a number or one a column; None for those seen in
            `fit`.  Others are refused.
        alpha: pretend counts of every symbol of every component and column, without which a symbol
            that a component never showed has probability 0; 0 for maximum likelihood.
            Their log-probability is part of `lower_bound_`.
        probs_init: [K, D, V], where probabilities start; a 0 stays.
        frozen: of "weights" and "probs", those held where they start.

    Attributes:
        weights_: [K].
        probs_: [K, D, V], the probability of each symbol in each column; 0 beyond a column's own.
        n_categories_: [D], how many symbols each column has.

    Examples:
        >>> import numpy as np
        >>> from jaxem.sklearn import CategoricalMixture
        >>> X = np.array([[0, 2], [0, 2], [1, 0], [1, 0]])
        >>> labels = CategoricalMixture(n_components=2, random_state=0).fit_predict(X)
        >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
        True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MixtureEstimator._parameter_constraints,
        "n_categories": ["array-like", Interval(Integral, 1, None, closed="left"), None],
        "alpha": [Interval(Real, 0.0, None, closed="left")],
        "probs_init": ["array-like", None],
        "frozen": ["array-like", StrOptions({"weights", "probs"}), None],
    }
    _parts: ClassVar[dict[str, str]] = {"weights": "weights", "probs": "components.logits"}

    def __init__(
        self,
        n_components: int = 1,
        *,
        n_categories: Any = None,
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
        self.n_categories = n_categories
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
        x = symbols.whole(x, self)
        if hasattr(self, "n_categories_"):
            symbols.check_range(x, self.n_categories_)
        return x

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "CategoricalMixture":
        """As `GaussianMixture.fit`; symbols are numbered anew."""
        before = vars(self).pop("n_categories_", None)
        if self.warm_start and hasattr(self, "converged_"):
            self.n_categories_ = before
        try:
            return super().fit(X, y, sample_weight)
        except ValueError:
            vars(self).pop("n_categories_", None)
            if before is not None:
                self.n_categories_ = before
            raise

    def _check_start(self, x: np.ndarray) -> None:
        if not hasattr(self, "n_categories_"):
            self.n_categories_ = symbols.numbers_of(x, self.n_categories)
        if self.probs_init is None:
            return
        probs = check_array(self.probs_init, dtype=DTYPES, ensure_2d=False, allow_nd=True)
        shape = (self.n_components, x.shape[1], int(self.n_categories_.max()))
        rows.check_shape(probs, shape, "probs")
        if np.any(probs < 0) or not np.allclose(probs.sum(-1), 1):
            raise ValueError("The parameter 'probs' should be normalized and not negative.")

    def _all_are_given(self) -> bool:
        return self.probs_init is not None

    def _start(self, x: np.ndarray, share: np.ndarray | None) -> tuple[Any, Any]:
        counts = None if share is None else share.sum(0)
        if self.probs_init is not None or share is None:
            return counts, table_of(self.probs_init, x.dtype)
        return counts, table_of(symbols.shares_of(x, share, self.n_categories_), x.dtype)

    def _added(self) -> tuple[em.Prior, float]:
        return em.Prior(symbols=self.alpha, floor=0.0), 0.0

    def _publish(self, family: Any) -> None:
        self.probs_ = probs_of(family)

    def _family(self, num_rows: int) -> Any:
        return table_of(self.probs_, self.probs_.dtype)

    def _num_member_parameters(self) -> int:
        return num_free(self.probs_)

    def _draw(self, member: int, number: int, random: Any) -> np.ndarray:
        edges = np.cumsum(self.probs_[member], -1)[:, None, :-1]
        return np.sum(random.uniform(size=(len(edges), number, 1)) >= edges, -1).T

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.categorical = True
        return tags
