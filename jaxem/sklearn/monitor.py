"""How an HMM's fit went, as hmmlearn's models tell it."""

from collections import deque
from dataclasses import dataclass, field


@dataclass
class ConvergenceMonitor:
    """The record of a fit by EM.

    Where hmmlearn's says `converged` also when the steps ran out, this one does not.  The history
    holds what EM raises, the log-likelihood and under a prior its logarithm too, which hmmlearn's
    leaves out and which may make that one fall.

    Examples:
        >>> from jaxem.sklearn.monitor import ConvergenceMonitor
        >>> ConvergenceMonitor(tol=0.01, n_iter=10, verbose=False).converged
        False
    """

    tol: float  # the smallest gain that goes on, in nats of all data
    n_iter: int  # most steps
    verbose: bool  # whether steps are shown
    history: deque = field(default_factory=deque)  # at the start and after each step
    iter: int = 0  # steps taken
    converged: bool = False  # whether the last step gained no more than `tol`
