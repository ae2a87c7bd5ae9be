# Everything happens in .venv, made from requirements.lock. `make demo` and `make test` need no
# other set-up; PYTHON names the interpreter to make .venv with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
RUN ?= runs
# Keeps freed memory in the process: a fifth more tokens a second when training on a CPU (glibc).
MALLOC := MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=2000000000

.PHONY: help setup demo test coverage check format docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train, merge, quantize and measure a small suite of models; see its report"
	@echo "make test    run all tests"
	@echo "make coverage  the same, and which lines they run"
	@echo "make check   format, lint, types, generated docs up to date"
	@echo "make docs    write the generated pages of docs/"
	@echo "make setup   install the locked dependencies into .venv"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/biomistral miniature $(RUN)/miniature-world
	MINIATURE=$(RUN)/miniature-world $(MALLOC) $(BIN)/biomistral run recipes/miniature.yaml --out $(RUN)

test: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(ARGS)

# Apart from test: watching every line takes time.
coverage: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/biomistral recipe reference | diff -u docs/recipe.md - || (echo "docs/recipe.md is out of date: run make docs" && exit 1)
	$(BIN)/biomistral recipe schema | diff -u docs/recipe.schema.json - || (echo "docs/recipe.schema.json is out of date: run make docs" && exit 1)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup
	$(BIN)/biomistral recipe reference > docs/recipe.md
	$(BIN)/biomistral recipe schema > docs/recipe.schema.json

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .coverage
