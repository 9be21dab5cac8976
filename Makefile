.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
YES ?=
SECONDS ?= 600
SEED ?=

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: $(VENV)/.installed ## Install what is missing and start the server
	@YES="$(YES)" deploy/ensure-sandboxing
	@$(BIN)/python manage.py migrate --verbosity 0
	@exec $(BIN)/python manage.py runsandboxserver

test: $(VENV)/.installed-tests ## Run the whole suite; REQUIRE=docker,… fails where one is missing
	@$(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.installed-tests ## Kill everything again and again for SECONDS=600, as root; SEED=1 repeats a run
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/.installed-tests ## Check format, style and imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports

format: $(VENV)/.installed-tests ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "The venv module is missing (Debian: apt-get install python3-venv)." >&2; exit 1; }

$(VENV)/.installed: $(VENV)/bin/python requirements.txt sandboxes/guest/requirements.txt
	@echo "Installing requirements into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

.PHONY: help run test chaos lint format
