# Everything is made in .venv from pyproject.toml; only make and a Python of 3.11 or later are needed.
#   make run    solve the flagship case
#   make test   the test suite without the slow tests
#   make bench  the speed figures
#   make lint   style and formatting
#   make accelerators  compile for an H100 and TPUs, without having one, and check what comes out

# The first interpreter that is new enough; `make PYTHON=/path/to/python run` overrides it.
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; \
	done)
BIN := .venv/bin

.PHONY: run test bench lint accelerators clean

run: .venv/installed
	$(BIN)/dawndusk run cases/suncatcher.toml

# Most of a test's time is XLA compiling on one core; a file stays in one process, whose programs its tests share.
test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" tests

bench: .venv/installed-dev
	$(BIN)/python -m pytest $(wildcard bench/bench_*.py)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

accelerators: .venv-accelerators/installed
	.venv-accelerators/bin/python bench/accelerators.py

clean:
	rm -rf .venv .venv-accelerators build dist *.egg-info .pytest_cache .ruff_cache

NEW_ENOUGH = "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "dawndusk needs Python 3.11 or later on the PATH (as python3, python or python3.11 and up);" \
	"found: $$(python3 --version 2>&1 || python --version 2>&1)." \
	"Name another one with: make PYTHON=/path/to/python $(firstword $(MAKECMDGOALS))" >&2; exit 1; }

# The stamps are newer than pyproject.toml until it changes; then the environment is made afresh, so that
# nothing that is no longer declared lingers in it.
.venv/installed: pyproject.toml
	@$(NEW_ENOUGH)
	"$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# A toolkit's ptxas does, if it is as new as the plug-in (CUDA 13); else the one of the wheels.
.venv-accelerators/installed: pyproject.toml bench/accelerators.txt bench/accelerators-ptxas.txt
	@$(NEW_ENOUGH)
	"$(PYTHON)" -m venv --clear .venv-accelerators
	.venv-accelerators/bin/python -m pip install --quiet -r bench/accelerators.txt --editable .
	ptxas --version 2>/dev/null | grep -q 'release 1[3-9]' || \
		.venv-accelerators/bin/python -m pip install --quiet -r bench/accelerators-ptxas.txt
	@touch $@
