"""Inference on banded lattices of log-potentials: a step stays where it is or moves one place on.

CTC and the RNN-transducer are such lattices.
"""

from jaxem.lattice.band import (
    Arc as Arc,
    Paths as Paths,
    Potentials as Potentials,
    Topology as Topology,
)
from jaxem.lattice.best_path import best_path as best_path
from jaxem.lattice.inference import log_normalizer as log_normalizer, posterior as posterior
