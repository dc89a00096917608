"""Networks by name: a model's file, the shipped weights, the command line, and no torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from command import make_burst, refuse, run
from network_stubs import NOISE

import pyfocus
from pyfocus.cli.arguments import UsageError, parser
from pyfocus.cli.stacking import choose_domain, choose_fuser
from pyfocus.cli.terminal import Terminal
from pyfocus.errors import ArgumentError, ReadError, ResourceError
from pyfocus.io import FrameSource
from pyfocus.stacker import Stacker, resolve_fuser

pytest.importorskip("torch")

from pyfocus import nn
from pyfocus.nn import fusers
from pyfocus.nn.checkpoint import save_model
from pyfocus.nn.stream import FocusDeepStream
from pyfocus.nn.stream_fuser import StreamFuser

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "best.pt"
    save_model(path, FocusDeepStream("tiny"), {})
    return path


def test_a_model_s_file_is_a_fuser(model, small_bracket):
    frames = [np.uint8(255 * np.clip(frame, 0, 1)) for frame in small_bracket.frames[:2, :64, :72]]
    fuser = resolve_fuser(str(model), noise=NOISE, threads=1)
    assert isinstance(fuser, StreamFuser) and fuser.noise == NOISE
    result = pyfocus.stack(frames, fuser=fuser, align=False)
    assert result.image().shape == (64, 72, 3) and np.isfinite(result.depth()).all()
    assert isinstance(Stacker(str(model))._fuser, StreamFuser)


def test_the_shipped_weights(model, monkeypatch, tmp_path):
    monkeypatch.setattr(fusers, "WEIGHTS", tmp_path)
    with pytest.raises(ResourceError, match="the weights of 'focusdeep' are not in this installation"):
        Stacker("focusdeep")
    model.rename(tmp_path / fusers.SHIPPED["focusdeep"])
    assert isinstance(Stacker("focusdeep")._fuser, StreamFuser)


def test_names_that_are_none(tmp_path):
    with pytest.raises(ArgumentError, match=r"average, depthmap, laplacian, .*a model's file .*, got 'best'"):
        Stacker("best")
    with pytest.raises(ReadError, match=r"none.pt: cannot be read"):
        pyfocus.stack([np.zeros((32, 32), np.uint8)] * 2, fuser=str(tmp_path / "none.pt"))
    (tmp_path / "other.pt").write_bytes(b"no model")
    with pytest.raises(ReadError, match=r"other.pt: "):
        Stacker(str(tmp_path / "other.pt"))
    with pytest.raises(ArgumentError, match="noise is for networks"):
        resolve_fuser("laplacian", noise=NOISE)


def test_without_torch_there_is_one_clear_error():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pyfocus\n"
        "try: pyfocus.Stacker('focusdeep')\n"
        "except pyfocus.errors.ResourceError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "needs torch, which is not installed: pip install 'pyfocus-stack[torch]'" in done.stdout, done.stderr
    code = "import sys, pyfocus; pyfocus.Stacker('laplacian'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"


def options(*words: str) -> Any:
    return parser().parse_args(["stack", "frames", *words])


def test_what_the_command_line_refuses(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    network = ("-o", "o.tif", "--fuser", "best.pt")
    for words, says in (
        (("--fuser", "nine"), "average, depthmap, laplacian, wavelet, focusdeep, a model's file"),
        (("--noise", "1"), "must be SHOT,READ"),
        (("--noise=-1,0",), "must be SHOT,READ"),
    ):
        with pytest.raises(UsageError, match=says):
            options("-o", "o.tif", *words)
    for words, says in (
        (("-o", "o.tif", "--noise", "1e-3,1e-6"), "--noise is what a network is told"),
        (("-o", "o.dng", "--fuser", "best.pt"), "a network gives a picture"),
        (("-o", "o.tif", "--depth", "d.png", "--fuser", "raw.pt"), "raw.pt gives none of them"),
    ):
        save_model("raw.pt", nn.FocusDeep("rggb", 2, 8), {})
        with pytest.raises(UsageError, match=says):
            choose_fuser(options(*words))
    fuser = choose_fuser(options(*network, "--noise", "1e-3,1e-6", "--threads", "1"))
    assert fuser.noise == NOISE and fuser.threads == 1
    with pytest.raises(UsageError, match="works in --domain rgb; leave --domain raw out"):
        choose_domain(options(*network, "--domain", "raw"), [], Terminal(), fuser.domain)
    picture = FrameSource(model.with_name("picture.tif"))
    assert choose_domain(options(*network), [picture], Terminal(), fuser.domain) == "rgb"
    assert choose_domain(options(*network), [], Terminal(), "raw") == "raw"
    with pytest.raises(UsageError, match=r"--fuser best\.pt needs camera raws, picture\.tif is a picture already"):
        choose_domain(options(*network), [picture], Terminal(), "raw")


def test_the_command_line(model, tmp_path):
    make_burst(tmp_path / "rgb", frames=2, height=64, width=96)
    words = ("stack", "rgb/frames", "-o", "o.tif", "--fuser", "best.pt", "--noise", "1e-4,1e-7", "--depth", "d.png")
    done = run(*words, "--threads", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.tif").stat().st_size > 10_000 and (tmp_path / "d.png").is_file()
    refuse(*words[:5], "none.pt", "--overwrite", cwd=tmp_path, code=1, says="none.pt: cannot be read")
