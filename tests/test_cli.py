"""The command line when all goes well, through a process of its own; and the package's front door."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import rawpy
import tifffile
from command import COMMAND, STRICT, files, make_burst, run
from PIL import Image

import pyfocus
from pyfocus import _C
from pyfocus.cli.arguments import parse_memory
from pyfocus.cli.simulating import resize
from pyfocus.io import write_image

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small bursts, ``rgb/frames`` and ``raw/frames``, never written to."""
    folder = tmp_path_factory.mktemp("bursts")
    make_burst(folder / "rgb")
    make_burst(folder / "raw", raw=True)
    return folder


# --- stack -------------------------------------------------------------


def test_stack_writes_what_is_asked_for(bursts: Path, tmp_path: Path) -> None:
    outputs = ("o.tif", "o.png", "o.jpg", "d.png", "c.tif", "t.json")
    words = ["-o", "o.tif", "-o", "o.png", "-o", "o.jpg", "--depth", "d.png", "--confidence", "c.tif"]
    done = run("stack", bursts / "rgb/frames", *words, "--save-transforms", "t.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(files(tmp_path)) == sorted(outputs)
    assert all(name in done.stdout for name in outputs) and "5 of 5 frames" in done.stdout
    picture = tifffile.imread(tmp_path / "o.tif")
    assert picture.dtype == np.uint16 and np.array_equal(picture, _png16(tmp_path / "o.png"))
    for name in ("o.jpg", "d.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size == picture.shape[1::-1]
    assert tifffile.imread(tmp_path / "c.tif").dtype == np.uint16
    assert re.search(r"register: 5 of 5, [\d.]+ s", done.stderr) and "Traceback" not in done.stderr


def _png16(path: Path) -> np.ndarray:
    import imagecodecs

    return np.asarray(imagecodecs.imread(path))


def test_json_is_one_object_with_everything(bursts: Path, tmp_path: Path) -> None:
    done = run("stack", bursts / "rgb/frames", "-o", "o.tif", "--json", "-q", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    report = json.loads(done.stdout)
    assert report["version"] == pyfocus.__version__ and report["domain"] == "rgb" and report["left_out"] == []
    assert [frame["name"] for frame in report["frames"]] == [f"IMG_000{k}.tif" for k in range(5)]
    for frame in report["frames"]:
        assert frame["registered"] and 0.5 < frame["correlation"] <= 1 and frame["corner_displacement_px"] < 10
    assert report["reference"] in [frame["name"] for frame in report["frames"]]
    assert report["outputs"] == [{"path": "o.tif", "bytes": (tmp_path / "o.tif").stat().st_size}]
    y0, x0, y1, x1 = report["crop"]
    assert tifffile.imread(tmp_path / "o.tif").shape == (y1 - y0, x1 - x0, 3) == (report["height"], report["width"], 3)
    assert set(report["seconds"]) == {"register", "fuse", "develop", "write", "total"}
    assert report["threads"] == 2 and report["peak_memory_mb"] > 10 and report["warnings"] == []


def test_quiet_says_nothing(bursts: Path, tmp_path: Path) -> None:
    done = run("stack", bursts / "rgb/frames", "-o", "o.tif", "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_transforms_used_again_give_the_same_bytes(bursts: Path, tmp_path: Path) -> None:
    frames = bursts / "rgb/frames"
    assert run("stack", frames, "-o", "a.tif", "--save-transforms", "t.json", cwd=tmp_path).returncode == 0
    for threads in (1, 3):  # and no number of threads changes them
        words = ("stack", frames, "-o", "b.tif", "--transforms", "t.json", "--threads", threads, "--overwrite")
        done = run(*words, cwd=tmp_path, env={"PYFOCUS_THREADS": ""})
        assert done.returncode == 0 and "register" not in done.stderr
        assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    words = ("stack", frames, "-o", "b.tif", "--transforms", "t.json", "--save-transforms", "u.json", "--overwrite")
    assert run(*words, cwd=tmp_path).returncode == 0
    assert (tmp_path / "t.json").read_bytes() == (tmp_path / "u.json").read_bytes()


def test_a_dng_takes_the_raw_domain(bursts: Path, tmp_path: Path) -> None:
    done = run("stack", bursts / "raw/frames", "-o", "o.dng", "-o", "o.tif", "--json", "-v", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["domain"] == "raw"
    assert "raw domain, because o.dng asks for a mosaic" in done.stderr
    with rawpy.imread(str(tmp_path / "o.dng")) as raw:
        assert raw.raw_image_visible.shape == tifffile.imread(tmp_path / "o.tif").shape[:2]
    done = run("stack", bursts / "raw/frames", "-o", "p.tif", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["domain"] == "rgb"


def test_one_frame_stacks_to_itself(bursts: Path, tmp_path: Path) -> None:
    frame = bursts / "rgb/frames/IMG_0002.tif"
    done = run("stack", frame, "-o", "o.tif", "--save-transforms", "t.json", "--json", cwd=tmp_path)
    assert done.returncode == 0 and "IMG_0002.tif is the only frame" in done.stderr
    assert "only frame" in json.loads(done.stdout)["warnings"][0]
    difference = tifffile.imread(tmp_path / "o.tif").astype(int) - tifffile.imread(frame)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("strangers", "code"), [(1, 0), (2, 3)])
def test_frames_left_out_are_named(bursts: Path, tmp_path: Path, strangers: int, code: int) -> None:
    random = np.random.default_rng(0)
    names = [f"stranger{k}.tif" for k in range(strangers)]
    for name in names:
        coarse = random.random((12, 16, 3))
        picture = (np.kron(coarse, np.ones((8, 8, 1))) * 60000).astype(np.uint16)
        write_image(tmp_path / name, picture)
    done = run("stack", bursts / "rgb/frames", *names, "-o", "o.tif", "--order", "as-given", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert report["left_out"] == names and report["frames_used"] == 5
    assert done.returncode == code and (tmp_path / "o.tif").exists()
    warnings = [line for line in done.stderr.splitlines() if line.startswith("pyfocus: warning: ")]
    assert len(warnings) == strangers == len(report["warnings"])
    for name, line in zip(names, warnings, strict=True):
        assert name in line and "correlation" in line and "Try " in line


def test_options_reach_the_stack(bursts: Path, tmp_path: Path) -> None:
    words = ["--no-align", "--no-crop", "--no-equalise", "--fuser", "average", "--bits", "8", "--memory", "1GB"]
    done = run("stack", bursts / "rgb/frames", "-o", "o.tif", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    burst = pyfocus.read_burst(bursts / "rgb/frames")
    wanted = pyfocus.stack(burst, align=False, crop=False, equalise=False, fuser="average").image(bits=8)
    assert np.array_equal(tifffile.imread(tmp_path / "o.tif"), wanted)
    done = run("stack", bursts / "rgb/frames", "-o", "p.tif", "--reference", 1, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["reference"] == "IMG_0001.tif"


def test_exif_and_profile_are_kept(bursts: Path, tmp_path: Path) -> None:
    for k in range(2):
        pixels = (tifffile.imread(bursts / f"rgb/frames/IMG_000{k}.tif") >> 8).astype(np.uint8)
        exif = Image.Exif()
        exif[271], exif[272], exif[274] = "Maker", "Model", 6
        Image.fromarray(pixels).save(tmp_path / f"{k}.jpg", exif=exif, quality=95)
    assert run("stack", "0.jpg", "1.jpg", "-o", "o.jpg", "--no-align", cwd=tmp_path).returncode == 0
    with Image.open(tmp_path / "o.jpg") as result:
        found, profile, size = result.getexif(), result.info["icc_profile"], result.size
    assert (found[271], found[272], found.get(274, 1)) == ("Maker", "Model", 1)
    assert size == (96, 128)  # turned upright
    assert found[305].startswith("pyfocus") and "2 frames" in found[270] and profile


# --- streams -----------------------------------------------------------


def test_progress_on_a_terminal(bursts: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [*COMMAND, "stack", str(bursts / "rgb/frames"), "-o", "o.tif"]
    environment = {**os.environ, **STRICT, "TERM": "xterm"}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += (part := os.read(ours, 4096))
            except OSError:  # the other end is closed
                break
            if not part:
                break
        assert process.wait(60) == 0
    os.close(ours)
    assert b"register" in said and b"fuse" in said and b"Traceback" not in said


def test_nobody_reads_the_result(bursts: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [*COMMAND, "stack", str(bursts / "rgb/frames"), "-o", "o.tif"]
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, **STRICT}, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert done.returncode == 0 and (tmp_path / "o.tif").exists()
    assert "Error" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_the_result_cannot_be_said(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "info"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


# --- info and simulate -------------------------------------------------


def test_info(tmp_path: Path) -> None:
    said = run("info", cwd=tmp_path).stdout
    assert f"pyfocus {pyfocus.__version__}" in said and _C.isa() in said
    found = json.loads(run("info", "--json", cwd=tmp_path).stdout)
    assert found["native"]["threads"] == 2 and found["libraries"]["numpy"] == np.__version__
    cuda = found["native"]["cuda"]
    assert len(cuda["devices"]) == _C.device_count() and cuda["archs"] == _C.device_archs().split()
    assert (cuda["reason"] is None) == (_C.device_count() > 0)
    assert f"CUDA: {'built for' if cuda['built'] else 'not built'}" in said
    assert run("--version", cwd=tmp_path).stdout == f"pyfocus {pyfocus.__version__}\n"
    assert "exit codes" in run("--help", cwd=tmp_path).stdout


def test_simulate_photos(bursts: Path, tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 255, 60, dtype=np.uint8)[None].repeat(40, 0)).save(tmp_path / "near.png")
    photo = bursts / "rgb/truth.tif"
    words = ["--frames", 3, "--raw", "--iso", 0.2, "--size", 64, "--depth", "near.png", "--blur", 3, "--seed", 4]
    done = run("simulate", photo, "procedural", "-o", "sim", *words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["brackets"]
    assert [(b["folder"], b["width"], b["frames"]) for b in made] == [("sim/truth", 64, 3), ("sim/procedural", 64, 3)]
    assert sorted(p.name for p in (tmp_path / "sim/truth/frames").iterdir()) == [f"IMG_000{k}.dng" for k in range(3)]
    scene = json.loads((tmp_path / "sim/truth/scene.json").read_text())
    assert scene["iso"] == 0.2 and scene["seed"] == 4 and scene["size"] == [64, 48]
    depth = _png16(tmp_path / "sim/truth/depth.png")
    assert depth[:, -1].min() > depth[:, 0].max()


def test_simulate_overwrites_brackets_only(tmp_path: Path) -> None:
    words = ("simulate", "procedural", "-o", "sim", "--size", 60)
    assert run(*words, "--frames", 3, cwd=tmp_path).returncode == 0
    assert "exists already" in run(*words, cwd=tmp_path).stderr
    assert run(*words, "--frames", 2, "--overwrite", cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "sim/frames").iterdir())) == 2 and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "sim/scene.json").unlink()
    assert "no bracket" in run(*words, "--overwrite", cwd=tmp_path).stderr
    assert len(list((tmp_path / "sim/frames").iterdir())) == 2


@pytest.mark.parametrize("size", [(12, 30), (7, 11), (24, 60), (30, 70), (1, 1)])
def test_resize_by_area(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((24, 60, 3)).astype(np.float32)
    out = resize(image, size)
    h, w = np.lcm(24, size[0]), np.lcm(60, size[1])  # the definition, on a grid that fits both
    fine = image.astype(np.float64).repeat(h // 24, 0).repeat(w // 60, 1)
    wanted = fine.reshape(size[0], h // size[0], size[1], w // size[1], 3).mean((1, 3))
    np.testing.assert_allclose(out, wanted, atol=1e-6)


def test_memory_sizes() -> None:
    sizes = {"500MB": 5e8, "2GB": 2e9, "1.5GiB": 1.5 * 2**30, "123456": 123456, "2g": 2e9, "7 kB": 7000, "1TiB": 2**40}
    assert {text: parse_memory(text) for text in sizes} == sizes


# --- the package's front door ------------------------------------------


def test_names_are_what_they_say() -> None:
    import pyfocus.develop
    import pyfocus.register
    import pyfocus.stack
    import pyfocus.warp  # importing the modules must not put them where the functions are

    assert sorted(pyfocus.__all__) == sorted(set(pyfocus.__all__)) and all(hasattr(pyfocus, n) for n in pyfocus.__all__)
    for name in ("develop", "read_burst", "register", "stack", "warp", "write_depth", "write_dng", "write_image"):
        assert isinstance(getattr(pyfocus, name), types.FunctionType), name
    assert isinstance(pyfocus.simulate, types.ModuleType) and isinstance(pyfocus.errors, types.ModuleType)
    assert f'version = "{pyfocus.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_import_is_light() -> None:
    heavy = ("cv2", "rawpy", "tifffile", "imagecodecs", "rich", "scipy", "torch", "skimage", "importlib.metadata")
    code = f"import sys, pyfocus; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_stub_matches_the_native_module() -> None:
    tree = ast.parse((ROOT / "pyfocus/_C.pyi").read_text())
    stub = {n.name: [a.arg for a in n.args.args] for n in tree.body if isinstance(n, ast.FunctionDef)}
    found = {n: getattr(_C, n) for n in dir(_C) if callable(getattr(_C, n)) and not n.startswith("_")}
    classes = {n: c for n, c in found.items() if isinstance(c, type)}
    stubs = {
        n.name: {f.name for f in n.body if isinstance(f, ast.FunctionDef)}
        for n in tree.body
        if isinstance(n, ast.ClassDef)
    }
    assert set(stubs) == set(classes)
    for name, cls in classes.items():
        assert {m for m in vars(cls) if not m.startswith("_")} == {m for m in stubs[name] if not m.startswith("_")}
    native = {n: f for n, f in found.items() if n not in classes}
    for name, function in native.items():
        signature = (function.__doc__ or "").splitlines()[0]
        named = re.findall(r"(?:\(|, )(\w+): ", signature)
        assert stub.get(name) == named, f"{name}: the stub says {stub.get(name)}, the module {named}"
    assert set(stub) == set(native)


def test_demo_runs_on_a_bracket_that_is_there(tmp_path: Path) -> None:
    make_burst(tmp_path / "bracket", raw=True)
    done = subprocess.run(
        [sys.executable, ROOT / "examples/demo.py", tmp_path], capture_output=True, text=True, timeout=60,
        env={**os.environ, **STRICT},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("demo.tif", "demo.dng", "demo-depth.png", "demo-before-after.png"):
        assert (tmp_path / name).is_file() and name in done.stdout
