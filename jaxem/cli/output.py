"""Writing a file whole or not at all."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from typing import Any


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


def write(path: str, content: bytes) -> None:
    """Replace what is at `path` in one step; after an error it is as it was."""
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".jaxem-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:  # the usual permissions, unlike tempfile's
            file.write(content)
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_csv(path: str | None, header: Sequence[str], columns: Sequence[Any]) -> None:
    """Columns of text as CSV, to a file or, without a path, to standard output."""
    rows = [header, *zip(*columns, strict=True)]
    text = "".join(",".join(map(_quoted, row)) + "\n" for row in rows)
    if path is None:
        sys.stdout.write(text)
        sys.stdout.flush()  # a reader that has gone away shows here, inside `main`
    else:
        write(path, text.encode())


def _quoted(cell: str) -> str:
    if any(mark in cell for mark in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell
