# Every target does its own set-up. PYTHON picks the interpreter the virtual environment is made from.
PYTHON ?= python3
BIN := .venv/bin
# The editable build has CUDA where there is a card to run it on; make CUDA=ON or CUDA=OFF decides otherwise.
CUDA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo AUTO || echo OFF)
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
.venv/built: .venv/ready CMakeLists.txt $(wildcard cmake/*) $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -c constraints.txt --no-build-isolation -e . --config-settings=build-dir=build/editable --config-settings=cmake.define.PYFOCUS_CUDA=$(CUDA)
	@touch $@

.venv/dev: .venv/built
	$(PIP) install -c constraints.txt pytest hypothesis pillow scikit-image ruff mypy clang-format
	@touch $@

build: .venv/built

demo: .venv/built
	@$(BIN)/python examples/demo.py

# The kernels' own source, run on the host under AddressSanitizer: a package of links around another _C.
EMULATED := build/emulate
.venv/emulated: .venv/dev CMakeLists.txt $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B $(EMULATED) -G Ninja -DPYFOCUS_CUDA=EMULATE -DPYFOCUS_SANITIZE=ON \
	  -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" >/dev/null
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build $(EMULATED)
	rm -rf $(EMULATED)/site && mkdir -p $(EMULATED)/site/pyfocus
	ln -s $(CURDIR)/pyfocus/* $(CURDIR)/$(EMULATED)/_C*.so $(EMULATED)/site/pyfocus/
	@touch $@

test: .venv/dev .venv/emulated
	$(BIN)/pytest tests -m "not cuda"
	tests/emulated $(EMULATED)/site $(BIN)/python $(BIN)/pytest tests -m cuda

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pyfocus
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)

bench: .venv/dev
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf build dist out .venv *.egg-info .hypothesis .mypy_cache .ruff_cache .pytest_cache
