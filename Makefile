# Everything lives in .venv/ of this checkout; nothing needs to be installed before but Python 3.11+ and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

# Latencies are of one thread, and two-thread arithmetic is slower than one on busy small machines.
export OMP_NUM_THREADS ?= 1

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[zoo,diffusion,dev]'
	@touch $@

demo: $(INSTALLED)  ## compress a ResNet-20 on Fashion-MNIST: the whole job, in about ten minutes
	$(BIN)/trt-layermerge compress --config examples/fashion_mnist/demo.toml

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## all that CI checks

bench: $(INSTALLED)  ## measure what is said to be fast, as ratios in one run
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

profiles: $(INSTALLED)  ## measure this device's latency lookup table for the example
	$(BIN)/trt-layermerge profile --config examples/fashion_mnist/demo.toml

format: $(INSTALLED)  ## put the source into its layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what can be made again: engines and caches, not profiles, not .venv
	find engines -mindepth 1 ! -name README.md -delete
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help demo test lint check bench profiles format clean
