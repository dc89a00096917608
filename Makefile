# Every target does its own set-up. PYTHON picks the interpreter the virtual environment is made from.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
SOURCES := $(wildcard csrc/*.cpp csrc/*.h csrc/*.cu csrc/*.cuh csrc/bindings/* csrc/include/pyfocus/*.h)
FORMATTED := $(filter-out csrc/third_party/%,$(SOURCES))

.PHONY: demo test build lint bench clean

# The environment: pinned versions, once per change of the pins.
.venv/ready: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "pyfocus needs Python 3.10 or newer: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "No venv module. On Debian: apt install python3-venv, then run make again."; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "No C++ compiler. On Debian: apt install g++"; exit 1; }
	$(PIP) install -c constraints.txt scikit-build-core pybind11 cmake ninja
	@touch $@

# The package itself, editable: an edit of a Python file needs nothing, an edit in csrc/ is rebuilt here.
.venv/built: .venv/ready CMakeLists.txt $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -c constraints.txt --no-build-isolation -e . --config-settings=build-dir=build/editable
	@touch $@

.venv/dev: .venv/built
	$(PIP) install -c constraints.txt pytest hypothesis pillow scikit-image ruff mypy clang-format
	@touch $@

build: .venv/built

demo: .venv/built
	@$(BIN)/python examples/demo.py

test: .venv/dev
	$(BIN)/pytest tests

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pyfocus
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)

bench: .venv/dev
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf build dist out .venv *.egg-info .hypothesis .mypy_cache .ruff_cache .pytest_cache
