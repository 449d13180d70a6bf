"""What the README and the guides show runs and prints what it says."""

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from processes import configuration_restored

from jaxem.cli import main

README = Path(__file__).parent.parent / "README.md"
GUIDES = sorted((README.parent / "docs").glob("*.md"))


def blocks(page: Path) -> list[tuple[str, str, str | None]]:
    """Language and text of every block of code, and the block of output right after it."""
    fence = r"```(\w+)\n(.*?)```\n"
    found = re.finditer(fence + r"(?:\n```text\n(.*?)```)?", page.read_text("utf-8"), re.DOTALL)
    return [(one[1], one[2], one[3]) for one in found if one[1] != "text"]


PYTHON = {
    f"{page.name}, block {number}": (code, shown)
    for page in (README, *GUIDES)
    for number, (language, code, shown) in enumerate(blocks(page))
    if language == "python"
}
SHELL = [(code, shown) for language, code, shown in blocks(README) if language == "sh"]


@pytest.fixture
def process(tmp_path: Path, monkeypatch: Any) -> Iterator[None]:
    """An empty directory, and JAX's configuration as it was before `main` set it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    with configuration_restored():
        yield


@pytest.mark.parametrize("name", PYTHON)
def test_a_python_block_prints_what_is_shown_below_it(name: str) -> None:
    code, shown = PYTHON[name]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    assert shown is not None
    assert differences(printed.getvalue(), shown) == []


NUMBER = r"-?\d+\.\d+(?:e[+-]?\d+)?"


def differences(printed: str, shown: str) -> list[tuple[str, str]]:
    """Where two texts differ by more than one in the last digit of a number with a point.

    A processor with other instructions rounds otherwise, and a fit ends elsewhere by as much.
    """
    if re.sub(NUMBER, "#", printed) != re.sub(NUMBER, "#", shown):
        return [(printed, shown)]
    pairs = zip(re.findall(NUMBER, printed), re.findall(NUMBER, shown), strict=True)
    return [(a, b) for a, b in pairs if abs(Decimal(a) - Decimal(b)) > last_place(a, b)]


def last_place(a: str, b: str) -> Decimal:
    """The unit of the last digit of the coarser number."""
    exponents = [int(Decimal(number).as_tuple().exponent) for number in (a, b)]
    return Decimal(1).scaleb(max(exponents))


def test_a_number_may_differ_by_one_in_its_last_digit_and_by_no_more() -> None:
    assert differences("[15.7 -2.0e-05] 3 of 4", "[15.8 -2.1e-05] 3 of 4") == []
    assert differences("15.6", "15.8") == [("15.6", "15.8")]
    assert differences("3 of 4", "4 of 4") and differences("15.7 x", "15.7 y")
    assert differences("15.7", "15.8 15.8") and differences("-0.2", "0.2")


def test_the_commands_run_one_after_the_other(process: None, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    certificate = ""
    for code, shown in SHELL:
        printed = ""
        for line in code.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "jaxem"
            status = main(arguments)
            captured = capsys.readouterr()
            assert (status, captured.err) == (0, "")
            printed += captured.out
            if arguments[0] == "certify":
                certificate = captured.out
        if shown is not None:
            assert printed == shown
    assert {"model.npz", "fit.png", "certificate.png", "states.csv"} <= {
        path.name for path in Path().iterdir()
    }
    (shown,) = (code for _, code, _ in blocks(README) if code.startswith("$ jaxem certify"))
    lines = set(map(words, certificate.splitlines()))
    assert len(shown.splitlines()) > 10
    assert all(words(line) in lines for line in shown.splitlines()[1:])


def words(line: str) -> str:
    """A line of a certificate without the numbers that rounding makes, or that depend on it."""
    return re.sub(r"-?\d\.\d+e[+-]\d+|\d+ steps", "", " ".join(line.split()))


def test_the_readme_has_examples_of_both_kinds_and_all_links_lead_somewhere() -> None:
    assert len(PYTHON) >= 2 and len(SHELL) >= 1
    for page in (README, *GUIDES):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), target


def test_the_names_in_the_table_exist() -> None:
    import jaxem
    from jaxem import plots

    pytest.importorskip("jaxem.sklearn")

    table = re.findall(r"^\| (\w[\w ]*) \| (.*) \|$", README.read_text("utf-8"), re.MULTILINE)
    for _, names in table:
        place: Any = jaxem
        for name in re.findall(r"`([\w.]+)(?:\(\))?`", names):
            *owner, last = name.split(".")
            if owner:
                place = plots if owner == ["plots"] else getattr(jaxem, owner[0])
            assert hasattr(place, last), name
