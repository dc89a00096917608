"""The C++ program of examples/cpp_onnx, built and run: against the same files run from Python, and on bad input.

ONNX Runtime's library is that of the Python wheel, its headers are the example's own. libpng comes from the system;
where it or CMake is missing these tests skip and say so, except in CI, which must have both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime", minversion="1.29", reason="the example's headers are of 1.29")

from exported_stub import NOISE, with_fact, write_stream  # noqa: E402

from pyfocus.export import session  # noqa: E402

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "cpp_onnx"
SOURCE = EXAMPLE / "stack_onnx.cpp"
# In codes of 65535: rounding, 0.5, and arithmetic in single precision. Measured 0.51 on the network, 0.6 on the stub.
CODES = 1.5


def missing(what: str) -> None:
    """Skip for want of something that is not Python's; in CI fail."""
    text = f"{what}, which the C++ example needs"
    pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)


def tool(name: str) -> str | None:
    """A program beside this Python, as pip installs it, or on the path."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The example, built as its README says, against the wheel's library."""
    cmake, ninja = tool("cmake"), tool("ninja")
    if cmake is None:
        missing("no cmake")
    build = tmp_path_factory.mktemp("cpp")
    library = Path(onnxruntime.__file__).parent / "capi"
    words = ["-S", EXAMPLE, "-B", build, f"-DONNXRUNTIME={library}", "-DCMAKE_CXX_FLAGS=-Werror"]
    if ninja:
        words += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    done = subprocess.run([cmake, *map(str, words)], capture_output=True, text=True)
    if "Could NOT find PNG" in done.stderr:
        missing("no libpng; on Debian: apt install libpng-dev")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([cmake, "--build", str(build)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return build / "stack_onnx"


def run(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, words), "--threads", "1"], capture_output=True, text=True, timeout=60)


def write(folder: Path, frames: list[np.ndarray]) -> Path:
    """Frames (H, W, 3) or (H, W) as 16-bit PNGs; names in their order."""
    folder.mkdir()
    for k, codes in enumerate(frames):
        assert cv2.imwrite(str(folder / f"{k:02}.png"), codes[..., ::-1] if codes.ndim == 3 else codes)
    return folder


def burst(height: int, width: int, count: int = 3) -> list[np.ndarray]:
    """Noise over a slope, so that tiles differ: (H, W, 3) uint16."""
    random = np.random.default_rng(7)
    slope = np.linspace(0.1, 0.6, height)[:, None, None] * np.linspace(0.5, 1, width)[None, :, None]
    return [(65535 * (slope + 0.3 * random.random((height, width, 3)))).astype(np.uint16) for _ in range(count)]


def linear(codes: np.ndarray) -> np.ndarray:
    """(3, H, W) float32 linear light of sRGB, IEC 61966-2-1."""
    v = np.atleast_3d(codes).transpose(2, 0, 1) / 65535
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def in_python(model: Path, frames: list[np.ndarray], tile_px: int) -> np.ndarray:
    """Codes (H, W, 3) before rounding, of the same files in pyfocus."""
    fuser = session.load(model, noise=NOISE, threads=1, tile_px=tile_px)
    for codes in frames:
        fuser.push(linear(codes))
    v = np.clip(fuser.finish().image.astype(np.float64), 0, 1).transpose(1, 2, 0)
    return 65535 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)


def stacked(program: Path, model: Path, frames: Path, to: Path, tile_px: int) -> np.ndarray:
    """What the program writes."""
    done = run(program, model, frames, to, "--noise", ",".join(map(str, NOISE)), "--tile", tile_px)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    picture = cv2.imread(str(to), cv2.IMREAD_UNCHANGED)
    assert picture.dtype == np.uint16
    return picture[..., ::-1].astype(np.float64)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def test_an_exported_network(program, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from pyfocus.export.to_onnx import export_onnx
    from pyfocus.nn.checkpoint import save_model
    from pyfocus.nn.stream import FocusDeepStream

    torch.manual_seed(1)
    net = FocusDeepStream("tiny")
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.03 * torch.randn_like(value))
    save_model(tmp_path / "tiny.pt", net, {})
    export_onnx(tmp_path / "tiny.pt", tmp_path / "model")
    frames = burst(61, 83)
    truth = in_python(tmp_path / "model", frames, 24)
    assert truth.min() > 0 and truth.max() < 65535 and np.ptp(truth) > 1e4
    folder = write(tmp_path / "frames", frames)
    for tile_px in (24, 384):
        got = stacked(program, tmp_path / "model", folder, tmp_path / f"{tile_px}.png", tile_px)
        assert apart(got, truth) < CODES


