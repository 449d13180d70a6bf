"""Float64 data are computed in float64 wherever they come from, without a global switch."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from jaxem.platform import computing_wide

DTYPES: Any = [np.double, np.single]  # the first is what anything else becomes


def computing_in(dtype: Any) -> AbstractContextManager:
    """A context in which JAX has this floating dtype; it ends with the `with` statement."""
    return computing_wide(True) if np.dtype(dtype) == np.double else nullcontext()
