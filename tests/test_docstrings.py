"""The examples in the docstrings run, and say what they print."""

import doctest
import importlib
import pkgutil
import re
from types import ModuleType

import numpy as np
import pytest

import jaxem

MODULES = ["jaxem", *(m.name for m in pkgutil.walk_packages(jaxem.__path__, "jaxem."))]


NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


class ToRounding(doctest.OutputChecker):
    """Numbers may differ by rounding, which depends on the dtype; the text around them may not."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        text = [" ".join(NUMBER.sub("#", output).split()) for output in (want, got)]
        text = [output.replace("[ ", "[").replace(" ]", "]") for output in text]
        numbers = [np.array(NUMBER.findall(output), float) for output in (want, got)]
        return text[0] == text[1] and np.allclose(*numbers, rtol=1e-5, atol=1e-6)


def failures(module: ModuleType) -> int:
    """How many examples of a module print something else than they say."""
    runner = doctest.DocTestRunner(checker=ToRounding(), verbose=False)
    tests = doctest.DocTestFinder().find(module, module.__name__)
    return sum(runner.run(test).failed for test in tests)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_run(name: str) -> None:
    assert failures(importlib.import_module(name)) == 0


def test_public_classes_and_functions_have_examples() -> None:
    """Each of the names a user meets first shows how it is used."""
    for name, value in vars(jaxem).items():
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "EMResult":
            assert ">>>" in (value.__doc__ or ""), f"jaxem.{name} has no example"


@pytest.mark.parametrize("example", [">>> 1 + 1\n3\n", ">>> [0.5, 1.0]\n[0.5, 1.01]\n"])
def test_a_wrong_example_is_noticed(example: str, capsys: pytest.CaptureFixture) -> None:
    assert failures(ModuleType("wrong", example)) == 1
    assert "Failed example" in capsys.readouterr().out
