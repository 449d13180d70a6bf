"""Writing a file whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from typing import Any, BinaryIO


def replace_file(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
    """Replace what is at `path` by what `write` writes, in one step, or leave it as it was.

    Written to a temporary name beside it, synced and renamed.  Links are followed, and a file that
    exists keeps its mode.

    Raises:
        ValueError: the path is a directory or a device.
        OSError: it cannot be written.
    """
    target = os.path.realpath(os.fsdecode(path))
    replaces = os.path.exists(target)
    if replaces:
        if not os.path.isfile(target):
            raise ValueError(f"{target!r} is a directory or a device; expected a file's name.")
        open(target, "r+b").close()  # a read-only file refuses here, as it would any writer
    directory = os.path.dirname(target)
    temporary = os.path.join(directory, f".jaxem-{secrets.token_hex(8)}.tmp")
    file = open(temporary, "xb")  # the usual permissions, unlike tempfile's
    try:
        with file:
            write(file)
            if replaces:
                shutil.copymode(target, temporary)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(OSError):  # Windows and some file systems cannot sync a directory
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
