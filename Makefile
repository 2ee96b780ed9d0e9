# Start with `make table1`, `make table2`, `make test`; `make help` lists all targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help

SCALE ?= local
ROWS ?=
SEEDS ?=
TABLE ?= table1
LAUNCHER ?= inline
DATA ?=
ARGS ?=
PYTHON ?= python3
TORCH ?=

BIN := .venv/bin
READY := .venv/.ready
# DATA reaches repro as it is typed, whatever signs are in it.
export DATA_FOLDER := $(value DATA)
# ROWS may contain * and !, which the shell must not expand.
WHAT = --scale $(SCALE) $(if $(SEEDS),--seeds $(SEEDS)) '$(ROWS)' launcher=$(LAUNCHER) $(if $(DATA_FOLDER),"data.root=$$DATA_FOLDER") $(ARGS)

# Tables of the project, and those in the folders of REPRO_PATH (separated by colons, without spaces in their names).
TABLE_DIRS := paper_tables $(addsuffix /paper_tables,$(subst :, ,$(REPRO_PATH)))
TABLES := $(sort $(notdir $(patsubst %/table.yaml,%,$(wildcard $(addsuffix /*/table.yaml,$(TABLE_DIRS))))))
# The figure of table1 is figure1, that of any other name figure_NAME.
NUMBERED := $(filter $(addsuffix %,$(addprefix table,0 1 2 3 4 5 6 7 8 9)),$(TABLES))
NAMED := $(filter-out $(NUMBERED),$(TABLES))
FIGURES := $(patsubst table%,figure%,$(NUMBERED)) $(addprefix figure_,$(NAMED))

.PHONY: help setup $(TABLES) $(FIGURES) status figures report test lint bench notebooks lock clean
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9_]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf "  make %-10s run the table, write it and its figures\n" $(TABLES)
	@printf "  make %-10s write the figure and its table from existing records\n" $(FIGURES)
	@echo "  Variables: SCALE=smoke|local|mini|paper ROWS='deit_small/* !*/dense' SEEDS=3 LAUNCHER=inline|local|slurm DATA=/data/imagenet ARGS='--yes launcher.partition=gpu' TABLE=table2 (for status and figures)"

setup: $(READY) ## install requirements.lock into .venv, if it has changed (TORCH=existing: with the torch of PYTHON)

# With TORCH=existing, .venv takes torch and torchvision from where PYTHON finds them (conda, another venv, a cluster's
# module), and all else from the lock. uv is the machine's own, or is installed into the environment by pip. Bytecode is compiled once: importing torch without
# it takes twice as long, in every run.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; set PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null 2>&1 || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
ifeq ($(TORCH),existing)
	@$(PYTHON) -c 'import os, torch, torchvision; [print(os.path.dirname(m.__path__[0])) for m in (torch, torchvision)]' \
		> .venv/existing.pth || { echo "$(PYTHON) has no torch and torchvision; name one that has: PYTHON=..." >&2; exit 2; }
	@mv .venv/existing.pth $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	@echo "installing from requirements.lock, with the torch of $(PYTHON)"
	@awk '/^[a-z0-9]/ {skip = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/} !skip' requirements.lock \
		> .venv/requirements.lock
else
	@echo "installing from requirements.lock (torch with its libraries is about 5.5 GB on Linux)"
	@cp requirements.lock .venv/requirements.lock
endif
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r .venv/requirements.lock && \
	$$UV pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -c 'import sys, timm, torch; sys.exit([int(n) for n in torch.__version__.split(".")[:2]] < [2, 8])' || \
		{ echo "torch 2.8 or newer is needed" >&2; exit 2; }
	@touch $(READY)

# Latencies are measured first, while the machine is idle; existing ones are kept. With a Slurm launcher nothing is timed,
# as a login node is not the device that runs. Extracting what figures need takes seconds for small models; at scale paper
# it is left to `make figures`.
$(TABLES): $(READY)
	@$(BIN)/repro bench time $@ '$(ROWS)' launcher=$(LAUNCHER) $(filter launcher=%,$(ARGS)) --column --budget $(if $(filter smoke,$(SCALE)),10,90)
	@$(BIN)/repro launch $@ $(WHAT) $(if $(filter paper,$(SCALE)),,--figures)

$(FIGURES): $(READY)
	@$(BIN)/repro report $(if $(filter figure_%,$@),$(@:figure_%=%),$(@:figure%=table%)) $(filter-out --yes --retry,$(WHAT))

figures: $(READY) ## write all figures of a table, with heat maps, from existing records (SEGMENTATION=/data/gtsegs_ijcv.mat)
	@$(BIN)/repro extract $(TABLE) $(filter-out --yes --retry,$(WHAT))
	@$(BIN)/repro interpret $(TABLE) $(filter-out --yes --retry,$(WHAT)) $(if $(SEGMENTATION),--segmentation '$(SEGMENTATION)')
	@$(BIN)/repro report $(TABLE) $(filter-out --yes --retry,$(WHAT))

status: $(READY) ## show the state of each run of a table
	@$(BIN)/repro status $(TABLE) $(filter-out --yes,$(WHAT))

report: $(READY) ## write all tables and figures from existing records
	@for table in $$($(BIN)/repro list --names); do $(BIN)/repro report $$table $(filter-out --yes --retry,$(WHAT)) || exit; done

test: lint ## lint, type checks and all tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile --durations 20 --durations-min 10

lint: $(READY) ## ruff, mypy, and the order of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY) ## measure the speeds that the docs state (ROOM=mirror: only those of the mirror)
	@$(BIN)/python -m benchmarks $(ROOM)

notebooks: $(READY) ## execute the notebooks on existing records
	@$(BIN)/python -m notebooks

lock: $(READY) ## compile requirements.lock from pyproject.toml
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --all-extras pyproject.toml -o requirements.lock

clean: ## remove .venv and caches, but no records and reports
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
