"""Families of distributions, K members at once, for mixtures and HMMs alike."""

from jaxem.families.bernoulli import Bernoulli as Bernoulli
from jaxem.families.categorical import Categorical as Categorical
from jaxem.families.diagonal_gaussian import DiagonalGaussian as DiagonalGaussian
from jaxem.families.gaussian import Gaussian as Gaussian
from jaxem.families.mixture_family import MixtureFamily as MixtureFamily
from jaxem.families.poisson import Poisson as Poisson
from jaxem.families.protocol import Family as Family
from jaxem.families.spherical_gaussian import SphericalGaussian as SphericalGaussian
from jaxem.families.tied_gaussian import TiedGaussian as TiedGaussian
