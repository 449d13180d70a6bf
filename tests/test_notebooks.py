"""The notebooks run, are what their scripts say, and come to the published numbers."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("nbclient")
pytest.importorskip("PIL")

FOLDER = Path(__file__).parent.parent / "notebooks"
MOST_BYTES, MOST_SECONDS = 400_000, 240  # of a file; two minutes of two cores
PUBLISHED: dict[str, tuple[str, ...]] = {  # what the outputs must say, to the digits that last
    "checking_m_steps": (
        *("lambda recovered -272.0  theory -272.0", "passed: True  failed: 0"),
        *("right -1034.0017, converged", "wrong -1034.0065, converged", "never fell"),
        *("lagrange.components", "softmax.newton", "maximum, rate 0.658052"),
        *("0.360886   0.0311648", "54.6149    0.699675", "80.0911    0.504595"),
        *("6.30948", "4.70547"),
    ),
    "em_by_hand": (
        *(".608247423", ".626488879", ".626815632", "67.384102095"),  # Dempster, Laird & Rubin
        *("complete 435.318, observed 377.517", "rate of convergence 0.132779", "0.05147"),
        *("variance 2.666667, rho  0.500000, l = -29.97428641", "l = -30.03334239"),  # Murray
        *("FAILED - rate of convergence 1.06667", "first factor 1.0667"),
    ),
    "gaussian_mixtures": (
        *("[272. 272.] so lambda = -272.0", "-1175.83628889", "-1130.81281518", "-1130.26488833"),
        *("0.3559 0.6441", "2.03638", "54.4785", "79.9681", "33.6973", "36.0462"),  # mclust, VVV
        *("-1130.26396", "-1140.1867", "-1147.806353", "-1709.529282", "2322.19"),
        *("TiedGaussian, K=3  BIC  2314.30", "r is the gradient: True"),
    ),
    "hidden_markov_models": (
        *("-3.3725020443", "0.867339 0.820419 0.307484", "-4.4590, z = [0 0 1 0 0]"),  # umbrellas
        *("413.27542", "343.76023", "343.13618", "341.87871", "341.87870"),  # Zucchini & MacDonald
        *("[15.4208 26.0182]", "328.5275", "707.12", "708.46", "702.45", "699.11"),
        *("0.0716261   0.0376234", "0.119034   0.0636094"),  # of the transitions, and of the rates:
        *("15.4208    0.717184", "26.0182     1.38246", "in all 29999.0"),
    ),
    "ctc_and_transducer": (
        *("the chain 3.34211", "jaxem.ctc 3.34211", "35.0 paths, 35", "84.0 paths, 84"),  # Graves
        *("by hand          4.495667", "jaxem.transducer 4.495667"),  # warp-transducer
        *("probability 0.64", "as all at once: True"),
    ),
    "many_fits": (
        *("-1034.00175", "0.031165 0.699675 0.504595", "10000 of 10000 fits converged"),
        *("-341.8787, BIC 707.12", "-328.5275, BIC 708.46", "-326.2850"),  # earthquakes
        *("among them: True", "[nan 30.] stopped at a non-finite log-likelihood"),
    ),
}


def load() -> Any:
    """The module `notebooks/execute.py`."""
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks = load()


def code_cells(notebook: Any) -> list[Any]:
    """The cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shows(source: str) -> bool:
    """Whether a cell prints, or ends with an expression."""
    tree = ast.parse(re.sub(r"^%.*$", "", source, flags=re.MULTILINE))
    prints = any(isinstance(node, ast.Name) and node.id == "print" for node in ast.walk(tree))
    return prints or (bool(tree.body) and isinstance(tree.body[-1], ast.Expr))


def kinds(cell: Any) -> list[str]:
    """What a cell has put out: text, pictures, tables; "error" for an error."""
    found = []
    for output in cell.outputs:
        kind = output.output_type
        found += sorted(output.data) if "data" in output else [output.get("name", kind)]
    return found


def text_of(notebook: Any) -> str:
    """All that the cells print and return, as text."""
    lines = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            lines.append(output.get("text", output.get("data", {}).get("text/plain", "")))
    return "\n".join(lines)


def test_every_notebook_has_its_script_and_a_place_in_the_reading_order() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == notebooks.NAMES
    contents = (FOLDER / "README.md").read_text("utf-8")
    assert set(re.findall(r"\((\w+)\.ipynb\)", contents)) >= set(notebooks.NAMES)


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_notebook_has_the_cells_of_its_script_and_small_outputs(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    script, notebook = notebooks.read(FOLDER / f"{name}.py"), notebooks.read(path)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [
        (c.cell_type, c.source) for c in script.cells
    ], f"run `make notebooks-write`: {path.name} is not what its script says"
    for cell in code_cells(notebook):
        assert bool(kinds(cell)) or not shows(cell.source), cell.source
        assert not {"error", "stderr"} & set(kinds(cell)), cell.source
    assert path.stat().st_size < MOST_BYTES


@pytest.mark.notebook
@pytest.mark.parametrize("name", notebooks.NAMES)
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")
def test_a_notebook_runs_and_comes_to_the_published_numbers(name: str) -> None:
    fresh, seconds = notebooks.execute(name)
    committed = notebooks.read(FOLDER / f"{name}.ipynb")
    shown = [list(map(kinds, code_cells(notebook))) for notebook in (fresh, committed)]
    assert shown[0] == shown[1]
    for text in PUBLISHED[name]:
        assert text in text_of(fresh)
    assert seconds < MOST_SECONDS
