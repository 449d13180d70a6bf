"""A table of numbers that knows what the user calls its rows and columns."""

from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import numpy as np


@dataclass(frozen=True)
class Table:
    """Rows and columns of numbers, and where they came from."""

    source: str  # the file or data set, as the user named it
    columns: tuple[str, ...]  # [D] names
    values: np.ndarray  # [N, D], int64 or float64; finite once `read` returns it
    lines: np.ndarray | None = None  # [N] lines of the file; None: row i is row i + 1
    sequence: str | None = None  # name of the column of sequence ids
    ids: np.ndarray | None = None  # [N] text; None: the rows are one sequence

    def place(self, row: int) -> str:
        """What the user would call this row."""
        if self.lines is not None:
            return f"row {self.lines[row]}"
        if self.ids is None:
            return f"row {row + 1}"
        step = int(np.sum(self.ids[: row + 1] == self.ids[row]))
        return f"sequence {self.ids[row]}, step {step}"

    def refuse(self, bad: np.ndarray, remedy: str) -> None:
        """Raise a ValueError naming the first entry where `bad` [N, D] holds, if there is one."""
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            refuse_cell(
                self.source, self.place(row), self.columns[column], self.values[row, column], remedy
            )

    def groups(self) -> list[np.ndarray]:
        """The rows of every sequence, in order; sequences in the order of their first rows."""
        if self.ids is None:
            return [np.arange(len(self.values))]
        _, first, member = np.unique(self.ids, return_index=True, return_inverse=True)
        order = np.argsort(member, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(member))[:-1])
        return [parts[i] for i in np.argsort(first)]

    def select(self, chosen: str | None, sequence: str | None) -> Self:
        """The chosen columns as values and that of the sequence ids as `ids`."""
        kept, ids = choose(self.source, self.columns, chosen, sequence)
        table = replace(
            self, columns=tuple(self.columns[i] for i in kept), values=self.values[:, kept]
        )
        if ids is None:
            return table
        if self.ids is not None:
            raise ValueError(f"{self.source}: holds sequences already; leave out --sequence")
        column = self.values[:, ids]
        whole = np.issubdtype(column.dtype, np.floating) and np.all(column == np.round(column))
        text = (column.astype(np.int64) if whole else column).astype(str)
        return replace(table, sequence=self.columns[ids], ids=text)


def choose(
    source: str, columns: tuple[str, ...], chosen: str | None, sequence: str | None
) -> tuple[list[int], int | None]:
    """Indices of the columns named by --columns, and of the one named by --sequence.

    Raises:
        ValueError: a column that is not there, or named twice.
    """

    def index(name: str, option: str) -> int:
        found = [i for i, column in enumerate(columns) if column == name]
        if not found and name.isdecimal() and 1 <= int(name) <= len(columns):
            found = [int(name) - 1]
        if len(found) != 1:
            problem = "two columns are called" if found else "no column is called"
            raise ValueError(
                f"{source}: {problem} {name!r} ({option}); it has {_listed(columns)}, "
                f"or numbers from 1 to {len(columns)}"
            )
        return found[0]

    ids = None if sequence is None else index(sequence.strip(), "--sequence")
    if chosen is None:
        kept = [i for i in range(len(columns)) if i != ids]
        nameless = [i for i in kept if not columns[i]]
        if nameless:
            raise ValueError(
                f"{source}: column {nameless[0] + 1} has no name, as numbers of rows have not; "
                "say with --columns which ones to use"
            )
    else:
        kept = [index(name.strip(), "--columns") for name in chosen.split(",")]
    if len(set(kept)) < len(kept) or ids in kept:
        raise ValueError(f"{source}: a column is named twice in --columns and --sequence")
    if not kept:
        raise ValueError(f"{source}: no column is left beside --sequence {sequence}")
    return kept, ids


def refuse_cell(source: str, place: str, column: str, cell: Any, remedy: str) -> NoReturn:
    """The one way in which a bad entry is reported."""
    text = str(cell)
    shown = "is empty" if text == "" else f"holds {text[:40]!s}"
    raise ValueError(f"{source}: {place}, column {column} {shown}; {remedy}")


def _listed(columns: tuple[str, ...], most: int = 8) -> str:
    names = ", ".join(columns[:most])
    return names if len(columns) <= most else f"{names}, ... ({len(columns)} in all)"
