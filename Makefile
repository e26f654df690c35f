# The one entrance. `make run` and `make test` set up everything that they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: help run test check lint types format golden docs bench clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.run: pyproject.toml
	tools/python.sh $(PYTHON) $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check --group dev
	@touch $@

.PHONY: packages
packages:
	tools/packages.sh test

run: $(VENV)/.run ## measure this machine: http://localhost:9743
	@mkdir -p .state
	$(BIN)/jobwatt serve --state.directory=.state $(ARGS)

.PHONY: stack
stack: $(VENV)/.run ## exporter, Prometheus and Alertmanager here: STACK_ARGS="--help"
	tools/packages.sh stack
	$(BIN)/python tools/stack.py $(STACK_ARGS)

test: $(VENV)/.dev packages ## run all tests
	$(BIN)/pytest $(ARGS)

check: lint types ## everything that is checked without running
	$(BIN)/python tools/docs.py --check
	$(BIN)/python tools/kubernetes_rules.py --check
	$(BIN)/python grafana/source/build.py --check

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the sources as ruff would have them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(VENV)/.dev ## write the machines' pages anew
	$(BIN)/pytest tests/machines/test_machines.py --update-golden

docs: $(VENV)/.dev ## generate docs/metrics.md, docs/configuration.md and the PrometheusRule
	$(BIN)/python tools/docs.py
	$(BIN)/python tools/kubernetes_rules.py

.PHONY: dashboards
dashboards: $(VENV)/.dev ## generate grafana/dashboards
	$(BIN)/python grafana/source/build.py

bench: $(VENV)/.dev packages ## measure JobWatt's own cost beside other exporters: docs/benchmarks.md
	$(BIN)/python tests/benchmarks/bench.py --write docs/benchmarks.md $(ARGS)

.PHONY: pictures
pictures: $(VENV)/.dev packages ## take the README's pictures anew: docs/images
	$(BIN)/python tools/pictures.py

.PHONY: bench-fleet bench-exactness
bench-fleet: $(VENV)/.dev packages ## what one Prometheus needs, by nodes: docs/scaling.md
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/fleet.py --write docs/scaling.md $(ARGS)

bench-exactness: $(VENV)/.dev packages ## totals of jobs beside the truth, 13 minutes: docs/exactness.md
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/exactness.py --write docs/exactness.md $(ARGS)

clean: ## remove what was built
	rm -rf $(VENV) .cache .state .stack .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
