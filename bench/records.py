"""The results on disk: one JSON file a group, of which a run replaces only what it measured."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def now() -> str:
    """The time in UTC, to the second; it also names a run's machine record."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(directory: Path, group: str) -> dict[str, Any]:
    """The file of a group; empty if there is none."""
    path = directory / f"{group}.json"
    if not path.exists():
        return {"machines": {}, "entries": {}}
    return json.loads(path.read_text())


def write(
    directory: Path, group: str, entries: dict[str, Any], run: str, machine: dict[str, Any]
) -> None:
    """Put these entries into the file of their group, each marked with the run it comes from.

    Machine records that no entry refers to any more are dropped.  The file is replaced whole, so
    that a run that is broken off leaves the old one.
    """
    content = read(directory, group)
    content["machines"][run] = machine
    for name, entry in entries.items():
        content["entries"][name] = entry | {"date": now(), "machine": run}
    used = {entry["machine"] for entry in content["entries"].values()}
    content["machines"] = {key: value for key, value in content["machines"].items() if key in used}
    replace_file(directory / f"{group}.json", json.dumps(content, indent=1, allow_nan=True) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
