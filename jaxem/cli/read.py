"""Reading data: CSV, Parquet and NumPy files, and the tables that come with the package."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module, resources
from typing import Any

import numpy as np

from jaxem import datasets
from jaxem.cli.columns import Choice, Roles, choose
from jaxem.cli.table import EMPTY, FINITE, IDS, WEIGHT, Column, Table, label_remedy, refuse_cell

NO_HEADER = "; the first line is a header only if none of its cells is a number"
NOT_AVAILABLE = ("NaN", "nan", "NA")  # and empty; in other cases read more slowly
_BOOLEANS = {"true": "1", "false": "0"}


def read(source: str, choice: Choice) -> Table:
    """The table that DATA and the options name, every entry a finite number or told as missing.

    Raises:
        ValueError: no such data, not such a file, a column that is not there, an entry that may not
            be: the message names file, row and column.
        OSError: the file cannot be read.
    """
    readers = {
        ".csv": _read_csv,
        ".parquet": _read_parquet,
        ".npy": _read_numpy,
        ".npz": _read_numpy,
    }
    ending = os.path.splitext(source)[1].lower()
    if source in datasets.BUNDLED and not os.path.exists(source):
        table = _bundled(source).select(choice)
    elif not os.path.exists(source):
        names = ", ".join(datasets.BUNDLED)
        raise ValueError(f"{source}: no such file, nor a bundled data set; those are {names}")
    elif ending not in readers:
        raise ValueError(f"{source}: unknown kind of file; expected one of {', '.join(readers)}")
    else:
        table = readers[ending](source, choice)
    if len(table.values) == 0:
        raise ValueError(f"{source}: there is no row of data in it")
    return table.checked(choice)


def _bundled(name: str) -> Table:
    values = datasets.BUNDLED[name]()
    values = values.reshape(len(values), -1)
    with resources.files("jaxem.datasets").joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    return Table(name, tuple(header[-values.shape[1] :]), values)  # the loader may drop a year


def _read_csv(source: str, choice: Choice) -> Table:
    header_line, header, width = _first_rows(source)
    names = header or _numbered(width)
    roles = choose(source, names, choice)
    frame = _frame(source, width, header_line, roles, choice.marginalize)
    arrays = {i: frame[i].to_numpy() for i in roles.numeric}
    ids = None if roles.sequence is None else frame[roles.sequence]
    lines = np.arange(len(frame)) + header_line + 1
    if not _is_read(arrays, ids, choice.marginalize):
        # Slower: some cell is no number, or some line may be blank.
        gaps = choice.marginalize and width == 1
        lines, rows = _rows(source, header_line, width, gaps)
        hint = "" if header else NO_HEADER
        unread = f"{FINITE}; repair or drop the row, or choose columns with --columns"
        remedies = _remedies(roles, choice)
        empty = None if choice.marginalize else EMPTY
        remedies |= dict.fromkeys(roles.values, (unread, empty))
        arrays = {
            i: _parse(source, [row[i] for row in rows], names[i], lines, hint, *remedies[i])
            for i in roles.numeric
        }
        ids = None if roles.sequence is None else [row[roles.sequence] for row in rows]
    table = _table(source, names, roles, arrays, lines)
    if roles.sequence is None:
        return table
    name = names[roles.sequence]
    return replace(table, sequence=name, ids=_ids(source, ids, name, table))


def _frame(source: str, width: int, header_line: int, roles: Roles, gaps: bool) -> Any:
    """The file below its header as pandas reads it: a column that holds text has another dtype."""
    pandas = _pandas(source)
    try:
        return pandas.read_csv(
            source,
            header=None,
            names=range(width),
            index_col=False,
            dtype=None if roles.sequence is None else {roles.sequence: str},
            skiprows=header_line,
            skip_blank_lines=False,  # so that row i is line header_line + i + 1
            skipinitialspace=True,
            na_filter=gaps,
            keep_default_na=False,
            na_values={i: ["", *NOT_AVAILABLE] for i in roles.numeric},
            encoding="utf-8-sig",
            low_memory=False,
        )
    except pandas.errors.EmptyDataError:
        raise ValueError(f"{source}: there is no row of data in it") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: not a CSV file in UTF-8: {error}") from error
    except pandas.errors.ParserError as error:
        raise ValueError(f"{source}: {_ragged(str(error), header_line)}") from None


def _is_read(arrays: dict[int, np.ndarray], ids: Any, gaps: bool) -> bool:
    """Whether pandas found numbers everywhere, but for `gaps`, and no line that may be blank."""
    if not all(cells.dtype.kind in "iufb" for cells in arrays.values()):
        return False
    empty = np.array([np.isnan(cells) for cells in arrays.values()])
    infinite = any(np.isinf(cells).any() for cells in arrays.values())
    whole = ids is None or ids.notna().all()
    return whole and not infinite and not (empty.all(0) if gaps else empty).any()


def _records(source: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The line on which each record of a CSV file ends, and its cells: none on a blank line."""
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            lines = (line if line.strip() else "\n" for line in file)
            reader = csv.reader(lines, skipinitialspace=True)
            for cells in reader:
                yield reader.line_num, tuple(cell.strip() for cell in cells)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{source}: not a CSV file in UTF-8: {error}") from error


