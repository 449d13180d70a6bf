"""What the command line says about columns: which are data, and which tell of the rows."""

from argparse import Namespace
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Choice:
    """The options that choose columns, and whether an entry may be missing."""

    columns: str | None = None  # --columns
    sequence: str | None = None  # --sequence
    weights: str | None = None  # --weights
    labels: str | None = None  # --labels
    marginalize: bool = False  # --missing
    num_members: int = 1  # components or states that a label can name

    @classmethod
    def of(cls, arguments: Namespace, num_members: int) -> Self:
        """What was given; a command without one of the options is one where it was not given."""
        return cls(
            arguments.columns,
            arguments.sequence,
            getattr(arguments, "weights", None),
            arguments.labels,
            arguments.missing == "marginalize",
            num_members,
        )


@dataclass(frozen=True)
class Roles:
    """Indices of the columns of a file."""

    values: list[int]
    sequence: int | None
    weights: int | None
    labels: int | None

    @property
    def numeric(self) -> list[int]:
        """All whose cells are numbers."""
        return [i for i in (*self.values, self.weights, self.labels) if i is not None]


def choose(source: str, columns: tuple[str, ...], choice: Choice) -> Roles:
    """The columns that a choice names.

    Raises:
        ValueError: a column that is not there, or named twice.
    """
    taken: dict[int, str] = {}  # options by column

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
        if found[0] in taken:
            options = " and ".join(dict.fromkeys((taken[found[0]], option)))
            raise ValueError(f"{source}: column {columns[found[0]]} is named twice in {options}")
        taken[found[0]] = option
        return found[0]

    def of_rows(name: str | None, option: str) -> int | None:
        return None if name is None else index(name.strip(), option)

    sequence = of_rows(choice.sequence, "--sequence")
    weights = of_rows(choice.weights, "--weights")
    labels = of_rows(choice.labels, "--labels")
    if choice.columns is not None:
        values = [index(name.strip(), "--columns") for name in choice.columns.split(",")]
        return Roles(values, sequence, weights, labels)
    values = [i for i in range(len(columns)) if i not in taken]
    nameless = [i for i in values if not columns[i]]
    if nameless:
        raise ValueError(
            f"{source}: column {nameless[0] + 1} has no name, as numbers of rows have not; "
            "say with --columns which ones to use"
        )
    if not values:
        options = " and ".join(f"{option} {columns[i]}" for i, option in taken.items())
        raise ValueError(f"{source}: no column is left beside {options}")
    return Roles(values, sequence, weights, labels)


def _listed(columns: tuple[str, ...], most: int = 8) -> str:
    names = ", ".join(columns[:most])
    return names if len(columns) <= most else f"{names}, ... ({len(columns)} in all)"
