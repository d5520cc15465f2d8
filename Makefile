# On a fresh machine: make demo, make test. Each first installs what it needs, once.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test emulator-asan bench lint docs wheel sanitize gpu-check clean

PYTHON ?= python3
OUT ?= build/gpu-check
VENV := .venv
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Each stamp is written last, so that an interrupted step is done again.
TORCH := $(VENV)/.torch-installed
GPE := $(VENV)/.gpe-installed
DOCS := $(VENV)/.docs-installed

# What pip fetches, with its size; warnings and errors pass by on standard error.
PIP := $(VENV)/bin/python -m pip install
DOWNLOADS := sed -un '/^ *Downloading/p'

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile \
	  | while IFS='|' read -r name text; do printf 'make %-13s %s\n' "$$name" "$$text"; done

install: $(GPE) ## make .venv and build gpe into it

demo: $(GPE) ## show what gpe is about in five minutes, and write a report
	@$(VENV)/bin/python -m gpe.cli demo

test: $(GPE) ## run all tests, in two processes
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal

emulator-asan: $(GPE) ## run the op tests on the emulated CUDA kernels under the address sanitizer
	@LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest \
	  -k "emulated or test_orders" tests/ops tests/cuda_on_cpu

bench: $(GPE) ## time the kernels beside their rivals
	@$(VENV)/bin/python -m pytest benches --benchmark-columns=median,iqr,rounds

lint: $(GPE) ## ruff and mypy
	@$(VENV)/bin/python -m ruff check .
	@$(VENV)/bin/python -m ruff format --check .
	@$(VENV)/bin/python -m mypy gpe

docs: $(DOCS) ## build the site into build/docs; warnings are errors
	@$(VENV)/bin/python -m sphinx -q -W --keep-going docs build/docs
	@echo build/docs/index.html

wheel: $(GPE) ## build a wheel for this torch and a source distribution into dist
	@$(PIP) build | $(DOWNLOADS)
	@$(VENV)/bin/python -m build --no-isolation --outdir dist

# torch itself holds on to memory until it ends, and what it does is not looked at.
SANITIZED := build/sanitized
TESTS ?= tests/ops
sanitize: $(GPE) ## run the op tests under the address and undefined-behaviour sanitizers
	@mkdir -p $(SANITIZED)
	@cp -r setup.py pyproject.toml README.md LICENSE csrc gpe tests $(SANITIZED)
	@rm -f $(SANITIZED)/gpe/_C.*.so
	@cd $(SANITIZED) && GPE_CUDA=0 GPE_SANITIZE=1 $(abspath $(VENV))/bin/python setup.py -q \
	  build_ext --inplace
	@cd $(SANITIZED) && OMP_NUM_THREADS=2 ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONPATH=. \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  $(abspath $(VENV))/bin/python -m pytest $(TESTS) -q \
	  -k 'not cpu-triton and not test_triton and not inductor and not test_compile and not past_two'

gpu-check: ## build, test and time on an NVIDIA GPU with PYTHON as it is, STEPS of it; logs to OUT
	@$(PYTHON) -m benches.gpu_check "$(OUT)" --steps "$(STEPS)" $(if $(IMAGES),--images "$(IMAGES)")

clean: ## remove .venv and everything built
	rm -rf $(VENV) build gpe.egg-info gpe/_build.py gpe/_C.*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(TORCH):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "gpe needs Python 3.11 or later, which $(PYTHON) is not;" \
	    "name one: make install PYTHON=python3.12" >&2; exit 1; }
	@echo "Making $(VENV); fetching torch and, on Linux, CUDA's libraries: 3 GB, a few minutes"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) torch torchvision 'setuptools>=77' wheel ninja | $(DOWNLOADS)
	@touch $@

# csrc's folders are among them: their time changes when a file comes or goes.
$(GPE): $(TORCH) setup.py pyproject.toml $(shell find csrc)
	@echo "Building gpe._C, at most 4 minutes"
	@$(PIP) --no-build-isolation --editable '.[experiments,dev]' | $(DOWNLOADS)
	@$(VENV)/bin/python -c 'import gpe; print(gpe.doctor())'
	@touch $@

# What the extra `docs` names alone: gpe itself is there, and is not built again.
$(DOCS): $(GPE)
	@$(PIP) $$($(VENV)/bin/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])") \
	  | $(DOWNLOADS)
	@touch $@
