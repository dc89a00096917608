"""Heights, provenance, meshes and views: values by hand, files read by their formats' specifications, the commands."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from command import files, make_burst, refuse, run
from PIL import Image

from pyfocus.errors import ArgumentError, WriteError
from pyfocus.io import write_height, write_mesh, write_provenance
from pyfocus.relief import heights_um, provenance, relief_mesh, render_relief

DEPTH = np.array([[0, 1, 2.5], [4, 3.25, 0]], np.float32)


def picture(h=40, w=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)


def ramp(h=40, w=60):
    return np.broadcast_to(np.linspace(0, 9, w, dtype=np.float32), (h, w)).copy()


def step_mesh(**how):
    depth = np.zeros((40, 60), np.float32)
    depth[:, 30:] = 4
    return relief_mesh(depth, picture(), 5, **how)


# --- maps --------------------------------------------------------------


def test_heights_grow_towards_the_camera():
    assert np.array_equal(heights_um(DEPTH, 5, 2.0), [[8, 6, 3], [0, 1.5, 8]])
    assert np.array_equal(heights_um(DEPTH, 5, 2.0, "last"), [[0, 2, 5], [8, 6.5, 0]])
    for wrong in ({"frames": 0}, {"step_um": 0.0}, {"step_um": np.nan}, {"near": "none"}):
        with pytest.raises(ArgumentError, match="heights_um: "):
            heights_um(**{"depth": DEPTH, "frames": 5, "step_um": 1.0, **wrong})


def test_provenance_is_the_nearest_frame_that_was_used():
    assert provenance(DEPTH, range(5)).tolist() == [[0, 1, 2], [4, 3, 0]]
    depth = np.random.default_rng(1).uniform(-1, 12, (9, 9)).astype(np.float32)
    used = [7, 0, 2, 9]
    want = np.array(sorted(used))[np.abs(depth[..., None] - np.array(sorted(used))).argmin(-1)]
    found = provenance(depth, used)
    assert found.dtype == np.uint16 and np.array_equal(found, want)
    for wrong in ([], [-1, 2], [70000]):
        with pytest.raises(ArgumentError, match="provenance: used"):
            provenance(depth, wrong)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_provenance_files_hold_the_numbers(tmp_path, suffix):
    frames = np.random.default_rng(2).integers(0, 300, (21, 34)).astype(np.uint16)
    path = write_provenance(tmp_path / f"p{suffix}", frames)
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), frames)
    with pytest.raises(ArgumentError, match="uint16"):
        write_provenance(tmp_path / "q.png", frames.astype(np.int32))


def test_height_files_hold_micrometres(tmp_path):
    height = np.random.default_rng(3).normal(0, 100, (21, 34)).astype(np.float32)
    height[3, 4] = np.nan
    path = write_height(tmp_path / "h.tif", height, pixel_um=2.5)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        assert np.array_equal(page.asarray(), height, equal_nan=True) and page.dtype == np.float32
        assert page.tags["ResolutionUnit"].value == 3  # centimetres
        top, bottom = page.tags["XResolution"].value
        assert top / bottom == pytest.approx(1e4 / 2.5)
    assert tifffile.imread(write_height(tmp_path / "d.tif", height.astype(float))).dtype == np.float32
    for wrong in ({"height_um": height[None]}, {"height_um": np.zeros((3, 4), int)}, {"pixel_um": -1.0}):
        with pytest.raises(ArgumentError, match="write_height: "):
            write_height(**{"path": tmp_path / "x.tif", "height_um": height, **wrong})
    with pytest.raises(WriteError, match=r"must end in \.tif"):
        write_height(tmp_path / "x.png", height)
    before = path.read_bytes()
    with pytest.raises(WriteError, match="exists already"):
        write_height(path, height)
    assert path.read_bytes() == before


# --- meshes ------------------------------------------------------------


def test_a_mesh_is_the_depth_in_space():
    mesh = step_mesh(step_um=10.0, pixel_um=2.0)
    x, y, z = mesh.vertices.T
    assert len(z) == 40 * 60 and mesh.metres == 1e-6
    assert np.ptp(x) == 59 * 2 and np.ptp(y) == 39 * 2 and set(z) == {40.0, 0.0}
    grid = mesh.vertices.reshape(40, 60, 3)
    assert (np.diff(grid[..., 0], axis=1) == 2).all() and (np.diff(grid[..., 1], axis=0) == -2).all()  # y is up
    assert np.array_equal(mesh.colours.reshape(40, 60, 3), picture()) and np.array_equal(mesh.texture, picture())
    at = mesh.places.reshape(40, 60, 2) * [60, 40] - 0.5
    np.testing.assert_allclose(at, np.stack(np.meshgrid(range(60), range(40)), axis=-1), atol=1e-4)
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(float) for k in range(3))
    assert len(mesh.faces) == 2 * 39 * 59 and (np.cross(b - a, c - a)[:, 2] > 0).all()  # all face the camera
    area = 0.5 * np.cross(b - a, c - a)[:, 2]
    assert area.sum() == pytest.approx(39 * 59 * 4)  # no cell is missing, none counted twice


def test_without_a_step_the_relief_is_a_fifth_of_the_side():
    mesh = step_mesh()
    assert np.ptp(mesh.vertices[:, 2]) == pytest.approx(12) and np.ptp(mesh.vertices[:, 0]) == 59
    assert np.array_equal(step_mesh(step_um=3.0).vertices, mesh.vertices)  # a step alone gives no proportions


@pytest.mark.parametrize("limit", [4, 5, 100, 777, 2399])
def test_a_mesh_keeps_to_its_limit(limit):
    mesh = relief_mesh(ramp(), picture(), 10, vertices=limit)
    assert limit // 3 < len(mesh.vertices) <= limit
    assert mesh.faces.max() == len(mesh.vertices) - 1
    mean = picture().reshape(-1, 3).mean(0)
    assert np.abs(mesh.colours.mean(0) - mean).max() < 4
    assert mesh.vertices[:, 2].mean() == pytest.approx(6, abs=0.2)  # half of a fifth of 60


def test_blocks_are_means():
    depth, shown = ramp(40, 60), picture()
    mesh = relief_mesh(depth, shown, 10, vertices=4 * 6)
    want = shown.astype(float).reshape(4, 10, 6, 10, 3).mean((1, 3))
    assert np.abs(mesh.colours.reshape(4, 6, 3) - want).max() <= 0.51
    heights = 12 - depth.astype(float) * 12 / 9
    np.testing.assert_allclose(mesh.vertices[:, 2].reshape(4, 6), heights.reshape(4, 10, 6, 10).mean((1, 3)), atol=1e-4)


def test_ply_is_what_its_header_says(tmp_path):
    mesh = step_mesh(vertices=500)
    data = write_mesh(tmp_path / "m.ply", **vars(mesh)).read_bytes()
    head, body = data.split(b"end_header\n", 1)
    lines = head.decode().split("\n")
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    kinds = {"float": "<f4", "uchar": "u1", "int": "<i4"}
    count, points = int(lines[3].split()[2]), [line.split() for line in lines[4:10]]
    vertex = np.dtype([(name, kinds[kind]) for _, kind, name in points])
    assert [name for _, _, name in points] == ["x", "y", "z", "red", "green", "blue"]
    found = np.frombuffer(body, vertex, count)
    assert np.array_equal(np.stack([found[n] for n in "xyz"], 1), mesh.vertices)
    assert np.array_equal(np.stack([found[n] for n in ("red", "green", "blue")], 1), mesh.colours)
    assert lines[11] == "property list uchar int vertex_indices"
    faces = np.frombuffer(body[count * vertex.itemsize :], np.dtype([("n", "u1"), ("i", "<i4", 3)]))
    assert (
        int(lines[10].split()[2]) == len(faces) and (faces["n"] == 3).all() and np.array_equal(faces["i"], mesh.faces)
    )


def test_obj_counts_from_one(tmp_path):
    mesh = step_mesh(vertices=500)
    lines = [line.split() for line in write_mesh(tmp_path / "m.obj", **vars(mesh)).read_text().splitlines()]
    points = np.array([line[1:] for line in lines if line[0] == "v"], float)
    faces = np.array([line[1:] for line in lines if line[0] == "f"], int)
    np.testing.assert_allclose(points[:, :3], mesh.vertices, rtol=1e-6)
    assert np.abs(points[:, 3:] * 255 - mesh.colours).max() < 0.02
    assert np.array_equal(faces - 1, mesh.faces) and {line[0] for line in lines} == {"v", "f", "#"}


def read_glb(data):
    """The JSON and the binary chunk by the glTF 2.0 specification, section 4.4, every length checked."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and length % 4 == 0
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    scene = json.loads(data[20 : 20 + size])
    length, kind = struct.unpack_from("<I4s", data, 20 + size)
    body = data[28 + size :]
    assert kind == b"BIN\0" and length == len(body) and len(body) - 3 <= scene["buffers"][0]["byteLength"] <= len(body)
    return scene, body


