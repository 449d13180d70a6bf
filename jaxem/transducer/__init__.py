"""The recurrent neural network transducer: losses, posteriors, alignments and decoding.

Graves (2012), "Sequence transduction with recurrent neural networks".
"""

from jaxem.transducer.alignment import Alignment as Alignment, align as align
from jaxem.transducer.beam_search import (
    Beam as Beam,
    BeamSearch as BeamSearch,
    beam_search as beam_search,
)
from jaxem.transducer.factored import factored_loss as factored_loss
from jaxem.transducer.greedy import greedy as greedy
from jaxem.transducer.loss import loss as loss
from jaxem.transducer.posterior import Posterior as Posterior, posterior as posterior
