"""Triangle meshes to files: PLY (binary, vertex colours), OBJ (text, vertex colours), GLB (glTF 2.0, textured).

PLY: Turk, 1994. OBJ: Wavefront's, with the colours that most readers take behind a vertex' place. GLB: Khronos glTF
2.0.1, binary; its unit is the metre, so that the node is scaled by ``metres``; the picture is embedded as JPEG.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError
from .atomic import PathLike, check_target
from .write import Array, Buffers, _save

MESH_TARGETS = (".ply", ".obj", ".glb")
Floats = npt.NDArray[np.float32]

_FLOAT, _UINT = 5126, 5125  # glTF's component types
_VERTICES, _INDICES = 34962, 34963  # and buffer targets
_LINEAR, _LINEAR_MIPMAP, _CLAMP = 9729, 9987, 33071
_JPEG_QUALITY = 92


def write_mesh(
    path: PathLike,
    vertices: Floats,
    faces: npt.NDArray[np.uint32],
    *,
    colours: npt.NDArray[np.uint8],
    places: Floats,
    texture: npt.NDArray[np.uint8],
    metres: float = 1.0,
    overwrite: bool = False,
) -> Path:
    """Write a mesh as its name's suffix says (.ply, .obj, .glb) and return its path.

    ``vertices`` (V, 3) float32: x to the right, y up, z to the viewer; ``faces`` (F, 3) uint32, counterclockwise from
    the front. PLY and OBJ keep ``colours`` (V, 3) uint8; GLB the ``texture`` (h, w, 3) uint8, both sRGB, with
    ``places`` (V, 2) float32 of the vertices in it, from (0, 0), its top left corner, to (1, 1). ``metres``: length of
    a unit, which only GLB tells. Raises ArgumentError or WriteError.
    """
    target = check_target(path, overwrite, suffixes=MESH_TARGETS)
    count = len(vertices)
    if vertices.shape != (count, 3) or count == 0 or not np.isfinite(vertices).all():
        raise ArgumentError(f"write_mesh: vertices must be (V, 3) and finite, got {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or (faces.size and int(faces.max()) >= count):
        raise ArgumentError(f"write_mesh: faces must be (F, 3) numbers below {count}, got {faces.shape}")
    if colours.shape != (count, 3) or places.shape != (count, 2):
        raise ArgumentError(
            f"write_mesh: colours must be ({count}, 3) and places ({count}, 2), got {colours.shape} and {places.shape}"
        )
    suffix = target.suffix.lower()
    if suffix == ".ply":
        parts = _ply(vertices, faces, colours)
    elif suffix == ".obj":
        parts = _obj(vertices, faces, colours)
    else:
        parts = _glb(vertices, faces, places, texture, metres)
    return _save(target, parts, overwrite)


def _ply(vertices: Floats, faces: Array, colours: Array) -> Buffers:
    head = (
        "ply\nformat binary_little_endian 1.0\ncomment focus stack\n"
        f"element vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    points = np.empty(len(vertices), [("place", "<f4", 3), ("colour", "u1", 3)])
    points["place"], points["colour"] = vertices, colours
    corners = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    corners["count"], corners["corners"] = 3, faces
    return [head.encode(), points.tobytes(), corners.tobytes()]


def _obj(vertices: Floats, faces: Array, colours: Array) -> Buffers:
    lines = ["# focus stack: v x y z red green blue"]
    lines += [
        f"v {x:.7g} {y:.7g} {z:.7g} {r:.4f} {g:.4f} {b:.4f}"
        for (x, y, z), (r, g, b) in zip(vertices.tolist(), (colours / 255).tolist(), strict=True)
    ]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces.astype(np.int64) + 1).tolist()]
    return [("\n".join(lines) + "\n").encode()]


def _glb(vertices: Floats, faces: Array, places: Floats, texture: Array, metres: float) -> Buffers:
    import imagecodecs

    picture = bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(texture), level=_JPEG_QUALITY, subsampling="444"))
    blocks = [
        (vertices.astype("<f4").tobytes(), _VERTICES),
        (places.astype("<f4").tobytes(), _VERTICES),
        (faces.astype("<u4").tobytes(), _INDICES),
        (picture, None),
    ]
    views, body = [], b""
    for data, target in blocks:
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(body), "byteLength": len(data)}
        views.append(view if target is None else {**view, "target": target})
        body += data + bytes(-len(data) % 4)
    accessors = [
        {
            "bufferView": 0, "componentType": _FLOAT, "count": len(vertices), "type": "VEC3",
            "min": vertices.min(0).tolist(), "max": vertices.max(0).tolist(),
        },
        {"bufferView": 1, "componentType": _FLOAT, "count": len(places), "type": "VEC2"},
        {"bufferView": 2, "componentType": _UINT, "count": 3 * len(faces), "type": "SCALAR"},
    ]  # fmt: skip
    surface = {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0}
    scene = {
        "asset": {"version": "2.0", "generator": "pyfocus"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "scale": [metres] * 3}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": surface, "doubleSided": True}],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP, "wrapS": _CLAMP, "wrapT": _CLAMP}],
        "images": [{"bufferView": 3, "mimeType": "image/jpeg"}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }
    text = json.dumps(scene, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(body)
    if total > 0xFFFFFFFF:
        raise ArgumentError(f"write_mesh: {total} bytes are more than a GLB's 4 GB; write PLY, or fewer vertices")
    head = b"glTF" + struct.pack("<II", 2, total)
    return [head, struct.pack("<I", len(text)) + b"JSON", text, struct.pack("<I", len(body)) + b"BIN\0", body]
