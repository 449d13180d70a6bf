"""Proof of the M-step: every closed form checked by autodiff and by gradients, in one call."""

from jaxem.comparison import examples as examples
from jaxem.comparison.certificate import Certificate as Certificate, Check as Check
from jaxem.comparison.certify import certify as certify
from jaxem.comparison.information import Information as Information, information as information
