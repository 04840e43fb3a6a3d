# One command per duty. CI (.ci/run) runs `check` and, through the README, all of `test`.
PYTHON ?= .venv/bin/python

.PHONY: check test test-fast bench stress constraints

check: # style and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

test: # the whole suite, on all cores
	$(PYTHON) -m pytest -n auto

test-fast: # what fits between two edits
	$(PYTHON) -m pytest -n auto -m "not slow"

bench: # speed, as ratios within one run; alone, because neighbours would distort it
	$(PYTHON) -m pytest tests/benchmarks --benchmark-only

stress: # twenty sweeps, each killed at a random time
	$(PYTHON) -m tests.stress

constraints: # raise every pin to the newest release that fits
	$(PYTHON) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	  --no-emit-index-url --no-annotate --custom-compile-command "make constraints" --output-file constraints.txt
