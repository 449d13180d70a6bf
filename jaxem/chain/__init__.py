"""Inference on a chain of log-potentials: knows states and steps, and no distribution."""

from jaxem.chain.divergence import divergence as divergence
from jaxem.chain.inference import (
    Filtered as Filtered,
    entropy as entropy,
    filter as filter,
    log_normalizer as log_normalizer,
    posterior as posterior,
)
from jaxem.chain.method import METHODS as METHODS, check_method as check_method
from jaxem.chain.paths import (
    NO_STATE as NO_STATE,
    k_best as k_best,
    sample as sample,
    viterbi as viterbi,
)
from jaxem.chain.potentials import Chain as Chain
