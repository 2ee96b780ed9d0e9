# The commands to know: `make table1`, `make table2`, `make test`. `make help` lists the rest.
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

BIN := .venv/bin
READY := .venv/.ready
# ROWS may hold * and !: quoted, so that only repro reads them.
WHAT = --scale $(SCALE) $(if $(SEEDS),--seeds $(SEEDS)) '$(ROWS)' launcher=$(LAUNCHER) $(if $(DATA),data.root='$(DATA)') $(ARGS)

TABLES := $(patsubst paper_tables/%/table.yaml,%,$(wildcard paper_tables/*/table.yaml))
FIGURES := $(patsubst table%,figure%,$(TABLES))

.PHONY: help setup $(TABLES) $(FIGURES) status figures report test lint bench notebooks lock clean
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9_]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@for table in $(TABLES); do printf "  make %-10s run it and write the table and its figures\n" $$table; done
	@for figure in $(FIGURES); do printf "  make %-10s write it, and its table, from the records there are\n" $$figure; done
	@echo "  Variables: SCALE=smoke|local|paper ROWS='deit_small/* !*/dense' SEEDS=3 LAUNCHER=inline|local|slurm DATA=/data/imagenet ARGS='--yes launcher.partition=gpu' TABLE=table2 (for status and figures)"

setup: $(READY) ## make .venv from the lock; does nothing when nothing changed

# uv comes from the machine, or by pip into the environment it fills. Bytecode is compiled once: importing torch without
# it takes twice as long, for every run.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; set PYTHON=python3.12, say" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null 2>&1 || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@echo "installing from requirements.lock (torch with its libraries is about 5.5 GB on Linux)"
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock && \
	$$UV pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(READY)

# The stopwatch goes first, while the machine is quiet; what it has measured before it leaves alone. (Told the launcher,
# it times nothing on a login node: that is not the device that runs.) What figures need of finished models takes seconds
# of the small ones; of the paper's it is asked for by `make figures`.
$(TABLES): $(READY)
	@$(BIN)/repro bench time $@ '$(ROWS)' launcher=$(LAUNCHER) $(filter launcher=%,$(ARGS)) --column --budget $(if $(filter smoke,$(SCALE)),10,90)
	@$(BIN)/repro launch $@ $(WHAT) $(if $(filter paper,$(SCALE)),,--figures)

$(FIGURES): $(READY)
	@$(BIN)/repro report $(@:figure%=table%) $(filter-out --yes --retry,$(WHAT))

figures: $(READY) ## write every figure of a table, with heat maps of every row, from the records there are (SEGMENTATION=/data/gtsegs_ijcv.mat)
	@$(BIN)/repro extract $(TABLE) $(filter-out --yes --retry,$(WHAT))
	@$(BIN)/repro interpret $(TABLE) $(filter-out --yes --retry,$(WHAT)) $(if $(SEGMENTATION),--segmentation '$(SEGMENTATION)')
	@$(BIN)/repro report $(TABLE) $(filter-out --yes --retry,$(WHAT))

status: $(READY) ## where the runs of a table stand
	@$(BIN)/repro status $(TABLE) $(filter-out --yes,$(WHAT))

report: $(READY) ## write every table and figure from the records there are
	@for table in $$($(BIN)/repro list --names); do $(BIN)/repro report $$table $(filter-out --yes --retry,$(WHAT)) || exit; done

test: lint ## lint, types and all tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) ## measure what the README claims about speed (ROOM=mirror: only that)
	@$(BIN)/python -m benchmarks $(ROOM)

notebooks: $(READY) ## execute the notebooks on the records there are
	@$(BIN)/python -m notebooks

lock: $(READY) ## compile requirements.lock anew from pyproject.toml
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --all-extras pyproject.toml -o requirements.lock

clean: ## remove .venv and caches; records and reports stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
