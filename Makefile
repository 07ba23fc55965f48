# Two commands do everything on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
# On Linux the plain pin brings CUDA. For another build name it and where it lies, e.g.
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup TORCH=torch==2.13.0+cpu
TORCH ?= torch==2.13.0
BIN := .venv/bin
READY := .venv/ready
BENCH := .venv/bench-ready

.PHONY: setup demo test lint format bench

setup: $(READY)

$(READY): pyproject.toml constraints.txt Makefile
	@echo "Setting up $(CURDIR)/.venv (once; about 2 minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; run: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt '$(TORCH)' -e '.[cpu,genetics,pgen,bgen,dask,ukb,parquet,wandb,dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps open_clip_torch==3.3.0
	@touch $@

demo: $(READY)
	@$(BIN)/python scripts/demo.py

test: $(READY)
	@echo "Testing $(CURDIR) with $(BIN)/python (slow tests are left to .ci/run)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -q -n logical --maxprocesses 4 --dist loadfile

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

format: $(READY)
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

$(BENCH): $(READY)
	@echo "Installing what the benchmarks compare with (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt '$(TORCH)' -e '.[bench]'
	@touch $@

bench: $(BENCH)
	@failed=0; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || failed=1; done; exit $$failed
