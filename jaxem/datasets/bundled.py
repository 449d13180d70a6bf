"""The three real tables that come with the package: small, well known, read from CSV files."""

from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64


def old_faithful() -> Float64[np.ndarray, "272 2"]:
    """Eruptions of the Old Faithful geyser, Yellowstone National Park, one row each, in order.

    Columns: how long the eruption lasted, and how long the wait for the next one was, both in
    minutes. A fresh array each call.

    >>> old_faithful()[:2]
    array([[ 3.6, 79. ],
           [ 1.8, 54. ]])

    Härdle, W. (1991), *Smoothing Techniques with Implementation in S*, Springer; the table that R
    calls `faithful`. Measurements, published without a licence of their own: bare facts.
    """
    return _read("old_faithful.csv", float)


def earthquakes() -> Int64[np.ndarray, "107"]:
    """Number of earthquakes of magnitude 7 or more in the world, each year from 1900 to 2006.

    Entry t is the count of year 1900 + t. A fresh array each call.

    >>> earthquakes()[:6]
    array([13, 14,  8, 10, 16, 26])

    Zucchini, W. & MacDonald, I. L. (2009), *Hidden Markov Models for Time Series*, Chapman &
    Hall/CRC, table 1.1, from the catalogue of the U.S. Geological Survey, whose data are in the
    public domain. Later revisions of the catalogue differ.
    """
    return _read("earthquakes.csv", np.int64)[:, 1].copy()  # column 0 is the year


def iris() -> Float64[np.ndarray, "150 4"]:
    """Measurements of iris flowers: rows 0-49 are setosa, 50-99 versicolor, 100-149 virginica.

    Columns: sepal length, sepal width, petal length and petal width, in centimetres. A fresh array
    each call.

    >>> iris()[:2]
    array([[5.1, 3.5, 1.4, 0.2],
           [4.9, 3. , 1.4, 0.2]])

    Fisher, R. A. (1936), The use of multiple measurements in taxonomic problems, *Annals of
    Eugenics* 7, 179-188; collected by E. Anderson. As printed there and in R's `iris`: rows 34 and
    37 differ in the copy of the UCI repository. Measurements, published without a licence of their
    own: bare facts.
    """
    return _read("iris.csv", float)


BUNDLED: dict[str, Callable[[], np.ndarray]] = {
    loader.__name__: loader for loader in (old_faithful, earthquakes, iris)
}
"""What the command line knows by name: name of the table -> function that reads it."""


def _read(file_name: str, dtype: Any) -> np.ndarray:
    """Rows of a table of numbers that lies beside this file, without its line of column names."""
    with resources.files("jaxem.datasets").joinpath(file_name).open(encoding="utf-8") as table:
        return np.loadtxt(table, dtype=dtype, delimiter=",", skiprows=1)
