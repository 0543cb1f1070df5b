# The two commands of the README, each from a bare checkout: `make demo` and `make test`.
# A virtual environment is made where there is none; a second run starts at once.

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
INSTALL := $(PIP) install --no-compile -c constraints.txt
# In place of pip, which compiles one file after the other. Templates among them that are no Python do not matter.
COMPILE := $(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
ARGS    ?=

.PHONY: demo test lint types docs check-docs soak bench clean help

help:
	@echo 'make demo              a relay and three nodes on this machine, and an answer through the relay'
	@echo 'make demo ARGS=--keep  the same, left running; make demo ARGS=--stop ends it'
	@echo 'make test              everything that CI runs'
	@echo 'make soak              hours of trouble; make bench: the benchmarks'
	@echo 'make docs              the documentation, in site/'
	@echo 'make clean             removes what make made'

demo: $(VENV)/.demo
	@$(BIN)/python scripts/demo.py $(ARGS)

# Coverage is of the core by its own tests. What starts programs mostly waits, so three of those run at a time; tests of one
# file run one after the other, by one process, and so share what they prepare.
test: $(VENV)/.test lint types check-docs
	$(BIN)/python -m pytest -q -n 2 tests/proto --cov=teale_proto --cov-branch --cov-report=term:skip-covered --cov-fail-under=95
	$(BIN)/python -m pytest -q -n 3 --dist loadfile tests/simulator
	$(BIN)/python -m pytest -q -n 3 --dist loadfile tests --ignore=tests/proto --ignore=tests/simulator

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

types: $(VENV)/.test
	$(BIN)/mypy
	$(BIN)/mypy docs/_*.py scripts/demo.py

docs check-docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Some hours; TEALE_SOAK_MINUTES and its kin make it shorter (docs/howto/soak.md).
soak: $(VENV)/.test
	@$(INSTALL) -e '.[soak]'
	$(BIN)/python -m pytest -q tests/soak -m soak

# Peers are installed to the user's cache; they are not needed for anything else.
bench: $(VENV)/.test
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) site .demo .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Name another: make PYTHON=python3.12"; exit 1; }
	@echo 'Making a virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV) || { echo 'On Debian and Ubuntu: apt install python3-venv'; exit 1; }

# llama.cpp is built once a machine, in about two minutes of two cores, and kept outside of the checkout. What makes QUIC
# fast is installed where there is a wheel of it; it would have to be built from Rust otherwise, and is not needed.
$(VENV)/.demo: pyproject.toml constraints.txt scripts/build_llama.sh | $(BIN)/python
	@echo 'Installing (the first time on this machine builds llama.cpp, which takes some minutes)'
	@wheels=$$(sh scripts/build_llama.sh $(BIN)/python) && \
	  { $(INSTALL) --find-links "$$wheels" --only-binary qh3 -e '.[llama,quic]' 2>/dev/null || \
	    $(INSTALL) --find-links "$$wheels" -e '.[llama]'; }
	@$(COMPILE)
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@$(INSTALL) -e '.[llama,sim,parquet,dask,upnp,test,docs]'
	@$(COMPILE)
	@touch $@
