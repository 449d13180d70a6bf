"""Gaussian mixtures with scikit-learn's interface."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array

from jaxem import em
from jaxem.sklearn import covariance_types as types, rows
from jaxem.sklearn.mixture_estimator import MixtureEstimator
from jaxem.sklearn.precision import DTYPES
from jaxem.sklearn.starts import Fitted

COLLAPSED = (
    "Fitting the mixture model failed because some components have "
    "ill-defined empirical covariance (for instance caused by singleton "
    "or collapsed samples). Try to decrease the number of components, "
    "increase reg_covar, or scale the input data."
)
IN_SINGLE = (
    " The numerical accuracy can also be improved by passing float64 data instead of float32."
)


class GaussianMixture(MixtureEstimator):
    """A Gaussian mixture fitted by EM: scikit-learn's, with what it lacks.

    Constructor arguments, attributes and methods are those of `sklearn.mixture.GaussianMixture`,
    and the same `random_state` draws the same starts.  From the same start every step is the same.
    It differs where its model says so:

    * `lower_bound_` and the last of `lower_bounds_` belong to the parameters returned; there they
      are those of one step before, and a fit takes one step more.
    * A component that explains nothing keeps its mean and covariance, with weight 0.
    * `lower_bound_` may fall a little under `reg_covar`, which maximises nothing; a loss within
      `tol` ends the fit, a larger one does not.
    * A gain below what the dtype resolves ends a fit as well, also with `tol=0`.
    * With "tied" covariance and one row a component to start from ("k-means++",
      "random_from_data"), the start's covariance is that of these rows; there it depends on where
      the origin lies.
    * Only the best of `n_init` starts can make a fit fail; the others may collapse.
    * `verbose` shows the best start, when the fit has ended; no times.
    * `sample` keeps the dtype of the parameters.  Float32 data are computed in float32.
    * `max_iter=0` has the start's `lower_bound_`, where there it is -inf.
    * Whole numbers are computed as floats; theirs lose digits in `score_samples` of an integer X.
    * Numbers whose squares overflow are refused; there they end in NaN.
    * Float32 rows are answered in float32, also by a model fitted to float64.
    * A warm start keeps its number of components, whatever `n_components` has become.
    * Array API dispatch is not supported.
    * `fit` takes `sample_weight`; `certify`, `missing` and `frozen` are additions.

    Args:
        n_components: K.
        covariance_type: "full", "tied", "diag" or "spherical".
        tol: stop when a step raises the mean log-likelihood of a row by no more.
        reg_covar: added to every variance after each M-step.
        max_iter: most EM steps; 0 keeps the start.  Another number compiles anew.
        n_init: starts, of which the best fit is kept.  Another number compiles anew.
        init_params: "kmeans", "k-means++", "random" or "random_from_data".
        weights_init: [K], a 0 stays 0; None for what `init_params` gives, as the next two.
        means_init: [K, D].
        precisions_init: inverse covariances, shaped as the type has them.
        random_state: a seed, a RandomState or None.
        warm_start: start from the fitted parameters, if there are any.
        verbose, verbose_interval: what to show on standard output.
        missing: "error" refuses NaN; "marginalize" takes it for an entry missing at random, of
            which densities are marginal and statistics conditional expectations.  Another number of
            patterns of missing entries compiles anew.
        frozen: of "weights", "means" and "covariances", those held where they start.

    Attributes:
        weights_: [K].
        means_: [K, D].
        covariances_, precisions_, precisions_cholesky_: [K, D, D] "full", [D, D] "tied", [K, D]
            "diag", [K] "spherical"; the last is upper triangular with Λ = U Uᵀ.
        converged_: whether the last step changed the mean log-likelihood by no more than `tol`.
        n_iter_: EM steps taken.
        lower_bound_: mean log-likelihood of a row.
        lower_bounds_: the same after each step.
        n_features_in_, feature_names_in_: of the data.

    Examples:
        >>> import numpy as np
        >>> from jaxem.sklearn import GaussianMixture
        >>> X = np.array([[1.0, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> mixture = GaussianMixture(n_components=2, random_state=0).fit(X)
        >>> sorted(mixture.means_.round(6).tolist())
        [[1.0, 2.0], [10.0, 2.0]]
        >>> left, right = mixture.predict([[0, 0], [12, 3]])
        >>> bool(left != right)
        True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MixtureEstimator._parameter_constraints,
        "covariance_type": [StrOptions(set(types.FAMILIES))],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "frozen": ["array-like", StrOptions({"weights", "means", "covariances"}), None],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        missing: str = "error",
        frozen: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.missing = missing
        self.frozen = frozen

    @property
    def _parts(self) -> dict[str, str]:
        by_matrix = self.covariance_type in ("full", "tied")
        return {
            "weights": "weights",
            "means": "components.mean",
            "covariances": "components.log_cholesky" if by_matrix else "components.log_scale",
        }

    def _check_start(self, x: np.ndarray) -> None:
        members, size = self.n_components, x.shape[1]
        if self.means_init is not None:
            means = check_array(self.means_init, dtype=DTYPES, ensure_2d=False)
            rows.check_shape(means, (members, size), "means")
        if self.precisions_init is not None:
            kind = self.covariance_type
            given = check_array(
                self.precisions_init, dtype=DTYPES, ensure_2d=False, allow_nd=kind == "full"
            )
            shape = types.shape_of(kind, members, size)
            rows.check_shape(given, shape, f"{kind} precision")
            if kind in ("diag", "spherical"):
                if np.any(given <= 0):
                    raise ValueError(f"'{kind} precision' should be positive")
            elif not (
                np.allclose(given, np.swapaxes(given, -1, -2), atol=0)
                and np.all(np.linalg.eigvalsh(given) > 0)
            ):
                raise ValueError(f"'{kind} precision' should be symmetric, positive-definite")

    def _all_are_given(self) -> bool:
        return self.means_init is not None and self.precisions_init is not None

    def _start(self, x: np.ndarray, share: np.ndarray | None) -> tuple[Any, Any]:
        kind, counts, means, factor = self.covariance_type, None, self.means_init, None
        if share is not None:
            counts, own_means, covariances = types.weighted_moments(x, share, kind)
            means = own_means if means is None else means
            if self.precisions_init is None:
                covariances = types.add_to_diagonal(kind, covariances, self.reg_covar)
                try:
                    factor = types.factor_of(kind, covariances)
                except np.linalg.LinAlgError:
                    raise ValueError(_collapsed(x.dtype)) from None
        if factor is None:
            factor = types.factor_of_precisions(kind, np.asarray(self.precisions_init, x.dtype))
        return counts, types.family_of(kind, np.asarray(means, x.dtype), factor, len(x))

    def _added(self) -> tuple[em.Prior, float]:
        return em.Prior(floor=0.0), self.reg_covar

    def _check_fitted(self, fitted: Fitted) -> None:
        if fitted.broken:
            raise ValueError(_collapsed(fitted.trace.dtype))

    def _publish(self, family: Any) -> None:
        factor = types.factor_of_family(family)
        self.means_ = np.array(family.mean)
        self.covariances_ = types.covariances_of(self.covariance_type, factor)
        self.precisions_cholesky_ = types.precision_factor_of(self.covariance_type, factor)
        self.precisions_ = types.covariances_of(self.covariance_type, self.precisions_cholesky_)

    def _family(self, num_rows: int) -> Any:
        factor = types.factor_of_precision_factor(
            self.covariance_type, np.asarray(self.precisions_cholesky_)
        )
        return types.family_of(self.covariance_type, np.asarray(self.means_), factor, num_rows)

    def _num_member_parameters(self) -> int:
        members, size = self.means_.shape
        return members * size + types.num_covariance_parameters(self.covariance_type, members, size)

    def _draw(self, member: int, number: int, random: Any) -> np.ndarray:
        mean, kind = self.means_[member], self.covariance_type
        covariance = self.covariances_ if kind == "tied" else self.covariances_[member]
        if kind in ("full", "tied"):
            drawn = random.multivariate_normal(mean, covariance, number)
        else:
            noise = random.standard_normal(size=(number, len(mean)))
            drawn = mean + noise * np.sqrt(covariance)
        return drawn.astype(self.means_.dtype)


def _collapsed(dtype: Any) -> str:
    return COLLAPSED + (IN_SINGLE if dtype == np.single else "")
