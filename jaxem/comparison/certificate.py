"""What a certificate says: checks by name, each with a number, its tolerance and its outcome."""

import html
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

PASSED, FAILED, NOT_APPLICABLE = "passed", "FAILED", "not applicable"


@dataclass(frozen=True)
class Check:
    """One statement about a model, put to the test."""

    name: str  # "lagrange.weights"
    value: float | None  # how far from exact, in the units that `meaning` names; None: not measured
    tolerance: float | None  # the value may be at most this
    outcome: str  # "passed", "FAILED" or "not applicable"
    meaning: str  # what holds if it passed; why not, if it is not applicable
    facts: dict[str, Any] = field(default_factory=dict)  # numbers behind it: lists, floats, text

    @classmethod
    def of(cls, name: str, value: float, tolerance: float, meaning: str, **facts: Any) -> "Check":
        """A check that passes when the value is at most the tolerance; NaN fails."""
        outcome = PASSED if value <= tolerance else FAILED
        return cls(name, float(value), float(tolerance), outcome, meaning, facts)

    @classmethod
    def not_applicable(cls, name: str, why: str, **facts: Any) -> "Check":
        """A check that has nothing to say here, and why."""
        return cls(name, None, None, NOT_APPLICABLE, why, facts)


def largest(*values: Any) -> float:
    """The largest of all entries, 0 if none is positive; NaN if there is one."""
    return float(
        np.max([np.max(np.asarray(value, float), initial=0) for value in values], initial=0)
    )


@dataclass(frozen=True)
class Certificate:
    """Checks of an EM step, and of the point it was taken from.

    `str()` is a table; a notebook shows the same as HTML.  `certificate["ascent"]` is a check by
    its name.

    Examples:
        >>> from jaxem.comparison.certificate import Certificate, Check
        >>> checks = (Check.of("fisher", 1e-14, 1e-10, "the gradients agree"),)
        >>> certificate = Certificate("Mixture of 2", checks)
        >>> print(str(certificate).splitlines()[-1])
        fisher  1.0e-14    1.0e-10  passed   the gradients agree
        >>> certificate.passed, certificate["fisher"].value
        (True, 1e-14)
    """

    subject: str  # what was certified, in words
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one check passed and none failed."""
        return not self.failed and any(check.outcome == PASSED for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome == FAILED)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        names = ", ".join(check.name for check in self.checks)
        raise KeyError(f"no check is named {name!r}; there are {names}.")

    @property
    def _summary(self) -> str:
        counts = (
            f"{sum(check.outcome == outcome for check in self.checks)} {outcome.lower()}"
            for outcome in (PASSED, FAILED, NOT_APPLICABLE)
        )
        return f"{self.subject}: {', '.join(counts)}"

    def __str__(self) -> str:
        rows = [_HEADER, *map(_row, self.checks)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{name:<{widths[0]}}  {value:>{widths[1]}}  {tolerance:>{widths[2]}}  "
            f"{outcome:<{widths[3]}}  {meaning}"
            for name, value, tolerance, outcome, meaning in rows
        ]
        return "\n".join([self._summary, "", *lines])

    def _repr_html_(self) -> str:
        def cells(row: tuple[str, ...], tag: str) -> str:
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)

        rows = [f"<tr>{cells(_HEADER, 'th')}</tr>"]
        for check in self.checks:
            style = ' style="font-weight:bold"' if check.outcome == FAILED else ""
            rows.append(f"<tr{style}>{cells(_row(check), 'td')}</tr>")
        return f"<p>{html.escape(self._summary)}</p><table>{''.join(rows)}</table>"

    def to_json(self) -> str:
        """The whole certificate as JSON; numbers that are not finite are text ("nan", "inf")."""
        record = {
            "subject": self.subject,
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
        }
        return json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False)


_HEADER = ("check", "value", "tolerance", "outcome", "meaning")


def _row(check: Check) -> tuple[str, ...]:
    value, tolerance = (
        "" if number is None else f"{number:.1e}" for number in (check.value, check.tolerance)
    )
    return check.name, value, tolerance, check.outcome, check.meaning


def _plain(value: Any) -> Any:
    """Arrays as lists, numbers as Python's own, what JSON cannot say as text."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
