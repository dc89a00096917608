"""What all native functions share: equal bits everywhere, errors, threads, fork. Arrays: see test_native_arrays."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from native_cases import BEFORE, COARSE, COUNTS, LOW, MAPS, MASK, MOSAIC, PLANES, RATING, TABLE, TURN, H, W

from pyfocus import _C
from pyfocus.errors import ArgumentError, PyfocusError

ROOT = Path(__file__).resolve().parent.parent


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


def test_torch_is_not_needed():
    code = "import sys, pyfocus, pyfocus._C; assert 'torch' not in sys.modules and 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tests", check=True, timeout=60)


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