def accessor(scene, body, number):
    entry = scene["accessors"][number]
    view = scene["bufferViews"][entry["bufferView"]]
    kind = {5126: np.dtype("<f4"), 5125: np.dtype("<u4")}[entry["componentType"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[entry["type"]]
    assert view["byteOffset"] % 4 == 0 and view["byteLength"] == entry["count"] * width * kind.itemsize
    return np.frombuffer(body, kind, entry["count"] * width, view["byteOffset"]).reshape(-1, width)


def test_glb_follows_the_specification(tmp_path):
    smooth = cv2.GaussianBlur(picture(), (0, 0), 4)
    mesh = relief_mesh(ramp(), smooth, 10, vertices=500, step_um=5.0, pixel_um=1.0)
    scene, body = read_glb(write_mesh(tmp_path / "m.glb", **vars(mesh)).read_bytes())
    assert scene["asset"]["version"] == "2.0" and scene["nodes"][scene["scenes"][0]["nodes"][0]]["scale"] == [1e-6] * 3
    (part,) = scene["meshes"][0]["primitives"]
    place = part["attributes"]["POSITION"]
    assert np.array_equal(accessor(scene, body, place), mesh.vertices)
    assert scene["accessors"][place]["min"] == mesh.vertices.min(0).tolist()
    assert scene["accessors"][place]["max"] == mesh.vertices.max(0).tolist()
    assert np.array_equal(accessor(scene, body, part["attributes"]["TEXCOORD_0"]), mesh.places)
    assert np.array_equal(accessor(scene, body, part["indices"]).reshape(-1, 3), mesh.faces)
    surface = scene["materials"][part["material"]]["pbrMetallicRoughness"]
    image = scene["images"][scene["textures"][surface["baseColorTexture"]["index"]]["source"]]
    view = scene["bufferViews"][image["bufferView"]]
    shown = Image.open(io.BytesIO(body[view["byteOffset"] :][: view["byteLength"]]))
    assert shown.format == "JPEG" and image["mimeType"] == "image/jpeg"
    assert np.abs(np.asarray(shown).astype(int) - smooth).mean() < 3


def test_a_broken_mesh_is_refused(tmp_path):
    mesh = vars(step_mesh(vertices=50))
    for name, wrong in (
        ("vertices", np.full_like(mesh["vertices"], np.nan)), ("faces", mesh["faces"] + 60),
        ("faces", mesh["faces"].ravel()), ("colours", mesh["colours"][1:]), ("places", mesh["places"][:, :1]),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match="write_mesh: "):
            write_mesh(tmp_path / "m.ply", **{**mesh, name: wrong})
    with pytest.raises(WriteError, match=r"must end in \.ply, \.obj, \.glb"):
        write_mesh(tmp_path / "m.stl", **mesh)
    for wrong in (
        {"vertices": 3}, {"depth": DEPTH}, {"picture": picture().astype(float)}, {"pixel_um": 0.0, "step_um": 1.0},
        {"depth": np.full((40, 60), np.nan, np.float32)},
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=r"relief"):
            relief_mesh(**{"depth": ramp(), "picture": picture(), "frames": 10, **wrong})
    assert not list(tmp_path.iterdir())


# --- views -------------------------------------------------------------


def test_from_above_a_flat_relief_is_the_picture():
    shown = cv2.GaussianBlur(picture(), (0, 0), 4)
    view = render_relief(np.zeros((40, 60), np.float32), shown, 5, size_px=248, turn_deg=0, tilt_deg=0)
    inside = (view != 31).any(-1)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    cut = view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert cut.shape[1] / cut.shape[0] == pytest.approx(59 / 39, rel=0.03)
    assert (cut != 31).any(-1).mean() > 0.999  # no holes
    want = cv2.resize(shown, cut.shape[1::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(cut - want)[12:-12, 12:-12].max() < 12


def test_what_is_near_hides_what_is_behind_it():
    depth = np.full((80, 120), 4, np.float32)
    depth[40:60, 40:80] = 0  # a near, red block on a green plane
    shown = np.zeros((80, 120, 3), np.uint8)
    shown[..., 1] = 200
    shown[40:60, 40:80] = (200, 0, 0)
    view = render_relief(depth, shown, 5, size_px=300, turn_deg=0, tilt_deg=50)
    red, green = (view[..., 0] > 90) & (view[..., 1] < 60), view[..., 1] > 90
    assert red.sum() > 1500 and green.sum() > 10_000
    # the block stands between the eye and what is behind it: it reaches higher up than its foot on the plane would
    rows = np.flatnonzero(red.any(1))
    flat = render_relief(np.full_like(depth, 4), shown, 5, size_px=300, turn_deg=0, tilt_deg=50)
    foot = np.flatnonzero(((flat[..., 0] > 90) & (flat[..., 1] < 60)).any(1))
    assert rows[0] / view.shape[0] < foot[0] / flat.shape[0] - 0.05
    assert np.array_equal(view, render_relief(depth, shown, 5, size_px=300, turn_deg=0, tilt_deg=50))
    with pytest.raises(ArgumentError, match="render_relief: size_px"):
        render_relief(depth, shown, 5, size_px=4)


# --- the command -------------------------------------------------------


@pytest.fixture(scope="module")
def burst(tmp_path_factory) -> Path:
    return make_burst(tmp_path_factory.mktemp("burst"))


@pytest.mark.parametrize("fuser", ["depthmap", "laplacian"])
def test_everything_that_is_written_of_the_depth(tmp_path, burst, fuser):
    done = run(
        "stack", burst, "-o", "s.tif", "--fuser", fuser, "--depth", "d.png", "--provenance", "p.png", "--height",
        "h.tif", "--step-um", "20", "--pixel-um", "4", "--mesh", "m.glb", "--view", "v.png", "--mesh-vertices", "900",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sorted(Path(o["path"]).name for o in report["outputs"]) == sorted(files(tmp_path))
    size = (report["height"], report["width"])
    depth = cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED) / 65535 * 4
    height = tifffile.imread(tmp_path / "h.tif")
    np.testing.assert_allclose(height, 20 * (4 - depth), atol=0.01)
    frames = cv2.imread(str(tmp_path / "p.png"), cv2.IMREAD_UNCHANGED)
    assert frames.shape == size and frames.dtype == np.uint16 and np.abs(frames - depth).max() < 0.501
    scene, _ = read_glb((tmp_path / "m.glb").read_bytes())
    assert 300 < scene["accessors"][0]["count"] <= 900
    assert cv2.imread(str(tmp_path / "v.png")).shape[1] > 500


def test_step_and_pixel_come_from_the_files(tmp_path):
    stack = np.random.default_rng(1).integers(0, 65536, (3, 64, 80)).astype(np.uint16)
    facts = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 3.0}
    tifffile.imwrite(tmp_path / "z.ome.tif", stack, metadata=facts)
    done = run("stack", "z.ome.tif", "-o", "s.tif", "--no-align", "--height", "h.tif", "--near", "last", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    height = tifffile.imread(tmp_path / "h.tif")
    assert height.min() >= 0 and 3 < height.max() <= 6.001
    with tifffile.TiffFile(tmp_path / "h.tif") as tif:
        assert tif.pages[0].tags["XResolution"].value[0] / tif.pages[0].tags["XResolution"].value[1] == 2e4


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--height", "h.tif"], 2, "h.tif needs the focus step, which these files do not tell; add --step-um UM"),
        (["--height", "h.tif", "--step-um", "0"], 2, "must be micrometres above 0"),
        (["--height", "h.png", "--step-um", "2"], 1, "must end in .tif, .tiff"),
        (["--mesh", "m.stl"], 1, "must end in .ply, .obj, .glb"),
        (["--mesh", "s.tif"], 2, "s.tif is named twice as an output"),
        (["--mesh", "m.ply", "--mesh-vertices", "3"], 2, "must be a whole number from 4"),
        (["--mesh", "m.ply", "--fuser", "average"], 2, "need a fuser that judges sharpness"),
        (["--depth", "a.png", "--provenance", "a.png"], 2, "a.png is named twice as an output"),
        (["--fuser", "laplacian", "--near", "none"], 2, "--near none is for --fuser auto and depthmap"),
        (["--fuser", "depthmap", "--resume"], 2, "--resume is for networks"),
        (["--fuser", "depthmap", "--memory", "300KB"], 1, "memory allows"),
    ],
)
def test_what_the_command_refuses(tmp_path, burst, words, code, says):
    refuse("stack", burst, "-o", "s.tif", *words, cwd=tmp_path, code=code, says=says)


def test_nothing_is_overwritten_unasked(tmp_path, burst):
    (tmp_path / "m.glb").write_bytes(b"mine")
    refuse("stack", burst, "-o", "s.tif", "--mesh", "m.glb", cwd=tmp_path, code=1, says="exists already")
    done = run("stack", burst, "-o", "s.tif", "--mesh", "m.glb", "--overwrite", "-q", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "m.glb").read_bytes()[:4] == b"glTF"
