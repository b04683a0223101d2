# Needs GNU make and Python 3.11 or newer, nothing else: every target makes the environment it runs in.
#
#   make demo                  make test                  make test AIRFLOW=3.1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/sh

AIRFLOW ?= 3.3
CONSTRAINTS := constraints/airflow-$(AIRFLOW).txt

# Names and releases of Airflow, see there.
TABLE := constraints/releases.txt
NAMES := $(shell awk '!/^\#/ { print $$1 }' $(TABLE))
BELOW := $(shell awk '$$1 == "$(AIRFLOW)" { print $$4 }' $(TABLE))

ifeq ($(BELOW),)
  $(error There is no Airflow $(AIRFLOW) here: AIRFLOW can be $(NAMES))
endif

# More processes than cores: most of the time a test waits. The longest tests come first.
TESTS ?= tests/promises tests/wire tests/sandbox tests/unit
WORKERS ?= 6

PYTHONS := python3.12 python3.13 python3.11 python3.14 python3

ifeq ($(AIRFLOW),3.3)
  VENV := .venv
  GROUPS := --group dev
else
  VENV := .venv-$(AIRFLOW)
  GROUPS := --group test --group demo $(if $(filter 2.11,$(AIRFLOW)),--group migrating)
endif

BIN := $(VENV)/bin
INSTALL ?= $(BIN)/python -m pip install --disable-pip-version-check
# Written last: an environment without it is incomplete and is made again.
STAMP := $(VENV)/.complete

.PHONY: help
help: ## show this list
	@echo "usage: make TARGET [AIRFLOW=3.3] [PYTHON=/path/to/python] [CASE=name]"
	@echo "AIRFLOW is one of $(NAMES)"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: venv
venv: $(STAMP) ## make the environment alone (.venv, or .venv-3.1 for AIRFLOW=3.1)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@if [ -f $(STAMP) ] && $(BIN)/python -c '' 2>/dev/null; then \
		echo "==> $(VENV) is older than $(firstword $?): bringing it up to date"; \
		rm -f $(STAMP); \
	else \
		found=$$(sh scripts/find_python.sh "$(AIRFLOW)" $(BELOW) $(if $(PYTHON),"$(PYTHON)",$(PYTHONS))) || exit 1; \
		echo "==> Making $(VENV) with $$("$$found" --version) ($$found); this takes a minute or two"; \
		"$$found" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --disable-pip-version-check --upgrade 'pip>=25.1'
	$(INSTALL) --constraint $(CONSTRAINTS) --editable '.[sandbox]' $(GROUPS)
	@touch $(STAMP)
	@echo "==> $(VENV) is ready"

.PHONY: demo
demo: $(STAMP) ## watch a real Airflow send, wait and retry against a local Fluxomail (KEEP=1: Airflow stays up)
	@$(BIN)/python -m scripts.demo $(if $(KEEP),--keep)

# A process that has no tests left takes over half of those of another one.
PYTEST := pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: test
test: $(STAMP) ## all tests but those of whole Airflows, in about three minutes (TESTS="tests/unit" for some of them)
	@echo "==> Testing $(TESTS) on Airflow $(AIRFLOW): all of it takes about three minutes on two idle cores"
	$(BIN)/python -m $(PYTEST) $(TESTS)

# On the newest Airflow: the branches for other releases stay unvisited everywhere.
.PHONY: coverage
coverage: $(STAMP) ## the same, and how much of the code it covers: 95 % of branches at least (some minutes more)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m $(PYTEST) $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# Whole Airflows as processes want a database server's client, and Celery; nothing else does.
SYSTEM := $(VENV)/.system
$(SYSTEM): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint $(CONSTRAINTS) --group system
	@touch $(SYSTEM)

.PHONY: system
system: $(SYSTEM) ## real Airflows as processes, on PostgreSQL: kills, clears, retries (some minutes)
	$(BIN)/python -m pytest -v tests/system -m 'not full'

.PHONY: system-full
system-full: $(SYSTEM) ## all of it, with the kills on Celery and Redis too (some more minutes)
	$(BIN)/python -m pytest -v tests/system

