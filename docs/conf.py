"""Sphinx's settings; ``make docs`` builds the pages into ``docs/_build/html``."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
import types
from typing import Any

import jaxopt_core

project = "jaxopt-core"
author = "The jaxopt-core authors"
copyright = author  # Sphinx's own name for it
version = release = importlib.metadata.version("jaxopt-core")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jaxopt-core"
html_show_sourcelink = False
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# A role that leads nowhere is a warning, and `make docs` makes it an error. The types of signatures are
# left out: nearly all of them are Any, because a hyperparameter may be many things, and docstrings say which.
nitpicky = True
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # fields of a NamedTuple are then described once
napoleon_attr_annotations = False
napoleon_use_rtype = False
# Sphinx knows no targets outside of this package without downloading their indices.
nitpick_ignore_regex = [
    ("py:.*", r"(?!jaxopt_core)\w+\..*"),
    ("py:class", "NamedTuple"),
    ("py:class", r"jaxopt_core\..*\._[A-Z]\w*"),  # what LSTM and GRU share
    ("py:attr", ".*"),  # fields are described in the docstring of their class, and are no targets
]

templates_path = ["_templates"]
autosummary_ignore_module_all = False


def by_module(package: str) -> dict[str, tuple[str, list[str]]]:
    """The public names of a package, in the order of the modules that define them.

    Returns:
      Module below ``package`` -> (first paragraph of its docstring, names); modules that are packages
      come first. What the package defines itself is under ``""``.
    """
    groups: dict[str, tuple[str, list[str]]] = {}
    public = importlib.import_module(package)
    for name in public.__all__:
        if inspect.ismodule(value := getattr(public, name)):
            continue  # has a page of its own
        if isinstance(value, dict | types.GenericAlias):
            continue  # a table, or dict[str, float] by another name: no docstring of its own
        defined_in = getattr(value, "__module__", package)
        child = defined_in.removeprefix(f"{package}.").partition(".")[0]
        child = child if defined_in.startswith(f"{package}.") else ""
        module = importlib.import_module(f"{package}.{child}" if child else package)
        about = inspect.getdoc(module) or ""
        groups.setdefault(child, (about.partition("\n\n")[0].replace("\n", " "), []))[1].append(name)

    def is_module(child: str) -> tuple[bool, str]:
        return not hasattr(importlib.import_module(f"{package}.{child}".rstrip(".")), "__path__"), child

    return {child: groups[child] for child in sorted(groups, key=is_module)}


PACKAGES = ["jaxopt_core"] + [
    f"jaxopt_core.{module.name}" for module in pkgutil.iter_modules(jaxopt_core.__path__) if module.ispkg
]
autosummary_context = {
    "packages": {package: by_module(package) for package in PACKAGES},
    # A package of which everything is imported from the top has no page of its own.
    "with_page": [
        p for p in PACKAGES if not set(importlib.import_module(p).__all__) <= set(jaxopt_core.__all__)
    ],
}


def _skip_tuple_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out "Alias for field number 0": the docstring of a NamedTuple describes its fields."""
    del app, what, name, skip, options
    return True if type(obj).__name__ == "_tuplegetter" else None


def _find_bare_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Finds what a docstring names without its package, wherever that is documented.

    A name that exists in this package and is not public stays plain text; any other is left to be a warning.
    """
    target, python = node["reftarget"], env.get_domain("py")
    if found := [name for name in python.objects if name.endswith(f".{target}")]:
        place = min(found, key=len)
        return python.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], place, node, contnode)
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "jaxopt_core"]
    return contnode if any(hasattr(module, target) for module in modules) else None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", _find_bare_name)
    app.connect("autodoc-skip-member", _skip_tuple_fields)
