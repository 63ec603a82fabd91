# `make demo` and `make test` are all a newcomer needs; both set up `.venv` first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := examples/digits/config.yaml
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# All cases of a file in one process, since they share what is costly to make.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
BOTH := -n 2 --dist loadfile

.PHONY: setup demo compare-demo test lint types unit docs test-fast test-long test-lowest durations test-vision test-browser test-ray clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) -e . --group test --group docs
	touch $@

demo: setup
	$(BIN)/polytask fit $(DEMO)
	$(BIN)/polytask test $(DEMO) --ckpt best
	$(BIN)/polytask predict $(DEMO)

compare-demo: setup
	$(BIN)/polytask compare $(DEMO) trainer.max_epochs=6 --methods equal uw pcgrad cagrad --single-task \
		--seeds 5 --trials 3 --jobs 2
	$(BIN)/polytask report comparisons/digits

# After each edit: the style, and at most four cases of every test that is neither slow nor long.
test-fast: lint
	$(PYTEST) -q $(BOTH) -m "not slow and not long" --sample 4 tests/unit tests/contracts src

test: lint types unit docs

# What `make test` only samples, and the lowest versions.
test-long: setup
	$(PYTEST) $(BOTH) -m long
	$(MAKE) test-lowest

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup
	$(BIN)/mypy

unit: setup
	rm -f .coverage .coverage.*
	$(PYTEST) $(BOTH) -m "not long" --durations=20 --cov --cov-report=term-missing:skip-covered --cov-fail-under=95

# Without coverage, which slows some tests more than others.
durations: setup
	$(PYTEST) -q $(BOTH) -m "not long" --durations=20 -p no:cacheprovider | $(BIN)/python benchmarks/durations.py after

docs: setup
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b doctest docs docs/_build/doctest

test-vision:
	sh scripts/vision.sh

test-lowest:
	sh scripts/lowest.sh

# Needs chromium and its driver; without them the tests skip.
test-browser: setup
	$(PIP) --group browser
	$(PYTEST) -q tests/browser

# Starts a Ray of two workers on this host.
test-ray: setup
	$(PIP) -e '.[ray]'
	$(PYTEST) -q tests/ray

clean:
	rm -rf $(VENV) .venv-vision .venv-lowest docs/_build .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