# An unpacked sdist has no git that would tell ruff what is not ours.
UNCHECKED := --extend-exclude '.venv*' --extend-exclude .demo

.PHONY: bench-sandbox
bench-sandbox: $(STAMP) ## sends per second and 200 event streams on one sandbox process, against bare uvicorn
	@$(BIN)/python -m benchmarks.sandbox $(CASE)

# The peers are the real packages; nothing else needs them.
BENCH := $(VENV)/.bench
$(BENCH): $(SYSTEM)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint $(CONSTRAINTS) --group bench
	@touch $(BENCH)

.PHONY: bench
bench: $(BENCH) ## waits, sends and imports against their peers, as ratios (CASE=name for one; BENCH_JSON=file)
	@$(BIN)/python -m benchmarks $(CASE)

# A plugin of pytest comes with it, which no test should load.
SCHEMATHESIS := $(VENV)/.schemathesis
$(SCHEMATHESIS): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint $(CONSTRAINTS) --group schemathesis
	@touch $(SCHEMATHESIS)

.PHONY: schemathesis
schemathesis: $(SCHEMATHESIS) ## the sandbox's APIs against their OpenAPI document, with generated requests (EXAMPLES=25)
	@$(BIN)/python -P scripts/schemathesis_run.py

.PHONY: lint
lint: $(STAMP) ## ruff (rules and format), mypy, import-linter
	$(BIN)/python -m ruff check $(UNCHECKED) .
	$(BIN)/python -m ruff format --check $(UNCHECKED) .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache --no-logo

.PHONY: docs
docs: $(STAMP) ## the documentation as HTML, in docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

.PHONY: build
build: $(STAMP) ## wheel and sdist, in dist/
	rm -rf dist
	$(BIN)/python -m build
	@$(BIN)/python -m scripts.release_check dist $(ADVISE)

# What a release lacks is advice for a build, an error here.
ADVISE := --advise
.PHONY: release-check
release-check: ADVISE :=
release-check: build ## build, and fail if that is not ready for a package index (RELEASING.md)

.PHONY: constraints
constraints: .venv-tools/.complete ## compile the constraint files: the newest packages for 3.3, those of its day for each other
	@awk '!/^#/ { print $$1, $$2, $$3 }' $(TABLE) | while read -r name release day; do \
		case $$name in 3.3) groups='--group dev --group system --group bench --group schemathesis' ;; 2.11) groups='--group dev --group system --group bench' ;; *) groups='--group test --group demo' ;; esac; \
		case $$day in today) day= ;; *) day="--exclude-newer $$day" ;; esac; \
		echo "==> constraints/airflow-$$name.txt"; \
		echo "apache-airflow==$$release" >.venv-tools/pins.txt; \
		compile=".venv-tools/bin/uv pip compile pyproject.toml --quiet --universal --upgrade --python-version 3.11 \
			--extra sandbox $$day --no-annotate --no-header"; \
		if [ $$name = lowest ]; then $$compile --resolution lowest-direct --output-file .venv-tools/pins.txt || exit 1; fi; \
		$$compile $$groups --constraint .venv-tools/pins.txt --output-file constraints/airflow-$$name.txt || exit 1; \
	done

# Not from .venv: that one may not exist before its constraints do.
.venv-tools/.complete:
	"$$(sh scripts/find_python.sh 3.3 3.15 $(PYTHONS))" -m venv --clear .venv-tools
	.venv-tools/bin/python -m pip install --disable-pip-version-check uv
	@touch $@

.PHONY: installs
installs: .venv-tools/.complete build ## the wheel beside each Airflow as deployments pin it, its Dags run (RELEASES="3.0 3.1")
	@$(BIN)/python -m scripts.installs $(RELEASES) --wheel dist/*.whl --uv .venv-tools/bin/uv

.PHONY: matrix
matrix: $(STAMP) ## `make test` on each Airflow (half an hour and more), and the README's table of them
	@$(BIN)/python -m scripts.matrix $(RELEASES)

.PHONY: clean
clean: ## remove everything that these targets have made, the environments too
	rm -rf .venv .venv-* .demo dist build docs/_build .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
