# `make book` and `make test` need Python 3.11 to 3.13, make and a package index. README.md says what they do.

VENV := .venv
PYTHON ?= python3.11 python3.12 python3.13 python3
EXTRAS := pocket,asr,search,demo,translate,train,mteb,book,test
NOTEBOOKS := notebooks
CELL_TIMEOUT := 1800
# Tests run side by side, one thread each: as many as there are cores, four at most, and one more where a third of their
# time is waiting for browsers and other processes. All cells of a notebook stay in one process.
CORES := $(shell cores=$$(getconf _NPROCESSORS_ONLN); [ "$$cores" -lt 4 ] && echo "$$cores" || echo 4)
WORKERS := $(shell echo $$(($(CORES) < 4 ? $(CORES) + 1 : 4)))
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses=$(WORKERS) --dist=loadfile
NBVAL = $(PYTEST) --numprocesses=$(CORES) --nbval-lax --nbval-current-env --nbval-cell-timeout=$(CELL_TIMEOUT) --durations=10

BUILD := _build
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
LIBRARY_SOURCES := clasp_lib pyproject.toml constraints.txt
BOOK_SOURCES := $(LIBRARY_SOURCES) $(NOTEBOOKS) book _config.yml _toc.yml CONTRIBUTING.md benchmarks/summary.py benchmarks/record.json tests/hard/record.json

# Datasets and features of the notebooks, beside the pages that they make. `make clean` removes both.
export CLASP_CACHE ?= $(abspath $(BUILD))/cache
# The kernel of a notebook is this environment's, whatever kernels the user has registered.
export JUPYTER_PATH := $(abspath $(VENV))/share/jupyter
export JUPYTER_PREFER_ENV_PATH := 1
export TOKENIZERS_PARALLELISM := false
# Packages from outside the environment would hide a missing dependency.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX

.DEFAULT_GOAL := help
.PHONY: help install book test test-all paper-tiny hard mutants coverage lint unit lab coursework bench records repository clean FORCE
.NOTPARALLEL:

help:
	@echo "make book        install, run the notebooks, build the pages into $(BUILD)/html"
	@echo "make test        lint, unit tests, notebooks; builds the book first if it is stale"
	@echo "make test-all    the same with the slow tests, and the chapters in the profile paper-tiny"
	@echo "make hard        broken input and faults: how many were tried, and how each ended"
	@echo "make mutants     changed lines of metrics and losses, each broken in every way: the tests must notice"
	@echo "make coverage    which lines of the library no test runs"
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make coursework  write the assignments, their solutions and the notes for instructors into $(BUILD)/coursework"
	@echo "make bench       run the benchmarks, side by side (20 min)"
	@echo "make records     measure anew what the result pages read (30 min)"
	@echo "make clean       remove what was built; the environment stays in $(VENV)"
	@echo "make repository URL=https://github.com/name/repository    set the public address"

# Installing ------------------------------------------------------------------------------------------------------

$(PY):
	@for python in $(PYTHON); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "Creating $(VENV) with $$("$$python" --version)"; \
	    exec "$$python" -m venv --clear "$(VENV)"; \
	  fi; \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 with venv among: $(PYTHON)." >&2; \
	echo "Install one (Debian, Ubuntu: apt-get install python3-venv), or name it: make book PYTHON=/path/to/python3.12" >&2; \
	exit 1

$(INSTALLED): pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --upgrade -c constraints.txt pip
	$(PY) -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

install: $(INSTALLED)

# The book --------------------------------------------------------------------------------------------------------
# A fingerprint file changes only when the contents of its sources do, so that a second run has nothing to do.

$(BUILD)/.package-sources: FORCE | $(INSTALLED)
	@$(PY) book/fingerprint.py $@ $(LIBRARY_SOURCES)

$(BUILD)/.book-sources: FORCE | $(INSTALLED)
	@$(PY) book/fingerprint.py $@ $(BOOK_SOURCES)

$(BUILD)/.notebook-sources: FORCE | $(INSTALLED)
	@$(PY) book/fingerprint.py $@ $(LIBRARY_SOURCES) $(NOTEBOOKS)

# An unchanged notebook is not executed again, unless the library below it has changed.
$(BUILD)/.fresh-caches: $(BUILD)/.package-sources
	@rm -rf $(BUILD)/.jupyter_cache $(BUILD)/cache
	@touch $@

