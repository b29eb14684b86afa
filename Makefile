# The two commands of the README. Python 3.11 or newer, pip and make are all they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint types docs clean
.DEFAULT_GOAL := quickstart

# Train a small GPT-2 on real movie-review sentences and classify with it.
quickstart: $(VENV)/.installed
	$(BIN)/python launch.py --config=configs/quickstart.py

# The whole test suite.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist worksteal

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/pyright --pythonpath $(BIN)/python

# docs/ as a site, in build/site.
docs: $(VENV)/.installed-test
	$(BIN)/mkdocs build --strict --quiet --config-file .mkdocs.yml

clean:
	rm -rf $(VENV) build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed
