"""Exported models: the graphs against torch, tiles without torch, the commands, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyfocus.cli import exporting
from pyfocus.errors import ArgumentError, ExportError, ReadError, ResourceError, WriteError
from pyfocus.fusers import resolve_fuser

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from export_cases import OWN, needs_deform, write_tiny  # noqa: E402

from pyfocus.export import session, to_onnx, verify  # noqa: E402
from pyfocus.export.exported import Exported  # noqa: E402
from pyfocus.export.facts import PREFIX, read_facts  # noqa: E402
from pyfocus.export.fusers import fuser_of  # noqa: E402
from pyfocus.export.graphs import graphs_of  # noqa: E402
from pyfocus.nn.burst_fuser import BurstFuser  # noqa: E402
from pyfocus.nn.checkpoint import save_model  # noqa: E402
from pyfocus.nn.focusdeep import FocusDeep  # noqa: E402
from pyfocus.nn.fusers import load_fuser  # noqa: E402
from pyfocus.nn.stream import FocusDeepStream  # noqa: E402
from pyfocus.nn.stream_fuser import StreamFuser  # noqa: E402
from pyfocus.nn.unet import UNet  # noqa: E402

NOISE = (1e-3, 1e-6)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny.pt")


@pytest.fixture(scope="module")
def exported(checkpoint, one_thread) -> Path:
    """Through the command, verified: in ONNX Runtime and in the reference evaluator."""
    folder = checkpoint.parent / "exported"
    assert exporting.main(["onnx", str(checkpoint), "-o", str(folder), "--verify", "--quiet", "--variant", OWN]) == 0
    return folder


def frames(count: int, height: int, width: int) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.uniform(0, 1, (3, height, width)).astype(np.float32) for _ in range(count)]


# --- graphs ------------------------------------------------------------


def test_other_sizes_and_batches_than_traced(checkpoint, exported):
    net = to_onnx.load_model(checkpoint)[0]
    graphs = session.open_exported(exported, threads=1)
    step, finish = graphs.runs["step"], graphs.runs["finish"]
    random = np.random.default_rng(0)
    shape, noise, balance = (3, 3, 40, 24), np.full((3, 2), 1e-4, np.float32), np.full((3, 3), 1.5, np.float32)
    state = net.init_state(3, 40, 24)
    told = {"noise": noise, "white_balance": balance}
    own: dict[str, Any] = {name: np.asarray(value) for (name, *_), value in zip(graphs.facts.state, state, strict=True)}
    with torch.no_grad():
        for k in range(2):
            frame, valid = random.random(shape, np.float32), (random.random((3, 1, 40, 24)) > 0.2).astype(np.float32)
            place = np.array([k, 2 * k, 5], np.float32)
            state = net.step(state, *map(torch.from_numpy, (frame, place, noise, balance, valid)))
            new = step({**own, "frame": frame, "index": place, "valid": valid, **told})
            own = dict(zip(own, new, strict=True))
        truth = net.finish(state, torch.from_numpy(noise), torch.from_numpy(balance))
    for got, value in zip(own.values(), state, strict=True):  # sums of weights up to e^12: relative
        np.testing.assert_allclose(got, value, rtol=1e-3, atol=1e-3)  # measured 1e-4
    results = finish({key: own[key] for key in list(own)[2:]} | told)
    for got, value in zip(results, (truth.image, truth.depth, truth.confidence), strict=True):
        np.testing.assert_allclose(got, value, rtol=0, atol=1e-4)


@needs_deform
@pytest.mark.parametrize(("variant", "precision"), [("plugin", "fp32"), ("standard", "mixed"), ("plugin", "mixed")])
def test_variants_take_other_sizes_too(variant, precision, checkpoint, exported, tmp_path):
    for part in ("step", "finish"):
        model = onnx.load(exported / f"{part}.onnx")
        facts = read_facts(part, {entry.key: entry.value for entry in model.metadata_props})
        made = to_onnx.specialise(model, replace(facts, variant=variant, precision=precision))
        onnx.save(made, tmp_path / f"{part}.onnx")
    burst = verify.small_burst(facts, (5, 3))
    found = verify.compare(checkpoint, tmp_path, burst, verify.RUNTIMES[:1])
    assert [one.wrong for one in found] == [""] * 3
    assert max(one.largest for one in found) < (5e-6 if precision == "fp32" else 1e-3)


def test_the_files_are_plain_and_described(exported):
    for name in ("step", "finish"):
        model = onnx.load(exported / f"{name}.onnx")
        assert {entry.domain for entry in model.opset_import} == {""} and model.opset_import[0].version == 20
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        facts = read_facts(name, {entry.key: entry.value for entry in model.metadata_props})
        assert facts.inputs == tuple(value.name for value in model.graph.input) and facts.part == name
        assert (facts.network, facts.step_px, len(facts.weights)) == ("FocusDeepStream", 8, 64)
        sizes = {size.dim_param for value in model.graph.input for size in value.type.tensor_type.shape.dim}
        assert sizes - {""} <= {"batch", *(f"{n}*{axis}" for n in (2, 4, 8) for axis in ("rows", "columns"))}
    step = onnx.load(exported / "step.onnx")
    deformable = {"standard": "DeformConv", "gridsample": "GridSample"}[OWN]
    assert [node.op_type for node in step.graph.node].count(deformable) == 1
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in step.graph.input}
    for key, channels, _ in session.read_exported(exported / "step.onnx").state:
        assert shapes[key][1] == channels


def test_a_burst_network_is_one_graph(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "net.pt", UNet("rgb", frames=2, features=2), {})
    files, found = to_onnx.export_onnx(tmp_path / "net.pt", tmp_path / "net", verify=True, frames=2)
    assert [file.name for file in files] == ["burst.onnx"] and {one.what for one in found} == {"image"}
    assert max(one.largest for one in found) < 1e-5
    facts = session.read_exported(files[0])
    assert (facts.frames, facts.encoding, facts.step_px, facts.halo_px) == (2, "srgb", 16, 160)
    own, torchs = session.load(tmp_path / "net", threads=1), load_fuser(tmp_path / "net.pt", threads=1)
    for frame in frames(2, 61, 83):
        own.push(frame)
        torchs.push(frame)
    np.testing.assert_allclose(own.finish().image, torchs.finish().image, rtol=0, atol=1e-4)
    with pytest.raises(ArgumentError, match="takes 2 frames, got 3"):
        to_onnx.export_onnx(tmp_path / "net.pt", tmp_path / "other", frames=3)


@pytest.mark.parametrize(("make", "step"), [(FocusDeep, 4), (UNet, 16)])
def test_sizes_are_mirrored_as_the_network_does(make, step):
    """The exported fuser's part in that, with torch in the place of the runtime."""
    torch.manual_seed(0)
    net = make("rgb", frames=2, features=8).eval()
    facts = graphs_of(net, {}, None, "standard")[0].facts
    sizes: set[tuple[int, ...]] = set()

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        sizes.add(inputs["frames"].shape[3:])
        with torch.no_grad():
            return [net(torch.from_numpy(inputs["frames"])).numpy()]

    own, torchs = fuser_of(Exported(facts, {}, {}, {"burst": run}), threads=1), BurstFuser(net, threads=1)
    for frame in frames(2, 37, 53):
        own.push(frame)
        torchs.push(frame)
    np.testing.assert_allclose(own.finish().image, torchs.finish().image, rtol=0, atol=1e-6)
    assert facts.step_px == step and sizes == {(-(-37 // step) * step, -(-53 // step) * step)}


# --- fusing ------------------------------------------------------------


def test_tiles_against_torch(checkpoint, exported, tmp_path):
    burst = frames(2, 61, 83)
    seen = np.ones((61, 83), np.uint8)
    seen[:, :20] = 0
    truth = StreamFuser(to_onnx.load_model(checkpoint)[0], noise=NOISE, threads=1)
    whole = session.load(exported, noise=NOISE, threads=1, tile_px=512)
    tiled = session.load(exported / "step.onnx", noise=NOISE, threads=1, tile_px=24, memory=0, folder=tmp_path)
    results = []
    for fuser in (truth, whole, tiled):
        fuser.push(burst[0])
        fuser.push(burst[1], seen, index=4)
        results.append(fuser.finish())
    for got in results[1:]:
        for what in ("image", "depth", "confidence"):
            np.testing.assert_allclose(getattr(got, what), getattr(results[0], what), rtol=0, atol=1e-4, err_msg=what)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
import numpy as np
import pyfocus
from pyfocus.fusers import resolve_fuser
fuser = resolve_fuser(sys.argv[1], threads=1, noise=(1e-3, 1e-6))
y, x = np.mgrid[:48, :64]
picture = (127 + 60 * np.sin(x / 3) * np.cos(y / 4)).astype(np.uint8)[..., None].repeat(3, -1)
print(pyfocus.stack([picture, picture], fuser=fuser, align=False).image().shape)
"""


def test_torch_is_not_needed(exported):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(exported)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "(48, 64, 3)"), done.stderr


# --- commands ----------------------------------------------------------


def test_info_and_verify(exported, checkpoint, capsys):
    assert exporting.main(["info", str(exported / "step.onnx"), "--json"]) == 0
    texts = json.loads(capsys.readouterr().out)[str(exported / "step.onnx")]
    assert texts[PREFIX + "part"] == "step" and json.loads(texts[PREFIX + "step_px"]) == 8
    assert exporting.main(["info", str(exported / "finish.onnx")]) == 0
    assert re.search(r"pyfocus\.halo_px +\d+\n", capsys.readouterr().out)
    other = checkpoint.with_name("other.pt")
    torch.manual_seed(9)
    save_model(other, FocusDeepStream("tiny"), {})
    assert exporting.main(["verify", str(other), str(exported), "--json"]) == 1
    out, err = capsys.readouterr()
    assert {one["other"] for one in json.loads(out)["differences"]} == {"ONNX Runtime", "the reference evaluator"}
    assert re.search(r"differs from torch by .*1e-04 allowed", err)


def test_what_is_not_alike_is_not_written(checkpoint, tmp_path, monkeypatch, capsys):
    wrong = [verify.Difference("image", "torch", "ONNX Runtime", float("nan"), 0.0, 200.0, "fp32")]
    monkeypatch.setattr(to_onnx, "compare", lambda *given: wrong)
    monkeypatch.setattr(to_onnx, "to_model", lambda graph: onnx.ModelProto(ir_version=10))
    with pytest.raises(ExportError, match="nothing was written: image of ONNX Runtime differs"):
        to_onnx.export_onnx(checkpoint, tmp_path / "out", verify=True)
    assert exporting.main(["onnx", str(checkpoint), "-o", str(tmp_path / "out"), "--verify"]) == 1
    assert list((tmp_path / "out").iterdir()) == []


# --- what is refused ---------------------------------------------------


def test_bad_files(exported, tmp_path):
    step = (exported / "step.onnx").read_bytes()
    cases = {
        "text": (b"a picture", "cut short, damaged or no ONNX model"),
        "short": (step[: len(step) // 2], "cut short, damaged or no ONNX model"),
        "empty": (b"", "pyfocus-export did not write it|cut short"),
    }
    model = onnx.load(exported / "step.onnx")
    del model.metadata_props[:]
    cases["other"] = (model.SerializeToString(), "pyfocus-export did not write it")
    cases["newer"] = (_with(exported, "version", "9"), "of version 9 .*export the checkpoint again")
    cases["damaged"] = (_with(exported, "step_px", "[8"), r"pyfocus\.step_px is damaged")
    cases["lacking"] = (_with(exported, "halo_px", None), r"lacks pyfocus\.halo_px")
    cases["inputs"] = (_with(exported, "inputs", '["a"]'), "its metadata says a")
    for name, (data, text) in cases.items():
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(data)
        with pytest.raises(ReadError, match=text) as caught:
            session.load(file, threads=1)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(ReadError, match=r"none\.onnx: there is no such file"):
        session.load(tmp_path / "none.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ReadError, match=r"holds no step\.onnx or burst\.onnx"):
        session.load(tmp_path / "folder")


def test_files_that_do_not_belong_together(exported, tmp_path):
    (tmp_path / "step.onnx").write_bytes((exported / "step.onnx").read_bytes())
    with pytest.raises(ReadError, match=r"needs finish\.onnx beside it"):
        session.load(tmp_path)
    (tmp_path / "finish.onnx").write_bytes(_with(exported, "weights", "0" * 64, "finish"))
    with pytest.raises(ReadError, match="different weights"):
        session.load(tmp_path)


def test_bad_options(checkpoint, exported, tmp_path, capsys):
    for options, text in (
        ({"variant": "einsum"}, "variant must be one of standard, gridsample, plugin, got 'einsum'"),
        ({"precision": "fp16"}, "precision must be one of fp32, mixed, got 'fp16'"),
        ({"tile": (64, 60)}, "tile must be multiples of 8 for FocusDeepStream, got 64 x 60"),
    ):
        with pytest.raises(ArgumentError, match=re.escape(text)):
            to_onnx.export_onnx(checkpoint, tmp_path / "out", **options)
    with pytest.raises(WriteError, match=r"step\.onnx: exists already"):
        to_onnx.export_onnx(checkpoint, exported)
    with pytest.raises(ReadError, match=r"none\.pt"):
        to_onnx.export_onnx(tmp_path / "none.pt", tmp_path / "out")
    assert exporting.main(["onnx", str(checkpoint)]) == 2 and exporting.main(["verify", "a.pt", "b.pt"]) == 1
    assert "must be an exported model" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match=r"must be one of .*average, .*focusdeep, a model's file"):
        resolve_fuser("model.bin")


@pytest.mark.parametrize(("missing", "extra"), [("onnxruntime", "onnx"), ("onnxscript", "export")])
def test_what_is_not_installed_is_named(missing, extra, checkpoint):
    lines = f"import sys; sys.modules[{missing!r}] = None; from pyfocus.cli.exporting import main; sys.exit(main())"
    command = [sys.executable, "-c", lines, "onnx", str(checkpoint), "-o", str(checkpoint.parent / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"needs {missing}, which is not installed: pip install 'pyfocus-stack[{extra}]'" in done.stderr


def test_a_runtime_without_cuda(exported):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ResourceError, match=r"no CUDA; .*pyfocus-stack\[gpu\]"):
        session.load(exported, device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert session.open_exported(exported, "auto", 1).facts.part == "step"


def _with(exported: Path, key: str, text: str | None, part: str = "step") -> bytes:
    """A file with one text of its metadata changed, or left out."""
    model = onnx.load(exported / f"{part}.onnx")
    kept = [(p.key, p.value) for p in model.metadata_props if p.key != PREFIX + key]
    del model.metadata_props[:]
    for name, value in [*kept, *([(PREFIX + key, text)] if text is not None else [])]:
        model.metadata_props.add(key=name, value=value)
    data: bytes = model.SerializeToString()
    return data
