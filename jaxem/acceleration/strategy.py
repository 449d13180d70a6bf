"""The strategies by name, and what each consists of."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any

from jaxtyping import Array, Bool

from jaxem.acceleration import lbfgs, plain, squarem
from jaxem.acceleration.judged import Judged
from jaxem.pytree import child_names


@dataclass(frozen=True)
class Strategy:
    """How to choose the next model.

    Its memory has a field `trial`: whether the model that comes next before an E-step is none that
    an M-step made from the accepted one.  A trial is judged by the strategy, every other model by
    the loop.
    """

    begin: Callable[[Any], Any]  # (model) -> memory
    passes: Callable[[Any, Judged], Bool[Array, ""]]  # whether to go on from a trial
    # (memory, judged, whether it passed) -> (next model, whether the trial is accepted, memory)
    follow: Callable[[Any, Judged, Array], tuple[Any, Bool[Array, ""], Any]]


STRATEGIES = {
    None: Strategy(plain.begin, plain.passes, plain.follow),
    "squarem": Strategy(squarem.begin, squarem.passes, squarem.follow),
    "lbfgs": Strategy(lbfgs.begin, lbfgs.passes, lbfgs.follow),
}


def check_accelerate(accelerate: str | None, model: Any) -> None:
    """Raise a ValueError unless this is None or names a strategy that the model can serve."""
    if accelerate not in STRATEGIES:
        *names, last = map(repr, STRATEGIES)
        raise ValueError(f"accelerate must be {', '.join(names)} or {last}, got {accelerate!r}.")
    if accelerate == "lbfgs" and (lacking := _without_objective(model)):
        raise ValueError(
            f"accelerate='lbfgs' needs the gradient of Q, and {lacking} has no expected_log_prob; "
            "give it one, or take accelerate='squarem'."
        )


def _without_objective(model: Any) -> str | None:
    """The class of the model, or of a part with an M-step, that cannot say what Q is."""
    parts = [getattr(model, name) for name in child_names(model)] if is_dataclass(model) else []
    for part in (model, *(part for part in parts if hasattr(part, "maximize"))):
        if not hasattr(part, "expected_log_prob"):
            return type(part).__name__
    return None
