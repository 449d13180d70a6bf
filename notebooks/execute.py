"""Runs the notebooks and writes them with their outputs: `python execute.py [NAME ...]`."""

import base64
import io
import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path != Path(__file__))
TIMEOUT = 600  # seconds a cell may take, on a busy machine
COLOURS = 96  # of a picture: a third of the size, and no eye sees it
PICTURES = (
    "--InlineBackend.print_figure_kwargs={'dpi': 90, 'bbox_inches': 'tight'}",
    "--InlineBackend.rc={'figure.dpi': 90, 'font.size': 9}",
)


def read(path: Path) -> NotebookNode:
    """A script in the percent format or a notebook, as a notebook."""
    return jupytext.read(path)


def execute(name: str) -> tuple[NotebookNode, float]:
    """The script `name` run in a fresh process, on the CPU: its notebook, and the seconds of CPU.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
        nbclient.exceptions.CellTimeoutError: a cell takes longer than `TIMEOUT`.
    """
    notebook = read(HERE / f"{name}.py")
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        coalesce_streams=True,
        kernel_name="python3",
        extra_arguments=list(PICTURES),
        resources={"metadata": {"path": str(HERE)}},
    )
    began = _seconds()
    client.execute(env=environment | {"JAX_PLATFORMS": "cpu"})
    return _tidied(notebook), _seconds() - began


def _seconds() -> float:
    """What the processes that have ended took of all cores together."""
    taken = os.times()
    return taken.children_user + taken.children_system


def _tidied(notebook: NotebookNode) -> NotebookNode:
    """Without what differs from one run to the next, and with small pictures."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _smaller(data["image/png"])
                output.metadata = {}
            if len(data) > 1:
                data.pop("text/plain", None)  # the repr of what is there to be seen
    return notebook


def _smaller(picture: str) -> str:
    """A PNG in base64, with a palette."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    written = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def main(names: list[str]) -> None:
    """Execute and write the notebooks of these names, all if there is none."""
    for name in names or NAMES:
        notebook, seconds = execute(name)
        path = HERE / f"{name}.ipynb"
        nbformat.write(notebook, path)
        size = path.stat().st_size / 1000
        print(f"{path.name}: {seconds:.0f} s, {size:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
