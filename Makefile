# Small & Fast. On Windows, or without make: see README.md, "Without make".

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$name -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$name; exit; }; \
	done; echo python3)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --no-compile $$([ -t 2 ] || echo --quiet) -c constraints.txt
# First a pip that goes on where a download broke off (Python brings an older one), if it is to be had; then the course.
define install
@$(INSTALL) --quiet --quiet --retries 1 --upgrade pip || true
@$(INSTALL) -e $(1) || { echo "pip could not install the course; why, is said above. Cure: connect to the package index," \
	"have 7 GB of disk free, and run the same command again." >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help lab tour test lint collect build bench constraints picture

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

lab: .venv/.course ## install what is missing, prepare work/, open JupyterLab on the start page
	@$(BIN)/course lab

tour: .venv/.course ## the course in two minutes, without a browser
	@$(BIN)/course tour

# A worker takes a file when it has none left. Of tests a third one has something to do while others wait for a program.
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) --dist=loadscope --no-loadscope-reorder --numprocesses

test: export PYTHONDONTWRITEBYTECODE =# the first of some hundred processes to import torch compiles it for all
test: .venv/.dev ## everything that CI runs
	@$(MAKE) --no-print-directory --jobs=2 --output-sync lint collect
	$(PARALLEL)=3 tests/lessons tests/grading tests/browser tests/zoo tests
	$(BIN)/course build
	SMALLFAST_RESULTS="$(CURDIR)/build/results" $(PARALLEL)=2 --nbval-lax build/course/source

lint: .venv/.dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Once, while types are checked, the interpreter compiles what the tests import, and not in all workers at the same time.
collect: .venv/.dev
	@$(PYTEST) --collect-only -qqq --disable-warnings tests

build: .venv/.course ## the lessons in solutions/ become notebooks
	@$(BIN)/course build

bench: .venv/.peers ## this library beside its peers; the tables go to docs/benchmarks/
	@set -e; for file in benchmarks/[a-z]*.py; do echo "$$file"; $(BIN)/python "$$file"; done

picture: .venv/.course ## the README's picture, from measured results
	@$(BIN)/python docs/make_picture.py

constraints: .venv/.dev .venv/.peers ## constraints.txt from what is installed
	@$(BIN)/python .ci/constraints.py

# The scripts in .venv know its path: one that was made in another place, before the folder moved, is made anew.
ifneq ($(shell cat .venv/.made 2>/dev/null),$(CURDIR))
.PHONY: .venv/.made .venv/.course .venv/.dev .venv/.peers
endif

# Each file says what .venv holds; it is older than pyproject.toml or constraints.txt when .venv needs an update.
.venv/.course: pyproject.toml constraints.txt | .venv/.made
	@echo "Installing the course into .venv (once; a few minutes, most of them for PyTorch) ..."
	$(call install,.)
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/.made
	@echo "Installing the course and its tests' tools into .venv (once; a few minutes) ..."
	$(call install,'.[dev]')
	@touch $@ .venv/.course

.venv/.peers: pyproject.toml constraints.txt | .venv/.made
	@echo "Installing the course and the libraries that it is compared with into .venv (once) ..."
	$(call install,'.[peers]')
	@touch $@ .venv/.course

.venv/.made:
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	case "$$version" in \
	3.10|3.11|3.12|3.13) ;; \
	"") echo "There is no $(PYTHON) here. Cure: install Python 3.10 to 3.13, or name one: make lab PYTHON=/path/to/python3.12" >&2; exit 1;; \
	*) echo "$(PYTHON) is Python $$version, the course needs 3.10 to 3.13. Cure: install one of them, or name it: make lab PYTHON=/path/to/python3.12" >&2; exit 1;; \
	esac
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	echo "$(PYTHON) cannot make virtual environments. Cure: install its venv package (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $$([ -e $@ ] && echo --clear) .venv
	@printf '%s\n' "$(CURDIR)" > $@
