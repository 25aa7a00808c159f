"""The shape of the package: what may import what, and what every public function owes its reader."""

from __future__ import annotations

import ast
import doctest
import graphlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxopt_core as jo

ROOT = Path(jo.__file__).parent
# Each may use those above it and its neighbours.
LAYERS = [
    {
        *("extras", "figures", "tree", "numerics", "groups", "hyperparams", "access", "rule", "checks"),
        *("describe", "cpu", "runs", "leaf", "leafwise"),
    },
    {"optimizers", "schedulers", "gradients", "averaging", "precision", "losses", "data"},
    {"interop", "training", "profiling", "evaluation"},
    {"parity"},
    {"models", "parallel"},
    {"recipes"},
    {"tuning"},
    {"cli"},
]
# What is made of the package, and may use it whole. What trains models imports Flax where it stands.
ABOVE = {"models", "parallel", "recipes", "cli"}
# ml_dtypes comes with JAX, whose bfloat16 it is.
REQUIRED = {"jax", "jaxlib", "numpy", "ml_dtypes", "optax", "chex"}
PUBLIC = [name for name in jo.__all__ if inspect.isfunction(getattr(jo, name))]


def modules() -> dict[str, Path]:
    names = {}
    for folder, _, files in os.walk(ROOT, followlinks=True):  # models and parallel are links in a checkout
        for path in (Path(folder, file) for file in files if file.endswith(".py")):
            parts = [ROOT.name, *path.relative_to(ROOT).with_suffix("").parts]
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return dict(sorted(names.items()))


MODULES = modules()


def imports(path: Path, module_level: bool) -> Iterator[str]:
    """Absolute names of what a file imports; with ``module_level`` only what importing it imports."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            if module_level and (lazy or types_only):
                continue
            yield child
            yield from walk(child)

    for node in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def part(module: str) -> str:
    """``jaxopt_core.optimizers.adam`` -> ``optimizers``."""
    return module.split(".")[1] if "." in module else ""


def layer(name: str) -> int:
    found = [i for i, names in enumerate(LAYERS) if name in names]
    assert found, f"jaxopt_core.{name} has no layer: put it into LAYERS, where the design has it"
    return found[0]


@pytest.mark.parametrize("module", [name for name in MODULES if part(name)])
def test_imports_flow_one_way(module):
    for name in imports(MODULES[module], module_level=False):
        if name.split(".")[0] != "jaxopt_core" or part(name) == part(module):
            continue
        if not part(name):
            assert part(module) in ABOVE, f"{module} imports the package that is made of it"
            continue
        assert layer(part(name)) <= layer(part(module)), f"{module} imports {name}, which stands above it"
        assert {part(name), part(module)} != {"models", "parallel"}, f"{module} imports {name}"
        if part(name) in ABOVE:
            assert part(module) in {"recipes", "tuning", "cli"}, f"{module} imports {name}"


def test_no_circle():
    graph = {
        m: {n for n in imports(path, module_level=True) if n in MODULES} - {m} for m, path in MODULES.items()
    }
    # A package imports its files, and a file reaches its own package's name only by being in it.
    graph = {m: {n for n in names if not m.startswith(f"{n}.")} for m, names in graph.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("jaxopt_core.tree") < order.index("jaxopt_core.leafwise")


NEED_FLAX = {"jaxopt_core.cli.train", "jaxopt_core.tuning.recipes"}  # imported where a recipe is trained


@pytest.mark.parametrize(
    "module", [m for m in MODULES if part(m) not in {"models", "parallel", "recipes"} and m not in NEED_FLAX]
)
def test_imports_need_no_extra(module):
    for name in imports(MODULES[module], module_level=True):
        top = name.split(".")[0]
        assert top in REQUIRED | {"jaxopt_core"} | sys.stdlib_module_names, f"{module} imports {name}"
        is_own = part(name) == part(module) or top != "jaxopt_core"
        assert is_own or part(name) not in ABOVE, f"{module} imports {name}"


def test_public_names_are_sorted_and_there():
    assert sorted(jo.__all__) == jo.__all__
    assert len(set(jo.__all__)) == len(jo.__all__)
    assert all(hasattr(jo, name) for name in jo.__all__)


def test_public_names_are_all_reexported():
    tree = ast.parse(Path(jo.__file__).read_text())
    imported = {a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert imported == set(jo.__all__)
    others = [node for node in tree.body if not isinstance(node, ast.ImportFrom | ast.Expr | ast.Assign)]
    assert not others, "the package re-exports and does nothing else"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_function_is_documented(name):
    function = getattr(jo, name)
    doc = inspect.getdoc(function) or ""
    summary, _, rest = doc.partition("\n")
    assert summary.endswith("."), "the first line says what it does"
    parameters = list(inspect.signature(function).parameters.values())
    if parameters:
        section = rest.partition("Args:\n")[2].partition("\n\n")[0]
        for parameter in parameters:
            label = {
                parameter.VAR_KEYWORD: f"**{parameter.name}",
                parameter.VAR_POSITIONAL: f"*{parameter.name}",
            }
            assert f"  {label.get(parameter.kind, parameter.name)}: " in section, (
                f"{parameter.name} is not documented"
            )
    if inspect.signature(function).return_annotation not in (None, "None"):
        assert "Returns:\n" in rest
    assert "Example:\n" in rest


def test_examples_are_run_by_the_suite(pytestconfig):
    # pytest collects them as doctests of the package; running them here again would cost seconds.
    assert "jaxopt_core" in pytestconfig.getini("testpaths")
    assert "--doctest-modules" in pytestconfig.getini("addopts")


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "setup_cpu"])
def test_example_can_fail(name):
    # setup_cpu has to come before JAX starts: its example cannot run.
    found = doctest.DocTestFinder(recurse=False).find(getattr(jo, name), name, globs={})
    assert found
    examples = found[0].examples
    assert examples, "the example has nothing that runs"
    assert any(example.want for example in examples) or name == "by_path", "the example shows no result"


@pytest.mark.parametrize("name", [n for n in PUBLIC if n in dir(jo.optimizers) and n != "sparse_rows"])
def test_optimizer_file_opens_with_its_algorithm(name):
    doc = inspect.getdoc(getattr(jo, name)) or ""
    assert "``torch.optim." in doc.partition("\n")[0]
    for section in ("Source:", "Raises:\n", "Differences from"):
        assert section in doc, f"{section} is missing"
    arguments = inspect.signature(getattr(jo, name)).parameters
    assert doc.count("Default ") >= len(arguments), "every argument says its default"


def test_files_are_one_thought_long():
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {m: n for m, n in lengths.items() if n > 350} == {}
