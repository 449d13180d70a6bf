"""Expectation-maximisation in JAX: mixtures, hidden Markov models, and proof of every update."""

from jaxem import (
    chain as chain,
    comparison as comparison,
    ctc as ctc,
    datasets as datasets,
    initialize as initialize,
    io as io,
    plots as plots,
    transducer as transducer,
)
from jaxem.comparison import certify as certify, information as information
from jaxem.data import Samples as Samples, Sequences as Sequences
from jaxem.em import EMResult as EMResult, Prior as Prior, fit as fit
from jaxem.families import (
    Bernoulli as Bernoulli,
    Categorical as Categorical,
    DiagonalGaussian as DiagonalGaussian,
    Gaussian as Gaussian,
    MixtureFamily as MixtureFamily,
    Poisson as Poisson,
    SphericalGaussian as SphericalGaussian,
    TiedGaussian as TiedGaussian,
)
from jaxem.hmm import HMM as HMM
from jaxem.imputation import impute as impute, sample_missing as sample_missing
from jaxem.many import (
    Batch as Batch,
    SearchResult as SearchResult,
    fit_batch as fit_batch,
    search as search,
)
from jaxem.mixture import Mixture as Mixture
from jaxem.stationary import Stationary as Stationary
