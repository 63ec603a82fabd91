# `make demo` and `make test` are all a newcomer needs; both set up `.venv` first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := examples/digits/config.yaml

.PHONY: setup demo compare-demo test lint types unit docs test-vision test-browser test-ray clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test,docs]'
	touch $@

demo: setup
	$(BIN)/polytask fit $(DEMO)
	$(BIN)/polytask test $(DEMO) --ckpt best
	$(BIN)/polytask predict $(DEMO)

compare-demo: setup
	$(BIN)/polytask compare $(DEMO) trainer.max_epochs=6 --methods equal uw pcgrad cagrad --single-task \
		--seeds 5 --trials 3 --jobs 2
	$(BIN)/polytask report comparisons/digits

test: lint types unit docs

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup
	$(BIN)/mypy

unit: setup
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term-missing:skip-covered --cov-fail-under=95

docs: setup
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b doctest docs docs/_build/doctest

test-vision:
	bash scripts/vision.sh

# Needs chromium and its driver; without them the tests skip.
test-browser: setup
	$(BIN)/pip install --quiet -c constraints.txt -e '.[browser]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/browser

# Starts a Ray of two workers on this host.
test-ray: setup
	$(BIN)/pip install --quiet -c constraints.txt -e '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/ray

clean:
	rm -rf $(VENV) .venv-vision docs/_build .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
