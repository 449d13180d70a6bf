"""HMMs of symbols with hmmlearn's interface."""

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from jaxem.sklearn import steps, symbols
from jaxem.sklearn.hmm_estimator import HMMEstimator
from jaxem.sklearn.tables import num_free, probs_of, table_of


class CategoricalHMM(HMMEstimator):
    """An HMM of symbols fitted by EM: hmmlearn's, with what it lacks.

    Symbols are whole numbers from 0, in one column [N, 1].  Arguments, attributes, methods and
    differences are those of `GaussianHMM` where both have them; see there.  Besides:

    * A 0 in `emissionprob_` stays 0, also under a prior.
    * `n_features` stays as it was given; how many symbols there are is `emissionprob_.shape[1]`.
    * Several columns are independent given the state: `emissionprob_` is then [K, D, V].  hmmlearn
      takes them for steps one after the other, with a warning.
    * Symbols in floating point are accepted if they are whole.

    Args:
        n_components: K.
        emissionprob_prior: Dirichlet parameters.
        n_features: V, how many symbols there are, a number or one a column; None for those seen.
            Others are refused.
        params, init_params: letters; "e" is emissionprob_.

    Attributes:
        emissionprob_: [K, V], or [K, D, V] for several columns.

    Examples:
        >>> import numpy as np
        >>> from jaxem.sklearn import CategoricalHMM
        >>> X = np.array([[0], [0], [0], [1], [1], [1], [0], [0]])
        >>> model = CategoricalHMM(n_components=2, n_iter=50, random_state=1).fit(X)
        >>> model.emissionprob_.shape
        (2, 2)
        >>> model.score([[0], [1]]) < 0
        True
    """

    _letters: ClassVar[dict[str, tuple[str, str]]] = {
        "s": ("startprob_", "initial"),
        "t": ("transmat_", "transition"),
        "e": ("emissionprob_", "emission.logits"),
    }

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **HMMEstimator._parameter_constraints,
        "n_features": [Interval(Integral, 1, None, closed="left"), "array-like", None],
    }

    def __init__(
        self,
        n_components: int = 1,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        *,
        emissionprob_prior: Any = 1.0,
        n_features: Any = None,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: Any = False,
        params: str = "ste",
        init_params: str = "ste",
        implementation: str = "log",
        n_init: int = 1,
        missing: str = "error",
    ) -> None:
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.emissionprob_prior = emissionprob_prior
        self.n_features = n_features
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

    def _convert(self, x: np.ndarray) -> np.ndarray:
        there = ~np.isnan(x)
        if np.any(x[there] != np.round(x[there])):
            raise ValueError("Symbols should be integers")
        if np.any(x[there] < 0):
            place = np.argwhere(x < 0)[0].tolist()
            raise ValueError(
                "Symbols should be nonnegative. Negative values in data passed to X in "
                f"{type(self).__name__}: {x[*place]:.0f} at row {place[0]}, column {place[1]}."
            )
        return x

    def _initial(
        self, letter: str, x: np.ndarray, weight: np.ndarray | None, seed: Any
    ) -> np.ndarray:
        number = symbols.numbers_of(x, self.n_features)
        columns = () if x.shape[1] == 1 else (x.shape[1],)
        probs = check_random_state(seed).rand(self.n_components, *columns, number.max())
        probs *= np.arange(number.max()) < (number[:, None] if columns else number)
        return probs / probs.sum(-1, keepdims=True)

    def _check_emission(self, x: np.ndarray | None) -> None:
        probs = self.emissionprob_ = np.atleast_2d(self.emissionprob_)
        given = self.n_features
        number = probs.shape[-1] if given is None else int(np.max(np.asarray(given)))
        columns = probs.shape[1:-1] if x is None or x.shape[1] == 1 else x.shape[1:]
        shape = (self.n_components, *columns, number)
        if probs.shape != shape:
            raise ValueError(f"emissionprob_ must have shape {shape}")
        steps.check_sums(probs, "emissionprob_")
        if x is not None:
            symbols.check_range(x, self._numbers(x.shape[1]))

    def _numbers(self, num_columns: int) -> np.ndarray:
        """How many symbols each column has [D]; of several, up to the last that a state emits."""
        if num_columns == 1:
            return np.array([self.emissionprob_.shape[-1]])
        emitted = np.any(np.asarray(self.emissionprob_) > 0, 0)
        return emitted.shape[-1] - np.argmax(emitted[:, ::-1], 1)

    def _emission(self, num_rows: int) -> Any:
        probs = np.asarray(self.emissionprob_)
        return table_of(probs[:, None] if probs.ndim == 2 else probs, probs.dtype)

    def _publish(self, emission: Any) -> None:
        probs = probs_of(emission)
        self.emissionprob_ = probs[:, 0] if probs.shape[1] == 1 else probs

    def _emission_prior(self) -> dict[str, Any]:
        shape = np.shape(self.emissionprob_)
        counts = steps.spread_over(self.emissionprob_prior, shape, "emissionprob_prior") - 1
        return {"symbols": counts[:, None] if len(shape) == 2 else counts}

    def _draw(self, state: int, random: Any) -> np.ndarray:
        edges = np.cumsum(np.atleast_2d(self.emissionprob_[state]), -1)
        return np.array([(edge > random.rand()).argmax() for edge in edges])

    def _num_emission_parameters(self) -> int:
        return num_free(self.emissionprob_)

    def _expected(self) -> np.ndarray:
        return np.asarray(self.emissionprob_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.categorical = True
        return tags
