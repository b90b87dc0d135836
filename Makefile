# What a person types, and what CI runs: make setup | demo | serve | test | check | bench

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
QUICK := not slow and not browser and not gpu and not alone
# A process a core, and a test file in one process, so that what a file starts is started once. In the order of their
# names, the files with the longest tests begin early, so that no core waits for the other at the end.
SIDE_BY_SIDE := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: setup demo serve test check style bench

setup: $(READY)

# A venv, pip puts uv into it, uv syncs the lock. Done again only when the dependencies change.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fewpair needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Install one, or name it: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --require-hashes requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	$(BIN)/fewpair demo

serve: $(READY)
	$(BIN)/fewpair serve

# Everything, the slow and the browser tests too. First, with the machine to themselves, those that hold a time against a limit.
test: $(READY)
	$(BIN)/python -m pytest -q -m alone $$(grep -rlF mark.alone --include='*.py' tests)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not alone"

# Lint, types, and the tests that take seconds.
check: style
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "$(QUICK)"

style: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/oxlint --deny-warnings serving/ui/static
	$(BIN)/mypy

# Speed on the CPU, in under 10 minutes; benchmarks/gpu.sh measures on CUDA.
bench: $(READY)
	$(BIN)/python -m benchmarks.speed
