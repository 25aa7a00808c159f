# make train and make test need nothing but Python: each makes its own virtual environment and
# installs into it, and does so again only when pyproject.toml changes.

PYTHON ?= python3
# Passed on, for example: make train ARGS="--data ~/mnist --epochs 10", make test ARGS="-k adam".
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train test test-slow lint docs bench clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: .venv-train/installed  ## train a network on handwritten digits; results in runs/
	.venv-train/bin/jaxopt-core train digits $(ARGS)

test: .venv-test/installed  ## the whole test suite, on two cores
	.venv-test/bin/python -m pytest -n 2 $(ARGS)

test-slow: .venv-test/installed  ## the tests marked slow: more mutated files, more kills, the benchmark scripts
	.venv-test/bin/python -m pytest -n 2 -m slow $(ARGS)

# The type checker sees what a user installs, not the checkout; what setuptools left in build/ would
# be installed too.
lint: .venv-lint/installed  ## ruff, and mypy over the installed package
	.venv-lint/bin/ruff check .
	.venv-lint/bin/ruff format --check .
	rm -rf build
	.venv-lint/bin/python -m pip install --quiet --no-deps --force-reinstall .
	cd .venv-lint && bin/mypy --config-file ../pyproject.toml -p jaxopt_core

# Pages of names that are gone would be warnings.
docs: .venv-docs/installed  ## build the documentation into docs/_build/html; a warning is an error
	rm -rf docs/_generated
	.venv-docs/bin/sphinx-build -W --keep-going -q docs docs/_build/html $(ARGS)
	@echo "open docs/_build/html/index.html"

bench: .venv-test/installed  ## compare the optimizers' speed with PyTorch's and Optax's
	.venv-test/bin/python -m benchmarks.optimizer_step $(ARGS)

clean:  ## remove the virtual environments and everything that was built
	rm -rf .venv-train .venv-test .venv-lint .venv-docs build dist runs *.egg-info
	rm -rf docs/_build docs/_generated .hypothesis .mypy_cache .pytest_cache .ruff_cache

.venv-train/installed: pyproject.toml
	$(PYTHON) -m venv .venv-train
	.venv-train/bin/python -m pip install --editable '.[train]'
	touch $@

.venv-test/installed: pyproject.toml
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install --editable '.[test]'
	touch $@

.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --editable '.[docs]'
	touch $@

.venv-lint/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lint
	.venv-lint/bin/python -m pip install '.[data,interop,tune,lint]'
	touch $@
