"""Observed information, standard errors and confidence intervals at a fitted model."""

from dataclasses import dataclass
from operator import attrgetter
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxem import em, parameters
from jaxem.comparison import derivatives
from jaxem.comparison.coordinates import COORDINATES
from jaxem.comparison.curvature import DENSE, Curvature, curvature_of
from jaxem.comparison.fixed_point import (
    MAXIMUM,
    directions,
    kind_of,
    slack_of,
    why_not,
)
from jaxem.comparison.objective import at_leaves
from jaxem.comparison.parts import split
from jaxem.comparison.step import Step, take_step
from jaxem.comparison.survey import Survey, survey
from jaxem.families.categorical import Categorical

# The scale on which an interval is symmetric: one that keeps it inside the quantity's range.
SCALES = {"probs": "logit", "rate": "log", "variance": "log"}


@dataclass(frozen=True)
class Information:
    """How well the data determine each parameter of a fitted model.

    Matrices are in the `coordinates`, R of them: the leaves of the model less the largest logit of
    each row, which the others are measured against, and less what is frozen or at the edge of its
    range (a probability of 0, a covariance at its floor).  Quantities, Q of them, are the numbers
    one reads: probabilities, means, covariances (the lower triangle), rates.  A quantity that the
    data do not determine, or that is at the edge of its range, has NaN for its standard error.
    """

    coordinates: tuple[str, ...]  # R names, "weights.logits[1]"
    observed: Float[np.ndarray, "R R"]  # −∇²(ℓ + log-prior), complete − missing
    complete: Float[np.ndarray, "R R"]  # −∇²Q: had the latent variables been seen
    missing: Float[np.ndarray, "R R"]  # the variance of the complete-data score given the data
    discrepancy: float  # of `observed` and the Hessian by autodiff, relative to `complete`
    eigenvalues: Float[np.ndarray, " R"]  # fractions of missing information, ascending
    kind: str  # "maximum", "saddle" or "not identified"
    names: tuple[str, ...]  # Q names, "components.mean[0,1]"
    estimate: Float[np.ndarray, " Q"]
    standard_error: Float[np.ndarray, " Q"]
    lower: Float[np.ndarray, " Q"]  # ends of the confidence interval
    upper: Float[np.ndarray, " Q"]
    missing_fraction: Float[np.ndarray, " Q"]  # the share of a variance that latent variables cost
    level: float  # of the confidence intervals

    @property
    def rate(self) -> float:
        """EM's rate of convergence: the largest fraction of missing information."""
        return float(np.abs(self.eigenvalues).max())

    def __getitem__(self, name: str) -> tuple[float, float]:
        """Estimate and standard error of the quantity of this name."""
        if name not in self.names:
            raise KeyError(f"no quantity is named {name!r}; there are {', '.join(self.names)}.")
        index = self.names.index(name)
        return float(self.estimate[index]), float(self.standard_error[index])

    def __str__(self) -> str:
        header = ("quantity", "estimate", "std. error", "lower", "upper", "missing")
        numbers = zip(self.estimate, self.standard_error, self.lower, self.upper, strict=True)
        rows = [
            header,
            *(
                (name, *(f"{number:.6g}" for number in row), f"{share:.3f}")
                for name, row, share in zip(self.names, numbers, self.missing_fraction, strict=True)
            ),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = [
            "  ".join(
                f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        kind = "a strict local maximum" if self.kind == MAXIMUM else self.kind
        return "\n".join(
            [
                f"{kind}, rate of convergence {self.rate:.6g}, {100 * self.level:g}% intervals",
                *lines,
            ]
        )


def information(
    model: Any,
    data: Any,
    *,
    prior: em.Prior | None = None,
    frozen: str | parameters.Names = (),
    level: float = 0.95,
) -> Information:
    """Observed information and standard errors of a fitted model.

    The observed information is the complete-data information less the missing (Louis 1982), the
    latter through products of the second derivative of log Z with vectors: O(P) E-steps, memory
    O(chunk) beyond the matrices.  `discrepancy` compares it with the Hessian of ℓ by autodiff.
    Standard errors of the quantities follow by the delta method; an interval is symmetric on the
    scale that keeps it in range, the logit of a probability and the log of a rate or a variance.
    With a prior they are those of a Laplace approximation at the MAP estimate.

    Args:
        model: a model at a fixed point of EM, as `fit` returns it.
        data: what it was fitted to.
        prior: the prior of the fit.
        frozen: the parts held fixed in the fit; they have no standard errors.
        level: the coverage of the intervals, between 0 and 1.

    Raises:
        ValueError: a model that one EM step still moves (fit it first), an M-step without a closed
            form, more than 1000 parameters, a level that is none.

    Examples:
        >>> import jaxem
        >>> from jaxem.comparison.examples import LINKAGE, Linkage
        >>> model = jaxem.fit(Linkage.from_theta(0.5), LINKAGE).model
        >>> found = jaxem.information(model, LINKAGE)
        >>> estimate, standard_error = found["theta"]
        >>> print(f"{estimate:.3f} ± {standard_error:.3f}, {found.kind}, rate {found.rate:.3f}")
        0.627 ± 0.051, maximum, rate 0.133
    """
    if not 0.5 < 0.5 + level / 2 < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    step = take_step(model, data, prior, frozen)
    curvature = curvature_of(step)
    _refuse(step, survey(step), curvature)
    identified = curvature.layout.identified
    free = jnp.asarray(curvature.layout.interior)
    rows = jnp.asarray(directions(curvature), step.dtype)
    assert curvature.hessian is not None  # there are few enough parameters
    complete = -curvature.hessian[np.ix_(identified, identified)]
    found = derivatives.missing_information(step.model, free, step.data, rows)
    missing = _symmetric(np.asarray(found, float)[:, identified])
    found = derivatives.log_likelihood_hessian(step.model, free, step.data, step.prior, rows)
    direct = -_symmetric(np.asarray(found, float)[:, identified])
    observed = complete - missing
    factor = np.linalg.cholesky(complete)
    discrepancy = float(np.max(np.abs(_whitened(factor, observed - direct))))
    shares, vectors = np.linalg.eigh(_whitened(factor, missing))
    slack = step.tolerance.jacobian + slack_of(step, curvature)
    names, values, slopes, at_edge = _quantities(step, curvature, model)
    pulled = np.linalg.solve(factor, slopes.T)  # [R, Q], in the metric of the complete information
    along = np.dot(vectors.T, pulled)
    known = shares < 1 - slack
    variance = np.sum(along[known] ** 2 / (1 - shares[known])[:, None], 0)
    complete_variance = np.sum(pulled**2, 0)
    lost = np.sum(along[~known] ** 2, 0) > slack * complete_variance
    none = lost | at_edge | (complete_variance == 0)
    error = np.sqrt(np.where(none, np.nan, variance))
    lower, upper = _interval(names, values, error, NormalDist().inv_cdf((1 + level) / 2))
    return Information(
        tuple(curvature.layout.names[index] for index in identified),
        observed,
        complete,
        missing,
        discrepancy,
        shares,
        kind_of(float(np.abs(shares).max()), slack),
        names,
        values,
        error,
        lower,
        upper,
        np.where(none, np.nan, 1 - complete_variance / np.where(none, 1, variance)),
        level,
    )


def _refuse(step: Step, surveyed: Survey, curvature: Curvature) -> None:
    why = why_not(step, surveyed, curvature)
    if why:
        remedy = " Fit the model first." if why.startswith("not at") else ""
        raise ValueError(f"there are no standard errors to be had: {why}.{remedy}")
    if curvature.hessian is None:
        raise ValueError(
            f"the model has {len(curvature.unit)} parameters; information matrices are formed for "
            f"at most {DENSE}. Freeze some of its parts."
        )


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return 0.5 * (matrix + matrix.T)


def _whitened(factor: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """L⁻¹ A L⁻ᵀ."""
    return np.linalg.solve(factor, np.linalg.solve(factor, matrix).T)


def quantities_of(part: Any) -> tuple[tuple[str, str], ...]:
    """Leaf and quantity names of a part: those of the textbooks, or those it names itself."""
    leaves = parameters.leaf_names(part)
    if type(part) in COORDINATES:
        return tuple(zip(leaves, COORDINATES[type(part)].names, strict=True))
    own = getattr(part, "quantities", {})
    return tuple((leaf, own.get(leaf, leaf)) for leaf in leaves)


def _read(model: Any) -> Float[Array, " Q"]:
    pieces = [
        _entries(name, attrgetter(name)(part))
        for _, part in split(model)
        for _, name in quantities_of(part)
    ]
    return jnp.concatenate(pieces)


def _entries_of(part: Any) -> int:
    """How many numbers the quantities of a part are."""
    return sum(len(_entries(name, attrgetter(name)(part))) for _, name in quantities_of(part))


def _entries(name: str, value: Array) -> Float[Array, " q"]:
    """A quantity as a vector; of a covariance the lower triangle alone."""
    if name == "covariance":
        return value[(..., *np.tril_indices(value.shape[-1]))].ravel()
    return jnp.ravel(value)


@jax.jit
def _slopes(model: Any, free: Bool[Array, " P"]) -> Float[Array, "Q P"]:
    start = jnp.where(free, parameters.ravel(model), 0)
    return jax.jacobian(lambda vector: _read(at_leaves(model, free, vector)))(start)


def _quantities(
    step: Step, curvature: Curvature, model: Any
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
    """Names, values in the coordinates of the data, slopes [Q, R] in identified leaves, and what
    is a probability at the edge of its range, that moves only as the rest of its row does.
    """
    names: list[str] = []
    edge: list[np.ndarray] = []
    interior = curvature.layout.interior
    for index, (_, piece) in enumerate(split(model)):
        own = ~interior[curvature.layout.part == index]
        size = _entries_of(piece)
        edge.append(own if isinstance(piece, Categorical) else np.zeros(size, bool))
    for part, piece in split(model):
        for _, name in quantities_of(piece):
            prefix = f"{part}.{name}" if part else name
            value = np.asarray(attrgetter(name)(piece))
            places = list(np.ndindex(value.shape))
            if name == "covariance":
                places = [place for place in places if place[-1] <= place[-2]]
            names += [prefix + (f"[{','.join(map(str, p))}]" if p else "") for p in places]
    slopes = np.asarray(_slopes(step.model, jnp.asarray(curvature.layout.interior)), float)
    values = np.asarray(_read(em.cast(model, step.dtype)), float)
    slopes = slopes[:, curvature.layout.identified]
    return tuple(names), values, slopes, np.concatenate(edge)


def _interval(
    names: tuple[str, ...], estimate: np.ndarray, error: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    ends = np.stack([estimate - width * error, estimate + width * error])
    for index, name in enumerate(names):
        quantity = name.split("[")[0].rpartition(".")[2]
        scale = SCALES.get(quantity)
        if quantity == "covariance":
            i, j = name.rstrip("]").split(",")[-2:]
            scale = "log" if i.rpartition("[")[2] == j else None
        value, wide = estimate[index], width * error[index]
        if scale is None or not np.isfinite(wide) or value == 0:
            continue
        if scale == "log":
            with np.errstate(over="ignore"):  # an upper end of infinity says what it means
                ends[:, index] = value * np.exp(np.array([-1, 1]) * wide / value)
        elif 0 < value < 1:
            reach = np.array([-1, 1]) * wide / (value * (1 - value))
            ends[:, index] = 0.5 + 0.5 * np.tanh(0.5 * (np.log(value / (1 - value)) + reach))
    return ends[0], ends[1]
