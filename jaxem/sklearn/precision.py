"""Float64 data are computed in float64 wherever they come from, without a global switch."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.experimental
import numpy as np

DTYPES: Any = [np.double, np.single]  # the first is what anything else becomes


def computing_in(dtype: Any) -> AbstractContextManager:
    """A context in which JAX has this floating dtype; it ends with the `with` statement."""
    if np.dtype(dtype) != np.double:
        return nullcontext()
    enable = getattr(jax, "enable_x64", None)
    if enable is None:  # its place has moved between releases
        enable = vars(jax.experimental)["enable_x64"]
    return enable(True)
