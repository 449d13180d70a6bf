"""What `verbose` shows: the log-likelihoods of a fit, once it has ended."""

import sys

from jaxem.sklearn.starts import Fitted


def report_mixture(verbose: int, interval: int, fitted: Fitted, total: float) -> None:
    """As scikit-learn's mixtures have it, on standard output."""
    if not verbose:
        return
    lines = ["Initialization 0"]
    changes = (fitted.trace[1:] - fitted.trace[:-1]) / total
    for step, change in enumerate(changes, 1):
        if step % interval == 0:
            detail = f"\t ll change {change:.5f}" if verbose > 1 else ""
            lines.append(f"  Iteration {step}{detail}")
    ended = "converged" if fitted.converged else "did not converge"
    detail = f" lower bound {fitted.trace[-1] / total:.5f}." if verbose > 1 else ""
    lines.append(f"Initialization {ended}.{detail}")
    sys.stdout.write("\n".join(lines) + "\n")


def report_hmm(verbose: bool, fitted: Fitted) -> None:
    """As hmmlearn's models have it, on standard error: step, objective and gain."""
    if not verbose:
        return
    before = [float("nan"), *fitted.trace[:-1]]
    for step, (value, last) in enumerate(zip(fitted.trace, before, strict=True), 1):
        sys.stderr.write(f"{step:>10d} {value:>16.8f} {value - last:>+16.8f}\n")