def _first_rows(source: str) -> tuple[int, tuple[str, ...] | None, int]:
    """The line of the header (0 without one), the header, and the number of columns."""
    seen = []
    for line, cells in _records(source):
        if any(cells):
            seen.append((line, cells))
        if len(seen) == 2:
            break
    if not seen:
        raise ValueError(f"{source}: the file is empty")
    (line, first), *second = seen
    if second and len(second[0][1]) > len(first):
        (below, longer), width = second[0], len(first)
        raise ValueError(f"{source}: row {below} has {len(longer)} cells, row {line} has {width}")
    if any(map(_is_number, first)):
        return 0, None, len(first)
    return line, first, len(first)


def _rows(
    source: str, header_line: int, width: int, gaps: bool
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Lines and cells of the rows below the header; a short row is filled up with empty cells.

    Blank lines are none; where there are `gaps`, only those at the end are not, nor those at the
    beginning of a file without a header.
    """
    records = [record for record in _records(source) if record[0] > header_line]
    filled = [i for i, (_, cells) in enumerate(records) if cells]
    if gaps and filled:
        filled = range(0 if header_line else filled[0], filled[-1] + 1)
    lines = np.array([records[i][0] for i in filled], int)
    cells = [records[i][1] for i in filled]
    return lines, [row + ("",) * (width - len(row)) for row in cells]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.lower() in _BOOLEANS
    return True


def _ragged(message: str, skipped: int) -> str:
    counts = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message)
    if counts is None:
        return message
    expected, line, found = counts.groups()
    return f"row {line} has {found} cells, the rows above have {expected}"


def _parse(
    source: str,
    cells: Sequence[str],
    column: str,
    lines: np.ndarray,
    hint: str,
    remedy: str,
    empty_remedy: str | None,
) -> np.ndarray:
    """A column of text as numbers, NaN where it is empty if there is no remedy for that.

    Raises:
        ValueError: the message names the first cell that is no finite number.
    """
    pandas = _pandas(source)
    text = pandas.Series(cells, dtype=object).str.lower()
    empty = text.isin(["", "nan", "na"]).to_numpy()
    numbers = pandas.to_numeric(text.replace(_BOOLEANS), errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers) & ~(empty & (empty_remedy is None))
    if bad.any():
        first = int(np.argmax(bad))
        if empty[first]:
            remedy = str(empty_remedy)
        elif any(mark in cells[first] for mark in ";\t"):
            remedy = "cells are separated by commas"
        elif first == 0:
            remedy += hint
        refuse_cell(source, f"row {lines[first]}", column, cells[first], remedy)
    return numbers


def _read_parquet(source: str, choice: Choice) -> Table:
    pandas = _pandas(source)
    try:
        import_module("pyarrow")
    except ModuleNotFoundError:
        raise ValueError(f'{source}: reading it needs pyarrow: pip install "jaxem[cli]"') from None
    try:
        frame = pandas.read_parquet(source, engine="pyarrow")
    except OSError:
        raise
    except Exception as error:  # Arrow has many kinds of its own
        raise ValueError(f"{source}: not a Parquet file: {error}") from error
    names = tuple(map(str, frame.columns))
    roles = choose(source, names, choice)
    columns = {i: frame.iloc[:, i] for i in range(len(names))}
    remedies = _remedies(roles, choice)
    arrays = {i: _from_frame(source, columns[i], names[i], remedies.get(i)) for i in roles.numeric}
    table = _table(source, names, roles, arrays, None)
    if roles.sequence is None:
        return table
    name, text = names[roles.sequence], _as_text(columns[roles.sequence])
    lines = np.arange(len(frame)) + 1  # a row keeps its number when it belongs to a sequence
    table = replace(table, lines=lines)
    return replace(table, sequence=name, ids=_ids(source, text, name, table))


def _from_frame(
    source: str, column: Any, name: str, remedies: tuple[str, str | None] | None
) -> np.ndarray:
    """A column of a frame as numbers, NaN where it holds none; with `remedies` it may hold text."""
    if column.dtype.kind == "O":
        column = column.convert_dtypes()  # booleans with holes, say
    if column.isna().all():
        return np.full(len(column), np.nan)
    if column.dtype.kind in "iufb":
        missing = column.isna().any()  # pandas' own integers may have holes
        return column.to_numpy(np.float64, na_value=np.nan) if missing else column.to_numpy()
    if remedies is None:
        raise ValueError(
            f"{source}: column {name} holds {column.dtype}, not numbers; "
            "choose columns with --columns"
        )
    text = [cell.strip() for cell in _as_text(column)]
    return _parse(source, text, name, np.arange(len(text)) + 1, "", *remedies)


def _as_text(column: Any) -> Any:
    """The cells of a column of a frame as text, empty where there is nothing."""
    return column.astype(str).where(column.notna(), "")


def _table(
    source: str,
    names: tuple[str, ...],
    roles: Roles,
    arrays: dict[int, np.ndarray],
    lines: np.ndarray | None,
) -> Table:
    """Columns of numbers, by index, each in its role."""

    def of_rows(index: int | None) -> Column | None:
        return None if index is None else Column(names[index], arrays[index])

    return Table(
        source,
        tuple(names[i] for i in roles.values),
        _as_numbers([arrays[i] for i in roles.values]),
        lines,
        weights=of_rows(roles.weights),
        labels=of_rows(roles.labels),
    )


def _remedies(roles: Roles, choice: Choice) -> dict[int | None, tuple[str, str | None]]:
    """What to do about a cell that is no weight or no label, and about an empty one."""
    label = label_remedy(choice.num_members)
    return {roles.weights: (WEIGHT, WEIGHT), roles.labels: (label, None)}


def _read_numpy(source: str, choice: Choice) -> Table:
    try:
        with open(source, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = dict(loaded) if hasattr(loaded, "files") else {"values": loaded}
    except OSError:
        raise
    except Exception as error:  # zipfile and NumPy raise many kinds on damaged bytes
        raise ValueError(f"{source}: not a whole file of numbers by NumPy: {error}") from error
    if len(arrays) == 1:
        arrays = {"values": next(iter(arrays.values()))}
    if "values" not in arrays or arrays.keys() - {"values", "lengths"}:
        raise ValueError(
            f"{source}: holds the arrays {', '.join(arrays) or '(none)'}; expected one array, "
            "or `values` and optional `lengths`"
        )
    values, lengths = arrays["values"], arrays.get("lengths")
    if values.dtype.kind not in "iufb":
        raise ValueError(f"{source}: holds {values.dtype}, not real numbers")
    if values.ndim == 2 and lengths is not None:
        values = values[:, :, None]
    if values.ndim == 3:
        table = _unpack(source, values, lengths)
    elif values.ndim in (1, 2) and lengths is None:
        columns = values.reshape(len(values), -1) if values.ndim == 1 else values
        table = Table(source, _numbered(columns.shape[1]), _as_numbers([*columns.T]))
    else:
        raise ValueError(
            f"{source}: values have shape {list(values.shape)}; expected [N], [N, D], or padded "
            "sequences [B, T, D] ([B, T] with lengths [B])"
        )
    return table.select(choice)


def _unpack(source: str, values: np.ndarray, lengths: np.ndarray | None) -> Table:
    """Padded sequences [B, T, D] as rows with the number of their sequence, from 1."""
    batch, steps, width = values.shape
    lengths = np.full(batch, steps) if lengths is None else lengths
    if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
        raise ValueError(
            f"{source}: lengths must be {batch} integers, one a sequence, "
            f"got {lengths.dtype}{list(lengths.shape)}"
        )
    if np.any((lengths < 0) | (lengths > steps)):
        raise ValueError(f"{source}: lengths must be from 0 to {steps}, the steps in values")
    inside = np.arange(steps) < lengths[:, None]
    rows = values[inside]
    ids = (np.nonzero(inside)[0] + 1).astype(str)
    table = Table(source, _numbered(width), _as_numbers([*rows.T]))
    return replace(table, sequence="sequence", ids=ids)


def _ids(source: str, cells: Any, column: str, table: Table) -> np.ndarray:
    ids = np.asarray([cell.strip() for cell in cells], dtype=object)
    empty = np.flatnonzero(ids == "")
    if len(empty):
        place = f"row {table.lines[empty[0]]}" if table.lines is not None else table.place(empty[0])
        refuse_cell(source, place, column, "", IDS)
    return ids.astype(str)


def _numbered(width: int) -> tuple[str, ...]:
    return tuple(str(i + 1) for i in range(width))


def _as_numbers(arrays: list[np.ndarray]) -> np.ndarray:
    """Columns as one array [N, D] of int64 if all are whole by type, else of float64."""
    if not arrays:
        return np.zeros((0, 0))
    whole = all(array.dtype.kind in "ib" for array in arrays)
    return np.stack([array.astype(np.int64 if whole else np.float64) for array in arrays], axis=1)


def _pandas(source: str) -> Any:
    try:
        return import_module("pandas")
    except ModuleNotFoundError:
        raise ValueError(f'{source}: reading it needs pandas: pip install "jaxem[cli]"') from None
