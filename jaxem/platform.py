"""What JAX computes on, and how: some algorithms are chosen by it."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax
import jax.experimental
import numpy as np


def is_cpu() -> bool:
    """Whether JAX's default backend is a CPU; looked up while tracing."""
    return jax.default_backend() == "cpu"


def is_wide() -> bool:
    """Whether floating point of 64 bits is switched on here."""
    return jax.dtypes.canonicalize_dtype(np.dtype(float)).itemsize == 8


def computing_wide(wide: bool) -> Any:
    """A context, of this thread alone, in which 64 bits are switched on or off."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(wide)
    return jax.experimental.enable_x64(wide)  # pyright: ignore  # where it was before jax 0.8


def hastily(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit(function, **options)` for what takes longer to compile than to run.

    It compiles in a third of the time, and runs some three times as long.
    """

    @cache
    def compiled() -> Callable[..., Any]:
        return jax.jit(function, compiler_options=_haste(), **options)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled()(*args, **kwargs)

    return call


@cache
def _haste() -> dict[str, Any]:
    """Options to the compiler; one that it may not know any more is tried first."""
    known = {"xla_backend_optimization_level": 0}
    more = known | {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0, compiler_options=more)()
    except RuntimeError:  # JAX's own is one
        return known
    return more
