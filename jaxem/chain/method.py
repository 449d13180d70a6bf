"""Which algorithm answers: all give the same numbers, and none is the fastest everywhere."""

from typing import Any

from jaxem.chain.potentials import Potentials
from jaxem.platform import is_cpu

METHODS = {
    "sequential": "rescaled probabilities, one scan a direction",
    "stacked": "the same, both directions in one scan",
    "blocked": "blocks of T^⅓ steps side by side: 5·T^⅓ steps in a row for K times the work",
    "log": "logarithms throughout: K² exponentials a step, right without a proof",
}
LONG = 10_000  # steps from which an accelerator works in blocks: 5·T^⅓ launches beat T
FEW_STATES = 32  # up to which K times the work is hidden behind them
FEW_SEQUENCES = 64  # up to which a step leaves most of an accelerator idle


def check_method(method: Any) -> None:
    """Raise a ValueError unless this is None or one of `METHODS`."""
    if method is not None and method not in list(METHODS):
        names = ", ".join(f"{name!r}" for name in METHODS)
        raise ValueError(f"method must be None or one of {names}, got {method!r}.")


def choose(p: Potentials, method: str | None) -> str:
    """The method asked for or, for None, the one that suits the platform and the shape.

    A CPU takes "sequential", and so do transitions that change with time, anywhere.  An accelerator
    takes "blocked" from T = 10,000 on with at most 32 states and 64 sequences, else "stacked".

    Raises:
        ValueError: one that needs a shared transition matrix without one.
    """
    if method is None:
        if is_cpu() or not p.is_shared:
            return "sequential"
        few = p.num_states <= FEW_STATES and p.emission[0, 0].size <= FEW_SEQUENCES
        return "blocked" if few and p.num_steps >= LONG else "stacked"
    if method in ("stacked", "blocked") and not p.is_shared:
        raise ValueError(
            f"method {method!r} needs one transition matrix [K, K] for all steps, got one a step; "
            "use 'sequential' or 'log'."
        )
    return method
