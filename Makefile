# Two commands are all that is needed: `make demo` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTEST ?= $(BIN)/python -m pytest

.PHONY: demo test test-faults check bench-data bench-memory bench-speed bench-ui tour estimates clean

demo: $(READY)  ## the wizard on the demo preset; without a terminal the demo run to its end
	$(BIN)/tui-ft demo

test: $(READY)  ## every test
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -q

test-faults: $(READY)  ## every fault against every promise, into docs/reliability.md; at most an hour
	$(BIN)/python scripts/test_faults.py

check: $(READY)  ## style, types, and the walls between rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-data: $(READY)  ## our preparation of data against trl's own, language detection, a million rows; some minutes
	$(BIN)/python scripts/bench_data.py

bench-memory: $(READY)  ## the forecast of memory against real runs on a GPU, without one against small models; nine minutes a call
	$(BIN)/python scripts/bench_memory.py

bench-speed: $(READY)  ## our training against plain trl in several ways, on the same samples; half an hour and more on two cores
	$(BIN)/python scripts/bench_speed.py

bench-ui: $(READY)  ## what the terminal program costs: first frame, memory, bytes and time from a key to the repaint; two minutes
	$(BIN)/python scripts/bench_ui.py

tour: $(READY)  ## the pictures of README and tour, made from the screens as they are now
	$(BIN)/python scripts/screenshots.py

estimates: $(READY)  ## what the forecast of memory says at once, compiled from traces and held against traces of published models; half an hour
	$(BIN)/python scripts/compile_estimates.py
	$(BIN)/python scripts/compile_estimates.py --check

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "tui-ft needs Python 3.11 to 3.13: make PYTHON=python3.12 demo"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:  ## the virtual environment and what tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
