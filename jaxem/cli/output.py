"""Writing a file whole or not at all, and to standard output."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from jaxem.replacement import replace_file


def check(path: str | None, option: str, others: Sequence[str | None]) -> None:
    """Refuse a path that cannot be written, or that is one of the `others` in use.

    Called before the work, so that a long fit does not end in a mistyped name.

    Raises:
        ValueError: the message names the option and the path.
    """
    if path is None:
        return
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    if any(other is not None and os.path.realpath(other) == target for other in others):
        raise ValueError(f"{option} {path}: that file is in use already; choose another name")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"{option} {path}: is a directory or a device; give the name of a file")
    if not os.path.isdir(directory):
        raise ValueError(f"{option} {path}: there is no directory {directory}; make it first")
    if not os.access(target if os.path.exists(target) else directory, os.W_OK):
        raise ValueError(f"{option} {path}: no permission to write there")


def write_csv(path: str | None, header: Sequence[str], columns: Sequence[Any]) -> None:
    """Columns of text as CSV, to a file or, without a path, to standard output."""
    rows = [header, *zip(*columns, strict=True)]
    text = "".join(",".join(map(_quoted, row)) + "\n" for row in rows)
    if path is None:
        sys.stdout.write(text)
        sys.stdout.flush()  # a reader that has gone away shows here, inside `main`
    else:
        replace_file(path, lambda file: file.write(text.encode()))


def print_text(text: str) -> None:
    """A text on standard output, with a "?" for every character that its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def _quoted(cell: str) -> str:
    if any(mark in cell for mark in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell
