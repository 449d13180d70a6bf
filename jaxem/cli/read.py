"""Reading data: CSV, Parquet and NumPy files, and the tables that come with the package."""

import csv
import os
import re
from dataclasses import replace
from importlib import import_module, resources
from typing import Any

import numpy as np

from jaxem import datasets
from jaxem.cli.table import Table, choose, refuse_cell

FINITE = "every entry must be a finite number"
NO_HEADER = "; the first line is a header only if none of its cells is a number"
_BOOLEANS = {"true": "1", "false": "0"}


def read(source: str, columns: str | None = None, sequence: str | None = None) -> Table:
    """The table that DATA, --columns and --sequence name, every entry of it a finite number.

    Raises:
        ValueError: no such data, not such a file, a column that is not there, an entry that is
            empty or not a finite number: the message names file, row and column.
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
        table = _bundled(source).select(columns, sequence)
    elif not os.path.exists(source):
        names = ", ".join(datasets.BUNDLED)
        raise ValueError(f"{source}: no such file, nor a bundled data set; those are {names}")
    elif ending not in readers:
        raise ValueError(f"{source}: unknown kind of file; expected one of {', '.join(readers)}")
    else:
        table = readers[ending](source, columns, sequence)
    if len(table.values) == 0:
        raise ValueError(f"{source}: there is no row of data in it")
    table.refuse(~np.isfinite(table.values), FINITE)
    return table


def _bundled(name: str) -> Table:
    values = datasets.BUNDLED[name]()
    values = values.reshape(len(values), -1)
    with resources.files("jaxem.datasets").joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    return Table(name, tuple(header[-values.shape[1] :]), values)  # the loader may drop a year


def _read_csv(source: str, chosen: str | None, sequence: str | None) -> Table:
    pandas = _pandas(source)
    start, header, width = _first_rows(source)
    names = header or tuple(str(i + 1) for i in range(width))
    kept, ids = choose(source, names, chosen, sequence)
    skipped = start + (header is not None)

    def load(dtype: Any) -> Any:
        try:
            return pandas.read_csv(
                source,
                header=None,
                names=range(width),
                index_col=False,
                dtype=dtype,
                skiprows=skipped,
                skip_blank_lines=False,  # so that row i is line skipped + i + 1
                skipinitialspace=True,
                na_filter=False,
                encoding="utf-8-sig",
                low_memory=False,
            )
        except pandas.errors.EmptyDataError:
            raise ValueError(f"{source}: there is no row of data in it") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{source}: not a CSV file in UTF-8: {error}") from error
        except pandas.errors.ParserError as error:
            raise ValueError(f"{source}: {_ragged(str(error), skipped)}") from None

    frame = load(None if ids is None else {ids: str})
    lines = np.arange(len(frame)) + skipped + 1
    if all(frame[i].dtype.kind in "iufb" for i in kept):
        values = _as_numbers([frame[i].to_numpy() for i in kept])
    else:  # slower: some cell is no number, or some line blank
        frame = load(str).fillna("")
        filled = frame.ne("").any(axis=1).to_numpy()
        frame, lines = frame[filled], lines[filled]
        hint = "" if header else NO_HEADER
        values = _as_numbers([_parse(source, frame[i], names[i], lines, hint) for i in kept])
    table = Table(source, tuple(names[i] for i in kept), values, lines)
    if ids is None:
        return table
    return replace(table, sequence=names[ids], ids=_ids(source, frame[ids], names[ids], table))


def _first_rows(source: str) -> tuple[int, tuple[str, ...] | None, int]:
    """Blank lines at the start, the header if there is one, and the number of columns."""
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, skipinitialspace=True)
            seen = []
            for row in rows:
                if any(cell.strip() for cell in row):
                    seen.append((rows.line_num, tuple(cell.strip() for cell in row)))
                if len(seen) == 2:
                    break
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{source}: not a CSV file in UTF-8: {error}") from error
    if not seen:
        raise ValueError(f"{source}: the file is empty")
    (line, first), *second = seen
    if second and len(second[0][1]) > len(first):
        (below, longer), width = second[0], len(first)
        raise ValueError(f"{source}: row {below} has {len(longer)} cells, row {line} has {width}")
    header = None if any(map(_is_number, first)) else first
    return line - 1, header, len(first)


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


def _parse(source: str, cells: Any, column: str, lines: np.ndarray, hint: str) -> np.ndarray:
    """A column of text as numbers, or a ValueError that names the first cell that is none."""
    pandas = _pandas(source)
    text = cells.str.strip()
    numbers = text.str.lower().replace(_BOOLEANS)
    numbers = pandas.to_numeric(numbers, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        cell = text.iloc[bad[0]]
        remedy = f"{FINITE}; repair or drop the row, or choose columns with --columns"
        if any(mark in cell for mark in ";\t"):
            remedy = "cells are separated by commas"
        elif bad[0] == 0:
            remedy += hint
        refuse_cell(source, f"row {lines[bad[0]]}", column, cell, remedy)
    return numbers


def _read_parquet(source: str, chosen: str | None, sequence: str | None) -> Table:
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
    kept, ids = choose(source, names, chosen, sequence)
    arrays = []
    for i in kept:
        column = frame.iloc[:, i]
        if column.dtype.kind not in "iufb":
            raise ValueError(
                f"{source}: column {names[i]} holds {column.dtype}, not numbers; "
                "choose columns with --columns"
            )
        missing = column.isna().any()  # pandas' own integers may have holes
        arrays.append(
            column.to_numpy(np.float64, na_value=np.nan) if missing else column.to_numpy()
        )
    table = Table(source, tuple(names[i] for i in kept), _as_numbers(arrays))
    if ids is None:
        return table
    column = frame.iloc[:, ids]
    text = column.astype(str).where(column.notna(), "")
    lines = np.arange(len(frame)) + 1
    table = replace(table, lines=lines)  # a row keeps its number when it belongs to a sequence
    return replace(table, sequence=names[ids], ids=_ids(source, text, names[ids], table))


def _read_numpy(source: str, chosen: str | None, sequence: str | None) -> Table:
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
    chosen_table = table.select(chosen, sequence)
    if chosen_table.ids is not None and table.ids is None:
        chosen_table = replace(chosen_table, lines=np.arange(len(table.values)) + 1)
    return chosen_table


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
        refuse_cell(source, place, column, "", "every row needs the id of its sequence")
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
