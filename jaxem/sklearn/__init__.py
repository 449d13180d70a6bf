"""Estimators for people who know scikit-learn and hmmlearn, over the mixtures and HMMs of jaxem."""

try:
    import sklearn as sklearn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "jaxem.sklearn needs scikit-learn: pip install 'jaxem[sklearn]'", name="sklearn"
    ) from error

from jaxem.sklearn.bernoulli_mixture import BernoulliMixture as BernoulliMixture
from jaxem.sklearn.categorical_hmm import CategoricalHMM as CategoricalHMM
from jaxem.sklearn.categorical_mixture import CategoricalMixture as CategoricalMixture
from jaxem.sklearn.gaussian_hmm import GaussianHMM as GaussianHMM
from jaxem.sklearn.gaussian_mixture import GaussianMixture as GaussianMixture
from jaxem.sklearn.gmm_hmm import GMMHMM as GMMHMM
from jaxem.sklearn.poisson_hmm import PoissonHMM as PoissonHMM
from jaxem.sklearn.poisson_mixture import PoissonMixture as PoissonMixture
