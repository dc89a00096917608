"""Whole networks in every variant and precision, against torch, in ONNX Runtime and in ONNX's reference evaluator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from export_cases import KNOWS_DEFORM, OWN, Translated, needs_deform  # noqa: E402

from pyfocus import cli  # noqa: E402
from pyfocus.cli import exporting  # noqa: E402
from pyfocus.errors import PyfocusError, ReadError  # noqa: E402
from pyfocus.export import nodes, session, verify  # noqa: E402
from pyfocus.export.facts import PRECISIONS, PREFIX, VARIANTS, Facts, read_facts  # noqa: E402
from pyfocus.export.graphs import without_norms  # noqa: E402
from pyfocus.nn.checkpoint import load_model  # noqa: E402
from pyfocus.nn.focusdeep import FocusDeep  # noqa: E402
from pyfocus.nn.fusers import SHIPPED, WEIGHTS  # noqa: E402
from pyfocus.nn.simulate.simulation import Simulation  # noqa: E402

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
# What counts or measures, and so is never in half.
SINGLE = {
    "Tanh", "Sigmoid", "Exp", "Log", "Sqrt", "Div", "Mul", "Sub", "Pow", "Clip", "Einsum", "AveragePool", "ReduceMean",
    "ReduceMin", "GridSample", "DeformConv",
}  # fmt: skip
LITE = WEIGHTS / SHIPPED["focusdeep"]
ALL = [(variant, precision) for variant in VARIANTS for precision in PRECISIONS]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lite(shipped_exports) -> Translated:
    """The shipped network, for tiles of any size."""
    return shipped_exports


@pytest.fixture(scope="module")
def burst() -> verify.Burst:
    """Four noisy frames of a simulated bracket."""
    drawn = Simulation(size=48, frames=4, noise=(1e-3, 4e-6), seed=2).draw(0)
    frames = drawn.frames[..., :16, :24].numpy()
    return verify.Burst(frames, drawn.noise.numpy(), drawn.white_balance.numpy())


def models_of(folder: Path) -> dict[str, onnx.ModelProto]:
    return {file.stem: onnx.load(file) for file in sorted(folder.glob("*.onnx"))}


def texts_in(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key.removeprefix(PREFIX): entry.value for entry in model.metadata_props}


def facts_in(model: onnx.ModelProto) -> Facts:
    return read_facts("model", {PREFIX + key: text for key, text in texts_in(model).items()})


# --- what comes out ----------------------------------------------------


@pytest.mark.parametrize(("variant", "precision"), ALL)
def test_the_shipped_network_in_all_runtimes(variant, precision, lite, burst):
    runtimes = verify.RUNTIMES if KNOWS_DEFORM or variant == "gridsample" else verify.RUNTIMES[1:]
    found = verify.compare(LITE, lite.files(variant, precision), burst, runtimes)
    assert [one.wrong for one in found] == [""] * 3 * len(runtimes)
    assert {one.other for one in found} == set(runtimes) and {one.base for one in found} == {"torch"}
    assert {one.precision for one in found} == {precision}
    worst = max(one.largest for one in found)
    evaluated = max(one.largest for one in found if one.other == "the reference evaluator")
    if precision == "fp32":
        assert worst <= 1e-4
    else:  # rounded for true, which ONNX Runtime on the CPU need not be
        assert evaluated > 1e-5
        assert min(one.psnr_db for one in found if one.what == "image") >= 60


def test_a_raw_bracket_through_the_command(lite, raw_bursts, tmp_path):
    """Read, registered, demosaiced, fused and written: in ONNX Runtime as in torch."""
    pictures = []
    for name, fuser in (("torch", LITE), ("exported", lite.files(OWN, "fp32"))):
        out = tmp_path / f"{name}.tif"
        words = ["-o", str(out), "--fuser", str(fuser), "--threads", "1", "--quiet"]
        assert cli.main(["stack", str(raw_bursts / "cup1" / "frames"), *words]) == 0
        pictures.append(tifffile.imread(out))
    assert pictures[0].dtype == np.uint16 and pictures[0].std() > 1000
    first, second = (picture.astype(float) for picture in pictures)
    np.testing.assert_allclose(second, first, rtol=0, atol=6.5)  # 1e-4 of 65535; measured 1


# --- what is in the files ----------------------------------------------


@pytest.mark.parametrize(("variant", "precision"), ALL)
def test_nodes_and_types(variant, precision, lite):
    own = {"standard": "DeformConv", "gridsample": "GridSample", "plugin": "DeformConv2d"}
    for part, model in models_of(lite.files(variant, precision)).items():
        onnx.checker.check_model(model, full_check=True)
        found = [node.op_type for node in model.graph.node if node.op_type in own.values()]
        assert found == ([own[variant]] if part == "step" else [])
        assert [e.domain for e in model.opset_import] == ["", "pyfocus"][: 2 if variant == "plugin" else 1]
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        types = nodes.types_of(model)
        assert {types[value.name] for value in (*model.graph.input, *model.graph.output)} == {FLOAT}
        for node in model.graph.node:
            kinds = {types[name] for name in (*node.input, *node.output) if types.get(name) in (FLOAT, HALF)}
            means = node.op_type == "Conv" and node.input[1].endswith("_window")
            if node.op_type in SINGLE or precision == "fp32" or means:
                assert kinds <= {FLOAT}, node.op_type
            elif node.op_type == "Conv":
                assert kinds == {HALF}
        if variant == "plugin" and part == "step":
            data = HALF if precision == "mixed" else FLOAT
            node = next(node for node in model.graph.node if node.domain)
            assert [types[name] for name in node.input] == [data, FLOAT, FLOAT, data, data]


def test_mixed_files_are_half_as_large(lite):
    for variant in ("standard", "plugin"):
        folders = [lite.files(variant, precision) for precision in PRECISIONS]
        sizes = [sum(file.stat().st_size for file in folder.glob("*.onnx")) for folder in folders]
        assert sizes[1] < 0.55 * sizes[0]  # measured 0.53 and 0.51


def test_weights_keep_their_names(lite):
    net = load_model(LITE)[0]
    for precision in PRECISIONS:
        held = {}
        for model in models_of(lite.files("plugin", precision)).values():
            held |= {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        for name, value in net.named_parameters():
            found = held[f"net.{name}"]
            assert found.dtype == (np.float32 if precision == "fp32" or name == "lean" else np.float16), name
            np.testing.assert_array_equal(found.astype(np.float32), value.detach().numpy())  # half in their file, too


def test_the_facts_are_all_there(lite):
    texts = texts_in(models_of(lite.files("plugin", "mixed"))["step"])
    assert not [key for key, text in texts.items() if not text]
    assert (texts["variant"], texts["precision"], texts["network"]) == ("plugin", "mixed", "FocusDeepStream")
    assert re.fullmatch("[0-9a-f]{64}", texts["weights"])
    facts = facts_in(models_of(lite.files("plugin", "mixed"))["step"])
    assert (facts.layout, facts.channels, facts.frames, facts.step_px) == ("NCHW", "R G B of the camera", 0, 8)
    assert facts.colour_space == "linear camera RGB" and facts.halo_px > 0 and "shot" in facts.noise
    assert "0 is black" in facts.normalisation and facts.tile == () and json.loads(texts["version"]) == 1


def test_a_fixed_tile_has_sizes_throughout(tmp_path):
    fixed = Translated(load_model(LITE)[0], tmp_path, (48, 64), "step")
    for variant, precision in (("standard", "fp32"), ("plugin", "mixed")):
        model = models_of(fixed.files(variant, precision))["step"]
        assert facts_in(model).tile == (48, 64)
        known = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        values = {v.name: v.type.tensor_type.shape.dim for v in (*known.value_info, *known.output, *known.input)}
        made = {name for node in model.graph.node for name in node.output}
        assert made <= set(values)
        for name, dims in values.items():
            # The batch alone may change, and comes first.
            assert all(dim.HasField("dim_value") for dim in list(dims)[1:]), name
        assert [dim.dim_value for dim in values["frame"]] == [0, 3, 48, 64] and values["frame"][0].dim_param == "batch"


def test_norms_are_worked_out_beforehand():
    torch.manual_seed(0)
    for modulated in (False, True):
        net = FocusDeep("rgb", frames=2, features=8, modulated=modulated).eval()
        plain = without_norms(net)
        assert not [name for name, _ in plain.named_parameters() if name.endswith((".gain", ".direction"))]
        assert [name for name, _ in net.named_parameters() if name.endswith(".gain")]
        burst = torch.rand(1, 2, 3, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(plain(burst), net(burst), rtol=0, atol=0)


# --- comparing ---------------------------------------------------------


def test_verify_knows_the_variants(lite, capsys):
    folders = [str(lite.files(*one)) for one in ((OWN, "fp32"), ("plugin" if KNOWS_DEFORM else OWN, "mixed"))]
    assert exporting.main(["verify", *folders, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["limits"]) == set(PRECISIONS)
    assert {one["precision"] for one in told["differences"]} == {"mixed"} and len(told["differences"]) == 9
    assert exporting.main(["verify", str(Path(folders[1]) / "finish.onnx"), str(LITE)]) == 0
    assert re.search(r"image +torch against ONNX Runtime: .* on average, \d+ dB", capsys.readouterr().out)


def test_limits_by_precision():
    def one(what="image", largest=1e-5, mean=1e-6, psnr_db=100.0, precision="fp32"):
        return verify.Difference(what, "torch", "ONNX Runtime", largest, mean, psnr_db, precision).wrong

    assert not one() and not one(precision="mixed", largest=5e-3, mean=1e-4, psnr_db=61)
    assert one(largest=1.1e-4) == "image of ONNX Runtime differs from torch by 0.00011 at most, 1e-04 allowed in fp32"
    assert "nan at most" in one(largest=float("nan")) and "nan on average" in one(mean=float("nan"))
    assert "2e-05 on average, 1e-05 allowed" in one(mean=2e-5)
    assert "59.9 dB, 60 dB needed in mixed" in one(psnr_db=59.94, precision="mixed")
    assert not one("depth", psnr_db=40, precision="mixed")


def test_the_plugin_s_files_are_for_engines(lite):
    with pytest.raises(ReadError, match=r"node of the TensorRT plugin.*or export with --variant standard") as caught:
        session.load(lite.files("plugin", "fp32"), threads=1)
    assert "\n" not in str(caught.value)


@needs_deform
def test_damaged_files_of_the_plugin(lite, tmp_path):
    folder = lite.files("plugin", "fp32")
    for part in ("step", "finish"):
        data = (folder / f"{part}.onnx").read_bytes()
        (tmp_path / f"{part}.onnx").write_bytes(data[: len(data) // 2] if part == "finish" else data)
    with pytest.raises(ReadError, match=r"cut short|damaged") as caught:
        verify.compare(tmp_path, tmp_path)
    assert "finish.onnx" in str(caught.value) and "\n" not in str(caught.value)


def test_engines_are_opened_as_such(tmp_path):
    (tmp_path / "step.engine").write_bytes(b"no engine")
    for named in (tmp_path, tmp_path / "step.engine"):
        with pytest.raises(PyfocusError, match=r"step\.engine") as caught:
            verify.compare(named, named)
        assert "\n" not in str(caught.value)
