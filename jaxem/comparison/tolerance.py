"""What rounding may cost each check, by dtype."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """How far from exact a right answer may be."""

    stationarity: float  # a gradient, per observation in units where one's own is about 1
    identity: float  # two sides of an equation, relative to the terms that were added
    ascent: float  # where a second-order ascent ends, in standard deviations of one observation
    slow_ascent: float  # the same for a first-order one
    curvature: float  # an eigenvalue that is 0, relative to the diagonal
    jacobian: float  # an entry of the EM map's derivative
    fixed: float  # the longest step that counts as none, in complete-data standard errors


_BY_SIZE = {
    8: Tolerance(1e-9, 1e-10, 1e-6, 1e-4, 1e-9, 1e-6, 0.02),
    4: Tolerance(1e-4, 3e-5, 1e-3, 2e-3, 1e-5, 1e-3, 0.1),
}


def tolerance_of(dtype: np.dtype) -> Tolerance:
    """The tolerances of a floating dtype."""
    return _BY_SIZE[dtype.itemsize]
