"""A table of numbers that knows what the user calls its rows and columns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import numpy as np

from jaxem.cli.columns import Choice, choose

FINITE = "every entry must be a finite number"
EMPTY = f"{FINITE}; with --missing marginalize empty ones and NaN are missing"
IDS = "every row needs the id of its sequence"
MAX_WEIGHT = 1e30  # so that sums of weights are finite in float32 too
WEIGHT = f"a weight is a number from 0 to {MAX_WEIGHT:g}"


@dataclass(frozen=True)
class Column:
    """A column that is no data but tells of the rows."""

    name: str
    cells: np.ndarray  # [N]; NaN where empty, until `Table.checked` returns it


@dataclass(frozen=True)
class Table:
    """Rows and columns of numbers, and where they came from."""

    source: str  # the file or data set, as the user named it
    columns: tuple[str, ...]  # [D] names
    values: np.ndarray  # [N, D], int64 or float64; once checked finite, and 0 where missing
    lines: np.ndarray | None = None  # [N] lines of the file; None: row i is row i + 1
    sequence: str | None = None  # name of the column of sequence ids
    ids: np.ndarray | None = None  # [N] text; None: the rows are one sequence
    weights: Column | None = None  # how often each row counts
    labels: Column | None = None  # the known component or state of each row, -1 unknown
    observed: np.ndarray | None = None  # bool [N, D]; None: entries may not be missing

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

    def checked(self, choice: Choice) -> Self:
        """The table with its missing entries told apart, if all that is left is sound.

        Raises:
            ValueError: an entry that is no finite number or, where none may be, missing; a weight
                that is none; a label of no component.  The message names row and column.
        """
        missing = np.isnan(self.values)
        if not choice.marginalize:
            self.refuse(missing, EMPTY)
        self.refuse(~np.isfinite(self.values) & ~missing, FINITE)
        table = self
        if choice.marginalize:
            values = np.where(missing, 0, self.values)
            table = replace(table, values=values, observed=~missing)
        if self.weights is not None:
            weight = self.weights.cells.astype(np.float64)
            self._refuse_row(self.weights, ~((weight >= 0) & (weight <= MAX_WEIGHT)), WEIGHT)
            if not weight.any():
                raise ValueError(
                    f"{self.source}: column {self.weights.name} (--weights) is 0 in every row, "
                    "so no row counts"
                )
            table = replace(table, weights=Column(self.weights.name, weight))
        if self.labels is not None:
            label = np.where(np.isnan(self.labels.cells), -1, self.labels.cells)
            legal = (label >= -1) & (label < choice.num_members) & (label == np.round(label))
            self._refuse_row(self.labels, ~legal, label_remedy(choice.num_members))
            table = replace(table, labels=Column(self.labels.name, label.astype(np.int32)))
        return table

    def _refuse_row(self, column: Column, bad: np.ndarray, remedy: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            cell = column.cells[row]
            shown = "" if np.isnan(cell) else f"{cell:.10g}"
            refuse_cell(self.source, self.place(row), column.name, shown, remedy)

    def groups(self) -> list[np.ndarray]:
        """The rows of every sequence, in order; sequences in the order of their first rows."""
        if self.ids is None:
            return [np.arange(len(self.values))]
        _, first, member = np.unique(self.ids, return_index=True, return_inverse=True)
        order = np.argsort(member, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(member))[:-1])
        return [parts[i] for i in np.argsort(first)]

    def check_weights_of(self, sequences: Sequence[np.ndarray]) -> None:
        """Refuse weights that differ within one of these groups of rows.

        Raises:
            ValueError: the message names two rows.
        """
        if self.weights is None:
            return
        for rows in sequences:
            weight = self.weights.cells[rows]
            if np.any(weight != weight[0]):
                other = int(np.argmax(weight != weight[0]))
                which = "one sequence" if self.ids is None else f"sequence {self.ids[rows[0]]}"
                raise ValueError(
                    f"{self.source}: {self.place(rows[0])} and {self.place(rows[other])} of "
                    f"{which} have the weights {weight[0]:.10g} and {weight[other]:.10g} (column "
                    f"{self.weights.name}); a sequence has one weight"
                )

    def select(self, choice: Choice) -> Self:
        """The columns of a file whose cells are all numbers, each in its role."""
        roles = choose(self.source, self.columns, choice)
        table = replace(
            self,
            columns=tuple(self.columns[i] for i in roles.values),
            values=self.values[:, roles.values],
            weights=self._column(roles.weights),
            labels=self._column(roles.labels),
        )
        if roles.sequence is None:
            return table
        if self.ids is not None:
            raise ValueError(f"{self.source}: holds sequences already; leave out --sequence")
        cells, name = self.values[:, roles.sequence], self.columns[roles.sequence]
        if np.isnan(cells).any():
            place = self.place(int(np.argmax(np.isnan(cells))))
            refuse_cell(self.source, place, name, "", IDS)
        whole = np.issubdtype(cells.dtype, np.floating) and np.all(cells == np.round(cells))
        text = (cells.astype(np.int64) if whole else cells).astype(str)
        lines = np.arange(len(cells)) + 1  # a row keeps its number when it belongs to a sequence
        return replace(table, sequence=name, ids=text, lines=lines)

    def _column(self, index: int | None) -> Column | None:
        return None if index is None else Column(self.columns[index], self.values[:, index])


def label_remedy(num_members: int) -> str:
    """What is asked of a label."""
    return f"a label is a whole number from 0 to {num_members - 1}, or empty or -1 if unknown"


def refuse_cell(source: str, place: str, column: str, cell: Any, remedy: str) -> NoReturn:
    """The one way in which a bad entry is reported."""
    text = str(cell)
    shown = "is empty" if text == "" else f"holds {text[:40]!s}"
    raise ValueError(f"{source}: {place}, column {column} {shown}; {remedy}")
