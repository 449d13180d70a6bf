"""Starts for EM, each one M-step away from responsibilities; deterministic in the key.

They respect labels: rows that are known to come from a component belong to it.  They go under `jit`
and `vmap`, over keys and over data: thousands of starts are one compiled call.  Rows of weight 0,
steps past a sequence's length and sequences of length 0 have no influence, whatever they hold: a
start from padded data is the start from the data, to rounding.
"""

from jaxem.initialize.candidate import Start as Start
from jaxem.initialize.chains import hmm as hmm
from jaxem.initialize.mixtures import (
    kmeans_plus_plus as kmeans_plus_plus,
    random_responsibilities as random_responsibilities,
    random_rows as random_rows,
)
