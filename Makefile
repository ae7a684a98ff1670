# Everything runs in .venv, which is set up from the hash-locked requirements on first use and again when they change.
#
# PYTHON=/path/to/python3.12   the interpreter to make .venv with (default: the first of python3, python3.11 ... that is 3.11 or newer)
# CONFIG=my.toml               the configuration that `make run` uses
# ARGS="-k config -x"          further arguments for liqmon, pytest or the benchmarks
# LIQMON_NO_APT=1              leave system packages alone; tests that need a missing server are skipped

.DEFAULT_GOAL := help
.PHONY: help demo run test lint bench lock clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= deploy/examples/hyperliquid.toml
export PYTHON
# Debian keeps servers such as mosquitto in /usr/sbin, which is not on the path of an ordinary user.
export PATH := $(PATH):/usr/sbin:/sbin

help: ## Show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r target text; do printf '%-12s %s\n' "$$target" "$$text"; done

demo: $(VENV)/main.stamp ## Start a simulated exchange and watch it; open the address that it prints
	$(BIN)/liqmon demo $(ARGS)

run: $(VENV)/main.stamp ## Watch real venues as CONFIG says
	$(BIN)/liqmon run -c $(CONFIG) $(ARGS)

test: $(VENV)/dev.stamp ## Run all tests, against real servers on loopback
	@deploy/setup/test-servers.sh
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/dev.stamp ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev.stamp ## Measure throughput and latency, as ratios to a floor
	$(BIN)/python -m tests.bench $(ARGS)

lock: ## Rewrite requirements/*.txt from requirements/*.in (ARGS=--upgrade for newer versions)
	deploy/setup/lock.sh $(ARGS)

clean: ## Remove the environment and everything generated
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find alerts connectors monitor tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/main.stamp: requirements/main.txt pyproject.toml
	@deploy/setup/environment.sh main

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml
	@deploy/setup/environment.sh dev
