# `make help` lists what there is. Everything that is needed is installed on the way, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A virtual environment is up to date when it was made from these very files.
VERSION := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
RUNTIME := $(VENV)/.runtime-$(VERSION)
DEV := $(VENV)/.dev-$(VERSION)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

LINTED := $(wildcard operator/scannerjob tests tests/setup/servers benchmarks examples)

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-services test-cluster test-security test-chart lint format bench prove \
	planted soak sbom audit clean runtime dev servers control-plane helm constraints

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(RUNTIME) ## Show ScannerJob at work, on embedded parts, in about a minute
	@$(BIN)/scannerjob demo

test: lint audit servers control-plane helm ## Check everything: lint, types and all tiers of tests
	@echo "Running all tests, three at a time: each third has servers of its own"
	@$(BIN)/pytest --numprocesses=3 --dist=worksteal --durations=30 --durations-min=10

test-unit: $(DEV) ## Run the tests that need no server (under a minute)
	@$(BIN)/pytest --numprocesses=auto $(wildcard tests/unit tests/model)

test-services: servers ## Run the tests on real databases and brokers
	@$(BIN)/pytest $(wildcard tests/services tests/conformance)

test-cluster: servers control-plane helm ## Run the tests on a real Kubernetes control plane
	@$(BIN)/pytest $(wildcard tests/cluster)

test-security: servers control-plane helm ## Attack it, on real databases, brokers and a control plane
	@$(BIN)/pytest $(wildcard tests/security)

test-chart: servers control-plane helm ## Install, upgrade and remove the Helm chart on a real control plane
	@$(BIN)/pytest $(wildcard tests/chart)

planted: servers control-plane helm ## Plant mistakes in the code one by one, and tell which tests notice (hours)
	@$(BIN)/python -m tests.planted

lint: $(DEV) ## Check format, style, types and the layers' contracts
	@echo "Checking format and style (ruff), types (mypy) and layers (import-linter)"
	@$(BIN)/ruff format --check --quiet $(LINTED)
	@$(BIN)/ruff check --quiet $(LINTED)
	@$(BIN)/mypy $(LINTED)
	@$(BIN)/lint-imports

format: $(DEV) ## Format the code and repair what can be repaired
	@$(BIN)/ruff format $(LINTED)
	@$(BIN)/ruff check --fix $(LINTED)

bench: servers control-plane helm ## Measure speed and memory, with the naive way beside each figure
	@$(BIN)/python -m benchmarks

prove: servers control-plane helm ## Try to break the promises for hours; goes on where docs/proof ends
	@$(BIN)/python -m tests.model.explore
	@$(BIN)/python -m tests.model.prove
	@$(BIN)/python -m tests.crash prove
	@$(BIN)/python -m tests.faults run
	@$(BIN)/python -m tests.misoperations prove

sbom: $(DEV) ## Write the software bill of materials of the image to dist/sbom.json
	@$(BIN)/python tests/setup/sbom.py dist/sbom.json

audit: $(DEV) ## Ask whether any pinned package has a known vulnerability
	@$(BIN)/python tests/setup/audit.py

soak: servers control-plane helm ## Run both ways for hours under load and faults: does anything grow?
	@$(BIN)/python -m tests.soak

clean: ## Remove what was installed and cached here (not what was built into ~/.cache)
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@find operator tests -name __pycache__ -type d -prune -exec rm -rf {} +

dev: $(DEV) ## Install all extras and the development tools into .venv

runtime: $(RUNTIME)

servers: $(DEV) ## Install the servers that the tests need, where they are missing
	@$(BIN)/python tests/setup/servers

control-plane: $(DEV) ## Build the Kubernetes control plane of the cluster tests
	@PYTHON=$(BIN)/python tests/setup/control-plane >/dev/null

helm: $(DEV) ## Build Helm 4 and 3, for the tests of the chart
	@PYTHON=$(BIN)/python tests/setup/helm >/dev/null
	@PYTHON=$(BIN)/python tests/setup/helm3 >/dev/null

# Packages that are only installed where a machine lacks a server or a compiler are pinned too.
constraints: ## Make constraints.txt anew, from the newest versions that fit together
	@PYTHON=$(PYTHON) tests/setup/constraints

# ensurepip is what Debian leaves out of its python3; pip comes last, so it marks a finished creation.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ScannerJob needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1):" \
			"name another one, as in: make PYTHON=/usr/bin/python3.13"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ]; then \
			echo "Installing $$package, which $(PYTHON) needs to make virtual environments"; \
			apt-get update -qq && apt-get install -qq -y --no-install-recommends $$package >/dev/null; \
		else \
			echo "$(PYTHON) can't make virtual environments yet: sudo apt-get install $$package"; exit 1; \
		fi; }
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(RUNTIME): | $(BIN)/pip
	@echo "Installing ScannerJob with the operator's dependencies into $(VENV)"
	@$(INSTALL) --editable '.[operator]'
	@rm -f $(VENV)/.runtime-* && touch $@

$(DEV): | $(BIN)/pip
	@echo "Installing ScannerJob with all its dependencies and the development tools into $(VENV)"
	@$(INSTALL) --editable '.[operator,postgresql,mysql,dev]'
	@# Beside all others: the client of Kubernetes imports it where it can, which takes seconds.
	@$(INSTALL) --upgrade --target $(VENV)/validate kubernetes-validate
	@rm -f $(VENV)/.runtime-* $(VENV)/.dev-* && touch $@ $(RUNTIME)
