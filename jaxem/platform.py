"""What JAX computes on, and how: some algorithms are chosen by it."""

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
