# Each target first brings .venv up to date (only when requirements.lock or pyproject.toml changed). `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# TORCH=cpu: torch's CPU builds, without 4 GB of CUDA libraries; pip must know an index that has them.
LOCKED := $(if $(filter cpu,$(TORCH)),sed -E '/^(nvidia|cuda|triton)/d; s/^(torch|torchvision)==([^ ;]+)/\1==\2+cpu/',cat)
export PATH := $(CURDIR)/$(BIN):$(PATH)
JOBS ?= $(shell nproc)
# Bytecode is written as modules are first imported; without it every stage would compile torch and mmdet anew (10 s).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup data teacher repro smoke test test-quick test-long lab check lint lock pipelines
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(LOCKED) requirements.lock > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -r $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	mkdir -p .dvc/tmp && $(BIN)/python -c 'import vl_convert; print(vl_convert.javascript_bundle())' > .dvc/tmp/vega.js
	touch $@

setup: $(STAMP) ## the environment in .venv

data: setup ## the pinned mini sets and backbones, from pinned/
	dvc pull --quiet data.dvc

teacher: data ## the default teacher, from pinned/, and its images: what notebooks look at before anything was trained
	@test -d work/teachers/gfl || dvc pull --quiet teacher@gfl
	@test -d work/dataset/minicoco || dvc repro --quiet prepare@minicoco

# as `dvc repro`, but as many trainings side by side as there are cores, 1.1 GB each
repro: data ## train the teacher, distil all students, evaluate, write results/ (JOBS=1: one after the other)
	python -m benchmark.launch --jobs $(JOBS)

smoke: data ## the whole pipeline on a few images, in eight minutes (EVERY=1: methods on all detectors, five more)
	python -m benchmark.smoke $(if $(EVERY),--every)

test-quick: data ## the tests that take less than a second or two each, in a minute and a half
	python -m pytest -n 2 -m "not slow and not long"

test: data ## all but the long tests, in some eight minutes
	python -m pytest -n 2 -m "not long"

test-long: data ## the others: trainings that are killed, full size, every method on every detector
	python -m pytest -n 2 -m long

# root, as in a container, has to say that it means it
lab: teacher ## JupyterLab on the notebooks, opened at their index
	jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_start.ipynb

check: ## did this machine reproduce the committed figures?
	@test -d work/runs || { echo "error: nothing was trained here yet: make repro" >&2; exit 1; }
	@$(MAKE) --no-print-directory setup
	dvc metrics diff --json --targets results/metrics.json | python -m benchmark.verdict --from-diff -

lint: setup ## ruff
	ruff check .
	ruff format --check .

lock: ## resolve requirements.lock anew (needs uv)
	uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate --extra dev \
		pyproject.toml -o requirements.lock

pipelines: ## give every experiment the pipeline of experiments/pipeline.yaml
	for folder in $(dir $(wildcard experiments/*/params.yaml)); do cp experiments/pipeline.yaml $${folder}dvc.yaml; done
