"""The plugin for TensorRT: what the library exports and needs, its answers to TensorRT, and TensorRT-RTX's use of it.

Nothing here needs a card: TensorRT-RTX builds engines without one, and ``ask_tensorrt_plugin.cpp`` runs the layer on
the emulated device. `make test` builds both where there is nvcc.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyfocus.errors import ResourceError
from pyfocus.export import plugin

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(os.environ.get("PYFOCUS_ASK_TENSORRT_PLUGIN", ROOT / "build" / "emulate" / "ask_tensorrt_plugin"))
CASES = (
    "bad_attributes", "configure", "names", "refuse", "run_float16", "run_float32", "shapes", "travel", "types",
    "workspace",
)  # fmt: skip
RUNTIME = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
RUNTIME |= {"ld-linux-x86-64.so.2"}
DYNAMIC = {"x": [0, 8, 0, 0], "offset": [0, 36, 0, 0], "mask": [0, 18, 0, 0]}

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt_rtx")


@pytest.fixture(scope="session")
def library() -> Path:
    try:
        return plugin.plugin_library()
    except ResourceError:
        pytest.skip("no plugin library: make test builds it in build/tensorrt where there is nvcc")


# --- the library ---------------------------------------------------------------


def test_library_exports_two_functions_and_needs_a_cpp_runtime(library):
    elf = pytest.importorskip("elftools.elf.elffile")
    with open(library, "rb") as file:
        whole = elf.ELFFile(file)
        symbols = whole.get_section_by_name(".dynsym").iter_symbols()
        given = {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF" and s["st_info"]["bind"] != "STB_LOCAL"}
        needed = {t.needed for t in whole.get_section_by_name(".dynamic").iter_tags() if t.entry.d_tag == "DT_NEEDED"}
        assert whole.get_section_by_name(".nv_fatbin") is not None  # the kernels
    assert given == {"getCreators", "setLoggerFinder"}
    assert needed <= RUNTIME


def test_creators_are_there_without_tensorrt(library):
    count = ctypes.c_int32(-1)
    creators = ctypes.CDLL(str(library)).getCreators
    creators.restype = ctypes.POINTER(ctypes.c_void_p)
    first = creators(ctypes.byref(count))
    assert count.value == 1 and first[0] is not None


# --- what TensorRT would ask, asked by a program under AddressSanitizer -----------------


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    if not PROGRAM.is_file():
        pytest.skip(f"no {PROGRAM.name}: make test builds it with the emulated device, where the CUDA headers are")
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=120)


def test_all_cases_are_asked():
    assert tuple(ask().stdout.split()) == CASES


@pytest.mark.parametrize("case", CASES)
def test_plugin_answers(case):
    done = ask(case)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- TensorRT-RTX -----------------------------------------------------------------------


PLAIN: dict[str, Any] = {"attributes": {}, "half": False, "inputs": DYNAMIC, "weight": [6, 8, 3, 3]}
GROUPS = {"stride": 1, "padding": 1, "dilation": 1, "groups": 2, "offset_groups": 2}
STRIDED = {"x": [2, 8, 33, 24], "offset": [2, 18, 16, 11], "mask": [2, 9, 16, 11]}
JOBS = {
    "float32": PLAIN | {"attributes": GROUPS, "weight": [6, 4, 3, 3]},
    "mixed": PLAIN | {"attributes": GROUPS, "weight": [6, 4, 3, 3], "half": True},
    "defaults": PLAIN | {"attributes": {"stride": 2, "padding": 1, "dilation": 2}, "inputs": STRIDED, "half": True},
    "stride": PLAIN | {"attributes": {"stride": 0}},
    "type": PLAIN | {"attributes": {"groups": 2.5}},
    "offset": PLAIN | {"attributes": {"padding": 1, "offset_groups": 4}},
    "groups": PLAIN | {"attributes": {"padding": 1, "groups": 3, "offset_groups": 2}},
}


@pytest.fixture(scope="session")
def taken(library) -> dict[str, tuple[dict[str, Any], str]]:
    """What TensorRT-RTX makes of every job, and what was said meanwhile."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "tensorrt_plugin_graph.py", json.dumps(JOBS)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240,
        env={**os.environ, plugin.PLUGIN: str(library)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("job "):
            said[line.split()[1]] = []
        else:
            said[next(reversed(said))].append(line)
    return {name: (json.loads(lines[-1]), "\n".join(lines)) for name, lines in said.items()}


@needs_rtx
@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_rtx_builds_an_engine_for_any_size(taken, precision):
    got, said = taken[precision]
    assert got["creator"] == ["DeformConv2d", "1", "pyfocus"]
    assert got["fields"] == list(GROUPS)
    assert got["parsed"], said
    assert (got["kind"], got["output"][1]) == ("LayerType.PLUGIN_V3", 6)
    assert got["type"] == {"mixed": "DataType.HALF", "float32": "DataType.FLOAT"}[precision]
    assert got["bytes"] > 1000, said


@needs_rtx
def test_rtx_infers_the_shape_and_takes_defaults(taken):
    """By hand: (33 + 2 - 2 (3 - 1) - 1) / 2 + 1 = 16 rows, and 11 columns."""
    got, said = taken["defaults"]
    assert got["output"] == [2, 6, 16, 11]
    assert got["bytes"] > 1000, said


@needs_rtx
@pytest.mark.parametrize(
    ("job", "parsed", "says"),
    [
        ("stride", False, "pyfocus plugin: DeformConv2d: stride must be from 1 to 1048576, got 0"),
        ("type", False, "pyfocus plugin: DeformConv2d: groups must be an integer"),
        ("offset", True, "pyfocus plugin: DeformConv2d: offset must have size 72 on axis 1, got 36"),
        ("groups", True, "pyfocus plugin: deform_conv_workspace: groups and offset_groups must divide the 8 input"),
    ],
)
def test_rtx_is_told_what_is_wrong(taken, job, parsed, says):
    got, said = taken[job]
    assert (got["parsed"], got["bytes"]) == (parsed, 0)
    assert says in said


@needs_rtx
def test_ready_after_the_import_is_too_late():
    code = "import tensorrt_rtx; from pyfocus.export import plugin; plugin.ready_for_plugins()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    wheel = Path(str(importlib.util.find_spec("tensorrt_rtx_libs").origin)).parent
    if (wheel / "libtensorrt_rtx.so").exists():  # a wheel that has the name needs nothing
        assert done.returncode == 0
    else:
        assert "ResourceError: ready_for_plugins must come before tensorrt_rtx is imported" in done.stderr


@needs_rtx
def test_ready_leaves_nothing_behind(tmp_path):
    code = "from pyfocus.export import plugin; plugin.ready_for_plugins(); plugin.ready_for_plugins()"
    wheel = Path(str(importlib.util.find_spec("tensorrt_rtx_libs").origin)).parent
    before = sorted(wheel.iterdir())
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert not list(tmp_path.iterdir())
    assert sorted(wheel.iterdir()) == before


# --- finding and loading it ---------------------------------------------------------------


def test_variable_names_the_library(monkeypatch, tmp_path):
    mine = tmp_path / "mine.so"
    mine.write_bytes(b"")
    monkeypatch.setenv(plugin.PLUGIN, str(mine))
    assert plugin.plugin_library() == mine
    mine.unlink()
    with pytest.raises(ResourceError, match=r"PYFOCUS_TENSORRT_PLUGIN must name the file .*, got '.*mine.so', which"):
        plugin.plugin_library()


def test_installed_library_is_found_beside_the_kernels(monkeypatch, tmp_path):
    monkeypatch.delenv(plugin.PLUGIN, raising=False)
    monkeypatch.setattr(plugin, "__file__", str(tmp_path / "pyfocus" / "export" / "plugin.py"))
    monkeypatch.setattr(plugin, "_C", SimpleNamespace(__file__=str(tmp_path / "site" / "_C.so")))
    with pytest.raises(ResourceError, match="built without CUDA; install a wheel with CUDA"):
        plugin.plugin_library()
    for folder in ("site/export", "pyfocus/export"):  # of an editable install, of a wheel
        there = tmp_path / folder / plugin.LIBRARY
        there.parent.mkdir(parents=True)
        there.write_bytes(b"")
        assert plugin.plugin_library() == there


class Registry:
    """As TensorRT's: loading adds creators, or says nothing."""

    def __init__(self, brings: list[tuple[str, str, str]], error: str = "") -> None:
        self.all_creators: list[Any] = []
        self.brings, self.error, self.loaded = brings, error, []

    def load_library(self, path: str) -> None:
        self.loaded.append(path)
        if self.error:
            raise RuntimeError(self.error)
        for name, version, space in self.brings:
            self.all_creators.append(SimpleNamespace(name=name, plugin_version=version, plugin_namespace=space))


def test_library_is_loaded_once_or_refused(monkeypatch, tmp_path):
    mine = tmp_path / "mine.so"
    mine.write_bytes(b"")
    monkeypatch.setenv(plugin.PLUGIN, str(mine))
    good = Registry([("DeformConv2d", "1", "pyfocus")])
    trt = SimpleNamespace(__version__="10.14.1", get_plugin_registry=lambda: good)
    assert plugin.load_plugin(trt) == mine == plugin.load_plugin(trt)
    assert good.loaded == [str(mine)]
    for bad, text in (
        (Registry([("DeformConv2d", "1", "")]), "mine.so: TensorRT 10.14.1 does not take it"),
        (Registry([], "invalid ELF header\nmore"), "mine.so: TensorRT 10.14.1 cannot load it: invalid ELF header$"),
    ):
        trt.get_plugin_registry = lambda bad=bad: bad
        with pytest.raises(ResourceError, match=text):
            plugin.load_plugin(trt)
