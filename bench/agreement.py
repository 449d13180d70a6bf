"""Whether two libraries computed the same: scores in float64 NumPy, and how far they may differ."""

from typing import Any

import numpy as np

from bench.inputs import Inputs
from bench.workloads import LATTICES, MIXTURE_GROUP, SMOOTHING, VITERBI, Workload

# Log-likelihoods and path scores, relative; posterior probabilities, absolute.  In float32 every
# step of EM or of a recursion rounds by 6e-8 and later steps carry it along: 16 roundings are
# allowed for a sum, and for single probabilities a thousand.  Losses of lattices, relative, and
# their gradients as multiples of the largest loss: probabilities taken as exp(alpha + beta - loss)
# are as far off as these sums round, and 64 of their roundings are allowed.
TOLERANCES = {
    "float64": {"score": 1e-9, "gamma": 1e-9, "gradient": 1e-12},
    "float32": {"score": 1e-6, "gamma": 6e-5, "gradient": 4e-6},
}
CHUNK = 1 << 22  # numbers of one temporary array


def difference(workload: Workload, inputs: Inputs, ours: Any, theirs: Any) -> float:
    """How far two answers are apart, in the unit of the tolerance; NaN is far."""
    if workload.group == SMOOTHING:
        return float(np.max(np.abs(ours["gamma"].astype(float) - theirs["gamma"])))
    if workload.group in LATTICES:
        return _lattice_difference(ours, theirs)
    one, other = (score(workload, inputs, answer) for answer in (ours, theirs))
    return abs(one - other) / abs(one)


def tolerance(workload: Workload, dtype: str) -> float:
    """The largest difference at which a peer is compared."""
    lattice = "gradient" if workload.group in LATTICES else "score"
    return TOLERANCES[dtype]["gamma" if workload.group == SMOOTHING else lattice]


def _lattice_difference(ours: Any, theirs: Any) -> float:
    """Of losses, relative, or of gradients over the largest loss; NaN stays NaN."""
    losses, gradient = (ours[name].astype(float) for name in ("losses", "gradient"))
    relative = np.max(np.abs(theirs["losses"] / losses - 1))
    return float(np.maximum(relative, np.max(np.abs(theirs["gradient"] - gradient)) / losses.max()))


def score(workload: Workload, inputs: Inputs, answer: Any) -> float:
    """Log-likelihood of fitted parameters, or log-weight of a path, from float64 inputs."""
    if workload.group == VITERBI:
        return path_score(inputs, answer["path"])
    try:
        with np.errstate(divide="ignore"):  # a probability that reached 0 is no mistake
            if workload.group == MIXTURE_GROUP:
                return mixture_log_likelihood(inputs.x, answer)
            return hmm_log_likelihood(workload, inputs.x, answer)
    except np.linalg.LinAlgError:
        return float("nan")  # a covariance that is none


def path_score(inputs: Inputs, path: Any) -> float:
    """Log-weight of the paths [B, T]."""
    initial, transition = np.log(inputs.start["initial"]), np.log(inputs.start["transition"])
    emission = np.take_along_axis(inputs.x, path[..., None].astype(int), 2)
    moves = transition[path[:, :-1], path[:, 1:]]
    return float(initial[path[:, 0]].sum() + moves.sum() + emission.sum())


def log_densities(x: Any, means: Any, covariances: Any) -> Any:
    """log N(x_n; μ_k, Σ_k) [N, K]; covariances [K, D, D] or variances [K, D]."""
    result = np.empty((len(x), len(means)))
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        if covariance.ndim == 1:
            whiten: Any = 1 / np.sqrt(covariance)
            squares = np.sum(((x - mean) * whiten) ** 2, 1)
            half_log_det = -np.sum(np.log(whiten))
        else:
            factor = np.linalg.cholesky(covariance.astype(float))
            squares = np.sum(((x - mean) @ np.linalg.inv(factor).T) ** 2, 1)
            half_log_det = np.sum(np.log(np.diagonal(factor)))
        result[:, k] = -0.5 * squares - half_log_det - 0.5 * x.shape[1] * np.log(2 * np.pi)
    return result


def mixture_log_likelihood(x: Any, answer: Any) -> float:
    """ℓ of a Gaussian mixture."""
    means, covariances = (np.asarray(answer[name], float) for name in ("means", "covariances"))
    log_weights = np.log(np.asarray(answer["weights"], float))
    rows = max(1, CHUNK // max(means.shape))
    total = 0.0
    for begin in range(0, len(x), rows):
        log_joint = log_weights + log_densities(x[begin : begin + rows], means, covariances)
        total += float(np.logaddexp.reduce(log_joint, 1).sum())
    return total


def hmm_log_likelihood(workload: Workload, x: Any, answer: Any) -> float:
    """ℓ of a hidden Markov model by the rescaled forward recursion, all sequences at once."""
    parts = {name: np.asarray(part, float) for name, part in answer.items() if name != "ended"}
    if workload.kind == "categorical":
        log_emission = np.log(parts["table"].T)[x]
    else:
        rows = x.reshape(workload.num_observations, -1)
        log_emission = log_densities(rows, parts["means"], parts["covariances"])
        log_emission = log_emission.reshape(*x.shape[:2], -1)
    peak = log_emission.max(2)
    emission = np.exp(log_emission - peak[..., None])
    sums = np.empty(peak.shape)
    alpha = np.broadcast_to(parts["initial"], emission[:, 0].shape)
    for t in range(emission.shape[1]):
        alpha = (alpha @ parts["transition"] if t else alpha) * emission[:, t]
        sums[:, t] = alpha.sum(1)
        alpha = alpha / sums[:, t, None]
    return float(np.log(sums).sum() + peak.sum())
