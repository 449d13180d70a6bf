"""What a search found: every fit, ranked."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxem import em
from jaxem.many.criteria import HIGHEST, check_criterion

SAME_OPTIMUM = 0.01  # nats: fits as close as this are statistically one
RESOLUTION = 1e-6  # of the log-likelihood: float32 tells no less apart


def nearness(objective: Any, within: float = SAME_OPTIMUM) -> Any:
    """How far two fits may be apart, in nats, and have found one optimum."""
    return np.maximum(within, RESOLUTION * np.abs(objective))


@dataclass(frozen=True, repr=False)
class SearchResult:
    """All fits of a search: S data sets, C candidates, R restarts.

    The degrees of freedom are the entries of the start's leaves that can move: structural zeros
    and frozen parts are left out, a simplex of V possible entries counts V − 1, and the initial
    distribution of a hidden Markov model counts.  The n of BIC and ICL is the number of rows or of
    time steps, or the sum of their weights.

    Examples:
        >>> import jax, jaxem
        >>> from jaxem.initialize import Start, kmeans_plus_plus
        >>> quakes = jaxem.datasets.earthquakes()
        >>> orders = [Start(kmeans_plus_plus, jaxem.Poisson, k) for k in (1, 2)]
        >>> result = jaxem.search(jax.random.key(0), quakes, orders, restarts=3)
        >>> result.names[result.ranking()[0]], result.num_parameters[0, :, 0].tolist()
        ('Poisson, K=2', [1, 3])
        >>> result.found().tolist(), len(result.records())
        ([[3, 3]], 6)
    """

    criterion: str  # by which `best` decides
    names: tuple[str, ...]  # of the candidates
    num_components: tuple[int | None, ...]  # K of each candidate; None: its model names none
    fits: tuple[em.EMResult, ...]  # of each candidate; leaves [S, R, ...]
    num_observations: np.ndarray  # [S]
    classification: np.ndarray  # [S, C, R] log p(x, ẑ) at the most probable ẑ; NaN: unknown
    cv: np.ndarray | None  # [S, C] log-likelihood of what was left out, summed over folds

    def __repr__(self) -> str:
        sets, count, restarts = self.log_likelihood.shape
        what = f"{count} candidates x {restarts} restarts x {sets} data sets"
        return f"SearchResult({what}, criterion={self.criterion!r})"

    def _each(self, name: str) -> np.ndarray:
        return np.stack([np.asarray(getattr(fit, name)) for fit in self.fits], 1)

    @property
    def log_likelihood(self) -> np.ndarray:
        """ℓ of every fit, [S, C, R]."""
        return self._each("log_likelihood")

    @property
    def num_parameters(self) -> np.ndarray:
        """Degrees of freedom of every fit, [S, C, R]."""
        return self._each("num_parameters")

    @property
    def is_sound(self) -> np.ndarray:
        """Whether a fit may be the best one, [S, C, R]: finite, and it never fell."""
        end = self._each("end")
        return np.isfinite(self.log_likelihood) & (end != em.NON_FINITE) & (end != em.FELL)

    @property
    def aic(self) -> np.ndarray:
        """−2ℓ + 2p of every fit, [S, C, R]: smaller is better.  Akaike (1974)."""
        return 2 * (self.num_parameters - self.log_likelihood)

    @property
    def bic(self) -> np.ndarray:
        """−2ℓ + p log n of every fit, [S, C, R]: smaller is better.  Schwarz (1978)."""
        return self._penalty - 2 * self.log_likelihood

    @property
    def icl(self) -> np.ndarray:
        """−2 log p(x, ẑ) + p log n of every fit, [S, C, R]: smaller is better.

        BIC with the completed likelihood: it wants components that are told apart.  Biernacki,
        Celeux & Govaert (2000).
        """
        return self._penalty - 2 * self.classification

    @property
    def _penalty(self) -> np.ndarray:
        return self.num_parameters * np.log(self.num_observations)[:, None, None]

    @property
    def best_restart(self) -> np.ndarray:
        """The restart with the highest objective, [S, C]; of sound fits if there are any."""
        objective = self.log_likelihood + self._each("log_prior")
        return np.argmax(np.where(self.is_sound, objective, -np.inf), 2)

    def scores(self, criterion: str | None = None) -> np.ndarray:
        """The criterion of every candidate's best restart, [S, C]; NaN where none is sound.

        Raises:
            ValueError: no such criterion, or cross-validation that was not asked for.
        """
        criterion = self.criterion if criterion is None else criterion
        check_criterion(criterion)
        if criterion == "cv":
            if self.cv is None:
                raise ValueError("search was not asked for criterion='cv': it left nothing out.")
            return np.where(self.is_sound.any(2), self.cv, np.nan)
        best = self.best_restart[..., None]
        values = np.where(self.is_sound, getattr(self, criterion), np.nan)
        return np.take_along_axis(values, best, 2)[..., 0]

    def ranking(self, data_set: int = 0, criterion: str | None = None) -> np.ndarray:
        """Candidates by number, the best first; those without a sound fit last."""
        criterion = self.criterion if criterion is None else criterion
        scores = self.scores(criterion)[data_set]
        return np.argsort(-scores if criterion in HIGHEST else scores, kind="stable")

    def best(self, data_set: int = 0, criterion: str | None = None) -> em.EMResult:
        """The best fit of a data set: the best restart of the candidate that comes first.

        Raises:
            ValueError: as `scores` does; no fit of this data set is sound.
        """
        candidate = int(self.ranking(data_set, criterion)[0])
        if not np.any(self.is_sound[data_set, candidate]):
            raise ValueError(
                f"no fit to data set {data_set} is sound; see `table()` for their ends."
            )
        restart = int(self.best_restart[data_set, candidate])
        return jax.tree.map(lambda leaf: leaf[data_set, restart], self.fits[candidate])

    def found(self, within: float = SAME_OPTIMUM) -> np.ndarray:
        """How many restarts of each candidate ended within so many nats of its best, [S, C].

        One of many says that the best optimum may be yet to be found.
        """
        objective = np.where(self.is_sound, self.log_likelihood + self._each("log_prior"), -np.inf)
        best = np.max(objective, 2, keepdims=True)
        near = nearness(np.where(np.isfinite(best), best, 0), within)
        return np.sum((objective >= best - near) & np.isfinite(objective), 2)

    def records(self) -> list[dict[str, Any]]:
        """One line a fit, as dictionaries: what `table` shows, without pandas."""
        columns = {
            "log_likelihood": self.log_likelihood,
            "df": self.num_parameters,
            "aic": self.aic,
            "bic": self.bic,
            "icl": self.icl,
            "steps": self._each("num_steps"),
        }
        ended = np.array(em.OUTCOMES)[self._each("end")]
        lines = []
        for place in np.ndindex(*self.log_likelihood.shape):
            data_set, candidate, restart = place
            line: dict[str, Any] = {
                "data_set": data_set,
                "candidate": self.names[candidate],
                "K": self.num_components[candidate],
                "restart": restart,
            }
            line |= {name: values[place].item() for name, values in columns.items()}
            if self.cv is not None:
                line["cv"] = self.cv[data_set, candidate].item()
            lines.append(line | {"ended": str(ended[place])})
        return lines

    def table(self) -> Any:
        """One line a fit, as a pandas DataFrame.

        Raises:
            ModuleNotFoundError: pandas is not installed; `records` needs none.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "SearchResult.table needs pandas: pip install 'jaxem[cli]'; records() does not."
            ) from error
        return pandas.DataFrame(self.records())
