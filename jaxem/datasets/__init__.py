"""Data to try the library on: bundled real tables, and makers of synthetic data."""

from jaxem.datasets.bundled import (
    BUNDLED as BUNDLED,
    earthquakes as earthquakes,
    iris as iris,
    old_faithful as old_faithful,
)
from jaxem.datasets.digit_strings import (
    DigitStrings as DigitStrings,
    digit_strings as digit_strings,
)
from jaxem.datasets.synthetic import (
    dishonest_casino as dishonest_casino,
    gaussian_hmm as gaussian_hmm,
    gaussian_mixture as gaussian_mixture,
)
