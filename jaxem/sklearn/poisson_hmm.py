"""HMMs of counts with hmmlearn's interface."""

from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from jaxem.families import Poisson
from jaxem.sklearn import steps, symbols
from jaxem.sklearn.hmm_estimator import HMMEstimator
from jaxem.sklearn.tables import log_of


class PoissonHMM(HMMEstimator):
    """An HMM with independent Poisson emissions fitted by EM: hmmlearn's, with what it lacks.

    Arguments, attributes, methods and differences are those of `GaussianHMM` where both have them;
    see there.  Besides:

    * `lambdas_prior` events in `lambdas_weight` observations are pretended of every state, beside
      the state's own observations; hmmlearn counts those of all states.
    * A rate of 0 explains zeros, and nothing else.
    * Counts that are not whole are lowered to one that is, with a warning.
    * Counts that are all the same start with that rate, where hmmlearn fails.

    Args:
        n_components: K.
        lambdas_prior, lambdas_weight: pretend events and observations.
        params, init_params: letters; "l" is lambdas_.

    Attributes:
        lambdas_: [K, D], expected counts.

    Examples:
        >>> import numpy as np
        >>> from jaxem.sklearn import PoissonHMM
        >>> X = np.array([[1], [0], [2], [20], [25], [22], [1], [0]])
        >>> model = PoissonHMM(n_components=2, n_iter=100, random_state=0).fit(X)
        >>> sorted(model.lambdas_.round(1).ravel().tolist())
        [0.8, 22.3]
    """

    _letters: ClassVar[dict[str, tuple[str, str]]] = {
        "s": ("startprob_", "initial"),
        "t": ("transmat_", "transition"),
        "l": ("lambdas_", "emission.log_rate"),
    }

    def __init__(
        self,
        n_components: int = 1,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        lambdas_prior: Any = 0.0,
        lambdas_weight: Any = 0.0,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: Any = False,
        params: str = "stl",
        init_params: str = "stl",
        implementation: str = "log",
        *,
        n_init: int = 1,
        missing: str = "error",
    ) -> None:
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.lambdas_prior = lambdas_prior
        self.lambdas_weight = lambdas_weight
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
    def n_features(self) -> int:
        """D."""
        return np.shape(self.lambdas_)[1]

    def _convert(self, x: np.ndarray) -> np.ndarray:
        return symbols.whole(x, self)

    def _initial(
        self, letter: str, x: np.ndarray, weight: np.ndarray | None, seed: Any
    ) -> np.ndarray:
        shape = (self.n_components, x.shape[1])
        by_entry = None if weight is None else np.broadcast_to(weight[:, None], x.shape)
        mean = np.average(x, weights=by_entry)
        variance = np.average((x - mean) ** 2, weights=by_entry)
        if variance == 0:  # no gamma distribution is that narrow
            return np.full(shape, mean)
        random = check_random_state(seed)
        return random.gamma(shape=mean**2 / variance, scale=variance / mean, size=shape)

    def _check_emission(self, x: np.ndarray | None) -> None:
        self.lambdas_ = np.atleast_2d(self.lambdas_)
        size = self.lambdas_.shape[1]
        if len(self.lambdas_) != self.n_components or (x is not None and x.shape[1] != size):
            raise ValueError("lambdas_ must have shape (n_components, n_features)")
        if np.any(self.lambdas_ < 0):
            raise ValueError("lambdas_ must not be negative")

    def _emission(self, num_rows: int) -> Any:
        return Poisson(log_of(self.lambdas_))

    def _publish(self, emission: Any) -> None:
        self.lambdas_ = np.exp(np.asarray(emission.log_rate))

    def _emission_prior(self) -> dict[str, Any]:
        shape = np.shape(self.lambdas_)
        events = steps.spread_over(self.lambdas_prior, shape, "lambdas_prior")
        exposure = steps.spread_over(self.lambdas_weight, (len(events), 1), "lambdas_weight")
        return {"events": events, "exposure": exposure[:, 0]}

    def _draw(self, state: int, random: Any) -> np.ndarray:
        return random.poisson(self.lambdas_[state])

    def _num_emission_parameters(self) -> int:
        return int(np.sum(np.asarray(self.lambdas_) > 0))

    def _expected(self) -> np.ndarray:
        return np.asarray(self.lambdas_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.categorical = True  # whole numbers
        return tags