@pytest.mark.parametrize(("height", "width"), [(45, 61), (48, 8), (9, 40)])
def test_tiles_give_what_the_whole_frame_gives(program, tmp_path, height, width):
    model, frames = write_stream(tmp_path / "model"), burst(height, width, 4)
    truth = in_python(model, frames, 512)
    assert np.ptp(truth) > 1e4
    folder = write(tmp_path / "frames", frames)
    for tile_px in (8, 21, 32, 512):
        got = stacked(program, model, folder, tmp_path / f"{tile_px}.png", tile_px)
        assert apart(got, truth) < CODES, tile_px


def test_grey_is_three_planes_alike(program, tmp_path):
    model, grey = write_stream(tmp_path / "model"), [codes[..., 1] for codes in burst(24, 32)]
    one = stacked(program, model, write(tmp_path / "grey", grey), tmp_path / "grey.png", 16)
    colour = write(tmp_path / "colour", [np.repeat(codes[..., None], 3, -1) for codes in grey])
    assert apart(one, stacked(program, model, colour, tmp_path / "colour.png", 16)) == 0


def test_what_is_refused(program, tmp_path):
    model, frames = write_stream(tmp_path / "model"), burst(16, 24, 2)
    good = write(tmp_path / "good", frames)
    (tmp_path / "empty").mkdir()
    (tmp_path / "tiled").mkdir()
    write_stream(tmp_path / "tiled", tile=(16, 24))
    for name, key, value in (("other", "weights", "1" * 64), ("newer", "version", 2)):
        write_stream(tmp_path / name)
        (tmp_path / name / "step.onnx").write_bytes(with_fact(tmp_path / name / "step.onnx", key, value))
    foreign = write_stream(tmp_path / "foreign") / "step.onnx"
    plain = onnx.load(foreign)
    del plain.metadata_props[:]
    onnx.save(plain, foreign)
    (write_stream(tmp_path / "cut") / "step.onnx").write_bytes(foreign.read_bytes()[:300])
    write(tmp_path / "sizes", [frames[0], frames[1][:15]])
    write(tmp_path / "eight", [(codes >> 8).astype(np.uint8) for codes in frames])
    write(tmp_path / "small", [codes[:7] for codes in frames])
    whole = (write(tmp_path / "half", frames) / "01.png").read_bytes()
    (tmp_path / "half" / "01.png").write_bytes(whole[: len(whole) // 2])
    for words, says in (
        ((model, tmp_path / "none"), "none: there is no such folder, or no .png in it"),
        ((model, tmp_path / "empty"), "empty: there is no such folder, or no .png in it"),
        ((tmp_path / "none", good), "none/step.onnx"),
        ((tmp_path / "cut", good), "cut/step.onnx"),
        ((tmp_path / "foreign", good), "the model was not written by pyfocus-export: no pyfocus."),
        ((tmp_path / "newer", good), "must be of version 1, and exported without --tile"),
        ((tmp_path / "tiled", good), "must be of version 1, and exported without --tile"),
        ((tmp_path / "other", good), "step.onnx and finish.onnx are of different weights"),
        ((model, tmp_path / "sizes"), "01.png: is not as large as the first"),
        ((model, tmp_path / "eight"), "00.png: must have 16 bits a channel and 8 rows and columns"),
        ((model, tmp_path / "small"), "00.png: must have 16 bits a channel and 8 rows and columns"),
        ((model, tmp_path / "half"), "01.png: cannot be read, is no PNG, or is cut short"),
    ):
        done = run(program, *words, tmp_path / "out.png")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), (words, done)
        assert done.stderr.startswith("error: ") and says in done.stderr, done.stderr
        assert not list(tmp_path.glob("out.png*"))
    done = run(program, model, good, tmp_path / "none" / "out.png")
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path / 'none' / 'out.png'}: cannot be written\n")
    (tmp_path / "taken").mkdir()
    assert run(program, model, good, tmp_path / "taken").returncode == 1 and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "words", [(), ("--noise", "1"), ("--noise", "-1,0"), ("--tile", "0"), ("--til", "8"), ("--tile",)]
)
def test_usage(program, tmp_path, words):
    given = ("a", "b", "c.png", *words) if words else ()
    done = subprocess.run([program, *given], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("stack_onnx MODEL FRAMES OUT.png [--noise SHOT,READ]")


def test_it_is_short():
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) <= 200
