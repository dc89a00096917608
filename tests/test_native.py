"""What all native functions share: arrays through DLPack, typed errors, threads, fork, and equal bits everywhere."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyfocus import _C
from pyfocus.errors import ArgumentError, PyfocusError, ResourceError

ROOT = Path(__file__).resolve().parent.parent
RANDOM = np.random.default_rng(11)
H, W = 150, 331
LOW = ((H + 1) // 2, (W + 1) // 2)
PLANES = RANDOM.random((3, H, W), np.float32)
COUNTS = RANDOM.integers(0, 65536, (H, W, 3)).astype(np.uint16).transpose(2, 0, 1)
MOSAIC = RANDOM.integers(0, 4096, (H, W // 2 * 2)).astype(np.uint16)
COARSE = RANDOM.random((3, *LOW), np.float32)
RATING = RANDOM.random(LOW, np.float32)
BEFORE = RANDOM.random(LOW, np.float32)
MASK = (RANDOM.random((H, W)) > 0.01).astype(np.uint8)
TABLE = np.linspace(0, 1, 65536, dtype=np.float32)
TURN = np.array([[0.98, -0.07, 9.3], [0.06, 1.01, -5.2], [2e-5, 1e-5, 1]])
MAPS = np.stack([TURN, TURN, TURN + np.array([[0, 0, 0.5], [0, 0, 0], [0, 0, 0]])])


def warp(kernel: int) -> Callable[[int], tuple[np.ndarray, ...]]:
    def run(threads: int) -> tuple[np.ndarray, ...]:
        out, valid = np.empty((3, H, W), np.float32), np.empty((H, W), np.uint8)
        how = {"interpolation": kernel, "root": kernel > 0, "square": kernel == 2, "threads": threads}
        _C.warp(COUNTS, MAPS, out, valid, table=TABLE, scale=[1.0, 0.5, 2.0], **how)
        return out, valid

    return run


def luminance(threads: int) -> tuple[np.ndarray, ...]:
    out = np.empty((H // 2, W // 2), np.float32)
    _C.luminance(PLANES, [0.3, 0.6, 0.1], out, factor=2, square_root=True, threads=threads)
    return (out,)


def demosaic(threads: int) -> tuple[np.ndarray, ...]:
    out = np.empty((3, *MOSAIC.shape), np.float32)
    _C.demosaic(MOSAIC, [0, 1], [2e-4] * 4, [-0.01] * 4, out, threads=threads)
    return (out,)


def unpack(threads: int) -> tuple[np.ndarray, ...]:
    out = np.empty((H, W, 3), np.uint16)
    _C.unpack(PLANES, out.transpose(2, 0, 1), [65535.0] * 3, [0.0] * 3, srgb=True, threads=threads)
    return (out,)


def steps(threads: int) -> tuple[np.ndarray, ...]:
    down, up, energy = np.empty((3, *LOW), np.float32), np.empty((3, H, W), np.float32), np.empty(LOW, np.float32)
    smooth, low = np.empty((3, H, W), np.float32), np.empty(LOW, np.uint8)
    _C.pyramid_down(PLANES, down, threads=threads)
    _C.pyramid_up(COARSE, up, 0.7, threads=threads)
    _C.pyramid_smooth(PLANES, smooth, threads=threads)
    _C.pyramid_energy(PLANES, COARSE, energy, threads=threads)
    _C.pyramid_valid(MASK, low, threads=threads)
    return down, up, smooth, energy, low


def fold(threads: int) -> tuple[np.ndarray, ...]:
    low = np.empty(LOW, np.uint8)
    _C.pyramid_valid(MASK, low)
    rating, peak, before = np.empty(LOW, np.float32), np.empty(LOW, np.float32), BEFORE
    numerator, denominator = PLANES.copy(), PLANES[0].copy()
    _C.pyramid_rate(RATING, COARSE, low, 0.1, 0.01, before, rating, peak, threads=threads)
    _C.pyramid_fold(PLANES, COARSE, rating, before, peak, 6, numerator, denominator, threads=threads)
    out = np.empty_like(numerator)
    _C.pyramid_collapse(numerator, denominator, COARSE, out, threads=threads)
    return rating, peak, numerator, denominator, out


OPS: dict[str, Callable[[int], tuple[np.ndarray, ...]]] = {
    "warp bilinear": warp(0),
    "warp bicubic": warp(1),
    "warp lanczos3": warp(2),
    "luminance": luminance,
    "demosaic": demosaic,
    "unpack": unpack,
    "pyramid steps": steps,
    "pyramid fold": fold,
}


def bits(arrays: tuple[np.ndarray, ...]) -> list[bytes]:
    return [a.tobytes() for a in arrays]


def levels() -> list[int]:
    """Instruction sets this processor has."""
    found = []
    for level in (2, 3, 4):
        _C.set_isa(level)
        if _C.isa() == f"x86-64-v{level}":
            found.append(level)
    _C.set_isa(0)
    return found


@pytest.fixture
def best_isa():
    yield
    _C.set_isa(0)


# --- equal bits --------------------------------------------------------


@pytest.mark.parametrize("name", OPS)
def test_every_instruction_set_and_thread_count_gives_the_same_bits(name, best_isa):
    _C.set_isa(2)
    want = bits(OPS[name](1))
    for level in levels():
        _C.set_isa(level)
        for threads in (1, 2, 3):
            assert bits(OPS[name](threads)) == want, f"x86-64-v{level}, {threads} threads"


def test_set_isa_takes_known_levels_only(best_isa):
    for level in (-1, 1, 5):
        with pytest.raises(ArgumentError, match=r"set_isa: level must be 0 \(best\), 2, 3 or 4"):
            _C.set_isa(level)


def objects() -> list[tuple[str, Path]]:
    return [(level, path) for level in ("v3", "v4") for path in sorted(ROOT.glob(f"build/**/focus_{level}.dir/**/*.o"))]


def test_objects_of_newer_instruction_sets_share_no_symbol():
    """A weak symbol outside its own namespace could be the copy that the linker keeps for older processors too."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    if not objects():
        pytest.skip("no objects under build/: this package was not built here")
    for level, path in objects():
        listing = subprocess.run([nm, "-C", "--defined-only", path], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            _, kind, name = line.split(" ", 2)
            if kind in "WVu" and not name.startswith("DW.ref."):
                assert f"pyfocus::{level}::" in name, f"{path.name}: weak symbol {name} in the {level} object"
            if kind == "T":
                assert f"pyfocus::{level}::" in name, f"{path.name}: {name} lies outside pyfocus::{level}"


# --- arrays in ---------------------------------------------------------


class Legacy:
    """A producer older than DLPack 1.0: no max_version."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self):
        return self.array.__dlpack__()


def shrink(source, out=None):
    out = np.empty((2, 2), np.float32) if out is None else out
    _C.pyramid_down(source, out)
    return out


def test_old_and_new_dlpack_producers_give_the_same():
    plane = RANDOM.random((4, 4), np.float32)
    np.testing.assert_array_equal(shrink(Legacy(plane)), shrink(plane))
    out = np.empty((2, 2), np.float32)
    shrink(plane, Legacy(out))
    np.testing.assert_array_equal(out, shrink(plane))


def test_torch_is_not_needed():
    code = "import sys, pyfocus, pyfocus._C; assert 'torch' not in sys.modules and 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tests", check=True, timeout=60)


@pytest.mark.parametrize(
    "thing,error,text",
    [
        ([[1.0]], TypeError, r"expected an array with __dlpack__ \(NumPy, torch, CuPy\), got list"),
        (None, TypeError, "expected an array with __dlpack__"),
        (np.zeros((4, 4), np.complex64), TypeError, "expected uint8, uint16, int32, float32 or float64 elements"),
        (np.zeros((4, 4), np.int64), TypeError, "expected uint8, uint16, int32, float32 or float64 elements"),
        (np.zeros((1, 1, 1, 4, 4), np.float32), ValueError, "expected at most 4 dimensions, got 5"),
        (np.float32(1), TypeError, "expected an array with __dlpack__"),
    ],
)
def test_what_is_no_array_for_us_is_refused(thing, error, text):
    with pytest.raises(error, match=text):
        shrink(thing)


def test_a_producer_that_returns_no_capsule():
    class Wrong:
        def __dlpack__(self, **_):
            return 7

    with pytest.raises((TypeError, ValueError)):
        shrink(Wrong())


def test_refused_arrays_are_let_go():
    for array in (np.zeros((4, 4), np.complex64), np.zeros((1,) * 5, np.float32)):
        for producer in (array, Legacy(array)):
            before = sys.getrefcount(array)
            for _ in range(3):
                with pytest.raises((TypeError, ValueError)):
                    shrink(producer)
            gc.collect()
            assert sys.getrefcount(array) == before


def test_used_arrays_are_let_go():
    source, out = RANDOM.random((4, 4), np.float32), np.empty((2, 2), np.float32)
    before = sys.getrefcount(source), sys.getrefcount(out)
    shrink(source, out)
    assert (sys.getrefcount(source), sys.getrefcount(out)) == before


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class Elsewhere:
    """An array that says it lies on another device; its memory is never touched."""

    def __init__(self, device: int, shape: tuple[int, ...]) -> None:
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.tensor = DLTensor(4096, device, 0, len(shape), 2, 32, 1, self.shape, None, 0, None, None)

    def __dlpack__(self):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


def test_arrays_on_other_devices_are_named():
    with pytest.raises(ArgumentError, match="pyramid_down: destination must be on the device of the first array"):
        shrink(Elsewhere(2, (4, 4)))
    with pytest.raises(ArgumentError, match="warp: destination must be on the device of the first array"):
        _C.warp(Elsewhere(2, (1, 4, 4)), np.eye(3)[None], np.empty((1, 4, 4), np.float32))
    with pytest.raises(ValueError, match="expected an array in CPU or CUDA memory"):
        shrink(Elsewhere(8, (4, 4)))  # Metal


@pytest.mark.skipif(_C.device_archs() != "", reason="this build has CUDA")
def test_a_build_without_cuda_says_so():
    there = Elsewhere(2, (1, 4, 4))
    for name, call in (
        ("warp", lambda: _C.warp(there, np.eye(3)[None], there)),
        ("thin", lambda: _C.thin(there, 1, 1, there)),
    ):
        with pytest.raises(ResourceError, match=f"{name}: this build has no CUDA"):
            call()


# --- outputs -----------------------------------------------------------


def frozen(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    out = np.zeros(shape, dtype)
    out.setflags(write=False)
    return out


@pytest.mark.parametrize(
    "call,text",
    [
        (lambda: _C.warp(PLANES, MAPS, frozen((3, 9, 9))), "warp: destination"),
        (lambda: _C.warp(PLANES, MAPS, np.empty((3, 9, 9), "f4"), frozen((9, 9), np.uint8)), "warp: valid"),
        (lambda: _C.luminance(PLANES, [1.0] * 3, frozen((H, W))), "luminance: destination"),
        (
            lambda: _C.demosaic(MOSAIC, [0, 0], [1.0] * 4, [0.0] * 4, frozen((3, *MOSAIC.shape))),
            "demosaic: destination",
        ),
        (lambda: _C.unpack(PLANES, frozen((3, H, W), np.uint8), [1.0] * 3, [0.0] * 3), "unpack: destination"),
        (lambda: _C.pyramid_down(PLANES, frozen((3, *LOW))), "pyramid_down: destination"),
        (lambda: _C.pyramid_up(COARSE, frozen((3, H, W))), "pyramid_up: destination"),
        (lambda: _C.pyramid_smooth(PLANES, frozen((3, H, W))), "pyramid_smooth: destination"),
        (lambda: _C.pyramid_energy(PLANES, COARSE, frozen(LOW)), "pyramid_energy: energy"),
        (lambda: _C.pyramid_valid(MASK, frozen(LOW, np.uint8)), "pyramid_valid: destination"),
        (lambda: _C.pyramid_rate(RATING, COARSE, None, 0, 0, BEFORE, frozen(LOW), RATING), "pyramid_rate: rating"),
        (lambda: _C.pyramid_rate(RATING, COARSE, None, 0, 0, BEFORE, RATING.copy(), frozen(LOW)), "pyramid_rate: peak"),
        (
            lambda: _C.pyramid_fold(PLANES, COARSE, RATING, RATING, RATING, 4, frozen((3, H, W)), PLANES[0].copy()),
            "pyramid_fold: numerator",
        ),
        (
            lambda: _C.pyramid_fold(PLANES, COARSE, RATING, RATING, RATING, 4, PLANES.copy(), frozen((H, W))),
            "pyramid_fold: denominator",
        ),
        (lambda: _C.pyramid_collapse(PLANES, PLANES[0], COARSE, frozen((3, H, W))), "pyramid_collapse: destination"),
    ],
)
def test_read_only_outputs_are_refused(call, text):
    with pytest.raises(ArgumentError, match=f"^{text} is written to, got a read-only array"):
        call()


def test_read_only_inputs_are_taken():
    shrink(frozen((4, 4)))
    table = TABLE.copy()
    table.setflags(write=False)
    _C.warp(COUNTS, MAPS, np.empty((3, 9, 9), np.float32), table=table)


# --- errors of warp's many arguments -----------------------------------

OUT = np.zeros((3, 20, 20), np.float32)
NAN = np.full((3, 3, 3), np.nan)
HORIZON = np.stack([np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1.0]])] * 3)


@pytest.mark.parametrize(
    "arguments,how,text",
    [
        ((PLANES.astype(float), MAPS, OUT), {}, "source must be uint8, uint16 or float32, got float64"),
        ((PLANES[0], MAPS, OUT), {}, r"source must be \(C, H, W\), got 2 dimensions"),
        ((np.zeros((5, 4, 4), "f4"), MAPS, OUT), {}, "source must have 1 to 4 planes, got 5"),
        ((np.zeros((0, 4, 4), "f4"), MAPS, OUT), {}, "source must have 1 to 4 planes, got 0"),
        ((np.zeros((3, 4, 0), "f4"), MAPS, OUT), {}, "source must not be empty, got 4 x 0"),
        ((PLANES, MAPS.astype("f4"), OUT), {}, "matrices must be float64, got float32"),
        ((PLANES, MAPS[0], OUT), {}, "matrices must have 3 dimensions, got 2"),
        ((PLANES, MAPS[:2], OUT), {}, "matrices must have size 3 on axis 0, got 2"),
        ((PLANES, MAPS[:, :2], OUT), {}, "matrices must"),
        ((PLANES, NAN, OUT), {}, "matrices must be finite, got nan"),
        ((PLANES, np.full((3, 3, 3), np.inf), OUT), {}, "matrices must be finite, got inf"),
        (
            (PLANES, HORIZON, OUT),
            {},
            r"matrices must keep m20 x \+ m21 y \+ m22 positive over the destination, got -0.9",
        ),
        ((PLANES, np.zeros((3, 3, 3)), OUT), {}, "positive over the destination, got 0"),
        ((PLANES, MAPS, OUT.astype(float)), {}, "destination must be float32, got float64"),
        ((PLANES, MAPS, OUT[0]), {}, "destination must have 3 dimensions, got 2"),
        ((PLANES, MAPS, OUT[:2]), {}, "destination must have size 3 on axis 0, got 2"),
        ((PLANES, MAPS, OUT[:, :, ::2]), {}, "destination must be contiguous"),
        ((PLANES, MAPS, OUT, np.empty((20, 20), "f4")), {}, "valid must be uint8, got float32"),
        ((PLANES, MAPS, OUT, np.empty((20, 21), "u1")), {}, "valid must have size 20 on axis 1, got 21"),
        ((PLANES, MAPS, OUT), {"interpolation": 3}, "interpolation must be 0, 1 or 2, got 3"),
        ((PLANES, MAPS, OUT), {"table": TABLE}, "a table needs a uint8 or uint16 source, got float32"),
        ((COUNTS, MAPS, OUT), {"table": TABLE[:256]}, "table must have size 65536 on axis 0, got 256"),
        ((COUNTS, MAPS, OUT), {"table": TABLE.astype(float)}, "table must be float32, got float64"),
        ((PLANES, MAPS, OUT), {"scale": [1.0]}, r"scale must have one value per plane \(3\), got 1"),
        ((PLANES, MAPS, OUT), {"offset": [0.0] * 4}, r"offset must have one value per plane \(3\), got 4"),
        ((PLANES, MAPS, OUT), {"mosaic": [(0, 0)] * 3}, r"a mosaic must be \(H, W\), got 3 dimensions"),
        ((MOSAIC, MAPS, OUT), {"mosaic": [(0, 2)] * 3}, r"mosaic offsets must be 0 or 1, got \(0, 2\)"),
        ((MOSAIC, MAPS, OUT), {"mosaic": [(0, 0)] * 5}, "a mosaic has 1 to 4 planes, got 5"),
        ((MOSAIC, MAPS, OUT), {"mosaic": []}, "a mosaic has 1 to 4 planes, got 0"),
    ],
)
def test_wrong_arguments_of_warp_are_named(arguments, how, text):
    with pytest.raises(ArgumentError, match=f"^warp: .*{text}"):
        _C.warp(*arguments, **how)


def test_errors_are_of_the_one_tree():
    with pytest.raises(PyfocusError) as caught:
        _C.set_isa(9)
    assert isinstance(caught.value, ValueError) and type(caught.value) is ArgumentError


# --- threads, fork, the GIL --------------------------------------------


def test_the_number_of_threads_can_be_set():
    before = _C.threads()
    try:
        assert before >= 1
        _C.set_threads(5)
        assert _C.threads() == 5
        want = bits(OPS["warp bicubic"](1))
        assert bits(OPS["warp bicubic"](0)) == want
        assert bits(OPS["warp bicubic"](64)) == want
    finally:
        _C.set_threads(before)


def test_calls_from_many_python_threads():
    want = {name: bits(op(1)) for name, op in OPS.items()}
    wrong: list[str] = []

    def work(turn: int) -> None:
        for name in [*OPS, *OPS][turn : turn + len(OPS)]:
            if bits(OPS[name](1 + turn % 3)) != want[name]:
                wrong.append(name)

    workers = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert not wrong


def test_python_goes_on_during_a_call():
    source, out = np.zeros((3, 1200, 2000), np.float32), np.empty((3, 1200, 2000), np.float32)
    finished, beats = threading.Event(), []

    def beat() -> None:
        while not finished.is_set():
            beats.append(time.perf_counter())
            time.sleep(0.001)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        start = time.perf_counter()
        _C.warp(source, np.stack([TURN] * 3), out, interpolation=2, threads=1)
        end = time.perf_counter()
    finally:
        finished.set()
        heart.join()
    during = sum(start + 0.005 < at < end - 0.005 for at in beats)  # a held GIL would leave none in between
    assert during >= 5, f"{during} beats in {end - start:.3f} s"


FORK = """
import os, signal, sys
import numpy as np
from pyfocus import _C
source = np.arange(3 * 300 * 300, dtype=np.float32).reshape(3, 300, 300)
def run():
    out = np.empty((3, 150, 150), np.float32)
    _C.pyramid_down(source, out, threads=3)
    return out.tobytes()
want = run()
child = os.fork()
if child == 0:
    signal.alarm(20)  # a child that hangs ends itself
    os._exit(0 if run() == want and run() == want else 3)
status = os.waitpid(child, 0)[1]
sys.exit(os.waitstatus_to_exitcode(status) or (0 if run() == want else 4))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
def test_a_forked_child_works():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], cwd=ROOT / "tests", timeout=60)
    assert done.returncode == 0
