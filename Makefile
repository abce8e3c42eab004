# Every target does its own set-up; a machine needs nothing but Python 3.10 or later.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all lint bench docs clean

# A small shop under real traffic, and what the agent saw of it.
demo: $(VENV)/demo.stamp
	$(BIN)/apmkit demo

# The whole test suite on one Python: `make test PYTHON=python3.12 VENV=.venv-3.12`.
test: $(VENV)/dev.stamp
	$(BIN)/pytest -q

# The test suite on every Python from 3.10 on that is on PATH or in ~/.pyenv/versions.
test-all:
	@set -e; ran=""; for minor in $$(seq 10 29); do \
	  for python in $$(command -v python3.$$minor) $(HOME)/.pyenv/versions/3.$$minor.*/bin/python; do \
	    if "$$python" -c "" 2>/dev/null; then \
	      echo "== Python 3.$$minor"; \
	      $(MAKE) --no-print-directory test PYTHON="$$python" VENV=".venv-3.$$minor"; \
	      ran="$$ran 3.$$minor"; break; \
	    fi; \
	  done; \
	done; \
	if [ -z "$$ran" ]; then echo "no python3.10 or later found" >&2; exit 1; fi; \
	echo "passed on$$ran"

# Style, formatting, types and the direction of imports.
lint: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict apmkit exporters tests benchmarks examples
	$(BIN)/lint-imports

# What the agent costs, beside its peers, in one run.
bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks

# The documentation site, into site/.
docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Remove what the other targets made.
clean:
	rm -rf .venv .venv-3.* site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[demo]"
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[dev]"
	touch $@
