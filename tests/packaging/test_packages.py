"""The explicit list of packages: complete on disk, in the wheel and in the sdist."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
TOP_LEVEL = {
    "jaxopt_core": "jaxopt_core",
    "models": "jaxopt_core.models",
    "parallel": "jaxopt_core.parallel",
}


def python_files(folder):
    # os.walk leaves symlinks alone, so jaxopt_core/models is not visited twice.
    for path, _, names in os.walk(folder):
        yield from (Path(path, name) for name in names if name.endswith(".py"))


def modules_on_disk():
    """Paths inside site-packages, as they should be."""
    for folder, package in TOP_LEVEL.items():
        for path in python_files(ROOT / folder):
            yield str(Path(package.replace(".", "/")) / path.relative_to(ROOT / folder))


def packages_on_disk():
    return {str(Path(module).parent).replace("/", ".") for module in modules_on_disk()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    # A copy: setuptools leaves a build/ in its sources, and puts an old one's files into the wheel.
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in TOP_LEVEL:
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=no_caches)
    # The build backend itself instead of pip: no isolation, so no network.
    code = """
from setuptools import build_meta
build_meta.build_sdist("dist")
build_meta.build_wheel("dist")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def wheel_names(distributions):
    (path,) = distributions.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def sdist_names(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return [name.partition("/")[2] for name in archive.getnames()]


def test_every_folder_is_listed():
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages_on_disk())


def test_every_package_has_an_init():
    inits = {f"{package.replace('.', '/')}/__init__.py" for package in SETUPTOOLS["packages"]}
    assert inits <= set(modules_on_disk())


@pytest.mark.parametrize("name", ["models", "parallel"])
def test_symlink_agrees_with_package_dir(name):
    assert SETUPTOOLS["package-dir"][f"jaxopt_core.{name}"] == name
    assert (ROOT / "jaxopt_core" / name).readlink() == Path("..", name)


def test_wheel_holds_every_module(wheel_names):
    assert {name for name in wheel_names if name.endswith(".py")} == set(modules_on_disk())


def test_wheel_holds_type_marker_and_licence(wheel_names):
    assert "jaxopt_core/py.typed" in wheel_names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)


def test_wheel_installs_one_top_level_name(wheel_names):
    tops = {name.partition("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"jaxopt_core"}


@pytest.mark.parametrize("folder", sorted(TOP_LEVEL))
def test_sdist_holds_every_module(folder, sdist_names):
    modules = {str(path.relative_to(ROOT)) for path in python_files(ROOT / folder)}
    assert modules <= set(sdist_names)


def test_import_needs_core_dependencies_alone():
    heavy = "flax torch orbax sklearn matplotlib rich tyro"
    code = f"import sys, jaxopt_core; print(*(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr


def test_missing_extra_is_named():
    # None in sys.modules makes an import fail as if the package were not installed.
    code = "import sys; sys.modules['flax'] = None; import jaxopt_core.models"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "flax is not installed; it comes with pip install 'jaxopt-core[models]'" in done.stderr
