PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STORE  ?= ./demo
SCENES ?= ./data/toyscenes
SEED   ?= 1

DEMO       = TOYSCENES_ROOT=$(SCENES) ATTNFD_STORE=$(STORE) $(BIN)/attnfd-ray
DEMO_SEEDS = --set train.seed=$(SEED) --set teacher.train.seed=$(SEED)

# tests/conftest.py groups the tests
PARALLEL = -n 2 --dist loadgroup --no-loadscope-reorder

# Local runs listen on loopback only; Ray reads this when it is imported.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER = 0

.PHONY: help install demo test test-fast test-ray chaos check docs bench clean
.DEFAULT_GOAL := help

help:  ## Say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## Make .venv with everything that runs and tests need

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## Search on generated scenes, confirm the best, draw and report it: 6 minutes on two cores, no GPU
	$(BIN)/attnfd-ray data toyscenes $(SCENES) --size 128 --train 480 --val 60 --objects 3 5 --radius 18 34 \
	  --noise 0 --patterns 1 --seed $(SEED)
	$(DEMO) tune search_spaces/demo.yaml $(DEMO_SEEDS)
	$(DEMO) confirm search_spaces/demo.yaml --top 1 --seeds 4 $(DEMO_SEEDS)
	$(BIN)/attnfd-ray report $(STORE)
	@echo
	$(BIN)/attnfd-ray picture $(STORE) -o $(STORE)/demo.png
	@echo; echo 'Next: look at $(STORE)/demo.png; . $(BIN)/activate; attnfd-ray report $(STORE); attnfd-ray tune --help'

test: install  ## Run every test, on two workers
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: install  ## Run the quick tests without Ray, on two workers
	$(BIN)/python -m pytest $(PARALLEL) -m 'not ray and not slow'

test-ray: install  ## Run only the tests that start Ray
	$(BIN)/python -m pytest -m ray

chaos: install  ## Kill searches 20 times (driver, worker, broker, node) and the store's writer 200 times: some 15 min
	ATTNFD_CHAOS_SEARCHES=5 ATTNFD_STORE_KILLS=200 \
	  $(BIN)/python -m pytest -v tests/runtime/test_chaos.py tests/store/test_store_kill.py

check: install  ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## Build the documentation (strict)
	$(BIN)/mkdocs build --strict

bench: install  ## Measure; nothing else should run meanwhile
	$(BIN)/python -m benchmarks.trial_start
	$(BIN)/python -m benchmarks.distillation_step
	$(BIN)/python -m benchmarks.method_steps
	$(BIN)/python -m benchmarks.pair_step
	$(BIN)/python -m benchmarks.input_pipeline
	$(BIN)/python -m benchmarks.search_overhead
	$(BIN)/python -m benchmarks.search_efficiency

clean:  ## Remove what make made here, but no results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build site *.egg-info
