"""What every test runs under: no display, the CPU unless told otherwise, both floating dtypes."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["MPLBACKEND"] = "Agg"

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jaxem.cli import main

pytest.register_assert_rewrite("laws")


def enable_x64() -> Any:
    """A context in which JAX computes in float64; its place has moved between releases."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


@pytest.fixture
def x64() -> Iterator[None]:
    """For a test of numbers that only float64 can tell apart."""
    with enable_x64():
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype]:
    """Each floating dtype in turn, in a context that has it."""
    if request.param == "float32":
        yield np.dtype(np.float32)
        return
    with enable_x64():
        yield np.dtype(np.float64)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs() -> Iterator[None]:
    """Compiled programs of one module are of no use to the next, and there are thousands."""
    yield
    jax.clear_caches()


@pytest.fixture
def run(capsys: Any) -> Callable[..., SimpleNamespace]:
    """`run("fit", ...)`: exit status, standard output and standard error of `jaxem fit ...`."""

    def call(*arguments: Any) -> SimpleNamespace:
        status = main([str(argument) for argument in arguments])
        return SimpleNamespace(status=status, **capsys.readouterr()._asdict())

    return call