# The clips, maps and answers that the explorer's page carries are made again only when these change.
EXPLORER_SOURCES := book/explorer_data.py book/explorer_material.py book/explorer_queries.tsv

$(BUILD)/.explorer-sources: FORCE | $(INSTALLED)
	@$(PY) book/fingerprint.py $@ $(LIBRARY_SOURCES) $(EXPLORER_SOURCES)

# --all: Sphinx would not read a page again that failed in the last build, and would miss its warning.
$(BUILD)/html/.built: $(BUILD)/.book-sources $(BUILD)/.fresh-caches $(BUILD)/.explorer-sources
	@rm -rf $(BUILD)/html
	@$(PY) book/retell.py $(BUILD)/static/retelling
	@$(PY) book/execute.py $(BUILD)/.jupyter_cache --timeout $(CELL_TIMEOUT) \
	  $$([ $(BUILD)/static/.explorer -nt $(BUILD)/.explorer-sources ] || echo --explorer $(BUILD)/static)
	@touch $(BUILD)/static/.explorer
	$(VENV)/bin/jupyter-book build . -W -n --keep-going --all \
	  || { find $(BUILD)/html/reports -name '*.log' -exec cat {} + 2>/dev/null; exit 1; }
	@touch $@

book: $(BUILD)/html/.built
	@$(PY) book/times.py $(BUILD)/.jupyter_cache
	@echo "The book is in $(BUILD)/html/index.html"

# Checking --------------------------------------------------------------------------------------------------------

test: lint $(BUILD)/html/.built unit $(BUILD)/.notebooks-checked

test-all: MARKERS := -m "slow or not slow"
test-all: test paper-tiny

# The chapters as they run on a GPU with a network, on tiny random stand-ins for everything published.
paper-tiny: $(INSTALLED)
	CLASP_PROFILE=paper-tiny $(NBVAL) $(NOTEBOOKS)

# Broken input, mutated files, killed jobs, full disks: prints how many were tried and how each ended, and keeps the counts.
hard: $(INSTALLED)
	$(PYTEST) -m "slow or not slow" tests/hard --hard-report=tests/hard/record.json

# Mutants of metrics and losses whose definition has changed since tests/mutants.json was written; the tests must kill them.
mutants: $(INSTALLED)
	$(PY) tests/mutate.py --jobs 2

# Which lines of the library no test of `make test` runs; fails below 92 %.
coverage: export COVERAGE_RCFILE := $(abspath pyproject.toml)
coverage: $(BUILD)/html/.built
	rm -rf $(BUILD)/coverage && mkdir -p $(BUILD)/coverage
	OMP_NUM_THREADS=1 $(PY) -m coverage run -m pytest --numprocesses=$(WORKERS) --dist=loadfile
	$(PY) -m coverage combine
	$(PY) -m coverage report --skip-covered --show-missing --fail-under=92

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/codespell

unit: $(BUILD)/html/.built
	$(PYTEST) $(MARKERS)

$(BUILD)/.notebooks-checked: $(BUILD)/.notebook-sources $(BUILD)/.fresh-caches
	$(NBVAL) $(NOTEBOOKS)
	@touch $@

# Working ---------------------------------------------------------------------------------------------------------

lab: $(INSTALLED)
	$(PY) -m jupyterlab

coursework: $(INSTALLED)
	@$(PY) notebooks/coursework/make.py $(BUILD)/coursework

bench: $(INSTALLED)
	@for script in $(filter-out %/summary.py,$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; BENCH_RECORD=benchmarks/record.json $(PY) "$$script" || exit 1; \
	done
	@$(PY) benchmarks/summary.py

# What the result pages read, measured anew. RECORDINGS="name=folder ..." adds recordings of people, BROWN=brown.zip the
# Brown corpus.
records: $(INSTALLED)
	$(PY) -m clasp_lib.records $(RECORDINGS:%=--recordings %)
	$(PY) -m clasp_lib.pretraining measure $(BROWN:%=--brown %) $(RECORDINGS:%=--recordings %)

repository: | $(PY)
	@$(PY) book/repository.py "$(URL)"

clean:
	rm -rf $(BUILD) build dist .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

FORCE:
