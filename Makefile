# Every target works from a fresh clone, with only Python 3.11 or newer, Rust, a C compiler and make.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST_SOURCES := $(shell find rust .cargo -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.txt' \))
# maturin finds the virtual environment by this, whatever the caller has active.
export VIRTUAL_ENV := $(abspath $(VENV))
unexport CONDA_PREFIX PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: run test lint format bench chaos build help

run: build ## start everything on this machine and send the demo campaign (ARGS="--recipients 1000")
	@exec $(BIN)/mailrail up --demo $(ARGS)

# The build has compiled most of what Rust's tests need already; the whole run has them look for overflows, too.
# Most tests wait rather than work, so several run side by side, from three to eight; what measures time or kills at random has
# the machine alone.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PROCESSES ?= $(shell echo $$(( $(CORES) < 3 ? 3 : $(CORES) > 8 ? 8 : $(CORES) )))

test: build ## run the tests that this machine can, and say what was skipped and why (MAILRAIL_TEST_FULL=1: the long ones too)
	cargo test --workspace --quiet $(if $(MAILRAIL_TEST_FULL),,--release)
	$(BIN)/pytest tests --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder -m "not chaos and not load" $(ARGS)
	$(BIN)/pytest tests -m "chaos or load"

lint: build ## check style, types and the stub of the Rust module
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/python -m mypy.stubtest mailrail._core --mypy-config-file pyproject.toml

format: build ## put Python and Rust sources into their standard form
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .
	cargo fmt --all

chaos: build ## the whole kill harness: a thousand kills, the broken builds, lost events (about half an hour)
	MAILRAIL_TEST_FULL=1 $(BIN)/pytest tests/chaos $(ARGS)

bench: build ## run the benches; each checks its result before it times anything
	cargo bench --quiet --bench '*'
	@missed=0; for bench in benches/bench_*.py; do \
		$(BIN)/python -m "benches.$$(basename "$$bench" .py)" || missed=1; \
	done; exit $$missed

build: $(VENV)/.built ## make the virtual environment and compile the core, as far as something changed

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.built: $(VENV)/.packages Cargo.toml Cargo.lock pyproject.toml $(RUST_SOURCES)
	@echo "compiling the send core (about two minutes the first time)"
	@$(BIN)/maturin develop --release --uv
	@touch $@

$(VENV)/.packages: requirements.txt $(BIN)/uv
	@echo "installing the pinned Python packages"
	@$(BIN)/uv pip sync --quiet --require-hashes requirements.txt
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mailrail needs Python 3.11 or newer; name one by PYTHON=")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r <(sed -n '/^uv==/,/[^\\]$$/p' requirements.txt)
