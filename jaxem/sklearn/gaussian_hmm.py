"""Gaussian HMMs with hmmlearn's interface."""

from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions

from jaxem.sklearn import covariance_types as types, rows, steps
from jaxem.sklearn.hmm_estimator import HMMEstimator

COVARIANCE_TYPES = tuple(types.FAMILIES)


class GaussianHMM(HMMEstimator):
    """An HMM with Gaussian emissions fitted by EM: hmmlearn's, with what it lacks.

    Constructor arguments, attributes and methods are those of `hmmlearn.hmm.GaussianHMM`, its
    default priors among them, and the same integer `random_state` draws the same start.  From the
    same start every step is the same.  It differs where its model says so:

    * `monitor_.converged` is False when the steps ran out, with a `ConvergenceWarning`; its history
      holds what EM raises, log-prior included, at the start and after each step.  The end is judged
      by that, not by a log-likelihood that a prior may lower.  A monitor of one's own is replaced.
    * The parameters returned are those that the last value belongs to; a negative `tol` is 0.
    * "map" decoding scores states by their log-probability jointly with the data.
    * `covars_` is [K, D, D] for every type, also after a spherical fit; it can be set as it is
      read, or in the shape of the type.
    * A state never left keeps its transitions, one never visited its parameters: no row of zeros.
    * An impossible sequence has log-likelihood -inf, posteriors 0 and states -1: no NaN.
    * With "m" not in `params` covariances are about the means held fixed.
    * A spherical start is the mean variance, where hmmlearn's takes covariances into the mean.
    * `aic` and `bic` leave zeros of `startprob_` and `transmat_` out; `monitor_` begins with `fit`,
      which takes the number of features anew (`n_features_in_`).
    * A sequence may have one row, or none, which counts nothing; lengths that are negative, no
      whole numbers or in several axes are refused, and unknown letters in `params`.  All are padded
      to the longest: cut sequences of very different lengths into pieces.
    * `get_stationary_distribution` is NaN where there are several; hmmlearn gives one of them.
    * NaN is refused in scikit-learn's words, and numbers whose squares overflow are.
    * `fit` takes `sample_weight` [B], one a sequence; `filter`, `forecast`, `certify`, `n_init` and
      `missing` are additions.  Float32 data are computed in float32.
    * `implementation` is accepted; both give the same numbers here, without underflow.

    Args:
        n_components: K.
        covariance_type: "diag", "full", "tied" or "spherical".
        min_covar: added to the variances that covariances start with.
        startprob_prior, transmat_prior: Dirichlet parameters; below 1 counts are cut off at 0.
            What is 0 in `startprob_` or `transmat_` stays 0.
        means_prior, means_weight: pretend rows of each state, where they lie and how many.
        covars_prior, covars_weight: "diag" and "spherical": added to the scatter of every feature,
            and a weight less 1 to the count; "full" and "tied": added to every entry of the scatter
            matrix (give a multiple of the identity for one without correlation), and a weight less
            D to the count.  Below 0 that is 0.
        algorithm: "viterbi" or "map", for `decode` and `predict`.
        random_state: a seed, a RandomState or None.
        n_iter: most EM steps.  Another number compiles anew.
        tol: stop when a step gains no more, in nats of all data.
        verbose: shows the best start on standard error, when the fit has ended.
        params: letters of what is fitted, the rest is held: "s" startprob_, "t" transmat_, "m"
            means_, "c" covars_.
        init_params: letters of what starts anew, though it be set.
        implementation: "log" or "scaling".
        n_init: starts, of which the best fit is kept.
        missing: "error" refuses NaN; "marginalize" takes it for an entry missing at random.

    Attributes:
        startprob_, transmat_: [K], [K, K].
        means_, covars_: [K, D], [K, D, D].
        monitor_: how the fit went.

    Examples:
        >>> import numpy as np
        >>> from jaxem.sklearn import GaussianHMM
        >>> X = np.array([[0.1], [-0.2], [0.0], [5.1], [4.9], [5.2], [0.1], [0.2]])
        >>> model = GaussianHMM(n_components=2, n_iter=100, random_state=0).fit(X)
        >>> sorted(model.means_.round(1).ravel().tolist())
        [0.0, 5.1]
        >>> model.predict(X, lengths=[6, 2]).shape
        (8,)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **HMMEstimator._parameter_constraints,
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
    }

    def __init__(
        self,
        n_components: int = 1,
        covariance_type: str = "diag",
        min_covar: float = 1e-3,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        means_prior: Any = 0,
        means_weight: Any = 0,
        covars_prior: Any = 1e-2,
        covars_weight: float = 1,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: Any = False,
        params: str = "stmc",
        init_params: str = "stmc",
        implementation: str = "log",
        *,
        n_init: int = 1,
        missing: str = "error",
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation
        self.n_init = n_init
        self.missing = missing

    @property
    def _letters(self) -> dict[str, tuple[str, str]]:
        by_matrix = self.covariance_type in ("full", "tied")
        return {
            "s": ("startprob_", "initial"),
            "t": ("transmat_", "transition"),
            "m": ("means_", "emission.mean"),
            "c": ("covars_", f"emission.{'log_cholesky' if by_matrix else 'log_scale'}"),
        }

    @property
    def n_features(self) -> int:
        """D."""
        return np.shape(self.means_)[1]

    @property
    def covars_(self) -> np.ndarray:
        """Covariance matrices [K, D, D], whatever their type."""
        covars, kind = self._covars_, self.covariance_type
        size = self.n_features if kind == "spherical" else covars.shape[-1]
        return _matrices(covars, kind, self.n_components, size)

    @covars_.setter
    def covars_(self, covars: Any) -> None:
        covars, kind = np.array(covars), self.covariance_type
        matrices = covars
        if covars.ndim == 3 and kind != "full":  # as it is read
            variances = np.diagonal(covars, axis1=1, axis2=2)
            covars = {"tied": covars[0], "diag": variances, "spherical": variances[:, 0]}[kind]
        _check_covars(covars, kind, self.n_components)
        if matrices is not covars and not np.allclose(
            _matrices(covars, kind, *matrices.shape[:2]), matrices
        ):
            raise ValueError(f"these matrices are not {kind!r} covars: what differs would be lost")
        self._covars_ = covars

    def _has(self, name: str) -> bool:
        # Variances alone do not say of how many features, so `covars_` cannot be read before means.
        return hasattr(self, "_covars_" if name == "covars_" else name)

    def _initial(
        self, letter: str, x: np.ndarray, weight: np.ndarray | None, seed: Any
    ) -> np.ndarray:
        if letter == "m":
            return rows.clusters_of(x, self.n_components, weight, seed, 10).cluster_centers_
        return covariance_start(x, weight, self.min_covar, self.covariance_type, self.n_components)

    def _check_emission(self, x: np.ndarray | None) -> None:
        means = np.asarray(self.means_)
        if means.ndim != 2 or len(means) != self.n_components:
            raise ValueError("means_ must have shape (n_components, n_features)")
        if x is not None and x.shape[1] != means.shape[1]:
            raise ValueError(
                f"Unexpected number of dimensions, got {x.shape[1]} but expected {means.shape[1]}"
            )
        shape = types.shape_of(self.covariance_type, *means.shape)
        if self._covars_.shape != shape:
            raise ValueError(
                f"{self.covariance_type!r} covars must have shape {shape}, "
                f"got {self._covars_.shape}"
            )

    def _emission(self, num_rows: int) -> Any:
        covars = np.asarray(self._covars_)
        factor = types.factor_of(self.covariance_type, covars)
        return types.family_of(self.covariance_type, np.asarray(self.means_), factor, num_rows)

    def _publish(self, emission: Any) -> None:
        factor = types.factor_of_family(emission)
        self.means_ = np.array(emission.mean)
        self._covars_ = types.covariances_of(self.covariance_type, factor)

    def _emission_prior(self) -> dict[str, Any]:
        states, size = np.shape(self.means_)
        mean = steps.spread_over(self.means_prior, (states, size), "means_prior")
        weight = steps.spread_over(self.means_weight, (states, 1), "means_weight")[:, 0]
        kind, covars_weight = self.covariance_type, float(self.covars_weight)
        if kind in ("diag", "spherical"):
            each = steps.spread_over(self.covars_prior, (states, size), "covars_prior")
            scatter, covars_weight = each[:, :, None] * np.eye(size), covars_weight - 1
        else:
            shape = (size, size) if kind == "tied" else (states, size, size)
            scatter = steps.spread_over(self.covars_prior, shape, "covars_prior")
            covars_weight -= size
        return {
            "mean": mean,
            "mean_weight": weight,
            "scatter": scatter,
            "scatter_weight": max(covars_weight, 0.0),
        }

    def _draw(self, state: int, random: Any) -> np.ndarray:
        drawn = random.multivariate_normal(self.means_[state], self.covars_[state])
        return drawn.astype(np.asarray(self.means_).dtype)

    def _num_emission_parameters(self) -> int:
        states, size = np.shape(self.means_)
        return states * size + types.num_covariance_parameters(self.covariance_type, states, size)

    def _expected(self) -> np.ndarray:
        return np.asarray(self.means_)


def covariance_start(
    x: np.ndarray, weight: np.ndarray | None, added: float, kind: str, num_members: int
) -> np.ndarray:
    """Covariances of this type to start with: that of all rows, `added` on its diagonal."""
    centred = x - np.average(x, 0, weight)
    weight = np.ones(len(x), x.dtype) if weight is None else weight
    freedom = max(weight.sum() - 1, 1)
    covariance = (weight * centred.T) @ centred / freedom + added * np.eye(x.shape[1])
    covariance = covariance.astype(x.dtype)
    if kind == "tied":
        return covariance
    variance = np.diag(covariance)
    each = {"full": covariance, "diag": variance, "spherical": variance.mean()}[kind]
    return np.repeat(np.asarray(each)[None], num_members, 0)


def _matrices(covars: np.ndarray, kind: str, states: int, size: int) -> np.ndarray:
    """Covariances of a type as matrices [K, D, D]."""
    if kind == "full":
        return covars
    if kind == "tied":
        return np.repeat(covars[None], states, 0)
    return covars.reshape(states, -1)[:, :, None] * np.eye(size, dtype=covars.dtype)


def _check_covars(covars: np.ndarray, kind: str, num_members: int) -> None:
    """Raise a ValueError in hmmlearn's words unless these are covariances of this type."""
    if kind == "spherical":
        if covars.shape != (num_members,):
            raise ValueError("'spherical' covars have length n_components")
        if not np.all(covars > 0):  # NaN is not
            raise ValueError("'spherical' covars must be positive")
    elif kind == "tied":
        if covars.ndim != 2 or covars.shape[0] != covars.shape[1]:
            raise ValueError("'tied' covars must have shape (n_dim, n_dim)")
        if not is_covariance(covars):
            raise ValueError("'tied' covars must be symmetric, positive-definite")
    elif kind == "diag":
        if covars.ndim != 2:
            raise ValueError("'diag' covars must have shape (n_components, n_dim)")
        if not np.all(covars > 0):  # NaN is not
            raise ValueError("'diag' covars must be positive")
    elif kind == "full":
        if covars.ndim != 3 or covars.shape[1] != covars.shape[2]:
            raise ValueError("'full' covars must have shape (n_components, n_dim, n_dim)")
        for number, covariance in enumerate(covars):
            if not is_covariance(covariance):
                raise ValueError(
                    f"component {number} of 'full' covars must be symmetric, positive-definite"
                )
    else:
        names = ", ".join(map(repr, COVARIANCE_TYPES))
        raise ValueError(f"covariance_type must be one of {names}")


def is_covariance(matrix: np.ndarray) -> bool:
    """Whether it is symmetric and positive definite."""
    return bool(np.allclose(matrix, matrix.T) and np.all(np.linalg.eigvalsh(matrix) > 0))
