"""Connectionist temporal classification: losses, posteriors, alignments and decoding.

Graves, Fernández, Gomez & Schmidhuber (2006), "Connectionist temporal classification: labelling
unsegmented sequence data with recurrent neural networks".
"""

from jaxem.ctc.alignment import Alignment as Alignment, align as align
from jaxem.ctc.beam_search import LanguageModel as LanguageModel, beam_search as beam_search
from jaxem.ctc.counting import count as count, log_count as log_count
from jaxem.ctc.greedy import greedy as greedy
from jaxem.ctc.loss import loss as loss, loss_from_log_probs as loss_from_log_probs
from jaxem.ctc.ngram import NGram as NGram
from jaxem.ctc.posterior import Posterior as Posterior, posterior as posterior
from jaxem.ctc.prefix_search import prefix_search as prefix_search
