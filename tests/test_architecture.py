"""The layout is the design: who imports whom, how long a file is, what is documented."""

import ast
import importlib
import inspect
import itertools
import pkgutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import jax
import pytest

import jaxem

PACKAGE = Path(jaxem.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import those of its own layer and of the ones below it.
LAYERS = [
    {"platform", "pytree", "semiring", "replacement", "padding", "blocks", "lockstep"},
    {"missing", "data", "labels", "parameters", "acceleration", "iteration", "em"},
    {"families", "chain", "lattice", "targets", "hypotheses"},
    {"ctc", "transducer"},
    {"observations", "stationary", "forecast", "mixture"},
    {"prepared_sequences"},
    {"hmm"},
    {"initialize", "imputation", "comparison", "datasets", "io", "plots", "many"},
    {"cli", "sklearn"},
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
# What scikit-learn wants inherited, and what its mixtures, and its HMMs, share here.
ESTIMATORS = {"BaseEstimator", "DensityMixin", "ABC", "MixtureEstimator", "HMMEstimator"}
BLIND = {  # the ignorances that are the design
    "em": {"families", "chain", "mixture", "hmm"},
    "chain": {"families", "em"},
    "families": {"chain", "mixture", "hmm"},
    "lattice": {"families", "em", "targets"},
    "ctc": {"families", "em", "transducer"},
    "transducer": {"families", "em", "ctc"},
}


def part(path: Path) -> str:
    """The first name below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(source: str) -> set[str]:
    """The parts of the package that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("jaxem.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxem":
            found |= {f"jaxem.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxem."):
            found.add(str(node.module))
    return {name.split(".")[1] for name in found}


def upward(name: str, source: str) -> set[str]:
    """What a module of this part imports and should not."""
    imported = imported_parts(source) - {name}
    return {other for other in imported if LEVEL.get(other, 99) > LEVEL[name]} | (
        imported & BLIND.get(name, set())
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    if part(path) != "__init__":
        assert not upward(part(path), path.read_text())


def test_an_import_that_points_up_is_noticed() -> None:
    assert upward("em", "from jaxem.mixture import Mixture") == {"mixture"}
    assert upward("chain", "def f():\n    from jaxem import families") == {"families"}


def test_no_import_goes_in_a_circle_between_parts() -> None:
    edges = {
        (part(path), other)
        for path in FILES
        if part(path) != "__init__"
        for other in imported_parts(path.read_text()) - {part(path)}
    }
    reach = set(edges)
    for _ in LEVEL:
        reach |= {(a, d) for (a, b), (c, d) in itertools.product(reach, edges) if b == c}
    assert not {a for a, b in reach if a == b}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_named_after_something_and_leave_no_loose_ends(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= 400
    assert path.stem not in {"utils", "util", "base", "common", "helpers", "misc"}
    for mark in ("TODO", "FIXME", "XXX", "NotImplementedError"):
        assert mark not in source


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_leaves_configuration_dtypes_and_standard_output_alone(path: Path) -> None:
    if part(path) == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr != "float64", f"{path.name}: the dtype follows the data"
            assert ast.unparse(node) != "jax.config", f"{path.name}: no global configuration"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "print", f"{path.name}: no printing"
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases} - {"Protocol"}
            allowed = ESTIMATORS if part(path) == "sklearn" else set()
            assert bases <= allowed, f"{path.name}: {node.name} inherits from {bases}"


def public_modules() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(jaxem.__path__, "jaxem.")]
    return ["jaxem", *(name for name in names if "_" not in name.split(".")[-1][:1])]


def undocumented(module: object) -> set[str]:
    """Public functions, classes, methods and properties of a module without a docstring."""
    missing = set() if inspect.getdoc(module) else {"the module"}
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            missing |= set() if value.__doc__ else {name}
        if inspect.isclass(value):
            for member, method in vars(value).items():
                target = method.__func__ if isinstance(method, classmethod) else method
                if not member.startswith("_") and (
                    inspect.isfunction(target) or isinstance(target, property)
                ):
                    missing |= set() if target.__doc__ else {f"{name}.{member}"}
    return missing


@pytest.mark.parametrize("name", public_modules())
def test_public_names_are_documented(name: str) -> None:
    assert not undocumented(importlib.import_module(name))


def test_a_public_name_without_a_docstring_is_noticed() -> None:
    def bare() -> None: ...

    module = type(sys)("somewhere", "A module.")
    bare.__module__ = "somewhere"
    module.bare = bare
    assert undocumented(module) == {"bare"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_product_states_its_precision(path: Path) -> None:
    """TF32 and bfloat16 defaults break log-densities by whole nats."""
    if part(path) in {"plots", "cli", "sklearn"}:  # NumPy, and nothing that is fitted
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "jnp.dot",
            "jnp.matmul",
            "jnp.einsum",
            "jnp.tensordot",
            "lax.dot_general",
        }:
            named = {keyword.arg for keyword in node.keywords}
            assert "precision" in named, f"{path.name}:{node.lineno} {ast.unparse(node)}"
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult))


def test_structures_of_different_classes_differ() -> None:
    """Else `jit`, where two hashes collide, runs the program of another class."""
    classes = {
        value
        for name in public_modules()
        for value in vars(importlib.import_module(name)).values()
        if inspect.isclass(value) and is_dataclass(value) and value.__module__.startswith("jaxem")
    }
    nodes = []
    for cls in sorted(classes, key=lambda cls: cls.__name__):
        value = cls(*range(len(fields(cls))))
        if jax.tree.structure(value) != jax.tree.structure(0):  # registered
            nodes.append(jax.tree.structure(value))
    assert len(nodes) > 20
    for one, other in itertools.combinations(nodes, 2):
        assert one != other


def test_importing_the_library_needs_only_its_run_time_dependencies() -> None:
    code = (
        "import sys, jaxem\n"
        "extras = {'matplotlib', 'pandas', 'pyarrow', 'sklearn', 'tqdm', 'chex', 'torch'}\n"
        "sys.exit(', '.join(extras & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
