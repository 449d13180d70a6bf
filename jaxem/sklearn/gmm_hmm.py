"""HMMs with a Gaussian mixture in each state, with hmmlearn's interface."""

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from jaxem.families import MixtureFamily
from jaxem.sklearn import covariance_types as types, rows, steps
from jaxem.sklearn.gaussian_hmm import COVARIANCE_TYPES, covariance_start, is_covariance
from jaxem.sklearn.hmm_estimator import HMMEstimator
from jaxem.sklearn.tables import num_free, probs_of, table_of


class GMMHMM(HMMEstimator):
    """An HMM with a mixture of M Gaussians in each state, fitted by EM: hmmlearn's, with what it
    lacks.

    Arguments, attributes, methods and differences are those of `GaussianHMM` where both have them;
    see there.  Besides:

    * Covariances are about the new means, as the M-step has them (Bilmes 1998, §4.2); hmmlearn's
      are about the means of the step before.  Both come to the same points, and each step is the
      same where "c" or "m" is not in `params`.
    * A component that explains nothing keeps its mean, which hmmlearn sets to 0.
    * `aic` and `bic` count M − 1 weights a state; hmmlearn counts those of one state.
    * Where a cluster has fewer rows than components its means are drawn with `random_state`;
      hmmlearn draws them from NumPy's global one.
    * A spherical start is the mean variance, where hmmlearn's takes covariances into the mean.

    "tied" means that the components of a state share a covariance.

    Args:
        n_components: K.
        n_mix: M.
        weights_prior: Dirichlet parameters of `weights_`.
        means_prior, means_weight: pretend rows of each component.
        covars_prior, covars_weight: "full" and "tied": Ψ and ν of an inverse Wishart prior; "diag"
            and "spherical": α and β of an inverse gamma prior, the same for all features.  The
            defaults are hmmlearn's, which pretend nothing, but in "spherical" D − M values a
            component.
        params, init_params: letters; "w" is weights_.

    Attributes:
        weights_: [K, M].
        means_: [K, M, D].
        covars_: [K, M, D, D] "full", [K, D, D] "tied", [K, M, D] "diag", [K, M] "spherical".

    Examples:
        >>> import numpy as np
        >>> from jaxem.sklearn import GMMHMM
        >>> X = np.random.default_rng(0).normal(size=(60, 2))
        >>> model = GMMHMM(n_components=2, n_mix=2, n_iter=100, random_state=0).fit(X)
        >>> model.weights_.shape, model.covars_.shape
        ((2, 2), (2, 2, 2))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **HMMEstimator._parameter_constraints,
        "n_mix": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
    }

    def __init__(
        self,
        n_components: int = 1,
        n_mix: int = 1,
        min_covar: float = 1e-3,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        weights_prior: Any = 1.0,
        means_prior: Any = 0.0,
        means_weight: Any = 0.0,
        covars_prior: Any = None,
        covars_weight: Any = None,
        algorithm: str = "viterbi",
        covariance_type: str = "diag",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: Any = False,
        params: str = "stmcw",
        init_params: str = "stmcw",
        implementation: str = "log",
        *,
        n_init: int = 1,
        missing: str = "error",
    ) -> None:
        self.n_components = n_components
        self.n_mix = n_mix
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.weights_prior = weights_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.algorithm = algorithm
        self.covariance_type = covariance_type
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
        leaf = "log_cholesky" if by_matrix else "log_scale"
        return {
            "s": ("startprob_", "initial"),
            "t": ("transmat_", "transition"),
            "m": ("means_", "emission.components.mean"),
            "c": ("covars_", f"emission.components.{leaf}"),
            "w": ("weights_", "emission.weights"),
        }

    @property
    def _kind(self) -> str:
        """The type of the family's covariances: those that components share are full there."""
        return "full" if self.covariance_type == "tied" else self.covariance_type

    @property
    def _tied(self) -> int:
        return self.n_mix if self.covariance_type == "tied" else 0

    @property
    def n_features(self) -> int:
        """D."""
        return np.shape(self.means_)[2]

    def _initial(
        self, letter: str, x: np.ndarray, weight: np.ndarray | None, seed: Any
    ) -> np.ndarray:
        states, mix = self.n_components, self.n_mix
        if letter == "w":
            return np.full((states, mix), 1 / mix)
        if letter == "m":
            return self._initial_means(x, weight, seed)
        number = states if self.covariance_type == "tied" else states * mix
        start = covariance_start(x, weight, self.min_covar, self._kind, number)
        return start.reshape(self._covars_shape(x.shape[1]))

    def _initial_means(self, x: np.ndarray, weight: np.ndarray | None, seed: Any) -> np.ndarray:
        clusters = rows.clusters_of(x, self.n_components, weight, seed, 10)
        means = []
        for label in range(self.n_components):
            own = clusters.labels_ == label
            if own.sum() >= self.n_mix:
                inner = None if weight is None else weight[own]
                found = rows.clusters_of(x[own], self.n_mix, inner, seed, 10)
                means.append(found.cluster_centers_)
            else:
                spread = covariance_start(x, weight, self.min_covar, "tied", 1)
                center = clusters.cluster_centers_.mean(0)
                random = check_random_state(seed)
                means.append(random.multivariate_normal(center, spread, self.n_mix))
        return np.stack(means)

    def _covars_shape(self, size: int) -> tuple[int, ...]:
        states, mix = self.n_components, self.n_mix
        return {
            "spherical": (states, mix),
            "tied": (states, size, size),
            "diag": (states, mix, size),
            "full": (states, mix, size, size),
        }[self.covariance_type]

    def _check_emission(self, x: np.ndarray | None) -> None:
        states, mix, kind = self.n_components, self.n_mix, self.covariance_type
        if np.shape(self.weights_) != (states, mix):
            raise ValueError(
                "weights_ must have shape (n_components, n_mix), actual shape: "
                f"{np.shape(self.weights_)}"
            )
        steps.check_sums(self.weights_, "weights_")
        means = np.asarray(self.means_)
        size = means.shape[-1] if x is None else x.shape[1]
        if means.shape != (states, mix, size):
            raise ValueError(
                "means_ must have shape (n_components, n_mix, n_features), actual shape: "
                f"{means.shape}"
            )
        covars, shape = np.asarray(self.covars_), self._covars_shape(size)
        if covars.shape != shape:
            raise ValueError(
                f"{kind!r} mixture covars must have shape {shape}, actual shape: {covars.shape}"
            )
        if kind in ("spherical", "diag"):
            if not np.all(covars > 0):
                raise ValueError(f"{kind!r} mixture covars must be positive")
            return
        for place in np.ndindex(covars.shape[:-2]):
            if not is_covariance(covars[place]):
                names = ("state", "mixture")
                where = ", ".join(f"{name} #{i}" for name, i in zip(names, place, strict=False))
                how = "symmetric" if not np.allclose(covars[place], covars[place].T) else None
                raise ValueError(f"Covariance of {where} is not {how or 'positive definite'}")

    def _emission(self, num_rows: int) -> Any:
        means, covars = np.asarray(self.means_), np.asarray(self.covars_)
        states, mix, size = means.shape
        if self.covariance_type == "tied":
            covars = np.repeat(covars, mix, 0)
        covars = covars.reshape(types.shape_of(self._kind, states * mix, size))
        factor = types.factor_of(self._kind, covars)
        inner = types.family_of(self._kind, means.reshape(-1, size), factor, num_rows)
        return MixtureFamily(table_of(self.weights_, means.dtype), inner)

    def _publish(self, emission: Any) -> None:
        states, mix = self.n_components, self.n_mix
        factor = types.factor_of_family(emission.components)
        covars = types.covariances_of(self._kind, factor)
        self.means_ = np.array(emission.components.mean).reshape(states, mix, -1)
        if self.covariance_type == "tied":
            covars = covars[::mix]
        self.covars_ = covars.reshape(self._covars_shape(self.means_.shape[2]))
        self.weights_ = probs_of(emission.weights)

    def _emission_prior(self) -> dict[str, Any]:
        states, mix, size = np.shape(self.means_)
        mean = steps.spread_over(self.means_prior, (states, mix, size), "means_prior")
        weight = steps.spread_over(self.means_weight, (states, mix), "means_weight")
        counts = steps.spread_over(self.weights_prior, (states, mix), "weights_prior")
        scatter, scatter_weight = self._covars_prior(states, mix, size)
        return {
            "inner_weights": counts - 1,
            "mean": mean.reshape(-1, size),
            "mean_weight": weight.ravel(),
            "scatter": scatter,
            "scatter_weight": scatter_weight,
        }

    def _covars_prior(self, states: int, mix: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Scatter [KM, D, D] and weight [KM] that are pretended of every component."""
        kind, members, identity = self.covariance_type, states * mix, np.eye(size)
        first, second = {
            "full": (0.0, -(size + 2.0)),
            "tied": (0.0, -(mix + size + 1.0)),
            "diag": (-1.5, 0.0),
            "spherical": (-(mix + 2.0) / 2, 0.0),
        }[kind]
        prior = first if self.covars_prior is None else self.covars_prior
        weight = second if self.covars_weight is None else self.covars_weight
        if kind in ("full", "tied"):
            shape = (states, mix) if kind == "full" else (states,)
            scatter = steps.spread_over(prior, (*shape, size, size), "covars_prior")
            degrees = steps.spread_over(weight, shape, "covars_weight")
            if kind == "full":
                return scatter.reshape(-1, size, size), degrees.ravel() + size + 2
            each = np.repeat((degrees + mix + size + 1) / mix, mix)
            return np.repeat(scatter / mix, mix, 0), each
        if kind == "spherical":
            alpha = steps.spread_over(prior, (states, mix), "covars_prior").ravel()
            beta = steps.spread_over(weight, (states, mix), "covars_weight").ravel()
            return 2 * beta[:, None, None] / size * identity, 1 + 2 * (alpha + 1) / size
        alpha = steps.spread_over(prior, (states, mix, size), "covars_prior")
        beta = steps.spread_over(weight, (states, mix, size), "covars_weight")
        if np.any(alpha != alpha[..., :1]):
            raise ValueError("covars_prior must be the same for all features of a component.")
        scatter = 2 * beta.reshape(members, size)[:, :, None] * identity
        return scatter, 1 + 2 * (alpha[..., 0].ravel() + 1)

    def _draw(self, state: int, random: Any) -> np.ndarray:
        component = random.choice(self.n_mix, p=self.weights_[state])
        kind, size = self.covariance_type, self.n_features
        covars = self.covars_[state] if kind == "tied" else self.covars_[state][component]
        covariance = covars if kind in ("tied", "full") else covars * np.eye(size)
        return random.multivariate_normal(self.means_[state][component], covariance)

    def _num_emission_parameters(self) -> int:
        states, mix, size = np.shape(self.means_)
        number = states if self.covariance_type == "tied" else states * mix
        covariances = types.num_covariance_parameters(self._kind, number, size)
        return states * mix * size + covariances + num_free(self.weights_)

    def _expected(self) -> np.ndarray:
        return np.sum(np.asarray(self.weights_)[..., None] * self.means_, 1)
